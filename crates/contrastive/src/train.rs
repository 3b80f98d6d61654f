//! The training loop of masked language modelling and embedding tuning.

use crate::config::{ContrastiveConfig, Objective};
use crate::data::{self, Group, by_column};
use crate::evaluate::{self, Evaluation};
use crate::judge::{self, Judge};
use crate::objective::masked_language_model;
use crate::objective::multiple_negatives_ranking::{self, false_negatives};
use crate::objective::{cosent, gradient_cache, simcse, triplet};
use crate::plan;
use burn::tensor::{Device, Tensor};
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::{SentenceEncoder, SentenceHead};
use kiln_core::tokenizer::{Text, Tokenizer};
use kiln_core::{Error, Result, adapter};
use kiln_data::examples::Counts;
use kiln_data::masking::Masking;
use kiln_data::pack::{by_rows, parts};
use kiln_data::split::order;
use kiln_eval::figure::Difference;
use kiln_kernels::random::Key;
use kiln_train::checkpoint::ByName;
use kiln_train::effort::Effort;
use kiln_train::manifest::resumable;
use kiln_train::preflight::plan::{Goal, Outcome, Work};
use kiln_train::run::{Run, Start};
use kiln_train::updater::Updater;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a run achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The model as it came, on what was held out.
    pub before: Evaluation,
    /// The trained model, on the same.
    pub after: Evaluation,
    /// By how much each figure is larger after than before, with its paired interval.
    pub difference: Vec<Difference>,
    /// What became of the training rows.
    pub train_rows: Counts,
    /// What became of the held-out rows.
    pub held_out_rows: Counts,
    /// What training took.
    #[serde(flatten)]
    pub effort: Effort,
}

/// Streams of randomness that one seed feeds.
const NEW_WEIGHTS: u64 = 0;
const STEPS: u64 = 1;
const ADAPTER: u64 = 2;
/// And of one step.
const HIDDEN_TOKENS: u64 = 0;
const DROPOUT: u64 = 1;

/// Trains as `config` says and leaves the run in the folder `out`: `model/` (an adapter merged in), `adapter/` in PEFT's layout if there is
/// one, `config.toml`, `metrics.jsonl`, `results.json` and `report.html`.
///
/// # Errors
/// If the configuration, a file or a row is bad, training diverges, or the user interrupts it.
pub fn train(config: &ContrastiveConfig, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    Ok(start(config, device, Goal::Run(&Start::new(out)))?.achieved())
}

/// Goes on with the run in `folder` from its newest checkpoint, and stops as if interrupted after the step `until`. What the run leaves is
/// what it would have been without the break, but for the times.
///
/// # Errors
/// As [`train`]; if there is no run to go on with, or a file it reads was changed.
pub fn resume(folder: &Path, device: &Device, until: Option<usize>) -> Result<Summary> {
    Ok(start(&resumable::<ContrastiveConfig>(folder)?, device, Goal::Run(&Start::resumed(folder, until)))?.achieved())
}

/// A run, or the plan of one.
pub(crate) fn start(config: &ContrastiveConfig, device: &Device, goal: Goal<&Start>) -> Result<Outcome<Summary>> {
    let device = device.clone().autodiff();
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    match config.objective {
        Objective::Mlm => {
            if shape.causal {
                return Err(Error::config("objective", "a decoder cannot predict hidden tokens; mlm needs an encoder"));
            }
            let masking = Masking::new(&config.masking, &tokenizer, shape.vocab_size)?;
            let [(train, train_rows), (held_out, held_out_rows)] = data::texts(config, &shape, &tokenizer)?;
            let (model, from) = LanguageModel::from_pretrained(&config.model, &device, Key::new(config.seed).fold(NEW_WEIGHTS))?;
            let task = MaskedLanguage { config, masking, held_out, tokenizer: &tokenizer };
            let note = if from.new.is_empty() { "" } else { "; the checkpoint has no head to predict tokens: a new one is trained" };
            fit(config, &task, prepared(config, model, &device)?, (&train, [train_rows, held_out_rows]), note, &device, goal)
        }
        _ => {
            let max_tokens = SentenceHead::from_folder(&config.model, &shape)?.max_tokens;
            let (train, judge, counts) = judge::train_and_judge(config, &tokenizer, max_tokens)?;
            if config.objective == Objective::Simcse && !shape.has_dropout() {
                let message = "simcse learns from dropout, and config.json of the model sets none";
                return Err(Error::config("objective", message));
            }
            let (model, _) = SentenceEncoder::load(&config.model, &device)?;
            let task = Comparison { config, judge, tokenizer: &tokenizer };
            fit(config, &task, prepared(config, model, &device)?, (&train, counts), "", &device, goal)
        }
    }
}

/// The model as it is trained: with an adapter, if there is to be one.
fn prepared<M: Model>(config: &ContrastiveConfig, model: M, device: &Device) -> Result<M> {
    let mut model = match &config.adapter {
        Some(lora) => adapter::attach(model, lora, device, Key::new(config.seed).fold(ADAPTER))?,
        None => model,
    };
    model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    Ok(model)
}

/// What the loop needs to know of a task.
pub(crate) trait Task {
    /// What is trained.
    type Model: Model;
    /// One training row.
    type Row;

    /// Tokens of a row.
    fn n_tokens(row: &Self::Row) -> usize;

    /// The model's tokenizer.
    fn tokenizer(&self) -> &Tokenizer;

    /// The passes of a batch.
    fn works(&self, rows: &[&Self::Row]) -> Vec<Work>;

    /// What an evaluation reads.
    fn evaluated(&self) -> Work;

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

impl MaskedLanguage<'_> {
    /// A pass over texts, of whose tokens the head reads those that are hidden.
    fn masked(&self, lengths: Vec<usize>) -> Work {
        let n_tokens: usize = lengths.iter().sum();
        Work { n_rows: (n_tokens as f64 * self.config.masking.share).ceil() as usize, lengths }
    }
}

impl Task for MaskedLanguage<'_> {
    type Model = LanguageModel;
    type Row = Text;

    fn n_tokens(row: &Text) -> usize {
        row.ids.len()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.tokenizer
    }

    fn works(&self, rows: &[&Text]) -> Vec<Work> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let all: Vec<usize> = (0..rows.len()).collect();
        let work = |part: Vec<usize>| self.masked(part.iter().map(|&row| lengths[row]).collect());
        parts(&all, &lengths, self.config.micro_batch_tokens).into_iter().map(work).collect()
    }

    fn evaluated(&self) -> Work {
        self.masked(self.held_out.iter().map(|row| row.ids.len()).collect())
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
        model::save(model, self.tokenizer, folder)?;
        let from = &self.config.model;
        match SentenceHead::of_folder(from, model.config())? {
            Some(head) => head.save(model.config().hidden_size, from, folder),
            None => Ok(()),
        }
    }
}

struct Comparison<'a> {
    config: &'a ContrastiveConfig,
    judge: Judge,
    tokenizer: &'a Tokenizer,
}

impl Comparison<'_> {
    /// The texts of a batch, in the order of their vectors.
    fn texts<'a>(&self, rows: &[&'a Group]) -> Vec<&'a [u32]> {
        let columns = by_column(rows);
        if self.config.objective == Objective::Simcse { simcse::doubled(&columns) } else { columns }
    }

    /// Which texts share a pass.
    fn parts(&self, lengths: &[usize]) -> Vec<Vec<usize>> {
        let most_tokens = if self.config.objective == Objective::CachedMnrl { self.config.micro_batch_tokens } else { 0 };
        parts(&(0..lengths.len()).collect::<Vec<_>>(), lengths, most_tokens)
    }
}

/// A pass over texts, of which every token is read.
fn pooled(lengths: Vec<usize>) -> Work {
    Work { n_rows: lengths.iter().sum(), lengths }
}

impl Task for Comparison<'_> {
    type Model = SentenceEncoder;
    type Row = Group;

    fn n_tokens(row: &Group) -> usize {
        row.texts.iter().map(Vec::len).sum()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.tokenizer
    }

    fn works(&self, rows: &[&Group]) -> Vec<Work> {
        let lengths: Vec<usize> = self.texts(rows).iter().map(|text| text.len()).collect();
        self.parts(&lengths).into_iter().map(|part| pooled(part.iter().map(|&text| lengths[text]).collect())).collect()
    }

    fn evaluated(&self) -> Work {
        pooled(match &self.judge {
            Judge::Scores(pairs) => pairs.iter().flat_map(|pair| &pair.texts).map(Vec::len).collect(),
            Judge::Search(search) => search.documents.iter().chain(&search.queries).map(Vec::len).collect(),
        })
    }

    fn add_gradients(&self, model: &SentenceEncoder, rows: &[&Group], key: Key, updater: &mut Updater) -> (f64, usize) {
        let ContrastiveConfig { objective, scale, symmetric, margin, .. } = *self.config;
        let texts = self.texts(rows);
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let parts = self.parts(&lengths);
        let parts: Vec<Packed> = parts.iter().map(|part| Packed::new(part.iter().map(|&text| texts[text]))).collect();
        // CoSENT has one value for a batch of any size.
        let n_items = if objective == Objective::Cosent { 1 } else { rows.len() };
        let loss = |embeddings: Tensor<2>| match objective {
            Objective::Mlm => unreachable!("a language model is another task"),
            Objective::Mnrl | Objective::CachedMnrl => {
                multiple_negatives_ranking::loss(embeddings, rows.len(), &false_negatives(&texts, rows.len()), scale, symmetric)
            }
            Objective::Simcse => simcse::loss(embeddings, &texts, scale),
            Objective::Cosent => cosent::loss(embeddings, &rows.iter().map(|row| row.score).collect::<Vec<_>>(), scale),
            Objective::Triplet => triplet::loss(embeddings, margin),
        };
        let dropout = self.config.dropout.then(|| key.fold(DROPOUT));
        // The items count once for all parts.
        let mut weight = n_items as f64;
        let loss = gradient_cache::backward(model, &parts, dropout, loss, |gradients| {
            updater.add(model, gradients, std::mem::take(&mut weight));
        });
        (loss, n_items)
    }

    fn evaluate(&self, model: &SentenceEncoder) -> Evaluation {
        evaluate::encoder(model, &self.judge, self.config.seed)
    }

    fn save(&self, model: &SentenceEncoder, folder: &Path) -> Result<()> {
        model.save(self.tokenizer, &self.config.model, folder)
    }
}

/// What the loop carries from step to step, beside the weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// In the training loop, evaluation left out.
    train_seconds: f64,
}

fn fit<T: Task>(
    config: &ContrastiveConfig,
    task: &T,
    model: T::Model,
    (rows, counts): (&[T::Row], [Counts; 2]),
    note: &str,
    device: &Device,
    goal: Goal<&Start>,
) -> Result<Outcome<Summary>> {
    let key = Key::new(config.seed).fold(STEPS);
    let epoch = |epoch: u64| by_rows(&order(rows.len(), config.seed.wrapping_add(epoch)), config.batch_rows);
    let batches: Vec<Vec<usize>> = (0..config.epochs as u64).flat_map(epoch).collect();
    let n_steps = batches.len();
    let mut updater = Updater::new(config.update.clone(), n_steps);
    let model = updater.prepare(model, "update")?;
    let start = match goal {
        Goal::Plan => return plan::tried(config, task, model, (rows, &counts), &batches).map(Outcome::planned),
        Goal::Run(start) => start,
    };
    let told = if start.is_resumed() { Vec::new() } else { plan::check(config, task, &model, (rows, &counts), &batches)? };
    let mut run = Run::open(start, config, &config.about(device, n_steps))?;
    told.iter().for_each(|line| run.note(line));
    let [train_rows, held_out_rows] = counts;
    run.note(&format!("training rows: {train_rows}; held out: {held_out_rows}{note}"));
    let before = task.evaluate(&model);
    let mut model = run.restore(model, &mut updater)?;
    let loop_start = run.elapsed_seconds() - run.progress::<Progress>()?.train_seconds;
    for (index, batch) in batches.iter().enumerate().skip(run.step()) {
        let step = index + 1;
        let batch: Vec<&T::Row> = batch.iter().map(|&index| &rows[index]).collect();
        let (loss_sum, n_items) = task.add_gradients(&model, &batch, key.fold(index as u64), &mut updater);
        let loss = loss_sum / n_items as f64;
        let stats;
        (model, stats) = run.update(step, model, &mut updater, loss)?;
        run.log(step, &[("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)])?;
        if run.is_due(step) {
            let progress = Progress { train_seconds: run.elapsed_seconds() - loop_start };
            run.save(step, &model, &updater, &progress, &ByName::new())?;
        }
    }
    let train_seconds = run.elapsed_seconds() - loop_start;
    let model = updater.averaged(&model);
    let after = task.evaluate(&model);
    let n_tokens = rows.iter().map(T::n_tokens).sum::<usize>() * config.epochs;
    let summary = Summary {
        difference: after.minus(&before),
        before,
        after,
        train_rows,
        held_out_rows,
        effort: Effort::new(&model, [n_steps, updater.n_skipped()], n_tokens, train_seconds),
    };
    if let Some(lora) = &config.adapter {
        adapter::save(&model, lora, &config.model.to_string_lossy(), &run.folder().join("adapter"))?;
    }
    task.save(&model, &run.folder().join("model"))?;
    run.finish(&summary)?;
    Ok(Outcome::Run(summary))
}
