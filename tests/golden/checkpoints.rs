//! Files of PyTorch, and embeddings for new tokens, against PyTorch and transformers.

use crate::support::{COMPOSED, Golden, assert_close, devices, fixture, packed, rows, values};
use kiln_core::checkpoint::Weights;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::vocabulary;

/// Every element type, views into shared storage, transposed and empty tensors: the same numbers as f32.
#[test]
fn files_of_torch_save() {
    let folder = fixture("torch_files");
    let weights = Weights::open(&folder).expect("the file opens");
    // The integers of the reference file are none, so all of it is f32.
    let golden = Golden::open(&folder.join("golden.safetensors"));
    assert_eq!(weights.names().collect::<Vec<_>>(), golden.0.keys().map(String::as_str).collect::<Vec<_>>());
    for (name, array) in &golden.0 {
        let found = weights.read(name, &array.shape).expect("a tensor");
        assert_eq!(found.iter().map(|&value| f64::from(value)).collect::<Vec<_>>(), array.values, "{name}");
    }
}

/// The same in two shards with an index, as large models have it.
#[test]
fn shards_of_torch_save() {
    let (from, folder) = (fixture("torch_files"), tempfile::tempdir().expect("a folder"));
    for shard in ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"] {
        std::fs::copy(from.join("pytorch_model.bin"), folder.path().join(shard)).expect("copied");
    }
    let index = r#"{"metadata": {"total_size": 48}, "weight_map": {"plain": "pytorch_model-00001-of-00002.bin",
        "embeddings.LayerNorm.gamma": "pytorch_model-00002-of-00002.bin"}}"#;
    std::fs::write(folder.path().join("pytorch_model.bin.index.json"), index).expect("written");
    let weights = Weights::open(folder.path()).expect("the shards open");
    assert_eq!(weights.shape("plain"), Some(&[3, 4][..]));
    assert!(weights.contains("embeddings.LayerNorm.weight"));
}

#[test]
fn other_files_of_torch_are_refused_by_what_they_hold() {
    let error = |file: &str| Weights::open_file(&fixture("torch_files").join(file)).expect_err("refused").to_string();
    for (file, words) in [
        ("old.bin", ["old.bin", "PyTorch before 1.6"]),
        ("nested.bin", ["nested.bin", "\"model\" is no tensor"]),
        ("object.bin", ["object.bin", "\"torch.device\""]),
    ] {
        let message = error(file);
        assert!(words.iter().all(|word| message.contains(word)) && !message.contains('\n'), "{message}");
    }
    let weights = Weights::open_file(&fixture("torch_files").join("integers.bin")).expect("the file opens");
    assert_eq!(weights.read("x", &[2]).expect("ones"), [1.0, 1.0]);
    let message = weights.read("ids", &[4]).expect_err("no weights").to_string();
    assert!(message.contains("tensor \"ids\" is Long; expected F32"), "{message}");
}

#[test]
fn embeddings_of_new_tokens() {
    let folder = fixture("resized_embeddings");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    for device in devices() {
        let (model, _) = LanguageModel::load(&folder, &device).expect("the model loads");
        let n_known = model.config().vocab_size as u32;
        let new: Vec<u32> = (n_known..n_known + 3).collect();
        let model = vocabulary::grow(model, &new, 1);
        let logits = model.logits(model.trunk.forward(&packed(&rows(&golden, "")), None));
        assert_close("logits", &values(logits), &golden.at_tokens("logits"), COMPOSED);
    }
}
