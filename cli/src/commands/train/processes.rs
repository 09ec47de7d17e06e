//! `tallow train --processes N`: N processes on this host that train together, as torchrun would start them. They end
//! together: with the last one where all goes well, with the first that fails, and with this one.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::failure::{INTERRUPTED, usage};
use crate::interrupt;
use crate::output::note;

/// The flag that started this, and those that its processes get.
const FLAG: &str = "--processes";
const TIED: &str = "--until-stdin-ends";
const PAUSE: Duration = Duration::from_millis(20);
/// How long the others may take to say why they end, once one has failed.
const GRACE: Duration = Duration::from_secs(10);

/// A process, and what it said last of all errors.
struct Rank {
    child: Child,
    ended: Option<ExitStatus>,
    error: Option<JoinHandle<Option<String>>>,
}

/// Starts the processes with this one's arguments and waits for them.
pub fn run(processes: usize) -> Result<ExitCode> {
    if let Some(variable) = ["RANK", "WORLD_SIZE"].into_iter().find(|name| std::env::var_os(name).is_some()) {
        return Err(usage(format!(
            "{FLAG} starts the processes itself, but {variable} is set as a launcher sets it: leave out the one or the \
             other"
        )));
    }
    let pressed = listen()?;
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.context("cannot find a free port on 127.0.0.1")?.port();
    let mut ranks = vec![];
    for rank in 0..processes {
        match start(rank, processes, port) {
            Ok(started) => ranks.push(started),
            Err(error) => {
                ranks.iter_mut().for_each(Rank::kill);
                return Err(error);
            }
        }
    }
    wait(&mut ranks, pressed)?;
    verdict(ranks)
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

fn start(rank: usize, processes: usize, port: u16) -> Result<Rank> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command.args(without_flag(std::env::args_os().skip(1))).arg(TIED);
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
    let error = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            let mut error = None;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                match line.strip_prefix("error: ") {
                    Some(text) => error = Some(text.to_owned()),
                    None => note!("rank {rank}: {line}"),
                }
            }
            error
        })
    });
    Ok(Rank { child, ended: None, error })
}

/// The arguments without this module's flag and its number.
fn without_flag(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = vec![];
    let mut number_follows = false;
    for argument in arguments {
        if std::mem::take(&mut number_follows) {
            continue;
        }
        let text = argument.to_string_lossy();
        number_follows = text == FLAG;
        if !number_follows && !text.starts_with(&format!("{FLAG}=")) {
            kept.push(argument);
        }
    }
    kept
}

impl Rank {
    fn kill(&mut self) {
        if self.ended.is_none() {
            // It may have ended a moment ago.
            let _ = self.child.kill();
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

/// What all of them together came to. Rank 0 has said its own error itself.
fn verdict(ranks: Vec<Rank>) -> Result<ExitCode> {
    let codes: Vec<Option<i32>> =
        ranks.iter().map(|rank| rank.ended.and_then(|status| status.code())).collect();
    if codes.iter().all(|code| *code == Some(0)) {
        return Ok(ExitCode::SUCCESS);
    }
    let first_failed = ranks.iter().position(Rank::failed);
    let (Some(first), Some(Some(code))) = (first_failed, codes.first()) else {
        return match first_failed {
            Some(_) => failed_without_words(ranks),
            None => Ok(ExitCode::from(INTERRUPTED)),
        };
    };
    if first == 0 {
        return Ok(ExitCode::from(u8::try_from(*code).unwrap_or(1)));
    }
    failed_without_words(ranks)
}

/// The error of the first rank that says one, or else how it ended.
fn failed_without_words(ranks: Vec<Rank>) -> Result<ExitCode> {
    let mut ended = None;
    for (number, rank) in ranks.into_iter().enumerate() {
        let failed = rank.failed();
        let error = rank.error.and_then(|error| error.join().ok()).flatten();
        match error {
            Some(error) => bail!("rank {number}: {error}"),
            None if failed && ended.is_none() => ended = rank.ended.map(|status| (number, status)),
            None => {}
        }
    }
    match ended {
        Some((number, status)) => bail!("the process of rank {number} ended without a word ({status})"),
        None => bail!("a process ended without a word"),
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
        assert_eq!(kept("train --data x"), "train --data x");
    }
}
