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

/// Checks, before work is put into what shall be written there, that `folder` can be written to or made. Leaves nothing behind.
///
/// # Errors
/// [`Error::Config`] at `place`, the setting or flag that names it, if a file stands in the way; [`Error::Io`] if it cannot be written.
pub fn check_writable(place: &str, folder: &Path) -> Result<()> {
    let is_there = |folder: &&Path| folder.as_os_str().is_empty() || folder.exists();
    let nearest = folder.ancestors().find(is_there).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !nearest.is_dir() {
        return Err(Error::config(place, format!("{} is a file, not a folder: choose another", nearest.display())));
    }
    match tempfile::tempfile_in(nearest) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::io(nearest, std::io::Error::new(source.kind(), format!("cannot be written to: {}", source.kind())))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_be_written_is_checked_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        for folder in [parent.path().to_owned(), parent.path().join("a/b"), Path::new("").to_owned()] {
            check_writable("output", &folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        }
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left");
        let file = parent.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        for folder in [file.clone(), file.join("a/b")] {
            let error = check_writable("output", &folder).unwrap_err().to_string();
            assert_eq!(error, format!("output: {} is a file, not a folder: choose another", file.display()));
        }
    }
}
