//! BERT and the encoders distilled from it. Source: Devlin et al., arXiv:1810.04805.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, MaskedHead, ModelConfig, NormKind, NormPlace, PoolerActivation, PoolerConfig, PositionKind};
use kiln_kernels::pool::Pooling;

pub(super) const NAMES: Names = Names {
    constants: &["embeddings.position_ids"],
    copies: &[("cls.predictions.decoder.bias", "cls.predictions.bias")],
    ..Names::plain(LAYERS)
};

const LAYERS: &[(&str, &str)] = &[
    ("trunk.embeddings.token", "bert.embeddings.word_embeddings"),
    ("trunk.embeddings.position", "bert.embeddings.position_embeddings"),
    ("trunk.embeddings.token_type", "bert.embeddings.token_type_embeddings"),
    ("trunk.embeddings.norm", "bert.embeddings.LayerNorm"),
    ("trunk.layers.*.attention.query", "bert.encoder.layer.*.attention.self.query"),
    ("trunk.layers.*.attention.key", "bert.encoder.layer.*.attention.self.key"),
    ("trunk.layers.*.attention.value", "bert.encoder.layer.*.attention.self.value"),
    ("trunk.layers.*.attention.output", "bert.encoder.layer.*.attention.output.dense"),
    ("trunk.layers.*.attention_norm", "bert.encoder.layer.*.attention.output.LayerNorm"),
    ("trunk.layers.*.feed_forward.up", "bert.encoder.layer.*.intermediate.dense"),
    ("trunk.layers.*.feed_forward.down", "bert.encoder.layer.*.output.dense"),
    ("trunk.layers.*.feed_forward_norm", "bert.encoder.layer.*.output.LayerNorm"),
    ("head.transform", "cls.predictions.transform.dense"),
    ("head.norm", "cls.predictions.transform.LayerNorm"),
    ("head.output", "cls.predictions.decoder"),
    ("head", "cls.predictions"),
    ("pooler", "bert.pooler.dense"),
    ("classifier", "classifier"),
];

/// The configuration of `family`, BERT or one with the same keys.
pub(super) fn config(family: Family, keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("hidden_size")?;
    let n_heads = keys.count("num_attention_heads")?;
    let position = keys.get("position_embedding_type").and_then(|value| value.as_str()).unwrap_or("absolute");
    if position != "absolute" {
        return Err(keys.error("position_embedding_type", format!("{position:?} is not supported, only \"absolute\"")));
    }
    if keys.flag_or("is_decoder", false)? {
        return Err(keys.error("is_decoder", "found true, only encoders are supported"));
    }
    let head_dim = hidden_size / n_heads.max(1);
    let activation = keys.activation_or("hidden_act", "gelu")?;
    let hidden_dropout = keys.dropout_or("hidden_dropout_prob", 0.1)?;
    Ok(ModelConfig {
        family,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size")?,
        n_layers: keys.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        max_positions: keys.count_or("max_position_embeddings", 512)?,
        n_token_types: keys.count_or("type_vocab_size", 2)?,
        embedding_scale: 1.0,
        embedding_norm: true,
        norm: NormKind::Layer,
        norm_place: NormPlace::Post,
        first_norm: true,
        norm_epsilon: keys.number_or("layer_norm_eps", 1e-12)?,
        position: PositionKind::Learned { first: 0 },
        activation,
        gated: false,
        causal: false,
        window: None,
        attention_scale: (head_dim as f32).powf(-0.5),
        attention_scale_by_layer: false,
        query_key_norm: false,
        query_key_value_bias: true,
        attention_output_bias: true,
        feed_forward_bias: true,
        tied_head: keys.flag_or("tie_word_embeddings", true)?,
        logit_cap: None,
        masked_head: Some(MaskedHead { activation, bias: true, output_bias: true }),
        pooler: Some(PoolerConfig {
            pooling: Pooling::Cls,
            activation: PoolerActivation::Tanh,
            bias: true,
            norm: false,
            drop_before: false,
            of_tokens: false,
            in_trunk: true,
        }),
        embedding_dropout: hidden_dropout,
        attention_dropout: keys.dropout_or("attention_probs_dropout_prob", 0.1)?,
        attention_output_dropout: hidden_dropout,
        feed_forward_dropout: 0.0,
        feed_forward_output_dropout: hidden_dropout,
        classifier_dropout: keys.dropout_or("classifier_dropout", hidden_dropout.into())?,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: Vec::new(),
        raw: keys.raw(),
        generation: None,
    })
}
