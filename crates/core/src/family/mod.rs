//! Families of models: how each one's `config.json` keys and tensor names map to ours.

mod bert;
mod llama;

use crate::config::{Keys, ModelConfig};
use crate::{Error, Result};
use std::path::Path;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Encoders with post-normalisation and learned positions: BERT, MiniLM.
    Bert,
    /// Decoders with RMSNorm, rotary positions and gated feed-forward layers: Llama, SmolLM, TinyStories.
    Llama,
    /// As Llama, with a sliding window.
    Mistral,
    /// As Llama, with biases of queries, keys and values.
    Qwen2,
    /// As Llama, with normalised queries and keys.
    Qwen3,
}

impl Family {
    const ALL: [Self; 5] = [Self::Bert, Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// What Hugging Face's class names start with; in lower case, its `model_type`.
    fn name(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
        }
    }

    /// The family of Hugging Face's `model_type`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a type Kiln does not know.
    pub fn from_model_type(name: &str, path: &Path) -> Result<Self> {
        Self::ALL.into_iter().find(|family| family.name().to_lowercase() == name).ok_or_else(|| {
            let known = Self::ALL.map(|family| family.name().to_lowercase()).join(", ");
            Error::checkpoint(path, format!("key \"model_type\": {name:?} is not a family Kiln knows ({known})"))
        })
    }

    /// Reads this family's configuration.
    pub(crate) fn config(self, keys: &Keys<'_>) -> Result<ModelConfig> {
        match self {
            Self::Bert => bert::config(keys),
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => llama::config(self, keys),
        }
    }

    fn names(self) -> Names {
        match self {
            Self::Bert => bert::NAMES,
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => llama::NAMES,
        }
    }

    /// The Hugging Face tensor of one of our parameters, such as `trunk.layers.0.attention.query.weight`.
    pub fn tensor_name(self, parameter: &str) -> String {
        self.names().tensor_name(parameter)
    }

    /// The prefix of the trunk's tensors in a checkpoint with a head; checkpoints of the bare trunk leave it out.
    pub fn trunk_prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => "model.",
        }
    }

    /// The Hugging Face class of the trunk with its language-model head.
    pub fn language_model_class(self) -> String {
        let head = if self == Self::Bert { "MaskedLM" } else { "CausalLM" };
        format!("{}For{head}", self.name())
    }

    /// The Hugging Face class of the trunk with a classification head.
    pub fn classifier_class(self) -> String {
        format!("{}ForSequenceClassification", self.name())
    }

    /// The Hugging Face class of the trunk with a classification head on every token.
    pub fn token_classifier_class(self) -> String {
        format!("{}ForTokenClassification", self.name())
    }
}

/// A family's naming: our parameter path, from the left, and what Hugging Face calls it. `*` stands for a block's number.
#[derive(Clone, Copy, Debug)]
struct Names(&'static [(&'static str, &'static str)]);

impl Names {
    fn tensor_name(self, parameter: &str) -> String {
        let (path, leaf) = parameter.rsplit_once('.').expect("a parameter has a path");
        let number = path.split('.').find(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let general = number.map_or_else(|| path.to_owned(), |number| path.replacen(number, "*", 1));
        let (_, theirs) =
            self.0.iter().find(|(ours, _)| *ours == general).unwrap_or_else(|| panic!("no Hugging Face name for {parameter}"));
        let theirs = theirs.replacen('*', number.unwrap_or_default(), 1);
        match leaf {
            "gain" => format!("{theirs}.weight"),
            leaf => format!("{theirs}.{leaf}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_their_hugging_face_names() {
        for (family, ours, theirs) in [
            (Family::Llama, "trunk.layers.12.attention.query.weight", "model.layers.12.self_attn.q_proj.weight"),
            (Family::Llama, "trunk.final_norm.gain", "model.norm.weight"),
            (Family::Bert, "trunk.layers.3.attention_norm.bias", "bert.encoder.layer.3.attention.output.LayerNorm.bias"),
            (Family::Bert, "trunk.embeddings.position.weight", "bert.embeddings.position_embeddings.weight"),
        ] {
            assert_eq!(family.tensor_name(ours), theirs);
        }
    }
}
