//! Training an encoder to predict hidden tokens of running text.

use super::Setup;
use super::measure::{Meter, Report, counts, rounded};
use super::train::{HIDDEN_TOKENS, NEW_WEIGHTS, batches, train, usual_update};
use burn::module::Module;
use kiln_contrastive::objective::masked_language_model;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_core::{Error, Result};
use kiln_data::masking::Masking;
use kiln_data::rows::Table;
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_train::preflight::work::{Gradients, head, trunk};
use serde_json::{Map, json};
use std::path::Path;

/// Blocks per step.
const ROWS: usize = 16;
/// Tokens of a block.
const BLOCK_TOKENS: usize = 128;
/// The share of tokens that is predicted.
const SHARE: f64 = 0.15;
/// The blocks that judge, and which of each block's tokens: those at 3, 10, 17 and so on.
const HELD_OUT_BLOCKS: usize = 64;
const HELD_OUT_TOKENS: [usize; 2] = [3, 7];

/// # Errors
/// If the model or the text is missing or bad, or training diverges.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let folder = setup.model("all-MiniLM-L6-v2")?;
    let key = Key::new(setup.args.seed);
    let (model, _) = LanguageModel::from_pretrained(&folder, &device, key.fold(NEW_WEIGHTS))?;
    let config = model.config().clone();
    let tokenizer = Tokenizer::for_model(&folder, &config)?;
    let rows = blocks(&setup.data("wikitext2/valid.txt")?, &tokenizer)?;
    let held_out = match setup.full {
        true => Some(HeldOut::new(&blocks(&setup.data("wikitext2/test.txt")?, &tokenizer)?, tokenizer.mask_id()?)),
        false => None,
    };
    let before = held_out.as_ref().map(|held_out| held_out.loss(&model));
    let masking = Masking { share: SHARE, whole_words: false, mask_id: tokenizer.mask_id()?, vocab_size: config.vocab_size };
    // Each batch with its number, so that a block's hidden tokens differ from epoch to epoch.
    let batches: Vec<(u64, Vec<usize>)> =
        (0..).zip(batches(&order(rows.len(), setup.args.seed), ROWS, setup.n_steps, setup.full)).collect();
    let mut meter = Meter::start();
    let model = train(model, &batches, usual_update(5e-5), key, &mut meter, |model, (step, batch), dropout| {
        let texts: Vec<&Text> = batch.iter().map(|&index| &rows[index]).collect();
        let (packed, supervised) = masking.pack(&texts, key.fold(HIDDEN_TOKENS).fold(*step), 0);
        let n_supervised = supervised.targets.len();
        let lengths = vec![BLOCK_TOKENS; texts.len()];
        let mut counts = counts(packed.ids.len(), &lengths);
        counts.insert("supervised", n_supervised as f64);
        let heads = [config.hidden_size, config.vocab_size].map(|n_out| head(config.hidden_size, n_out, n_supervised, Gradients::All));
        counts.insert("gflop", trunk(&config, &lengths, n_supervised, Gradients::All) + heads.iter().sum::<f64>());
        (masked_language_model::loss(model, &packed, &supervised, Some(dropout)), n_supervised, counts)
    })?;
    let mut extra = Map::new();
    if let (Some(held_out), Some(before)) = (&held_out, before) {
        let quality = json!({ "held_out_loss_before": before, "held_out_loss_after": held_out.loss(&model) });
        extra.insert("quality".into(), quality);
    }
    meter.report(setup.workload.name, setup.workload.unit, extra)
}

/// The lines of a file, each with its special tokens, end to end in blocks; what is left is dropped.
fn blocks(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<Text>> {
    let table = Table::read(path, &[])?;
    let lines = table.rows.iter().map(|row| table.text(row, "text").map(str::to_owned)).collect::<Result<Vec<_>>>()?;
    let lines = tokenizer.encode_words(lines)?;
    let (ids, words): (Vec<_>, Vec<_>) = lines.iter().flat_map(|line| line.ids.iter().zip(&line.words)).unzip();
    let blocks = ids.chunks_exact(BLOCK_TOKENS).zip(words.chunks_exact(BLOCK_TOKENS));
    let blocks: Vec<Text> =
        blocks.map(|(ids, words): (&[u32], &[Option<u32>])| Text { ids: ids.to_vec(), words: words.to_vec() }).collect();
    if blocks.is_empty() {
        return Err(Error::data(path, None, format!("{} tokens make no block of {BLOCK_TOKENS}", ids.len())));
    }
    Ok(blocks)
}

/// Blocks with the same tokens hidden each time.
struct HeldOut(Vec<(Packed, Supervised)>);

impl HeldOut {
    fn new(blocks: &[Text], mask_id: u32) -> Self {
        let batch = |blocks: &[Text]| {
            let (mut rows, mut targets) = (Vec::new(), Vec::new());
            let mut hidden: Vec<Vec<u32>> = blocks.iter().map(|block| block.ids.clone()).collect();
            for (index, (block, ids)) in blocks.iter().zip(&mut hidden).enumerate() {
                let [first, every] = HELD_OUT_TOKENS;
                for token in (first..BLOCK_TOKENS).step_by(every).filter(|&token| block.words[token].is_some()) {
                    rows.push((index * BLOCK_TOKENS + token) as u32);
                    targets.push(std::mem::replace(&mut ids[token], mask_id));
                }
            }
            let weights = vec![1.0; rows.len()].into();
            (Packed::new(hidden.iter().map(Vec::as_slice)), Supervised { rows: rows.into(), targets: targets.into(), weights })
        };
        Self(blocks[..blocks.len().min(HELD_OUT_BLOCKS)].chunks(ROWS).map(batch).collect())
    }

    /// The mean loss, in nats.
    fn loss(&self, model: &LanguageModel) -> f64 {
        let model = model.clone().valid();
        let sum = |(batch, supervised): &(Packed, Supervised)| f64::from(model.loss(batch, supervised, None).into_scalar::<f32>());
        let n_tokens: usize = self.0.iter().map(|(_, supervised)| supervised.targets.len()).sum();
        rounded(self.0.iter().map(sum).sum::<f64>() / n_tokens as f64, 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seventh_token_is_hidden_unless_special() {
        let words: Vec<Option<u32>> = (0..BLOCK_TOKENS).map(|token| (token != 10).then_some(token as u32)).collect();
        let block = Text { ids: (1000..1000 + BLOCK_TOKENS as u32).collect(), words };
        let HeldOut(batches) = HeldOut::new(&vec![block; HELD_OUT_BLOCKS + 1], 4);
        assert_eq!(batches.len(), HELD_OUT_BLOCKS / ROWS);
        let (batch, supervised) = &batches[0];
        assert_eq!(supervised.rows[..3], [3, 17, 24]);
        assert_eq!(supervised.targets[..3], [1003, 1017, 1024]);
        assert_eq!([batch.ids[3], batch.ids[10], batch.ids[17]], [4, 1010, 4]);
        assert_eq!(supervised.rows.len(), ROWS * 17);
    }
}
