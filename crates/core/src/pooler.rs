//! What an encoder's classifiers do to a pooled state before their output layer.

use crate::Result;
use crate::builder::{Builder, Init};
use crate::config::{ModelConfig, PoolerActivation, PoolerConfig};
use crate::linear::Linear;
use crate::norm::Norm;
use burn::tensor::Tensor;
use kiln_kernels::activation::activate;
use kiln_kernels::random::Key;

/// The linear layer and the normalisation of an encoder's pooler, started at random if the checkpoint lacks them; none in decoders.
///
/// # Errors
/// If the builder's checkpoint has them in another shape.
pub fn build(builder: &mut Builder, config: &ModelConfig) -> Result<(Option<Linear>, Option<Norm>)> {
    let Some(pooler) = &config.pooler else { return Ok((None, None)) };
    let (width, deviation) = (config.hidden_size, config.initializer_range);
    let linear = Linear::build_new(builder, "pooler", width, width, pooler.bias.then_some(Init::Zeros), deviation)?;
    let norm = pooler.norm.then(|| Norm::build_new(builder, "pooler_norm", width, config)).transpose()?;
    Ok((Some(linear), norm))
}

impl PoolerConfig {
    /// The layers of a pooler that train in full beside an adapter, and the output layer.
    pub fn new_heads(&self) -> &'static [&'static str] {
        match (self.in_trunk, self.norm) {
            (true, _) => &["classifier"],
            (false, false) => &["pooler", "classifier"],
            (false, true) => &["pooler", "pooler_norm", "classifier"],
        }
    }

    /// What the output layer reads. `key` is the randomness of an adapter's dropout; `None` when not training.
    ///
    /// # Shapes
    /// `hidden` and the output: `[items, width]`.
    pub fn forward(&self, linear: &Linear, norm: &Option<Norm>, hidden: Tensor<2>, key: Option<Key>) -> Tensor<2> {
        let x = linear.forward_dropping(hidden, key);
        let x = match self.activation {
            PoolerActivation::Tanh => x.tanh(),
            PoolerActivation::Inner(kind) => activate(x, kind),
        };
        match norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}
