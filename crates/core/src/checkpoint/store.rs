//! Writing weights as safetensors.

use super::{INDEX_FILE, Index, IndexMetadata, TORCH_FILE, TORCH_INDEX_FILE, WEIGHTS_FILE, transposed};
use crate::family::Place;
use crate::parameters::Parameter;
use crate::{Error, Result, files};
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Where a larger model's weights are cut into several files, as transformers cuts them.
const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// A tensor on its way into a file; read out of its parameters when its turn comes, so that only one is held twice.
struct Stored {
    shape: Vec<usize>,
    transposed: bool,
    /// The parameters joined in it, in order.
    parts: Vec<Parameter>,
}

impl Stored {
    fn new(parts: Vec<Parameter>, transposed: bool) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        if transposed {
            shape.reverse();
        }
        Self { shape, transposed, parts }
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if let ([part], false) = (self.parts.as_slice(), self.transposed) {
            let (bytes, ..) = part.data().convert::<f32>().into_parts();
            return bytes.try_into_vec().unwrap_or_else(|bytes| bytes.to_vec()).into();
        }
        let mut bytes = Vec::with_capacity(self.data_len());
        for part in &self.parts {
            bytes.extend_from_slice(part.data().convert::<f32>().as_bytes());
        }
        if self.transposed {
            let (values, _) = bytes.as_chunks::<{ size_of::<f32>() }>();
            bytes = transposed(values, self.shape[1]).into_flattened();
        }
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Writes the weights of a model folder, each at the place given: `model.safetensors`, or above 5 GB shards and their index. Each file is
/// written atomically, the index after its shards; weights that were there before under other names are removed in the end.
///
/// # Errors
/// [`Error::Io`] naming the file that cannot be written.
pub fn write_model(folder: &Path, parameters: impl IntoIterator<Item = (Place, Parameter)>) -> Result<()> {
    write_shards(folder, parameters, MAX_SHARD_BYTES)
}

fn write_shards(folder: &Path, parameters: impl IntoIterator<Item = (Place, Parameter)>, max_bytes: usize) -> Result<()> {
    let mut shards: Vec<BTreeMap<String, Stored>> = vec![BTreeMap::new()];
    let (mut n_bytes, mut total_bytes) = (0, 0);
    for (name, tensor) in joined(parameters) {
        let length = tensor.data_len();
        if n_bytes > 0 && n_bytes + length > max_bytes {
            shards.push(BTreeMap::new());
            n_bytes = 0;
        }
        (n_bytes, total_bytes) = (n_bytes + length, total_bytes + length);
        shards.last_mut().expect("at least one").insert(name, tensor);
    }
    let n_shards = shards.len();
    let file = |index: usize| match n_shards {
        1 => WEIGHTS_FILE.to_owned(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", index + 1),
    };
    let (mut written, mut weight_map) = (BTreeSet::new(), BTreeMap::new());
    for (index, tensors) in shards.into_iter().enumerate() {
        weight_map.extend(tensors.keys().map(|name| (name.clone(), file(index))));
        write_tensors(&folder.join(file(index)), tensors)?;
        written.insert(file(index));
    }
    if n_shards > 1 {
        let metadata = IndexMetadata { total_size: total_bytes as f64 };
        files::write_json(&folder.join(INDEX_FILE), &Index { metadata, weight_map })?;
        written.insert(INDEX_FILE.to_owned());
    }
    remove_others(folder, &written)
}

/// Removes weights from `folder` that are not among those `written`: a reader could take them for the model's.
fn remove_others(folder: &Path, written: &BTreeSet<String>) -> Result<()> {
    let is_shard = |name: &str| name.starts_with("model-") && name.contains("-of-") && name.ends_with(".safetensors");
    let is_weights = |name: &str| [WEIGHTS_FILE, INDEX_FILE, TORCH_FILE, TORCH_INDEX_FILE].contains(&name) || is_shard(name);
    for entry in std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))? {
        let entry = entry.map_err(|source| Error::io(folder, source))?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| is_weights(name) && !written.contains(name)) {
            std::fs::remove_file(entry.path()).map_err(|source| Error::io(&entry.path(), source))?;
        }
    }
    Ok(())
}

/// Writes parameters, each at the place given, as one safetensors file of f32, atomically. Those joined in one tensor come in the order of
/// its parts.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write(path: &Path, parameters: impl IntoIterator<Item = (Place, Parameter)>) -> Result<()> {
    write_tensors(path, joined(parameters))
}

/// The tensors that parameters are stored in, by name.
fn joined(parameters: impl IntoIterator<Item = (Place, Parameter)>) -> BTreeMap<String, Stored> {
    let mut tensors: BTreeMap<String, (Vec<Parameter>, bool)> = BTreeMap::new();
    for (place, parameter) in parameters {
        let (parts, _) = tensors.entry(place.tensor).or_insert_with(|| (Vec::new(), place.transposed));
        assert_eq!(parts.len(), place.part, "{} comes in order", parameter.path);
        parts.push(parameter);
    }
    tensors.into_iter().map(|(name, (parts, transposed))| (name, Stored::new(parts, transposed))).collect()
}

/// With the metadata that transformers looks for.
fn write_tensors(path: &Path, tensors: BTreeMap<String, Stored>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    files::write_atomic(path, |temporary| safetensors::serialize_to_file(tensors, Some(metadata), temporary).map_err(std::io::Error::other))
}

#[cfg(test)]
mod tests {
    use super::super::Weights;
    use super::*;

    fn parameter(path: &str, values: &[f32]) -> (Place, Parameter) {
        (Place::plain(path.to_owned()), Parameter::stored(path.to_owned(), vec![values.len()], values.to_vec()))
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn large_weights_are_sharded_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let all = || [("a", &[1.0, 2.0][..]), ("b", &[3.0, 4.0, 5.0, 6.0]), ("c", &[7.0]), ("d", &[8.0])].map(|(n, v)| parameter(n, v));
        // 8, 16, 4 and 4 bytes.
        write_shards(folder.path(), all(), 20).unwrap();
        let shards: Vec<String> = (1..=3).map(|index| format!("model-{index:05}-of-00003.safetensors")).collect();
        assert_eq!(names(folder.path()), [&shards[..], &[INDEX_FILE.to_owned()]].concat()[..]);
        let index: serde_json::Value = files::read_json(&folder.path().join(INDEX_FILE)).unwrap();
        assert_eq!(index["metadata"]["total_size"], 32.0);
        assert_eq!(index["weight_map"]["b"], shards[1]);
        let weights = Weights::open(folder.path()).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(weights.read("b", &[4]).unwrap(), [3.0, 4.0, 5.0, 6.0]);

        // A shard that lacks what the index promises is named, with the tensor.
        let damaged = tempfile::tempdir().unwrap();
        for name in names(folder.path()) {
            std::fs::copy(folder.path().join(&name), damaged.path().join(&name)).unwrap();
        }
        write(&damaged.path().join(&shards[1]), [parameter("other", &[1.0])]).unwrap();
        let message = Weights::open(damaged.path()).unwrap_err().to_string();
        assert!(message.contains("tensor \"b\" is not in model-00002-of-00003.safetensors"), "{message}");
        // Nor may an index lead out of its folder.
        std::fs::write(damaged.path().join(INDEX_FILE), r#"{"weight_map": {"a": "../model.safetensors"}}"#).unwrap();
        assert!(Weights::open(damaged.path()).unwrap_err().to_string().contains("no file name"));

        // A smaller model in their place leaves no shard behind, nor the other way round.
        write_model(folder.path(), all()).unwrap();
        assert_eq!(names(folder.path()), [WEIGHTS_FILE]);
        assert_eq!(Weights::open(folder.path()).unwrap().read("d", &[1]).unwrap(), [8.0]);
        write_shards(folder.path(), all(), 30).unwrap();
        assert_eq!(names(folder.path()).len(), 3);
        assert_eq!(Weights::open(folder.path()).unwrap().read("a", &[2]).unwrap(), [1.0, 2.0]);
    }
}
