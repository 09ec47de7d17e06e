//! What tests of whole runs share.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tallow_trainer::progress::Progress;
use tallow_trainer::{Outcome, Trainer};

/// Trains to the end.
pub fn finish(trainer: &mut Trainer) -> Outcome {
    trainer.train(&mut Progress::hidden(), &AtomicBool::new(false)).unwrap()
}

/// Every file of a checkpoint; times differ from run to run and are left out.
pub fn contents(run: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = run.join("checkpoints/last");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut bytes = std::fs::read(path).unwrap();
        if name == "state.json" {
            let mut state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            state["seconds"] = 0.into();
            bytes = state.to_string().into_bytes();
        }
        (name, bytes)
    };
    files.iter().map(read).collect()
}

/// Trains so many batches: with `stop` set, each call ends after one.
pub fn train_until(trainer: &mut Trainer, batches: usize) -> Outcome {
    let stop = AtomicBool::new(true);
    let outcomes = (0..batches).map(|_| trainer.train(&mut Progress::hidden(), &stop).unwrap());
    outcomes.last().unwrap()
}
