//! Tiny checkpoints of every family against transformers: states, logits, loss, every gradient, greedy continuation, ten updates.

use crate::support::{
    COMPOSED, Golden, Row, SIMPLE, assert_close, assert_gradients, by_tensor_name, devices, gradients, loss_sum, packed, rows, shared,
    values,
};
use burn::tensor::Device;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_kernels::random::Key;
use kiln_train::schedule::Schedule;
use kiln_train::updater::{UpdateConfig, Updater};
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

fn check(name: &str) {
    let Some(folder) = shared(&format!("golden/families/{name}")) else { return };
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    for device in devices() {
        check_values(&folder, &golden, &rows, &device);
        if golden.0.contains_key("greedy_ids") {
            check_greedy(&folder, &golden, &device);
            check_updates(&folder, &golden, &rows, &device);
        }
    }
}

fn check_values(folder: &Path, golden: &Golden, rows: &[Row], device: &Device) {
    let (model, fit) = LanguageModel::load(folder, &device.clone().autodiff()).expect("the model loads");
    assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
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
