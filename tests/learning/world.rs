//! The sample world: a decoder learns to answer, in full and through an adapter; an encoder to tell topics apart, to give numbers and to find names; and preferences and chats.

use crate::support::{Place, flex};
use kiln_core::adapter::{self, LoraConfig};
use kiln_data::world::{Domain, write_jsonl};
use kiln_sft::config::{EvalConfig, SftConfig, Task};
use kiln_sft::evaluate::evaluate;
use std::path::Path;

/// A decoder that has read some documents of the world, in the run `base`; and questions to learn from.
fn with_base() -> Place {
    let place = Place::new();
    for (name, world, n) in [("documents", place.world.clone(), 800), ("documents-held-out", place.world.held_out(), 30)] {
        let documents = Domain::ALL.map(|domain| world.documents(domain, n)).concat();
        write_jsonl(&place.path(&format!("{name}.jsonl")), &documents).expect("rows");
    }
    let mut config = place.config(Task::NextToken, "decoder", "documents", "documents");
    (config.batch_rows, config.batch_tokens) = (0, 512);
    config.update.learning_rate = 3e-3;
    let summary = place.train(&config, "base");
    assert!(
        summary.after.figure.value < 0.2 * summary.before.figure.value,
        "the base model learns: {} -> {}",
        summary.before.figure.value,
        summary.after.figure.value
    );
    place.questions(1500, 150);
    place
}

fn questions(place: &Place, rows: &str, learning_rate: f64) -> SftConfig {
    let mut config = place.config(Task::NextToken, "base/model", rows, "questions");
    config.epochs = 6;
    config.update.learning_rate = learning_rate;
    config.update.warmup_share = 0.05;
    config
}

#[test]
fn a_decoder_learns_to_answer() {
    let place = with_base();
    let control = place.train(&questions(&place, "questions-control", 2e-3), "control");
    let summary = place.train(&questions(&place, "questions", 2e-3), "full");
    assert!(summary.after.loss < 0.5 * summary.before.loss, "the held-out loss falls");
    assert!(summary.after.loss < 0.8 * control.after.loss, "it beats the control");
    assert!(summary.after.figure.interval.high < control.after.figure.interval.low, "beyond chance");
}

#[test]
fn an_adapter_learns_to_answer() {
    let place = with_base();
    let lora = Some(LoraConfig::default());
    let control = place.train(&SftConfig { adapter: lora.clone(), ..questions(&place, "questions-control", 1e-2) }, "control");
    let summary = place.train(&SftConfig { adapter: lora, ..questions(&place, "questions", 1e-2) }, "adapter");
    assert!(
        summary.effort.n_trainable < summary.effort.n_parameters / 2,
        "{} of {}",
        summary.effort.n_trainable,
        summary.effort.n_parameters
    );
    assert!(summary.after.loss < 0.5 * summary.before.loss, "the held-out loss falls");
    assert!(summary.after.figure.interval.high < control.after.figure.interval.low, "it beats the control beyond chance");

    let run = place.path("adapter");
    for file in [adapter::WEIGHTS_FILE, adapter::CONFIG_FILE] {
        assert!(run.join("adapter").join(file).is_file(), "{file}");
    }
    let judge = |model: &Path, adapter: Option<&Path>| {
        let (model, adapter) = (model.to_owned(), adapter.map(Path::to_owned));
        let config = EvalConfig { model, adapter, data: place.path("questions-held-out.jsonl"), ..EvalConfig::default() };
        evaluate(&config, &flex()).expect("an evaluation").loss
    };
    let merged = judge(&run.join("model"), None);
    let beside = judge(&place.path("base/model"), Some(&run.join("adapter")));
    let base = judge(&place.path("base/model"), None);
    println!("held-out loss: base {base:.6}, base with the adapter beside {beside:.6}, merged {merged:.6} nats");
    for (what, found, expected) in [
        ("the base model is as it was", base, summary.before.loss),
        ("the saved adapter is what was trained", beside, summary.after.loss),
        ("merging changes nothing", merged, beside),
    ] {
        assert!((found - expected).abs() < 1e-5, "{what}: {found}, {expected}");
    }
}

#[test]
fn a_decoder_learns_preferences() {
    let place = with_base();
    place.preferences(600, 150);
    let run = |rows: &str, out: &str, adapter: Option<LoraConfig>| {
        let mut config = place.config(Task::Preference, "base/model", rows, "preferences");
        config.epochs = 3;
        config.update.learning_rate = if adapter.is_some() { 4e-3 } else { 5e-4 };
        config.update.warmup_share = 0.1;
        config.adapter = adapter;
        place.train(&config, out)
    };
    let control = run("preferences-control", "control", None);
    for (out, adapter) in [("full", None), ("low-rank", Some(LoraConfig::default()))] {
        let summary = run("preferences", out, adapter.clone());
        assert_eq!((summary.before.figure.value, summary.before.others[0].value), (0.5, 0.0), "a model does not differ from itself");
        assert!(summary.after.figure.value > 0.7, "{out}: preference accuracy {}", summary.after.figure.value);
        assert!(summary.after.figure.interval.low > control.after.figure.interval.high, "{out}: it beats the control beyond chance");
        assert!(
            summary.after.others[0].interval.low > 0.0 && summary.after.loss < summary.before.loss,
            "{out}: {:?}",
            summary.after.others
        );
        // Judged again from the saved files: the merged model beside the one before training, or the adapter on top of that.
        let (base, run) = (place.path("base/model"), place.path(out));
        let mut config = EvalConfig { data: place.path("preferences-held-out.jsonl"), ..EvalConfig::default() };
        (config.model, config.reference) = (run.join("model"), Some(base.clone()));
        let merged = evaluate(&config, &flex()).expect("an evaluation");
        assert!((merged.loss - summary.after.loss).abs() < 1e-4, "{out}: {} {}", merged.loss, summary.after.loss);
        if adapter.is_some() {
            (config.model, config.reference, config.adapter) = (base, None, Some(run.join("adapter")));
            let beside = evaluate(&config, &flex()).expect("an evaluation");
            assert!((beside.loss - summary.after.loss).abs() < 1e-5, "{out}: {} {}", beside.loss, summary.after.loss);
        }
    }
}

#[test]
fn a_decoder_learns_to_chat() {
    let place = with_base();
    place.give_template(&place.path("base/model"));
    place.chats(750, 75);
    let run = |rows: &str, out: &str| {
        let mut config = place.config(Task::NextToken, "base/model", rows, "chats");
        config.epochs = 6;
        config.update.learning_rate = 2e-3;
        config.update.warmup_share = 0.05;
        place.train(&config, out)
    };
    let control = run("chats-control", "control");
    let summary = run("chats", "chats");
    assert!(summary.after.loss < 0.5 * summary.before.loss, "the held-out loss falls");
    assert!(summary.after.figure.interval.high < control.after.figure.interval.low, "it beats the control beyond chance");
    assert!(place.path("chats/model/chat_template.jinja").is_file(), "the template goes with the model");
    assert_saved(&place, "chats", "chats-held-out.jsonl", summary.after.loss);
}

#[test]
fn an_encoder_learns_topics() {
    let place = Place::new();
    place.topics(1500, 300);
    let run = |rows: &str, out: &str| {
        let mut config = place.config(Task::Classification, "encoder", rows, "topics");
        config.epochs = 10;
        config.update.learning_rate = 2e-3;
        config.update.warmup_share = 0.1;
        place.train(&config, out)
    };
    let control = run("topics-control", "control");
    let summary = run("topics", "topics");
    assert!(summary.after.figure.value > 0.6, "{} of six topics", summary.after.figure.value);
    assert!(summary.after.figure.interval.low > control.after.figure.interval.high, "it beats the control beyond chance");
}

#[test]
fn an_encoder_learns_numbers() {
    let place = Place::new();
    place.scores(1500, 300);
    let run = |rows: &str, out: &str| {
        let mut config = place.config(Task::Regression, "encoder", rows, "scores");
        config.epochs = 10;
        config.update.learning_rate = 2e-3;
        config.update.warmup_share = 0.1;
        place.train(&config, out)
    };
    let control = run("scores-control", "control");
    let summary = run("scores", "scores");
    assert!(summary.after.figure.value > 0.4, "Spearman's correlation {}", summary.after.figure.value);
    assert!(summary.after.figure.interval.low > control.after.figure.interval.high, "it beats the control beyond chance");
    let [pearson, error] = &summary.after.others[..] else { panic!("{:?}", summary.after.others) };
    assert!(pearson.interval.contains(pearson.value) && error.interval.high < 35.0 / 12.0, "better than the mean of 0 to 5: {error:?}");
    assert_saved(&place, "scores", "scores-held-out.jsonl", summary.after.loss);
}

#[test]
fn an_encoder_learns_names() {
    let place = Place::new();
    place.entities(1500, 200);
    let run = |rows: &str, out: &str| {
        let mut config = place.config(Task::TokenClassification, "encoder", rows, "entities");
        config.epochs = 10;
        config.update.learning_rate = 2e-3;
        config.update.warmup_share = 0.1;
        place.train(&config, out)
    };
    let control = run("entities-control", "control");
    let summary = run("entities", "entities");
    assert!(summary.after.figure.value > 0.7, "F1 of entities {}", summary.after.figure.value);
    assert!(summary.after.figure.interval.low > control.after.figure.interval.high, "it beats the control beyond chance");
    assert_saved(&place, "entities", "entities-held-out.jsonl", summary.after.loss);
}

/// The saved folder of a run, loaded again, is as good as the model was.
fn assert_saved(place: &Place, run: &str, data: &str, loss: f64) {
    let config = EvalConfig { model: place.path(run).join("model"), data: place.path(data), ..EvalConfig::default() };
    let again = evaluate(&config, &flex()).expect("an evaluation").loss;
    assert!((again - loss).abs() < 1e-6, "{again}, {loss}");
}
