//! Who computes a network, on what, and in which numbers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor};
use tallow_builder::kernels::allow_tf32;
use tallow_builder::{Network, Weights};
use tallow_cuda::DeviceSpec;
use tallow_runtime::{EngineKind, EngineOptions};

use super::{Precision, emulated};
use crate::engines::{Source, serving};
use crate::images::Images;
use crate::outputs::Series;
use crate::report::Outcome;
use crate::tensors::{to_array, to_tensor};
use crate::verify::VerifyOptions;

/// Where candle computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The CPU, by its own kernels.
    Cpu,
    /// A GPU.
    Gpu(usize),
    /// The CPU, by the kernels for GPUs: slow, and in cuDNN's and cuBLAS's place the CPU's own.
    Emulated,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The layer graph in candle.
    Candle {
        /// Where.
        place: Place,
        /// In which numbers.
        precision: Precision,
    },
    /// The file in an engine of the runtime, in f16 the file's float16 export.
    Served {
        /// Which one.
        engine: EngineKind,
        /// In which numbers.
        precision: Precision,
    },
}

/// What a side may run.
pub(super) struct Sources<'a> {
    pub path: &'a Path,
    pub half: Option<&'a Path>,
    pub network: &'a Network,
    pub images: &'a [Images],
}

impl Side {
    /// Every side that there can be, with candle's rows on GPU number `gpu`.
    pub fn all(gpu: usize) -> Vec<Self> {
        let on_gpu = Precision::ALL.map(|precision| Self::Candle { place: Place::Gpu(gpu), precision });
        let served = |precision| move |engine| Self::Served { engine, precision };
        let single = [EngineKind::OrtCuda, EngineKind::Ort, EngineKind::Tract].map(served(Precision::F32));
        let half = [EngineKind::OrtCuda, EngineKind::Ort].map(served(Precision::F16));
        on_gpu.into_iter().chain(single).chain(half).collect()
    }

    /// The kernels for GPUs on the host, in every precision that they compute in by themselves.
    pub fn emulated() -> Vec<Self> {
        let precisions = [Precision::F32, Precision::F16, Precision::Bf16];
        precisions.map(|precision| Self::Candle { place: Place::Emulated, precision }).to_vec()
    }

    pub(super) fn precision(self) -> Precision {
        match self {
            Self::Candle { precision, .. } | Self::Served { precision, .. } => precision,
        }
    }

    pub(super) fn engine(self) -> String {
        match self {
            Self::Candle { .. } => "candle".into(),
            Self::Served { engine, .. } => engine.to_string(),
        }
    }

    pub(super) fn on(self, options: &VerifyOptions) -> String {
        match self {
            Self::Candle { place: Place::Cpu, .. } => "cpu".into(),
            Self::Candle { place: Place::Gpu(gpu), .. } => DeviceSpec::Cuda(gpu).to_string(),
            Self::Candle { place: Place::Emulated, .. } => "emulated".into(),
            Self::Served { engine, .. } if engine.is_gpu() => {
                format!("cuda:{}", options.engines.gpu.device_id())
            }
            Self::Served { .. } => "cpu".into(),
        }
    }

    /// The first output for each batch, and more about who gave it.
    pub(super) fn run(
        self,
        sources: &Sources<'_>,
        engines: &EngineOptions,
    ) -> (Result<Series, Outcome>, Option<String>) {
        match self {
            Self::Candle { place, precision } => (candle(sources, place, precision), None),
            Self::Served { engine, precision } => served(sources, engine, precision, engines),
        }
    }
}

fn not_run(reason: impl Into<String>) -> Outcome {
    Outcome::NotRun { reason: reason.into() }
}

fn candle(sources: &Sources<'_>, place: Place, precision: Precision) -> Result<Series, Outcome> {
    match (place, precision) {
        (Place::Cpu, Precision::Tf32 | Precision::F16 | Precision::Bf16) => {
            return Err(not_run("candle computes in f32 on the CPU"));
        }
        (Place::Emulated, Precision::Tf32) => return Err(not_run("TF32 is of GPUs' own products")),
        (Place::Gpu(gpu), _) => {
            device(&mut gpus(), gpu).map_err(|error| not_run(error.to_string()))?;
        }
        _ => {}
    }
    in_candle(sources.network, sources.images, place, precision)
        .map_err(|error| Outcome::Failed { reason: error.to_string() })
}

/// The network's output for each batch, in f32.
pub(super) fn in_candle(
    network: &Network,
    images: &[Images],
    place: Place,
    precision: Precision,
) -> tallow_builder::Result<Series> {
    let (device, _turn) = match place {
        Place::Cpu | Place::Emulated => (Device::Cpu, None),
        Place::Gpu(gpu) => {
            let mut gpus = gpus();
            (device(&mut gpus, gpu).map_err(candle_core::Error::wrap)?, Some(gpus))
        }
    };
    let dtype = precision.dtype();
    let network = moved(network, &device)?;
    let _tf32 = Tf32::allowed(precision == Precision::Tf32);
    let forward = |batch: &Images| -> tallow_builder::Result<_> {
        let images = to_tensor(&batch.floats)?.to_dtype(dtype)?.to_device(&device)?;
        let output = match place {
            Place::Emulated => emulated::forward(&network, &images)?,
            Place::Cpu | Place::Gpu(_) => network.forward(&images)?,
        };
        Ok(to_array(&output.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)?)
    };
    images.iter().map(forward).collect()
}

type Gpus = BTreeMap<usize, Device>;

/// The GPUs that were opened so far. Whoever has them computes alone: whether products are TF32's is the process's.
fn gpus() -> MutexGuard<'static, Gpus> {
    static GPUS: Mutex<Gpus> = Mutex::new(Gpus::new());
    GPUS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A GPU, opened once: each opening has a stream of its own, and cuDNN's handle stays on a thread's first.
fn device(gpus: &mut Gpus, gpu: usize) -> tallow_cuda::Result<Device> {
    if let Some(device) = gpus.get(&gpu) {
        return Ok(device.clone());
    }
    let device = DeviceSpec::Cuda(gpu).open(0)?;
    gpus.insert(gpu, device.clone());
    Ok(device)
}

/// The network with its weights on a device.
fn moved(network: &Network, device: &Device) -> tallow_builder::Result<Network> {
    let moved = |(name, tensor): (&str, &Tensor)| Ok((name.to_owned(), tensor.to_device(device)?));
    let tensors = network.weights().iter().map(moved).collect::<candle_core::Result<_>>()?;
    let graph = network.graph().clone();
    let weights = Weights::from_tensors(&graph, tensors, "the network that is verified")?;
    Ok(Network::new(graph, weights))
}

/// While it lives, products of f32 on GPUs may round their factors to TF32.
struct Tf32;

impl Tf32 {
    fn allowed(allowed: bool) -> Option<Self> {
        allowed.then(|| {
            allow_tf32(true);
            Self
        })
    }
}

impl Drop for Tf32 {
    fn drop(&mut self) {
        allow_tf32(false);
    }
}

fn served(
    sources: &Sources<'_>,
    engine: EngineKind,
    precision: Precision,
    engines: &EngineOptions,
) -> (Result<Series, Outcome>, Option<String>) {
    let path = match precision {
        Precision::F32 | Precision::Tf32 => sources.path,
        Precision::F16 => match sources.half {
            Some(path) => path,
            None => return (Err(not_run("there is no float16 export of the file")), None),
        },
        Precision::Bf16 => return (Err(not_run("there are no files in bf16")), None),
    };
    let mut engines = engines.clone();
    engines.gpu = engines.gpu.tf32(precision == Precision::Tf32);
    let engine = serving(Source::File(path), engine, &engines);
    let outputs = sources.images.iter().map(|batch| {
        let mut outputs = engine.run(batch)?;
        if outputs.is_empty() {
            return Err(Outcome::Failed { reason: "it gives no float32 output".into() });
        }
        Ok(outputs.swap_remove(0))
    });
    (outputs.collect(), engine.note)
}
