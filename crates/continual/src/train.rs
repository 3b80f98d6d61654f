//! The training loop of continual learning.

use crate::budget::{Verdict, largest_share};
use crate::config::{ContinualConfig, FisherLabels, Objective as Kind};
use crate::data::{Corpus, MaskedTokens, NextToken, Objective, Reader, corpora, picked};
use crate::evaluate::{Matrix, Point, Transfer, mean_loss, rise};
use crate::judges::Judges;
use crate::merge::save_head;
use crate::objective::ewc::{self, Importance};
use crate::objective::{l2_sp, lwf, wise_ft};
use crate::plan;
use crate::replay::{self, RowId};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::parameters::counts;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result, adapter};
use kiln_data::examples::Counts;
use kiln_data::masking::Masking;
use kiln_data::pack::{by_rows, parts};
use kiln_data::source::counted;
use kiln_data::split::order;
use kiln_data::store::Sequence as _;
use kiln_kernels::random::Key;
use kiln_train::checkpoint::ByName;
use kiln_train::effort::Effort;
use kiln_train::manifest::resumable;
use kiln_train::preflight::plan::{Goal, Outcome};
use kiln_train::run::{Run, Start};
use kiln_train::updater::{Pull, Updater, anchor};
use kiln_train::validation::{Criterion, Found, ValidationSummary, Validator, best_and_others, epoch_ends};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a run achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The perplexity of held-out rows of each corpus at each point of the stream.
    pub matrix: Matrix,
    /// What the domains did to each other.
    pub transfer: Transfer,
    /// What became of the budget, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Verdict>,
    /// What became of the lines of each corpus.
    pub corpora: Vec<CorpusCounts>,
    /// What came of validating each domain while it was learnt, if the run was validated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<DomainValidation>,
    /// What training took; replayed tokens count.
    #[serde(flatten)]
    pub effort: Effort,
}

/// What came of validating a domain while it was learnt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DomainValidation {
    /// Its name.
    pub domain: String,
    /// What came of it.
    #[serde(flatten)]
    pub summary: ValidationSummary,
}

/// What became of the lines of a corpus.
#[derive(Clone, Debug, Serialize)]
pub struct CorpusCounts {
    /// Its name.
    pub name: String,
    /// Of the training lines.
    pub train: Counts,
    /// Of the held-out lines.
    pub held_out: Counts,
}

/// Streams of randomness that one seed feeds.
const NEW_WEIGHTS: u64 = 0;
const ADAPTER: u64 = 1;
const STEPS: u64 = 2;
const REPLAY: u64 = 3;
const FISHER: u64 = 4;
/// And of one step.
const HIDDEN_TOKENS: u64 = 0;
const DROPOUT: u64 = 1;

/// Trains as `config` says and leaves the run in the folder `out`: `model/` in Hugging Face layout, for several domains the model after each
/// but the last in `stages/`, adapters in `adapters/`, and what every run leaves (see [`kiln_train::run`]).
///
/// # Errors
/// If the configuration, a file or a row is bad, training diverges, the budget is not met ([`Error::Unmet`]; the model is then in
/// `over-budget/`), or the user interrupts it.
pub fn train(config: &ContinualConfig, device: &Device, out: &Path) -> Result<Summary> {
    config.validate()?;
    Ok(start(config, device, Goal::Run(&Start::new(out)))?.achieved())
}

/// Goes on with the run in `folder` from its newest checkpoint, and stops as if interrupted after the step `until`. What the run leaves is
/// what it would have been without the break, but for the times.
///
/// # Errors
/// As [`train`]; if there is no run to go on with, or a file it reads was changed.
pub fn resume(folder: &Path, device: &Device, until: Option<usize>) -> Result<Summary> {
    Ok(start(&resumable::<ContinualConfig>(folder)?, device, Goal::Run(&Start::resumed(folder, until)))?.achieved())
}

/// What to do with a model and its rows, whatever is predicted.
pub(crate) trait Purpose {
    /// What comes of it.
    type Outcome;

    /// Does it. The first `n_general` of the corpora are general text.
    fn pursue<O: Objective>(
        self,
        config: &ContinualConfig,
        objective: &O,
        model: LanguageModel,
        tokenizer: &Tokenizer,
        corpora: (Vec<Corpus<O::Row>>, usize),
        device: &Device,
    ) -> Result<Self::Outcome>;
}

/// A run, or the plan of one.
impl Purpose for Goal<&Start> {
    type Outcome = Outcome<Summary>;

    fn pursue<O: Objective>(
        self,
        config: &ContinualConfig,
        objective: &O,
        model: LanguageModel,
        tokenizer: &Tokenizer,
        corpora: (Vec<Corpus<O::Row>>, usize),
        device: &Device,
    ) -> Result<Self::Outcome> {
        fit(config, objective, model, tokenizer, corpora, device, self)
    }
}

/// Reads the model and the rows of `config`, for `purpose`.
pub(crate) fn start<P: Purpose>(config: &ContinualConfig, device: &Device, purpose: P) -> Result<P::Outcome> {
    let device = device.clone().autodiff();
    let shape = ModelConfig::from_folder(&config.model)?;
    let tokenizer = Tokenizer::for_model(&config.model, &shape)?;
    let reader = Reader::new(config, &shape, &tokenizer)?;
    match config.objective {
        Kind::NextToken => {
            if !shape.causal {
                return Err(Error::config("objective", "an encoder cannot predict the next token; set objective to \"mlm\""));
            }
            let objective = NextToken(reader);
            let corpora = corpora(config, &objective)?;
            let (model, _) = LanguageModel::load(&config.model, &device)?;
            purpose.pursue(config, &objective, model, &tokenizer, corpora, &device)
        }
        Kind::Mlm => {
            if shape.causal {
                return Err(Error::config("objective", "a decoder cannot predict hidden tokens; set objective to \"next-token\""));
            }
            let masking = Masking::new(&config.masking, &tokenizer, shape.vocab_size)?;
            let objective = MaskedTokens(reader, masking);
            let corpora = corpora(config, &objective)?;
            let new_weights = Key::new(config.seed).fold(NEW_WEIGHTS);
            let (model, from) = LanguageModel::from_pretrained(&config.model, &device, new_weights)?;
            check_head(config, &from.new)?;
            purpose.pursue(config, &objective, model, &tokenizer, corpora, &device)
        }
    }
}

/// What a model without a head predicts is noise, to which nothing should be held.
fn check_head(config: &ContinualConfig, new: &[String]) -> Result<()> {
    let Some(name) = new.first() else { return Ok(()) };
    let held =
        [("budget", config.budget.is_some()), ("ewc.strength", config.ewc.strength > 0.0), ("lwf.strength", config.lwf.strength > 0.0)];
    match held.into_iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((key, _)) => {
            let message = format!("needs a model that predicts tokens already, and the checkpoint lacks {name:?}: train it first without");
            Err(Error::config(key, message))
        }
    }
}

fn fit<O: Objective>(
    config: &ContinualConfig,
    objective: &O,
    mut model: LanguageModel,
    tokenizer: &Tokenizer,
    (corpora, n_general): (Vec<Corpus<O::Row>>, usize),
    device: &Device,
    goal: Goal<&Start>,
) -> Result<Outcome<Summary>> {
    let course = Course { config, objective, tokenizer, corpora: &corpora, n_general };
    let judges = Judges::new(config, objective, &corpora, n_general)?;
    let plans: Vec<Vec<Vec<RowId>>> = (n_general..corpora.len()).map(|domain| course.updates(domain)).collect();
    let n_steps = plans.iter().map(Vec::len).sum();
    let start = match goal {
        Goal::Plan => return plan::tried(config, objective, model, tokenizer, &corpora, &plans.concat(), device).map(Outcome::planned),
        Goal::Run(start) => start,
    };
    let told = match start.is_resumed() {
        true => Vec::new(),
        false => plan::check(config, objective, &model, tokenizer, &corpora, &plans.concat(), device)?,
    };
    let mut run = Run::open(start, config, &config.about(device, n_steps))?;
    let out = start.folder();
    config.canaries.write(out)?;
    told.iter().for_each(|line| run.note(line));
    for Corpus { name, rows } in &corpora {
        rows.notes.iter().for_each(|line| run.note(line));
        run.note(&format!("{name}: {}", counted(&rows.counts, rows.validation.len())));
    }
    model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    let base = if config.budget.is_some() { anchor(&model) } else { BTreeMap::new() };
    let probe_before = judges.probe(&model);
    let mut progress: Progress = run.progress()?;
    let [mut best, importances] = best_and_others(run.carried(&device.clone().inner())?);
    let mut importance = Importance(importances);
    if run.step() == 0 {
        course.measure("start", &model, &judges, &mut progress, &mut run)?;
        if config.ewc.strength > 0.0 && n_general > 0 {
            importance.add(course.fisher(&model, 0)?, config.ewc.decay);
        }
    }
    if progress.stage > 0 {
        (model, _) = LanguageModel::load(&stage_folder(out, &corpora[n_general + progress.stage - 1].name), device)?;
        model.trunk_mut().set_gradient_checkpointing(config.gradient_checkpointing)?;
    }
    for (stage, batches) in plans.iter().enumerate().skip(progress.stage) {
        let (domain, name) = (n_general + stage, &corpora[n_general + stage].name);
        if progress.stage < stage {
            (progress.stage, progress.first_step, progress.validation) = (stage, progress.step, Found::default());
            progress.begins = true;
        }
        if let Some(lora) = &config.adapter {
            model = adapter::attach(model, lora, device, Key::new(config.seed).fold(ADAPTER).fold(stage as u64))?;
        }
        model = course.learn(model, domain, batches, &importance, std::mem::take(&mut best), &judges, &mut progress, &mut run)?;
        if let Some(lora) = &config.adapter {
            let from = if stage == 0 { config.model.clone() } else { stage_folder(out, &corpora[domain - 1].name) };
            adapter::save(&model, lora, &from.to_string_lossy(), &out.join("adapters").join(name))?;
            model = adapter::merge(model)?;
        }
        course.measure(name, &model, &judges, &mut progress, &mut run)?;
        if stage + 1 < plans.len() {
            course.save(&model, &stage_folder(out, name))?;
            if config.ewc.strength > 0.0 {
                importance.add(course.fisher(&model, domain)?, config.ewc.decay);
            }
        }
    }
    let mut budget = None;
    if let Some(allowed) = config.budget {
        let at = |alpha| wise_ft::between(&base, model.clone(), alpha);
        let (kept, probe_rise) = largest_share(allowed, |alpha| rise(&probe_before, &judges.probe(&at(alpha)), config.seed));
        if kept < 1.0 {
            model = at(kept);
            course.measure("budget", &model, &judges, &mut progress, &mut run)?;
        }
        let [first, last] = [progress.points.first(), progress.points.last()].map(|point| &point.expect("the start").losses[0]);
        let rise = rise(first, last, config.seed);
        budget = Some(Verdict::new(allowed, kept, probe_rise, rise));
    }
    let mut matrix = Matrix::new(corpora.iter().map(|corpus| corpus.name.clone()).collect(), n_general, config.seed);
    progress.points.into_iter().for_each(|Point { after, losses }| matrix.add(&after, losses));
    let counts = |corpus: &Corpus<O::Row>| {
        let [train, held_out, _] = corpus.rows.counts;
        CorpusCounts { name: corpus.name.clone(), train, held_out }
    };
    let summary = Summary {
        transfer: matrix.transfer(),
        matrix,
        budget,
        corpora: corpora.iter().map(counts).collect(),
        validation: progress.validations,
        // Adapters are merged by now.
        effort: Effort {
            n_trainable: progress.n_trainable,
            ..Effort::new(&model, [progress.step, progress.n_skipped], progress.n_tokens, progress.seconds)
        },
    };
    let is_met = summary.budget.as_ref().is_none_or(|verdict| verdict.met);
    course.save(&model, &out.join(if is_met { "model" } else { "over-budget" }))?;
    run.finish(&summary)?;
    summary.budget.as_ref().map_or(Ok(()), |verdict| verdict.check(out))?;
    Ok(Outcome::Run(summary))
}

/// What was done so far.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// The domain that is being learnt, from 0.
    stage: usize,
    /// Whether it is about to begin, and is not gone on with.
    #[serde(skip)]
    begins: bool,
    /// Steps before it.
    first_step: usize,
    step: usize,
    n_tokens: usize,
    n_trainable: usize,
    /// Steps of the domains before this one that were left out.
    n_skipped: usize,
    /// In the training loop, evaluation left out.
    seconds: f64,
    /// What validations found of the domain that is being learnt.
    validation: Found,
    /// What was measured of the stream.
    points: Vec<Point>,
    /// What came of validating the domains before.
    validations: Vec<DomainValidation>,
}

/// What a run learns from.
struct Course<'a, O: Objective> {
    config: &'a ContinualConfig,
    objective: &'a O,
    tokenizer: &'a Tokenizer,
    /// General text, if there is any, and then the domains.
    corpora: &'a [Corpus<O::Row>],
    n_general: usize,
}

impl<O: Objective> Course<'_, O> {
    /// Adds a point of the stream to the progress, and to the run's metrics.
    fn measure(&self, after: &str, model: &LanguageModel, judges: &Judges<'_, O>, progress: &mut Progress, run: &mut Run) -> Result<()> {
        let losses = judges.report(model);
        run.log(progress.step, &judges.curve(&losses))?;
        progress.points.push(Point { after: after.to_owned(), losses });
        Ok(())
    }

    /// Learns one domain, by the updates `batches`; `best` are the best weights found so far, where it was begun before.
    #[expect(clippy::too_many_arguments, reason = "what a run carries from domain to domain")]
    fn learn(
        &self,
        mut model: LanguageModel,
        domain: usize,
        batches: &[Vec<RowId>],
        importance: &Importance,
        best: ByName,
        judges: &Judges<'_, O>,
        progress: &mut Progress,
        run: &mut Run,
    ) -> Result<LanguageModel> {
        let ContinualConfig { ewc, l2_sp, lwf, .. } = self.config;
        // The model as it stands before the domain.
        let teacher = (lwf.strength > 0.0).then(|| model.clone().valid());
        let anchor = if ewc.strength > 0.0 || l2_sp.strength > 0.0 { anchor(&model) } else { BTreeMap::new() };
        let weighted = if ewc.strength > 0.0 { importance.pull(&anchor, ewc.strength) } else { None };
        let alike = (l2_sp.strength > 0.0).then(|| l2_sp::pull(&anchor, l2_sp.strength));
        let pulls: Vec<Pull<'_>> = weighted.into_iter().chain(alike).collect();
        let is_held = teacher.is_some() || !pulls.is_empty();
        let mut updater = Updater::new(self.config.update.clone(), batches.len()).after(progress.first_step);
        model = updater.prepare(model, "update")?;
        [progress.n_trainable, _] = counts(&model);
        let corpus = &self.corpora[domain];
        let per_epoch = corpus.rows.train.epoch_len().div_ceil(self.config.batch_rows);
        let ends = epoch_ends(progress.first_step, batches.chunks(per_epoch).map(<[_]>::len));
        let validator = Validator::new(&self.config.validation, Criterion::Loss, corpus.rows.validation.len(), ends);
        let mut validator = validator.restored(progress.validation.clone(), best);
        let validation_rows: Vec<&O::Row> = corpus.rows.validation.iter().collect();
        let loss_of = |model: &LanguageModel, rows: &[&O::Row]| Ok(mean_loss(model, self.objective, rows, self.config.seed));
        // A checkpoint of the last step of the domain before has nothing of this one.
        if std::mem::take(&mut progress.begins) {
            // A domain begins: the one before, with its importances and evaluations, need not be learnt again.
            run.save(progress.step, &model, &updater, progress, &importance.0)?;
        } else {
            model = run.restore(model, &mut updater)?;
        }
        let mut start = run.elapsed_seconds();
        for batch in &batches[progress.step - progress.first_step..] {
            if validator.is_over() {
                break;
            }
            progress.step += 1;
            let step = progress.step;
            let key = Key::new(self.config.seed).fold(STEPS).fold(step as u64);
            let rows = picked(self.corpora, batch)?;
            let rows: Vec<&O::Row> = rows.iter().map(|row| &**row).collect();
            let lengths: Vec<usize> = rows.iter().map(|row| row.n_tokens()).collect();
            let (mut loss_sum, mut held_sum, mut n_items) = (0.0, 0.0, 0);
            for part in parts(&(0..rows.len()).collect::<Vec<_>>(), &lengths, self.config.micro_batch_tokens) {
                let (packed, supervised) = self.objective.pack(&rows[part[0]..part[0] + part.len()], key.fold(HIDDEN_TOKENS), part[0]);
                let head =
                    model.output_head(&packed, &supervised.rows, self.config.dropout.then(|| key.fold(DROPOUT).fold(part[0] as u64)));
                let loss = LanguageModel::head_loss(head.clone(), &supervised, 0.0);
                let held = teacher.as_ref().map(|teacher| {
                    let before = teacher.output_head(&packed, &supervised.rows, None);
                    lwf::penalty(head, before, lwf.strength, lwf.temperature)
                });
                let total = held.iter().fold(loss.clone(), |sum, held| sum + held.clone());
                updater.add(&model, total.backward(), supervised.targets.len() as f64);
                loss_sum += f64::from(loss.into_scalar::<f32>());
                held_sum += held.map_or(0.0, |held| f64::from(held.into_scalar::<f32>()));
                n_items += supervised.targets.len();
            }
            let loss = loss_sum / n_items as f64;
            let penalty = held_sum / n_items as f64 + pulls.iter().map(|pull| updater.pull(&model, pull)).sum::<f64>();
            let stats;
            (model, stats) = run.update(step, model, &mut updater, loss + penalty)?;
            progress.n_tokens += lengths.iter().sum::<usize>();
            let mut values = vec![("loss", loss), ("learning_rate", stats.learning_rate), ("gradient_norm", stats.gradient_norm)];
            values.extend(is_held.then_some(("penalty", penalty)));
            run.log(step, &values)?;
            if self.config.evaluate_every > 0 && step.is_multiple_of(self.config.evaluate_every) {
                progress.seconds += run.elapsed_seconds() - start;
                run.log(step, &judges.curve(&judges.report(&updater.averaged(&model))))?;
                start = run.elapsed_seconds();
            }
            start += validator.validate(step, &model, &mut updater, run, |model| loss_of(model, &validation_rows))?;
            progress.validation = validator.found().clone();
            if run.is_due(step) {
                progress.seconds += run.elapsed_seconds() - start;
                start = run.elapsed_seconds();
                run.save(step, &model, &updater, progress, &validator.carried(&importance.0))?;
            }
        }
        progress.seconds += run.elapsed_seconds() - start;
        progress.n_skipped += updater.n_skipped();
        let model = validator.kept(updater.finished(model));
        let summary = validator.summary(corpus.rows.n_own(), self.config.seed, |some| {
            loss_of(&model, &corpus.rows.train.pick(some)?.iter().map(|row| &**row).collect::<Vec<_>>())
        })?;
        progress.validations.extend(summary.map(|summary| DomainValidation { domain: corpus.name.clone(), summary }));
        Ok(model)
    }

    /// The rows of each update of a domain, those replayed last.
    fn updates(&self, domain: usize) -> Vec<Vec<RowId>> {
        let Self { config, corpora, n_general, .. } = *self;
        let stage = domain - n_general;
        let epoch = |epoch: usize| {
            let epoch = (stage * config.epochs + epoch) as u64;
            by_rows(&corpora[domain].rows.train.order(config.seed, epoch), config.batch_rows)
        };
        let batches: Vec<Vec<usize>> = (0..config.epochs).flat_map(epoch).collect();
        let sources: Vec<(usize, usize)> = corpora[..domain].iter().map(|corpus| corpus.rows.n_own()).enumerate().collect();
        replay::plan(&batches, domain, &sources, config.replay.share, Key::new(config.seed).fold(REPLAY).fold(stage as u64))
    }

    /// The Fisher information over some training rows of a corpus.
    fn fisher(&self, model: &LanguageModel, corpus: usize) -> Result<ewc::ByPath> {
        let (rows, ewc) = (&self.corpora[corpus].rows, &self.config.ewc);
        let key = Key::new(self.config.seed).fold(FISHER).fold(corpus as u64);
        let chosen: Vec<usize> = order(rows.n_own(), key.bits(0)).into_iter().take(ewc.rows).collect();
        let plain = model.clone().valid();
        let chosen = rows.train.pick(&chosen)?;
        let example = |(index, row): (usize, &Cow<'_, O::Row>)| {
            let key = key.fold(index as u64);
            let (packed, mut supervised) = self.objective.pack(&[&**row], key, 0);
            if ewc.labels == FisherLabels::Model {
                supervised = ewc::sampled(&plain, &packed, &supervised, key);
            }
            (model.loss(&packed, &supervised, None), supervised.targets.len())
        };
        Ok(ewc::fisher(model, chosen.iter().enumerate().map(example)))
    }

    /// Writes a model's folder, with what makes a sentence encoder of it if it came as one.
    fn save(&self, model: &LanguageModel, folder: &Path) -> Result<()> {
        model::save(model, self.tokenizer, folder)?;
        save_head(model.config(), &self.config.model, folder)
    }
}

/// Where the model after a domain of several is kept.
fn stage_folder(out: &Path, name: &str) -> PathBuf {
    out.join("stages").join(name)
}
