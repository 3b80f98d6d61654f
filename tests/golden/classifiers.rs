//! Sequence classifiers against transformers: logits, mean cross-entropy and every gradient.

use crate::support::{
    Golden, SIMPLE, assert_close, assert_gradients, assert_same_tensors, by_tensor_name, devices, fixture, gradients, packed, rows, saved,
    values,
};
use burn::tensor::Tensor;
use kiln_core::checkpoint::WEIGHTS_FILE;
use kiln_core::classifier::SequenceClassifier;
use kiln_kernels::cross_entropy::cross_entropy;
use kiln_kernels::random::Key;

#[test]
fn bert_pools_its_first_token() {
    check("bert_classifier");
}

#[test]
fn llama_pools_its_last_token() {
    check("llama_classifier");
}

#[test]
fn gpt2_pools_its_last_token() {
    check("gpt2_classifier");
}

/// Mean cross-entropy of the logits, `[1]`.
pub fn mean_loss(logits: Tensor<2>, classes: &[u32]) -> Tensor<1> {
    let share = 1.0 / classes.len() as f32;
    cross_entropy(logits, &classes.into(), &vec![share; classes.len()].into())
}

fn check(name: &str) {
    let folder = fixture(name);
    let golden = Golden::open(&folder.join("golden.safetensors"));
    for device in devices() {
        let (model, fit) = SequenceClassifier::load(&folder, &device.autodiff()).expect("the classifier loads");
        assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
        assert_same_tensors(&saved(&model).path().join(WEIGHTS_FILE), &folder.join(WEIGHTS_FILE));
        let logits = model.forward(&packed(&rows(&golden, "")), None);
        assert_close("logits", &values(logits.clone()), &golden.get("logits").values, SIMPLE);
        let loss = mean_loss(logits, &golden.classes());
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        let found = by_tensor_name(&model, gradients(&model, &loss));
        assert_gradients(name, &found, &golden.with_prefix("grad."));
    }
}

#[test]
fn a_head_of_another_size_is_refused() {
    let labels: Vec<String> = ["yes", "no"].map(str::to_owned).to_vec();
    for device in devices() {
        let error = SequenceClassifier::from_pretrained(&fixture("bert_classifier"), &labels, &device, Key::new(0)).unwrap_err();
        assert!(error.to_string().contains("3 classes, the data has 2 labels"), "{error}");
    }
}
