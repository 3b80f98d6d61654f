//! The feed-forward layer of a block, plain or gated.

use crate::Result;
use crate::builder::Builder;
use crate::config::ModelConfig;
use crate::linear::Linear;
use burn::module::Module;
use burn::tensor::Tensor;
use kiln_kernels::activation::{Activation, activate, gated};
use kiln_kernels::dropout::dropout;
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
    #[module(skip)]
    dropout: f32,
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
            dropout: config.feed_forward_dropout,
        })
    }

    /// `key` is the randomness of dropout, of the adapters' and of that before the last linear layer; `None` when not training.
    ///
    /// # Shapes
    /// `x` and the output: `[tokens, width]`.
    pub fn forward(&self, x: Tensor<2>, key: Option<Key>) -> Tensor<2> {
        let of = |place: u64| key.map(|key| key.fold(place));
        let gate = self.gate.as_ref().map(|gate| gate.forward_dropping(x.clone(), of(0)));
        let up = self.up.forward_dropping(x, of(1));
        if let Some(key) = of(3).filter(|_| self.dropout > 0.0) {
            let inner = match gate {
                Some(gate) => gated(gate, up, self.activation),
                None => activate(up, self.activation),
            };
            return self.down.forward_dropping(dropout(inner, self.dropout, key), of(2));
        }
        let (weight, bias, adapter) = self.down.operands(of(2));
        activated_linear(gate, up, self.activation, weight, bias, adapter)
    }
}
