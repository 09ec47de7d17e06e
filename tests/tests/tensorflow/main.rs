//! TensorFlow itself reads what Tallow writes: models, checkpoints, data, event files.
//!
//! The tests run Python scripts of `tests/tensorflow` in an environment that `environment` makes in the user's cache
//! (tensorflow from PyPI, 1.6 GB) and keeps. Where it cannot be made they are reported as ignored, never as passed;
//! with `TALLOW_REQUIRE_TENSORFLOW=1` they fail. `TALLOW_TENSORFLOW_PYTHON` names a Python that has TensorFlow.
//! One looks at TensorBoard in Chromium; where that is not on the PATH it is ignored, or fails with
//! `TALLOW_REQUIRE_CHROMIUM=1`.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod environment;
#[path = "../fetched/mod.rs"]
mod fetched;
mod imports;
mod models;
#[path = "../op_cases/mod.rs"]
mod op_cases;
mod records;
mod tensorboard;

use std::process::ExitCode;

use environment::Environment;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let environment = if arguments.list { Environment::unmade() } else { Environment::prepare() };
    let mut trials = vec![environment.trial("environment::imports", |python| python.run("version.py", &[]))];
    trials.extend(models::trials(&environment));
    trials.extend(imports::trials(&environment));
    trials.extend(records::trials(&environment));
    trials.extend(tensorboard::trials(&environment));
    libtest_mimic::run(&arguments, trials).exit_code()
}
