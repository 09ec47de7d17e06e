//! `tallow train --processes N`: N processes on this host that train together, as torchrun would start them. They end
//! together: with the last one where all goes well, with the first that fails, and with this one.

mod verdict;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::failure::{self, INTERRUPTED, usage};
use crate::interrupt;
use crate::output::note;

/// The flag that started this, and those that its processes get.
const FLAG: &str = "--processes";
const TIED: &str = "--until-stdin-ends";
const ERROR_FILE: &str = "--error-file";
const PAUSE: Duration = Duration::from_millis(20);
/// How long the others may take to say why they end, once one has failed.
const GRACE: Duration = Duration::from_secs(10);

/// A process.
struct Rank {
    child: Child,
    ended: Option<ExitStatus>,
    /// Whether this module ended it.
    killed: bool,
    /// Where it writes the error that ends it.
    error: PathBuf,
    /// Passes on what it says; rank 0 says it itself.
    relay: Option<JoinHandle<()>>,
}

/// Starts the processes with this one's arguments and waits for them. They train in `run`, which they are told where it
/// was `chosen` here and not said.
pub fn run(processes: usize, run: &Path, chosen: bool) -> Result<ExitCode> {
    if let Some(variable) = ["RANK", "WORLD_SIZE"].into_iter().find(|name| std::env::var_os(name).is_some()) {
        return Err(usage(format!(
            "{FLAG} starts the processes itself, but {variable} is set as a launcher sets it: leave out the one or the \
             other"
        )));
    }
    let pressed = listen()?;
    let port = tallow_distributed::free_port().context("cannot find a free port on 127.0.0.1")?;
    let errors = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut arguments = without_flag(std::env::args_os().skip(1));
    if chosen {
        arguments.extend(["--run".into(), run.into()]);
    }
    let mut ranks = vec![];
    for rank in 0..processes {
        let error = errors.path().join(rank.to_string());
        match start(&arguments, rank, processes, port, error) {
            Ok(started) => ranks.push(started),
            Err(error) => {
                ranks.iter_mut().for_each(Rank::kill);
                return Err(error);
            }
        }
    }
    wait(&mut ranks, pressed)?;
    ranks.iter_mut().filter_map(|rank| rank.relay.take()).for_each(|relay| drop(relay.join()));
    if pressed.load(Ordering::Relaxed) > 1 {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    verdict::verdict(&ranks, run)
}

/// How a process ends that [`run`] started: it hands its error over, because only all of them show whose it is.
pub fn handed_over(ended: Result<ExitCode>, file: &Path) -> Result<ExitCode> {
    let Err(error) = ended else { return ended };
    match std::fs::write(file, failure::text(&error)) {
        Ok(()) => Ok(failure::code(&error)),
        // Better said twice than not at all.
        Err(_) => Err(error),
    }
}

/// Counts how often Ctrl-C was pressed, or that standard input has ended where this process is tied to it.
fn listen() -> Result<&'static AtomicUsize> {
    static PRESSED: AtomicUsize = AtomicUsize::new(0);
    ctrlc::set_handler(|| {
        if PRESSED.fetch_add(1, Ordering::Relaxed) == 0 {
            note!("stopping after this batch; Ctrl-C again stops at once, without a checkpoint");
        }
    })
    .context("cannot listen for Ctrl-C")?;
    if std::env::args_os().any(|argument| argument == TIED) {
        interrupt::when_stdin_ends(|| _ = PRESSED.fetch_max(1, Ordering::Relaxed));
    }
    Ok(&PRESSED)
}

fn start(arguments: &[OsString], rank: usize, processes: usize, port: u16, error: PathBuf) -> Result<Rank> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command.args(arguments).arg(TIED).arg(ERROR_FILE).arg(&error);
    let numbers =
        [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", processes), ("LOCAL_WORLD_SIZE", processes)];
    command.envs(numbers.map(|(name, value)| (name, value.to_string())));
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    // A launcher around this one meant another rendezvous.
    command.env_remove("TORCHELASTIC_USE_AGENT_STORE");
    command.stdin(Stdio::piped());
    if rank > 0 {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    }
    // A Ctrl-C comes to this process alone, which passes it on once.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().with_context(|| format!("cannot start the process of rank {rank}"))?;
    let relay = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                note!("{}", said_by(rank, &line));
            }
        })
    });
    Ok(Rank { child, ended: None, killed: false, error, relay })
}

/// What a rank says, with its number, which some lines have already.
fn said_by(rank: usize, line: &str) -> String {
    if line.starts_with("rank ") { line.to_owned() } else { format!("rank {rank}: {line}") }
}

/// The arguments without this module's flag and its number, and without the one that each process gets anyway.
fn without_flag(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = vec![];
    let mut number_follows = false;
    for argument in arguments {
        if std::mem::take(&mut number_follows) {
            continue;
        }
        let text = argument.to_string_lossy();
        number_follows = text == FLAG;
        if !number_follows && text != TIED && !text.starts_with(&format!("{FLAG}=")) {
            kept.push(argument);
        }
    }
    kept
}

impl Rank {
    fn kill(&mut self) {
        if self.ended.is_none() {
            // It may have ended a moment ago.
            self.killed |= self.child.kill().is_ok();
        }
    }

    /// Whether it ended otherwise than well or by a Ctrl-C.
    fn failed(&self) -> bool {
        self.ended.is_some_and(|status| !matches!(status.code(), Some(0) | Some(130)))
    }
}

/// Waits for all to end; the rest is killed where one has failed, or where Ctrl-C is pressed again.
fn wait(ranks: &mut [Rank], pressed: &AtomicUsize) -> Result<()> {
    let mut failure: Option<Instant> = None;
    loop {
        for rank in ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
            rank.ended = rank.child.try_wait().context("cannot wait for a process")?;
        }
        if ranks.iter().all(|rank| rank.ended.is_some()) {
            return Ok(());
        }
        if failure.is_none() && ranks.iter().any(Rank::failed) {
            failure = Some(Instant::now());
        }
        let pressed = pressed.load(Ordering::Relaxed);
        if pressed > 0 {
            // Each stops as at a Ctrl-C when its standard input ends.
            ranks.iter_mut().for_each(|rank| drop(rank.child.stdin.take()));
        }
        if pressed > 1 || failure.is_some_and(|since| since.elapsed() > GRACE) {
            ranks.iter_mut().for_each(Rank::kill);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_taken_out_in_both_of_its_forms() {
        let kept = |line: &str| without_flag(line.split(' ').map(OsString::from)).join(" ".as_ref());
        assert_eq!(kept("train --processes 2 --data x"), "train --data x");
        assert_eq!(kept("train --data x --processes=2 --run y"), "train --data x --run y");
        assert_eq!(kept("train --until-stdin-ends --data x"), "train --data x");
    }
}
