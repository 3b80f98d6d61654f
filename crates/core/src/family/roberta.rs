//! RoBERTa. Source: Liu et al., arXiv:1907.11692.
//!
//! BERT's blocks. The positions of a sequence begin after the padding token's, and the heads are other ones.

use super::{Family, Names, bert};
use crate::Result;
use crate::config::{Keys, MaskedHead, ModelConfig, PoolerConfig, PositionKind};
use kiln_kernels::activation::Activation;

pub(super) const NAMES: Names = Names {
    constants: &["embeddings.position_ids"],
    copies: &[("lm_head.decoder.bias", "lm_head.bias")],
    ..Names::plain(&[
        ("trunk.embeddings.token", "roberta.embeddings.word_embeddings"),
        ("trunk.embeddings.position", "roberta.embeddings.position_embeddings"),
        ("trunk.embeddings.token_type", "roberta.embeddings.token_type_embeddings"),
        ("trunk.embeddings.norm", "roberta.embeddings.LayerNorm"),
        ("trunk.layers.*.attention.query", "roberta.encoder.layer.*.attention.self.query"),
        ("trunk.layers.*.attention.key", "roberta.encoder.layer.*.attention.self.key"),
        ("trunk.layers.*.attention.value", "roberta.encoder.layer.*.attention.self.value"),
        ("trunk.layers.*.attention.output", "roberta.encoder.layer.*.attention.output.dense"),
        ("trunk.layers.*.attention_norm", "roberta.encoder.layer.*.attention.output.LayerNorm"),
        ("trunk.layers.*.feed_forward.up", "roberta.encoder.layer.*.intermediate.dense"),
        ("trunk.layers.*.feed_forward.down", "roberta.encoder.layer.*.output.dense"),
        ("trunk.layers.*.feed_forward_norm", "roberta.encoder.layer.*.output.LayerNorm"),
        ("head.transform", "lm_head.dense"),
        ("head.norm", "lm_head.layer_norm"),
        ("head.output", "lm_head.decoder"),
        ("head", "lm_head"),
        ("pooler", "classifier.dense"),
        ("classifier", "classifier.out_proj"),
    ])
};

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    let bert = bert::config(Family::Roberta, keys)?;
    let first = keys.count_or("pad_token_id", 1)?.saturating_add(1);
    let n_rows = bert.max_positions;
    if n_rows <= first {
        let message = format!("found {n_rows}, but positions begin at {first}, after the padding token's");
        return Err(keys.error("max_position_embeddings", message));
    }
    Ok(ModelConfig {
        max_positions: n_rows - first,
        position: PositionKind::Learned { first },
        masked_head: Some(MaskedHead { activation: Activation::Gelu, bias: true, output_bias: true }),
        pooler: bert.pooler.map(|pooler| PoolerConfig { drop_before: true, in_trunk: false, ..pooler }),
        ..bert
    })
}
