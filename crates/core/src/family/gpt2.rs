//! GPT-2. Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
//!
//! Its checkpoints hold linear weights as `[in, out]` and the projections to queries, keys and values joined in one.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, ModelConfig, NormKind, NormPlace, PositionKind};

pub(super) const NAMES: Names = Names {
    layers: &[
        ("trunk.embeddings.token", "transformer.wte"),
        ("trunk.embeddings.position", "transformer.wpe"),
        ("trunk.layers.*.attention_norm", "transformer.h.*.ln_1"),
        ("trunk.layers.*.attention.query", "transformer.h.*.attn.c_attn"),
        ("trunk.layers.*.attention.key", "transformer.h.*.attn.c_attn"),
        ("trunk.layers.*.attention.value", "transformer.h.*.attn.c_attn"),
        ("trunk.layers.*.attention.output", "transformer.h.*.attn.c_proj"),
        ("trunk.layers.*.feed_forward_norm", "transformer.h.*.ln_2"),
        ("trunk.layers.*.feed_forward.up", "transformer.h.*.mlp.c_fc"),
        ("trunk.layers.*.feed_forward.down", "transformer.h.*.mlp.c_proj"),
        ("trunk.final_norm", "transformer.ln_f"),
        ("head.output", "lm_head"),
        ("classifier", "score"),
    ],
    transposed: &["c_attn", "c_proj", "c_fc"],
    constants: &["attn.bias", "attn.masked_bias"],
    copies: &[],
    token_classifier: "classifier",
};

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("n_embd")?;
    let n_heads = keys.count("n_head")?;
    let head_dim = hidden_size / n_heads.max(1);
    let residual_dropout = keys.dropout_or("resid_pdrop", 0.1)?;
    if keys.flag_or("add_cross_attention", false)? {
        return Err(keys.error("add_cross_attention", "found true, only false is supported"));
    }
    Ok(ModelConfig {
        family: Family::Gpt2,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count_or("n_inner", 4 * hidden_size)?,
        n_layers: keys.count("n_layer")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        max_positions: keys.count("n_positions")?,
        n_token_types: 0,
        embedding_scale: 1.0,
        embedding_norm: false,
        norm: NormKind::Layer,
        norm_place: NormPlace::Pre,
        first_norm: true,
        norm_epsilon: keys.number_or("layer_norm_epsilon", 1e-5)?,
        position: PositionKind::Learned { first: 0 },
        activation: keys.activation_or("activation_function", "gelu_new")?,
        gated: false,
        causal: true,
        window: None,
        attention_scale: if keys.flag_or("scale_attn_weights", true)? { (head_dim as f32).powf(-0.5) } else { 1.0 },
        attention_scale_by_layer: keys.flag_or("scale_attn_by_inverse_layer_idx", false)?,
        query_key_norm: false,
        query_key_value_bias: true,
        attention_output_bias: true,
        feed_forward_bias: true,
        tied_head: keys.flag_or("tie_word_embeddings", true)?,
        logit_cap: None,
        masked_head: None,
        pooler: None,
        embedding_dropout: keys.dropout_or("embd_pdrop", 0.1)?,
        attention_dropout: keys.dropout_or("attn_pdrop", 0.1)?,
        attention_output_dropout: residual_dropout,
        feed_forward_dropout: 0.0,
        feed_forward_output_dropout: residual_dropout,
        classifier_dropout: residual_dropout,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: Vec::new(),
        raw: keys.raw(),
        generation: None,
    })
}
