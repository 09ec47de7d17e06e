//! Installs libonnxruntime into the user's cache and prints what engines there are:
//! `cargo run --release -p tallow-runtime --example install`, as `tallow runtime install` and `info` do.

use tallow_runtime::{RuntimeError, install, runtime_report};

fn main() -> Result<(), RuntimeError> {
    let installed = install::install(install::Package::Cpu)?;
    println!(
        "{} {}",
        if installed.already { "was there:" } else { "installed:" },
        installed.library.display()
    );
    println!("{}", runtime_report(None, 0));
    Ok(())
}
