//! The training loop of masked language modelling and embedding tuning.

use crate::config::{ContrastiveConfig, Objective};
use crate::data::{self, Group, by_column};
use crate::evaluate::{self, Evaluation};
use crate::judge::{self, Judge};
use crate::objective::masked_language_model;
use crate::objective::multiple_negatives_ranking::{self, false_negatives};
use crate::objective::{cosent, gradient_cache, simcse, triplet};
use crate::plan;
use burn::module::Module;
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
use kiln_data::source::{Rows, counted};
use kiln_data::store::Sequence;
use kiln_eval::figure::Difference;
use kiln_kernels::random::Key;
use kiln_train::checkpoint::ByName;
use kiln_train::effort::Effort;
use kiln_train::manifest::resumable;
use kiln_train::preflight::plan::{Goal, Outcome, Work};
use kiln_train::run::{Run, Start};
use kiln_train::updater::Updater;
use kiln_train::validation::{Criterion, Found, ValidationSummary, Validator, best_and_others, epoch_ends};
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
    /// What came of validating it, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationSummary>,
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
            let mut rows = data::texts(config, &shape, &tokenizer)?;
            let held_out = std::mem::take(&mut rows.held_out);
            let (model, from) = LanguageModel::from_pretrained(&config.model, &device, Key::new(config.seed).fold(NEW_WEIGHTS))?;
            let task = MaskedLanguage { config, masking, held_out, tokenizer: &tokenizer };
            let note = if from.new.is_empty() { "" } else { "; the checkpoint has no head to predict tokens: a new one is trained" };
            fit(config, &task, prepared(config, model, &device)?, &rows, note, &device, goal)
        }
        _ => {
            let max_tokens = SentenceHead::from_folder(&config.model, &shape)?.max_tokens;
            let (rows, judge) = judge::train_and_judge(config, &tokenizer, max_tokens)?;
            if config.objective == Objective::Simcse && !shape.has_dropout() {
                let message = "simcse learns from dropout, and config.json of the model sets none";
                return Err(Error::config("objective", message));
            }
            let (model, _) = SentenceEncoder::load(&config.model, &device)?;
            let task = Comparison { config, judge, tokenizer: &tokenizer };
            fit(config, &task, prepared(config, model, &device)?, &rows, "", &device, goal)
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
    type Row: Clone + Sequence;

    /// The model's tokenizer.
    fn tokenizer(&self) -> &Tokenizer;

    /// The passes of a batch.
    fn works(&self, rows: &[&Self::Row]) -> Vec<Work>;

    /// What an evaluation reads.
    fn evaluated(&self) -> Work;

    /// Adds the gradients of a batch to `updater`. Returns the summed loss and over how many items it is summed.
    fn add_gradients(&self, model: &Self::Model, rows: &[&Self::Row], key: Key, updater: &mut Updater) -> (f64, usize);

    /// The mean loss over rows that are not learnt from, the same at every call; the items of the loss are those of a batch.
    fn loss(&self, model: &Self::Model, rows: &[&Self::Row]) -> f64;

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

    fn loss(&self, model: &LanguageModel, rows: &[&Text]) -> f64 {
        evaluate::masked_loss(model, rows, &self.masking, self.config.seed)
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

    /// The texts of each pass.
    fn packed(&self, texts: &[&[u32]]) -> Vec<Packed> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        self.parts(&lengths).iter().map(|part| Packed::new(part.iter().map(|&text| texts[text]))).collect()
    }

    /// Over how many items the loss of a batch is summed: CoSENT has one value for a batch of any size.
    fn n_items(&self, rows: &[&Group]) -> usize {
        if self.config.objective == Objective::Cosent { 1 } else { rows.len() }
    }

    /// The summed loss of a batch, `[1]`, whose `texts` have these embeddings.
    fn loss_of(&self, embeddings: Tensor<2>, rows: &[&Group], texts: &[&[u32]]) -> Tensor<1> {
        let ContrastiveConfig { objective, scale, symmetric, margin, .. } = *self.config;
        match objective {
            Objective::Mlm => unreachable!("a language model is another task"),
            Objective::Mnrl | Objective::CachedMnrl => {
                multiple_negatives_ranking::loss(embeddings, rows.len(), &false_negatives(texts, rows.len()), scale, symmetric)
            }
            Objective::Simcse => simcse::loss(embeddings, texts, scale),
            Objective::Cosent => cosent::loss(embeddings, &rows.iter().map(|row| row.score).collect::<Vec<_>>(), scale),
            Objective::Triplet => triplet::loss(embeddings, margin),
        }
    }
}

/// A pass over texts, of which every token is read.
fn pooled(lengths: Vec<usize>) -> Work {
    Work { n_rows: lengths.iter().sum(), lengths }
}

impl Task for Comparison<'_> {
    type Model = SentenceEncoder;
    type Row = Group;

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
        let texts = self.texts(rows);
        let parts = self.packed(&texts);
        let dropout = self.config.dropout.then(|| key.fold(DROPOUT));
        // The items count once for all parts.
        let n_items = self.n_items(rows);
        let mut weight = n_items as f64;
        let loss = |embeddings| self.loss_of(embeddings, rows, &texts);
        let loss = gradient_cache::backward(model, &parts, dropout, loss, |gradients| {
            updater.add(model, gradients, std::mem::take(&mut weight));
        });
        (loss, n_items)
    }

    /// In batches as large as those that train, which decide what a text is compared with. What simcse learns from is dropout, so it has it
    /// here too.
    fn loss(&self, model: &SentenceEncoder, rows: &[&Group]) -> f64 {
        let plain = model.clone().valid();
        let dropout = (self.config.objective == Objective::Simcse).then(|| Key::new(self.config.seed).fold(DROPOUT));
        let (mut loss_sum, mut n_items) = (0.0, 0);
        for (index, batch) in rows.chunks(self.config.batch_rows).enumerate() {
            let texts = self.texts(batch);
            let key = |part: usize| dropout.map(|key| key.fold(index as u64).fold(part as u64));
            let embedded = self.packed(&texts).iter().enumerate().map(|(part, packed)| plain.encode(packed, key(part))).collect();
            loss_sum += f64::from(self.loss_of(Tensor::cat(embedded, 0), batch, &texts).into_scalar::<f32>());
            n_items += self.n_items(batch);
        }
        loss_sum / n_items as f64
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
    /// What validations found.
    validation: Found,
}

fn fit<T: Task>(
    config: &ContrastiveConfig,
    task: &T,
    model: T::Model,
    rows: &Rows<T::Row>,
    note: &str,
    device: &Device,
    goal: Goal<&Start>,
) -> Result<Outcome<Summary>> {
    let key = Key::new(config.seed).fold(STEPS);
    let epoch = |epoch: u64| by_rows(&rows.train.order(config.seed, epoch), config.batch_rows);
    let epochs: Vec<Vec<Vec<usize>>> = (0..config.epochs as u64).map(epoch).collect();
    let epoch_ends = epoch_ends(0, epochs.iter().map(Vec::len));
    let batches = epochs.concat();
    let n_steps = batches.len();
    let start = match goal {
        Goal::Plan => return plan::tried(config, task, model, rows, &batches).map(Outcome::planned),
        Goal::Run(start) => start,
    };
    let mut updater = Updater::new(config.update.clone(), n_steps);
    let model = updater.prepare(model, "update")?;
    let told = if start.is_resumed() { Vec::new() } else { plan::check(config, task, &model, rows, &batches)? };
    let mut run = Run::open(start, config, &config.about(device, n_steps))?;
    rows.notes.iter().chain(&told).for_each(|line| run.note(line));
    run.note(&format!("{}{note}", counted(&rows.counts, rows.validation.len())));
    let before = task.evaluate(&model);
    let mut model = run.restore(model, &mut updater)?;
    let Progress { train_seconds, validation } = run.progress()?;
    let validator = Validator::new(&config.validation, Criterion::Loss, rows.validation.len(), epoch_ends);
    let [best, _] = best_and_others(run.carried(&device.clone().inner())?);
    let mut validator = validator.restored(validation, best);
    let validation_rows: Vec<&T::Row> = rows.validation.iter().collect();
    let mut loop_start = run.elapsed_seconds() - train_seconds;
    let mut n_done = run.step();
    for (index, batch) in batches.iter().enumerate().skip(run.step()) {
        if validator.is_over() {
            break;
        }
        let step = index + 1;
        let batch = rows.train.pick(batch)?;
        let batch: Vec<&T::Row> = batch.iter().map(|row| &**row).collect();
        let (loss_sum, n_items) = task.add_gradients(&model, &batch, key.fold(index as u64), &mut updater);
        let loss = loss_sum / n_items as f64;
        let stats;
        (model, stats) = run.update(step, model, &mut updater, loss)?;
        run.log(step, &[("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)])?;
        n_done = step;
        loop_start += validator.validate(step, &model, &mut updater, &mut run, |model| Ok(task.loss(model, &validation_rows)))?;
        if run.is_due(step) {
            let progress = Progress { train_seconds: run.elapsed_seconds() - loop_start, validation: validator.found().clone() };
            run.save(step, &model, &updater, &progress, &validator.carried(&ByName::new()))?;
        }
    }
    let train_seconds = run.elapsed_seconds() - loop_start;
    let model = validator.kept(updater.averaged(&model));
    let validation = validator.summary(rows.train.len(), config.seed, |some| {
        Ok(task.loss(&model, &rows.train.pick(some)?.iter().map(|row| &**row).collect::<Vec<_>>()))
    })?;
    let after = task.evaluate(&model);
    let lengths = rows.train.lengths();
    let n_tokens = batches[..n_done].iter().flatten().map(|&row| lengths[row]).sum();
    let summary = Summary {
        difference: after.minus(&before),
        before,
        after,
        train_rows: rows.counts[0],
        held_out_rows: rows.counts[1],
        validation,
        effort: Effort::new(&model, [n_done, updater.n_skipped()], n_tokens, train_seconds),
    };
    if let Some(lora) = &config.adapter {
        adapter::save(&model, lora, &config.model.to_string_lossy(), &run.folder().join("adapter"))?;
    }
    task.save(&model, &run.folder().join("model"))?;
    run.finish(&summary)?;
    Ok(Outcome::Run(summary))
}
