//! What a model looks like: the parts of Hugging Face's `config.json` that shape the computation.

use crate::family::Family;
use crate::rotary::RotaryConfig;
use crate::{Error, Result, files, hub};
use kiln_kernels::activation::Activation;
use kiln_kernels::pool::Pooling;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// File name of the settings of generation.
pub const GENERATION_FILE: &str = "generation_config.json";

/// Which normalisation the blocks use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, gain only.
    Rms,
    /// The same, with the gain stored as its distance from 1.
    RmsAroundOne,
    /// Mean and variance, gain and bias.
    Layer,
    /// The same without bias.
    LayerGain,
}

/// Where a block normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// Before attention and feed-forward, and once more after the last block.
    Pre,
    /// After each residual sum.
    Post,
    /// As [`NormPlace::Pre`], and also what attention and feed-forward put out, before it is added.
    Sandwich,
}

/// How the model knows where a token stands.
#[derive(Clone, Debug, PartialEq)]
pub enum PositionKind {
    /// A learned vector per position, added to the embedding.
    Learned {
        /// The row of the table for a sequence's first token.
        first: usize,
    },
    /// Rotary embedding of queries and keys.
    Rotary {
        /// In blocks that see the whole sequence.
        full: RotaryConfig,
        /// In blocks with a sliding window.
        sliding: RotaryConfig,
    },
}

/// Which blocks see a sliding window only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sliding {
    /// Those from this one on, counted from 0.
    From(usize),
    /// All but every so-manyth, the first of which is this one, counted from 0.
    AllBut {
        /// The first block without a window.
        first: usize,
        /// How many blocks there are to each without a window.
        every: usize,
    },
    /// Those for which this is true.
    Listed(Vec<bool>),
}

/// The sliding window of some blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// In tokens, as [`kiln_kernels::attention::AttentionShape::window`] counts them.
    pub tokens: usize,
    /// The blocks that have it.
    pub sliding: Sliding,
}

/// What an encoder's head does to the last hidden states before it predicts tokens: a linear layer, an activation, a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedHead {
    /// The activation.
    pub activation: Activation,
    /// Whether the linear layer has a bias.
    pub bias: bool,
    /// Whether the output over the vocabulary has a bias.
    pub output_bias: bool,
}

/// What an encoder's classifiers do to a pooled state before their output layer: a linear layer and an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolerConfig {
    /// What stands for a sequence.
    pub pooling: Pooling,
    /// The activation.
    pub activation: PoolerActivation,
    /// Whether the linear layer has a bias.
    pub bias: bool,
    /// Whether a normalisation follows.
    pub norm: bool,
    /// Whether there is dropout before the linear layer too.
    pub drop_before: bool,
    /// Whether classifiers of tokens have the same layers.
    pub of_tokens: bool,
    /// Whether it is a part of the trunk, trained with it, and not a new head.
    pub in_trunk: bool,
}

/// The activation of a pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolerActivation {
    /// The hyperbolic tangent.
    Tanh,
    /// One of those of feed-forward layers.
    Inner(Activation),
}

/// The shape of a model, whatever its family.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The family, that is the naming of configuration keys and tensors.
    pub family: Family,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; fewer than query heads in grouped-query attention.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// The longest sequence, in tokens.
    pub max_positions: usize,
    /// Token types with an embedding of their own; 0 if the family has none.
    pub n_token_types: usize,
    /// Factor of the token embeddings.
    pub embedding_scale: f32,
    /// Whether the embeddings are normalised.
    pub embedding_norm: bool,
    /// Kind of normalisation.
    pub norm: NormKind,
    /// Place of normalisation.
    pub norm_place: NormPlace,
    /// Whether the first block normalises before its attention, where the others do.
    pub first_norm: bool,
    /// Added to the variance.
    pub norm_epsilon: f64,
    /// Position kind.
    pub position: PositionKind,
    /// Activation of the feed-forward layers.
    pub activation: Activation,
    /// Whether the feed-forward layers are gated.
    pub gated: bool,
    /// Whether a token sees only itself and earlier ones.
    pub causal: bool,
    /// Sliding window of the attention, if some blocks have one.
    pub window: Option<Window>,
    /// Factor of the attention scores.
    pub attention_scale: f32,
    /// Whether the attention scores of the block numbered n, from 1, are divided by n.
    pub attention_scale_by_layer: bool,
    /// Whether each head's queries and keys are normalised.
    pub query_key_norm: bool,
    /// Whether queries, keys and values have biases.
    pub query_key_value_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub attention_output_bias: bool,
    /// Whether the feed-forward layers have biases.
    pub feed_forward_bias: bool,
    /// Whether the output head is the embedding table.
    pub tied_head: bool,
    /// Bound of the absolute value of the logits over the vocabulary (arXiv:2408.00118, Section 2).
    pub logit_cap: Option<f32>,
    /// The head that predicts masked tokens, in encoders.
    pub masked_head: Option<MaskedHead>,
    /// What stands before the output layer of classifiers, in encoders.
    pub pooler: Option<PoolerConfig>,
    /// Dropout on the embeddings while training, a probability.
    pub embedding_dropout: f32,
    /// Dropout on attention probabilities while training, a probability.
    pub attention_dropout: f32,
    /// Dropout on the outputs of attention while training, a probability.
    pub attention_output_dropout: f32,
    /// Dropout inside the feed-forward layers while training, before their last linear layer, a probability.
    pub feed_forward_dropout: f32,
    /// Dropout on the outputs of the feed-forward layers while training, a probability.
    pub feed_forward_output_dropout: f32,
    /// Dropout before a classifier's output layer while training, a probability.
    pub classifier_dropout: f32,
    /// Standard deviation of new weights.
    pub initializer_range: f32,
    /// Tokens that end a generation.
    pub end_ids: Vec<u32>,
    /// The file as it was read: what is written back, apart from what Kiln changes on purpose.
    pub raw: Map<String, Value>,
    /// `generation_config.json` as it was read, if there is one: written back as it is.
    pub generation: Option<Map<String, Value>>,
}

impl ModelConfig {
    /// Reads `config.json` of a model folder, or of a model by its name on the hub.
    ///
    /// # Errors
    /// If the folder or file is missing, or the file is not a configuration of a family Kiln knows.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let folder = &hub::folder(folder)?;
        if !folder.is_dir() {
            return Err(Error::checkpoint(
                folder,
                "no such model folder; expected one with config.json, model.safetensors and tokenizer.json, or a model's name on the hub, such as org/name",
            ));
        }
        let path = folder.join("config.json");
        let mut config = Self::from_json(files::read_json(&path)?, &path)?;
        let path = folder.join(GENERATION_FILE);
        if path.exists() {
            config.set_generation(files::read_json(&path)?, &path)?;
        }
        Ok(config)
    }

    /// Takes over the tokens that end a text from `generation_config.json`, as transformers does: it knows those that end a turn of a
    /// conversation too. Those of `config.json` stay the first.
    fn set_generation(&mut self, raw: Map<String, Value>, path: &Path) -> Result<()> {
        let mut end_ids = Keys { raw: &raw, path: path.to_owned() }.end_ids(self.vocab_size)?;
        if !end_ids.is_empty() {
            end_ids.sort_by_key(|id| !self.end_ids.contains(id));
            self.end_ids = end_ids;
        }
        self.generation = Some(raw);
        Ok(())
    }

    /// Understands a configuration in Hugging Face's keys; `path` is named in errors.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a key is missing, of the wrong type, or says something Kiln does not do.
    pub fn from_json(raw: Map<String, Value>, path: &Path) -> Result<Self> {
        let keys = Keys { raw: &raw, path: path.to_owned() };
        let config = Family::from_model_type(keys.text("model_type")?, path)?.config(&keys)?;
        if let Some(value) = keys.get("quantization_config") {
            return Err(keys.error("quantization_config", format!("found {value}, weights are read in f32, f16 and bf16 only")));
        }
        if config.causal && !keys.flag_or("is_causal", true)? {
            return Err(keys.error("is_causal", "found false, only true is supported in this family"));
        }
        if let Some(Window { sliding: Sliding::Listed(layers), .. }) = &config.window
            && layers.len() != config.n_layers
        {
            return Err(keys.error("layer_types", format!("found {} kinds for {} blocks", layers.len(), config.n_layers)));
        }
        let fits = config.hidden_size > 0 && config.n_heads > 0 && config.n_kv_heads > 0 && config.head_dim > 0;
        if !fits || !config.n_heads.is_multiple_of(config.n_kv_heads) {
            return Err(Error::checkpoint(
                path,
                format!(
                    "{} attention heads do not divide into {} key/value heads of width {}",
                    config.n_heads, config.n_kv_heads, config.head_dim
                ),
            ));
        }
        let positions = if keys.get("n_positions").is_some() { "n_positions" } else { "max_position_embeddings" };
        for (key, value) in [("vocab_size", config.vocab_size), (positions, config.max_positions)] {
            if value == 0 {
                return Err(keys.error(key, "found 0, expected at least 1"));
            }
        }
        if config.window.as_ref().is_some_and(|window| config.causal && window.tokens == 0) {
            return Err(keys.error("sliding_window", "found 0, expected at least 1"));
        }
        if !matches!(config.position, PositionKind::Learned { .. }) && !config.head_dim.is_multiple_of(2) {
            return Err(keys.error("head_dim", format!("found {}, rotary positions turn pairs and need an even width", config.head_dim)));
        }
        Ok(ModelConfig { end_ids: keys.end_ids(config.vocab_size)?, ..config })
    }

    /// The sliding window of the block `layer`, in tokens.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.window.as_ref()?;
        let slides = match &window.sliding {
            Sliding::From(first) => layer >= *first,
            Sliding::AllBut { first, every } => layer % every != *first,
            Sliding::Listed(layers) => layers.get(layer).copied().unwrap_or_default(),
        };
        slides.then_some(window.tokens)
    }

    /// Whether training changes the trunk's states at random.
    pub fn has_dropout(&self) -> bool {
        let probabilities = [
            self.embedding_dropout,
            self.attention_dropout,
            self.attention_output_dropout,
            self.feed_forward_dropout,
            self.feed_forward_output_dropout,
        ];
        probabilities.iter().any(|&probability| probability > 0.0)
    }

    /// The Hugging Face class the weights were saved from, such as `LlamaForCausalLM`.
    pub fn class_name(&self) -> Option<&str> {
        self.raw.get("architectures")?.get(0)?.as_str()
    }

    /// The names of the class labels in order; empty if the configuration has none.
    pub fn label_names(&self) -> Vec<String> {
        let Some(Value::Object(names)) = self.raw.get("id2label") else { return Vec::new() };
        let mut named: Vec<(usize, String)> =
            names.iter().filter_map(|(id, name)| Some((id.parse().ok()?, name.as_str()?.to_owned()))).collect();
        named.sort();
        named.into_iter().map(|(_, name)| name).collect()
    }

    /// Records the class labels under Hugging Face's keys.
    pub fn set_label_names(&mut self, names: &[String]) {
        let by_id: Map<String, Value> = names.iter().enumerate().map(|(id, name)| (id.to_string(), name.as_str().into())).collect();
        let by_name: Map<String, Value> = names.iter().enumerate().map(|(id, name)| (name.clone(), id.into())).collect();
        self.raw.insert("id2label".into(), by_id.into());
        self.raw.insert("label2id".into(), by_name.into());
    }

    /// Records what a sequence classifier's outputs are, under Hugging Face's key.
    pub fn set_problem_type(&mut self, problem_type: &str) {
        self.raw.insert("problem_type".into(), problem_type.into());
    }

    /// Whether the outputs of a sequence classifier are a number and not classes: by `problem_type` or, as in transformers, without one by
    /// there being one output.
    pub fn is_regression(&self) -> bool {
        match self.raw.get("problem_type").and_then(Value::as_str) {
            Some(problem_type) => problem_type == "regression",
            None => self.label_names().len() == 1,
        }
    }

    /// Records that the output weights are not those of the token embeddings.
    pub fn untie(&mut self) {
        self.tied_head = false;
        self.raw.insert("tie_word_embeddings".into(), false.into());
    }

    /// Records the Hugging Face class that loads the weights.
    pub fn set_architecture(&mut self, class: &str) {
        self.raw.insert("architectures".into(), vec![class].into());
        for key in ["torch_dtype", "dtype"] {
            if self.raw.contains_key(key) {
                self.raw.insert(key.into(), "float32".into());
            }
        }
    }
}

/// A configuration file under reading: typed access by key, with errors that name the file and the key.
#[derive(Debug)]
pub struct Keys<'a> {
    raw: &'a Map<String, Value>,
    path: PathBuf,
}

impl Keys<'_> {
    /// All keys, to be kept.
    pub fn raw(&self) -> Map<String, Value> {
        self.raw.clone()
    }

    /// Whether the file says nothing about `key`, not even null.
    pub fn is_absent(&self, key: &str) -> bool {
        !self.raw.contains_key(key)
    }

    /// The value of `key`, if it is there and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    /// An error about `key`.
    pub fn error(&self, key: &str, message: impl std::fmt::Display) -> Error {
        Error::checkpoint(&self.path, format!("key {key:?}: {message}"))
    }

    fn required(&self, key: &str) -> Result<&Value> {
        self.get(key).ok_or_else(|| self.error(key, "missing"))
    }

    /// A required text.
    pub fn text(&self, key: &str) -> Result<&str> {
        let value = self.required(key)?;
        value.as_str().ok_or_else(|| self.error(key, format!("expected a text, found {value}")))
    }

    /// A required whole number.
    pub fn count(&self, key: &str) -> Result<usize> {
        let value = self.required(key)?;
        value.as_u64().map(|n| n as usize).ok_or_else(|| self.error(key, format!("expected a whole number, found {value}")))
    }

    /// A whole number with a default.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_count(key)?.unwrap_or(default))
    }

    /// A whole number, if it is there.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|_| self.count(key)).transpose()
    }

    /// A number with a default.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.error(key, format!("expected a number, found {value}")))
    }

    /// A dropout probability with a default.
    pub fn dropout_or(&self, key: &str, default: f64) -> Result<f32> {
        let value = self.number_or(key, default)?;
        if (0.0..1.0).contains(&value) {
            Ok(value as f32)
        } else {
            Err(self.error(key, format!("found {value}, expected at least 0 and below 1")))
        }
    }

    /// A number above 0, if it is there.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number > 0.0 => Ok(Some(number)),
            _ => Err(self.error(key, format!("expected a number above 0, found {value}"))),
        }
    }

    /// A truth value with a default.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.error(key, format!("expected true or false, found {value}")))
    }

    /// Whether each block has a sliding window, if `layer_types` says so.
    pub fn sliding_layers(&self) -> Result<Option<Vec<bool>>> {
        let key = "layer_types";
        let kinds = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(kinds)) => kinds,
            Some(other) => return Err(self.error(key, format!("expected a list, found {other}"))),
        };
        let slides = |kind: &Value| match kind.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            _ => Err(self.error(key, format!("found {kind}, expected \"full_attention\" or \"sliding_attention\""))),
        };
        let layers = kinds.iter().map(slides).collect::<Result<Vec<bool>>>()?;
        Ok(Some(layers))
    }

    /// An activation function by Hugging Face's name, with a default.
    pub fn activation_or(&self, key: &str, default: &str) -> Result<Activation> {
        let name = if self.get(key).is_some() { self.text(key)? } else { default };
        match name {
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            "relu" => Ok(Activation::Relu),
            other => Err(self.error(key, format!("activation {other:?} is not one of gelu, gelu_new, gelu_pytorch_tanh, silu, relu"))),
        }
    }

    /// The tokens that end a text: one id, a list of ids, or none.
    fn end_ids(&self, vocab_size: usize) -> Result<Vec<u32>> {
        let key = "eos_token_id";
        let id = |value: &Value| match value.as_u64() {
            Some(id) if id < vocab_size as u64 => Ok(id as u32),
            Some(id) => Err(self.error(key, format!("found {id}, the vocabulary has {vocab_size} tokens"))),
            None => Err(self.error(key, format!("found {value}, expected a token's id"))),
        };
        match self.get(key) {
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
            None => Ok(Vec::new()),
        }
    }
}
