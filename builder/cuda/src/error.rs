//! What can go wrong besides what candle reports.

use std::path::PathBuf;

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors that tell what to do about them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A device's name is not understood. Who reads it says which name, and where.
    #[error("a device is cpu, auto or cuda:N, such as cuda:0")]
    Spec,
    /// A precision's name is not understood. Who reads it says which name, and where.
    #[error("a precision is f32, tf32, f16 or bf16")]
    Precision,
    /// A GPU was asked for in a build that cannot use one.
    #[error(
        "cuda:{index} was asked for, but this build of Tallow computes on the CPU alone: build it with \
         `--features cuda,cudnn`, or use --device cpu"
    )]
    NotBuilt {
        /// Which GPU.
        index: usize,
    },
    /// A GPU cannot be used.
    #[error(
        "cuda:{index} cannot be used: {reason}. `tallow runtime info` shows which GPUs and libraries are there; --device cpu computes without"
    )]
    Unusable {
        /// Which GPU.
        index: usize,
        /// The driver's reason.
        reason: String,
    },
    /// The host's compiler is needed to emulate kernels.
    #[error("kernels cannot be emulated: no C++ compiler `{compiler}` ({source}); install g++ or set CXX")]
    Compiler {
        /// Its command.
        compiler: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A kernel does not compile on the host.
    #[error("{source_name} does not compile for the host:\n{log}")]
    Compile {
        /// The file of kernels.
        source_name: &'static str,
        /// The compiler's output.
        log: String,
    },
    /// A file of the emulator cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A compiled kernel cannot be loaded on the host.
    #[error("{what} cannot be loaded: {source}")]
    Load {
        /// The library or kernel.
        what: String,
        /// The loader's reason.
        source: libloading::Error,
    },
}
