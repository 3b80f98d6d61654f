//! How good the model is at one task, on rows it was not trained on.

use crate::data::{Batch, Part, Targets, TaskRows};
use crate::model::MultitaskModel;
use burn::module::Module;
use burn::tensor::Tensor;
use kiln_data::words::Tagged;
use kiln_eval::entities::{Reading, Sentence};
use kiln_eval::evaluation::Evaluation;
use kiln_kernels::cross_entropy::HeadOptions;
use kiln_kernels::random::Key;
use kiln_train::evaluate::{batches, cross_entropies, floats};
use std::sync::Arc;

const IN_MEMORY: &str = "held-out rows are in memory";

/// The figure a task is judged by: accuracy of classes, Spearman's correlation of numbers, strict F1 of tags' entities, perplexity of tokens,
/// next or hidden. `seed` draws the bootstrap's resamples, and the tokens that are hidden: the same at every evaluation.
///
/// # Panics
/// If rows on disk cannot be read; those held out are in memory.
pub fn evaluate(model: &MultitaskModel, task: usize, rows: &TaskRows, seed: u64) -> Evaluation {
    let model = model.clone().valid();
    // A batch finds the rows of a task at its index.
    let of_tasks = vec![rows; model.tasks().len()];
    let all: Vec<usize> = (0..rows.len()).collect();
    let lengths = rows.lengths();
    let parts = batches(&all, |&index| lengths[index]).flat_map(|indices| {
        let picks: Vec<(usize, usize)> = indices.into_iter().map(|&index| (task, index)).collect();
        let batch = Batch::new(&of_tasks, &picks, model.config().causal, Key::new(seed));
        let Batch { packed, parts } = batch.expect(IN_MEMORY);
        let wanted: Vec<&Arc<[u32]>> = parts.iter().map(|part| &part.tokens).collect();
        let hidden = model.hidden(&packed, &wanted, None);
        let counted = |(part, hidden): (Part, Tensor<2>)| {
            let before = |end: usize| part.tokens.partition_point(|&token| (token as usize) < end);
            let of_rows = packed.segments.ranges().map(|range| before(range.end) - before(range.start)).collect::<Vec<_>>();
            (part, of_rows, hidden)
        };
        parts.into_iter().zip(hidden).map(counted).collect::<Vec<_>>()
    });
    let labels = &model.tasks()[task].labels;
    let classes = |(part, _, hidden): (Part, Vec<usize>, Tensor<2>)| match part.targets {
        Targets::Classes(targets) => cross_entropies(model.outputs(task, hidden, None), &targets),
        Targets::Numbers(_) => unreachable!("rows of numbers are not judged as classes"),
    };
    match rows {
        TaskRows::Classes(rows) => {
            let golds = rows.each(|row| row.label as usize).expect(IN_MEMORY);
            Evaluation::of_classes(&parts.flat_map(classes).collect::<Vec<_>>(), &golds, labels, seed)
        }
        TaskRows::Numbers(rows) => {
            let predictions = parts.flat_map(|(.., hidden)| floats(model.outputs(task, hidden, None)));
            let numbers = rows.each(|row| f64::from(row.label)).expect(IN_MEMORY);
            Evaluation::of_numbers(predictions.map(f64::from).zip(numbers).collect(), seed)
        }
        TaskRows::Sentences(rows) => {
            let found: Vec<(usize, f64)> = parts.flat_map(classes).collect();
            let loss = found.iter().map(|(_, cross_entropy)| cross_entropy).sum::<f64>() / found.len() as f64;
            let mut found = found.into_iter();
            let mut judged = |row: &Tagged| {
                let [predicted, gold] = row.names(|| found.next().expect("an answer for each word").0, labels);
                Sentence::new(&predicted, &gold, Reading::Strict).expect("labels were checked to be IOB2")
            };
            Evaluation::of_entities(rows.each(&mut judged).expect(IN_MEMORY), loss, seed)
        }
        TaskRows::Examples(_) | TaskRows::Texts(..) => {
            debug_assert!(model.tasks()[task].predicts());
            let of_part = |(part, of_rows, hidden): (Part, Vec<usize>, Tensor<2>)| {
                let mut found = model.log_probabilities(&part, hidden).into_iter();
                let of_row = |n_tokens: usize| (-found.by_ref().take(n_tokens).sum::<f64>(), n_tokens as u64);
                of_rows.into_iter().map(of_row).collect::<Vec<_>>()
            };
            Evaluation::of_tokens(parts.flat_map(of_part).collect(), seed)
        }
    }
}

impl MultitaskModel {
    /// The log-probability of each token of a part, in nats.
    fn log_probabilities(&self, part: &Part, hidden: Tensor<2>) -> Vec<f64> {
        let Targets::Classes(tokens) = &part.targets else { unreachable!("tokens are classes") };
        let head = self.head.as_ref().expect("a model that predicts tokens has a head for it");
        let both = floats(head.log_probabilities(hidden, &self.trunk.embeddings.token, tokens, HeadOptions::default()));
        // Column 0; column 1 holds entropies.
        both.into_iter().step_by(2).map(f64::from).collect()
    }
}
