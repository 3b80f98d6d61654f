//! Encoders through adapters and with computed-again blocks: they learn, their files hold what was trained, and memory is saved for nothing.

use crate::embeddings::{config, pairs, run, write};
use crate::support::{Place, flex};
use kiln_contrastive::config::{ContrastiveConfig, EvalConfig, Objective};
use kiln_contrastive::evaluate::evaluate;
use kiln_core::adapter::{self, LoraConfig};
use kiln_core::checkpoint::Weights;
use kiln_core::sentence_encoder::is_sentence_encoder;
use kiln_data::world::Domain;
use serde_json::Value;
use std::path::Path;

fn texts(place: &Place, n: usize, n_held_out: usize) {
    write(place, "texts", &Domain::ALL.map(|domain| place.world.documents(domain, n)).concat());
    write(place, "texts-held-out", &Domain::ALL.map(|domain| place.world.held_out().documents(domain, n_held_out)).concat());
}

fn lora() -> Option<LoraConfig> {
    Some(LoraConfig { rank: 8, alpha: 16.0, ..LoraConfig::default() })
}

#[test]
fn an_adapter_learns_to_find_paraphrases() {
    let place = Place::new();
    pairs(&place, 1500, 200);
    let mut config = ContrastiveConfig { adapter: lora(), ..config(&place, Objective::Mnrl, "pairs", "pairs") };
    config.update.learning_rate = 1e-2;
    let mut control = config.clone();
    control.data.train = place.path("pairs-control.jsonl").into();
    let control = run(&place, &control, "control");
    let summary = run(&place, &config, "adapter");
    assert!(
        summary.effort.n_trainable < summary.effort.n_parameters / 3,
        "{} of {}",
        summary.effort.n_trainable,
        summary.effort.n_parameters
    );
    let (before, after) = (&summary.before.figures[0], &summary.after.figures[0]);
    assert!(after.interval.low > control.after.figures[0].interval.high, "it beats the control beyond chance");
    let gain = &summary.difference[0];
    assert_eq!(gain.value, after.value - before.value);
    assert!(gain.interval.low > 0.0 && gain.interval.contains(gain.value), "{gain:?}");

    let folder = place.path("adapter/adapter");
    assert!(folder.join(adapter::WEIGHTS_FILE).is_file());
    let settings: Value = kiln_core::files::read_json(&folder.join(adapter::CONFIG_FILE)).expect("JSON");
    assert_eq!(settings["task_type"], "FEATURE_EXTRACTION");
    let judge = |model: &Path, adapter: Option<&Path>| {
        let (model, adapter) = (model.to_owned(), adapter.map(Path::to_owned));
        let config = EvalConfig { model, adapter, data: place.path("pairs-held-out.jsonl"), seed: 5, ..EvalConfig::default() };
        let (evaluation, counts) = evaluate(&config, &flex()).expect("an evaluation");
        assert_eq!(counts.n_rows, 200);
        evaluation.figures.iter().map(|figure| figure.value).collect::<Vec<_>>()
    };
    let values =
        |evaluation: &kiln_contrastive::evaluate::Evaluation| evaluation.figures.iter().map(|figure| figure.value).collect::<Vec<_>>();
    let base = place.path("encoder");
    assert_eq!(judge(&base, None), values(&summary.before));
    assert_eq!(judge(&base, Some(&folder)), values(&summary.after), "the saved adapter is what was trained");
    let merged = place.path("adapter/model");
    for (merged, beside) in judge(&merged, None).into_iter().zip(values(&summary.after)) {
        assert!((merged - beside).abs() < 0.01, "merging changes nothing: {merged}, {beside}");
    }
    assert!(is_sentence_encoder(&merged).expect("a model"), "the merged folder is one of sentence-transformers");
}

#[test]
fn an_adapter_learns_to_predict_hidden_words() {
    let place = Place::new();
    texts(&place, 200, 40);
    let mut config = ContrastiveConfig { batch_rows: 16, epochs: 3, adapter: lora(), ..config(&place, Objective::Mlm, "texts", "texts") };
    config.update.learning_rate = 1e-2;
    let summary = run(&place, &config, "adapter");
    assert!(summary.difference[0].interval.high < 0.0, "the masked loss falls beyond chance: {:?}", summary.difference);
    let read = |folder: &str, name: &str, shape: &[usize]| {
        Weights::open(&place.path(folder)).expect("weights").read(name, shape).expect("a tensor")
    };
    let vocab_size = Weights::open(&place.path("encoder")).expect("weights").shape("cls.predictions.bias").expect("a bias")[0];
    for (name, shape, changes) in [
        ("bert.embeddings.word_embeddings.weight", &[vocab_size, 64][..], false),
        ("cls.predictions.bias", &[vocab_size], false),
        ("cls.predictions.transform.dense.weight", &[64, 64], true),
        ("cls.predictions.transform.LayerNorm.weight", &[64], true),
        ("bert.encoder.layer.0.attention.self.query.weight", &[64, 64], true),
    ] {
        assert_eq!(read("encoder", name, shape) != read("adapter/model", name, shape), changes, "{name}");
    }
}

/// Each objective's own way through the loop, with dropout, with and without an adapter.
#[test]
fn computing_blocks_again_gives_the_same_bytes() {
    let place = Place::new();
    pairs(&place, 128, 40);
    texts(&place, 24, 8);
    for (objective, rows, adapter) in [
        (Objective::Mlm, "texts", None),
        (Objective::Mlm, "texts", lora()),
        (Objective::Mnrl, "pairs", lora()),
        (Objective::CachedMnrl, "pairs", None),
    ] {
        let kept = ContrastiveConfig { micro_batch_tokens: 600, batch_rows: 32, adapter, ..config(&place, objective, rows, rows) };
        let again = ContrastiveConfig { gradient_checkpointing: true, ..kept.clone() };
        let name = |what: &str| format!("{objective:?} {} {what}", kept.adapter.is_some());
        let (kept, kept_name, again_name) = (run(&place, &kept, &name("kept")), name("kept"), name("again"));
        let again = run(&place, &again, &again_name);
        assert_eq!(place.losses(&kept_name), place.losses(&again_name), "{kept_name}");
        assert!(place.weights(&kept_name) == place.weights(&again_name), "{kept_name}: the same bytes");
        assert_eq!(kept.after.figures[0].value, again.after.figures[0].value, "{kept_name}");
        assert_ne!(kept.difference[0].value, 0.0, "{kept_name}: it trains");
    }
}
