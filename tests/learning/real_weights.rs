//! Published checkpoints on published data: a small story model learns encyclopedia text, a sentence encoder learns sentiment.

use crate::support::{Place, shared};
use kiln_core::adapter::LoraConfig;
use kiln_data::split::order;
use kiln_sft::config::{SftConfig, Task};
use std::path::Path;

/// The lines of a file at `indices`, those that exist.
fn write_lines(from: &Path, indices: impl IntoIterator<Item = usize>, to: &Path) {
    let text = std::fs::read_to_string(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    let lines: Vec<&str> = text.lines().collect();
    let chosen: Vec<&str> = indices.into_iter().filter_map(|index| lines.get(index).copied()).collect();
    std::fs::write(to, chosen.join("\n")).expect("lines");
}

fn stories(adapter: Option<LoraConfig>, learning_rate: f64) {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let mut config = SftConfig { model: shared.join("models/stories260K"), adapter, seed: 5, ..SftConfig::default() };
    config.data.train = place.path("wiki.txt").into();
    write_lines(&shared.join("data/wikitext2/valid.txt"), 0..1200, config.data.train.first());
    config.block_tokens = 256;
    config.batch_rows = 8;
    config.update.learning_rate = learning_rate;
    config.update.warmup_share = 0.05;
    let summary = place.train(&config, "stories");
    assert!(
        summary.after.figure.value < 0.5 * summary.before.figure.value,
        "perplexity {} -> {}",
        summary.before.figure.value,
        summary.after.figure.value
    );
    assert!(summary.after.figure.interval.high < summary.before.figure.interval.low, "beyond chance");
}

#[test]
fn a_story_model_learns_encyclopedia_text() {
    stories(None, 3e-3);
}

#[test]
fn an_adapter_of_it_does_too() {
    stories(Some(LoraConfig { rank: 8, alpha: 16.0, ..LoraConfig::default() }), 1e-2);
}

#[test]
fn a_sentence_encoder_learns_sentiment() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let mut config =
        SftConfig { model: shared.join("models/all-MiniLM-L6-v2"), task: Task::Classification, seed: 5, ..SftConfig::default() };
    config.columns.names = ["text", "label"].map(str::to_owned).to_vec();
    config.data.train = place.path("train.tsv").into();
    config.data.held_out = Some(place.path("dev.tsv"));
    write_lines(&shared.join("data/sst2/train.tsv"), 0..400, &place.path("train.tsv"));
    // The file's rows are not in random order.
    write_lines(&shared.join("data/sst2/dev.tsv"), order(872, 0).into_iter().take(300), &place.path("dev.tsv"));
    config.epochs = 2;
    config.batch_rows = 16;
    config.update.learning_rate = 2e-4;
    config.update.warmup_share = 0.1;
    let summary = place.train(&config, "sentiment");
    assert!(summary.after.figure.value > 0.7, "accuracy {}", summary.after.figure.value);
    assert!(summary.after.figure.interval.low > summary.before.figure.interval.high, "beyond chance");
}
