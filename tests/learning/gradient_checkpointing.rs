//! Computing the blocks again in the backward pass changes memory and time, not one byte of what is learnt.

use crate::support::{Place, flex};
use kiln_core::adapter::LoraConfig;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use serde_json::Value;
use std::path::Path;

fn assert_same_bytes(place: &Place, config: &SftConfig) {
    let kept = place.train(config, "kept");
    let again = place.train(&SftConfig { gradient_checkpointing: true, ..config.clone() }, "again");
    assert_eq!(place.losses("kept"), place.losses("again"));
    assert!(place.weights("kept") == place.weights("again"), "the same bytes");
    assert_eq!(kept.after.loss, again.after.loss);
    assert_ne!(kept.after.loss, kept.before.loss, "it trains");
}

fn encoder(place: &Place) -> SftConfig {
    place.topics(160, 40);
    let config = place.config(Task::Classification, "encoder", "topics", "topics");
    SftConfig { batch_rows: 16, dropout: true, ..config }
}

fn decoder(place: &Place) -> SftConfig {
    place.questions(160, 40);
    let config = place.config(Task::NextToken, "decoder", "questions", "questions");
    SftConfig { batch_rows: 16, ..config }
}

fn adapter() -> Option<LoraConfig> {
    Some(LoraConfig { rank: 4, ..LoraConfig::default() })
}

#[test]
fn of_an_encoder_with_dropout() {
    let place = Place::new();
    assert_same_bytes(&place, &encoder(&place));
}

#[test]
fn of_an_encoder_with_an_adapter() {
    let place = Place::new();
    assert_same_bytes(&place, &SftConfig { adapter: adapter(), ..encoder(&place) });
}

#[test]
fn of_a_decoder_with_a_tied_head() {
    let place = Place::new();
    assert_same_bytes(&place, &decoder(&place));
}

#[test]
fn of_a_decoder_with_a_head_of_its_own() {
    let place = Place::new();
    let tokenizer = Tokenizer::from_folder(&place.path("decoder")).expect("a tokenizer");
    let mut keys = ModelConfig::from_folder(&place.path("decoder")).expect("a configuration").raw;
    keys.insert("tie_word_embeddings".into(), Value::Bool(false));
    let untied = LanguageModel::new(ModelConfig::from_json(keys, Path::new("config.json")).expect("valid"), &flex(), Key::new(4));
    model::save(&untied.expect("a model"), &tokenizer, &place.path("untied")).expect("saved");
    let config = decoder(&place);
    assert_same_bytes(&place, &SftConfig { model: place.path("untied"), ..config });
}

#[test]
fn of_a_decoder_with_an_adapter() {
    let place = Place::new();
    assert_same_bytes(&place, &SftConfig { adapter: adapter(), ..decoder(&place) });
}

/// Several backward passes add up in the update; the tied table gets two gradients in each.
#[test]
fn of_batches_cut_into_parts() {
    let place = Place::new();
    assert_same_bytes(&place, &SftConfig { micro_batch_tokens: 100, ..decoder(&place) });
    let place = Place::new();
    assert_same_bytes(&place, &SftConfig { micro_batch_tokens: 100, ..encoder(&place) });
}
