//! Small valid folders that damage starts from.

use kiln_core::adapter::{self, LoraConfig, Targets};
use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model;
use kiln_core::tokenizer::{Kind, Tokenizer};
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// All kinds of tokenizers.
pub const KINDS: [Kind; 4] = [Kind::ByteLevelBpe, Kind::Bpe, Kind::Wordpiece, Kind::Unigram];
const TEXTS: [&str; 3] = ["the sea is cold today and the sun is warm", "ice on the sea and snow on the hill", "the sun is warm today"];
const TEMPLATE: &str =
    "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}{{ messages | tojson(indent=2) }}";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn llama() -> LanguageModel {
    let Value::Object(keys) = json!({
        "model_type": "llama", "vocab_size": 300, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
        "tie_word_embeddings": true, "eos_token_id": 2, "torch_dtype": "float32",
    }) else {
        unreachable!("an object")
    };
    let config = ModelConfig::from_json(keys, Path::new("config.json")).expect("a configuration");
    LanguageModel::new(config, &device::by_name("flex").expect("a device"), Key::new(0)).expect("a model")
}

/// A decoder with a chat template and the files of sentence-transformers.
pub fn model() -> TempDir {
    let folder = folder();
    let tokenizer = Tokenizer::train(TEXTS.into_iter(), 300).expect("a tokenizer");
    model::save(&llama(), &tokenizer, folder.path()).expect("saved");
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [2, 5], "temperature": 0.7}"#).expect("written");
    let path = folder.path().join("tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(&path).expect("settings")).expect("JSON");
    settings["chat_template"] = json!([{"name": "default", "template": TEMPLATE}]);
    fs::write(&path, settings.to_string()).expect("written");
    let step = |index: usize, class: &str| json!({"idx": index, "name": index.to_string(), "path": "", "type": format!("sentence_transformers.models.{class}")});
    let steps = json!([step(0, "Transformer"), step(1, "Pooling"), step(2, "Normalize")]);
    fs::write(folder.path().join("modules.json"), steps.to_string()).expect("written");
    folder
}

/// Its weights in two files and an index, by hand: the crate makes shards of gigabytes only.
pub fn sharded() -> TempDir {
    let (from, folder) = (model(), folder());
    let bytes = fs::read(from.path().join("model.safetensors")).expect("weights");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("weights");
    let mut names = tensors.names();
    names.sort_unstable();
    let weight_map: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), json!(format!("model-{}.safetensors", index % 2)))).collect();
    for shard in 0..2 {
        let part: Vec<_> =
            names.iter().skip(shard).step_by(2).map(|name| ((*name).to_owned(), tensors.tensor(name).expect("a tensor"))).collect();
        let bytes = safetensors::serialize(part, None).expect("bytes");
        fs::write(folder.path().join(format!("model-{shard}.safetensors")), bytes).expect("written");
    }
    let index = json!({"metadata": {"total_size": 1000}, "weight_map": weight_map});
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).expect("written");
    folder
}

/// What PyTorch itself wrote, beside the reference values of `tests/golden`.
pub fn torch() -> TempDir {
    let folder = folder();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures/torch_files/pytorch_model.bin");
    fs::copy(fixture, folder.path().join("pytorch_model.bin")).expect("copied");
    folder
}

/// A tokenizer of this kind.
pub fn tokenizer(kind: Kind) -> TempDir {
    let folder = folder();
    let vocab_size = if kind == Kind::ByteLevelBpe { 280 } else { 60 };
    Tokenizer::train_as(kind, TEXTS.into_iter(), vocab_size).expect("a tokenizer").save(folder.path()).expect("saved");
    folder
}

/// GPT-2's pair of files.
pub fn gpt2() -> TempDir {
    let folder = folder();
    for file in ["vocab.json", "merges.txt"] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures/gpt2_tokenizer").join(file);
        fs::copy(fixture, folder.path().join(file)).expect("copied");
    }
    folder
}

/// An adapter of the decoder, of its embeddings and output too.
pub fn adapter() -> TempDir {
    let folder = folder();
    let targets = Targets::Names(["q_proj", "up_proj", "embed_tokens", "lm_head"].map(str::to_owned).to_vec());
    let (config, device) =
        (LoraConfig { rank: 2, target_modules: targets, ..LoraConfig::default() }, device::by_name("flex").expect("a device"));
    let adapted = adapter::attach(llama(), &config, &device, Key::new(1)).expect("an adapter");
    adapter::save(&adapted, &config, "base", folder.path()).expect("saved");
    folder
}

/// A file of rows in each format: what pyarrow wrote beside the reference values of `tests/golden`, and a few by hand.
pub const TABLES: [&str; 10] = [
    "plain.parquet",
    "snappy.parquet",
    "gzip.parquet",
    "zstd.parquet",
    "delta.parquet",
    "rows.jsonl",
    "rows.json",
    "rows.csv",
    "rows.conll",
    "rows.jsonl.gz",
];

/// The folder that holds them.
pub fn tables() -> TempDir {
    let folder = folder();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures/parquet_files");
    for file in TABLES.iter().filter(|file| fixtures.join(file).exists()) {
        fs::copy(fixtures.join(file), folder.path().join(file)).expect("copied");
    }
    let rows: Vec<Value> = TEXTS.iter().enumerate().map(|(n, text)| json!({"text": text, "n": n, "list": [{"a": null}]})).collect();
    let csv: String = TEXTS.iter().map(|text| format!("\"{text}\",1\n")).collect();
    let conll: String = TEXTS.iter().map(|text| format!("{}\n", text.replace(' ', "\tO\n"))).collect();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, lines.as_bytes()).expect("packed");
    fs::write(folder.path().join("rows.jsonl.gz"), packed.finish().expect("packed")).expect("written");
    for (file, text) in [("rows.json", Value::from(rows).to_string()), ("rows.csv", format!("text,n\n{csv}")), ("rows.conll", conll)] {
        fs::write(folder.path().join(file), text).expect("written");
    }
    folder
}
