//! Families of models: how each one's `config.json` keys and tensor names map to ours.

mod bert;
mod distilbert;
mod gemma3;
mod gpt2;
mod llama;
mod modernbert;
mod roberta;
#[cfg(test)]
mod tests;

use crate::config::{Keys, ModelConfig};
use crate::{Error, Result};
use std::path::Path;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Encoders with post-normalisation and learned positions: BERT, MiniLM.
    Bert,
    /// As BERT, with other positions and heads.
    Roberta,
    /// As BERT, without token types.
    DistilBert,
    /// Encoders with pre-normalisation, rotary positions and mostly local attention.
    ModernBert,
    /// Decoders with LayerNorm and learned positions: GPT-2.
    Gpt2,
    /// Decoders with RMSNorm, rotary positions and gated feed-forward layers: Llama, SmolLM, TinyStories.
    Llama,
    /// As Llama, with a sliding window.
    Mistral,
    /// As Llama, with biases of queries, keys and values.
    Qwen2,
    /// As Llama, with normalised queries and keys.
    Qwen3,
    /// As Qwen3, with more normalisation and mostly local attention: the text model of Gemma 3.
    Gemma3,
}

impl Family {
    const ALL: [Self; 10] = [
        Self::Bert,
        Self::Roberta,
        Self::DistilBert,
        Self::ModernBert,
        Self::Gpt2,
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma3,
    ];

    /// What Hugging Face's class names start with.
    fn name(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Roberta => "Roberta",
            Self::DistilBert => "DistilBert",
            Self::ModernBert => "ModernBert",
            Self::Gpt2 => "GPT2",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
            Self::Gemma3 => "Gemma3",
        }
    }

    /// Hugging Face's `model_type`.
    pub fn model_type(self) -> String {
        // Gemma 3 without `_text` sees images too.
        if self == Self::Gemma3 { "gemma3_text".into() } else { self.name().to_lowercase() }
    }

    /// The family of Hugging Face's `model_type`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a type Kiln does not know.
    pub fn from_model_type(name: &str, path: &Path) -> Result<Self> {
        Self::ALL.into_iter().find(|family| family.model_type() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::model_type).join(", ");
            Error::checkpoint(path, format!("key \"model_type\": {name:?} is not a family Kiln knows ({known})"))
        })
    }

    /// Reads this family's configuration.
    pub(crate) fn config(self, keys: &Keys<'_>) -> Result<ModelConfig> {
        match self {
            Self::Bert => bert::config(self, keys),
            Self::Roberta => roberta::config(keys),
            Self::DistilBert => distilbert::config(keys),
            Self::ModernBert => modernbert::config(keys),
            Self::Gpt2 => gpt2::config(keys),
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => llama::config(self, keys),
            Self::Gemma3 => gemma3::config(keys),
        }
    }

    fn names(self) -> Names {
        match self {
            Self::Bert => bert::NAMES,
            Self::Roberta => roberta::NAMES,
            Self::DistilBert => distilbert::NAMES,
            Self::ModernBert => modernbert::NAMES,
            Self::Gpt2 => gpt2::NAMES,
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => llama::NAMES,
            Self::Gemma3 => gemma3::NAMES,
        }
    }

    /// A name under which a checkpoint holds a copy of `tensor`, if transformers asks for one.
    pub fn copy_name(self, tensor: &str) -> Option<&'static str> {
        self.names().copies.iter().find(|(original, _)| *original == tensor).map(|(_, copy)| *copy)
    }

    /// Whether transformers asks for one tensor under both names.
    pub fn are_copies(self, a: &str, b: &str) -> bool {
        self.copy_name(a) == Some(b) || self.copy_name(b) == Some(a)
    }

    /// Where a checkpoint holds one of our parameters, such as `trunk.layers.0.attention.query.weight`.
    pub fn place(self, parameter: &str) -> Place {
        self.names().place(parameter)
    }

    /// The Hugging Face tensor that holds one of our parameters.
    pub fn tensor_name(self, parameter: &str) -> String {
        self.place(parameter).tensor
    }

    /// Whether a checkpoint's tensor is a constant of the computation, which some versions of transformers store beside the parameters.
    pub fn is_constant(self, tensor: &str) -> bool {
        let is_end = |end: &&str| tensor.strip_suffix(*end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.names().constants.iter().any(is_end)
    }

    /// The prefix of the trunk's tensors in a checkpoint with a head; checkpoints of the bare trunk leave it out.
    pub fn trunk_prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Roberta => "roberta.",
            Self::DistilBert => "distilbert.",
            Self::Gpt2 => "transformer.",
            Self::ModernBert | Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 | Self::Gemma3 => "model.",
        }
    }

    /// The Hugging Face class of the bare trunk.
    pub fn trunk_class(self) -> String {
        format!("{}Model", self.name_without_language_model())
    }

    /// The Hugging Face class of the trunk with its language-model head.
    pub fn language_model_class(self) -> String {
        let head = match self {
            Self::Bert | Self::Roberta | Self::DistilBert | Self::ModernBert => "ForMaskedLM",
            Self::Gpt2 => "LMHeadModel",
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 | Self::Gemma3 => "ForCausalLM",
        };
        format!("{}{head}", self.name())
    }

    /// The Hugging Face class of the trunk with a classification head.
    pub fn classifier_class(self) -> String {
        format!("{}ForSequenceClassification", self.name_without_language_model())
    }

    /// The Hugging Face class of the trunk with a classification head on every token.
    pub fn token_classifier_class(self) -> String {
        format!("{}ForTokenClassification", self.name_without_language_model())
    }

    /// Whether transformers has that class.
    pub fn has_token_classifier(self) -> bool {
        self != Self::Gemma3
    }

    fn name_without_language_model(self) -> String {
        if self == Self::Gemma3 { "Gemma3Text".into() } else { self.name().into() }
    }
}

/// Where and how a checkpoint holds one of our parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Hugging Face's name of the tensor.
    pub tensor: String,
    /// Whether the tensor is `[in, out]`; ours are `[out, in]`.
    pub transposed: bool,
    /// Which of the layers joined in the tensor this is, from 0: their outputs lie one after the other.
    pub part: usize,
    /// How many layers are joined in the tensor, usually 1.
    pub n_parts: usize,
}

impl Place {
    /// A tensor that holds one parameter as it is.
    pub fn plain(tensor: String) -> Self {
        Self { tensor, transposed: false, part: 0, n_parts: 1 }
    }
}

/// How one model's checkpoint holds our parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its family.
    pub family: Family,
    /// Whether it is a checkpoint of the bare trunk, whose tensors lack the trunk's prefix.
    pub bare: bool,
    /// Whether its classifier is one of tokens.
    pub of_tokens: bool,
}

impl Layout {
    /// A model with a head that is no classifier of tokens.
    pub fn new(family: Family) -> Self {
        Self { family, bare: false, of_tokens: false }
    }

    /// A trunk without a head.
    pub fn bare(family: Family) -> Self {
        Self { bare: true, ..Self::new(family) }
    }

    /// A classifier of tokens.
    pub fn of_tokens(family: Family) -> Self {
        Self { of_tokens: true, ..Self::new(family) }
    }

    /// Where the checkpoint holds one of our parameters.
    pub fn place(self, parameter: &str) -> Place {
        if self.of_tokens
            && let Some(leaf) = parameter.strip_prefix("classifier.")
        {
            return Place::plain(format!("{}.{leaf}", self.family.names().token_classifier));
        }
        let place = self.family.place(parameter);
        match place.tensor.strip_prefix(self.family.trunk_prefix()) {
            Some(tensor) if self.bare => Place { tensor: tensor.to_owned(), ..place },
            _ => place,
        }
    }

    /// Hugging Face's path of one of our layers.
    pub fn layer(self, path: &str) -> String {
        let tensor = self.place(&format!("{path}.weight")).tensor;
        tensor.strip_suffix(".weight").map(str::to_owned).unwrap_or(tensor)
    }
}

/// How a family's checkpoints hold our parameters.
#[derive(Clone, Copy, Debug)]
struct Names {
    /// Our layer and what Hugging Face calls it; `*` stands for a block's number. Several of one module of ours with one name of theirs are
    /// joined in it, in this order, which is that of the module's fields.
    layers: &'static [(&'static str, &'static str)],
    /// Last parts of the names of layers whose weight is stored `[in, out]`.
    transposed: &'static [&'static str],
    /// Last parts of the names of stored tensors that are not parameters.
    constants: &'static [&'static str],
    /// Tensors that transformers asks for twice, and the name of the second.
    copies: &'static [(&'static str, &'static str)],
    /// What the output layer of a classifier of tokens is called.
    token_classifier: &'static str,
}

impl Names {
    /// The layers' names, nothing transposed, nothing but parameters.
    const fn plain(layers: &'static [(&'static str, &'static str)]) -> Self {
        Self { layers, transposed: &[], constants: &[], copies: &[], token_classifier: "classifier" }
    }

    fn place(self, parameter: &str) -> Place {
        let (path, leaf) = parameter.rsplit_once('.').expect("a parameter has a path");
        let number = path.split('.').find(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let general = number.map_or_else(|| path.to_owned(), |number| path.replacen(number, "*", 1));
        let (_, theirs) =
            self.layers.iter().find(|(ours, _)| *ours == general).unwrap_or_else(|| panic!("no Hugging Face name for {parameter}"));
        let module = |path: &'_ str| path.rsplit_once('.').map(|(module, _)| module.to_owned());
        let joined = || self.layers.iter().filter(|(ours, other)| other == theirs && module(ours) == module(&general));
        let layer = theirs.replacen('*', number.unwrap_or_default(), 1);
        Place {
            tensor: format!("{layer}.{}", if leaf == "gain" { "weight" } else { leaf }),
            transposed: leaf == "weight" && self.transposed.iter().any(|&name| theirs.rsplit('.').next() == Some(name)),
            part: joined().take_while(|(ours, _)| *ours != general).count(),
            n_parts: joined().count(),
        }
    }
}
