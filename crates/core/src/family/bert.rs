//! BERT and the encoders distilled from it. Source: Devlin et al., arXiv:1810.04805.

use super::{Family, Names};
use crate::Result;
use crate::config::{Keys, ModelConfig, NormKind, NormPlace, PositionKind};

pub(super) const NAMES: Names = Names { constants: &["embeddings.position_ids"], ..Names::plain(LAYERS) };

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

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    let hidden_size = keys.count("hidden_size")?;
    let n_heads = keys.count("num_attention_heads")?;
    let position = keys.get("position_embedding_type").and_then(|value| value.as_str()).unwrap_or("absolute");
    if position != "absolute" {
        return Err(keys.error("position_embedding_type", format!("{position:?} is not supported, only \"absolute\"")));
    }
    Ok(ModelConfig {
        family: Family::Bert,
        vocab_size: keys.count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("intermediate_size")?,
        n_layers: keys.count("num_hidden_layers")?,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: hidden_size / n_heads.max(1),
        max_positions: keys.count_or("max_position_embeddings", 512)?,
        n_token_types: keys.count_or("type_vocab_size", 2)?,
        norm: NormKind::Layer,
        norm_place: NormPlace::Post,
        norm_epsilon: keys.number_or("layer_norm_eps", 1e-12)?,
        position: PositionKind::Learned,
        activation: keys.activation("hidden_act")?,
        gated: false,
        causal: false,
        window: None,
        query_key_norm: false,
        query_key_value_bias: true,
        attention_output_bias: true,
        feed_forward_bias: true,
        tied_head: keys.flag_or("tie_word_embeddings", true)?,
        embedding_dropout: keys.dropout_or("hidden_dropout_prob", 0.1)?,
        hidden_dropout: keys.dropout_or("hidden_dropout_prob", 0.1)?,
        attention_dropout: keys.dropout_or("attention_probs_dropout_prob", 0.1)?,
        initializer_range: keys.number_or("initializer_range", 0.02)? as f32,
        end_ids: keys.end_ids(),
        raw: keys.raw(),
    })
}
