//! The supervised warm-up before rewards: next-token training on given completions, byte for byte that of supervised fine-tuning.
//!
//! Source: ReFT, arXiv:2401.08967, Section 3.1.

use crate::config::RlConfig;
use crate::train::Progress;
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_data::examples::{Example, pack};
use kiln_data::pack::{by_rows, parts};
use kiln_data::store::Store;
use kiln_kernels::random::Key;
use kiln_train::checkpoint::ByName;
use kiln_train::run::Run;
use kiln_train::updater::Updater;

/// The stream of randomness of dropout.
const DROPOUT: u64 = 2;

/// The rows of each update.
pub(crate) fn batches(config: &RlConfig, rows: &Store<Example>) -> Vec<Vec<usize>> {
    let epochs = 0..config.warm_up.epochs as u64;
    epochs.flat_map(|epoch| by_rows(&rows.order(config.seed, epoch), config.warm_up.batch_rows)).collect()
}

/// Trains on `batches` of `rows`, from where the run left off.
///
/// # Errors
/// If training diverges, or the user interrupts it.
pub(crate) fn warm_up(
    config: &RlConfig,
    mut model: LanguageModel,
    rows: &Store<Example>,
    batches: &[Vec<usize>],
    progress: &mut Progress,
    run: &mut Run,
) -> Result<LanguageModel> {
    let lengths = rows.lengths();
    let key = Key::new(config.seed).fold(DROPOUT);
    let mut updater = Updater::new(config.warm_up.update.clone(), batches.len());
    model = updater.prepare(model, "warm_up.update")?;
    model = run.restore(model, &mut updater)?;
    let mut start = run.elapsed_seconds();
    for (index, batch) in batches.iter().enumerate().skip(run.step()) {
        let (step, key) = (index + 1, key.fold(index as u64));
        let (mut loss_sum, mut n_items) = (0.0, 0);
        for (part, indices) in parts(batch, &lengths, config.micro_batch_tokens).iter().enumerate() {
            let rows = rows.pick(indices)?;
            let (packed, supervised) = pack(&rows.iter().map(|row| &**row).collect::<Vec<_>>());
            let loss = model.loss(&packed, &supervised, Some(key.fold(part as u64)));
            updater.add(&model, loss.backward(), supervised.targets.len() as f64);
            loss_sum += f64::from(loss.into_scalar::<f32>());
            n_items += supervised.targets.len();
        }
        let loss = loss_sum / n_items as f64;
        let stats;
        (model, stats) = run.update(step, model, &mut updater, loss)?;
        run.log(step, &[("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)])?;
        if run.is_due(step) {
            progress.seconds.train += run.elapsed_seconds() - start;
            start = run.elapsed_seconds();
            run.save(step, &model, &updater, progress, &ByName::new())?;
        }
    }
    progress.seconds.train += run.elapsed_seconds() - start;
    progress.n_skipped += updater.n_skipped();
    Ok(updater.finished(model))
}
