//! ModernBERT. Source: Warner et al., arXiv:2412.13663.
//!
//! Its checkpoints hold the projections to queries, keys and values joined in one, and so gate and up. The first block's attention reads
//! the embeddings, which are normalised already, as they are.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, MaskedHead, ModelConfig, NormKind, NormPlace, PoolerActivation, PoolerConfig, PositionKind, Sliding, Window};
use crate::rotary::{RotaryConfig, Source};
use kiln_kernels::pool::Pooling;

pub(super) const NAMES: Names = Names::plain(&[
    ("trunk.embeddings.token", "model.embeddings.tok_embeddings"),
    ("trunk.embeddings.norm", "model.embeddings.norm"),
    ("trunk.layers.*.attention_norm", "model.layers.*.attn_norm"),
    ("trunk.layers.*.attention.query", "model.layers.*.attn.Wqkv"),
    ("trunk.layers.*.attention.key", "model.layers.*.attn.Wqkv"),
    ("trunk.layers.*.attention.value", "model.layers.*.attn.Wqkv"),
    ("trunk.layers.*.attention.output", "model.layers.*.attn.Wo"),
    ("trunk.layers.*.feed_forward_norm", "model.layers.*.mlp_norm"),
    ("trunk.layers.*.feed_forward.gate", "model.layers.*.mlp.Wi"),
    ("trunk.layers.*.feed_forward.up", "model.layers.*.mlp.Wi"),
    ("trunk.layers.*.feed_forward.down", "model.layers.*.mlp.Wo"),
    ("trunk.final_norm", "model.final_norm"),
    ("head.transform", "head.dense"),
    ("head.norm", "head.norm"),
    ("head.output", "decoder"),
    ("head", "decoder"),
    ("pooler", "head.dense"),
    ("pooler_norm", "head.norm"),
    ("classifier", "classifier"),
]);

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("hidden_size")?;
    let n_heads = keys.count("num_attention_heads")?;
    let head_dim = hidden_size / n_heads.max(1);
    let max_positions = keys.count_or("max_position_embeddings", 8192)?;
    let attention_bias = keys.flag_or("attention_bias", false)?;
    let head_activation = keys.activation_or("classifier_activation", "gelu")?;
    let head_bias = keys.flag_or("classifier_bias", false)?;
    let full_theta = keys.number_or("global_rope_theta", 160_000.0)?;
    // With null the base is that of all blocks.
    let local_theta = keys.number_or("local_rope_theta", if keys.is_absent("local_rope_theta") { 10_000.0 } else { full_theta })?;
    let pooling = match keys.get("classifier_pooling").and_then(|value| value.as_str()).unwrap_or("cls") {
        "cls" => Pooling::Cls,
        "mean" => Pooling::Mean,
        other => return Err(keys.error("classifier_pooling", format!("{other:?} is not one of cls, mean"))),
    };
    let sliding = match keys.sliding_layers()? {
        Some(layers) => Sliding::Listed(layers),
        None => Sliding::AllBut { first: 0, every: keys.count_or("global_attn_every_n_layers", 3)?.max(1) },
    };
    let rotary = |kind, theta| rotary(keys, kind, theta, head_dim, max_positions);
    let attention_dropout = keys.dropout_or("attention_dropout", 0.0)?;
    Ok(ModelConfig {
        family: Family::ModernBert,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size")?,
        n_layers: keys.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        max_positions,
        n_token_types: 0,
        embedding_scale: 1.0,
        embedding_norm: true,
        norm: if keys.flag_or("norm_bias", false)? { NormKind::Layer } else { NormKind::LayerGain },
        norm_place: NormPlace::Pre,
        first_norm: false,
        norm_epsilon: keys.number_or("norm_eps", 1e-5)?,
        position: PositionKind::Rotary { full: rotary("full_attention", full_theta)?, sliding: rotary("sliding_attention", local_theta)? },
        activation: keys.activation_or("hidden_activation", "gelu")?,
        gated: true,
        causal: false,
        window: Some(Window { tokens: keys.count_or("local_attention", 128)?, sliding }),
        attention_scale: (head_dim as f32).powf(-0.5),
        attention_scale_by_layer: false,
        query_key_norm: false,
        query_key_value_bias: attention_bias,
        attention_output_bias: attention_bias,
        feed_forward_bias: keys.flag_or("mlp_bias", false)?,
        tied_head: keys.flag_or("tie_word_embeddings", true)?,
        logit_cap: None,
        masked_head: Some(MaskedHead { activation: head_activation, bias: head_bias, output_bias: keys.flag_or("decoder_bias", true)? }),
        pooler: Some(PoolerConfig {
            pooling,
            activation: PoolerActivation::Inner(head_activation),
            bias: head_bias,
            norm: true,
            drop_before: false,
            of_tokens: true,
            in_trunk: false,
        }),
        embedding_dropout: keys.dropout_or("embedding_dropout", 0.0)?,
        attention_dropout,
        attention_output_dropout: attention_dropout,
        feed_forward_dropout: keys.dropout_or("mlp_dropout", 0.0)?,
        feed_forward_output_dropout: 0.0,
        classifier_dropout: keys.dropout_or("classifier_dropout", 0.0)?,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: Vec::new(),
        raw: keys.raw(),
        generation: None,
    })
}

/// The rotary parameters of one kind of blocks; the `rope_scaling` of transformers 4 is that of both.
fn rotary(keys: &Keys<'_>, kind: &str, theta: f64, head_dim: usize, max_positions: usize) -> Result<RotaryConfig> {
    let source = if keys.get("rope_scaling").is_some() { Source::of(keys)? } else { Source::of_kind(keys, kind)? };
    source.config(theta, head_dim, max_positions)
}
