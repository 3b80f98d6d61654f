//! DistilBERT. Source: Sanh et al., arXiv:1910.01108.
//!
//! BERT's blocks without token types, under names of its own.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, MaskedHead, ModelConfig, NormKind, NormPlace, PoolerActivation, PoolerConfig, PositionKind};
use kiln_kernels::activation::Activation;
use kiln_kernels::pool::Pooling;

pub(super) const NAMES: Names = Names {
    constants: &["embeddings.position_ids"],
    ..Names::plain(&[
        ("trunk.embeddings.token", "distilbert.embeddings.word_embeddings"),
        ("trunk.embeddings.position", "distilbert.embeddings.position_embeddings"),
        ("trunk.embeddings.norm", "distilbert.embeddings.LayerNorm"),
        ("trunk.layers.*.attention.query", "distilbert.transformer.layer.*.attention.q_lin"),
        ("trunk.layers.*.attention.key", "distilbert.transformer.layer.*.attention.k_lin"),
        ("trunk.layers.*.attention.value", "distilbert.transformer.layer.*.attention.v_lin"),
        ("trunk.layers.*.attention.output", "distilbert.transformer.layer.*.attention.out_lin"),
        ("trunk.layers.*.attention_norm", "distilbert.transformer.layer.*.sa_layer_norm"),
        ("trunk.layers.*.feed_forward.up", "distilbert.transformer.layer.*.ffn.lin1"),
        ("trunk.layers.*.feed_forward.down", "distilbert.transformer.layer.*.ffn.lin2"),
        ("trunk.layers.*.feed_forward_norm", "distilbert.transformer.layer.*.output_layer_norm"),
        ("head.transform", "vocab_transform"),
        ("head.norm", "vocab_layer_norm"),
        ("head.output", "vocab_projector"),
        ("head", "vocab_projector"),
        ("pooler", "pre_classifier"),
        ("classifier", "classifier"),
    ])
};

/// The variance's addend, which the configuration does not name.
const EPSILON: f64 = 1e-12;

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("dim")?;
    let n_heads = keys.count("n_heads")?;
    let head_dim = hidden_size / n_heads.max(1);
    let activation = keys.activation_or("activation", "gelu")?;
    let dropout = keys.dropout_or("dropout", 0.1)?;
    Ok(ModelConfig {
        family: Family::DistilBert,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("hidden_dim")?,
        n_layers: keys.count("n_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim,
        max_positions: keys.count_or("max_position_embeddings", 512)?,
        n_token_types: 0,
        embedding_scale: 1.0,
        embedding_norm: true,
        norm: NormKind::Layer,
        norm_place: NormPlace::Post,
        first_norm: true,
        norm_epsilon: EPSILON,
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
            activation: PoolerActivation::Inner(Activation::Relu),
            bias: true,
            norm: false,
            drop_before: false,
            of_tokens: false,
            in_trunk: false,
        }),
        embedding_dropout: dropout,
        attention_dropout: keys.dropout_or("attention_dropout", 0.1)?,
        attention_output_dropout: 0.0,
        feed_forward_dropout: 0.0,
        feed_forward_output_dropout: dropout,
        classifier_dropout: keys.dropout_or("seq_classif_dropout", 0.2)?,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: Vec::new(),
        raw: keys.raw(),
        generation: None,
    })
}
