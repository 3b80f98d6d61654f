//! Tiny checkpoints of every family against transformers: states, logits, loss, every gradient, greedy continuation, ten updates.

use crate::support::{COMPOSED, SIMPLE, assert_same_tensors, devices, fixture, saved, shared};
use kiln_core::checkpoint::WEIGHTS_FILE;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_verify::reference::{REFERENCE_FILE, Reference};
use kiln_verify::rows::rows;
use kiln_verify::verify::{Outcome, updates, verify};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

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
fn roberta() {
    check("roberta");
}

#[test]
fn distilbert() {
    check("distilbert");
}

#[test]
fn modernbert() {
    check("modernbert");
}

#[test]
fn gemma3() {
    check("gemma3");
}

#[test]
fn gpt2() {
    check("gpt2");
}

#[test]
fn scaled_rotary_positions() {
    for name in ["linear", "dynamic", "yarn", "yarn_keys"] {
        check_folder(&fixture("rotary_scaling").join(name));
    }
}

#[test]
fn roberta_untied() {
    check_folder(&fixture("encoder_heads").join("roberta_untied"));
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
    let reference = Reference::open(&folder.join(REFERENCE_FILE)).expect("reference values");
    let rows = rows(&reference, "").expect("rows");
    for device in devices() {
        let (model, fit) = LanguageModel::load(folder, &device.clone().autodiff()).expect("the model loads");
        assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
        assert_same_tensors(&saved(&model).path().join(WEIGHTS_FILE), &folder.join(WEIGHTS_FILE));
        let mut checks = verify(folder, &device).expect("model and reference fit together");
        if reference.arrays.contains_key("adamw_losses") {
            // Accumulation must not change the losses.
            checks.push(updates(folder, &reference, &rows, 1, &device).expect("finite updates"));
        }
        for check in &checks {
            let simple = ["logits", "last hidden state", "loss"].contains(&check.quantity.as_str());
            let within = |largest: f64| largest <= if simple { SIMPLE } else { COMPOSED };
            let holds = check.passes() && !matches!(check.outcome, Outcome::Error { largest, .. } if !within(largest));
            assert!(holds, "{check:?}");
        }
    }
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
    assert_eq!([config.embedding_dropout, config.attention_output_dropout, config.attention_dropout], [0.05, 0.2, 0.1]);
}
