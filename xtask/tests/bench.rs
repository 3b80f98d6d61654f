//! `cargo xtask bench` on small models and texts of its own: what it prints, and what it refuses in one line.

use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const SENTENCES: [&str; 3] =
    ["the sea is cold today and the sun is warm", "snow fell on the hill beside the sea", "a fire burns in the old room"];

/// `models`, `peers/shapes` and `data` with what the workloads read, small.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let trained = Tokenizer::train(SENTENCES.into_iter(), 300).expect("a tokenizer");
        let shape = json!({
            "vocab_size": trained.vocab_size(), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 512, "eos_token_id": 2, "tie_word_embeddings": true,
        });
        let with = |keys: Value| {
            let (Value::Object(mut all), Value::Object(keys)) = (shape.clone(), keys) else { unreachable!() };
            all.extend(keys);
            all
        };
        let bert = ModelConfig::from_json(with(json!({"model_type": "bert", "hidden_act": "gelu"})), Path::new("config.json"));
        let device = device::by_name("flex").expect("a device");
        let encoder = LanguageModel::new(bert.expect("a configuration"), &device, Key::new(0)).expect("an encoder");
        model::save(&encoder, &trained, &place.path("models/all-MiniLM-L6-v2")).expect("saved");
        let llama = Value::Object(with(json!({"model_type": "llama", "hidden_act": "silu"}))).to_string();
        for name in ["llama-8m", "smollm2-135m"] {
            place.file(&format!("peers/shapes/{name}/config.json"), &llama);
        }
        let gpt2 = json!({
            "model_type": "gpt2", "vocab_size": 64, "n_positions": 16, "n_embd": 16, "n_inner": 64, "n_layer": 1, "n_head": 2,
            "activation_function": "gelu_new", "tie_word_embeddings": false,
        });
        place.file("peers/shapes/gpt2-17m/config.json", &gpt2.to_string());
        trained.save(&place.path("data/gpt2_bpe")).expect("saved");
        let labelled = (0..9).map(|row| format!("{}\t{}\n", SENTENCES[row % 3], row % 2)).collect::<String>();
        place.file("data/sst2/train.tsv", &labelled);
        place.file("data/sst2/test.tsv", &labelled);
        let line = |row: Value| format!("{row}\n");
        // Rows that fit, one whose answer is cut, and one that is cut before its answer.
        let short = SENTENCES.map(|text| line(json!({"prompt": text, "answer": " yes"}))).concat();
        let long = [("?", " yes".repeat(400)), (&*" yes".repeat(400), "!".to_owned())];
        let long = long.map(|(prompt, answer)| line(json!({"prompt": prompt, "answer": answer}))).concat();
        place.file("data/dolly_small/dolly.jsonl", &(short + &long));
        place.file("data/gsm8k/train.jsonl", &line(json!({"question": SENTENCES.concat().repeat(9)})).repeat(8));
        place.file("data/wikitext2/test.txt", &format!(" = Heading = \n {} . no . {} \n", SENTENCES[0], SENTENCES[1]));
        place.file("data/wikitext2/valid.txt", &format!("{}\n", SENTENCES.join(" . ")).repeat(160));
        // Every text differs, but the premises of the first three rows are there twice.
        let pair = |(row, premise, label): (usize, usize, &str)| {
            line(json!({"premise": format!("{} {premise}", SENTENCES[row % 3]), "hypothesis": format!("{row} fires"), "label": label}))
        };
        let entailed = (0..200).map(|row| pair((row, row.max(3 + row % 3), "entailment"))).collect::<String>();
        place.file("data/snli_dev/snli_dev.jsonl", &(pair((0, 999, "neutral")) + &entailed));
        let scored = (0..6).map(|row| format!("main\tnews\t2012\t{row}\t{row}.5\t{}\ta {row} \"\n", SENTENCES[row % 3]));
        let scored = scored.collect::<String>();
        for part in ["train", "dev", "test"] {
            place.file(&format!("data/stsb/sts-{part}.csv"), &scored);
        }
        let questions = ["HUM:ind Who is cold ?", "LOC:other Where is the hill ?", "NUM:date When did snow fall ?"];
        for part in ["train_5500", "TREC_10"] {
            place.file(&format!("data/trec_qc/{part}.label"), &format!("{}\n", questions.join("\n")).repeat(2));
        }
        place.file("data/sst2/dev.tsv", &labelled);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(self.0.path()).arg("bench").args(arguments).output().expect("the runner starts")
    }

    /// The line of JSON a workload prints.
    fn report(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--models", "models", "--data", "data", "--json"]].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let output = self.run(arguments);
        let line = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{line}");
        assert!(line.starts_with("error: ") && line.matches('\n').count() == 1, "not one line: {line}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        for word in words {
            assert!(line.contains(word), "no {word:?} in: {line}");
        }
    }
}

#[test]
fn every_workload_prints_its_line() {
    let place = Place::new();
    for (workload, unit, units, losses) in [
        ("dense-step", "tokens", 128.0, 3),
        ("classify", "examples", 9.0, 3),
        ("contrastive", "pairs", 64.0, 3),
        ("cached-contrastive", "pairs", 197.0, 3),
        ("mlm", "tokens", 2048.0, 3),
        ("multitask", "examples", 6.0, 3),
        ("generate", "tokens", 128.0, 0),
        ("generate-8", "tokens", 1024.0, 0),
        ("embed", "sentences", 2.0, 0),
        ("startup", "starts", 1.0, 0),
    ] {
        let report = place.report(&[workload, "--steps", "3"]);
        assert_eq!([&report["peer"], &report["workload"], &report["unit"]], ["kiln", workload, unit]);
        assert_eq!((report["steps"].as_u64(), report["per_step"]["units"].as_f64()), (Some(3), Some(units)), "{report}");
        assert!(report["seconds_per_step_median"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{report}");
        let found = report["losses"].as_array().expect("losses");
        assert!(found.len() == losses && found.iter().all(|loss| loss.as_f64().is_some_and(|loss| loss > 0.0)), "{report}");
    }
}

#[test]
fn fine_tuning_counts_what_it_learns_from() {
    let place = Place::new();
    for workload in ["sft-full", "sft-lora"] {
        let report = place.report(&[workload, "--steps", "3"]);
        let per_step = |name: &str| report["per_step"][name].as_f64().expect("a count");
        // The tokens of " yes", which the tokenizer does not know, and the end.
        assert!(per_step("supervised") >= 6.0 && per_step("supervised") < per_step("real"), "{report}");
        assert!(per_step("real") <= per_step("padded") && per_step("units") == per_step("real"), "{report}");
    }
}

#[test]
fn a_step_from_rewards_is_split() {
    let report = Place::new().report(&["grpo", "--steps", "3"]);
    assert_eq!((&report["unit"], report["per_step"]["units"].as_f64()), (&json!("completions"), Some(32.0)), "{report}");
    assert_eq!((report["per_step"]["supervised"].as_f64(), report["per_step"]["real"].as_f64()), (Some(2048.0), Some(4096.0)), "{report}");
    let parts = ["generation_seconds", "reward_and_update_seconds"].map(|part| report["split"][part].as_f64().expect("seconds"));
    assert!((parts.iter().sum::<f64>() - report["seconds_per_step_median"].as_f64().expect("seconds")).abs() < 0.1, "{report}");
}

#[test]
fn the_same_seed_gives_the_same_losses() {
    let place = Place::new();
    let losses = |seed: &str| place.report(&["classify", "--steps", "3", "--seed", seed])["losses"].clone();
    assert_eq!(losses("4"), losses("4"));
    assert_ne!(losses("4"), losses("5"));
}

#[test]
fn a_whole_epoch_ends_in_a_quality() {
    let place = Place::new();
    place.file("data/sst2/train.tsv", &"the sea is cold\t0\na fire burns\t1\n".repeat(40));
    let report = place.report(&["classify", "--full"]);
    // 80 rows in batches of 32.
    assert_eq!(report["steps"], 3);
    assert!(report["quality"]["test_accuracy"].as_f64().is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)), "{report}");
}

#[test]
fn every_task_has_its_quality() {
    let report = Place::new().report(&["multitask", "--full"]);
    // 9 reviews, 6 questions and 6 pairs, in a batch each.
    assert_eq!(report["steps"], 3);
    let quality = |name: &str| report["quality"][name].as_f64().is_some_and(|value| value.abs() <= 1.0);
    assert!(["sst2_accuracy", "trec_accuracy", "stsb_spearman"].into_iter().all(quality), "{report}");
}

#[test]
fn encoders_are_judged_before_and_after() {
    let place = Place::new();
    place.file("data/wikitext2/test.txt", &format!("{}\n", SENTENCES.join(" . ")).repeat(10));
    let quality = |workload: &str, name: &str| {
        let report = place.report(&[workload, "--full"]);
        ["before", "after"].map(|when| report["quality"][format!("{name}_{when}")].as_f64().expect("a quality"))
    };
    // Six pairs keep their order when training moves the encoder a little.
    assert!(quality("contrastive", "sts_test_spearman").iter().all(|spearman| spearman.abs() < 1.0));
    let [before, after] = quality("mlm", "held_out_loss");
    assert!(after < before && before < 2.0 * 300f64.ln(), "{before} {after}");
}

/// A peer that says the same of every workload and needs its shapes beside it.
fn fixed_peer(place: &Place, workload: &str) {
    let line = json!({
        "peer": "p", "workload": workload, "steps": 3, "seconds_per_step_median": 1000.0, "unit": "starts", "units_per_second": 1.0,
        "real_tokens_per_second": 0.0, "peak_rss_mb": 70, "startup_seconds": 2.5, "losses": [], "per_step": {"units": 1.0, "real": 128.0},
        "other_processes_cpu": 0.0,
    });
    place.file("peers/bench.py", &format!("ls ${{0%/*}}/shapes/gpt2-17m/config.json\necho '{line}'\n"));
}

#[test]
fn growth_is_measured_printed_and_plotted() {
    let place = Place::new();
    fixed_peer(&place, "dense-step");
    let arguments = ["scaling", "--models", "models", "--data", "data", "--steps", "3", "--out", "grown"];
    let peers = ["--peers", "/bin/sh", "--bench", "peers/bench.py"];
    let output = place.run(&[&arguments[..], &peers].concat());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in ["length 8 ", "length 128 ", "width 32 ", "vocabulary 16 ", "vocabulary 256 "] {
        assert!(text.contains(&format!("\n{line}")), "{line} in {text}");
    }
    let results: Value = serde_json::from_str(&fs::read_to_string(place.path("grown/results.json")).expect("results")).expect("JSON");
    for (size, n_points) in [("length", 5), ("width", 3), ("vocabulary", 3)] {
        let points = results["sizes"][size].as_array().expect("points");
        assert_eq!((points.len(), points[0]["peer"]["peer"].as_str()), (n_points, Some("p")));
        let plot = fs::read_to_string(place.path(&format!("grown/{size}.svg"))).expect("a plot");
        assert!(plot.contains("PyTorch") && plot.matches("<circle").count() == 2 * n_points, "{plot}");
    }
    let sizes =
        |size: &str| results["sizes"][size].as_array().expect("points").iter().map(|point| point["size"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (sizes("length"), sizes("width")),
        (vec![8.into(), 16.into(), 32.into(), 64.into(), 128.into()], vec![8.into(), 16.into(), 32.into()])
    );
    place.refused(&arguments, &["--out", "results.json"]);
}

#[test]
fn both_sides_are_compared() {
    let place = Place::new();
    fixed_peer(&place, "startup");
    let arguments = ["compare", "--peers", "/bin/sh", "--bench", "peers/bench.py", "--workloads", "startup", "--steps", "3"];
    let report = place.report(&[&arguments[..], &["--rounds", "2"]].concat());
    assert_eq!((report["ours"].as_array().map(Vec::len), report["peer"][1]["startup_seconds"].as_f64()), (Some(2), Some(2.5)));
    assert!(report["ratio"].as_f64().is_some_and(|ratio| ratio > 100.0), "{report}");
    place.file("peers/bench.py", "echo 'no module named torch' >&2\nexit 3\n");
    let output = place.run(&arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && error.contains("sh startup: exit status: 3: no module named torch"), "{error}");
}

#[test]
fn bad_input() {
    let place = Place::new();
    place.refused(&["clasify"], &["unknown workload \"clasify\"", "classify", "embed"]);
    place.refused(&["classify"], &["--models", "missing", "all-MiniLM-L6-v2"]);
    place.refused(&["classify", "--models", "nowhere"], &["--models", "nowhere/all-MiniLM-L6-v2 does not exist"]);
    place.refused(&["classify", "--models", "models", "--data", "nowhere"], &["--data", "nowhere/sst2/train.tsv does not exist"]);
    place.refused(&["sft-full", "--data", "data"], &["--shapes", "missing", "llama-8m"]);
    place.refused(&["sft-full", "--data", "data", "--shapes", "nowhere"], &["--shapes", "nowhere/llama-8m does not exist"]);
    place.refused(&["classify", "--steps", "2"], &["--steps", "found 2", "at least 3", "warm-up"]);
    place.refused(&["ceiling", "--device", "nope"], &["--device", "unknown device \"nope\""]);
    place.refused(&["compare", "--peers", "nowhere", "--bench", "x.py"], &["--peers", "nowhere does not exist"]);
    place.refused(&["compare", "--peers", "/bin/sh", "--bench", "x.py"], &["--bench", "x.py does not exist"]);
    let both = ["compare", "--peers", "/bin/sh", "--bench", "data/sst2/test.tsv"];
    place.refused(&[&both[..], &["--workloads", "embed,none"]].concat(), &["unknown workload \"none\""]);
    place.refused(&[&both[..], &["--rounds", "0"]].concat(), &["--rounds", "found 0"]);
    place.refused(&["scaling", "--peers", "/bin/sh", "--bench", "nowhere"], &["--bench", "nowhere does not exist"]);
    place.refused(&["scaling", "--steps", "2"], &["--steps", "found 2"]);
    place.refused(&["scaling"], &["--shapes", "missing", "gpt2-17m"]);
    place.refused(&["roofline", "--workloads", "none"], &["unknown workload \"none\""]);
    place.refused(&["roofline", "--steps", "1"], &["--steps", "found 1"]);
}
