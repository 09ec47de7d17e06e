//! `tallow runtime`: the inference engines of this machine.

use anyhow::Result;
use tallow_runtime::{install, runtime_report};

use crate::output::{json, say};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Download libonnxruntime (a pinned wheel from PyPI, by pip) into the user's cache
    Install,
    /// Show which engines there are and where their libraries were looked for
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: &Args) -> Result<()> {
    match args.command {
        Command::Install => {
            let installed = install::install()?;
            let verb = if installed.already { "is already there:" } else { "is installed:" };
            say!("libonnxruntime {verb} {}", installed.library.display())
        }
        Command::Info { json: true } => json(&runtime_report(None)),
        Command::Info { json: false } => say!("{}", runtime_report(None)),
    }
}
