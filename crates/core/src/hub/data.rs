//! Data sets by name: which files of one are meant.
//!
//! | name | files |
//! |---|---|
//! | `org/name` | those of the split `train` |
//! | `org/name:test`, `org/name@revision:test` | those of another split, of another revision |
//! | `hf://datasets/org/name/file.jsonl` | this one |
//! | `hf://datasets/org/name/folder:test` | those of a split in a folder, such as a subset's |
//!
//! A file is of a split if its path has the name of it between letters, digits and other characters, as on the hub: `data/train-00000.parquet`.

use super::{Fetch, Hub, Name, status};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How addresses of data sets begin.
const ADDRESS: &str = "hf://datasets/";
const DEFAULT_SPLIT: &str = "train";
/// Files named in an error.
const MOST_LISTED: usize = 8;

/// Files of a data set on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    name: Name,
    /// A file, or the folder of the files; empty for all.
    inside: String,
    split: Option<String>,
}

/// The files in the cache for what `place` names of a data set on the hub, fetched where they are not there yet; `None` if there is such a file
/// on this machine, or it is no such name. `is_data` knows files of rows by their name.
///
/// # Errors
/// [`Error::Checkpoint`] if there is no such data set or no such file in it, or the hub cannot be reached and the cache has no copy.
pub fn data_files(place: &Path, is_data: &dyn Fn(&Path) -> bool) -> Result<Option<Vec<PathBuf>>> {
    match Wanted::parse(place, is_data) {
        Some(wanted) => Hub::from_environment()?.data_files(&wanted, is_data).map(Some),
        None => Ok(None),
    }
}

/// Whether `place` names a split of a data set on the hub, or a file of one; `None` if it is no such name.
pub fn names_split(place: &Path, is_data: &dyn Fn(&Path) -> bool) -> Option<bool> {
    Wanted::parse(place, is_data).map(|wanted| wanted.split.is_some() || is_data(Path::new(&wanted.inside)))
}

impl Wanted {
    pub(super) fn parse(place: &Path, is_data: &dyn Fn(&Path) -> bool) -> Option<Self> {
        let text = place.to_str()?;
        let address = text.strip_prefix(ADDRESS);
        if address.is_none() && (place.exists() || is_data(place)) {
            return None;
        }
        let address = address.unwrap_or(text);
        let (path, split) = address.split_once(':').map_or((address, None), |(path, split)| (path, Some(split)));
        let mut parts = path.splitn(3, '/');
        let (organisation, name, inside) = (parts.next()?, parts.next()?, parts.next());
        // Without the address a longer path is a file that is not there.
        if inside.is_some() && !text.starts_with(ADDRESS) || split.is_some_and(|split| split.is_empty() || !split.chars().all(is_word)) {
            return None;
        }
        let name = Name::parse(Path::new(&format!("{organisation}/{name}")))?;
        let inside = inside.unwrap_or_default().trim_end_matches('/').to_owned();
        Some(Self { name: Name { is_data: true, ..name }, inside, split: split.map(str::to_owned) })
    }

    /// Those of the files `known` that are wanted.
    fn choose(&self, known: &BTreeSet<String>, is_data: &dyn Fn(&Path) -> bool) -> Result<Vec<String>> {
        if known.contains(&self.inside) {
            return Ok(vec![self.inside.clone()]);
        }
        let is_inside =
            |file: &&String| self.inside.is_empty() || file.strip_prefix(&self.inside).is_some_and(|rest| rest.starts_with('/'));
        let files: Vec<&String> = known.iter().filter(is_inside).filter(|file| is_data(Path::new(file))).collect();
        let split = self.split.as_deref().unwrap_or(DEFAULT_SPLIT);
        let has_split = |file: &&&String| file.split(|c| !is_word(c)).any(|word| word == split);
        let chosen: Vec<&String> = match files.as_slice() {
            // The only file is of the only split.
            [_] if self.split.is_none() => files.clone(),
            _ => files.iter().filter(has_split).copied().collect(),
        };
        let fail = |message: String| Err(Error::checkpoint(&self.name.path(), message));
        let listed = |files: &[&String]| {
            let more = if files.len() > MOST_LISTED { format!(" and {} more", files.len() - MOST_LISTED) } else { String::new() };
            files.iter().take(MOST_LISTED).map(|file| file.as_str()).collect::<Vec<_>>().join(", ") + &more
        };
        if files.is_empty() {
            let place = if self.inside.is_empty() { String::new() } else { format!(" in {}", self.inside) };
            return fail(format!("the data set has no file of rows that Kiln reads{place}"));
        }
        if chosen.is_empty() {
            let message = format!("no file of the split {split:?} among {}", listed(&files));
            return fail(format!("{message}: name one as {ADDRESS}{}/FILE, or another split behind a colon", self.name.repository));
        }
        let folders: BTreeSet<&str> = chosen.iter().map(|file| file.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
        if folders.len() > 1 {
            let message = format!("the split {split:?} is in several folders: {}", listed(&chosen));
            return fail(format!("{message}; name one as {ADDRESS}{}/FOLDER:{split}", self.name.repository));
        }
        Ok(chosen.into_iter().cloned().collect())
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

impl Hub {
    pub(super) fn data_files(&self, wanted: &Wanted, is_data: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
        let name = &wanted.name;
        let cached = || {
            let repository = self.cache.path().join(name.repo(&name.revision).folder_name());
            let commit = std::fs::read_to_string(repository.join("refs").join(&name.revision)).ok()?;
            let folder = repository.join("snapshots").join(commit.trim());
            let known: BTreeSet<String> = files_in(&folder, "").into_iter().collect();
            (!known.is_empty()).then_some((folder, known))
        };
        let from_cache = |(folder, known): (PathBuf, BTreeSet<String>)| {
            Ok(wanted.choose(&known, is_data)?.iter().map(|file| folder.join(file)).collect())
        };
        if self.is_offline {
            let message = format!("no such file, and no copy in {}, where HF_HUB_OFFLINE allows to look", self.cache.path().display());
            return from_cache(cached().ok_or_else(|| Error::checkpoint(&name.path(), message))?);
        }
        let api = self.api(name)?;
        let info = match api.repo(name.repo(&name.revision)).info() {
            Ok(info) => info,
            Err(error) => {
                return match (status(&error), cached()) {
                    // No answer, but a copy of what was asked for.
                    (None, Some(copy)) => from_cache(copy),
                    _ => Err(self.error(name, None, &error)),
                };
            }
        };
        let known = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let fetch = Fetch { hub: self, name, api: &api, commit: &info.sha };
        let repo = api.repo(name.repo(&info.sha));
        let files = wanted.choose(&known, is_data)?.iter().map(|file| fetch.file(&repo, file)).collect::<Result<_>>()?;
        self.cache.repo(name.repo(&name.revision)).create_ref(&info.sha).map_err(|source| Error::io(self.cache.path(), source))?;
        Ok(files)
    }
}

/// All files in a folder, by their paths in it.
fn files_in(folder: &Path, prefix: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.path().is_dir() {
            files.extend(files_in(&entry.path(), &format!("{prefix}{name}/")));
        } else {
            files.push(format!("{prefix}{name}"));
        }
    }
    files
}
