//! From gradients to new weights: accumulation weighted by tokens, global-norm clipping, the schedule, and AdamW.

use crate::schedule::Schedule;
use burn::module::{Module, Param};
use burn::tensor::{Gradients, Tensor};
use kiln_core::parameters::{Change, Visit, change_parameters, parameters, visit_parameters};
use kiln_core::{Error, Result};
use kiln_data::source::in_range;
use kiln_kernels::accumulate::accumulate;
use kiln_kernels::adamw::{AdamW, adamw, sum_of_squares};
use kiln_kernels::quadratic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The settings of the update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateConfig {
    /// Peak learning rate. Default 5e-5, as transformers'.
    pub learning_rate: f64,
    /// How the learning rate falls. Default linear.
    pub schedule: Schedule,
    /// Share of the steps in which the learning rate rises. Default 0.
    pub warmup_share: f64,
    /// AdamW's β₁. Default 0.9.
    pub beta_1: f64,
    /// AdamW's β₂. Default 0.999.
    pub beta_2: f64,
    /// AdamW's ε. Default 1e-8.
    pub epsilon: f64,
    /// Decoupled weight decay. Default 0.01, as PyTorch's.
    pub weight_decay: f64,
    /// Last parts of the paths of parameters that do not decay. Default biases and the gains of norms.
    pub no_decay: Vec<String>,
    /// The largest global gradient norm; larger ones are scaled down to it, 0 never. Default 1.
    pub max_gradient_norm: f64,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            learning_rate: 5e-5,
            schedule: Schedule::Linear,
            warmup_share: 0.0,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            no_decay: vec!["bias".into(), "gain".into()],
            max_gradient_norm: 1.0,
        }
    }
}

impl UpdateConfig {
    /// Checks that the settings make sense; `section` is where they stand in the configuration.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self, section: &str) -> Result<()> {
        let in_range = |key: &str, value: f64, fits: bool, expected: &str| in_range(&format!("{section}.{key}"), value, fits, expected);
        in_range("learning_rate", self.learning_rate, self.learning_rate >= 0.0 && self.learning_rate.is_finite(), "0 or more")?;
        in_range("warmup_share", self.warmup_share, (0.0..=1.0).contains(&self.warmup_share), "0 to 1")?;
        in_range("beta_1", self.beta_1, (0.0..1.0).contains(&self.beta_1), "at least 0 and below 1")?;
        in_range("beta_2", self.beta_2, (0.0..1.0).contains(&self.beta_2), "at least 0 and below 1")?;
        in_range("epsilon", self.epsilon, self.epsilon > 0.0 && self.epsilon.is_finite(), "more than 0")?;
        in_range("weight_decay", self.weight_decay, self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "0 or more")?;
        in_range("max_gradient_norm", self.max_gradient_norm, self.max_gradient_norm >= 0.0, "0 or more")
    }
}

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// The learning rate used.
    pub learning_rate: f64,
    /// The global norm of the averaged gradient, before clipping.
    pub gradient_norm: f64,
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

/// The values off the tape, `[elements]`.
fn flat<const D: usize>(tensor: &Tensor<D>) -> Tensor<1> {
    let n_elements = tensor.shape().num_elements();
    tensor.clone().inner().reshape([n_elements])
}

/// Accumulates gradients and applies them.
#[derive(Debug)]
pub struct Updater {
    config: UpdateConfig,
    n_steps: usize,
    /// Updates done.
    step: usize,
    gradients: BTreeMap<String, Tensor<1>>,
    /// Sum of the weights of the accumulated losses, usually tokens.
    weight: f64,
    /// How often each parameter was updated, and the moments of its gradients.
    moments: BTreeMap<String, (usize, [Tensor<1>; 2])>,
    is_partial: bool,
}

impl Updater {
    /// An updater for a run of `n_steps` updates.
    pub fn new(config: UpdateConfig, n_steps: usize) -> Self {
        Self { config, n_steps, step: 0, gradients: BTreeMap::new(), weight: 0.0, moments: BTreeMap::new(), is_partial: false }
    }

    /// The same where the gradients of a step need not reach every parameter, as a batch of one task reaches no other's head. What they do
    /// not reach stays as it is.
    pub fn partial(self) -> Self {
        Self { is_partial: true, ..self }
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

    /// Applies the accumulated gradients and forgets them.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a gradient is not finite; [`Error::Config`] if nothing trains, or no gradient reached a parameter that should
    /// train.
    pub fn step<M: Module>(&mut self, model: M) -> Result<(M, StepStats)> {
        if self.step == 0 && !self.is_partial {
            self.check_reach(&model)?;
        }
        let squares: f64 = self.gradients.values().map(|gradient| sum_of_squares(gradient.clone())).sum();
        let gradient_norm = squares.sqrt() / self.weight;
        if !gradient_norm.is_finite() {
            return Err(Error::Diverged { step: self.step + 1, what: "the gradient norm".into() });
        }
        let limit = self.config.max_gradient_norm;
        // The epsilon is PyTorch's.
        let clip = if limit > 0.0 { (limit / (gradient_norm + 1e-6)).min(1.0) } else { 1.0 };
        let n_warmup_steps = (self.config.warmup_share * self.n_steps as f64).round() as usize;
        let learning_rate = self.config.learning_rate * self.config.schedule.share(self.step, self.n_steps, n_warmup_steps);
        self.step += 1;
        let update = AdamW {
            learning_rate,
            beta_1: self.config.beta_1,
            beta_2: self.config.beta_2,
            epsilon: self.config.epsilon,
            weight_decay: self.config.weight_decay,
            step: self.step,
            gradient_scale: clip / self.weight,
        };
        self.weight = 0.0;
        let model = change_parameters(model, &mut Apply { updater: self, update });
        Ok((model, StepStats { learning_rate, gradient_norm }))
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
    update: AdamW,
}

impl Change for Apply<'_> {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.updater.gradients.remove(path) else { return param };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let parameter = tensor.inner().reshape([shape.iter().product::<usize>()]);
        let zeros = || [0, 1].map(|_| parameter.zeros_like());
        let (n_earlier, [first, second]) = self.updater.moments.remove(path).unwrap_or_else(|| (0, zeros()));
        let decays = !self.updater.config.no_decay.iter().any(|part| path.rsplit('.').next() == Some(part));
        let weight_decay = if decays { self.update.weight_decay } else { 0.0 };
        let update = AdamW { weight_decay, step: n_earlier + 1, ..self.update };
        let [parameter, first, second] = adamw(parameter, gradient, first, second, &update);
        self.updater.moments.insert(path.to_owned(), (update.step, [first, second]));
        Param::from_mapped_value(id, Tensor::from_inner(parameter.reshape(shape)).require_grad(), mapper)
    }
}
