//! Where tokens of large files are kept, and small things that took a pass over one to find out.
//!
//! A file's name says all that its content depends on, so nothing in the folder is ever out of date; any of it may be removed at any time.

use kiln_core::files::{read_json, write_atomic, write_json};
use kiln_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::env;
use std::path::{Path, PathBuf};

/// Where the tests of this crate have it: they cannot set variables of the environment.
#[cfg(test)]
pub(crate) static TEST_FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// The folder of the cache.
#[derive(Clone, Debug)]
pub(crate) struct Cache(PathBuf);

impl Cache {
    /// `KILN_CACHE`, or a folder `kiln` where the system keeps such things.
    pub(crate) fn find() -> Result<Self> {
        #[cfg(test)]
        if let Some(folder) = TEST_FOLDER.get() {
            return Ok(Self(folder.clone()));
        }
        let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(folder) = env::var_os("KILN_CACHE").filter(|folder| !folder.is_empty()) {
            return Ok(Self(folder.into()));
        }
        let base = if cfg!(windows) {
            folder("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            env::home_dir().map(|home| home.join("Library/Caches"))
        } else {
            folder("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")))
        };
        let missing = "missing, and there is no home folder: set it to a folder for the tokens of large files";
        base.map(|base| Self(base.join("kiln"))).ok_or_else(|| Error::config("KILN_CACHE", missing))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// The file for `key`.
    pub(crate) fn path(&self, key: &str, extension: &str) -> PathBuf {
        self.0.join(format!("{key}.{extension}"))
    }

    /// What is kept for `key`, or else what `make` makes, which is then kept.
    pub(crate) fn value<T: Serialize + DeserializeOwned>(&self, key: &str, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let path = self.path(key, "json");
        if let Ok(value) = read_json(&path) {
            return Ok(value);
        }
        let value = make()?;
        write_json(&path, &value).map_err(with_advice)?;
        Ok(value)
    }

    /// Writes the file at `path`, a whole one or none.
    pub(crate) fn write(&self, path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mut failed = None;
        let outcome = write_atomic(path, |temporary| {
            write(temporary).map_err(|error| {
                failed = Some(error);
                std::io::Error::other("not written")
            })
        });
        outcome.map_err(|error| failed.map_or_else(|| with_advice(error), with_advice))
    }
}

/// Files of rows are named in errors of their own; those of the cache can be put elsewhere.
fn with_advice(error: Error) -> Error {
    match error {
        Error::Io { path, source } if path.extension().is_some_and(|extension| extension == "rows" || extension == "json") => {
            let message = format!("{source}: KILN_CACHE names another folder for the tokens of large files");
            Error::Io { path, source: std::io::Error::new(source.kind(), message) }
        }
        error => error,
    }
}
