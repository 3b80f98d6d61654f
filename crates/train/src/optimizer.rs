//! What turns the gradient of a parameter into its change, and what each optimizer remembers.

use burn::module::Module;
use burn::tensor::Tensor;
use kiln_core::Result;
use kiln_core::parameters::{Parameter, parameters};
use kiln_data::source::in_range;
use kiln_kernels::adafactor::{Adafactor, adafactor_matrix, adafactor_vector};
use kiln_kernels::adamw::{AdamW, adamw};
use kiln_kernels::lion::{Lion, lion};
use kiln_kernels::muon::{Muon, muon};
use kiln_kernels::sgd::{Sgd, sgd};
use serde::{Deserialize, Serialize};

/// An optimizer with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    Adamw(AdamwConfig),
    /// Squared gradients by row and column: the memory of a few vectors instead of two models.
    Adafactor(AdafactorConfig),
    /// The sign of the momentum: one model's memory.
    Lion(LionConfig),
    /// Orthogonal momentum for the matrices inside blocks, AdamW for everything else.
    Muon(MuonConfig),
    /// Gradient descent with momentum.
    Sgd(SgdConfig),
}

/// AdamW's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamwConfig {
    /// β₁, decay of the mean gradient. Default 0.9.
    pub beta_1: f64,
    /// β₂, decay of the mean squared gradient. Default 0.999.
    pub beta_2: f64,
    /// ε, added to the root. Default 1e-8.
    pub epsilon: f64,
}

/// Adafactor's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdafactorConfig {
    /// γ: the mean squared gradient decays by 1 − t^γ. Default -0.8.
    pub decay_rate: f64,
    /// ε₁, added to squared gradients. Default 1e-30.
    pub epsilon: f64,
    /// d, the largest root mean square of a step before the learning rate. Default 1.
    pub clip_threshold: f64,
    /// Whether the learning rate is relative to a parameter's root mean square, at least 1e-3. Default false, as for transformers' trainer.
    pub scale_parameter: bool,
}

/// Lion's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LionConfig {
    /// β₁, how much the momentum counts in the direction. Default 0.9.
    pub beta_1: f64,
    /// β₂, decay of the momentum. Default 0.99.
    pub beta_2: f64,
}

/// Muon's settings, with those of AdamW for what is no matrix inside a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MuonConfig {
    /// μ, decay of the momentum. Default 0.95.
    pub momentum: f64,
    /// AdamW's β₁. Default 0.9.
    pub beta_1: f64,
    /// AdamW's β₂. Default 0.999.
    pub beta_2: f64,
    /// AdamW's ε. Default 1e-8.
    pub epsilon: f64,
}

/// The settings of gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// μ, decay of the momentum; 0 remembers nothing. Default 0.9.
    pub momentum: f64,
    /// Whether the gradient is taken where the momentum leads. Default false.
    pub nesterov: bool,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::Adamw(AdamwConfig::default())
    }
}

impl Default for AdamwConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 }
    }
}

impl Default for AdafactorConfig {
    fn default() -> Self {
        Self { decay_rate: -0.8, epsilon: 1e-30, clip_threshold: 1.0, scale_parameter: false }
    }
}

impl Default for LionConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.99 }
    }
}

impl Default for MuonConfig {
    fn default() -> Self {
        let AdamwConfig { beta_1, beta_2, epsilon } = AdamwConfig::default();
        Self { momentum: 0.95, beta_1, beta_2, epsilon }
    }
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false }
    }
}

/// ε₂ of Adafactor: the least scale of a parameter, as in the paper.
const LEAST_SCALE: f64 = 1e-3;

/// A parameter as an optimizer needs to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a str,
    pub(crate) shape: &'a [usize],
}

impl Place<'_> {
    /// The extents of a matrix.
    fn matrix(&self) -> Option<[usize; 2]> {
        self.shape.try_into().ok()
    }

    /// Those of a matrix inside a block: no embedding and no head, which the authors of Muon leave to AdamW.
    fn hidden_matrix(&self) -> Option<[usize; 2]> {
        self.matrix().filter(|_| self.path.split('.').any(|part| part == "layers"))
    }
}

/// What one update of a parameter needs beside the optimizer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    /// The factor of the gradient: averaging and clipping in one.
    pub(crate) gradient_scale: f64,
    /// Updates of the parameter including this one.
    pub(crate) step: usize,
}

impl Optimizer {
    /// Checks that the settings make sense; `section` is where they stand in the configuration.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        let decay =
            |key: &str, value: f64| in_range(&format!("{section}.{key}"), value, (0.0..1.0).contains(&value), "at least 0 and below 1");
        let positive =
            |key: &str, value: f64| in_range(&format!("{section}.{key}"), value, value > 0.0 && value.is_finite(), "more than 0");
        match *self {
            Self::Adamw(AdamwConfig { beta_1, beta_2, epsilon }) => {
                decay("beta_1", beta_1)?;
                decay("beta_2", beta_2)?;
                positive("epsilon", epsilon)
            }
            Self::Adafactor(AdafactorConfig { decay_rate, epsilon, clip_threshold, scale_parameter: _ }) => {
                in_range(&format!("{section}.decay_rate"), decay_rate, decay_rate < 0.0 && decay_rate.is_finite(), "less than 0")?;
                positive("epsilon", epsilon)?;
                positive("clip_threshold", clip_threshold)
            }
            Self::Lion(LionConfig { beta_1, beta_2 }) => {
                decay("beta_1", beta_1)?;
                decay("beta_2", beta_2)
            }
            Self::Muon(MuonConfig { momentum, beta_1, beta_2, epsilon }) => {
                decay("momentum", momentum)?;
                decay("beta_1", beta_1)?;
                decay("beta_2", beta_2)?;
                positive("epsilon", epsilon)
            }
            Self::Sgd(SgdConfig { momentum, nesterov: _ }) => decay("momentum", momentum),
        }
    }

    /// The elements of each tensor that is remembered of a parameter, all 0 before its first update.
    pub(crate) fn state(&self, place: Place<'_>) -> Vec<usize> {
        let n_elements = place.shape.iter().product();
        match self {
            Self::Adamw(_) => vec![n_elements; 2],
            Self::Adafactor(_) => place.matrix().map_or_else(|| vec![n_elements], |[rows, columns]| vec![rows, columns]),
            Self::Lion(_) | Self::Sgd(_) => vec![n_elements],
            Self::Muon(_) => vec![n_elements; if place.hidden_matrix().is_some() { 1 } else { 2 }],
        }
    }

    /// How many numbers are remembered of all parameters of `model` that train.
    pub(crate) fn n_remembered(&self, model: &impl Module) -> usize {
        let of = |parameter: &Parameter| self.state(Place { path: &parameter.path, shape: &parameter.shape });
        parameters(model).iter().filter(|parameter| parameter.trainable).flat_map(of).sum()
    }

    /// The parameter and what is remembered of it after an update, in place where the caller holds the only handles.
    pub(crate) fn update(
        &self,
        place: Place<'_>,
        parameter: Tensor<1>,
        gradient: Tensor<1>,
        state: Vec<Tensor<1>>,
        Step { learning_rate, weight_decay, gradient_scale, step }: Step,
    ) -> (Tensor<1>, Vec<Tensor<1>>) {
        let of_adamw = |beta_1, beta_2, epsilon| AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay, step, gradient_scale };
        match *self {
            Self::Adamw(AdamwConfig { beta_1, beta_2, epsilon }) => {
                let [first, second] = tensors(state);
                taken(adamw(parameter, gradient, first, second, &of_adamw(beta_1, beta_2, epsilon)))
            }
            Self::Adafactor(AdafactorConfig { decay_rate, epsilon, clip_threshold, scale_parameter }) => {
                let least_scale = scale_parameter.then_some(LEAST_SCALE);
                let update =
                    Adafactor { learning_rate, decay_rate, epsilon, clip_threshold, least_scale, weight_decay, step, gradient_scale };
                match place.matrix() {
                    Some(_) => taken(adafactor_matrix(parameter, gradient, tensors(state), &update)),
                    None => {
                        let [squares] = tensors(state);
                        taken(adafactor_vector(parameter, gradient, squares, &update))
                    }
                }
            }
            Self::Lion(LionConfig { beta_1, beta_2 }) => {
                let [momentum] = tensors(state);
                taken(lion(parameter, gradient, momentum, &Lion { learning_rate, beta_1, beta_2, weight_decay, gradient_scale }))
            }
            Self::Muon(MuonConfig { momentum: decay, beta_1, beta_2, epsilon }) => match place.hidden_matrix() {
                Some(shape) => {
                    let [momentum] = tensors(state);
                    let update = Muon { learning_rate, momentum: decay, weight_decay, gradient_scale };
                    taken(muon(parameter, gradient, momentum, shape, &update))
                }
                None => {
                    let [first, second] = tensors(state);
                    taken(adamw(parameter, gradient, first, second, &of_adamw(beta_1, beta_2, epsilon)))
                }
            },
            Self::Sgd(SgdConfig { momentum: decay, nesterov }) => {
                let [momentum] = tensors(state);
                let update = Sgd { learning_rate, momentum: decay, nesterov, weight_decay, gradient_scale };
                taken(sgd(parameter, gradient, momentum, &update))
            }
        }
    }
}

/// What is remembered, as its update takes it.
fn tensors<const N: usize>(state: Vec<Tensor<1>>) -> [Tensor<1>; N] {
    state.try_into().unwrap_or_else(|state: Vec<_>| panic!("{} tensors are remembered, expected {N}", state.len()))
}

/// The parameter, and what is remembered.
fn taken<const N: usize>(updated: [Tensor<1>; N]) -> (Tensor<1>, Vec<Tensor<1>>) {
    let mut updated = Vec::from(updated).into_iter();
    (updated.next().expect("a parameter"), updated.collect())
}
