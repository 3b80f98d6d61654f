//! Models and data sets by name from the Hugging Face hub, such as `HuggingFaceTB/SmolLM2-135M`, through the cache that Python's tools share.
//!
//! Whatever reads a model folder takes a name too: [`folder`] turns one into the folder in the cache that holds the files needed.
//! The hub's oldest models have names without an organisation, such as `gpt2`; any other such name is a folder.
//! `org/name@revision` names a branch, a tag or a commit; without it the newest of `main` is meant, and asked for once in a process.
//!
//! | variable | |
//! |---|---|
//! | `HF_HOME` | where the cache is, by default `~/.cache/huggingface` |
//! | `HF_HUB_CACHE` | where the models in it are, by default the folder `hub` of `HF_HOME` |
//! | `HF_TOKEN` | for private models and those with terms to accept; by default what is in the file `token` of `HF_HOME` |
//! | `HF_ENDPOINT` | a mirror instead of `https://huggingface.co` |
//! | `HF_HUB_OFFLINE` | 1 takes what is in the cache and asks nobody |

mod data;

pub use data::{data_files, names_split};

use crate::{Error, Result, files};
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where models are when nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";

/// What is needed of a model wherever it exists, apart from its weights and its configuration.
const FILES: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "adapter_model.safetensors",
    "heads.json",
    "heads.safetensors",
];
/// What is needed of a tokenizer without `tokenizer.json`.
const OLD_TOKENIZER_FILES: &[&str] = &["vocab.json", "merges.txt"];
/// Weights in the order of preference, and whether the file is a list of the files that hold them.
const WEIGHTS: &[(&str, bool)] = &[
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];
/// Fetched last: a folder in the cache that has one is whole.
const CONFIGURATIONS: &[&str] = &["adapter_config.json", "config.json"];

/// Names without an organisation, of those whose models Kiln reads: whatever else has none is a folder, perhaps one that is not there.
const OLD_NAMES: &[&str] = &[
    "bert-base-cased",
    "bert-base-multilingual-cased",
    "bert-base-multilingual-uncased",
    "bert-base-uncased",
    "bert-large-cased",
    "bert-large-uncased",
    "distilbert-base-cased",
    "distilbert-base-multilingual-cased",
    "distilbert-base-uncased",
    "distilgpt2",
    "distilroberta-base",
    "gpt2",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "roberta-base",
    "roberta-large",
];

/// A model or a data set on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    repository: String,
    revision: String,
    is_data: bool,
}

/// The folder of a model: `model` itself if there is such a folder, or the copy in the cache of the model of that name on the hub.
///
/// # Errors
/// [`Error::Checkpoint`] if there is no such folder and no such model, or the hub cannot be reached and the cache has no copy.
pub fn folder(model: &Path) -> Result<PathBuf> {
    static KNOWN: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
    let name = match Name::parse(model) {
        Some(name) if !model.exists() => name,
        None if !model.exists() && is_bare(model) => {
            return Err(Error::checkpoint(model, "no such folder; names on the hub are such as org/name"));
        }
        _ => return Ok(model.to_owned()),
    };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = known.get(model) {
        return Ok(folder.clone());
    }
    let folder = Hub::from_environment()?.folder(&name)?;
    known.insert(model.to_owned(), folder.clone());
    Ok(folder)
}

impl Name {
    /// `org/name` or one of the old names, and perhaps `@revision`, of the letters that the hub allows.
    fn parse(model: &Path) -> Option<Self> {
        let (repository, revision) =
            model.to_str()?.split_once('@').map_or_else(|| (model.to_str(), "main"), |(name, revision)| (Some(name), revision));
        let is_name = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let is_revision = !revision.contains("..") && revision.split('/').all(is_name);
        let repository = repository?.to_owned();
        let is_known = repository.matches('/').count() == 1 || OLD_NAMES.contains(&repository.as_str());
        let is_repository = is_known && repository.split('/').all(is_name);
        (is_repository && is_revision).then(|| Self { repository, revision: revision.to_owned(), is_data: false })
    }
}

/// Whether it is a name without an organisation, and no path to somewhere.
fn is_bare(model: &Path) -> bool {
    model.to_str().is_some_and(|text| text.starts_with(|c: char| c.is_ascii_alphanumeric())) && model.components().count() == 1
}

/// A hub, and where its files are kept.
#[derive(Debug)]
struct Hub {
    endpoint: String,
    cache: Cache,
    token: Option<String>,
    is_offline: bool,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Hub {
    fn from_environment() -> Result<Self> {
        let variable = |name| env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        if variable("HF_HOME").is_none() && env::home_dir().is_none() {
            return Err(Error::config("HF_HOME", "missing, and there is no home folder: set it to a folder for the models of the hub"));
        }
        let home = Cache::from_env();
        let token = variable("HF_TOKEN").or_else(|| home.token());
        let cache = variable("HF_HUB_CACHE").map_or(home, |folder| Cache::new(folder.into()));
        let is_offline =
            variable("HF_HUB_OFFLINE").is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()));
        Self::new(variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()), cache, token, is_offline)
    }

    fn new(endpoint: String, cache: Cache, token: Option<String>, is_offline: bool) -> Result<Self> {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control())) {
            return Err(Error::config("HF_ENDPOINT", format!("found {endpoint:?}, expected an address such as {ENDPOINT}")));
        }
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::config("HF_TOKEN", "no token: it has characters that none has; copy it again"));
        }
        Ok(Self { endpoint, cache, token, is_offline })
    }

    fn folder(&self, name: &Name) -> Result<PathBuf> {
        let kept = self.cache.repo(name.repo(&name.revision));
        let cached = || CONFIGURATIONS.iter().find_map(|file| kept.get(file)).and_then(|path| Some(path.parent()?.to_owned()));
        if self.is_offline {
            let message = format!("no such folder, and no copy in {}, where HF_HUB_OFFLINE allows to look", self.cache.path().display());
            return cached().ok_or_else(|| Error::checkpoint(&name.path(), message));
        }
        let api = self.api(name)?;
        let info = match api.repo(name.repo(&name.revision)).info() {
            Ok(info) => info,
            Err(error) => {
                return match (status(&error), cached()) {
                    // No answer, but a copy of what was asked for.
                    (None, Some(folder)) => Ok(folder),
                    _ => Err(self.error(name, None, &error)),
                };
            }
        };
        let known: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let folder = Fetch { hub: self, name, api: &api, commit: &info.sha }.all(&known)?;
        kept.create_ref(&info.sha).map_err(|source| Error::io(self.cache.path(), source))?;
        Ok(folder)
    }

    fn api(&self, name: &Name) -> Result<Api> {
        let api = ApiBuilder::from_cache(self.cache.clone()).with_endpoint(self.endpoint.clone()).with_token(self.token.clone());
        api.build().map_err(|error| self.error(name, None, &error))
    }

    fn error(&self, name: &Name, file: Option<&str>, error: &ApiError) -> Error {
        let Self { endpoint, .. } = self;
        let [here, there] = if name.is_data { ["file", "data set"] } else { ["folder", "model"] };
        let what = file.map_or_else(String::new, |file| format!("{file}: "));
        let message = match (status(error), file) {
            (Some(401 | 404), None) => {
                let revision = if name.revision == "main" { String::new() } else { format!(" with the revision {:?}", name.revision) };
                let token = match self.token {
                    None => "set HF_TOKEN if it is private",
                    Some(_) => "the token in use may not read it",
                };
                format!("no such {here}, and no such {there}{revision} at {endpoint}: check the name; {token}")
            }
            (Some(401 | 403), _) => {
                format!(
                    "{what}not open to everyone: accept its terms at {endpoint}/{}, and set HF_TOKEN to a token that may read it",
                    name.repo(&name.revision).url()
                )
            }
            (Some(429), _) => format!("{what}{endpoint} is asked too often: wait some minutes, or set HF_TOKEN"),
            (Some(status), _) => format!("{what}{endpoint} answers with the status {status}: try again later"),
            (None, _) => {
                let cause = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                let missing = if file.is_none() { format!("no such {here}, and ") } else { String::new() };
                let local = if name.is_data { "a file" } else { "a model's folder" };
                format!("{missing}{what}{endpoint} cannot be reached ({cause}): check the network and HF_ENDPOINT, or give {local}")
            }
        };
        Error::checkpoint(&name.path(), message)
    }
}

impl Name {
    fn repo(&self, revision: &str) -> Repo {
        let kind = if self.is_data { RepoType::Dataset } else { RepoType::Model };
        Repo::with_revision(self.repository.clone(), kind, revision.to_owned())
    }

    /// As the user wrote it, for errors.
    fn path(&self) -> PathBuf {
        PathBuf::from(&self.repository)
    }
}

/// The files of one commit on their way into the cache.
struct Fetch<'a> {
    hub: &'a Hub,
    name: &'a Name,
    api: &'a Api,
    commit: &'a str,
}

impl Fetch<'_> {
    /// What is needed of the files `known`; the folder it is in then.
    fn all(&self, known: &BTreeSet<&str>) -> Result<PathBuf> {
        let has = |file: &str| known.contains(file);
        if !CONFIGURATIONS.iter().any(|file| has(file)) {
            let message = format!("{} has no config.json: no model that Kiln reads", self.hub.endpoint);
            return Err(Error::checkpoint(&self.name.path(), message));
        }
        let repo = self.api.repo(self.name.repo(self.commit));
        for file in FILES.iter().filter(|file| has(file)) {
            self.file(&repo, file)?;
        }
        for file in OLD_TOKENIZER_FILES.iter().filter(|file| has(file) && !has("tokenizer.json")) {
            self.file(&repo, file)?;
        }
        // The steps of sentence-transformers have a folder each, such as 1_Pooling.
        let is_step =
            |file: &str| file.split_once('_').is_some_and(|(number, _)| number.parse::<u8>().is_ok()) && file.ends_with("/config.json");
        for file in known.iter().filter(|file| has("modules.json") && file.matches('/').count() == 1 && is_step(file)) {
            self.file(&repo, file)?;
        }
        if let Some((file, is_index)) = WEIGHTS.iter().find(|(file, _)| has(file)) {
            let path = self.file(&repo, file)?;
            if *is_index {
                let Index { weight_map } = files::read_json(&path)?;
                let shards: BTreeSet<&String> = weight_map.values().collect();
                for shard in shards.into_iter().filter(|shard| has(shard)) {
                    self.file(&repo, shard)?;
                }
            }
        }
        for file in CONFIGURATIONS.iter().filter(|file| has(file)) {
            self.file(&repo, file)?;
        }
        Ok(self.hub.cache.repo(self.name.repo(self.commit)).pointer_path(self.commit))
    }

    /// One file, fetched unless the cache has it.
    fn file(&self, repo: &ApiRepo, file: &str) -> Result<PathBuf> {
        if let Some(path) = self.hub.cache.repo(self.name.repo(self.commit)).get(file) {
            return Ok(path);
        }
        repo.download_with_progress(file, Progress::new(&self.name.repository))
            .map_err(|error| self.hub.error(self.name, Some(file), &error))
    }
}

/// The status of an answer that was none of success.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// A bar on a terminal, elsewhere a line for each file.
struct Progress {
    repository: String,
    bar: ProgressBar,
    is_told: bool,
}

impl Progress {
    fn new(repository: &str) -> Self {
        let style = ProgressStyle::with_template("{bar:24} {msg}  {bytes}/{total_bytes}  {bytes_per_sec}").expect("the template is fixed");
        let bar = ProgressBar::new(0).with_style(style).with_finish(ProgressFinish::AndClear);
        Self { repository: repository.to_owned(), bar, is_told: false }
    }
}

impl hf_hub::api::Progress for Progress {
    /// Comes twice for a file.
    fn init(&mut self, size: usize, file: &str) {
        self.bar.set_length(size as u64);
        self.bar.set_message(format!("{} {file}", self.repository));
        if self.bar.is_hidden() && !self.is_told {
            eprintln!("{} {file}, {}", self.repository, HumanBytes(size as u64));
        }
        self.is_told = true;
    }

    fn update(&mut self, n_bytes: usize) {
        self.bar.inc(n_bytes as u64);
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests;
