//! How tokens are chosen, against transformers; and the laws of generation: the cache, the batch and what is watched change nothing.

use crate::support::{Golden, SIMPLE, assert_close, devices, fixture, rows, values};
use burn::tensor::Device;
use kiln_core::generate::{Continuation, Sampling, continuations};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::Packed;
use kiln_core::{adapter, config::ModelConfig};
use kiln_kernels::random::Key;
use kiln_kernels::sampling::{Choice, REMOVED};
use kiln_kernels::segments::Segments;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The cases of a fixture.
fn cases<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    #[derive(Deserialize)]
    struct File<T> {
        cases: Vec<T>,
    }
    let text = std::fs::read_to_string(fixture(name)).expect("a fixture");
    serde_json::from_str::<File<T>>(&text).expect("cases").cases
}

#[test]
fn logits_are_processed_as_by_transformers() {
    #[derive(Deserialize)]
    struct Case {
        settings: Map<String, Value>,
        logits: Vec<Vec<f32>>,
        ids: Vec<Vec<u32>>,
        processed: Vec<Vec<Option<f64>>>,
    }
    for case in cases::<Case>("sampling.json") {
        let number = |key: &str, default: f32| case.settings.get(key).map_or(default, |value| value.as_f64().expect("a number") as f32);
        let choice = Choice {
            temperature: number("temperature", 1.0),
            top_k: number("top_k", 0.0) as usize,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
        };
        for ((mut logits, mut seen), expected) in case.logits.into_iter().zip(case.ids).zip(case.processed) {
            seen.sort_unstable();
            seen.dedup();
            choice.process(&mut logits, &seen);
            let stays = |logit: &f32| *logit != REMOVED;
            assert_eq!(
                logits.iter().map(stays).collect::<Vec<_>>(),
                expected.iter().map(Option::is_some).collect::<Vec<_>>(),
                "{:?}",
                case.settings
            );
            let found: Vec<f32> = logits.into_iter().filter(stays).collect();
            assert_close("processed logits", &found, &expected.into_iter().flatten().collect::<Vec<_>>(), SIMPLE);
        }
    }
}

#[test]
fn beams_are_those_of_transformers() {
    #[derive(Deserialize)]
    struct Case {
        settings: Map<String, Value>,
        end_ids: Vec<u32>,
        prompt: Vec<u32>,
        continuations: Vec<Vec<u32>>,
        scores: Vec<f64>,
    }
    let cases = cases::<Case>("beam_search.json");
    assert!(cases.iter().flat_map(|case| &case.continuations).any(|ids| ids.len() < 10), "some end early");
    for device in devices() {
        let (model, _) = LanguageModel::load(&fixture("adapter_kinds/llama"), &device).expect("the model loads");
        // The prompts of equal settings together, as far as they lie together.
        for group in cases.chunk_by(|a, b| a.settings == b.settings && a.end_ids == b.end_ids) {
            assert!(group.len() > 1);
            let Case { settings, end_ids, .. } = &group[0];
            let number = |key: &str, default: f64| settings.get(key).map_or(default, |value| value.as_f64().expect("a number"));
            let sampling = Sampling {
                n_beams: number("num_beams", 1.0) as usize,
                length_penalty: number("length_penalty", 1.0),
                repetition_penalty: number("repetition_penalty", 1.0) as f32,
                max_new_tokens: 10,
                ..Sampling::default()
            };
            let prompts: Vec<Vec<u32>> = group.iter().map(|case| case.prompt.clone()).collect();
            let found = all(&model, &prompts, 3, &sampling, end_ids);
            for (case, found) in group.iter().zip(found) {
                let ids: Vec<&Vec<u32>> = found.iter().map(|continuation| &continuation.ids).collect();
                assert_eq!(ids, case.continuations.iter().collect::<Vec<_>>(), "{settings:?} {end_ids:?}");
                let score = |continuation: &Continuation| {
                    let sum: f64 = continuation.log_probabilities.iter().map(|&p| f64::from(p)).sum();
                    (sum / (continuation.ids.len() as f64).powf(sampling.length_penalty)) as f32
                };
                assert_close("scores", &found.iter().map(score).collect::<Vec<_>>(), &case.scores, SIMPLE);
                for Continuation { ids, ended, .. } in &found {
                    assert_eq!(*ended, end_ids.contains(&ids[ids.len() - 1]));
                }
            }
        }
    }
}

fn keys(n_prompts: usize, n_each: usize) -> Vec<Vec<Key>> {
    (0..n_prompts as u64).map(|prompt| (0..n_each as u64).map(|index| Key::new(9).fold(prompt).fold(index)).collect()).collect()
}

fn all(model: &LanguageModel, prompts: &[Vec<u32>], n_each: usize, sampling: &Sampling, end_ids: &[u32]) -> Vec<Vec<Continuation>> {
    continuations(model, prompts, &keys(prompts.len(), n_each), sampling, end_ids, &mut |_, _| true).expect("continuations")
}

/// Models with different caches: grouped heads, a window shorter than the texts, learned positions, an adapter whose lengths are fixed.
fn models(device: &Device) -> Vec<(&'static str, LanguageModel)> {
    let load = |name: &str| LanguageModel::load(&fixture(name), device).expect("the model loads").0;
    let mut raw = ModelConfig::from_folder(&fixture("lora")).expect("a configuration").raw;
    raw.insert("model_type".into(), "mistral".into());
    raw.insert("sliding_window".into(), 5.into());
    let config = ModelConfig::from_json(raw, &fixture("lora")).expect("a configuration with a window");
    assert_eq!(config.window.as_ref().map(|window| window.tokens), Some(5));
    // Large weights, for distributions that are not even.
    let config = ModelConfig { initializer_range: 0.3, ..config };
    let windowed = LanguageModel::new(config, device, Key::new(2)).expect("random weights");
    let dora = adapter::load(load("adapter_kinds/llama"), &fixture("adapter_kinds/dora"), device).expect("the adapter loads");
    vec![("llama", load("lora")), ("a window", windowed), ("gpt2", load("gpt2")), ("DoRA", dora)]
}

fn prompts() -> Vec<Vec<u32>> {
    rows(&Golden::open(&fixture("lora").join("golden.safetensors")), "").into_iter().map(|row| row.ids).collect()
}

fn settings() -> [Sampling; 4] {
    let greedy = Sampling { max_new_tokens: 12, ..Sampling::default() };
    [
        Sampling { repetition_penalty: 1.3, ..greedy.clone() },
        Sampling { temperature: 0.9, ..greedy.clone() },
        Sampling { temperature: 1.4, top_k: 20, top_p: 0.9, min_p: 0.02, repetition_penalty: 1.1, ..greedy.clone() },
        greedy,
    ]
}

/// Each token's log-probability is that of the whole text so far, computed at once, without a cache.
#[test]
fn the_cache_changes_no_log_probability() {
    for device in devices() {
        for (name, model) in models(&device) {
            for sampling in settings() {
                let choice = Choice {
                    temperature: if sampling.temperature == 0.0 { 1.0 } else { sampling.temperature },
                    top_k: sampling.top_k,
                    top_p: sampling.top_p,
                    min_p: sampling.min_p,
                    repetition_penalty: sampling.repetition_penalty,
                };
                for (prompt, group) in prompts().iter().zip(all(&model, &prompts(), 2, &sampling, &[])) {
                    for Continuation { ids, log_probabilities, .. } in group {
                        assert_eq!(ids.len(), 12);
                        let whole = [prompt.as_slice(), &ids].concat();
                        let logits = values(model.logits(model.trunk.forward(&Packed::new([whole.as_slice()]), None)));
                        let rows: Vec<&[f32]> = logits.chunks_exact(model.config().vocab_size).collect();
                        let expected: Vec<f64> = (0..ids.len())
                            .map(|step| {
                                let mut row = rows[prompt.len() + step - 1].to_vec();
                                let mut seen = whole[..prompt.len() + step].to_vec();
                                seen.sort_unstable();
                                seen.dedup();
                                choice.process(&mut row, &seen);
                                let largest = row.iter().fold(f32::MIN, |most, &z| most.max(z));
                                let total: f64 = row.iter().map(|&z| f64::from(z - largest).exp()).sum();
                                f64::from(row[ids[step] as usize] - largest) - total.ln()
                            })
                            .collect();
                        assert_close(name, &log_probabilities, &expected, SIMPLE);
                    }
                }
            }
        }
    }
}

/// Ragged prompts with two continuations each, some of which end early, and each by itself: the same tokens, and log-probabilities but for
/// rounding.
#[test]
fn a_batch_changes_nothing() {
    for device in devices() {
        for (name, model) in models(&device) {
            let prompts = prompts();
            for sampling in settings() {
                // A token that one continuation meets early on.
                let end_ids = [all(&model, &prompts, 2, &sampling, &[])[0][0].ids[3]];
                let together = all(&model, &prompts, 2, &sampling, &end_ids);
                assert!(together.iter().flatten().any(|continuation| continuation.ended));
                for ((prompt, keys), group) in prompts.iter().zip(keys(prompts.len(), 2)).zip(&together) {
                    for (key, expected) in keys.into_iter().zip(group) {
                        let prompt = std::slice::from_ref(prompt);
                        let alone = continuations(&model, prompt, &[vec![key]], &sampling, &end_ids, &mut |_, _| true).expect("one");
                        let [alone] = &alone[0][..] else { panic!("one continuation") };
                        assert_eq!((&alone.ids, alone.ended), (&expected.ids, expected.ended), "{name} {sampling:?}");
                        let log_probabilities: Vec<f64> = expected.log_probabilities.iter().map(|&p| p.into()).collect();
                        assert_close(name, &alone.log_probabilities, &log_probabilities, SIMPLE);
                    }
                }
            }
        }
    }
}

#[test]
fn who_watches_sees_every_token_and_may_end_a_sequence() {
    for device in devices() {
        let (model, _) = LanguageModel::load(&fixture("lora"), &device).expect("the model loads");
        let (prompts, sampling) = (prompts(), &settings()[1]);
        let free = all(&model, &prompts, 2, sampling, &[]);
        let mut seen = vec![Vec::new(); 2 * prompts.len()];
        let mut watch = |sequence: usize, continuation: &Continuation| {
            seen[sequence].push(*continuation.ids.last().expect("a token"));
            assert_eq!(seen[sequence], continuation.ids);
            sequence != 1 || continuation.ids.len() < 4
        };
        let watched = continuations(&model, &prompts, &keys(prompts.len(), 2), sampling, &[], &mut watch).expect("continuations");
        for (sequence, (watched, free)) in watched.iter().flatten().zip(free.iter().flatten()).enumerate() {
            let length = if sequence == 1 { 4 } else { 12 };
            assert_eq!((&watched.ids[..], watched.ended), (&free.ids[..length], sequence == 1));
            assert_eq!(seen[sequence], watched.ids);
        }
    }
}

/// A decoder of three blocks with a window of 5 tokens in the first and the last.
fn sliding(device: &Device) -> LanguageModel {
    let Value::Object(keys) = serde_json::json!({
        "model_type": "qwen3", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512, "tie_word_embeddings": true, "initializer_range": 0.3,
        "use_sliding_window": true, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }) else {
        unreachable!("an object")
    };
    let config = ModelConfig::from_json(keys, std::path::Path::new("config.json")).expect("a configuration");
    LanguageModel::new(config, device, Key::new(9)).expect("a model")
}

/// Ragged sequences of up to 70 windows, fed in pieces of one token and of many, against one pass over all; and what the cache holds of them.
#[test]
fn a_cache_keeps_the_window_and_says_the_same() {
    const LENGTHS: [usize; 3] = [350, 171, 6];
    let ids =
        |sequence: usize| -> Vec<u32> { (0..LENGTHS[sequence] as u64).map(|at| Key::new(sequence as u64).below(at, 50) as u32).collect() };
    let sequences: Vec<Vec<u32>> = (0..LENGTHS.len()).map(ids).collect();
    for device in devices() {
        let model = sliding(&device);
        let whole = Packed::new(sequences.iter().map(Vec::as_slice));
        let expected = values(model.logits(model.trunk.forward(&whole, None)));
        let expected = |sequence: usize, at: usize| {
            let row = LENGTHS[..sequence].iter().sum::<usize>() + at;
            expected[row * 50..(row + 1) * 50].iter().map(|&logit| f64::from(logit)).collect::<Vec<_>>()
        };
        let mut cache = model.trunk.cache(LENGTHS.len(), 350, &device);
        let mut done = [0; LENGTHS.len()];
        // The prompts, then a token each, then many again, then one by one.
        for pass in 0.. {
            let news: Vec<usize> = (0..LENGTHS.len())
                .map(|sequence| match (pass, sequence) {
                    (0, _) => [101, 3, 4][sequence],
                    (1..80, _) => 1,
                    (80, 0) => 75,
                    _ => 1,
                })
                .zip(LENGTHS.iter().zip(done))
                .map(|(new, (length, done))| new.min(length - done))
                .collect();
            if news.iter().all(|&new| new == 0) {
                break;
            }
            let ids: Vec<u32> =
                (0..LENGTHS.len()).flat_map(|sequence| sequences[sequence][done[sequence]..][..news[sequence]].to_vec()).collect();
            let logits = values(model.next_logits(&ids.into(), &Segments::from_lengths(news.clone()), &mut cache));
            done.iter_mut().zip(&news).for_each(|(done, new)| *done += new);
            let live = (0..LENGTHS.len()).filter(|&sequence| news[sequence] > 0);
            for (found, sequence) in logits.chunks(50).zip(live) {
                assert_close(&format!("pass {pass}, sequence {sequence}"), found, &expected(sequence, done[sequence] - 1), SIMPLE);
            }
            if pass == 90 {
                // Copies go on from where their sequences are.
                cache = cache.copies(&[0, 1, 2], 350);
            }
            // Keys and values of width 8: 350 rows in the block without a window, 69 in the others.
            assert_eq!(cache.n_bytes(), 4 * 2 * 8 * LENGTHS.len() * (350 + 2 * 69), "pass {pass}");
        }
        assert_eq!(done, LENGTHS);
    }
}
