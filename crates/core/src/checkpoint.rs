//! Weights in safetensors files and in PyTorch's: reading them tensor by tensor, and writing them atomically as safetensors.
//!
//! Files are read at positions, in parallel chunks, straight into the buffers that become tensors. They are not mapped into memory: a
//! mapped file counts as memory twice while it is copied, and one that shrinks under the reader kills the process.

mod pickle;
mod safetensors_file;
mod store;
mod torch_file;

use crate::files::read_exact_at;
use crate::{Error, Result, files, hub};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

pub use store::{write, write_model};

/// File name of unsharded weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// PyTorch's own format, as older models have it.
const TORCH_FILE: &str = "pytorch_model.bin";
const TORCH_INDEX_FILE: &str = "pytorch_model.bin.index.json";

/// The weights of a model folder, opened but not read: headers only.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    /// Which shard holds a tensor.
    tensors: BTreeMap<String, usize>,
    /// The file to name in an error.
    path: PathBuf,
}

/// One file and what it holds.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Entry>,
}

/// Where a file holds a tensor. All of it is inside the file.
#[derive(Debug)]
struct Entry {
    element: Element,
    shape: Vec<usize>,
    /// The offset of the first byte in the file.
    start: u64,
    /// How many elements lie between neighbours along each axis, where they do not lie row by row.
    strides: Option<Vec<usize>>,
}

/// What a file holds numbers as.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    F32,
    F16,
    Bf16,
    F64,
    /// Not a weight.
    Other(String),
}

impl Element {
    fn n_bytes(&self) -> Option<usize> {
        match self {
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::F64 => Some(8),
            Self::Other(_) => None,
        }
    }

    /// Little-endian bytes as f32.
    fn widen(&self, bytes: &[u8], values: &mut [f32]) {
        // Copied where they lie askew; the bits of f16 and bf16 as the machine orders bytes.
        let halves = || -> Vec<u16> { bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect() };
        match self {
            Self::F32 => values.iter_mut().zip(bytes.chunks_exact(4)).for_each(|(value, bytes)| {
                *value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
            }),
            Self::F16 => bytemuck::cast_slice::<u16, f16>(&halves()).convert_to_f32_slice(values),
            Self::Bf16 => bytemuck::cast_slice::<u16, bf16>(&halves()).convert_to_f32_slice(values),
            Self::F64 => values.iter_mut().zip(bytes.chunks_exact(8)).for_each(|(value, bytes)| {
                *value = f64::from_le_bytes(bytes.try_into().expect("eight bytes")) as f32;
            }),
            Self::Other(_) => unreachable!("refused before it is read"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(default)]
    metadata: IndexMetadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Default, Serialize, Deserialize)]
struct IndexMetadata {
    /// Bytes of all tensors.
    #[serde(default)]
    total_size: f64,
}

/// The files of a model folder that are read: its weights, all there that is text, and those in the folders of the modules of a sentence
/// encoder.
///
/// # Errors
/// If the folder or its weights cannot be opened.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Weights::open(folder)?.shards.into_iter().map(|shard| shard.path).collect();
    let modules = folder.join("modules.json");
    let modules: Vec<serde_json::Value> = if modules.exists() { files::read_json(&modules)? } else { Vec::new() };
    let modules = modules.iter().filter_map(|module| module["path"].as_str()).filter(|path| !path.is_empty());
    for (folder, texts_only) in
        [(folder.to_owned(), true)].into_iter().chain(modules.map(|path| (folder.join(path), false))).filter(|(folder, _)| folder.is_dir())
    {
        for entry in std::fs::read_dir(&folder).map_err(|source| Error::io(&folder, source))? {
            let path = entry.map_err(|source| Error::io(&folder, source))?.path();
            let is_text = path.extension().is_some_and(|extension| ["json", "jinja", "txt", "model"].iter().any(|text| extension == *text));
            files.extend((path.is_file() && (is_text || !texts_only)).then_some(path));
        }
    }
    Ok(files)
}

impl Weights {
    /// Opens the weights of `folder`, or of a model by its name on the hub: `model.safetensors`, the shards that `model.safetensors.index.json` lists, or the same of
    /// `pytorch_model.bin`.
    ///
    /// # Errors
    /// If the files are missing, truncated or of another format, or a tensor that the index lists is not in its shard.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = &hub::folder(folder)?;
        let has = |name: &&str| folder.join(name).exists();
        match [WEIGHTS_FILE, INDEX_FILE, TORCH_FILE, TORCH_INDEX_FILE].into_iter().find(has) {
            Some(index @ (INDEX_FILE | TORCH_INDEX_FILE)) => Self::open_index(&folder.join(index)),
            Some(file) => Self::open_file(&folder.join(file)),
            None => {
                let path = folder.join(WEIGHTS_FILE);
                Err(Error::checkpoint(
                    &path,
                    format!("No such file; weights are read from it, its shards and {INDEX_FILE}, or {TORCH_FILE}"),
                ))
            }
        }
    }

    /// Opens one file, by its extension PyTorch's or safetensors.
    ///
    /// # Errors
    /// If the file is missing, truncated or of another format.
    pub fn open_file(path: &Path) -> Result<Self> {
        let shard = Shard::open(path.to_owned())?;
        let tensors = shard.tensors.keys().map(|name| (name.clone(), 0)).collect();
        Ok(Self { shards: vec![shard], tensors, path: path.to_owned() })
    }

    fn open_index(path: &Path) -> Result<Self> {
        let Index { weight_map, .. } = files::read_json(path)?;
        let fail = |message: String| Error::checkpoint(path, message);
        let names: BTreeSet<&String> = weight_map.values().collect();
        // They are joined to the folder's path: none may lead out of it.
        if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            return Err(fail(format!("{name:?} is no file name: shards lie beside their index")));
        }
        let shards = names.iter().map(|name| Shard::open(path.with_file_name(name))).collect::<Result<Vec<_>>>()?;
        let mut tensors = BTreeMap::new();
        for (index, (shard, file)) in shards.iter().zip(names).enumerate() {
            tensors.extend(shard.tensors.keys().map(|name| (name.clone(), index)));
            if let Some((name, _)) = weight_map.iter().find(|(name, of)| *of == file && !shard.tensors.contains_key(&modern_name(name))) {
                return Err(fail(format!("tensor {name:?} is not in {file}, where the index has it; download both again")));
            }
        }
        match shards.is_empty() {
            true => Err(fail("key \"weight_map\": no tensors".into())),
            false => Ok(Self { shards, tensors, path: path.to_owned() }),
        }
    }

    /// The file to name in an error about these weights.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The extent of each axis of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let shard = &self.shards[*self.tensors.get(name)?];
        shard.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Whether two tensors hold the same numbers, which only those are read for that do not lie in the same place.
    ///
    /// # Errors
    /// If one is missing or cannot be read.
    pub fn are_equal(&self, a: &str, b: &str) -> Result<bool> {
        let place = |name: &str| {
            let shard = *self.tensors.get(name)?;
            let Entry { element, shape, start, strides } = &self.shards[shard].tensors[name];
            Some((shard, element, shape, start, strides))
        };
        let shape = |name: &str| self.shape(name).unwrap_or_default();
        Ok(place(a) == place(b) || shape(a) == shape(b) && self.read(a, shape(a))? == self.read(b, shape(b))?)
    }

    /// Reads a tensor as f32, on all cores: F32 straight from the file into the returned buffer, F16, BF16 and F64 converted on the way.
    ///
    /// # Errors
    /// If it is missing, has another shape or element type, or the file cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(&index) = self.tensors.get(name) else {
            return Err(Error::checkpoint(self.path(), format!("tensor {name:?} is missing; expected shape {shape:?}")));
        };
        let shard = &self.shards[index];
        let entry = &shard.tensors[name];
        // Before anything is allocated: what fits the file's own size is bounded by it.
        if entry.shape != shape {
            let message = format!("tensor {name:?} has shape {:?}, config.json asks for {shape:?}", entry.shape);
            return Err(Error::checkpoint(&shard.path, message));
        }
        shard.read(name, entry)
    }
}

/// Numbers per unit of parallel reading.
const CHUNK: usize = 1 << 18;

impl Shard {
    fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
        let size = file.metadata().map_err(|source| Error::io(&path, source))?.len();
        let read = match path.extension().and_then(|extension| extension.to_str()) {
            Some("bin" | "pt" | "pth") => torch_file::entries,
            _ => safetensors_file::entries,
        };
        let entries = read(&file, size).map_err(|fault| match fault {
            Fault::Io(source) => Error::io(&path, source),
            Fault::Format(message) => Error::checkpoint(&path, message),
        })?;
        let tensors = entries.into_iter().map(|(name, entry)| (modern_name(&name), entry)).collect();
        Ok(Self { path, file, tensors })
    }

    fn read(&self, name: &str, entry: &Entry) -> Result<Vec<f32>> {
        let Some(n_bytes) = entry.element.n_bytes() else {
            let Element::Other(other) = &entry.element else { unreachable!("the others have a size") };
            return Err(Error::checkpoint(&self.path, format!("tensor {name:?} is {other}; expected F32, F16, BF16 or F64")));
        };
        let io = |source| Error::io(&self.path, source);
        if let Some(strides) = &entry.strides {
            return self.read_strided(entry, strides, n_bytes).map_err(io);
        }
        let mut values = vec![0f32; entry.shape.iter().product()];
        let read = |(index, values): (usize, &mut [f32])| {
            let start = entry.start + (index * CHUNK * n_bytes) as u64;
            if entry.element == Element::F32 && cfg!(target_endian = "little") {
                return read_exact_at(&self.file, bytemuck::cast_slice_mut(values), start);
            }
            let mut bytes = vec![0; values.len() * n_bytes];
            read_exact_at(&self.file, &mut bytes, start)?;
            entry.element.widen(&bytes, values);
            Ok(())
        };
        values.par_chunks_mut(CHUNK).enumerate().try_for_each(read).map_err(io)?;
        Ok(values)
    }

    /// A tensor that does not lie row by row, such as a transposed one: all it spans, and out of that each element.
    fn read_strided(&self, entry: &Entry, strides: &[usize], n_bytes: usize) -> std::io::Result<Vec<f32>> {
        let span: usize = 1 + entry.shape.iter().zip(strides).map(|(extent, stride)| (extent - 1) * stride).sum::<usize>();
        let (mut bytes, mut stored) = (vec![0; span * n_bytes], vec![0f32; span]);
        read_exact_at(&self.file, &mut bytes, entry.start)?;
        entry.element.widen(&bytes, &mut stored);
        let count = entry.shape.iter().product();
        let (mut at, mut offset) = (vec![0; entry.shape.len()], 0);
        let next = |_| {
            let value = stored[offset];
            for (axis, (&extent, &stride)) in entry.shape.iter().zip(strides).enumerate().rev() {
                (at[axis], offset) = (at[axis] + 1, offset + stride);
                if at[axis] < extent {
                    break;
                }
                (at[axis], offset) = (0, offset - stride * extent);
            }
            value
        };
        Ok((0..count).map(next).collect())
    }
}

/// What is wrong with a file, for the one who knows its name.
#[derive(Debug)]
enum Fault {
    Io(std::io::Error),
    Format(String),
}

impl From<std::io::Error> for Fault {
    fn from(source: std::io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Format(message)
    }
}

/// The first BERT checkpoints call a norm's gain gamma and its bias beta.
fn modern_name(name: &str) -> String {
    match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
        (Some(layer), _) => format!("{layer}LayerNorm.weight"),
        (_, Some(layer)) => format!("{layer}LayerNorm.bias"),
        _ => name.to_owned(),
    }
}

/// A matrix of `n_rows` rows, transposed.
pub fn transposed<T: Copy + Default>(values: &[T], n_rows: usize) -> Vec<T> {
    /// Edge of the square tiles that are turned one by one, because whole columns would miss the cache at every step.
    const TILE: usize = 16;
    let n_columns = values.len() / n_rows.max(1);
    let mut turned = vec![T::default(); values.len()];
    for row_start in (0..n_rows).step_by(TILE) {
        for column_start in (0..n_columns).step_by(TILE) {
            for column in column_start..n_columns.min(column_start + TILE) {
                for row in row_start..n_rows.min(row_start + TILE) {
                    turned[column * n_rows + row] = values[row * n_columns + column];
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More numbers than a chunk, in every element type; those of f16 and bf16 are exact.
    #[test]
    fn element_types_are_converted_in_parallel() {
        let values: Vec<f32> = (0..CHUNK + 77).map(|index| (index % 251) as f32 - 125.0).collect();
        let bytes = |element: &Element| -> Vec<u8> {
            values
                .iter()
                .flat_map(|&value| match element {
                    Element::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
                    Element::Bf16 => bf16::from_f32(value).to_le_bytes().to_vec(),
                    Element::F64 => f64::from(value).to_le_bytes().to_vec(),
                    _ => value.to_le_bytes().to_vec(),
                })
                .collect()
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        for (element, dtype) in [(Element::F32, "F32"), (Element::F16, "F16"), (Element::Bf16, "BF16"), (Element::F64, "F64")] {
            let data = bytes(&element);
            let header = format!(r#"{{"x": {{"dtype": "{dtype}", "shape": [{}], "data_offsets": [0, {}]}}}}"#, values.len(), data.len());
            std::fs::write(file.path(), [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
            let weights = Weights::open_file(file.path()).unwrap();
            assert_eq!(weights.read("x", &[values.len()]).unwrap(), values, "{dtype}");
        }
    }

    #[test]
    fn rows_become_columns() {
        for (n_rows, n_columns) in [(2, 3), (1, 5), (40, 19), (16, 32)] {
            let values: Vec<f32> = (0..n_rows * n_columns).map(|index| index as f32).collect();
            let turned = transposed(&values, n_rows);
            for (row, column) in (0..n_rows).flat_map(|row| (0..n_columns).map(move |column| (row, column))) {
                assert_eq!(turned[column * n_rows + row], values[row * n_columns + column]);
            }
        }
    }
}
