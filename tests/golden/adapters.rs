//! Low-rank adapters against PEFT: reading its files, loss and gradients, merging, and writing the same files.

use crate::classifiers::mean_loss;
use crate::support::{
    COMPOSED, Golden, SIMPLE, assert_close, assert_gradients, assert_same_tensors, devices, fixture, gradients, loss_sum, packed, rows,
    saved, values,
};
use burn::tensor::Device;
use kiln_contrastive::objective::multiple_negatives_ranking as ranking;
use kiln_core::adapter::{self, LoraConfig};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Tokenizer;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[test]
fn of_a_language_model() {
    check_language_model("lora");
}

#[test]
fn of_a_family_with_transposed_weights() {
    check_language_model("gpt2_lora");
}

fn check_language_model(name: &str) {
    let folder = fixture(name);
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    let load = |folder: &Path, device: &Device| LanguageModel::load(folder, device).expect("the model loads").0;
    let logits = |model: &LanguageModel| values(model.logits(model.trunk.forward(&packed(&rows), None)));
    for device in devices() {
        let autodiff = device.clone().autodiff();
        let base = load(&folder, &autodiff);
        assert_close("logits of the base model", &logits(&base), &golden.at_tokens("base_logits"), SIMPLE);
        let model = adapter::load(base, &folder, &autodiff).expect("the adapter loads");
        assert_close("logits", &logits(&model), &golden.at_tokens("logits"), SIMPLE);
        let (loss, n_tokens) = loss_sum(&model, &rows);
        let loss = loss / n_tokens as f32;
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        assert_gradients("adapter", &by_stored_name(&model, gradients(&model, &loss)), &golden.with_prefix("grad."));
        let merged = load(saved(&model).path(), &device);
        assert_close("merged logits", &logits(&merged), &golden.at_tokens("merged_logits"), SIMPLE);
        check_save(&model, &folder);
    }
}

#[test]
fn of_a_classifier_with_its_head() {
    let folder = fixture("lora_classifier");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    let load = |folder: &Path, device: &Device| SequenceClassifier::load(folder, device).expect("the classifier loads").0;
    for device in devices() {
        let autodiff = device.clone().autodiff();
        let model = adapter::load(load(&folder, &autodiff), &folder, &autodiff).expect("the adapter loads");
        let logits = model.forward(&packed(&rows), None);
        assert_close("logits", &values(logits.clone()), &golden.get("logits").values, SIMPLE);
        let loss = mean_loss(logits, &golden.classes());
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        assert_gradients("adapter", &by_stored_name(&model, gradients(&model, &loss)), &golden.with_prefix("grad."));
        let merged = load(saved(&model).path(), &device);
        assert_close("merged logits", &values(merged.forward(&packed(&rows), None)), &golden.get("merged_logits").values, SIMPLE);
        check_save(&model, &folder);
    }
}

#[test]
fn of_a_sentence_encoder() {
    const N_ANCHORS: usize = 3;
    let folder = fixture("sentence_lora");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    let load = |folder: &Path, device: &Device| SentenceEncoder::load(folder, device).expect("the encoder loads").0;
    let vectors = |model: &SentenceEncoder| model.encode(&packed(&rows), None);
    for device in devices() {
        let autodiff = device.clone().autodiff();
        let base = load(&folder, &autodiff);
        assert_close("vectors of the base model", &values(vectors(&base)), &golden.get("base_vectors").values, SIMPLE);
        let model = adapter::load(base, &folder, &autodiff).expect("the adapter loads");
        assert_close("vectors", &values(vectors(&model)), &golden.get("vectors").values, SIMPLE);
        let loss = ranking::loss(vectors(&model), N_ANCHORS, &Vec::new(), 5.0, false).div_scalar(N_ANCHORS as f64);
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, COMPOSED);
        assert_gradients("adapter", &by_stored_name(&model, gradients(&model, &loss)), &golden.with_prefix("grad."));
        let merged = tempfile::tempdir().expect("a temporary folder");
        let tokenizer = Tokenizer::train(["a b c"].into_iter(), 300).expect("a tokenizer");
        model.save(&tokenizer, &folder, merged.path()).expect("the encoder is written");
        let merged = load(merged.path(), &device);
        assert_close("merged vectors", &values(vectors(&merged)), &golden.get("merged_vectors").values, SIMPLE);
        check_save(&model, &folder);
    }
}

#[test]
fn of_a_masked_language_model_with_the_transform_of_its_head() {
    let folder = fixture("masked_lm_lora");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    let load = |folder: &Path, device: &Device| LanguageModel::load(folder, device).expect("the model loads").0;
    let mean_loss = |model: &LanguageModel| {
        let (loss, n_tokens) = loss_sum(model, &rows);
        loss / n_tokens as f32
    };
    for device in devices() {
        let autodiff = device.clone().autodiff();
        let model = adapter::load(load(&folder, &autodiff), &folder, &autodiff).expect("the adapter loads");
        let loss = mean_loss(&model);
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        assert_gradients("adapter", &by_stored_name(&model, gradients(&model, &loss)), &golden.with_prefix("grad."));
        let merged = load(saved(&model).path(), &device);
        assert_close("merged loss", &values(mean_loss(&merged)), &golden.get("merged_loss").values, SIMPLE);
        check_save(&model, &folder);
    }
}

#[test]
fn another_base_model_is_refused() {
    for device in devices() {
        let (model, _) = LanguageModel::load(&fixture("lora"), &device).expect("the model loads");
        let error = adapter::load(model, &fixture("lora_classifier"), &device).unwrap_err();
        assert!(error.to_string().contains("another base model"), "{error}");
    }
}

/// Gradients under the names PEFT stores their parameters by.
fn by_stored_name(model: &impl Model, gradients: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let layout = model.layout();
    let name = |path: &str| match path.split_once(".adapter.") {
        Some((layer, part)) => format!("{}.lora_{}.weight", layout.layer(layer), part.to_uppercase()),
        None => layout.place(path).tensor,
    };
    gradients.into_iter().map(|(path, gradient)| (format!("base_model.model.{}", name(&path)), gradient)).collect()
}

/// What we write is what PEFT wrote.
fn check_save(model: &impl Model, expected: &Path) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = LoraConfig { rank: 4, alpha: 10.0, ..LoraConfig::default() };
    adapter::save(model, &config, "tiny", folder.path()).expect("the adapter is written");

    assert_same_tensors(&folder.path().join(adapter::WEIGHTS_FILE), &expected.join(adapter::WEIGHTS_FILE));
    let [found, expected] = [folder.path(), expected].map(|folder| {
        let text = std::fs::read_to_string(folder.join(adapter::CONFIG_FILE)).expect("a configuration");
        serde_json::from_str::<Value>(&text).expect("JSON")
    });
    for key in ["peft_type", "task_type", "base_model_name_or_path", "r", "bias", "fan_in_fan_out", "use_rslora", "use_dora"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
    // A Python int there, a float here.
    assert_eq!(found["lora_alpha"].as_f64(), expected["lora_alpha"].as_f64());
    let set = |value: &Value| value.as_array().expect("a list").iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert_eq!(set(&found["target_modules"]), set(&expected["target_modules"]));
    // PEFT lists every name a classification head might have; ours is among them.
    match &found["modules_to_save"] {
        Value::Null => assert!(expected["modules_to_save"].is_null()),
        head => assert!(set(head).is_subset(&set(&expected["modules_to_save"])), "{head}"),
    }
}
