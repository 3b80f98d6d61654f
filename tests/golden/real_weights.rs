//! Published checkpoints against what their reference implementations computed: a small story model and a sentence encoder.

use crate::support::{SIMPLE, assert_close, devices, shared, values};
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::{SentenceEncoder, SentenceHead};
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::pool::Pooling;
use kiln_kernels::random::Key;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;

#[derive(Deserialize)]
struct Stories {
    greedy_from_bos_ids: Vec<u32>,
    greedy_from_bos_text: String,
    prompt: String,
    prompt_ids: Vec<u32>,
    last_logits_first8: Vec<f64>,
    last_top5: Vec<(u32, f64)>,
    tok_golden: Vec<(String, Vec<u32>)>,
}

#[derive(Deserialize)]
struct Sentences {
    sentences: Vec<String>,
    input_ids: Vec<Vec<u32>>,
    first8: Vec<Vec<f64>>,
    cosine: Vec<Vec<f64>>,
}

fn read<T: DeserializeOwned>(folder: &Path) -> T {
    let path = folder.join("golden.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn stories_tokenizer() {
    let Some(folder) = shared("models/stories260K") else { return };
    let golden: Stories = read(&folder);
    let tokenizer = Tokenizer::from_folder(&folder).expect("the tokenizer loads");
    for (text, ids) in golden.tok_golden.iter().chain([&(golden.prompt, golden.prompt_ids)]) {
        assert_eq!(&tokenizer.encode(text).expect("ids"), ids, "{text:?}");
    }
    assert_eq!(tokenizer.decode(&golden.greedy_from_bos_ids).expect("a text"), golden.greedy_from_bos_text);
}

#[test]
fn stories_continuation() {
    let Some(folder) = shared("models/stories260K") else { return };
    let golden: Stories = read(&folder);
    for device in devices() {
        let (model, fit) = LanguageModel::load(&folder, &device).expect("the model loads");
        assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
        let (prompt, expected) = golden.greedy_from_bos_ids.split_at(1);
        let sampling = Sampling { max_new_tokens: expected.len(), ..Sampling::default() };
        let new = generate(&model, &[prompt.to_vec()], &sampling, &[], Key::new(0)).expect("the model continues a text");
        assert_eq!(new[0], expected);
    }
}

#[test]
fn stories_logits() {
    let Some(folder) = shared("models/stories260K") else { return };
    let golden: Stories = read(&folder);
    for device in devices() {
        let (model, _) = LanguageModel::load(&folder, &device).expect("the model loads");
        let logits = values(model.logits(model.trunk.forward(&Packed::new([golden.prompt_ids.as_slice()]), None)));
        let last = logits.rchunks_exact(512).next().expect("a row of logits");
        assert_close("first logits", &last[..8], &golden.last_logits_first8, SIMPLE);
        let mut order: Vec<u32> = (0..512).collect();
        order.sort_by(|&a, &b| last[b as usize].total_cmp(&last[a as usize]));
        for (&found, &(id, logit)) in order.iter().zip(&golden.last_top5) {
            assert_eq!(found, id, "order of the best tokens");
            assert_close("logit of a best token", &[last[id as usize]], &[logit], SIMPLE);
        }
    }
}

#[test]
fn sentence_tokenizer() {
    let Some(folder) = shared("models/all-MiniLM-L6-v2") else { return };
    let golden: Sentences = read(&folder);
    let tokenizer = Tokenizer::from_folder(&folder).expect("the tokenizer loads");
    assert_eq!(tokenizer.encode_all(golden.sentences).expect("ids"), golden.input_ids);
}

#[test]
fn sentence_embeddings() {
    let Some(folder) = shared("models/all-MiniLM-L6-v2") else { return };
    let golden: Sentences = read(&folder);
    for device in devices() {
        let (encoder, fit) = SentenceEncoder::load(&folder, &device).expect("the encoder loads");
        assert!(fit.new.is_empty(), "{fit:?}");
        assert_eq!(encoder.head(), SentenceHead { pooling: Pooling::Mean, normalize: true, max_tokens: 256 });
        let embeddings = encoder.embed(&golden.input_ids);
        for (index, embedding) in embeddings.iter().enumerate() {
            assert_close(&golden.sentences[index], &embedding[..8], &golden.first8[index], SIMPLE);
            let cosines: Vec<f32> = embeddings.iter().map(|other| dot(embedding, other)).collect();
            assert_close("cosines", &cosines, &golden.cosine[index], SIMPLE);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
