//! A run's event files, read by TensorBoard's own accumulator, served by its own server and looked at in a browser.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use tallow_trainer::config::InputConfig;
use tallow_trainer::progress::Progress;
use tallow_trainer::tensorboard::TensorboardConfig;
use tallow_trainer::{Config, Trainer};

use crate::environment::{Environment, Python};

pub fn trials(environment: &Environment) -> Vec<Trial> {
    vec![
        environment.trial("tensorboard::reads_a_resumed_run", reads_a_resumed_run),
        environment.browser_trial("tensorboard::shows_every_page", shows_every_page),
    ]
}

fn reads_a_resumed_run(python: &Python) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    python.run("event_files.py", &[resumed_run(folder.path())?.as_os_str()])
}

/// The pictures stay in `target/tmp/tensorboard`, for people.
fn shows_every_page(python: &Python, browser: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let run = resumed_run(folder.path())?;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tensorboard");
    python.run("screenshots.py", &[run.as_os_str(), browser.as_os_str(), pictures.as_os_str()])
}

/// The run is interrupted twice, so that there are three event files in each folder, and then made longer.
fn resumed_run(folder: &Path) -> Result<PathBuf, Failed> {
    let run = folder.join("run");
    let config = Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        epochs: 2,
        batch_size: 256,
        diagnose: true,
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        tensorboard: TensorboardConfig { scalar_steps: 1, picture_epochs: 1, ..TensorboardConfig::default() },
        ..Config::default()
    };
    let mut progress = Progress::hidden();
    Trainer::create(&run, config)?.train(&mut progress, &AtomicBool::new(true))?;
    Trainer::resume(&run, None)?.train(&mut progress, &AtomicBool::new(true))?;
    Trainer::resume(&run, Some(3))?.train(&mut progress, &AtomicBool::new(false))?;
    Ok(run)
}
