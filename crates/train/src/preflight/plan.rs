//! What a run would do and take: the findings, and a forecast of memory and time.

use super::memory::{Memory, Pass, Training};
use super::time::{Time, Timed, forecast};
use super::work::{self, Gradients};
use super::{Finding, machine, settle};
use crate::updater::{UpdateConfig, Updater};
use burn::module::Module;
use kiln_core::adapter::LoraConfig;
use kiln_core::config::ModelConfig;
use kiln_core::parameters::counts;
use kiln_core::{Error, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What a run would do and take.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// What is probably not meant.
    pub findings: Vec<Finding>,
    /// Updates.
    pub n_steps: usize,
    /// Rows that train, and rows held out.
    pub n_rows: [usize; 2],
    /// Tokens of all updates.
    pub n_tokens: usize,
    /// Parameters that train, and all.
    pub n_parameters: [usize; 2],
    /// The most memory.
    pub memory: Memory,
    /// The most memory that the updates of the trial held; `None` where that is not known, or the trial would not have fitted.
    pub trial_peak: Option<usize>,
    /// The time, from the trial.
    pub time: Option<Time>,
}

/// What is to come of a run's settings: what `R` starts, or a plan of it.
#[derive(Clone, Copy, Debug)]
pub enum Goal<R> {
    /// The run.
    Run(R),
    /// Its plan.
    Plan,
}

/// What came of a run's settings.
#[derive(Clone, Debug)]
pub enum Outcome<S> {
    /// What the run achieved.
    Run(S),
    /// The plan of it.
    Plan(Box<Plan>),
}

impl<S> Outcome<S> {
    /// A plan.
    pub fn planned(plan: Plan) -> Self {
        Self::Plan(Box::new(plan))
    }

    /// What the run achieved.
    ///
    /// # Panics
    /// If it was only planned.
    pub fn achieved(self) -> S {
        match self {
            Self::Run(summary) => summary,
            Self::Plan(_) => unreachable!("the goal was a run"),
        }
    }

    /// The plan.
    ///
    /// # Panics
    /// If the run was made.
    pub fn plan(self) -> Plan {
        match self {
            Self::Plan(plan) => *plan,
            Self::Run(_) => unreachable!("the goal was a plan"),
        }
    }
}

/// A forward pass of a batch, or of a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Tokens that the head reads.
    pub n_rows: usize,
}

/// What a run computes.
#[derive(Clone, Debug)]
pub struct Course<'a> {
    /// The model's shape.
    pub shape: &'a ModelConfig,
    /// What the head says of a token or a sequence: the vocabulary, or classes.
    pub n_outputs: usize,
    /// The update.
    pub update: &'a UpdateConfig,
    /// The adapter that trains, if not all weights do.
    pub adapter: Option<&'a LoraConfig>,
    /// Whether blocks are computed again in the backward pass.
    pub gradient_checkpointing: bool,
    /// The setting that cuts batches into parts, if there is one.
    pub micro_batch_key: Option<&'a str>,
    /// The parts of each update.
    pub updates: Vec<Vec<Work>>,
    /// Whether the gradients of an update need not reach every parameter.
    pub is_partial: bool,
    /// Copies of the parameters that train which the method keeps, such as a reference.
    pub n_copies: usize,
    /// What an evaluation reads.
    pub evaluation: Work,
    /// Evaluations of a run.
    pub n_evaluations: usize,
}

/// Tokens per forward pass of an evaluation.
const EVALUATION_TOKENS: usize = crate::evaluate::BATCH_TOKENS;

/// Rounds of a trial that are timed, at most.
const MOST_ROUNDS: usize = 3;
/// After this long one round has to do.
const LONG_TRIAL: Duration = Duration::from_secs(2);

impl Course<'_> {
    fn gflop(&self, work: &Work, gradients: Gradients) -> f64 {
        work::trunk(self.shape, &work.lengths, work.n_rows, gradients)
            + work::head(self.shape.hidden_size, self.n_outputs, work.n_rows, gradients)
    }

    fn gradients(&self) -> Gradients {
        self.adapter.map_or(Gradients::All, |lora| Gradients::Adapters { rank: lora.rank })
    }

    /// The work of each update, GFLOP.
    fn updates(&self) -> Vec<f64> {
        let again = |work: &Work| if self.gradient_checkpointing { self.gflop(work, Gradients::None) } else { 0.0 };
        self.updates.iter().map(|parts| parts.iter().map(|work| self.gflop(work, self.gradients()) + again(work)).sum()).collect()
    }

    /// The forecast of the run's memory, and whether the machine has that much.
    pub fn memory(&self, model: &impl Module) -> (Memory, Option<Finding>) {
        let [n_trainable, n_parameters] = counts(model);
        let training = Training {
            shape: self.shape,
            n_trainable,
            n_parameters,
            n_moments: self.update.optimizer.n_remembered(model),
            is_averaged: self.update.ema_decay > 0.0,
            rank: self.adapter.map_or(0, |lora| lora.rank),
            n_outputs: self.n_outputs,
            gradient_checkpointing: self.gradient_checkpointing,
            n_copies: self.n_copies,
        };
        let pass = |(index, work): (usize, &Work)| Pass { n_tokens: work.lengths.iter().sum(), n_rows: work.n_rows, adds: index > 0 };
        let passes = self.updates.iter().flat_map(|parts| parts.iter().enumerate().map(pass));
        let longest = self.evaluation.lengths.iter().max().copied().unwrap_or(0);
        let evaluated = self.evaluation.lengths.iter().sum::<usize>().min(EVALUATION_TOKENS.max(longest));
        let memory = training.memory(passes, evaluated);
        let finding = memory.check(&training, self.micro_batch_key);
        (memory, finding)
    }

    /// Looks at a run before its first step. Returns what the user is to be told.
    ///
    /// # Errors
    /// If a finding stops the run, and it is not `force`d.
    pub fn check(&self, model: &impl Module, mut findings: Vec<Finding>, force: bool) -> Result<Vec<String>> {
        findings.extend(self.memory(model).1);
        settle(findings, force)
    }

    /// The plan of the run, of a model of which nothing is frozen yet. `add` adds the gradients of the update at an index, as the run's loop does: one of middling size and the largest
    /// are tried, if they fit the machine.
    ///
    /// # Errors
    /// If training diverges or cannot begin.
    pub fn plan<M: Module>(
        &self,
        model: M,
        mut findings: Vec<Finding>,
        n_rows: [usize; 2],
        mut add: impl FnMut(&M, usize, &mut Updater),
    ) -> Result<Plan> {
        let updater = Updater::new(self.update.clone(), self.updates.len());
        let mut updater = if self.is_partial { updater.partial() } else { updater };
        let model = updater.prepare(model, "update")?;
        let (memory, too_much) = self.memory(&model);
        let n_parameters = counts(&model);
        let updates = self.updates();
        let time = match too_much {
            Some(_) => None,
            None => Some(self.trial(model, updater, &updates, &mut add)?),
        };
        let trial_peak = time.and_then(|_| machine::peak_bytes());
        findings.extend(too_much);
        findings.sort_by_key(|finding| finding.severity);
        let n_tokens = self.updates.iter().flatten().flat_map(|work| &work.lengths).sum();
        Ok(Plan { findings, n_steps: updates.len(), n_rows, n_tokens, n_parameters, memory, trial_peak, time })
    }

    fn trial<M: Module>(
        &self,
        mut model: M,
        mut updater: Updater,
        updates: &[f64],
        add: &mut impl FnMut(&M, usize, &mut Updater),
    ) -> Result<Time> {
        let mut by_size: Vec<usize> = (0..updates.len()).collect();
        by_size.sort_by(|&a, &b| updates[a].total_cmp(&updates[b]).then(a.cmp(&b)));
        let (Some(&middling), Some(&largest)) = (by_size.get(updates.len() / 2), by_size.last()) else {
            return Err(Error::config("epochs", "no update to make"));
        };
        let mut timed = [middling, largest].map(|index| Timed { gflop: updates[index], seconds: 0.0 });
        let (began, mut n_rounds) = (Instant::now(), 0_u32);
        // The first round fetches memory that the later ones find.
        for round in 0..=MOST_ROUNDS {
            for (place, index) in [(1, largest), (0, middling)] {
                let start = Instant::now();
                add(&model, index, &mut updater);
                // The loss is for guards, which have nothing to compare it with here.
                (model, _) = updater.step(model, 0.0)?;
                if round > 0 {
                    timed[place].seconds += start.elapsed().as_secs_f64();
                }
            }
            if round > 0 {
                n_rounds += 1;
                if began.elapsed() > LONG_TRIAL {
                    break;
                }
            }
        }
        timed.iter_mut().for_each(|timed| timed.seconds /= f64::from(n_rounds));
        let evaluation = self.gflop(&self.evaluation, Gradients::None);
        Ok(forecast(timed, updates, &vec![evaluation; self.n_evaluations]))
    }
}
