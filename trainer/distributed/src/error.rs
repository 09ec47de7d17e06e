//! What can go wrong between processes: each message one line that names the rank or the variable, and what to do.

/// An error of this crate.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Environment variables that are missing or contradict each other.
    #[error("{variable}{} {remedy}", .value.as_ref().map(|value| format!(" = `{value}`:")).unwrap_or_default())]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value, where it has one.
        value: Option<String>,
        /// What is wrong and what to do.
        remedy: String,
    },

    /// The processes did not find each other.
    #[error("rank {rank} cannot join the other processes at {address}: {problem}")]
    Rendezvous {
        /// This process.
        rank: usize,
        /// Where they meet.
        address: String,
        /// Why not, and what to do.
        problem: String,
    },

    /// A peer's process ended, or the way to it is broken.
    #[error(
        "rank {rank} lost rank {peer} ({problem}): its process has ended or the network between them failed; its own output says why"
    )]
    Gone {
        /// This process.
        rank: usize,
        /// The peer.
        peer: usize,
        /// The system's reason.
        problem: String,
    },

    /// A peer was silent for too long.
    #[error(
        "rank {rank} heard nothing from rank {peer} for {seconds} s: it hangs, or is slower than that (set \
         TALLOW_TIMEOUT to more seconds)"
    )]
    Timeout {
        /// This process.
        rank: usize,
        /// The peer.
        peer: usize,
        /// How long this one waited.
        seconds: u64,
    },

    /// A rank ended with an error of its own and said so.
    #[error("{}", of_another(*.origin, .reason))]
    Aborted {
        /// The rank that failed.
        origin: usize,
        /// Its error.
        reason: String,
    },

    /// A peer does something else than this process.
    #[error("rank {rank} and rank {peer} are no longer in step ({problem}): report it, this is a bug")]
    OutOfStep {
        /// This process.
        rank: usize,
        /// The peer.
        peer: usize,
        /// What was expected and what came.
        problem: String,
    },

    /// Devices on which processes cannot train together.
    #[error("rank {rank} and rank {peer} cannot train together: {problem}")]
    Devices {
        /// A process.
        rank: usize,
        /// Another one.
        peer: usize,
        /// Why not, and what to do.
        problem: String,
    },

    /// A rank that would begin with another state than the others.
    #[error(
        "rank {rank} starts from other weights than rank 0: see that all hosts read the same files, those that --weights \
         and --resume name"
    )]
    UnequalStart {
        /// The first rank that differs.
        rank: usize,
    },

    /// The thread that communicates could not be started or has panicked.
    #[error("the communication thread of rank {rank} {problem}")]
    Thread {
        /// This process.
        rank: usize,
        /// What happened.
        problem: String,
    },

    /// An error of NCCL or of the device.
    #[error("rank {rank}: NCCL: {problem}")]
    Nccl {
        /// This process.
        rank: usize,
        /// The call and its code.
        problem: String,
    },

    /// An error of the tensor library.
    #[error("{0}")]
    Tensor(String),
}

impl Error {
    /// Whether this is a peer's error or tells of its loss, and no fault of this rank.
    pub fn is_of_a_peer(&self) -> bool {
        matches!(
            self,
            Self::Aborted { .. } | Self::Gone { .. } | Self::Timeout { .. } | Self::OutOfStep { .. }
        )
    }

    /// The rank that failed first and its reason, for the others: as another rank told it, or else `rank` itself.
    pub fn origin(&self, rank: usize) -> (usize, String) {
        match self {
            Self::Aborted { origin, reason } => (*origin, reason.clone()),
            other => (rank, other.to_string()),
        }
    }
}

/// The error of another rank. Where it lost a third one, it says itself who it is.
fn of_another(origin: usize, reason: &str) -> String {
    let own = reason.starts_with(&format!("rank {origin} "));
    if own { reason.to_owned() } else { format!("rank {origin} failed: {reason}") }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Tensor(error.to_string())
    }
}

/// A result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
