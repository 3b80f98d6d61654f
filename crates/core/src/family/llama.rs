//! Llama and what is built like it: Mistral, Qwen2, Qwen3.
//!
//! Source: Touvron et al., arXiv:2302.13971; Grattafiori et al., arXiv:2407.21783; Jiang et al., arXiv:2310.06825; Yang et al.,
//! arXiv:2407.10671 and arXiv:2505.09388.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, ModelConfig, NormKind, NormPlace, PositionKind, Sliding, Window};
use crate::rotary::Source;

pub(super) const NAMES: Names = Names { token_classifier: "score", ..Names::plain(LAYERS) };

const LAYERS: &[(&str, &str)] = &[
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
];

/// The configuration of `family`, one of those built like Llama.
pub(super) fn config(family: Family, keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("hidden_size")?;
    let n_heads = keys.count("num_attention_heads")?;
    let head_dim = match family {
        Family::Qwen3 => keys.count_or("head_dim", 128)?,
        _ => keys.count_or("head_dim", hidden_size / n_heads.max(1))?,
    };
    let usual_positions = match family {
        Family::Mistral => 131_072,
        Family::Qwen2 | Family::Qwen3 => 32_768,
        _ => 2048,
    };
    let max_positions = keys.count_or("max_position_embeddings", usual_positions)?;
    // A key of some families only: what others' files say under it has no effect, as in transformers.
    let flag = |families: &[Family], key| if families.contains(&family) { keys.flag_or(key, false) } else { Ok(false) };
    let attention_bias = flag(&[Family::Llama, Family::Qwen3, Family::Gemma3], "attention_bias")?;
    let rotary = Source::of(keys)?.config(keys.number_or("rope_theta", 10_000.0)?, head_dim, max_positions)?;
    Ok(ModelConfig {
        family,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size")?,
        n_layers: keys.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: keys.count_or("num_key_value_heads", n_heads)?,
        head_dim,
        max_positions: rotary.reach().unwrap_or(max_positions),
        n_token_types: 0,
        embedding_scale: 1.0,
        embedding_norm: false,
        norm: NormKind::Rms,
        norm_place: NormPlace::Pre,
        first_norm: true,
        norm_epsilon: keys.number_or("rms_norm_eps", 1e-6)?,
        position: PositionKind::Rotary { full: rotary, sliding: rotary },
        activation: keys.activation_or("hidden_act", "silu")?,
        gated: true,
        causal: true,
        window: window(family, keys)?,
        attention_scale: (head_dim as f32).powf(-0.5),
        attention_scale_by_layer: false,
        query_key_norm: family == Family::Qwen3,
        query_key_value_bias: attention_bias || family == Family::Qwen2,
        attention_output_bias: attention_bias,
        feed_forward_bias: flag(&[Family::Llama], "mlp_bias")?,
        tied_head: keys.flag_or("tie_word_embeddings", false)?,
        logit_cap: None,
        masked_head: None,
        pooler: None,
        embedding_dropout: 0.0,
        attention_dropout: keys.dropout_or("attention_dropout", 0.0)?,
        attention_output_dropout: 0.0,
        feed_forward_dropout: 0.0,
        feed_forward_output_dropout: 0.0,
        classifier_dropout: 0.0,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: Vec::new(),
        raw: keys.raw(),
        generation: None,
    })
}

/// Mistral's window is that of all blocks; Qwen's, if it is used, that of the last ones, or of those that `layer_types` names.
fn window(family: Family, keys: &Keys<'_>) -> Result<Option<Window>> {
    let sliding = match family {
        Family::Mistral => Sliding::From(0),
        Family::Qwen2 | Family::Qwen3 if keys.flag_or("use_sliding_window", false)? => match keys.sliding_layers()? {
            Some(layers) => Sliding::Listed(layers),
            None => Sliding::From(keys.count_or("max_window_layers", 28)?),
        },
        _ => return Ok(None),
    };
    // Without the key there is a window, with null there is none.
    let usual = keys.is_absent("sliding_window").then_some(4096);
    Ok(keys.optional_count("sliding_window")?.or(usual).map(|tokens| Window { tokens, sliding }))
}
