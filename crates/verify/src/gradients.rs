//! Gradients by the name of their parameter, ours or Hugging Face's.

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};
use kiln_core::checkpoint::transposed;
use kiln_core::model::Model;
use kiln_core::parameters::{Visit, parameters, visit_parameters};
use std::collections::BTreeMap;

/// Gradients by the path of their parameter; parameters that have none are left out.
pub fn by_path(model: &impl Module, gradients: Gradients) -> BTreeMap<String, Vec<f32>> {
    struct Collect {
        from: Gradients,
        into: BTreeMap<String, Vec<f32>>,
    }

    impl Visit for Collect {
        fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
            if let Some(gradient) = tensor.grad_remove(&mut self.from) {
                self.into.insert(path.to_owned(), gradient.into_data().try_to_vec().expect("gradients are f32"));
            }
        }
    }

    let mut collect = Collect { from: gradients, into: BTreeMap::new() };
    visit_parameters(model, &mut collect);
    collect.into
}

/// The same under Hugging Face's names and in its layout.
pub fn by_tensor_name(model: &impl Model, mut gradients: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let mut tensors: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let layout = model.layout();
    for parameter in parameters(model) {
        let Some(gradient) = gradients.remove(&parameter.path) else { continue };
        let place = layout.place(&parameter.path);
        let tensor = tensors.entry(place.tensor).or_default();
        tensor.extend(gradient);
        if place.transposed && place.part + 1 == place.n_parts {
            *tensor = transposed(tensor, tensor.len() / parameter.shape[1]);
        }
    }
    tensors
}
