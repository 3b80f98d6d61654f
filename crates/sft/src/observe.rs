//! What the model of a run says of its rows, row by row, before training and after: for an audit of what it learnt by heart.

use crate::config::SftConfig;
use crate::learner::Learner;
use crate::train::{Purpose, start};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::{Example, pack};
use kiln_data::source::Rows;
use kiln_data::split::order;
use kiln_data::store::Sequence;
use kiln_train::evaluate::{batches, floats};
use kiln_train::manifest::settings;
use kiln_train::observed::{Answer, Observation, Observed, Side};
use std::borrow::Cow;
use std::path::Path;

/// What the model before training and the trained one say of at most `most_rows` rows that the run in `folder` was trained on, and of as many
/// held-out ones; its seed draws them. Rows that validated it, and canaries, are neither.
///
/// # Errors
/// If there is no run, it is not finished, or what it reads is no longer there.
pub fn observe(folder: &Path, most_rows: usize, device: &Device) -> Result<Observed> {
    start(&settings::<SftConfig>(folder)?, device, Look { trained: &folder.join("model"), most_rows })
}

/// A look at the rows of a run.
struct Look<'a> {
    /// The trained model.
    trained: &'a Path,
    most_rows: usize,
}

impl Purpose for Look<'_> {
    type Outcome = Observed;

    fn pursue<L: Learner>(
        self,
        learner: &mut L,
        config: &SftConfig,
        model: L::Model,
        _: &Tokenizer,
        rows: &Rows<L::Row>,
        device: &Device,
    ) -> Result<Observed> {
        // Canaries come last.
        let n_train = rows.train.n_seen() - config.canaries.count;
        let some = |n: usize| order(n, config.seed).into_iter().take(self.most_rows);
        let train = some(n_train).collect::<Vec<_>>();
        let train: Vec<L::Row> = rows.train.pick(&train)?.into_iter().map(Cow::into_owned).collect();
        let held_out: Vec<L::Row> = some(rows.held_out.len()).map(|index| rows.held_out[index].clone()).collect();
        let [before, after] = [model.valid(), L::load(self.trained, device)?.valid()];
        let says = |model: &L::Model, rows: &[L::Row]| {
            batches(rows, Sequence::n_tokens).flat_map(|batch| learner.observe(model, &batch)).collect::<Vec<_>>()
        };
        let side = |n_rows, rows: &[L::Row]| Side {
            n_rows,
            before: says(&before, rows),
            after: says(&after, rows),
            examples: rows.iter().filter_map(L::example).cloned().collect(),
        };
        Ok(Observed { train: side(n_train, &train), held_out: side(rows.held_out.len(), &held_out) })
    }
}

/// One answer for each row of `logits`.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `golds`: one per row.
pub(crate) fn classes(logits: Tensor<2>, golds: &[u32]) -> Vec<Observation> {
    let [_, n_classes] = logits.dims();
    let of = |(logits, &gold): (&[f32], &u32)| {
        let (answer, loss) = Answer::new(logits, gold as usize);
        Observation { loss, n_items: 1, answers: vec![answer] }
    };
    floats(logits).chunks_exact(n_classes).zip(golds).map(of).collect()
}

/// The items of each row, of which there are `counts`, joined to one observation.
pub(crate) fn joined(items: Vec<Observation>, counts: impl Iterator<Item = usize>) -> Vec<Observation> {
    let mut items = items.into_iter();
    let row = |n_items| {
        let (mut loss, mut answers) = (0.0, Vec::with_capacity(n_items));
        for item in items.by_ref().take(n_items) {
            loss += item.loss;
            answers.extend(item.answers);
        }
        Observation { loss, n_items, answers }
    };
    counts.map(row).collect()
}

/// Logits that are held at once.
const MOST_LOGITS: usize = 1 << 24;

/// What a decoder says of the tokens of each row that have a loss.
pub(crate) fn next_tokens(model: &LanguageModel, rows: &[&Example]) -> Vec<Observation> {
    let (batch, supervised) = pack(rows);
    let hidden = model.trunk.forward_rows(&batch, &supervised.rows, None);
    let [n_tokens, width] = hidden.dims();
    let n_at_once = (MOST_LOGITS / model.trunk.embeddings.token.weight.dims()[0]).max(1);
    let of_part = |start: usize| {
        let end = (start + n_at_once).min(n_tokens);
        classes(model.logits(hidden.clone().slice([start..end, 0..width])), &supervised.targets[start..end])
    };
    let tokens = (0..n_tokens).step_by(n_at_once).flat_map(of_part).collect();
    joined(tokens, rows.iter().map(|row| row.n_supervised()))
}
