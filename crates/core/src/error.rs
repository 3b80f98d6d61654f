//! The errors a user may meet, each one line that says where, what was found, what was expected and what to do.

use std::path::{Path, PathBuf};

/// Shorthand for results of this workspace.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Every variant prints as one line; all but [`Error::Diverged`], [`Error::Unmet`] and [`Error::Interrupted`] are the
/// input's fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is unknown, missing or out of range.
    #[error("{place}: {message}")]
    Config {
        /// The file or `--set` and the key.
        place: String,
        /// Found, expected, what to do.
        message: String,
    },
    /// A data file holds something it should not.
    #[error("{}{}: {message}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
    Data {
        /// The data file.
        path: PathBuf,
        /// The line, counted from 1.
        line: Option<usize>,
        /// Found, expected, what to do.
        message: String,
    },
    /// A model folder holds something that does not fit.
    #[error("{}: {message}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// Found, expected, what to do.
        message: String,
    },
    /// The loss or a gradient is not a finite number, or far above what it was.
    #[error("step {step}: {what}: lower the learning rate, or look at the batch of this step")]
    Diverged {
        /// The step, counted from 1.
        step: usize,
        /// What is wrong with the loss or the gradient.
        what: String,
    },
    /// Training did not achieve what the user asked it to promise.
    #[error("{message}")]
    Unmet {
        /// What was promised, what came of it, where the run is, what to do.
        message: String,
    },
    /// The user interrupted the run; there is a checkpoint of what was trained so far.
    #[error("interrupted after step {step}; it goes on with `cargo xtask resume {}`", path.display())]
    Interrupted {
        /// Steps done.
        step: usize,
        /// The run's folder.
        path: PathBuf,
    },
}

impl Error {
    /// A file that could not be read or written.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// A bad setting at `place`.
    pub fn config(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { place: place.into(), message: message.into() }
    }

    /// Bad data in `path`, at `line` (counted from 1) where known.
    pub fn data(path: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self::Data { path: path.to_owned(), line, message: message.into() }
    }

    /// A model file or folder that does not fit.
    pub fn checkpoint(path: &Path, message: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.to_owned(), message: message.into() }
    }
}
