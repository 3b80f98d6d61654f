//! The training loop of masked language modelling and embedding tuning.

use crate::config::{ContrastiveConfig, Objective};
use crate::data::{self, Text};
use crate::evaluate::{self, Evaluation};
use crate::objective::masked_language_model::{self, Masking};
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::parameters::parameters;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::examples::Counts;
use kiln_data::pack::{by_rows, parts};
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_train::run::Run;
use kiln_train::updater::Updater;
use serde::Serialize;
use std::path::Path;

/// What a run achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The model as it came, on what was held out.
    pub before: Evaluation,
    /// The trained model, on the same.
    pub after: Evaluation,
    /// What became of the training rows.
    pub train_rows: Counts,
    /// What became of the held-out rows.
    pub held_out_rows: Counts,
    /// Parameters trained.
    pub n_trainable: usize,
    /// Parameters of the model, trained or not.
    pub n_parameters: usize,
    /// Updates.
    pub n_steps: usize,
    /// Time in the training loop, evaluation left out.
    pub train_seconds: f64,
    /// Training tokens per second of that time.
    pub tokens_per_second: f64,
}

/// Streams of randomness that one seed feeds.
const NEW_WEIGHTS: u64 = 0;
const STEPS: u64 = 1;
/// And of one step.
const HIDDEN_TOKENS: u64 = 0;
const DROPOUT: u64 = 1;

/// Trains as `config` says and leaves the run in the folder `out`: `model/`, `config.toml`, `metrics.jsonl`, `results.json` and
/// `report.html`.
///
/// # Errors
/// If the configuration, a file or a row is bad, training diverges, or the user interrupts it.
pub fn train(config: &ContrastiveConfig, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    let device = device.clone().autodiff();
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    match config.objective {
        Objective::Mlm => {
            if shape.causal {
                return Err(Error::config("objective", "a decoder cannot predict hidden tokens; mlm needs an encoder"));
            }
            let mask_id = tokenizer.mask_id()?;
            let [(train, train_rows), (held_out, held_out_rows)] = data::texts(config, &shape, &tokenizer)?;
            let (model, fit) = LanguageModel::from_pretrained(&config.model, &device, Key::new(config.seed).fold(NEW_WEIGHTS))?;
            let masking = Masking {
                share: config.masking.share,
                whole_words: config.masking.whole_words,
                mask_id,
                vocab_size: shape.vocab_size,
            };
            let task = MaskedLanguage { config, masking, held_out, tokenizer: &tokenizer };
            let note = if fit.new.is_empty() { "" } else { "; the checkpoint has no head to predict tokens: a new one is trained" };
            fit_task(config, &task, model, &train, [train_rows, held_out_rows], note, out)
        }
        _ => unreachable!(),
    }
}

/// What the loop needs to know of a task.
trait Task {
    /// What is trained.
    type Model: Model;
    /// One training row.
    type Row;

    /// Tokens of a row.
    fn n_tokens(row: &Self::Row) -> usize;

    /// Adds the gradients of a batch to `updater`. Returns the summed loss and over how many items it is summed.
    fn add_gradients(&self, model: &Self::Model, rows: &[&Self::Row], key: Key, updater: &mut Updater) -> (f64, usize);

    /// What the run is judged by.
    fn evaluate(&self, model: &Self::Model) -> Evaluation;

    /// Writes the model's folder.
    fn save(&self, model: &Self::Model, folder: &Path) -> Result<()>;
}

struct MaskedLanguage<'a> {
    config: &'a ContrastiveConfig,
    masking: Masking,
    held_out: Vec<Text>,
    tokenizer: &'a Tokenizer,
}

impl Task for MaskedLanguage<'_> {
    type Model = LanguageModel;
    type Row = Text;

    fn n_tokens(row: &Text) -> usize {
        row.ids.len()
    }

    fn add_gradients(&self, model: &LanguageModel, rows: &[&Text], key: Key, updater: &mut Updater) -> (f64, usize) {
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let (mut loss_sum, mut n_items) = (0.0, 0);
        for part in parts(&all, &lengths, self.config.micro_batch_tokens) {
            let (batch, supervised) = self.masking.pack(&rows[part[0]..part[0] + part.len()], key.fold(HIDDEN_TOKENS), part[0]);
            let dropout = self.config.dropout.then(|| key.fold(DROPOUT).fold(part[0] as u64));
            let loss = masked_language_model::loss(model, &batch, &supervised, dropout);
            updater.add(model, loss.backward(), supervised.targets.len() as f64);
            loss_sum += f64::from(loss.into_scalar::<f32>());
            n_items += supervised.targets.len();
        }
        (loss_sum, n_items)
    }

    fn evaluate(&self, model: &LanguageModel) -> Evaluation {
        evaluate::masked_language_model(model, &self.held_out, &self.masking, self.config.seed)
    }

    fn save(&self, model: &LanguageModel, folder: &Path) -> Result<()> {
        model::save(model, self.tokenizer, folder)
    }
}

fn fit_task<T: Task>(
    config: &ContrastiveConfig,
    task: &T,
    mut model: T::Model,
    rows: &[T::Row],
    [train_rows, held_out_rows]: [Counts; 2],
    note: &str,
    out: &Path,
) -> Result<Summary> {
    let key = Key::new(config.seed).fold(STEPS);
    let epoch = |epoch: u64| by_rows(&order(rows.len(), config.seed.wrapping_add(epoch)), config.batch_rows);
    let batches: Vec<Vec<usize>> = (0..config.epochs as u64).flat_map(epoch).collect();
    let n_steps = batches.len();
    let mut run = Run::create(out, config, "contrastive", n_steps)?;
    run.note(&format!("training rows: {train_rows}; held out: {held_out_rows}{note}"));
    let before = task.evaluate(&model);
    let mut updater = Updater::new(config.update.clone(), n_steps);
    let start = run.elapsed_seconds();
    for (index, batch) in batches.iter().enumerate() {
        let step = index + 1;
        let batch: Vec<&T::Row> = batch.iter().map(|&index| &rows[index]).collect();
        let (loss_sum, n_items) = task.add_gradients(&model, &batch, key.fold(index as u64), &mut updater);
        let loss = loss_sum / n_items as f64;
        if !loss.is_finite() {
            return Err(Error::Diverged { step, what: "the loss".into() });
        }
        let stats;
        (model, stats) = updater.step(model)?;
        run.log(step, &[("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)])?;
        if run.interrupted() && step < n_steps {
            let path = out.join("interrupted");
            task.save(&model, &path)?;
            return Err(Error::Interrupted { step, path });
        }
    }
    let train_seconds = run.elapsed_seconds() - start;
    let after = task.evaluate(&model);
    let all = parameters(&model);
    let n_tokens = rows.iter().map(T::n_tokens).sum::<usize>() * config.epochs;
    let summary = Summary {
        before,
        after,
        train_rows,
        held_out_rows,
        n_trainable: all.iter().filter(|parameter| parameter.trainable).map(|parameter| parameter.len()).sum(),
        n_parameters: all.iter().map(|parameter| parameter.len()).sum(),
        n_steps,
        train_seconds,
        tokens_per_second: n_tokens as f64 / train_seconds,
    };
    drop(all);
    task.save(&model, &out.join("model"))?;
    run.finish(&summary)?;
    Ok(summary)
}
