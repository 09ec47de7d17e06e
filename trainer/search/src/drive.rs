//! The loop of every search: candidates are trained, several at once, until all are or it is to stop.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::basis::Candidate;
use crate::error::{Error, Result};
use crate::journal::{Journal, Measured, Results};
use crate::workers::{End, Training, Workers, free_slot};

/// Time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);

/// What to train.
pub trait Plan {
    /// Candidates in all.
    fn len(&self) -> usize;

    /// Whether there is nothing to train.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The candidate with a number, asked for in order; `None` as long as it depends on results that are not there. It
    /// may depend on nothing else, so that a search that is gone on with has the same candidates.
    ///
    /// # Errors
    /// Where its network cannot be built.
    fn candidate(&mut self, index: usize, results: &Results) -> Result<Option<Candidate>>;
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All candidates are trained.
    Done,
    /// It was told to stop; the same search goes on where it was.
    Interrupted,
}

/// Trains the plan's candidates that the journal has no results of, until `stop` is set; `watch` hears of each.
///
/// # Errors
/// Where a training fails for another reason than that it diverges, or a file cannot be written.
pub fn drive(
    plan: &mut dyn Plan,
    journal: &mut Journal,
    workers: &Workers,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&Candidate, &Measured),
) -> Result<Ended> {
    let mut running: Vec<Training> = vec![];
    let ended = train(plan, journal, workers, stop, watch, &mut running);
    if ended.is_err() {
        // What was begun is kept: each writes a checkpoint.
        running.iter_mut().for_each(Training::stop);
        while running.iter_mut().any(|training| matches!(training.end(), Ok(None))) {
            std::thread::sleep(LOOK);
        }
    }
    let diverged: Vec<&String> =
        journal.results().values().filter_map(|found| found.diverged.as_ref()).collect();
    match ended {
        Ok(Ended::Done) if !plan.is_empty() && diverged.len() == journal.results().len() => {
            Err(Error::AllDiverged { reason: diverged[0].clone() })
        }
        other => other,
    }
}

fn train(
    plan: &mut dyn Plan,
    journal: &mut Journal,
    workers: &Workers,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&Candidate, &Measured),
    running: &mut Vec<Training>,
) -> Result<Ended> {
    journal.check_count(plan.len())?;
    let mut next = 0;
    let mut stopping = false;
    loop {
        stopping |= stop.load(Ordering::Relaxed);
        while !stopping && next < plan.len() && running.len() < workers.jobs.max(1) {
            let Some(candidate) = plan.candidate(next, journal.results())? else { break };
            next += 1;
            journal.check(&candidate)?;
            if !journal.results().contains_key(&candidate.index) {
                let run = journal.run(candidate.index);
                running.push(workers.start(candidate, run, free_slot(running))?);
            }
        }
        if stopping {
            running.iter_mut().for_each(Training::stop);
        }
        if running.is_empty() {
            return Ok(finished(plan, journal));
        }
        let mut gone = BTreeSet::new();
        for (i, training) in running.iter_mut().enumerate() {
            match training.end()? {
                None => {}
                Some(End::Done(found)) => {
                    journal.append(found.clone())?;
                    watch(&training.candidate, &found);
                    gone.insert(i);
                }
                Some(End::Busy) => training.again(workers)?,
                // A terminal's Ctrl-C reaches every process; some hear it before the search does.
                Some(End::Interrupted) => {
                    stopping = true;
                    gone.insert(i);
                }
            }
        }
        let mut place = 0..;
        running.retain(|_| place.next().is_none_or(|i| !gone.contains(&i)));
        if gone.is_empty() {
            std::thread::sleep(LOOK);
        }
    }
}

fn finished(plan: &dyn Plan, journal: &Journal) -> Ended {
    let all = (0..plan.len()).all(|index| journal.results().contains_key(&index));
    if all { Ended::Done } else { Ended::Interrupted }
}
