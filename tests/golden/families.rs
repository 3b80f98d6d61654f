//! Tiny checkpoints of every family against transformers: states, logits, loss, every gradient, greedy continuation, ten updates.

use crate::support::{
    COMPOSED, Golden, Row, SIMPLE, assert_close, assert_gradients, assert_same_tensors, by_tensor_name, devices, fixture, gradients,
    loss_sum, packed, rows, saved, shared, values,
};
use burn::tensor::Device;
use kiln_core::checkpoint::WEIGHTS_FILE;
use kiln_core::config::ModelConfig;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_kernels::random::Key;
use kiln_train::schedule::Schedule;
use kiln_train::updater::{UpdateConfig, Updater};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

const N_GREEDY: usize = 12;

#[test]
fn llama() {
    check("llama");
}

#[test]
fn llama_tied() {
    check("llama_tied");
}

#[test]
fn llama3_rope() {
    check("llama3_rope");
}

#[test]
fn mistral() {
    check("mistral");
}

#[test]
fn qwen2() {
    check("qwen2");
}

#[test]
fn qwen3() {
    check("qwen3");
}

#[test]
fn bert() {
    check("bert");
}

#[test]
fn gpt2() {
    check("gpt2");
}

#[test]
fn gpt2_untied() {
    check_folder(&fixture("gpt2"));
}

fn check(name: &str) {
    if let Some(folder) = shared(&format!("golden/families/{name}")) {
        check_folder(&folder);
    }
}

fn check_folder(folder: &Path) {
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    for device in devices() {
        check_values(folder, &golden, &rows, &device);
        if golden.0.contains_key("greedy_ids") {
            check_greedy(folder, &golden, &device);
        }
        if golden.0.contains_key("adamw_losses") {
            check_updates(folder, &golden, &rows, &device);
        }
    }
}

fn check_values(folder: &Path, golden: &Golden, rows: &[Row], device: &Device) {
    let (model, fit) = LanguageModel::load(folder, &device.clone().autodiff()).expect("the model loads");
    assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
    assert_same_tensors(&saved(&model).path().join(WEIGHTS_FILE), &folder.join(WEIGHTS_FILE));
    let hidden = model.trunk.forward(&packed(rows), None);
    assert_close("last hidden state", &values(hidden.clone()), &golden.at_tokens("last_hidden_state"), SIMPLE);
    assert_close("logits", &values(model.logits(hidden)), &golden.at_tokens("logits"), SIMPLE);
    let (loss, n_tokens) = loss_sum(&model, rows);
    let loss = loss / n_tokens as f32;
    assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
    let found = by_tensor_name(&model, gradients(&model, &loss));
    assert_gradients("language model", &found, &golden.with_prefix("grad."));
}

fn check_greedy(folder: &Path, golden: &Golden, device: &Device) {
    let (model, _) = LanguageModel::load(folder, device).expect("the model loads");
    let expected: Vec<u32> = golden.get("greedy_ids").values.iter().map(|&id| id as u32).collect();
    let prompt = expected[..expected.len() - N_GREEDY].to_vec();
    let sampling = Sampling { max_new_tokens: N_GREEDY, ..Sampling::default() };
    let new = generate(&model, &[prompt], &sampling, &[], Key::new(0)).expect("the model continues a text");
    assert_eq!(new[0], expected[expected.len() - N_GREEDY..], "greedy continuation");
}

/// The losses before each update, the batch whole and cut into one part per row: accumulation must not change them.
fn check_updates(folder: &Path, golden: &Golden, rows: &[Row], device: &Device) {
    let config = UpdateConfig {
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        no_decay: Vec::new(),
        max_gradient_norm: 1.0,
        ..UpdateConfig::default()
    };
    let expected = &golden.get("adamw_losses").values;
    for rows_per_part in [rows.len(), 1] {
        let (mut model, _) = LanguageModel::load(folder, &device.clone().autodiff()).expect("the model loads");
        let mut updater = Updater::new(config.clone(), expected.len());
        let mut losses = Vec::new();
        for _ in expected {
            let (mut sum, mut n_tokens) = (0.0, 0);
            for part in rows.chunks(rows_per_part) {
                let (loss, weight) = loss_sum(&model, part);
                updater.add(&model, loss.backward(), weight as f64);
                sum += values(loss)[0];
                n_tokens += weight;
            }
            losses.push(sum / n_tokens as f32);
            (model, _) = updater.step(model).expect("a finite update");
        }
        assert_close(&format!("losses of updates with {rows_per_part} rows per part"), &losses, expected, COMPOSED);
    }
    assert!(golden.0.contains_key("loss") && expected[0] > expected[expected.len() - 1], "the updates of the reference lower the loss");
}

/// As published: the trunk alone, with the constants that old versions of transformers stored.
#[test]
fn a_bare_trunk_with_constants_loads() {
    let folder = fixture("gpt2_lora");
    let bytes = std::fs::read(folder.join(WEIGHTS_FILE)).expect("weights");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let bare = |(name, view): (String, _)| (name.strip_prefix("transformer.").expect("of the trunk").to_owned(), view);
    let mut tensors: Vec<(String, TensorView<'_>)> = file.tensors().into_iter().map(bare).collect();
    let constant = [1; 9];
    for name in ["h.0.attn.bias", "h.1.attn.masked_bias"] {
        tensors.push((name.to_owned(), TensorView::new(Dtype::U8, vec![1, 1, 3, 3], &constant).expect("a tensor")));
    }
    let bare = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(folder.join("config.json"), bare.path().join("config.json")).expect("a copy");
    std::fs::write(bare.path().join(WEIGHTS_FILE), safetensors::serialize(tensors, None).expect("bytes")).expect("written");
    for device in devices() {
        let (model, fit) = LanguageModel::load(bare.path(), &device).expect("the model loads");
        assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
        assert_same_tensors(&saved(&model).path().join(WEIGHTS_FILE), &folder.join(WEIGHTS_FILE));
    }
}

#[test]
fn joined_layers_of_another_size_are_refused() {
    let folder = fixture("gpt2_lora");
    let other = tempfile::tempdir().expect("a temporary folder");
    let config = std::fs::read_to_string(folder.join("config.json")).expect("a configuration");
    // Five heads of 3 are one column less than the width of 16.
    std::fs::write(other.path().join("config.json"), config.replace("\"n_head\": 4", "\"n_head\": 5")).expect("written");
    std::fs::copy(folder.join(WEIGHTS_FILE), other.path().join(WEIGHTS_FILE)).expect("a copy");
    for device in devices() {
        let error = LanguageModel::load(other.path(), &device).unwrap_err().to_string();
        assert!(error.contains("h.0.attn.c_attn.weight\" has shape [16, 48]"), "{error}");
    }
}

#[test]
fn dropout_of_embeddings_and_of_blocks_differ() {
    let config = ModelConfig::from_folder(&fixture("gpt2")).expect("a configuration");
    assert_eq!([config.embedding_dropout, config.hidden_dropout, config.attention_dropout], [0.05, 0.2, 0.1]);
}
