//! What processes that trained together came to: one line that says which of them failed first, and why.

use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Result, anyhow};
use tallow_trainer::RunDir;

use super::{FLAG, Rank, said_by};
use crate::failure::{INTERRUPTED, USAGE, usage};

/// How the process of a rank failed.
struct Failure {
    rank: usize,
    status: ExitStatus,
    /// Its error, where it came to say one.
    error: Option<String>,
}

/// What all of them together came to; the training is kept in `run`.
pub fn verdict(ranks: &[Rank], run: &Path) -> Result<ExitCode> {
    let failures = ranks.iter().enumerate().filter(|(_, rank)| rank.failed() && !rank.killed);
    let failures: Vec<Failure> = failures
        .filter_map(|(number, rank)| {
            let error = std::fs::read_to_string(&rank.error).ok();
            Some(Failure { rank: number, status: rank.ended?, error })
        })
        .collect();
    let ended_by_signal = failures.iter().find_map(|failure| Some((failure.rank, signal(failure.status)?)));
    if let Some((rank, signal)) = ended_by_signal {
        return Err(anyhow!("{}{}", ended_by(rank, &signal), way_on(run, ranks.len())));
    }
    // Whoever only lost another one knows less than any other.
    let knows =
        |failure: &&Failure| failure.error.as_ref().is_some_and(|error| !error.contains(" lost rank "));
    let Some(first) = failures.iter().find(knows).or(failures.first()) else {
        let is_done = ranks.iter().all(|rank| rank.ended.is_some_and(|status| status.success()));
        return Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) });
    };
    let text = match &first.error {
        Some(error) if first.rank == 0 => error.clone(),
        Some(error) => said_by(first.rank, error),
        None => format!("rank {} failed ({}): what it said before says why", first.rank, first.status),
    };
    Err(if first.status.code() == Some(i32::from(USAGE)) { usage(text) } else { anyhow!(text) })
}

/// The signal that ended a process, such as `9 (SIGKILL)`. Windows has none.
fn signal(status: ExitStatus) -> Option<String> {
    status.to_string().strip_prefix("signal: ").map(str::to_owned)
}

/// What it means that a signal ended a rank, and what to do.
fn ended_by(rank: usize, signal: &str) -> String {
    let remedy = match signal.split_once(' ').unwrap_or((signal, "")).0 {
        "9" => {
            "most often by the kernel for want of memory: a smaller --batch-size, fewer --workers or \
             --checkpoint-activations need less"
        }
        "1" | "2" | "15" => "which somebody sent to it before it trained",
        _ => "a crash: report it together with what it said before, this is a bug",
    };
    format!("rank {rank} was ended by signal {signal}, {remedy}")
}

/// How the training goes on, where it has a checkpoint.
fn way_on(run: &Path, processes: usize) -> String {
    match RunDir::open(run) {
        Ok(kept) if kept.has_checkpoint() => format!(
            "; to go on from its last checkpoint: tallow train --resume {} {FLAG} {processes}",
            run.display()
        ),
        _ => String::new(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn signals_are_named_with_what_they_mean() {
        let said = |wait: i32| signal(ExitStatus::from_raw(wait)).map(|signal| ended_by(1, &signal));
        assert_eq!(said(0), None);
        assert_eq!(said(1 << 8), None);
        for (number, parts) in [
            (9, ["rank 1 was ended by signal 9 (SIGKILL), ", "for want of memory: a smaller --batch-size"]),
            (11, ["signal 11 (SIGSEGV), ", "report it"]),
            (15, ["signal 15 (SIGTERM), ", "somebody sent"]),
        ] {
            let text = said(number).unwrap();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
