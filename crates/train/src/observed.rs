//! What a run's model says of the rows it was trained on and of those held out, row by row: what audits of a run look at, whatever the method.

use kiln_data::examples::Example;

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
