//! The two neighbours in the ring: a thread sends to the next while the caller receives from the one before, so that no
//! message is too long for the system's buffers.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::frame::{Frame, Kind};
use crate::error::{Error, Result};
use crate::thread::wait_at_most;

/// How long a rank that ends waits for its reason to leave, and one that lost a peer for that peer's reason.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The way to both neighbours.
pub(super) struct Link {
    rank: usize,
    world_size: usize,
    timeout: Duration,
    /// To the next rank; what comes back on it is its last words.
    next: TcpStream,
    /// From the rank before.
    previous: TcpStream,
    outgoing: Option<Sender<Frame>>,
    failure: Receiver<std::io::Error>,
    sender: Option<JoinHandle<()>>,
    sent: u64,
    received: u64,
    ended: bool,
}

impl Link {
    pub fn new(
        (rank, world_size): (usize, usize),
        next: TcpStream,
        previous: TcpStream,
        timeout: Duration,
    ) -> Result<Self> {
        let gone =
            |peer: usize| move |error: std::io::Error| Error::Gone { rank, peer, problem: error.to_string() };
        let after = (rank + 1) % world_size;
        let before = (rank + world_size - 1) % world_size;
        for (stream, peer) in [(&next, after), (&previous, before)] {
            // Small messages are most of them, and a peer waits for each.
            stream.set_nodelay(true).map_err(gone(peer))?;
            stream.set_read_timeout(Some(timeout)).map_err(gone(peer))?;
            stream.set_write_timeout(Some(timeout)).map_err(gone(peer))?;
        }
        let mut stream = next.try_clone().map_err(gone(after))?;
        let (outgoing, frames) = channel::<Frame>();
        let (failed, failure) = channel();
        let send = move || {
            for frame in frames {
                if let Err(error) = frame.write(&mut stream) {
                    // Nobody listens any more where the link is gone.
                    let _ = failed.send(error);
                    return;
                }
            }
        };
        let name = format!("to rank {after}");
        let sender = std::thread::Builder::new().name(name).spawn(send);
        let sender =
            sender.map_err(|error| Error::Thread { rank, problem: format!("cannot be started: {error}") })?;
        Ok(Self {
            rank,
            world_size,
            timeout,
            next,
            previous,
            outgoing: Some(outgoing),
            failure,
            sender: Some(sender),
            sent: 0,
            received: 0,
            ended: false,
        })
    }

    fn after(&self) -> usize {
        (self.rank + 1) % self.world_size
    }

    fn before(&self) -> usize {
        (self.rank + self.world_size - 1) % self.world_size
    }

    /// Hands bytes to the next rank, without waiting for it.
    pub fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        let frame = Frame { kind: Kind::Data, number: self.sent, bytes };
        self.sent += 1;
        let handed = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.send(frame).is_ok());
        if handed && !self.ended {
            return Ok(());
        }
        let problem = match self.failure.try_recv() {
            Ok(error) => error,
            Err(_) => ErrorKind::NotConnected.into(),
        };
        Err(self.lost(self.after(), problem))
    }

    /// The next bytes of the rank before.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        let frame = match Frame::read(&mut self.previous) {
            Ok(frame) => frame,
            Err(error) => return Err(self.lost(self.before(), error)),
        };
        let expected = self.received;
        self.received += 1;
        match frame {
            Frame { kind: Kind::Abort, .. } => {
                self.ended = true;
                let (origin, reason) = frame.reason();
                Err(Error::Aborted { origin, reason })
            }
            Frame { number, .. } if number != expected => {
                let problem = format!("message {number} came instead of {expected}");
                Err(Error::OutOfStep { rank: self.rank, peer: self.before(), problem })
            }
            Frame { bytes, .. } => Ok(bytes),
        }
    }

    /// The error for a peer that is lost: its own reason, if either neighbour left one.
    fn lost(&mut self, peer: usize, error: std::io::Error) -> Error {
        self.ended = true;
        let rank = self.rank;
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            return Error::Timeout { rank, peer, seconds: self.timeout.as_secs() };
        }
        if let Some((origin, reason)) = self.last_words() {
            return Error::Aborted { origin, reason };
        }
        let problem = match error.kind() {
            ErrorKind::UnexpectedEof => "the connection was closed".into(),
            _ => error.to_string(),
        };
        Error::Gone { rank, peer, problem }
    }

    fn last_words(&mut self) -> Option<(usize, String)> {
        for stream in [&mut self.next, &mut self.previous] {
            stream.set_read_timeout(Some(LAST_WORDS / 4)).ok()?;
            while let Ok(frame) = Frame::read(stream) {
                if frame.kind == Kind::Abort {
                    return Some(frame.reason());
                }
            }
        }
        None
    }

    /// Sends both neighbours the reason for which this rank, or the one that failed before it, ends.
    pub fn abort(&mut self, origin: usize, reason: &str) {
        let frame = Frame::abort(origin, reason);
        // Peers that are gone need no reason.
        let _ = self.previous.set_write_timeout(Some(LAST_WORDS));
        let _ = frame.write(&mut self.previous);
        if let Some(outgoing) = self.outgoing.take() {
            let _ = outgoing.send(frame);
        }
        self.ended = true;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        drop(self.outgoing.take());
        if let Some(sender) = self.sender.take() {
            wait_at_most(LAST_WORDS, &sender);
        }
        // What was sent still arrives; a sender that hangs is woken.
        let _ = self.next.shutdown(Shutdown::Write);
    }
}
