//! One file of training rows, or several with weights.

use super::required;
use kiln_core::{Error, Result};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// A file of training rows, and how much it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// How often an epoch sees each of its rows: 2 twice, 0.5 one half of them in one epoch and the other half in the next. Default 1.
    pub weight: f64,
}

impl Default for Source {
    fn default() -> Self {
        Self { path: PathBuf::new(), weight: 1.0 }
    }
}

/// The files of training rows: in a configuration a path, or a list of paths and of tables such as `{path = "a.jsonl", weight = 2.0}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// In the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// The first file, to be named where one will do.
    pub fn first(&self) -> &Path {
        self.0.first().map_or(Path::new(""), |source| &source.path)
    }

    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        self.first().as_os_str().is_empty()
    }

    pub(super) fn validate(&self, key: &str) -> Result<()> {
        if self.0.is_empty() {
            return required(key, Path::new(""), "the file of training rows");
        }
        for (index, Source { path, weight }) in self.0.iter().enumerate() {
            let key = if self.0.len() == 1 { key.to_owned() } else { format!("{key}[{index}]") };
            required(&key, path, "the file of training rows")?;
            if !(weight.is_finite() && *weight > 0.0) {
                return Err(Error::config(format!("{key}.weight"), format!("found {weight}, expected more than 0")));
            }
        }
        Ok(())
    }
}

impl<P: Into<PathBuf>> From<P> for Sources {
    fn from(path: P) -> Self {
        Self(vec![Source { path: path.into(), ..Source::default() }])
    }
}

impl FromIterator<Source> for Sources {
    fn from_iter<I: IntoIterator<Item = Source>>(sources: I) -> Self {
        Self(sources.into_iter().collect())
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_str(""),
            [Source { path, weight }] if *weight == 1.0 => path.serialize(serializer),
            sources => serializer.collect_seq(sources),
        }
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(AnySources)
    }
}

/// A path or a list.
struct AnySources;

impl<'de> Visitor<'de> for AnySources {
    type Value = Sources;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a path, or a list of paths and of tables with a path and a weight")
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> std::result::Result<Sources, E> {
        Ok(if path.is_empty() { Sources::default() } else { path.into() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> std::result::Result<Sources, A::Error> {
        let mut sources = Vec::new();
        while let Some(OneSource(source)) = elements.next_element()? {
            sources.push(source);
        }
        if sources.is_empty() {
            return Err(A::Error::custom("an empty list, expected a path or several"));
        }
        Ok(Sources(sources))
    }
}

/// A path or a table.
struct OneSource(Source);

impl<'de> Deserialize<'de> for OneSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(AnySource).map(Self)
    }
}

struct AnySource;

impl<'de> Visitor<'de> for AnySource {
    type Value = Source;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a path, or a table with a path and a weight")
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> std::result::Result<Source, E> {
        Ok(Source { path: path.into(), ..Source::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Source, A::Error> {
        Source::deserialize(MapAccessDeserializer::new(map))
    }
}
