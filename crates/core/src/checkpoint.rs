//! Weights in safetensors files: reading them tensor by tensor, and writing them atomically.

use crate::family::Place;
use crate::parameters::Parameter;
use crate::{Error, Result, files};
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, View};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// File name of unsharded weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// The weights of a model folder, opened but not read: headers only.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    /// Which shard holds a tensor.
    tensors: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors' bytes begin, after the header.
    data_start: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens `model.safetensors` of `folder`, or the shards its `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// If the files are missing, truncated or not safetensors.
    pub fn open(folder: &Path) -> Result<Self> {
        let index_path = folder.join(INDEX_FILE);
        if !folder.join(WEIGHTS_FILE).exists() && index_path.exists() {
            let index: Index = files::read_json(&index_path)?;
            let mut names: Vec<&String> = index.weight_map.values().collect();
            names.sort();
            names.dedup();
            return Self::from_files(names.into_iter().map(|name| folder.join(name)));
        }
        Self::open_file(&folder.join(WEIGHTS_FILE))
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// If the file is missing, truncated or not safetensors.
    pub fn open_file(path: &Path) -> Result<Self> {
        Self::from_files([path.to_owned()])
    }

    fn from_files(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        let shards = paths.into_iter().map(Shard::open).collect::<Result<Vec<_>>>()?;
        let of_shard =
            |(index, shard): (usize, &Shard)| shard.metadata.tensors().into_keys().map(move |name| (name, index)).collect::<Vec<_>>();
        let tensors = shards.iter().enumerate().flat_map(of_shard).collect();
        Ok(Self { shards, tensors })
    }

    /// The file to name in an error about these weights.
    pub fn path(&self) -> &Path {
        &self.shards[0].path
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
        shard.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// Reads a tensor as f32: F32 straight from the file into the returned buffer, F16, BF16 and F64 converted on the way.
    ///
    /// # Errors
    /// If it is missing, has another shape or element type, or the file cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let Some(&index) = self.tensors.get(name) else {
            return Err(Error::checkpoint(self.path(), format!("tensor {name:?} is missing; expected shape {shape:?}")));
        };
        let shard = &self.shards[index];
        let info = shard.metadata.info(name).expect("the index was made from the metadata");
        if info.shape != shape {
            let message = format!("tensor {name:?} has shape {:?}, config.json asks for {shape:?}", info.shape);
            return Err(Error::checkpoint(&shard.path, message));
        }
        shard.read(name, info)
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self> {
        let mut file = File::open(&path).map_err(|source| Error::io(&path, source))?;
        let fail = |message: String| Error::checkpoint(&path, message);
        let size = file.metadata().map_err(|source| Error::io(&path, source))?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| fail(format!("not a safetensors file: only {size} bytes")))?;
        let header_length = u64::from_le_bytes(length);
        if header_length.saturating_add(8) > size {
            return Err(fail(format!("truncated or not safetensors: the header claims {header_length} bytes, the file has {size}")));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(|source| Error::io(&path, source))?;
        // Not `SafeTensors::read_metadata`, which wants the whole file in memory.
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| fail(format!("the safetensors header is damaged: {error}")))?;
        let data_start = header_length + 8;
        let expected = data_start + metadata.data_len() as u64;
        if size < expected {
            return Err(fail(format!("truncated: {size} bytes, the header promises {expected}; copy or download it again")));
        }
        Ok(Self { path, file, metadata, data_start })
    }

    fn read(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let count: usize = info.shape.iter().product();
        let mut file = &self.file;
        let io = |source| Error::io(&self.path, source);
        file.seek(SeekFrom::Start(self.data_start + info.data_offsets.0 as u64)).map_err(io)?;
        if info.dtype == Dtype::F32 {
            let mut values = vec![0f32; count];
            file.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(io)?;
            if cfg!(target_endian = "big") {
                values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
            }
            return Ok(values);
        }
        let mut bytes = vec![0; info.data_offsets.1 - info.data_offsets.0];
        file.read_exact(&mut bytes).map_err(io)?;
        match info.dtype {
            Dtype::F16 => Ok(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
            Dtype::BF16 => Ok(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
            Dtype::F64 => Ok(bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes")) as f32).collect()),
            other => Err(Error::checkpoint(&self.path, format!("tensor {name:?} is {other:?}; expected F32, F16, BF16 or F64"))),
        }
    }
}

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

/// Writes parameters, each at the place given, as one safetensors file of f32, atomically, with the metadata transformers looks for. Those
/// joined in one tensor come in the order of its parts.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write(path: &Path, parameters: impl IntoIterator<Item = (Place, Parameter)>) -> Result<()> {
    let mut tensors: BTreeMap<String, (Vec<Parameter>, bool)> = BTreeMap::new();
    for (place, parameter) in parameters {
        let (parts, _) = tensors.entry(place.tensor).or_insert_with(|| (Vec::new(), place.transposed));
        assert_eq!(parts.len(), place.part, "{} comes in order", parameter.path);
        parts.push(parameter);
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let stored = tensors.into_iter().map(|(name, (parts, transposed))| (name, Stored::new(parts, transposed)));
    files::write_atomic(path, |temporary| safetensors::serialize_to_file(stored, Some(metadata), temporary).map_err(std::io::Error::other))
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
