//! A run's event files, read by TensorBoard's own accumulator and served by its own server.

use std::sync::atomic::AtomicBool;

use libtest_mimic::{Failed, Trial};
use tallow_trainer::config::InputConfig;
use tallow_trainer::progress::Progress;
use tallow_trainer::tensorboard::TensorboardConfig;
use tallow_trainer::{Config, Trainer};

use crate::environment::{Environment, Python};

pub fn trials(environment: &Environment) -> Vec<Trial> {
    vec![environment.trial("tensorboard::reads_a_resumed_run", reads_a_resumed_run)]
}

/// The run is interrupted twice, so that there are three event files in each folder, and then made longer.
fn reads_a_resumed_run(python: &Python) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
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
    python.run("event_files.py", &[run.as_os_str()])
}
