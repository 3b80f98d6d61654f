//! The feed-forward layer of a block, plain or gated.

use crate::Result;
use crate::builder::Builder;
use crate::config::ModelConfig;
use crate::linear::Linear;
use burn::module::Module;
use burn::tensor::Tensor;
use kiln_kernels::activation::Activation;
use kiln_kernels::feed_forward::activated_linear;
use kiln_kernels::random::Key;

/// `down(act(up(x)))`, or gated `down(act(gate(x))·up(x))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Width to inner width, through the activation; only in gated layers.
    pub gate: Option<Linear>,
    /// Width to inner width.
    pub up: Linear,
    /// Inner width to width.
    pub down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// The layer whose parameters the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them.
    pub fn build(builder: &mut Builder, path: &str, config: &ModelConfig) -> Result<Self> {
        let (width, inner, bias) = (config.hidden_size, config.intermediate_size, config.feed_forward_bias);
        let mut linear =
            |name: &str, n_in, n_out| Linear::build(builder, &format!("{path}.{name}"), n_in, n_out, bias, config.initializer_range);
        Ok(Self {
            gate: config.gated.then(|| linear("gate", width, inner)).transpose()?,
            up: linear("up", width, inner)?,
            down: linear("down", inner, width)?,
            activation: config.activation,
        })
    }

    /// `key` is the randomness of the adapters' dropout; `None` when not training.
    ///
    /// # Shapes
    /// `x` and the output: `[tokens, width]`.
    pub fn forward(&self, x: Tensor<2>, key: Option<Key>) -> Tensor<2> {
        let of = |layer: u64| key.map(|key| key.fold(layer));
        let gate = self.gate.as_ref().map(|gate| gate.forward_dropping(x.clone(), of(0)));
        let (weight, bias, adapter) = self.down.operands(of(2));
        activated_linear(gate, self.up.forward_dropping(x, of(1)), self.activation, weight, bias, adapter)
    }
}
