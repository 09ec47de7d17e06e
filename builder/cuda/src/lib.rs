//! Kernels in CUDA C++ on candle's tensors.
//!
//! A [`Launch`] says which kernel of which [`Source`] runs on which grid with which arguments. [`run`] compiles the
//! source for the tensors' GPU through NVRTC when it is first used, and launches it on candle's stream. Where the
//! tensors are on the CPU and [`emulator::emulated`] is active, the same launch runs on the host: so everything but
//! the driver's calls is tested on machines without a GPU.

mod error;
mod launch;
mod memory;
mod precision;
mod table;

pub mod device;
#[cfg(feature = "cuda")]
mod driver;
pub mod emulator;
pub mod testing;
mod upload;

pub use device::DeviceSpec;
#[cfg(feature = "cuda")]
pub use driver::compile;
pub use error::{Error, Result};
pub use launch::{Arg, BLOCK, Launch, Source, Variant};
#[cfg(feature = "cuda")]
pub use memory::copied;
pub use memory::{empty, is_on_gpu, pointer};
pub use precision::Precision;
pub use table::{Row, Table};
pub use upload::{Sent, Uploader};

use candle_core::Device;

/// Runs `launch` on `device`, after everything that was launched there before. It does not wait for the end.
///
/// # Errors
/// Where the kernel does not compile or cannot be launched, and on a CPU outside [`emulator::emulated`].
pub fn run(device: &Device, launch: &Launch) -> candle_core::Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => driver::run(device, launch),
        Device::Cpu if emulator::is_active() => emulator::run(launch).map_err(candle_core::Error::wrap),
        _ => candle_core::bail!("{} is a kernel for GPUs", launch.kernel),
    }
}
