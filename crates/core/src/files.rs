//! Reading and writing files so that nothing is ever half written.

use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;

/// Writes through a temporary file in the same folder and renames it: `path` holds either what it held before or all of the new content.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write_atomic(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let attempt = || {
        std::fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        // Temporary files are private by default; what this one becomes should be readable like any other output.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let temporary = builder.prefix(".kiln-").tempfile_in(folder)?;
        write(temporary.path())?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().map_err(|source| Error::io(path, source))
}

/// Writes `value` as indented JSON, atomically.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, |temporary| {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        std::fs::File::create(temporary)?.write_all(text.as_bytes())
    })
}

/// Reads a JSON file.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::Data`] with the line if it is not what was expected.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    serde_json::from_str(&text).map_err(|error| Error::data(path, Some(error.line()), error.to_string()))
}
