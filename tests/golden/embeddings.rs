//! Masked language modelling against transformers, embedding losses against sentence-transformers, and the laws of the gradient cache.

use crate::support::{
    Array, COMPOSED, Golden, SIMPLE, as_expected, assert_close, assert_gradients, by_path, by_tensor_name, devices, fixture, gradients,
    loss_sum, packed, rows, values,
};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_contrastive::objective::multiple_negatives_ranking as ranking;
use kiln_contrastive::objective::{cosent, gradient_cache, simcse, triplet};
use kiln_core::checkpoint::Weights;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::{SentenceEncoder, SentenceHead};
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::pool::{Pooling, normalize_l2};
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn masked_language_modelling() {
    let folder = fixture("bert_masked_lm");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    for device in devices() {
        let (model, fit) = LanguageModel::load(&folder, &device.autodiff()).expect("the model loads");
        assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
        let (loss, n_tokens) = loss_sum(&model, &rows(&golden, ""));
        let loss = loss.div_scalar(n_tokens as f64);
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        assert_gradients("masked lm", &by_tensor_name(&model, gradients(&model, &loss)), &golden.with_prefix("grad."));
    }
}

/// A checkpoint of the bare trunk gets a new head, the same for the same key; what needs the head says so.
#[test]
fn an_encoder_without_a_head_gets_a_new_one() {
    let folder = fixture("sentence_losses");
    let device = &devices()[0];
    let error = LanguageModel::load(&folder, device).unwrap_err().to_string();
    assert!(error.contains("\"cls.predictions.transform.dense.weight\" is missing"), "{error}");
    let head = |key| {
        let (model, fit) = LanguageModel::from_pretrained(&folder, device, Key::new(key)).expect("the model loads");
        assert_eq!(fit.new.len(), 5, "{:?}", fit.new);
        values(model.head.transform.expect("an encoder's head").weight.val())
    };
    assert_eq!(head(1), head(1));
    assert_ne!(head(1), head(2));
}

/// A loss of embeddings and over how many items it is summed.
type Loss = Box<dyn Fn(Tensor<2>) -> Tensor<1>>;

#[test]
fn losses_of_embeddings() {
    let golden = Golden::open(&fixture("sentence_losses").join("golden.safetensors"));
    let scores = golden.get("cosent.scores").values.clone();
    let n = scores.len();
    let rank = |scale, symmetric| -> Loss { Box::new(move |x| ranking::loss(x, n, &Vec::new(), scale, symmetric)) };
    let texts: Vec<Vec<u32>> = (0..n as u32).map(|text| vec![text]).collect();
    let cases: [(&str, f64, Loss); 10] = [
        ("ranking", n as f64, rank(20.0, false)),
        ("ranking_scale_5", n as f64, rank(5.0, false)),
        ("ranking_negatives", n as f64, rank(20.0, false)),
        ("ranking_symmetric", n as f64, rank(20.0, true)),
        ("ranking_symmetric_negatives", n as f64, rank(20.0, true)),
        // Under given embeddings SimCSE is the same loss.
        (
            "ranking",
            n as f64,
            Box::new(move |x| {
                let doubled: Vec<&[u32]> = texts.iter().chain(&texts).map(Vec::as_slice).collect();
                simcse::loss(x, &doubled, 20.0)
            }),
        ),
        ("cosent", 1.0, Box::new(move |x| cosent::loss(x, &scores, 20.0))),
        ("triplet", n as f64, Box::new(|x| triplet::loss(x, 5.0))),
        ("triplet_margin_half", n as f64, Box::new(|x| triplet::loss(x, 0.5))),
        // The length of the vectors is no matter of cosines.
        ("ranking", n as f64, Box::new(move |x| ranking::loss(normalize_l2(x), n, &Vec::new(), 20.0, false))),
    ];
    for device in devices() {
        for (name, n_items, loss) in &cases {
            let Array { shape, values: embeddings } = golden.get(&format!("{name}.embeddings"));
            let data = TensorData::new(embeddings.iter().map(|&x| x as f32).collect(), [shape[0], shape[1]]);
            let leaf = Tensor::<2>::from_data(data, &device.clone().autodiff()).require_grad();
            let loss = loss(leaf.clone()).div_scalar(*n_items);
            assert_close(name, &values(loss.clone()), &golden.get(&format!("{name}.loss")).values, SIMPLE);
            let gradient = leaf.grad(&loss.backward()).expect("a gradient");
            assert_close(&format!("{name}: gradient"), &values(gradient), &golden.get(&format!("{name}.gradient")).values, SIMPLE);
        }
    }
}

/// Anchors, their positives and their hard negatives of the batch that goes through the model.
const N_ANCHORS: usize = 4;

/// The fixture's checkpoint with this dropout, and with what sentence-transformers adds to one.
fn source(folder: &Path, head: SentenceHead, dropout: f64) {
    std::fs::copy(fixture("sentence_losses").join("model.safetensors"), folder.join("model.safetensors")).expect("copied");
    let mut config: Value = kiln_core::files::read_json(&fixture("sentence_losses").join("config.json")).expect("a configuration");
    for key in ["hidden_dropout_prob", "attention_probs_dropout_prob"] {
        config[key] = json!(dropout);
    }
    kiln_core::files::write_json(&folder.join("config.json"), &config).expect("written");
    head.save(16, folder, folder).expect("saved");
}

fn encoder(device: &Device, dropout: f64) -> SentenceEncoder {
    let folder = tempfile::tempdir().expect("a folder");
    source(folder.path(), SentenceHead { pooling: Pooling::Mean, normalize: true, max_tokens: 32 }, dropout);
    SentenceEncoder::load(folder.path(), device).expect("an encoder").0
}

#[test]
fn ranking_through_a_model() {
    let golden = Golden::open(&fixture("sentence_losses").join("golden.safetensors"));
    for device in devices() {
        let encoder = encoder(&device.autodiff(), 0.0);
        let embeddings = encoder.encode(&packed(&rows(&golden, "")), None);
        assert_close("vectors", &values(embeddings.clone()), &golden.get("vectors").values, SIMPLE);
        let loss = ranking::loss(embeddings, N_ANCHORS, &Vec::new(), 20.0, false).div_scalar(N_ANCHORS as f64);
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, COMPOSED);
        let family = encoder.config().family;
        let named = gradients(&encoder, &loss).into_iter().map(|(path, gradient)| (family.tensor_name(&path), gradient)).collect();
        assert_gradients("ranking", &named, &golden.with_prefix("grad."));
    }
}

/// The texts of the fixture in parts of so many.
fn parts(sizes: &[usize]) -> Vec<Packed> {
    let golden = Golden::open(&fixture("sentence_losses").join("golden.safetensors"));
    let rows = rows(&golden, "");
    let mut rest = rows.as_slice();
    sizes
        .iter()
        .map(|&size| {
            let (part, later) = rest.split_at(size);
            rest = later;
            packed(part)
        })
        .collect()
}

/// The loss and gradients through the cache.
fn cached(encoder: &SentenceEncoder, sizes: &[usize], dropout: Option<Key>) -> (f64, BTreeMap<String, Vec<f32>>) {
    let mut sums: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let loss = |embeddings| ranking::loss(embeddings, N_ANCHORS, &Vec::new(), 20.0, true);
    let loss = gradient_cache::backward(encoder, &parts(sizes), dropout, loss, |gradients| {
        for (path, gradient) in by_path(encoder, gradients) {
            let sum = sums.entry(path).or_insert_with(|| vec![0.0; gradient.len()]);
            sum.iter_mut().zip(gradient).for_each(|(sum, part)| *sum += part);
        }
    });
    (loss, sums)
}

/// The same under one graph, the parts encoded one after the other.
fn plain(encoder: &SentenceEncoder, sizes: &[usize], dropout: Option<Key>) -> (f64, BTreeMap<String, Vec<f32>>) {
    let encode = |(part, batch): (usize, &Packed)| encoder.encode(batch, dropout.map(|key| key.fold(part as u64)));
    let loss = ranking::loss(Tensor::cat(parts(sizes).iter().enumerate().map(encode).collect(), 0), N_ANCHORS, &Vec::new(), 20.0, true);
    (f64::from(values(loss.clone())[0]), gradients(encoder, &loss))
}

fn assert_same(what: &str, found: &(f64, BTreeMap<String, Vec<f32>>), expected: &(f64, BTreeMap<String, Vec<f32>>)) {
    assert!((found.0 - expected.0).abs() < SIMPLE, "{what}: {} and {}", found.0, expected.0);
    assert_gradients(what, &found.1, &as_expected(&expected.1));
}

#[test]
fn the_gradient_cache_changes_nothing() {
    for device in devices() {
        let encoder = encoder(&device.autodiff(), 0.0);
        let whole = plain(&encoder, &[12], None);
        for sizes in [&[12][..], &[5, 7], &[1; 12], &[4, 4, 3, 1]] {
            assert_same(&format!("{sizes:?}"), &cached(&encoder, sizes, None), &whole);
        }
    }
}

#[test]
fn the_gradient_cache_replays_dropout() {
    for device in devices() {
        let encoder = encoder(&device.autodiff(), 0.3);
        let key = |seed| Some(Key::new(seed));
        let found = cached(&encoder, &[5, 7], key(1));
        assert_same("dropout", &found, &plain(&encoder, &[5, 7], key(1)));
        for (what, other) in [("another key", plain(&encoder, &[5, 7], key(2))), ("no dropout", plain(&encoder, &[5, 7], None))] {
            assert!((found.0 - other.0).abs() > 1e-2, "{what} gives another loss: {} and {}", found.0, other.0);
        }
    }
}

/// What an encoder writes is what sentence-transformers reads, and what came with it is still there.
#[test]
fn a_saved_encoder_is_a_folder_of_sentence_transformers() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (from, to) = (from.path(), to.path());
    let tokenizer = Tokenizer::train(["one two", "two three"].into_iter(), 300).expect("a tokenizer");
    for (pooling, normalize, key) in [
        (Pooling::Mean, true, "mean_tokens"),
        (Pooling::Cls, false, "cls_token"),
        (Pooling::Max, false, "max_tokens"),
        (Pooling::Last, true, "lasttoken"),
    ] {
        source(from, SentenceHead { pooling, normalize, max_tokens: 24 }, 0.0);
        std::fs::write(from.join("config_sentence_transformers.json"), r#"{"prompts": {"query": "find: "}}"#).expect("written");
        let (encoder, _) = SentenceEncoder::load(from, &devices()[0]).expect("an encoder");
        encoder.save(&tokenizer, from, to).expect("saved");
        let json = |file: &str| -> Value { kiln_core::files::read_json(&to.join(file)).expect("JSON") };
        let classes: Vec<Value> = json("modules.json").as_array().expect("steps").iter().map(|step| step["type"].clone()).collect();
        let expected = ["Transformer", "Pooling", "Normalize"].map(|class| json!(format!("sentence_transformers.models.{class}")));
        assert_eq!(classes, expected[..if normalize { 3 } else { 2 }]);
        let pooling = json("1_Pooling/config.json");
        assert_eq!(pooling["word_embedding_dimension"], 16);
        let chosen: Vec<&String> =
            pooling.as_object().expect("keys").iter().filter(|(_, value)| **value == true).map(|(key, _)| key).collect();
        assert_eq!(chosen, [&format!("pooling_mode_{key}")]);
        assert_eq!(json("sentence_bert_config.json"), json!({"max_seq_length": 24, "do_lower_case": false}));
        assert_eq!(json("config_sentence_transformers.json")["prompts"]["query"], "find: ");
        assert_eq!(json("config.json")["architectures"], json!(["BertModel"]));
        let names: Vec<String> = Weights::open(to).expect("weights").names().map(str::to_owned).collect();
        let before: Vec<String> = Weights::open(from).expect("weights").names().map(str::to_owned).collect();
        assert_eq!(names, before, "the tensors have the names they had");
        let again = SentenceEncoder::load(to, &devices()[0]).expect("an encoder").0;
        assert_eq!(again.head(), encoder.head());
        let texts = [vec![3, 4, 5], vec![6, 7]];
        assert_eq!(again.embed(&texts), encoder.embed(&texts));
    }
}
