//! What a run's model says of the rows it was trained on and of those held out, row by row: what audits of a run look at, whatever the method.

use crate::evaluate::floats;
use burn::tensor::Tensor;
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_data::examples::Example;
use kiln_data::source::Rows;
use kiln_data::split::order;
use std::borrow::Cow;

/// What a model says of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The loss, summed over the row's items, without regularisation: in nats, or a squared error.
    pub loss: f64,
    /// What the loss is summed over: the tokens or words with a loss; 1 for a class or a number.
    pub n_items: usize,
    /// What was answered for each item, where answers have probabilities.
    pub answers: Vec<Answer>,
}

/// An answer and its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The probability of the likeliest answer.
    pub confidence: f64,
    /// Whether it is right.
    pub is_right: bool,
    /// Brier's score of the probabilities of all answers.
    pub brier: f64,
}

impl Observation {
    /// The mean loss of an item.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.n_items as f64
    }
}

impl Answer {
    /// From the logits of all answers; also the cross-entropy of the right one, in nats. Of answers equally likely the first counts.
    pub fn new(logits: &[f32], gold: usize) -> (Self, f64) {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).expect("an answer");
        let largest = f64::from(logits[best]);
        let (mut sum, mut squares) = (0.0, 0.0);
        for &logit in logits {
            let power = (f64::from(logit) - largest).exp();
            sum += power;
            squares += power * power;
        }
        let of_gold = f64::from(logits[gold]) - largest;
        // Σ (p − [gold])² = Σ p² − 2·p_gold + 1.
        let brier = squares / (sum * sum) - 2.0 * of_gold.exp() / sum + 1.0;
        (Self { confidence: 1.0 / sum, is_right: best == gold, brier }, sum.ln() - of_gold)
    }
}

/// The rows of a run that were looked at, seen by the model before training and after.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Rows that were trained on.
    pub train: Side,
    /// Rows held out.
    pub held_out: Side,
}

/// Rows of one kind.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// How many there are; those looked at may be fewer.
    pub n_rows: usize,
    /// What the model before training says of each.
    pub before: Vec<Observation>,
    /// What the trained model says of each.
    pub after: Vec<Observation>,
    /// The rows themselves, as a decoder continues them; empty for other models.
    pub examples: Vec<Example>,
}

/// What to ask of a run.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The most rows that it was trained on, and the most held-out ones.
    pub most_rows: usize,
    /// Draws them: the seed of the run.
    pub seed: u64,
}

impl Look {
    /// What the model before training and the trained one say of some of the rows that a run was trained on, and of held-out ones. `says` asks one of
    /// the models, the trained one last; `example` is a row as a decoder continues it. Rows that validated the run, and canaries, are neither.
    ///
    /// # Errors
    /// If a row on disk cannot be read.
    pub fn at<R: Clone>(
        self,
        rows: &Rows<R>,
        mut says: impl FnMut(usize, &[R]) -> Vec<Observation>,
        example: impl Fn(&R) -> Option<&Example>,
    ) -> Result<Observed> {
        let some = |n: usize| order(n, self.seed).into_iter().take(self.most_rows).collect::<Vec<_>>();
        let train: Vec<R> = rows.train.pick(&some(rows.n_own()))?.into_iter().map(Cow::into_owned).collect();
        let held_out: Vec<R> = some(rows.held_out.len()).into_iter().map(|index| rows.held_out[index].clone()).collect();
        let mut side = |n_rows, rows: &[R]| Side {
            n_rows,
            before: says(0, rows),
            after: says(1, rows),
            examples: rows.iter().filter_map(&example).cloned().collect(),
        };
        Ok(Observed { train: side(rows.n_own(), &train), held_out: side(rows.held_out.len(), &held_out) })
    }
}

/// One answer for each row of `logits`.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `golds`: one per row.
pub fn classes(logits: Tensor<2>, golds: &[u32]) -> Vec<Observation> {
    let [_, n_classes] = logits.dims();
    let of = |(logits, &gold): (&[f32], &u32)| {
        let (answer, loss) = Answer::new(logits, gold as usize);
        Observation { loss, n_items: 1, answers: vec![answer] }
    };
    floats(logits).chunks_exact(n_classes).zip(golds).map(of).collect()
}

/// The items of each row, of which there are `counts`, joined to one observation.
pub fn joined(items: Vec<Observation>, counts: impl Iterator<Item = usize>) -> Vec<Observation> {
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

/// What a language model says of the tokens of each sequence that are predicted: next ones, or hidden ones. The supervised rows rise.
pub fn tokens(model: &LanguageModel, batch: &Packed, supervised: &Supervised) -> Vec<Observation> {
    let hidden = model.trunk.forward_rows(batch, &supervised.rows, None);
    let [n_tokens, width] = hidden.dims();
    let n_at_once = (MOST_LOGITS / model.trunk.embeddings.token.weight.dims()[0]).max(1);
    let of_part = |start: usize| {
        let end = (start + n_at_once).min(n_tokens);
        classes(model.logits(hidden.clone().slice([start..end, 0..width])), &supervised.targets[start..end])
    };
    let tokens = (0..n_tokens).step_by(n_at_once).flat_map(of_part).collect();
    let place = |row: usize| supervised.rows.partition_point(|&token| (token as usize) < row);
    joined(tokens, batch.segments.ranges().map(|sequence| place(sequence.end) - place(sequence.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_by_hand() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let (answer, cross_entropy) = Answer::new(&logits, 1);
        assert!((answer.confidence - 0.5).abs() < 1e-6 && !answer.is_right);
        assert!((answer.brier - (0.25 + 0.49 + 0.04)).abs() < 1e-6, "{answer:?}");
        assert!((cross_entropy + 0.3f64.ln()).abs() < 1e-6);
        assert!(Answer::new(&logits, 0).0.is_right);
        // Far apart: nothing overflows.
        let (sure, cross_entropy) = Answer::new(&[-800.0, 900.0], 0);
        assert_eq!((sure, cross_entropy), (Answer { confidence: 1.0, is_right: false, brier: 2.0 }, 1700.0));
    }
}
