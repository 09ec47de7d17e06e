//! What can end a search.

use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that makes no sense.
    #[error("{name} {problem}")]
    Setting {
        /// The flag or key.
        name: &'static str,
        /// What is wrong with its value, and what would be right.
        problem: String,
    },
    /// The folder holds a search of another kind, with other settings or on other data.
    #[error(
        "{} holds another search ({difference}): repeat its settings to go on with it, or choose another folder with \
         --output", .folder.display()
    )]
    AnotherSearch {
        /// The folder.
        folder: PathBuf,
        /// The first thing that differs.
        difference: String,
    },
    /// The folder holds something that is no search.
    #[error("{} is not empty and holds no search: choose another folder with --output", .folder.display())]
    NoSearch {
        /// The folder.
        folder: PathBuf,
    },
    /// Two processes would search in one folder.
    #[error("{}: another process searches in it: wait for its end or stop it", .folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the search that makes no sense.
    #[error("{}: {problem}: restore it, or begin anew in another folder", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A candidate's training failed for a reason that is not the candidate's.
    #[error("candidate {candidate}: {reason} (see {}); the same command goes on", .log.display())]
    Training {
        /// The candidate's number.
        candidate: usize,
        /// What its process said.
        reason: String,
        /// All that it said.
        log: PathBuf,
    },
    /// No candidate could be trained.
    #[error("the training of every candidate diverged, the first: {reason}")]
    AllDiverged {
        /// What the first one's process said.
        reason: String,
    },
    /// A file could not be read or written, or a process not be started.
    #[error("cannot {action} {}: {}", .path.display(), tallow_builder::files::explained(.source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be replaced, or a network not be built.
    #[error(transparent)]
    Builder(#[from] tallow_builder::Error),
    /// A network that the zoo cannot build.
    #[error(transparent)]
    Models(#[from] tallow_models::Error),
    /// Settings or data that cannot be trained with.
    #[error(transparent)]
    Trainer(#[from] tallow_trainer::Error),
}

impl Error {
    /// An I/O error with what was tried on which file, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A setting that makes no sense.
    pub(crate) fn setting(name: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { name, problem: problem.into() }
    }
}

/// A result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
