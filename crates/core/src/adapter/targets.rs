//! Which layers an adapter is attached to, by PEFT's rule: a list holds names, a string is a regular expression of whole paths; and unless
//! they are named, neither token embeddings nor the output over the vocabulary are meant.

use super::TABLE;
use crate::language_model::OUTPUT;
use crate::{Error, Result};
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The linear layers to adapt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a list of names, or a regular expression of whole paths, or \"all-linear\"")]
pub enum Targets {
    /// Hugging Face names, such as `q_proj`: the last part or parts of a path. None is all of them.
    Names(Vec<String>),
    /// A regular expression that a whole path must match, or `all-linear`.
    Pattern(String),
}

impl Default for Targets {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

const ALL: &str = "all-linear";

/// What a layer is called within its block.
pub(super) fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether `target` names the layer at the Hugging Face path: the path, or its last part or parts.
pub(super) fn is_named(path: &str, target: &str) -> bool {
    path == target || path.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
}

/// The last parts of paths, each once.
pub(super) fn listed<'a>(paths: impl Iterator<Item = &'a String>) -> String {
    paths.map(|path| last_part(path)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

impl Targets {
    /// Our paths of those `layers`, each ours with Hugging Face's, that are meant.
    ///
    /// # Errors
    /// [`Error::Config`] if a name or the expression fits none of them.
    pub(super) fn among(&self, layers: &[(String, String)]) -> Result<BTreeSet<String>> {
        let fail = |message: String| Error::config("adapter.target_modules", message);
        let paths = || listed(layers.iter().map(|(_, name)| name));
        match self {
            Self::Names(names) if names.is_empty() => {
                let is_inner = |path: &&String| ![OUTPUT, TABLE].contains(&path.as_str());
                Ok(layers.iter().map(|(path, _)| path).filter(is_inner).cloned().collect())
            }
            Self::Names(names) => {
                for target in names {
                    if !layers.iter().any(|(_, name)| is_named(name, target)) {
                        return Err(fail(format!("{target:?} names no layer; there are {}", paths())));
                    }
                }
                let is_meant = |name: &str| names.iter().any(|target| is_named(name, target));
                Ok(layers.iter().filter(|(_, name)| is_meant(name)).map(|(path, _)| path.clone()).collect())
            }
            Self::Pattern(pattern) if pattern.to_lowercase() == ALL => Self::default().among(layers),
            Self::Pattern(pattern) => {
                let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| fail(format!("{pattern:?}: {error}")))?;
                let mut meant = BTreeSet::new();
                for (path, name) in layers {
                    if regex.is_match(name).map_err(|error| fail(format!("{pattern:?}: {error}")))? {
                        meant.insert(path.clone());
                    }
                }
                match (meant.is_empty(), layers.first()) {
                    (true, Some((_, name))) => Err(fail(format!(
                        "no layer's whole path matches {pattern:?}: a path is {name:?}; a list holds names, such as [\"{}\"]",
                        last_part(name)
                    ))),
                    _ => Ok(meant),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Vec<(String, String)> {
        let names = ["0.self_attn.q_proj", "0.self_attn.v_proj", "1.self_attn.q_proj", "1.mlp.up_proj"];
        names.map(|name| (format!("ours.{name}"), format!("model.layers.{name}"))).to_vec()
    }

    fn meant(targets: Targets) -> Vec<String> {
        targets.among(&layers()).unwrap().into_iter().map(|path| path["ours.".len()..].to_owned()).collect()
    }

    #[test]
    fn names_are_last_parts_and_patterns_whole_paths() {
        assert_eq!(meant(Targets::default()).len(), 4);
        assert_eq!(meant(Targets::Pattern("all-linear".into())).len(), 4);
        assert_eq!(meant(Targets::Names(vec!["q_proj".into()])), ["0.self_attn.q_proj", "1.self_attn.q_proj"]);
        assert_eq!(meant(Targets::Names(vec!["0.self_attn.q_proj".into(), "up_proj".into()])), ["0.self_attn.q_proj", "1.mlp.up_proj"]);
        assert_eq!(meant(Targets::Pattern(r".*\.1\..*(q|up)_proj".into())), ["1.mlp.up_proj", "1.self_attn.q_proj"]);
        assert_eq!(meant(Targets::Pattern(r"(?!.*mlp).*\.1\..*".into())), ["1.self_attn.q_proj"]);
    }

    #[test]
    fn what_fits_nothing_is_named() {
        let error = |targets: Targets| targets.among(&layers()).unwrap_err().to_string();
        let of_name = error(Targets::Names(vec!["proj".into()]));
        assert!(of_name.contains("\"proj\" names no layer; there are q_proj, up_proj, v_proj"), "{of_name}");
        let of_pattern = error(Targets::Pattern("q_proj".into()));
        assert!(of_pattern.contains("whole path") && of_pattern.ends_with("[\"q_proj\"]"), "{of_pattern}");
        assert!(error(Targets::Pattern("(".into())).contains("adapter.target_modules"));
    }
}
