//! From gradients to new weights: accumulation weighted by tokens, global-norm clipping, the schedule, the optimizer, and the average.

use crate::groups::{GroupConfig, Groups, at, requiring};
use crate::guard::{Action, GuardConfig, Recent};
use crate::named::named;
use crate::optimizer::{Optimizer, Place, Step};
use crate::schedule::{Plateau, Schedule};
use burn::module::{Module, Param};
use burn::tensor::{Gradients, Tensor};
use kiln_core::parameters::{Change, Visit, change_parameters, parameters, visit_parameters};
use kiln_core::{Error, Result};
use kiln_data::source::in_range;
use kiln_kernels::accumulate::accumulate;
use kiln_kernels::adamw::sum_of_squares;
use kiln_kernels::average::average;
use kiln_kernels::quadratic;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The settings of the update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateConfig {
    /// Peak learning rate. Default 5e-5, as transformers'.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate rises. Default 0.
    pub warmup_share: f64,
    /// Weight decay. Default 0.01, as PyTorch's for AdamW.
    pub weight_decay: f64,
    /// Last parts of the paths of parameters that do not decay. Default biases and the gains of norms.
    pub no_decay: Vec<String>,
    /// The largest global gradient norm; larger ones are scaled down to it, 0 never. Default 1.
    pub max_gradient_norm: f64,
    /// How much of the moving average of the weights is kept in a step; the average is then what is evaluated and saved. 0 has none.
    /// Default 0.
    pub ema_decay: f64,
    /// How the learning rate falls, a name or a table with a name. Default linear.
    #[serde(deserialize_with = "named")]
    pub schedule: Schedule,
    /// What makes steps of gradients, a name or a table with a name. Default adamw.
    #[serde(deserialize_with = "named")]
    pub optimizer: Optimizer,
    /// When a step is not taken, and what happens then.
    pub guard: GuardConfig,
    /// Parameters that train otherwise than the rest, or not at all. Default none.
    pub groups: Vec<GroupConfig>,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            learning_rate: 5e-5,
            warmup_share: 0.0,
            weight_decay: 0.01,
            no_decay: vec!["bias".into(), "gain".into()],
            max_gradient_norm: 1.0,
            ema_decay: 0.0,
            schedule: Schedule::default(),
            optimizer: Optimizer::default(),
            guard: GuardConfig::default(),
            groups: Vec::new(),
        }
    }
}

impl UpdateConfig {
    /// Checks that the settings make sense; `section` is where they stand in the configuration, and the run may be `validated`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self, section: &str, validated: bool) -> Result<()> {
        if matches!(self.schedule, Schedule::Plateau { .. }) && !validated {
            let message = "\"plateau\" follows the validation loss, and this run is not validated";
            return Err(Error::config(format!("{section}.schedule"), message));
        }
        let in_range = |key: &str, value: f64, fits: bool, expected: &str| in_range(&format!("{section}.{key}"), value, fits, expected);
        in_range("learning_rate", self.learning_rate, self.learning_rate >= 0.0 && self.learning_rate.is_finite(), "0 or more")?;
        in_range("warmup_share", self.warmup_share, (0.0..=1.0).contains(&self.warmup_share), "0 to 1")?;
        in_range("weight_decay", self.weight_decay, self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "0 or more")?;
        let limit = self.max_gradient_norm;
        in_range("max_gradient_norm", limit, limit >= 0.0 && limit.is_finite(), "0 or more")?;
        in_range("ema_decay", self.ema_decay, (0.0..1.0).contains(&self.ema_decay), "at least 0 and below 1")?;
        self.schedule.validate(&format!("{section}.schedule"))?;
        self.optimizer.validate(&format!("{section}.optimizer"))?;
        self.guard.validate(&format!("{section}.guard"))?;
        self.groups.iter().enumerate().try_for_each(|(index, group)| group.validate(&at(section, index)))
    }
}

/// What one update did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepStats {
    /// The learning rate used.
    pub learning_rate: f64,
    /// The global norm of the averaged gradient, before clipping.
    pub gradient_norm: f64,
    /// Why the step was not taken, if so.
    pub trouble: Option<String>,
}

/// A quadratic penalty on the distance of parameters from where they were.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    /// Where they were, by path, each `[elements]`.
    pub anchor: &'a BTreeMap<String, Tensor<1>>,
    /// How much each counts, by path, for every path of the anchor; without it all count as 1.
    pub importance: Option<&'a BTreeMap<String, Tensor<1>>>,
    /// The factor of the penalty.
    pub strength: f64,
}

/// The values of every trainable parameter by path, each `[elements]`; nothing is copied before the model changes.
pub fn anchor<M: Module>(model: &M) -> BTreeMap<String, Tensor<1>> {
    struct Keep(BTreeMap<String, Tensor<1>>);

    impl Visit for Keep {
        fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
            if tensor.is_require_grad() {
                self.0.insert(path.to_owned(), flat(tensor));
            }
        }
    }

    let mut keep = Keep(BTreeMap::new());
    visit_parameters(model, &mut keep);
    keep.0
}

/// The model with the values of the parameters that `anchor` holds, which are trainable.
///
/// # Panics
/// If one has another number of elements.
pub fn put<M: Module>(model: M, anchor: &BTreeMap<String, Tensor<1>>) -> M {
    struct Put<'a>(&'a BTreeMap<String, Tensor<1>>);

    impl Change for Put<'_> {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(values) = self.0.get(path) else { return param };
            let (id, tensor, mapper) = param.consume();
            let values = values.clone().reshape(tensor.dims());
            Param::from_mapped_value(id, Tensor::from_inner(values).require_grad(), mapper)
        }
    }

    change_parameters(model, &mut Put(anchor))
}

/// The values off the tape, `[elements]`.
fn flat<const D: usize>(tensor: &Tensor<D>) -> Tensor<1> {
    let n_elements = tensor.shape().num_elements();
    tensor.clone().inner().reshape([n_elements])
}

/// What an updater remembers from one update to the next: with it and the weights another one goes on as if there had been no break.
#[derive(Clone, Debug, Default)]
pub struct UpdaterState {
    /// What is no tensor.
    pub numbers: Numbers,
    /// Of each parameter by path: how often it was updated, and what the optimizer keeps of its gradients, as many tensors as that needs;
    /// then its moving average, if there is one.
    pub moments: BTreeMap<String, (usize, Vec<Tensor<1>>)>,
}

/// What an updater remembers beside tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// Updates done, those not taken included.
    pub step: usize,
    /// What validations have made of the learning rate, where the schedule asks them.
    pub plateau: Plateau,
    /// What losses and gradient norms were like, where they are watched.
    pub recent: Recent,
}

/// Accumulates gradients and applies them.
#[derive(Debug)]
pub struct Updater {
    config: UpdateConfig,
    n_steps: usize,
    state: UpdaterState,
    gradients: BTreeMap<String, Tensor<1>>,
    /// Sum of the weights of the accumulated losses, usually tokens.
    weight: f64,
    is_partial: bool,
    /// Steps of the run before this updater's first.
    first_step: usize,
    /// What `prepare` froze.
    frozen: BTreeSet<String>,
    /// How each parameter moves that trains, by path; empty before the first step.
    courses: BTreeMap<String, Course>,
}

/// How a parameter moves.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// The peak of its learning rate.
    peak: f64,
    weight_decay: f64,
}

impl Updater {
    /// An updater for a run of `n_steps` updates.
    pub fn new(config: UpdateConfig, n_steps: usize) -> Self {
        Self {
            config,
            n_steps,
            state: UpdaterState::default(),
            gradients: BTreeMap::new(),
            weight: 0.0,
            is_partial: false,
            first_step: 0,
            frozen: BTreeSet::new(),
            courses: BTreeMap::new(),
        }
    }

    /// The same where the gradients of a step need not reach every parameter, as a batch of one task reaches no other's head. What they do
    /// not reach stays as it is.
    pub fn partial(self) -> Self {
        Self { is_partial: true, ..self }
    }

    /// The same for an updater whose first step follows so many others of its run.
    pub fn after(self, first_step: usize) -> Self {
        Self { first_step, ..self }
    }

    /// Steps of the run before this updater's first.
    pub fn first_step(&self) -> usize {
        self.first_step
    }

    /// Whether the weights are to go back to a checkpoint when a step is not taken.
    pub fn rolls_back(&self) -> bool {
        self.config.guard.action == Action::RollBack
    }

    /// Steps that were not taken.
    pub fn n_skipped(&self) -> usize {
        self.state.numbers.recent.n_skipped
    }

    /// The model as it trains: with the parameters frozen that the groups of the settings freeze, so that no gradient is computed for them.
    /// `section` is where the settings stand in the configuration.
    ///
    /// # Errors
    /// [`Error::Config`] naming a group whose pattern finds none of the parameters that train.
    pub fn prepare<M: Module>(&mut self, model: M, section: &str) -> Result<M> {
        let (model, frozen) = Groups::new(&self.config.groups, section)?.freeze(model, section)?;
        self.frozen = frozen;
        Ok(model)
    }

    /// The model as it is to be evaluated and kept: with the moving averages of its parameters, where the settings ask for them.
    pub fn averaged<M: Module>(&self, model: &M) -> M {
        struct Average<'a>(&'a Updater);

        impl Change for Average<'_> {
            fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some((_, moments)) = self.0.state.moments.get(path) else { return param };
                let average = moments.last().expect("the average comes last").clone();
                let (id, tensor, mapper) = param.consume();
                Param::from_mapped_value(id, Tensor::from_inner(average.reshape(tensor.dims())).require_grad(), mapper)
            }
        }

        let model = model.clone();
        if self.config.ema_decay > 0.0 { change_parameters(model, &mut Average(self)) } else { model }
    }

    /// The model after the last update: averaged, if the settings ask for it, and with what `prepare` froze training again.
    pub fn finished<M: Module>(&self, model: M) -> M {
        requiring(self.averaged(&model), &self.frozen, true)
    }

    /// Tells the schedule a validation loss.
    pub fn validated(&mut self, loss: f64) {
        self.state.numbers.plateau.validated(&self.config.schedule, loss);
    }

    /// What it remembers from one update to the next.
    pub fn state(&self) -> &UpdaterState {
        &self.state
    }

    /// Goes on from where another updater of the same run was.
    pub fn restore(&mut self, state: UpdaterState) {
        self.state = state;
    }

    /// Adds the gradients of a loss that is a sum over `weight` items (tokens, rows): the update divides by the sum of all weights, so that
    /// it does not depend on how a batch was cut into parts.
    pub fn add<M: Module>(&mut self, model: &M, gradients: Gradients, weight: f64) {
        self.add_by_path(by_path(model, gradients), weight);
    }

    /// The same for gradients that were taken out by path.
    pub fn add_by_path(&mut self, gradients: BTreeMap<String, Tensor<1>>, weight: f64) {
        for (path, gradient) in gradients {
            let sum = match self.gradients.remove(&path) {
                Some(earlier) => accumulate(earlier, gradient),
                None => gradient,
            };
            self.gradients.insert(path, sum);
        }
        self.weight += weight;
    }

    /// Adds to the averaged loss the penalty `½·strength·Σ importance·(θ − anchor)²` over the parameters that `pull` holds and gradients
    /// have reached, by its gradient. Call it after all of a batch was added. Returns the penalty.
    pub fn pull<M: Module>(&mut self, model: &M, pull: &Pull<'_>) -> f64 {
        struct Add<'a> {
            pull: &'a Pull<'a>,
            scale: f64,
            gradients: &'a mut BTreeMap<String, Tensor<1>>,
            squares: f64,
        }

        impl Visit for Add<'_> {
            fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
                let Some(anchor) = self.pull.anchor.get(path) else { return };
                let Some(gradient) = self.gradients.remove(path) else { return };
                let importance = self.pull.importance.map(|importance| importance[path].clone());
                let (gradient, squares) = quadratic::pull(gradient, flat(tensor), anchor.clone(), importance, self.scale);
                self.gradients.insert(path.to_owned(), gradient);
                self.squares += squares;
            }
        }

        // What is accumulated is a sum, which the update divides by the weight.
        let scale = pull.strength * self.weight;
        let mut add = Add { pull, scale, gradients: &mut self.gradients, squares: 0.0 };
        visit_parameters(model, &mut add);
        0.5 * pull.strength * add.squares
    }

    /// Applies the accumulated gradients, those of the mean loss `loss`, and forgets them. If the loss or a gradient is not finite, or a spike,
    /// the model stays as it is, and the settings say whether that is an error.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the step cannot be taken and that ends the run; [`Error::Config`] if nothing trains, or no gradient reached a
    /// parameter that should train.
    pub fn step<M: Module>(&mut self, model: M, loss: f64) -> Result<(M, StepStats)> {
        if self.courses.is_empty() {
            if !self.is_partial {
                self.check_reach(&model)?;
            }
            self.courses = self.courses(&model)?;
        }
        let squares: f64 = self.gradients.values().map(|gradient| sum_of_squares(gradient.clone())).sum();
        let gradient_norm = squares.sqrt() / self.weight;
        let (step, plateau) = (self.state.numbers.step, self.state.numbers.plateau);
        let n_warmup_steps = (self.config.warmup_share * self.n_steps as f64).round() as usize;
        let share = self.config.schedule.share(step, self.n_steps, n_warmup_steps) * plateau.share;
        let learning_rate = self.config.learning_rate * share;
        self.state.numbers.step += 1;
        let weight = std::mem::take(&mut self.weight);
        if let Some(trouble) = self.state.numbers.recent.trouble(loss, gradient_norm, &self.config.guard) {
            self.gradients.clear();
            if self.config.guard.action == Action::Stop || self.state.numbers.recent.is_hopeless() {
                return Err(Error::Diverged { step: step + 1, what: trouble });
            }
            return Ok((model, StepStats { learning_rate, gradient_norm, trouble: Some(trouble) }));
        }
        let limit = self.config.max_gradient_norm;
        // The epsilon is PyTorch's.
        let clip = if limit > 0.0 { (limit / (gradient_norm + 1e-6)).min(1.0) } else { 1.0 };
        let model = change_parameters(model, &mut Apply { updater: self, share, gradient_scale: clip / weight });
        Ok((model, StepStats { learning_rate, gradient_norm, trouble: None }))
    }

    /// How each parameter moves.
    fn courses<M: Module>(&self, model: &M) -> Result<BTreeMap<String, Course>> {
        let UpdateConfig { learning_rate, weight_decay, no_decay, groups, .. } = &self.config;
        let groups = Groups::new(groups, "update")?;
        let course = |path: &str| {
            let decays = !no_decay.iter().any(|part| path.rsplit('.').next() == Some(part));
            let usual = Course { peak: *learning_rate, weight_decay: if decays { *weight_decay } else { 0.0 } };
            groups.of(path).map_or(usual, |group| Course {
                peak: group.learning_rate.unwrap_or(learning_rate * group.learning_rate_factor.unwrap_or(1.0)),
                weight_decay: group.weight_decay.unwrap_or(usual.weight_decay),
            })
        };
        Ok(parameters(model).into_iter().map(|parameter| (parameter.path.clone(), course(&parameter.path))).collect())
    }

    fn check_reach<M: Module>(&self, model: &M) -> Result<()> {
        let parameters = parameters(model);
        if !parameters.iter().any(|parameter| parameter.trainable) {
            return Err(Error::config("model", "every parameter is frozen: nothing would be trained"));
        }
        match parameters.iter().find(|parameter| parameter.trainable && !self.gradients.contains_key(&parameter.path)) {
            Some(parameter) => {
                Err(Error::config("model", format!("no gradient reaches parameter {}: it would never be trained", parameter.path)))
            }
            None => Ok(()),
        }
    }
}

/// The gradients of the parameters of `model`, flat, by path; parameters without one are left out.
pub fn by_path<M: Module>(model: &M, mut gradients: Gradients) -> BTreeMap<String, Tensor<1>> {
    struct Take<'a> {
        from: &'a mut Gradients,
        into: BTreeMap<String, Tensor<1>>,
    }

    impl Visit for Take<'_> {
        fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
            let Some(gradient) = tensor.grad_remove(self.from) else { return };
            let n_elements = gradient.shape().num_elements();
            self.into.insert(path.to_owned(), gradient.reshape([n_elements]));
        }
    }

    let mut take = Take { from: &mut gradients, into: BTreeMap::new() };
    visit_parameters(model, &mut take);
    take.into
}

struct Apply<'a> {
    updater: &'a mut Updater,
    /// Of the peak of the learning rate.
    share: f64,
    gradient_scale: f64,
}

impl Change for Apply<'_> {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.updater.gradients.remove(path) else { return param };
        let UpdateConfig { optimizer, ema_decay, .. } = &self.updater.config;
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let place = Place { path, shape: &shape };
        let parameter = tensor.inner().reshape([shape.iter().product::<usize>()]);
        let (n_earlier, mut state) = self.updater.state.moments.remove(path).unwrap_or_default();
        let earlier_average = if *ema_decay > 0.0 { state.pop() } else { None };
        if n_earlier == 0 {
            state = optimizer.state(place).into_iter().map(|n| Tensor::zeros([n], &parameter.device())).collect();
        }
        let Course { peak, weight_decay } = self.updater.courses[path];
        let (step, gradient_scale) = (n_earlier + 1, self.gradient_scale);
        let update = Step { learning_rate: peak * self.share, weight_decay, gradient_scale, step };
        let (parameter, mut state) = optimizer.update(place, parameter, gradient, state, update);
        if *ema_decay > 0.0 {
            // The first average is the parameter after its first update.
            state.push(match earlier_average {
                Some(earlier) => average(earlier, parameter.clone(), *ema_decay),
                None => parameter.clone() * 1.0,
            });
        }
        self.updater.state.moments.insert(path.to_owned(), (step, state));
        Param::from_mapped_value(id, Tensor::from_inner(parameter.reshape(shape)).require_grad(), mapper)
    }
}
