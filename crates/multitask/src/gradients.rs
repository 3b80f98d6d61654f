//! The losses and gradients of one batch: of all tasks from one pass, or of each task from a pass of its own where gradients are compared.

use crate::data::{Batch, TaskRows};
use crate::model::{MultitaskModel, PRIVATE};
use crate::objective::pcgrad::{self, Products};
use crate::sampling::Pick;
use crate::weighting::Weights;
use burn::tensor::Tensor;
use kiln_core::Result;
use kiln_kernels::accumulate::accumulate;
use kiln_kernels::adamw::inner_product;
use kiln_kernels::random::Key;
use kiln_train::updater::by_path;
use std::collections::BTreeMap;

/// The gradients of a batch.
#[derive(Debug)]
pub struct Gradients {
    /// Of the weighted loss times `n_items`, by path.
    pub by_path: BTreeMap<String, Tensor<1>>,
    /// Rows, words and tokens in the batch.
    pub n_items: usize,
    /// The mean loss of each task that has rows in the batch.
    pub losses: Vec<Option<f64>>,
    /// The weighted loss.
    pub loss: f64,
    /// The inner products of the tasks' gradients of all that they share, and which tasks these are, if they were compared.
    pub products: Option<(Vec<usize>, Products)>,
}

/// A pass over the trunk: its batch and its randomness.
#[derive(Debug)]
pub struct Pass {
    batch: Batch,
    dropout: Option<Key>,
}

/// The passes of one batch, with `hide` to hide tokens: one for all tasks, or `separate` ones.
///
/// # Errors
/// If a row cannot be read.
pub fn passes(rows: &[&TaskRows], picks: &[Pick], causal: bool, hide: Key, dropout: Option<Key>, separate: bool) -> Result<Vec<Pass>> {
    let picks: Vec<&[Pick]> = if separate { picks.chunk_by(|(a, _), (b, _)| a == b).collect() } else { vec![picks] };
    let pass = |(index, picks): (usize, &[Pick])| {
        Ok(Pass { batch: Batch::new(rows, picks, causal, hide)?, dropout: dropout.map(|key| key.fold(index as u64)) })
    };
    picks.into_iter().enumerate().map(pass).collect()
}

/// The mean loss of each of `n` tasks that has rows in the batch.
pub fn losses(model: &MultitaskModel, passes: &[Pass], n: usize) -> Vec<Option<f64>> {
    let mut losses = vec![None; n];
    for pass in passes {
        record(&pass.batch, &model.losses(&pass.batch, pass.dropout), &mut losses);
    }
    losses
}

fn record(batch: &Batch, sums: &[Tensor<1>], losses: &mut [Option<f64>]) {
    for (part, sum) in batch.parts.iter().zip(sums) {
        losses[part.task] = Some(f64::from(sum.clone().into_scalar::<f32>()) / part.n_items() as f64);
    }
}

/// The gradients of a batch. With `pcgrad`, the randomness of its orders, those of what tasks share are projected.
pub fn gradients(model: &MultitaskModel, passes: &[Pass], weights: &Weights, n: usize, pcgrad: Option<Key>) -> Gradients {
    let n_rows: usize = passes.iter().map(|pass| pass.batch.n_rows()).sum();
    let n_items: usize = passes.iter().flat_map(|pass| &pass.batch.parts).map(|part| part.n_items()).sum();
    let mut shares = vec![0.0; n];
    passes.iter().flat_map(|pass| &pass.batch.parts).for_each(|part| shares[part.task] = part.n_rows as f64 / n_rows as f64);
    let mut losses = vec![None; n];
    // A sum over the items of a task becomes its mean, weighted, times all items: the update divides by these again.
    let scale = |factor: f64, n_part_items: usize| factor * n_items as f64 / n_part_items as f64;
    let (factors, by_path, products) = if let [pass] = passes {
        let sums = model.losses(&pass.batch, pass.dropout);
        record(&pass.batch, &sums, &mut losses);
        let factors = weights.factors(&losses, &shares);
        let scaled = sums.into_iter().zip(&pass.batch.parts).map(|(sum, part)| sum * scale(factors[part.task], part.n_items()));
        let total = scaled.reduce(|total, loss| total + loss).expect("a batch has a row");
        (factors, by_path(model, total.backward()), None)
    } else {
        let mut of_tasks = Vec::with_capacity(passes.len());
        for pass in passes {
            let [sum] = model.losses(&pass.batch, pass.dropout).try_into().expect("a pass of one task has one loss");
            record(&pass.batch, std::slice::from_ref(&sum), &mut losses);
            of_tasks.push(by_path(model, sum.backward()));
        }
        let factors = weights.factors(&losses, &shares);
        let parts = passes.iter().map(|pass| &pass.batch.parts[0]);
        let scales: Vec<f64> = parts.clone().map(|part| scale(factors[part.task], part.n_items())).collect();
        let products = products(&of_tasks, &scales);
        let shared = match pcgrad {
            Some(key) => pcgrad::coefficients(&products, key).into_iter().zip(&scales).map(|(c, scale)| c * scale).collect(),
            None => scales.clone(),
        };
        (factors, sum(of_tasks, &scales, &shared), Some((parts.map(|part| part.task).collect(), products)))
    };
    let loss = losses.iter().zip(factors).map(|(loss, factor)| loss.map_or(0.0, |loss| factor * loss)).sum();
    Gradients { by_path, n_items, losses, loss, products }
}

/// The inner products of all pairs of gradients, each scaled, over what tasks share.
fn products(of_tasks: &[BTreeMap<String, Tensor<1>>], scales: &[f64]) -> Products {
    let n = of_tasks.len();
    let mut products = vec![vec![0.0; n]; n];
    for a in 0..n {
        for b in a..n {
            let shared = of_tasks[a].iter().filter(|(path, _)| !path.starts_with(PRIVATE));
            let both = shared.filter_map(|(path, gradient)| Some((gradient.clone(), of_tasks[b].get(path)?.clone())));
            let product = scales[a] * scales[b] * both.map(|(a, b)| inner_product(a, b)).sum::<f64>();
            (products[a][b], products[b][a]) = (product, product);
        }
    }
    products
}

/// The sum of gradients, each scaled: by `shared` what tasks share, by `private` what they do not.
fn sum(of_tasks: Vec<BTreeMap<String, Tensor<1>>>, private: &[f64], shared: &[f64]) -> BTreeMap<String, Tensor<1>> {
    let mut sum: BTreeMap<String, Tensor<1>> = BTreeMap::new();
    for (task, gradients) in of_tasks.into_iter().enumerate() {
        for (path, gradient) in gradients {
            let gradient = gradient * if path.starts_with(PRIVATE) { private[task] } else { shared[task] };
            let total = match sum.remove(&path) {
                Some(earlier) => accumulate(earlier, gradient),
                None => gradient,
            };
            sum.insert(path, total);
        }
    }
    sum
}
