//! A file of reference values.

use kiln_core::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name of the file in a checkpoint's folder.
pub const REFERENCE_FILE: &str = "golden.safetensors";

/// An array of reference values; f64 holds i32 and f32 exactly.
#[derive(Clone, Debug)]
pub struct Array {
    /// The extent of each axis.
    pub shape: Vec<usize>,
    /// All values, last axis fastest.
    pub values: Vec<f64>,
}

/// The arrays of a reference file by name.
#[derive(Clone, Debug)]
pub struct Reference {
    path: PathBuf,
    /// All arrays.
    pub arrays: BTreeMap<String, Array>,
    /// The text of each row, if the file says them.
    pub texts: Option<Vec<String>>,
}

impl Reference {
    /// Reads a safetensors file of float32 and int32.
    ///
    /// # Errors
    /// If the file is missing, damaged or holds something else.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        let damaged = |error: safetensors::SafeTensorError| Error::checkpoint(path, format!("damaged or not safetensors: {error}"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let arrays = file.tensors().into_iter().map(|(name, view)| Ok((name.clone(), array(path, &name, &view)?)));
        let texts = match metadata.metadata().as_ref().and_then(|metadata| metadata.get("texts")) {
            None => None,
            Some(texts) => Some(
                serde_json::from_str(texts)
                    .map_err(|error| Error::checkpoint(path, format!("metadata \"texts\": expected a JSON list of texts: {error}")))?,
            ),
        };
        Ok(Self { path: path.to_owned(), arrays: arrays.collect::<Result<_>>()?, texts })
    }

    /// An error about the file.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, message)
    }

    /// One array.
    ///
    /// # Errors
    /// If the file does not hold it.
    pub fn get(&self, name: &str) -> Result<&Array> {
        self.arrays.get(name).ok_or_else(|| self.error(format!("tensor {name:?} is missing")))
    }

    /// The rows of a matrix of whole numbers.
    ///
    /// # Errors
    /// If the file does not hold it or it is no matrix.
    pub fn int_rows(&self, name: &str) -> Result<Vec<Vec<i64>>> {
        let Array { shape, values } = self.get(name)?;
        let &[_, width] = shape.as_slice() else {
            return Err(self.error(format!("tensor {name:?} has shape {shape:?}, expected [batch, time]")));
        };
        Ok(values.chunks_exact(width.max(1)).map(|row| row.iter().map(|&value| value as i64).collect()).collect())
    }

    /// The vectors of a `[batch, time, width]` array at real tokens, one after the other.
    ///
    /// # Errors
    /// If the file does not hold it or it has another shape.
    pub fn at_tokens(&self, name: &str) -> Result<Vec<f64>> {
        let Array { shape, values } = self.get(name)?;
        let keep = self.get("attention_mask")?;
        match shape.as_slice() {
            &[batch, time, width] if keep.shape == [batch, time] => {
                let vectors = values.chunks_exact(width.max(1)).zip(&keep.values).filter(|(_, keep)| **keep == 1.0);
                Ok(vectors.flat_map(|(vector, _)| vector.to_vec()).collect())
            }
            _ => Err(self.error(format!("tensor {name:?} has shape {shape:?}, \"attention_mask\" {:?}: no vector per token", keep.shape))),
        }
    }

    /// The arrays whose name starts with `prefix`, under the rest of their name.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, Array> {
        let rest = |(name, array): (&String, &Array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()));
        self.arrays.iter().filter_map(rest).collect()
    }
}

fn array(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Array> {
    let words = view.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
    let values = match view.dtype() {
        Dtype::F32 => words.map(|word| f64::from(f32::from_le_bytes(word))).collect(),
        Dtype::I32 => words.map(|word| f64::from(i32::from_le_bytes(word))).collect(),
        other => return Err(Error::checkpoint(path, format!("tensor {name:?} is {other:?}; expected F32 or I32"))),
    };
    Ok(Array { shape: view.shape().to_vec(), values })
}
