//! For tests that need a GPU.

use std::io::Write;

use candle_core::Device;

use crate::device::DeviceSpec;

/// The first GPU. Where there is none, this says on standard error that `test` was not run there and gives `None`.
///
/// # Panics
/// There, with `TALLOW_REQUIRE_CUDA=1` in the environment: a test that must run on a GPU fails instead of passing unrun.
pub fn gpu(test: &str) -> Option<Device> {
    let error = match DeviceSpec::Cuda(0).open(0) {
        Ok(device) => return Some(device),
        Err(error) => error,
    };
    let required = std::env::var_os("TALLOW_REQUIRE_CUDA").is_some_and(|value| value == "1");
    assert!(!required, "{test}: TALLOW_REQUIRE_CUDA is set, but {error}");
    // Past the test harness, which shows what passing tests print to nobody.
    let _ = writeln!(std::io::stderr(), "{test}: NOT RUN on a GPU, emulated at most: {error}");
    None
}
