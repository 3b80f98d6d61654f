//! The normalisation layer: RMSNorm or LayerNorm.

use crate::Result;
use crate::builder::{Builder, Init};
use crate::config::{ModelConfig, NormKind};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_kernels::norm::{layer_norm, rms_norm};

/// Root-mean-square normalisation, or with a bias layer normalisation.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`.
    pub gain: Param<Tensor<1>>,
    /// `[width]`; its presence makes this a LayerNorm.
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl Norm {
    /// The normalisation over `width` elements whose parameters the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them.
    pub fn build(builder: &mut Builder, path: &str, width: usize, config: &ModelConfig) -> Result<Self> {
        let gain = builder.parameter(&format!("{path}.gain"), [width], Init::Ones)?;
        let bias = match config.norm {
            NormKind::Rms => None,
            NormKind::Layer => Some(builder.parameter(&format!("{path}.bias"), [width], Init::Zeros)?),
        };
        Ok(Self { gain, bias, epsilon: config.norm_epsilon })
    }

    /// The same for a head, which a checkpoint may lack.
    ///
    /// # Errors
    /// If the builder's checkpoint has it in another shape.
    pub fn build_new(builder: &mut Builder, path: &str, width: usize, config: &ModelConfig) -> Result<Self> {
        let gain = builder.new_parameter(&format!("{path}.gain"), [width], Init::Ones)?;
        let bias = match config.norm {
            NormKind::Rms => None,
            NormKind::Layer => Some(builder.new_parameter(&format!("{path}.bias"), [width], Init::Zeros)?),
        };
        Ok(Self { gain, bias, epsilon: config.norm_epsilon })
    }

    /// # Shapes
    /// `x` and the output: `[tokens, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            None => rms_norm(x, self.gain.val(), self.epsilon),
            Some(bias) => layer_norm(x, self.gain.val(), bias.val(), self.epsilon),
        }
    }
}
