//! Vectors of texts: of a file of them into another file, and the nearest to a query.

use crate::config::ColumnsConfig;
use crate::data::cut;
use burn::tensor::Device;
use kiln_core::checkpoint;
use kiln_core::config::ModelConfig;
use kiln_core::family::Place;
use kiln_core::files::{check_writable, write_atomic};
use kiln_core::model::Model as _;
use kiln_core::parameters::Parameter;
use kiln_core::search::nearest;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::{Counts, Limit, Overlong};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::source::{at_least_one, fetched, required};
use kiln_data::texts::column_of;
use serde::{Deserialize, Serialize};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The settings of an embedding.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedConfig {
    /// The folder of the encoder, in the layout of sentence-transformers or of Hugging Face.
    pub model: PathBuf,
    /// The texts: .jsonl, .csv, .tsv or .txt.
    pub data: PathBuf,
    /// What the columns mean; the texts are in `columns.text`.
    pub columns: ColumnsConfig,
    /// The file to write, which must not be there yet: .npy or .safetensors (`embeddings`, f32, `[texts, width]`), or .jsonl with a text and
    /// its vector per line.
    pub output: PathBuf,
}

/// The settings of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchConfig {
    /// The folder of the encoder, in the layout of sentence-transformers or of Hugging Face.
    pub model: PathBuf,
    /// The texts to search: .jsonl, .csv, .tsv or .txt.
    pub data: PathBuf,
    /// What the columns mean; the texts are in `columns.text`.
    pub columns: ColumnsConfig,
    /// The text to search for.
    pub query: String,
    /// How many texts to find. Default 10.
    pub n: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        let EmbedConfig { model, data, columns, .. } = EmbedConfig::default();
        Self { model, data, columns, query: String::new(), n: 10 }
    }
}

/// A text that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Its cosine with the query.
    pub cosine: f32,
    /// The line it starts on.
    pub line: usize,
    /// The text.
    pub text: String,
}

/// How a file of vectors is written.
#[derive(Clone, Copy)]
enum Format {
    Npy,
    Safetensors,
    JsonLines,
}

/// Writes the vectors of a file's texts. Returns what became of the texts and how long a vector is.
///
/// # Errors
/// If a setting, the model, a text or the output is bad.
pub fn embed(config: &EmbedConfig, device: &Device) -> Result<(Counts, usize)> {
    required("model", &config.model, "the folder of the encoder")?;
    required("data", &config.data, "the file of texts")?;
    required("output", &config.output, "the file to write: .npy, .safetensors or .jsonl")?;
    let format = match config.output.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => Format::Npy,
        Some("safetensors") => Format::Safetensors,
        Some("jsonl") => Format::JsonLines,
        other => {
            let found = other.map_or_else(|| "no extension".to_owned(), |extension| format!(".{extension}"));
            return Err(Error::config("output", format!("found {found}, expected .npy, .safetensors or .jsonl")));
        }
    };
    if config.output.exists() {
        return Err(Error::config("output", format!("{} is there already: choose another name, or remove it", config.output.display())));
    }
    check_writable("output", config.output.parent().unwrap_or(Path::new("")))?;
    let encoder = Encoder::load(&config.model, device)?;
    let texts = column_of(&Table::read(&fetched("data", &config.data, "test")?, &config.columns.names)?, &config.columns.text)?;
    let (vectors, counts) = encoder.vectors(texts.clone())?;
    let width = encoder.model.config().hidden_size;
    let shape = [vectors.len(), width];
    match format {
        Format::Npy => write_npy(&config.output, shape, vectors.iter().flatten())?,
        Format::Safetensors => {
            let stored = Parameter::stored("embeddings".into(), shape.to_vec(), vectors.concat());
            checkpoint::write(&config.output, [(Place::plain("embeddings".into()), stored)])?;
        }
        Format::JsonLines => {
            #[derive(Serialize)]
            struct Line<'a> {
                text: &'a str,
                vector: &'a [f32],
            }
            let lines: Vec<Line> = texts.iter().zip(&vectors).map(|(text, vector)| Line { text, vector }).collect();
            write_jsonl(&config.output, &lines)?;
        }
    }
    Ok((counts, width))
}

/// The texts of a file that are nearest to the query, nearest first.
///
/// # Errors
/// If a setting, the model or a text is bad.
pub fn search(config: &SearchConfig, device: &Device) -> Result<(Vec<Found>, Counts)> {
    required("model", &config.model, "the folder of the encoder")?;
    required("data", &config.data, "the file of texts to search")?;
    if config.query.trim().is_empty() {
        return Err(Error::config("query", "missing: the text to search for"));
    }
    at_least_one("n", config.n)?;
    let encoder = Encoder::load(&config.model, device)?;
    let table = Table::read(&fetched("data", &config.data, "test")?, &config.columns.names)?;
    let texts = column_of(&table, &config.columns.text)?;
    let (documents, counts) = encoder.vectors(texts.clone())?;
    let (query, _) = encoder.vectors(vec![config.query.clone()])?;
    let found = nearest(&query, &documents, config.n, device).remove(0);
    let of = |(place, cosine): (usize, f32)| Found { cosine, line: table.rows[place].line, text: texts[place].clone() };
    Ok((found.into_iter().map(of).collect(), counts))
}

struct Encoder {
    model: SentenceEncoder,
    tokenizer: Tokenizer,
}

impl Encoder {
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        let tokenizer = Tokenizer::for_model(folder, &ModelConfig::from_folder(folder)?)?;
        Ok(Self { model: SentenceEncoder::load(folder, device)?.0, tokenizer })
    }

    fn vectors(&self, texts: Vec<String>) -> Result<(Vec<Vec<f32>>, Counts)> {
        let limit = Limit::new(self.model.head().max_tokens, Overlong::Truncate, &self.tokenizer)?;
        let mut counts = Counts::default();
        let sequences = cut(texts, &self.tokenizer, limit, &mut counts)?;
        Ok((self.model.embed(&sequences), counts))
    }
}

/// A NumPy file of version 1.0: a magic number, the length of the header, the header padded with spaces to a multiple of 64 bytes, the
/// numbers. Source: the documentation of `numpy.lib.format`.
fn write_npy<'a>(path: &Path, [rows, width]: [usize; 2], values: impl Iterator<Item = &'a f32>) -> Result<()> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let header = format!("{header:<width$}\n", width = (10 + header.len() + 1).next_multiple_of(64) - 11);
    write_atomic(path, |temporary| {
        let mut file = BufWriter::new(std::fs::File::create(temporary)?);
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&(header.len() as u16).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for value in values {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numpy_file_is_laid_out_as_numpy_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        write_npy(&path, [2, 3], [1.0f32, 2.0, 3.0, -4.0, 0.5, 6.0].iter()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }") && header.ends_with(" \n"), "{header:?}");
        let values: Vec<f32> = bytes[10 + length..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(values, [1.0, 2.0, 3.0, -4.0, 0.5, 6.0]);
    }
}
