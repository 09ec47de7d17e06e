//! Where a run computes and in which precision; what a step keeps on a GPU (`on_device`), and how many images fit
//! there (`memory`). `input` brings batches there.

mod config;
mod input;
pub(crate) mod memory;
mod on_device;

use candle_core::{DType, Device, Tensor};
use tallow_builder::kernels::{allow_tf32, cast};
pub use tallow_cuda::Precision;
use tallow_cuda::emulator;

pub use config::ComputeConfig;
pub(crate) use input::{Input, Inputs};
pub use memory::NoRoom;
pub(crate) use on_device::{LOSS_SCALE, OnDevice, StepLoss};

use crate::data::{Batch, Images};
use crate::error::{Error, Result};

/// A device, and the type of the numbers that are computed with there. Parameters are f32 in any case.
#[derive(Clone, Debug)]
pub struct Compute {
    device: Device,
    precision: Precision,
}

impl Compute {
    /// The CPU, in f32.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, precision: Precision::F32 }
    }

    /// What the settings say; `local` is this process's number on its host, and with it the GPU's.
    ///
    /// # Errors
    /// [`Error::Cuda`] where a GPU that was asked for cannot be used; [`Error::Setting`] for a precision that needs one.
    pub fn open(config: &ComputeConfig, local: usize) -> Result<Self> {
        let compute = Self { device: config.device.open(local)?, precision: config.precision };
        if config.precision != Precision::F32 && !compute.is_gpu() {
            let remedy = "needs a GPU, but the CPU computes here, which has f32 alone: choose --precision f32, or name a \
                          GPU, such as --device cuda:0";
            return Err(Error::Setting { name: "precision", value: config.precision.to_string(), remedy });
        }
        // It holds for the whole process, so what computes elsewhere leaves it alone.
        if compute.device.is_cuda() {
            allow_tf32(config.precision == Precision::Tf32);
        }
        Ok(compute)
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether the kernels for GPUs compute.
    pub fn is_gpu(&self) -> bool {
        self.device.is_cuda() || emulator::is_active()
    }

    /// The type of activations.
    pub fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// A batch's images `[N · views, 3, H, W]`, in the type that is computed in.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn images(&self, batch: &Batch) -> Result<Tensor> {
        if let Images::Bytes(bytes) = &batch.images
            && self.is_gpu()
        {
            return input::at_once(self, bytes, batch);
        }
        let shape = [batch.len() * batch.views.count(), 3, batch.height, batch.width];
        self.input(&batch.floats(), shape)
    }

    /// Normalised images of the host as a network's input of this shape, in the type that is computed in.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn input(&self, images: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        let images = Tensor::from_slice(images, &shape, &self.device)?;
        Ok(if self.is_gpu() { cast(&images, self.dtype())? } else { images })
    }

    /// A tensor's numbers as f32 on the host.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn to_host(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }
}
