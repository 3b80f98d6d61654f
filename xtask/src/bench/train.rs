//! The training steps that workloads time: the calls of the project's own training loops, without their files.

use super::measure::{Counts, Meter};
use burn::module::Module;
use burn::tensor::Tensor;
use kiln_core::Result;
use kiln_kernels::random::Key;
use kiln_train::updater::{UpdateConfig, Updater};

/// Streams of randomness that one seed feeds.
pub const NEW_WEIGHTS: u64 = 0;
pub const ADAPTER: u64 = 1;
pub const DROPOUT: u64 = 2;
pub const TOKENS: u64 = 3;
pub const HIDDEN_TOKENS: u64 = 4;

/// What the peers call the usual optimizer: AdamW without weight decay, the rate falling in a straight line, gradients clipped to norm 1.
pub fn usual_update(learning_rate: f64) -> UpdateConfig {
    UpdateConfig { learning_rate, weight_decay: 0.0, ..UpdateConfig::default() }
}

/// The rows of each step: `order` cut into batches, again and again until there are `n_steps`, or with `full` once.
pub fn batches(order: &[usize], batch_rows: usize, n_steps: usize, full: bool) -> Vec<Vec<usize>> {
    epochs(kiln_data::pack::by_rows(order, batch_rows), n_steps, full)
}

/// The batches of an epoch again and again until there are `n_steps`, or with `full` once.
pub fn epochs<T: Clone>(epoch: Vec<T>, n_steps: usize, full: bool) -> Vec<T> {
    let n_steps = if full { epoch.len() } else { n_steps };
    epoch.into_iter().cycle().take(n_steps).collect()
}

/// Makes one update per batch. `loss` returns the summed loss of a batch under a key for dropout, over how many items it is summed, and
/// what the meter counts.
///
/// # Errors
/// If training diverges.
pub fn train<M: Module, B>(
    model: M,
    batches: &[B],
    update: UpdateConfig,
    key: Key,
    meter: &mut Meter,
    loss: impl Fn(&M, &B, Key) -> (Tensor<1>, usize, Counts),
) -> Result<M> {
    train_by(model, batches, update, key, meter, |model, batch, key, updater| {
        let (loss, n_items, counts) = loss(model, batch, key);
        updater.add(model, loss.backward(), n_items as f64);
        (f64::from(loss.into_scalar::<f32>()), n_items, counts)
    })
}

/// The same where a batch takes more than one backward pass: `add` hands all gradients to the updater, and returns the summed loss.
///
/// # Errors
/// If training diverges.
pub fn train_by<M: Module, B>(
    mut model: M,
    batches: &[B],
    update: UpdateConfig,
    key: Key,
    meter: &mut Meter,
    add: impl Fn(&M, &B, Key, &mut Updater) -> (f64, usize, Counts),
) -> Result<M> {
    // A batch of one of several tasks does not reach the heads of the others.
    let mut updater = Updater::new(update, batches.len()).partial();
    for (index, batch) in batches.iter().enumerate() {
        let (loss, n_items, counts) = add(&model, batch, key.fold(DROPOUT).fold(index as u64), &mut updater);
        let loss = loss / n_items as f64;
        (model, _) = updater.step(model, loss)?;
        meter.step(counts, Some(loss));
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_start_over_where_the_rows_end() {
        let order = [3, 1, 2, 0, 4];
        assert_eq!(batches(&order, 2, 4, false), [vec![3, 1], vec![2, 0], vec![4], vec![3, 1]]);
        assert_eq!(batches(&order, 2, 9, true), [vec![3, 1], vec![2, 0], vec![4]]);
    }
}
