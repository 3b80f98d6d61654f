//! Llama and what is built like it: Mistral, Qwen2, Qwen3.
//!
//! Source: Touvron et al., arXiv:2302.13971; Grattafiori et al., arXiv:2407.21783; Jiang et al., arXiv:2310.06825; Yang et al.,
//! arXiv:2407.10671 and arXiv:2505.09388.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, Llama3Scaling, ModelConfig, NormKind, NormPlace, PositionKind};
use serde_json::{Map, Value};

pub(super) const NAMES: Names = Names::plain(&[
    ("trunk.embeddings.token", "model.embed_tokens"),
    ("trunk.layers.*.attention_norm", "model.layers.*.input_layernorm"),
    ("trunk.layers.*.attention.query", "model.layers.*.self_attn.q_proj"),
    ("trunk.layers.*.attention.key", "model.layers.*.self_attn.k_proj"),
    ("trunk.layers.*.attention.value", "model.layers.*.self_attn.v_proj"),
    ("trunk.layers.*.attention.output", "model.layers.*.self_attn.o_proj"),
    ("trunk.layers.*.attention.query_norm", "model.layers.*.self_attn.q_norm"),
    ("trunk.layers.*.attention.key_norm", "model.layers.*.self_attn.k_norm"),
    ("trunk.layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"),
    ("trunk.layers.*.feed_forward.gate", "model.layers.*.mlp.gate_proj"),
    ("trunk.layers.*.feed_forward.up", "model.layers.*.mlp.up_proj"),
    ("trunk.layers.*.feed_forward.down", "model.layers.*.mlp.down_proj"),
    ("trunk.final_norm", "model.norm"),
    ("head.output", "lm_head"),
    ("classifier", "score"),
]);

/// The configuration of `family`, one of those built like Llama.
pub(super) fn config(family: Family, keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("hidden_size")?;
    let n_heads = keys.count("num_attention_heads")?;
    let attention_bias = keys.flag_or("attention_bias", false)?;
    if keys.flag_or("use_sliding_window", false)? {
        return Err(keys.error("use_sliding_window", "windows in some of the layers only are not supported"));
    }
    Ok(ModelConfig {
        family,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size")?,
        n_layers: keys.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.count_or("num_key_value_heads", n_heads)?,
        head_dim: keys.count_or("head_dim", hidden_size / n_heads.max(1))?,
        max_positions: keys.count_or("max_position_embeddings", 2048)?,
        n_token_types: 0,
        norm: NormKind::Rms,
        norm_place: NormPlace::Pre,
        norm_epsilon: keys.number_or("rms_norm_eps", 1e-6)?,
        position: rotary(keys)?,
        activation: keys.activation("hidden_act")?,
        gated: true,
        causal: true,
        window: if family == Family::Mistral { keys.optional_count("sliding_window")? } else { None },
        query_key_norm: family == Family::Qwen3,
        query_key_value_bias: attention_bias || family == Family::Qwen2,
        attention_output_bias: attention_bias,
        feed_forward_bias: keys.flag_or("mlp_bias", false)?,
        tied_head: keys.flag_or("tie_word_embeddings", false)?,
        embedding_dropout: 0.0,
        hidden_dropout: 0.0,
        attention_dropout: keys.dropout_or("attention_dropout", 0.0)?,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: keys.end_ids(),
        raw: keys.raw(),
    })
}

/// Rotary parameters under the keys of transformers 5 (`rope_parameters`) or of older versions (`rope_theta`, `rope_scaling`).
fn rotary(keys: &Keys<'_>) -> Result<PositionKind> {
    let key = if keys.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let empty = Map::new();
    let parameters = match keys.get(key) {
        Some(Value::Object(parameters)) => parameters,
        Some(other) => return Err(keys.error(key, format!("expected an object, found {other}"))),
        None => &empty,
    };
    let number = |name: &str| {
        parameters.get(name).and_then(Value::as_f64).ok_or_else(|| keys.error(key, format!("expected a number under {name:?}")))
    };
    let theta = if parameters.contains_key("rope_theta") { number("rope_theta")? } else { keys.number_or("rope_theta", 10_000.0)? };
    let kind = parameters.get("rope_type").or_else(|| parameters.get("type")).and_then(Value::as_str).unwrap_or("default");
    let scaling = match kind {
        "default" => None,
        "llama3" => Some(Llama3Scaling {
            factor: number("factor")?,
            low_frequency_factor: number("low_freq_factor")?,
            high_frequency_factor: number("high_freq_factor")?,
            original_positions: number("original_max_position_embeddings")?,
        }),
        other => return Err(keys.error(key, format!("rotary scaling {other:?} is not one of default, llama3"))),
    };
    Ok(PositionKind::Rotary { theta, scaling })
}
