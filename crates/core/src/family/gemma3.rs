//! The text model of Gemma 3. Source: Gemma Team, arXiv:2503.19786.
//!
//! Llama's blocks with normalised queries and keys, a normalisation before and after each part of a block, gains stored as their distance
//! from 1, and most blocks with a sliding window and rotary positions of their own.
//! Differs from the source: `attn_logit_softcapping`, a key left over from Gemma 2, has no effect, as in transformers.

use super::{Family, Names, llama};
use crate::Result;
use crate::config::{Keys, ModelConfig, NormKind, NormPlace, PositionKind, Sliding, Window};
use crate::rotary::Source;

pub(super) const NAMES: Names = Names {
    token_classifier: "score",
    ..Names::plain(&[
        ("trunk.embeddings.token", "model.embed_tokens"),
        ("trunk.layers.*.attention_norm", "model.layers.*.input_layernorm"),
        ("trunk.layers.*.attention_output_norm", "model.layers.*.post_attention_layernorm"),
        ("trunk.layers.*.attention.query", "model.layers.*.self_attn.q_proj"),
        ("trunk.layers.*.attention.key", "model.layers.*.self_attn.k_proj"),
        ("trunk.layers.*.attention.value", "model.layers.*.self_attn.v_proj"),
        ("trunk.layers.*.attention.output", "model.layers.*.self_attn.o_proj"),
        ("trunk.layers.*.attention.query_norm", "model.layers.*.self_attn.q_norm"),
        ("trunk.layers.*.attention.key_norm", "model.layers.*.self_attn.k_norm"),
        ("trunk.layers.*.feed_forward_norm", "model.layers.*.pre_feedforward_layernorm"),
        ("trunk.layers.*.feed_forward_output_norm", "model.layers.*.post_feedforward_layernorm"),
        ("trunk.layers.*.feed_forward.gate", "model.layers.*.mlp.gate_proj"),
        ("trunk.layers.*.feed_forward.up", "model.layers.*.mlp.up_proj"),
        ("trunk.layers.*.feed_forward.down", "model.layers.*.mlp.down_proj"),
        ("trunk.final_norm", "model.norm"),
        ("head.output", "lm_head"),
        ("classifier", "score"),
    ])
};

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    if keys.flag_or("use_bidirectional_attention", false)? {
        return Err(keys.error("use_bidirectional_attention", "found true, only causal attention is supported"));
    }
    let head_dim = keys.count_or("head_dim", 256)?;
    let max_positions = keys.count_or("max_position_embeddings", 131_072)?;
    let sliding = match keys.sliding_layers()? {
        Some(layers) => Sliding::Listed(layers),
        None => {
            let every = keys.count_or("sliding_window_pattern", 6)?.max(1);
            Sliding::AllBut { first: every - 1, every }
        }
    };
    // The `rope_scaling` of transformers 4 is that of the blocks without a window.
    let full = if keys.get("rope_scaling").is_some() { Source::of(keys)? } else { Source::of_kind(keys, "full_attention")? };
    let full = full.config(keys.number_or("rope_theta", 1_000_000.0)?, head_dim, max_positions)?;
    let local_theta = keys.number_or("rope_local_base_freq", 10_000.0)?;
    Ok(ModelConfig {
        family: Family::Gemma3,
        head_dim,
        n_kv_heads: keys.count_or("num_key_value_heads", 4)?,
        max_positions: full.reach().unwrap_or(max_positions),
        position: PositionKind::Rotary {
            full,
            sliding: Source::of_kind(keys, "sliding_attention")?.config(local_theta, head_dim, max_positions)?,
        },
        embedding_scale: (keys.count("hidden_size")? as f32).sqrt(),
        norm: NormKind::RmsAroundOne,
        norm_place: NormPlace::Sandwich,
        activation: keys.activation_or("hidden_activation", "gelu_pytorch_tanh")?,
        window: Some(Window { tokens: keys.count_or("sliding_window", 4096)?, sliding }),
        attention_scale: keys.number_or("query_pre_attn_scalar", 256.0)?.powf(-0.5) as f32,
        query_key_norm: true,
        tied_head: keys.flag_or("tie_word_embeddings", true)?,
        logit_cap: keys.optional_positive("final_logit_softcapping")?.map(|cap| cap as f32),
        ..llama::config(Family::Gemma3, keys)?
    })
}
