//! How a command that failed says so: one line on standard error, and an exit code that tells wrong usage from
//! failure.

use std::process::ExitCode;

use tallow_distributed::Error as Distributed;
use tallow_exporter::Error as Export;
use tallow_hub::Error as Hub;
use tallow_models::Error as Models;
use tallow_runtime::RuntimeError as Runtime;
use tallow_search::Error as Search;
use tallow_trainer::Error as Train;

/// The command ended before its work was done because it was told to, as shells report a Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// The command line or a setting made no sense.
pub const USAGE: u8 = 2;
/// What to do where a GPU's memory is full.
const MAKE_ROOM: &str = "end what else uses the GPU (nvidia-smi shows it), or choose --device cpu";

/// A flag or setting that makes no sense: exit code 2.
#[derive(Debug)]
pub struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A wrong use of the command line, with the remedy.
pub fn usage(message: impl ToString) -> anyhow::Error {
    Usage(message.to_string()).into()
}

/// Standard output was closed, as by `| head`: nobody is left to tell.
#[derive(Debug)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output is closed")
    }
}

impl std::error::Error for Closed {}

/// Prints an error and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<Closed>() {
        return ExitCode::SUCCESS;
    }
    crate::output::note!("error: {}", text(error));
    code(error)
}

/// The exit code of a command that ended with this error.
pub fn code(error: &anyhow::Error) -> ExitCode {
    if is_usage(error) { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// What was tried, then why it failed, on one line. Many errors name their cause themselves; it is not said twice. A want
/// of a GPU's memory that nothing closer to it explains gets its remedy here.
pub fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| one_line(&cause.to_string())) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    // A process of several hands over a text that has it.
    if tallow_cuda::device::is_out_of_memory_text(&text) && !text.ends_with(MAKE_ROOM) {
        text += &format!(": {MAKE_ROOM}");
    }
    text
}

fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    lines.join(" ").trim_end().to_owned()
}

/// Errors are one line, with what to do at its end; candle would put the stack into it where RUST_BACKTRACE is set, as
/// many who write Rust have it for panics. RUST_LIB_BACKTRACE=1 asks for it by name.
pub fn without_stacks() {
    const STACKS: &str = "RUST_LIB_BACKTRACE";
    if std::env::var_os(STACKS).is_none() {
        // SAFETY: the program begins with this, before it has a second thread.
        unsafe { std::env::set_var(STACKS, "0") };
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(
                training(cause),
                Some(
                    Train::Setting { .. }
                        | Train::Fraction { .. }
                        | Train::SmallImages { .. }
                        | Train::Models(_)
                        | Train::NoSuchLayers { .. }
                        | Train::Distributed(Distributed::Environment { .. })
                )
            )
            || matches!(cause.downcast_ref(), Some(Distributed::Environment { .. }))
            || cause.is::<Models>()
            || matches!(
                cause.downcast_ref(),
                Some(Hub::Network(_) | Hub::NoNetwork { .. } | Hub::Name { .. } | Hub::Timeout { .. })
            )
            || matches!(
                cause.downcast_ref(),
                Some(Export::Opset { .. } | Export::Option { .. } | Export::Key { .. })
            )
            || matches!(
                cause.downcast_ref(),
                Some(
                    Runtime::UnknownEngine { .. }
                        | Runtime::UnknownValue { .. }
                        | Runtime::EngineOption { .. }
                        | Runtime::Output { .. }
                )
            )
            || matches!(
                cause.downcast_ref(),
                Some(tallow_conformance::Error::Option(_) | tallow_conformance::Error::HalfLayers { .. })
            )
            || matches!(
                cause.downcast_ref(),
                Some(Search::Setting { .. } | Search::AnotherSearch { .. } | Search::Models(_))
            )
    })
}

/// The trainer's error, as such or as a search meets it.
fn training<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Train> {
    match cause.downcast_ref() {
        Some(Search::Trainer(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_said_once_and_on_one_line() {
        let io = || std::io::Error::other("no room");
        let error = Err::<(), _>(io()).context("cannot write m.onnx: no room").unwrap_err();
        assert_eq!(text(&error), "cannot write m.onnx: no room");
        let error = Err::<(), _>(io()).context("cannot write m.onnx").unwrap_err();
        assert_eq!(text(&error), "cannot write m.onnx: no room");
        assert_eq!(one_line("shape mismatch:\n   [2]\n"), "shape mismatch: [2]");
    }

    #[test]
    fn a_full_gpu_is_told_with_what_to_do() {
        let driver = anyhow::anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        let said = text(&driver.context("cannot load w.safetensors"));
        assert!(said.starts_with("cannot load w.safetensors: ") && said.ends_with("--device cpu"), "{said}");
        assert_eq!(text(&anyhow::anyhow!(said.clone())), said);
    }

    #[test]
    fn settings_are_usage_and_files_are_not() {
        let setting = Train::Setting { name: "epochs", value: "0".into(), remedy: "choose at least 1" };
        assert!(is_usage(&setting.into()));
        assert!(is_usage(&tallow_models::find("resnet5").unwrap_err().into()));
        assert!(is_usage(&usage("no")));
        assert!(!is_usage(&anyhow::anyhow!("cannot read m.onnx")));
    }
}
