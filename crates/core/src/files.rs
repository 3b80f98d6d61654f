//! Reading and writing files so that nothing is ever half written.

use crate::{Error, Result};
use ring::digest::{Context, SHA256};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// How the names of temporary files begin.
pub const TEMPORARY: &str = ".kiln-";
/// And those that safetensors writes through.
const TEMPORARY_OF_SAFETENSORS: &str = ".tmp";

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
        let temporary = builder.prefix(TEMPORARY).tempfile_in(folder)?;
        let permissions = temporary.as_file().metadata()?.permissions();
        write(temporary.path())?;
        // Whoever wrote may have given it others: those of what was copied, or none to anyone else.
        std::fs::set_permissions(temporary.path(), permissions)?;
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
        File::create(temporary)?.write_all(text.as_bytes())
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

/// The SHA-256 of a file's bytes, in hexadecimal.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let digest = || {
        let (mut file, mut context, mut buffer) = (File::open(path)?, Context::new(&SHA256), vec![0; 1 << 18]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(context.finish()),
                n => context.update(&buffer[..n]),
            }
        }
    };
    digest().map(hexadecimal).map_err(|source| Error::io(path, source))
}

/// Fills `bytes` from the place `offset` of the file, whatever other threads read of it.
///
/// # Errors
/// If the file ends before, or cannot be read.
#[cfg(unix)]
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` from the place `offset` of the file, whatever other threads read of it.
///
/// # Errors
/// If the file ends before, or cannot be read.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n_read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if n_read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, offset) = (&mut bytes[n_read..], offset + n_read as u64);
    }
    Ok(())
}

/// The SHA-256 of `bytes`, in hexadecimal.
pub fn sha256_of(bytes: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&SHA256, bytes))
}

fn hexadecimal(digest: ring::digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes what killed processes left half written anywhere in `folder`.
///
/// # Errors
/// [`Error::Io`] naming what cannot be read or removed.
pub fn remove_temporaries(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))? {
        let path = entry.map_err(|source| Error::io(folder, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_temporary = [TEMPORARY, TEMPORARY_OF_SAFETENSORS].iter().any(|prefix| name.starts_with(prefix));
        match (path.is_dir(), is_temporary) {
            (true, true) => std::fs::remove_dir_all(&path).map_err(|source| Error::io(&path, source))?,
            (true, false) => remove_temporaries(&path)?,
            (false, true) => std::fs::remove_file(&path).map_err(|source| Error::io(&path, source))?,
            (false, false) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's example of a short message, and a file of more than one buffer against `sha256sum`.
    #[test]
    fn the_digest_is_that_of_the_standard() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, digest) in [
            (b"abc".to_vec(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(sha256(file.path()).unwrap(), digest);
        }
    }

    #[test]
    fn only_temporaries_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("model/.kiln-abc")).unwrap();
        for name in ["model/.kiln-abc/weights", "model/.kiln-def", "model/.tmpAbC", "model/kept", "kept"] {
            std::fs::write(path(name), "").unwrap();
        }
        remove_temporaries(folder.path()).unwrap();
        assert!(path("model/kept").exists() && path("kept").exists());
        assert_eq!(std::fs::read_dir(path("model")).unwrap().count(), 1);
    }

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
