//! The normalisation layer: RMSNorm or LayerNorm.

use crate::Result;
use crate::builder::{Builder, Init};
use crate::config::{ModelConfig, NormKind};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_kernels::norm::{layer_norm, rms_norm};

/// Root-mean-square or layer normalisation.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[width]`; in some families its distance from 1.
    pub gain: Param<Tensor<1>>,
    /// `[width]`, in LayerNorms that have one.
    pub bias: Option<Param<Tensor<1>>>,
    /// Added to the variance.
    pub epsilon: f64,
    #[module(skip)]
    kind: NormKind,
}

/// How a gain starts.
fn init(kind: NormKind) -> Init<'static> {
    if kind == NormKind::RmsAroundOne { Init::Zeros } else { Init::Ones }
}

impl Norm {
    /// The normalisation over `width` elements whose parameters the builder has at `path`.
    ///
    /// # Errors
    /// If the builder's checkpoint lacks them.
    pub fn build(builder: &mut Builder, path: &str, width: usize, config: &ModelConfig) -> Result<Self> {
        let kind = config.norm;
        let gain = builder.parameter(&format!("{path}.gain"), [width], init(kind))?;
        let mut bias = || builder.parameter(&format!("{path}.bias"), [width], Init::Zeros);
        Ok(Self { gain, bias: (kind == NormKind::Layer).then(&mut bias).transpose()?, epsilon: config.norm_epsilon, kind })
    }

    /// The same for a head, which a checkpoint may lack.
    ///
    /// # Errors
    /// If the builder's checkpoint has it in another shape.
    pub fn build_new(builder: &mut Builder, path: &str, width: usize, config: &ModelConfig) -> Result<Self> {
        let kind = config.norm;
        let gain = builder.new_parameter(&format!("{path}.gain"), [width], init(kind))?;
        let mut bias = || builder.new_parameter(&format!("{path}.bias"), [width], Init::Zeros);
        Ok(Self { gain, bias: (kind == NormKind::Layer).then(&mut bias).transpose()?, epsilon: config.norm_epsilon, kind })
    }

    /// # Shapes
    /// `x` and the output: `[tokens, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gain = self.gain.val();
        match self.kind {
            NormKind::Rms => rms_norm(x, gain, self.epsilon),
            NormKind::RmsAroundOne => rms_norm(x, gain.add_scalar(1.0), self.epsilon),
            NormKind::Layer | NormKind::LayerGain => layer_norm(x, gain, self.bias.as_ref().map(Param::val), self.epsilon),
        }
    }
}
