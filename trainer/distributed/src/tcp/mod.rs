//! Collectives over TCP, between processes on one host or on many. `rendezvous` brings them together: `hello` is what
//! each says, `door` where it is heard, `host` rank 0's part. `link` is the way to the two neighbours, `ring` what goes
//! round, `frame` one message.

mod door;
mod frame;
mod hello;
mod host;
mod link;
mod rendezvous;
mod ring;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Communicator;
use crate::environment::Place;
use crate::error::{Error, Result};
use crate::identity::Identity;
use ring::Ring;

/// How long a silent peer is waited for where nothing else is said: rank 0 may be writing a checkpoint.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long others are waited for at first before anybody is told.
const QUIET: Duration = Duration::from_secs(5);

/// What decides which processes belong together, and how patient they are.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run's settings and data: processes with others are refused.
    pub identity: Identity,
    /// How long a silent peer is waited for.
    pub timeout: Duration,
    /// Independent communicators between the same processes, for threads that must not wait for each other.
    pub channels: usize,
    /// How long others are waited for at first before `notice` is told.
    pub notice_after: Duration,
    /// Takes the line that says who is waited for, and where.
    pub notice: fn(&str),
}

impl Options {
    /// With the patience that the variable TALLOW_TIMEOUT (in seconds) says, or else 10 minutes; where others are waited
    /// for longer than 5 seconds, standard error says so.
    ///
    /// # Errors
    /// [`Error::Environment`] where the variable is no number above 0.
    pub fn new(identity: Identity, channels: usize) -> Result<Self> {
        let timeout = match std::env::var("TALLOW_TIMEOUT") {
            Ok(value) => match value.trim().parse::<u64>() {
                Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
                _ => {
                    let remedy = "choose a whole number of seconds above 0, or unset it for 600".to_owned();
                    return Err(Error::Environment {
                        variable: "TALLOW_TIMEOUT",
                        value: Some(value),
                        remedy,
                    });
                }
            },
            Err(_) => PATIENCE,
        };
        let notice = |line: &str| {
            // Nobody may be listening there.
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        Ok(Self { identity, timeout, channels, notice_after: QUIET, notice })
    }
}

/// A communicator over TCP.
pub struct TcpCommunicator {
    rank: usize,
    world_size: usize,
    /// None where there is only one process.
    ring: Option<Mutex<Ring>>,
}

impl TcpCommunicator {
    /// Meets the other processes, and gives as many communicators as the options ask for.
    ///
    /// # Errors
    /// [`Error::Rendezvous`] where they do not come in time, have other settings, or are of another version.
    pub fn connect(place: &Place, options: &Options) -> Result<Vec<Self>> {
        let (rank, world_size) = (place.rank, place.world_size);
        if world_size == 1 {
            return Ok((0..options.channels).map(|_| Self { rank, world_size, ring: None }).collect());
        }
        let links = rendezvous::meet(place, options)?;
        let ring = |link| Some(Mutex::new(Ring { rank, world_size, link }));
        Ok(links.into_iter().map(|link| Self { rank, world_size, ring: ring(link) }).collect())
    }

    fn ring(&self) -> Option<MutexGuard<'_, Ring>> {
        // A panic amid a collective leaves the ranks out of step, which the message numbers show.
        self.ring.as_ref().map(|ring| ring.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Communicator for TcpCommunicator {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        self.ring().map_or(Ok(()), |mut ring| ring.all_reduce(values))
    }

    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<()> {
        self.ring().map_or(Ok(()), |mut ring| ring.all_reduce(values))
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        self.ring().map_or(Ok(()), |mut ring| ring.broadcast(bytes, root))
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.ring().map_or_else(|| Ok(vec![bytes.to_vec()]), |mut ring| ring.gather(bytes))
    }

    fn abort(&self, origin: usize, reason: &str) {
        // Another thread may hold the ring in a collective that will not end; its own end is then the message.
        if let Some(Ok(mut ring)) = self.ring.as_ref().map(Mutex::try_lock) {
            ring.link.abort(origin, reason);
        }
    }
}
