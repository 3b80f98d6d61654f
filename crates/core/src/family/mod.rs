//! Families of models: how each one's `config.json` keys and tensor names map to ours.

mod bert;
mod gpt2;
mod llama;

use crate::config::{Keys, ModelConfig};
use crate::{Error, Result};
use std::path::Path;

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Encoders with post-normalisation and learned positions: BERT, MiniLM.
    Bert,
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
}

impl Family {
    const ALL: [Self; 6] = [Self::Bert, Self::Gpt2, Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// What Hugging Face's class names start with; in lower case, its `model_type`.
    fn name(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Gpt2 => "GPT2",
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
            Self::Gpt2 => gpt2::config(keys),
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => llama::config(self, keys),
        }
    }

    fn names(self) -> Names {
        match self {
            Self::Bert => bert::NAMES,
            Self::Gpt2 => gpt2::NAMES,
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => llama::NAMES,
        }
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
            Self::Gpt2 => "transformer.",
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => "model.",
        }
    }

    /// The Hugging Face class of the bare trunk.
    pub fn trunk_class(self) -> String {
        format!("{}Model", self.name())
    }

    /// The Hugging Face class of the trunk with its language-model head.
    pub fn language_model_class(self) -> String {
        let head = match self {
            Self::Bert => "ForMaskedLM",
            Self::Gpt2 => "LMHeadModel",
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => "ForCausalLM",
        };
        format!("{}{head}", self.name())
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
}

impl Layout {
    /// Where the checkpoint holds one of our parameters.
    pub fn place(self, parameter: &str) -> Place {
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
    /// Our layer and what Hugging Face calls it; `*` stands for a block's number. Several of ours with one name of theirs are joined in it,
    /// in this order, which is that of the fields of our modules.
    layers: &'static [(&'static str, &'static str)],
    /// Last parts of the names of layers whose weight is stored `[in, out]`.
    transposed: &'static [&'static str],
    /// Last parts of the names of stored tensors that are not parameters.
    constants: &'static [&'static str],
}

impl Names {
    /// The layers' names, nothing transposed, nothing but parameters.
    const fn plain(layers: &'static [(&'static str, &'static str)]) -> Self {
        Self { layers, transposed: &[], constants: &[] }
    }

    fn place(self, parameter: &str) -> Place {
        let (path, leaf) = parameter.rsplit_once('.').expect("a parameter has a path");
        let number = path.split('.').find(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let general = number.map_or_else(|| path.to_owned(), |number| path.replacen(number, "*", 1));
        let (_, theirs) =
            self.layers.iter().find(|(ours, _)| *ours == general).unwrap_or_else(|| panic!("no Hugging Face name for {parameter}"));
        let joined = || self.layers.iter().filter(|(_, other)| other == theirs);
        let layer = theirs.replacen('*', number.unwrap_or_default(), 1);
        Place {
            tensor: format!("{layer}.{}", if leaf == "gain" { "weight" } else { leaf }),
            transposed: leaf == "weight" && self.transposed.iter().any(|&name| theirs.rsplit('.').next() == Some(name)),
            part: joined().take_while(|(ours, _)| *ours != general).count(),
            n_parts: joined().count(),
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
            (Family::Gpt2, "trunk.layers.10.feed_forward.up.bias", "transformer.h.10.mlp.c_fc.bias"),
        ] {
            assert_eq!(family.tensor_name(ours), theirs);
        }
    }

    #[test]
    fn a_bare_trunk_has_no_prefix() {
        let layer = |bare| Layout { family: Family::Bert, bare }.layer("trunk.layers.3.attention.query");
        assert_eq!(layer(false), "bert.encoder.layer.3.attention.self.query");
        assert_eq!(layer(true), "encoder.layer.3.attention.self.query");
        assert_eq!(Layout { family: Family::Bert, bare: true }.layer("head.transform"), "cls.predictions.transform.dense");
    }

    #[test]
    fn joined_layers_share_a_tensor() {
        let place = |part| Place { tensor: "transformer.h.1.attn.c_attn.weight".into(), transposed: true, part, n_parts: 3 };
        for (part, ours) in ["query", "key", "value"].into_iter().enumerate() {
            assert_eq!(Family::Gpt2.place(&format!("trunk.layers.1.attention.{ours}.weight")), place(part));
            assert!(!Family::Gpt2.place(&format!("trunk.layers.1.attention.{ours}.bias")).transposed);
        }
        let table = Place::plain("transformer.wte.weight".into());
        assert_eq!(Family::Gpt2.place("trunk.embeddings.token.weight"), table);
    }

    #[test]
    fn constants_are_told_from_biases() {
        for (tensor, is_constant) in [("h.0.attn.bias", true), ("transformer.h.0.attn.masked_bias", true), ("h.0.attn.c_attn.bias", false)]
        {
            assert_eq!(Family::Gpt2.is_constant(tensor), is_constant, "{tensor}");
        }
    }
}
