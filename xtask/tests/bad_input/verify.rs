//! Checkpoints that differ from their reference values, or have none.

use crate::support::{Place, models};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, str};

fn run(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("the runner starts")
}

fn verify(folders: &[&Path]) -> Output {
    run(&[&[Path::new("verify")], folders].concat())
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("UTF-8")
}

/// A folder that passes.
fn good() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/fixtures/rotary_scaling/linear")
}

/// A copy of it in which `from` is `to` in `config.json`.
fn changed(place: &Place, from: &str, to: &str) -> PathBuf {
    let folder = place.path("changed");
    fs::create_dir(&folder).expect("a folder");
    for name in ["golden.safetensors", "model.safetensors"] {
        fs::copy(good().join(name), folder.join(name)).expect("copied");
    }
    let config = fs::read_to_string(good().join("config.json")).expect("a configuration");
    assert!(config.contains(from), "{config}");
    fs::write(folder.join("config.json"), config.replace(from, to)).expect("written");
    folder
}

#[test]
fn what_agrees_passes() {
    let output = verify(&[&good()]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{lines}{}", text(&output.stderr));
    for quantity in ["logits", "last hidden state", "loss", "gradients (20)", "greedy ids", "AdamW losses (10)"] {
        assert!(lines.lines().any(|line| line.contains(quantity) && line.ends_with("pass")), "{quantity}: {lines}");
    }
    assert!(lines.ends_with("1 of 1 checkpoints pass\n"), "{lines}");
}

#[test]
fn what_differs_fails() {
    let place = Place::new();
    let folder = changed(&place, "2.5", "2.4");
    let output = verify(&[&good(), &folder]);
    let (lines, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{lines}{error}");
    assert!(lines.lines().any(|line| line.contains("logits") && line.ends_with("FAIL")), "{lines}");
    assert!(lines.lines().any(|line| line.contains("gradient of model.") && line.ends_with("FAIL")), "{lines}");
    assert!(error.starts_with("error: 1 of 2 checkpoints") && error.matches('\n').count() == 1, "{error}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let place = Place::new();
    let small = changed(&place, "\"max_position_embeddings\": 32", "\"max_position_embeddings\": 12");
    let refused = |folder: &Path, words: &[&str]| {
        let output = verify(&[folder]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(output.stdout.is_empty() && error.starts_with("error: ") && error.matches('\n').count() == 1, "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(&place.path("nowhere"), &["nowhere", "golden.safetensors"]);
    refused(&models().join("decoder"), &["decoder", "golden.safetensors"]);
    refused(&small, &["golden.safetensors", "row 2 has 14 tokens", "12 positions"]);
    fs::write(small.join("golden.safetensors"), "not one").expect("written");
    refused(&small, &["golden.safetensors", "safetensors"]);
}

#[test]
fn a_model_is_inspected_with_and_without_an_adapter() {
    let decoder = models().join("decoder");
    let inspect = |more: &[&str]| {
        let subject: Vec<&Path> = [Path::new("inspect"), Path::new("model"), &decoder].into();
        let output = run(&[subject, more.iter().map(Path::new).collect()].concat());
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    let (code, lines, error) = inspect(&[]);
    assert_eq!(code, Some(0), "{error}");
    assert!(lines.contains("llama (LlamaForCausalLM)") && lines.contains("100.00 %") && lines.contains("32 rotary"), "{lines}");
    // Rank 2 on queries of 16 to 16.
    let (code, lines, error) = inspect(&["--set", "adapter.rank=2", "--set", "adapter.target_modules=[\"q_proj\"]"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(lines.contains("64 parameters in 2 tensors"), "{lines}");
    let (code, _, error) = inspect(&["--set", "adapter.rnk=2"]);
    assert!(code == Some(2) && error.contains("rnk"), "{error}");
}
