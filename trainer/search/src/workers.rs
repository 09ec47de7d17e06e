//! Candidates are trained by processes of their own, `tallow train`, so that each is a run like any other.
//! A process ends when its standard input does: none outlives the search, whichever way that ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tallow_builder::files::write_atomically;
use tallow_trainer::{Config, RunDir, metrics};

use crate::basis::Candidate;
use crate::error::{Error, Result};
use crate::journal::Measured;

/// The flag of `tallow train` that ties it to its standard input.
const TIED: &str = "--until-stdin-ends";
/// The variable by which CUDA shows a process some GPUs alone.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// What `tallow train` says where another process has the run.
const BUSY: &str = "another process trains in it";
/// What `tallow train` says where the candidate itself is to blame.
const DIVERGED: &str = "no longer a finite number";
/// How long a run may still be held by a process whose search has just been killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How candidates are trained.
#[derive(Clone, Debug)]
pub struct Workers {
    /// The `tallow` binary.
    pub program: PathBuf,
    /// Processes at once.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
    /// GPUs to share out among them; 0 or 1 leaves the device to the settings.
    pub gpus: usize,
}

/// A candidate under training.
pub(crate) struct Training {
    pub candidate: Candidate,
    /// Its place among those that train at once.
    pub slot: usize,
    run: PathBuf,
    child: Child,
    begun: Instant,
}

/// How a training ended.
pub(crate) enum End {
    Done(Measured),
    Interrupted,
    /// A training of a search that was killed had not ended yet.
    Busy,
}

impl Workers {
    /// Starts a candidate's training in the folder `run`, or goes on with it, in a place that is free.
    pub(crate) fn start(&self, candidate: Candidate, run: PathBuf, slot: usize) -> Result<Training> {
        wait_until_free(&run);
        let log_path = run.with_extension("log");
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(Error::io("write", &log_path))?;
        let errors = log.try_clone().map_err(Error::io("write", &log_path))?;
        let mut command = Command::new(&self.program);
        command.arg("train").arg(TIED).arg("--threads").arg(self.threads.to_string());
        if let Some(gpu) = self.gpu(slot, std::env::var(VISIBLE).ok().as_deref()) {
            command.env(VISIBLE, gpu);
        }
        if RunDir::open(&run).is_ok_and(|run| run.has_checkpoint()) {
            command.arg("--resume").arg(&run);
        } else {
            // What was killed as it began, or damaged since, is no run to go on with.
            if run.is_dir() {
                std::fs::remove_dir_all(&run).map_err(Error::io("remove", &run))?;
            }
            let settings = run.with_extension("toml");
            let mut config = Config { workers: self.threads, ..candidate.config.clone() };
            config.tensorboard.enabled = false;
            write_atomically(&settings, config.to_toml().as_bytes())?;
            command.arg("--config").arg(settings).arg("--run").arg(&run);
        }
        let child = command.stdin(Stdio::piped()).stdout(log).stderr(errors).spawn();
        let child = child.map_err(Error::io("start", &self.program))?;
        Ok(Training { candidate, slot, run, child, begun: Instant::now() })
    }

    /// The GPU of a place, as [`VISIBLE`] is to name it: each process by itself would take the first. No setting says it,
    /// so that a run is not tied to a GPU. `visible` are those that the search itself was given.
    fn gpu(&self, slot: usize, visible: Option<&str>) -> Option<String> {
        if self.gpus <= 1 {
            return None;
        }
        let number = slot % self.gpus;
        let named = visible.and_then(|visible| visible.split(',').nth(number));
        Some(named.map_or(number.to_string(), |named| named.trim().to_owned()))
    }
}

/// The first place that no training has.
pub(crate) fn free_slot(running: &[Training]) -> usize {
    first_free(&running.iter().map(|training| training.slot).collect())
}

fn first_free(taken: &BTreeSet<usize>) -> usize {
    (0..).find(|slot| !taken.contains(slot)).expect("numbers do not end")
}

impl Training {
    /// Asks the process to write a checkpoint and end.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Starts it anew, as the run was another process's.
    pub fn again(&mut self, workers: &Workers) -> Result<()> {
        let begun = self.begun;
        *self = workers.start(self.candidate.clone(), self.run.clone(), self.slot)?;
        self.begun = begun;
        Ok(())
    }

    /// How it ended, if it has.
    pub fn end(&mut self) -> Result<Option<End>> {
        let Some(status) = self.child.try_wait().map_err(Error::io("wait for", &self.run))? else {
            return Ok(None);
        };
        let Candidate { index, parameters, macs, .. } = self.candidate;
        let log = self.run.with_extension("log");
        match status.code() {
            Some(0) => Ok(Some(End::Done(self.measured()?))),
            Some(130) => Ok(Some(End::Interrupted)),
            _ => {
                let reason = last_error(&log).unwrap_or_else(|| format!("its process ended ({status})"));
                if reason.contains(BUSY) && self.begun.elapsed() < PATIENCE {
                    return Ok(Some(End::Busy));
                }
                if !reason.contains(DIVERGED) {
                    return Err(Error::Training { candidate: index, reason, log });
                }
                let diverged = Some(reason);
                let (top1, epoch, seconds) = (0.0, 0, 0.0);
                Ok(Some(End::Done(Measured {
                    candidate: index,
                    parameters,
                    macs,
                    top1,
                    epoch,
                    seconds,
                    diverged,
                })))
            }
        }
    }

    /// What its metrics.csv says: the first epoch with the best validation.
    fn measured(&self) -> Result<Measured> {
        let Candidate { index: candidate, parameters, macs, .. } = self.candidate;
        let rows = metrics::csv::read(&self.run.join("metrics.csv"))?;
        let mut found =
            Measured { candidate, parameters, macs, top1: 0.0, epoch: 0, seconds: 0.0, diverged: None };
        for row in rows {
            found.seconds += row.seconds;
            if let Some(validation) = row.validation
                && (found.epoch == 0 || validation.top1 > found.top1)
            {
                (found.top1, found.epoch) = (validation.top1, row.epoch);
            }
        }
        Ok(found)
    }
}

/// Where a search was killed, its last trainings end a moment later.
fn wait_until_free(run: &Path) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE && RunDir::is_busy(run) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The last error in a log, without its `error: `.
fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainings_at_once_get_gpus_in_turn_and_a_free_place_its_gpu_again() {
        let workers = |gpus| Workers { program: "tallow".into(), jobs: 5, threads: 1, gpus };
        let gpus = |visible| (0..5).map(|slot| workers(2).gpu(slot, visible).unwrap()).collect::<Vec<_>>();
        assert_eq!(gpus(None), ["0", "1", "0", "1", "0"]);
        // Of those that the search was given, not of all.
        assert_eq!(gpus(Some("5, GPU-7f")), ["5", "GPU-7f", "5", "GPU-7f", "5"]);
        // One GPU, or none, is what a process takes by itself.
        assert_eq!([0, 1].map(|gpus| workers(gpus).gpu(3, None)), [None, None]);
        assert_eq!(first_free(&BTreeSet::new()), 0);
        assert_eq!(first_free(&[0, 1, 3].into()), 2);
    }

    #[test]
    fn a_run_of_another_process_is_known_by_what_the_trainer_says() {
        let error = tallow_trainer::Error::RunBusy { path: "r".into() };
        assert!(error.to_string().contains(BUSY), "{error}");
    }

    #[test]
    fn a_diverged_training_is_known_by_what_the_trainer_says() {
        let (what, place, kept) = ("loss", "first in `fc`".into(), "there is none");
        let error = tallow_trainer::Error::NotFinite { what, epoch: 1, batch: 2, place, kept };
        assert!(error.to_string().contains(DIVERGED), "{error}");
    }
}
