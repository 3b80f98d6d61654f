//! Sentence embeddings: a trunk whose tokens are pooled into one vector per sequence, of length 1 where the folder says so.
//!
//! Source: Reimers and Gurevych, arXiv:1908.10084, Section 3; the folder's files are those of sentence-transformers.

use crate::builder::{Builder, Fit};
use crate::checkpoint::Weights;
use crate::config::ModelConfig;
use crate::family::{Layout, Place};
use crate::linear::Linear;
use crate::model::{self, Model};
use crate::packed::Packed;
use crate::parameters::Parameter;
use crate::tokenizer::Tokenizer;
use crate::transformer::Transformer;
use crate::{Error, Result, adapter, checkpoint, files, hub};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_kernels::pool::{Pooling, normalize_l2, pool};
use kiln_kernels::random::Key;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A trunk and what makes one vector of its tokens.
#[derive(Module, Debug)]
pub struct SentenceEncoder {
    /// Embeddings and blocks.
    pub trunk: Transformer,
    #[module(skip)]
    head: SentenceHead,
    #[module(skip)]
    config: ModelConfig,
}

/// How a sequence becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentenceHead {
    /// What stands for the sequence.
    pub pooling: Pooling,
    /// Whether the vector's length is set to 1.
    pub normalize: bool,
    /// Tokens of a sequence that are used; the rest is cut off.
    pub max_tokens: usize,
}

/// Tokens per forward pass; the vectors do not depend on it.
const BATCH_TOKENS: usize = 4096;

/// The steps from text to vector.
const STEPS: &str = "modules.json";
/// Prompts and the like.
const SETTINGS: &str = "config_sentence_transformers.json";

/// One of the steps that `modules.json` lists.
#[derive(Deserialize)]
struct Step {
    #[serde(rename = "type")]
    class: String,
    path: String,
}

impl SentenceHead {
    /// What the files of sentence-transformers in `folder` say; without them the mean of up to as many tokens as the model has positions.
    ///
    /// # Errors
    /// If a file is damaged or asks for something Kiln does not do.
    pub fn from_folder(folder: &Path, config: &ModelConfig) -> Result<Self> {
        let folder = &hub::folder(folder)?;
        let max_tokens = max_tokens(folder)?.unwrap_or(usize::MAX).min(config.max_positions);
        let mut head = Self { pooling: Pooling::Mean, normalize: false, max_tokens };
        let path = folder.join(STEPS);
        let steps: Vec<Step> = if path.exists() { files::read_json(&path)? } else { Vec::new() };
        for (index, step) in steps.iter().enumerate() {
            match step.class.rsplit('.').next().unwrap_or_default() {
                "Transformer" if index == 0 && step.path.is_empty() => {}
                "Pooling" if index == 1 => head.pooling = pooling(&folder.join(&step.path).join("config.json"))?,
                "Normalize" if index == 2 => head.normalize = true,
                _ => {
                    let message = format!("step {index} is {:?} in {:?}; known are Transformer, Pooling, Normalize", step.class, step.path);
                    return Err(Error::checkpoint(&path, message));
                }
            }
        }
        Ok(head)
    }

    /// The same if there are such files, else `None`.
    ///
    /// # Errors
    /// If a file is damaged or asks for something Kiln does not do.
    pub fn of_folder(folder: &Path, config: &ModelConfig) -> Result<Option<Self>> {
        let folder = &hub::folder(folder)?;
        folder.join(STEPS).exists().then(|| Self::from_folder(folder, config)).transpose()
    }

    /// Writes the files of sentence-transformers into `folder`, for vectors of `width` numbers. What the folder `from` says beyond
    /// them, such as prompts, is carried over.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, width: usize, from: &Path, folder: &Path) -> Result<()> {
        let step = |index: usize, path: &str, class: &str| json!({"idx": index, "name": index.to_string(), "path": path, "type": format!("sentence_transformers.models.{class}")});
        let mut steps = vec![step(0, "", "Transformer"), step(1, "1_Pooling", "Pooling")];
        steps.extend(self.normalize.then(|| step(2, "2_Normalize", "Normalize")));
        let is = |pooling| self.pooling == pooling;
        // The keys of older versions: newer ones read them too, and other programs know only these.
        let pooling = json!({
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": is(Pooling::Cls),
            "pooling_mode_mean_tokens": is(Pooling::Mean),
            "pooling_mode_max_tokens": is(Pooling::Max),
            "pooling_mode_mean_sqrt_len_tokens": false,
            "pooling_mode_weightedmean_tokens": false,
            "pooling_mode_lasttoken": is(Pooling::Last),
        });
        let kept = hub::folder(from)?.join(SETTINGS);
        let settings: Value = if kept.exists() {
            files::read_json(&kept)?
        } else {
            json!({"prompts": {}, "default_prompt_name": null, "similarity_fn_name": "cosine"})
        };
        files::write_json(&folder.join("1_Pooling/config.json"), &pooling)?;
        files::write_json(&folder.join("sentence_bert_config.json"), &json!({"max_seq_length": self.max_tokens, "do_lower_case": false}))?;
        files::write_json(&folder.join(SETTINGS), &settings)?;
        files::write_json(&folder.join(STEPS), &steps)
    }
}

/// Whether `folder` holds a sentence encoder: it has the files of sentence-transformers, or nothing but the trunk of an encoder.
///
/// # Errors
/// If `config.json` is missing or damaged.
pub fn is_sentence_encoder(folder: &Path) -> Result<bool> {
    let folder = &hub::folder(folder)?;
    let config = ModelConfig::from_folder(folder)?;
    Ok(folder.join(STEPS).exists() || !config.causal && config.class_name() == Some(&config.family.trunk_class()))
}

/// The longest sequence the folder's settings allow, if they say.
fn max_tokens(folder: &Path) -> Result<Option<usize>> {
    for (file, key) in [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")] {
        let path = folder.join(file);
        let settings: Map<String, Value> = if path.exists() { files::read_json(&path)? } else { Map::new() };
        // Where there is no limit, transformers writes 10³⁰.
        if let Some(most) = settings.get(key).and_then(Value::as_f64) {
            return Ok(Some(most as usize));
        }
    }
    Ok(None)
}

/// The pooling under the key of sentence-transformers 6 or under those of older versions.
fn pooling(path: &Path) -> Result<Pooling> {
    let settings: Map<String, Value> = files::read_json(path)?;
    let names = match settings.get("pooling_mode") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(other) => vec![other.to_string()],
        None => {
            let chosen = settings.iter().filter(|(_, value)| **value == true);
            chosen.filter_map(|(key, _)| Some(key.strip_prefix("pooling_mode_")?.to_owned())).collect()
        }
    };
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mean" | "mean_tokens"] => Ok(Pooling::Mean),
        ["cls" | "cls_token"] => Ok(Pooling::Cls),
        ["max" | "max_tokens"] => Ok(Pooling::Max),
        ["lasttoken"] => Ok(Pooling::Last),
        _ => Err(Error::checkpoint(path, format!("pooling by {names:?} is not supported; known are one of mean, cls, max, lasttoken"))),
    }
}

impl SentenceEncoder {
    /// Reads a model folder in the layout of sentence-transformers, or a bare encoder or decoder.
    ///
    /// # Errors
    /// If a file is missing, damaged, or does not fit `config.json`, or asks for something Kiln does not do.
    pub fn load(folder: &Path, device: &Device) -> Result<(Self, Fit)> {
        let config = ModelConfig::from_folder(folder)?;
        let head = SentenceHead::from_folder(folder, &config)?;
        let mut builder = Builder::from_checkpoint(folder, Layout::bare(config.family), device, Key::new(0))?;
        let trunk = Transformer::build(&mut builder, &config)?;
        Ok((Self { trunk, head, config }, builder.fit()))
    }

    /// Writes a folder that sentence-transformers loads, and transformers as a bare trunk; adapters are merged into the weights. What the
    /// folder `from`, where the encoder came from, holds beyond the encoder is carried over: prompts, and the weights of a pooler that only
    /// classifiers use.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn save(&self, tokenizer: &Tokenizer, from: &Path, folder: &Path) -> Result<()> {
        let family = self.config.family;
        let bare = |name: String| name.strip_prefix(family.trunk_prefix()).map(str::to_owned).unwrap_or(name);
        let weights = Weights::open(from)?;
        let mut carried = Vec::new();
        for name in weights.names().filter(|name| bare((*name).to_owned()).starts_with("pooler.")) {
            let shape = weights.shape(name).unwrap_or_default().to_vec();
            let values = weights.read(name, &shape)?;
            carried.push((Place::plain(bare(name.to_owned())), Parameter::stored(name.to_owned(), shape, values)));
        }
        adapter::check_merge(self)?;
        checkpoint::write_model(folder, model::stored(self).chain(carried))?;
        tokenizer.save(folder)?;
        self.head.save(self.config.hidden_size, from, folder)?;
        let mut config = self.config.clone();
        config.set_architecture(&self.class());
        // Last, because a folder without it is not a model.
        files::write_json(&folder.join("config.json"), &config.raw)
    }

    /// How a sequence becomes a vector.
    pub fn head(&self) -> SentenceHead {
        self.head
    }

    /// The vector of each sequence. `dropout` is the randomness of this step; `None` when not training.
    ///
    /// # Shapes
    /// Output `[sequences, width]`.
    pub fn encode(&self, batch: &Packed, dropout: Option<Key>) -> Tensor<2> {
        let pooled = match self.head.pooling.rows(&batch.segments) {
            Some(rows) => self.trunk.forward_rows(batch, &rows, dropout),
            None => pool(self.trunk.forward(batch, dropout), &batch.segments, self.head.pooling),
        };
        if self.head.normalize { normalize_l2(pooled) } else { pooled }
    }

    /// The tokens of each text, cut to as many as the encoder takes; what the tokenizer puts after a text stays.
    ///
    /// # Errors
    /// If a text cannot be tokenised or has no token.
    pub fn tokens(&self, tokenizer: &Tokenizer, texts: Vec<String>) -> Result<Vec<Vec<u32>>> {
        let (most, n_end_tokens) = (self.head.max_tokens, tokenizer.n_end_tokens()?);
        let mut sequences = tokenizer.encode_all(texts)?;
        for (index, ids) in sequences.iter_mut().enumerate() {
            if ids.is_empty() {
                return Err(Error::config("text", format!("text {index} is empty: no token to embed")));
            }
            if ids.len() > most {
                ids.drain(most.saturating_sub(n_end_tokens)..ids.len() - n_end_tokens);
            }
        }
        Ok(sequences)
    }

    /// The vector of each sequence, in order, without gradient: sequences of like length share a forward pass of bounded size.
    ///
    /// # Shapes
    /// Output: as many vectors as sequences, each `[width]`.
    pub fn embed(&self, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
        let model = self.clone().valid();
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&index| sequences[index].len());
        let mut vectors = vec![Vec::new(); sequences.len()];
        let mut rest = order.as_slice();
        while let Some(&shortest) = rest.first() {
            let mut n_tokens = sequences[shortest].len();
            let is_room = |&&index: &&usize| {
                n_tokens += sequences[index].len();
                n_tokens <= BATCH_TOKENS
            };
            let n_more = rest[1..].iter().take_while(is_room).count();
            let (batch, later) = rest.split_at(1 + n_more);
            let encoded = model.encode(&Packed::new(batch.iter().map(|&index| sequences[index].as_slice())), None);
            let [_, width] = encoded.dims();
            let encoded: Vec<f32> = encoded.into_data().try_to_vec().expect("vectors are f32");
            batch.iter().zip(encoded.chunks_exact(width)).for_each(|(&index, vector)| vectors[index] = vector.to_vec());
            rest = later;
        }
        vectors
    }
}

impl Model for SentenceEncoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn class(&self) -> String {
        self.config.family.trunk_class()
    }

    fn trunk_mut(&mut self) -> &mut Transformer {
        &mut self.trunk
    }

    fn linears_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Linear)) {
        self.trunk.linears_mut(visit);
    }

    fn new_heads(&self) -> &'static [&'static str] {
        &[]
    }

    fn outputs(&self, batch: &Packed) -> Tensor<2> {
        self.encode(batch, None)
    }

    fn layout(&self) -> Layout {
        Layout::bare(self.config.family)
    }
}
