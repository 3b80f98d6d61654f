//! Sentence embeddings against sentence-transformers.

use crate::support::{Golden, SIMPLE, assert_close, devices, fixture, rows, shared, values};
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Tokenizer;
use serde_json::json;
use std::fs;

/// Each way of pooling, the vectors' lengths as they are and set to 1.
#[test]
fn every_pooling() {
    let fixture = fixture("sentence_encoder");
    let golden = Golden::open(&fixture.join("golden.safetensors"));
    let sequences: Vec<Vec<u32>> = rows(&golden, "").into_iter().map(|row| row.ids).collect();
    for mode in ["mean", "cls", "max", "lasttoken"] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("1_Pooling")).expect("a folder");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(fixture.join(name), path(name)).expect("copied");
        }
        fs::copy(fixture.join(format!("{mode}.json")), path("1_Pooling/config.json")).expect("copied");
        let steps = ["Transformer", "Pooling", "Normalize"].map(|class| format!("sentence_transformers.models.{class}"));
        for normalize in [false, true] {
            let paths = ["", "1_Pooling", "2_Normalize"];
            let steps: Vec<_> = steps.iter().zip(paths).take(2 + usize::from(normalize)).collect();
            let steps: Vec<_> = steps.iter().map(|(class, path)| json!({"type": class, "path": path})).collect();
            fs::write(path("modules.json"), json!(steps).to_string()).expect("written");
            let name = format!("{mode}{}", if normalize { ".normalized" } else { "" });
            for device in devices() {
                let (encoder, _) = SentenceEncoder::load(folder.path(), &device).expect("the encoder loads");
                let found = values(encoder.encode(&Packed::new(sequences.iter().map(Vec::as_slice)), None));
                assert_close(&name, &found, &golden.get(&name).values, SIMPLE);
                assert_close(&name, &encoder.embed(&sequences).concat(), &golden.get(&name).values, SIMPLE);
            }
        }
    }
}

#[test]
fn sentences_of_every_family_of_encoders() {
    for family in ["roberta", "distilbert", "modernbert", "modernbert_mean"] {
        let fixture = fixture("encoder_heads").join(family).join("sequence");
        let golden = Golden::open(&fixture.join("golden.safetensors"));
        let sequences: Vec<Vec<u32>> = rows(&golden, "").into_iter().map(|row| row.ids).collect();
        for mode in ["mean", "cls"] {
            let folder = tempfile::tempdir().expect("a folder");
            for name in ["config.json", "model.safetensors"] {
                fs::copy(fixture.join(name), folder.path().join(name)).expect("copied");
            }
            fs::create_dir(folder.path().join("1_Pooling")).expect("a folder");
            fs::write(folder.path().join("1_Pooling/config.json"), json!({"pooling_mode": mode}).to_string()).expect("written");
            let steps = json!([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]);
            fs::write(folder.path().join("modules.json"), steps.to_string()).expect("written");
            for device in devices() {
                let (encoder, _) = SentenceEncoder::load(folder.path(), &device).expect("the encoder loads");
                assert_close(mode, &encoder.embed(&sequences).concat(), &golden.get(mode).values, SIMPLE);
            }
        }
    }
}

/// What Kiln does not do is refused instead of left out.
#[test]
fn unknown_steps_are_refused() {
    let fixture = fixture("sentence_encoder");
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(fixture.join("config.json"), folder.path().join("config.json")).expect("copied");
    let refused = |steps: serde_json::Value, word: &str| {
        fs::write(folder.path().join("modules.json"), steps.to_string()).expect("written");
        let error = SentenceEncoder::load(folder.path(), &devices()[0]).expect_err("refused").to_string();
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    };
    refused(json!([{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "2_Dense"}]), "Dense");
    fs::create_dir(folder.path().join("1_Pooling")).expect("a folder");
    fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode": "weightedmean"}"#).expect("written");
    refused(json!([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]), "weightedmean");
}

/// A vector does not depend on what else is embedded, and a long text is cut where its folder says, the end token kept.
#[test]
fn batches_and_long_texts() {
    let Some(folder) = shared("models/all-MiniLM-L6-v2") else { return };
    let (encoder, _) = SentenceEncoder::load(&folder, &devices()[0]).expect("the encoder loads");
    let tokenizer = Tokenizer::from_folder(&folder).expect("the tokenizer loads");
    let texts: Vec<String> = [300, 2, 40, 7].map(|n| "the sea is cold ".repeat(n)).into();
    let sequences = encoder.tokens(&tokenizer, texts).expect("ids");
    assert_eq!((sequences[0].len(), sequences[0].last()), (256, sequences[1].last()));
    let together = encoder.embed(&sequences);
    for (sequence, vector) in sequences.iter().zip(&together) {
        let alone: Vec<f64> = encoder.embed(std::slice::from_ref(sequence))[0].iter().map(|&value| value.into()).collect();
        assert_close("alone and together", vector, &alone, 1e-6);
    }
}
