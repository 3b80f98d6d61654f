//! Mixout: in each step some elements of the weights are those of the model that training began with.
//!
//! ```text
//! w' = (m ∘ u + (1 − m) ∘ w − p·u) / (1 − p) = u + (1 − m) ∘ (w − u) / (1 − p),   m ~ Bernoulli(p)
//! ```
//!
//! u: the pretrained weights; w: those that are trained; w': those of the step's passes, in expectation w. It is dropout of the distance from
//! u, and so is its gradient: that of w', through the same mask. Of the matrices inside blocks, as in the authors' code; p = 1 leaves them u.
//! Source: Lee et al., arXiv:1909.11299, Eq. 5.  Differs from the source: a mask holds for all parts of a batch.

use crate::updater::anchor;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use kiln_core::parameters::{Change, change_parameters, parameters};
use kiln_kernels::dropout::dropout;
use kiln_kernels::random::Key;
use std::collections::BTreeMap;

/// Weights that training began with, and how often they come back.
#[derive(Clone, Debug)]
pub struct Mixout {
    /// p.
    probability: f64,
    /// By path, each `[elements]`, and the index of its stream of randomness.
    pretrained: BTreeMap<String, (u64, Tensor<1>)>,
}

impl Mixout {
    /// Of the weights of `model` as it comes, with the probability `probability`.
    pub fn new<M: Module>(model: &M, probability: f64) -> Self {
        let mut values = anchor(model);
        let is_mixed = |path: &str, shape: &[usize]| shape.len() == 2 && path.split('.').any(|part| part == "layers");
        let found = parameters(model).into_iter().filter(|parameter| is_mixed(&parameter.path, &parameter.shape));
        let pretrained = found.zip(0..).filter_map(|(parameter, index)| {
            let value = values.remove(&parameter.path)?;
            Some((parameter.path, (index, value)))
        });
        Self { probability, pretrained: pretrained.collect() }
    }

    /// The model of a step's passes; `key` is the step's.
    pub fn mixed<M: Module>(&self, model: &M, key: Key) -> M {
        struct Mix<'a>(&'a Mixout, Key);

        impl Change for Mix<'_> {
            fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let Some((index, pretrained)) = self.0.pretrained.get(path) else { return param };
                let (id, tensor, mapper) = param.consume();
                let shape = tensor.dims();
                let distance = tensor.inner().reshape([pretrained.dims()[0]]) - pretrained.clone();
                let mixed = pretrained.clone() + self.0.dropped(distance, self.1.fold(*index));
                Param::from_mapped_value(id, Tensor::from_inner(mixed.reshape(shape)).require_grad(), mapper)
            }
        }

        change_parameters(model.clone(), &mut Mix(self, key))
    }

    /// The gradients of the weights from those of the model of the step's passes.
    pub fn gradients(&self, mut gradients: BTreeMap<String, Tensor<1>>, key: Key) -> BTreeMap<String, Tensor<1>> {
        for (path, (index, _)) in &self.pretrained {
            if let Some(gradient) = gradients.remove(path) {
                gradients.insert(path.clone(), self.dropped(gradient, key.fold(*index)));
            }
        }
        gradients
    }

    fn dropped(&self, values: Tensor<1>, key: Key) -> Tensor<1> {
        if self.probability == 1.0 {
            return values.zeros_like();
        }
        let n_elements = values.dims()[0];
        dropout(values.reshape([1, n_elements]), self.probability as f32, key).reshape([n_elements])
    }
}
