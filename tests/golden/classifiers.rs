//! Classifiers of sequences and tokens, and regression, against transformers: outputs, mean loss and every gradient.

use crate::support::{
    Golden, SIMPLE, assert_close, assert_gradients, assert_same_tensors, by_tensor_name, devices, fixture, gradients, packed, rows, saved,
    supervised, values,
};
use burn::tensor::Tensor;
use kiln_core::checkpoint::WEIGHTS_FILE;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::model::Model;
use kiln_core::token_classifier::TokenClassifier;
use kiln_kernels::cross_entropy::cross_entropy;
use kiln_kernels::random::Key;
use kiln_sft::objective::r_drop::Regularization;
use kiln_sft::objective::{regression, token_classification};

#[test]
fn bert_pools_its_first_token() {
    check("bert_classifier");
}

#[test]
fn other_families_have_other_heads() {
    for name in ["roberta", "distilbert", "modernbert", "modernbert_mean", "gemma3"] {
        check(&format!("encoder_heads/{name}/sequence"));
    }
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
fn one_output_is_a_number() {
    let folder = fixture("bert_regression");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    let scores: Vec<f32> = golden.get("labels").values.iter().map(|&score| score as f32).collect();
    for device in devices() {
        let device = device.autodiff();
        let (model, fit) = SequenceClassifier::load(&folder, &device).expect("the model loads");
        assert!(fit.new.is_empty() && fit.unused.is_empty() && model.config().is_regression(), "{fit:?}");
        assert_close("predictions", &values(model.forward(&packed(&rows), None)), &golden.get("logits").values, SIMPLE);
        let loss = regression::loss(&model, &packed(&rows), &scores, None) / scores.len() as f32;
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        let found = by_tensor_name(&model, gradients(&model, &loss));
        assert_gradients("regression", &found, &golden.with_prefix("grad."));
        // What we save says the same of itself as what transformers saved.
        let (model, _) = SequenceClassifier::from_pretrained(&folder, &[], &[], &device, Key::new(0)).expect("the model loads");
        let saved = ModelConfig::from_folder(&folder).expect("a configuration").raw;
        for key in ["problem_type", "id2label", "label2id"] {
            assert_eq!(model.config().raw[key], saved[key], "{key}");
        }
        let labels = ["yes", "no"].map(str::to_owned);
        let error = SequenceClassifier::from_pretrained(&folder, &labels, &[], &device, Key::new(0)).unwrap_err();
        assert!(error.to_string().contains("1 classes, the data has 2 labels"), "{error}");
        let error = SequenceClassifier::from_pretrained(&fixture("bert_classifier"), &[], &[], &device, Key::new(0)).unwrap_err();
        assert!(error.to_string().contains("3 classes, a regression has one output"), "{error}");
    }
}

#[test]
fn every_token_has_its_class() {
    for name in ["token_classifier/bert", "token_classifier/llama"]
        .map(str::to_owned)
        .into_iter()
        .chain(["roberta", "distilbert", "modernbert", "modernbert_mean"].map(|family| format!("encoder_heads/{family}/tokens")))
    {
        let (folder, name) = (fixture(&name), name.as_str());
        let golden = Golden::open(&folder.join("golden.safetensors"));
        let rows = rows(&golden, "");
        let words = supervised(&rows, false);
        for device in devices() {
            let (model, fit) = TokenClassifier::load(&folder, &device.autodiff()).expect("the model loads");
            assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
            assert_same_tensors(&saved(&model).path().join(WEIGHTS_FILE), &folder.join(WEIGHTS_FILE));
            let every_token = (0..rows.iter().map(|row| row.ids.len() as u32).sum()).collect();
            assert_close(name, &values(model.forward(&packed(&rows), &every_token, None)), &golden.at_tokens("logits"), SIMPLE);
            let loss =
                token_classification::loss(&model, &packed(&rows), &words, Regularization::default(), None) / words.targets.len() as f32;
            assert_close(name, &values(loss.clone()), &golden.get("loss").values, SIMPLE);
            let found = by_tensor_name(&model, gradients(&model, &loss));
            assert_gradients(name, &found, &golden.with_prefix("grad."));
            assert_eq!(Some(model.class().as_str()), model.config().class_name());
        }
    }
}

/// What transformers could not load is not made.
#[test]
fn gemma_has_no_classifier_of_tokens() {
    let labels: Vec<String> = ["yes", "no", "perhaps"].map(str::to_owned).to_vec();
    let folder = fixture("encoder_heads/gemma3/sequence");
    let error = TokenClassifier::from_pretrained(&folder, &labels, &[], &devices()[0], Key::new(0)).unwrap_err().to_string();
    assert!(error.contains("no classifier of tokens of the family gemma3_text"), "{error}");
}

#[test]
fn a_head_of_another_size_is_refused() {
    let labels: Vec<String> = ["yes", "no"].map(str::to_owned).to_vec();
    for device in devices() {
        let error = SequenceClassifier::from_pretrained(&fixture("bert_classifier"), &labels, &[], &device, Key::new(0)).unwrap_err();
        assert!(error.to_string().contains("3 classes, the data has 2 labels"), "{error}");
    }
}
