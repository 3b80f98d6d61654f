//! Files that Kiln writes, as transformers and PEFT read them: `generate/written.py` says how the fixtures are made.

use crate::support::{COMPOSED, Golden, SIMPLE, assert_close, devices, fixture, packed, rows, values};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use kiln_core::adapter::{self, LoraConfig, Targets};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::{Kind, Tokenizer};
use kiln_kernels::random::Key;
use std::path::{Path, PathBuf};

/// Name, base and settings of each adapter.
fn kinds() -> [(&'static str, &'static str, LoraConfig); 5] {
    let config = LoraConfig { rank: 3, alpha: 5.0, ..LoraConfig::default() };
    let vocabulary = Targets::Names(["v_proj", "embed_tokens", "lm_head"].map(str::to_owned).to_vec());
    [
        ("rslora", "llama", LoraConfig { use_rslora: true, dropout: 0.1, modules_to_save: vec!["lm_head".into()], ..config.clone() }),
        ("dora", "llama", LoraConfig { use_dora: true, ..config.clone() }),
        ("gpt2", "gpt2", LoraConfig { use_dora: true, ..config.clone() }),
        ("vocabulary", "llama", LoraConfig { target_modules: vocabulary, ..config.clone() }),
        ("modernbert", "modernbert", config),
    ]
}

/// An adapter that changes something: a fresh one has a B of zeros.
fn adapted(base: &str, config: &LoraConfig, device: &burn::tensor::Device) -> LanguageModel {
    let (model, _) = LanguageModel::load(&fixture("adapter_kinds").join(base), device).expect("the model loads");
    let mut model = adapter::attach(model, config, device, Key::new(3)).expect("an adapter");
    let mut index = 0;
    model.linears_mut(&mut |_, linear| {
        // All but an output that trains in full.
        let Some(adapter) = &mut linear.adapter else { return };
        index += 1;
        let shape = adapter.b.val().dims();
        let b = Key::new(4).fold(index).normals(shape[0] * shape[1], 0.3);
        adapter.b = Param::from_tensor(Tensor::from_data(TensorData::new(b, shape), device));
        if let Some(magnitude) = &mut adapter.magnitude {
            *magnitude = Param::from_tensor(magnitude.val() * 1.3);
        }
    });
    if let Some(adapter) = &mut model.trunk.embeddings.token.adapter {
        let shape = adapter.a.val().dims();
        let a = Key::new(5).normals(shape[0] * shape[1], 0.3);
        adapter.a = Param::from_tensor(Tensor::from_data(TensorData::new(a, shape), device));
    }
    if config.modules_to_save == ["lm_head"] {
        let output = model.head.output.as_mut().expect("the output is untied");
        output.weight = Param::from_tensor(output.weight.val() * -0.7);
    }
    model
}

fn write(model: &LanguageModel, name: &str, config: &LoraConfig, folder: &Path) {
    adapter::save(model, config, "tiny", &folder.join(name)).expect("the adapter is written");
    let merged = folder.join(format!("{name}_merged"));
    let tokenizer = Tokenizer::train(["a b c"].into_iter(), 300).expect("a tokenizer");
    model::save(model, &tokenizer, &merged).expect("the model is written");
    for file in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let path = merged.join(file);
        if path.exists() {
            std::fs::remove_file(path).expect("the tokenizer is not the model's");
        }
    }
}

#[test]
fn files_are_those_that_the_peers_read() {
    let asked = std::env::var_os("KILN_WRITTEN").map(PathBuf::from);
    for (name, base, config) in kinds() {
        for device in devices() {
            let model = adapted(base, &config, &device);
            let folder = tempfile::tempdir().expect("a temporary folder");
            write(&model, name, &config, folder.path());
            if let Some(asked) = &asked {
                write(&model, name, &config, &Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(asked));
                continue;
            }
            for (part, files) in [
                (name.to_owned(), [adapter::WEIGHTS_FILE, adapter::CONFIG_FILE]),
                (format!("{name}_merged"), ["model.safetensors", "config.json"]),
            ] {
                for file in files {
                    let [found, expected] =
                        [folder.path(), &fixture("written")].map(|folder| std::fs::read(folder.join(&part).join(file)).expect("a file"));
                    assert!(found == expected, "{part}/{file} is not the one that the peers read");
                }
                let golden = Golden::open(&fixture("written").join(&part).join("golden.safetensors"));
                let rows = rows(&golden, "");
                let logits = values(model.logits(model.trunk.forward(&packed(&rows), None)));
                assert_close(&part, &logits, &golden.at_tokens("logits"), COMPOSED);
            }
            // Read again, the adapter is what it was.
            let (read, _) = LanguageModel::load(&fixture("adapter_kinds").join(base), &device).expect("the model loads");
            let read = adapter::load(read, &folder.path().join(name), &device).expect("the adapter loads");
            let again = tempfile::tempdir().expect("a temporary folder");
            adapter::save(&read, &config, "tiny", again.path()).expect("the adapter is written");
            for file in [adapter::WEIGHTS_FILE, adapter::CONFIG_FILE] {
                let [first, second] =
                    [folder.path().join(name), again.path().to_owned()].map(|folder| std::fs::read(folder.join(file)).expect("a file"));
                assert!(first == second, "{name}/{file} changes when it is read and written");
            }
        }
    }
}

/// A folder of sentence-transformers, from a text to its vector.
#[test]
fn sentences_are_those_that_the_peers_read() {
    const TEXTS: [&str; 3] = ["the sea is cold today", "warm sun on the hill", "ice"];
    let asked = std::env::var_os("KILN_WRITTEN").map(PathBuf::from);
    let fixture = fixture("written/sentences");
    for device in devices() {
        let from = tempfile::tempdir().expect("a temporary folder");
        for (file, copy) in
            [("config.json", "config.json"), ("model.safetensors", "model.safetensors"), ("cls.json", "1_Pooling/config.json")]
        {
            let copy = from.path().join(copy);
            std::fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
            std::fs::copy(self::fixture("sentence_encoder").join(file), copy).expect("a copy");
        }
        let steps = r#"[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}, {"type": "a.Normalize", "path": "2_Normalize"}]"#;
        std::fs::write(from.path().join("modules.json"), steps).expect("written");
        let (encoder, _) = SentenceEncoder::load(from.path(), &device).expect("the encoder loads");
        if let Some(asked) = &asked {
            let tokenizer = Tokenizer::train_as(Kind::Wordpiece, TEXTS.into_iter(), 60).expect("a tokenizer");
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(asked).join("sentences");
            encoder.save(&tokenizer, from.path(), &folder).expect("the encoder is written");
            continue;
        }
        let tokenizer = Tokenizer::from_folder(&fixture).expect("the tokenizer loads");
        let written = tempfile::tempdir().expect("a temporary folder");
        encoder.save(&tokenizer, from.path(), written.path()).expect("the encoder is written");
        for file in
            ["model.safetensors", "config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer.json"]
        {
            let [found, expected] = [written.path(), &fixture].map(|folder| std::fs::read(folder.join(file)).expect("a file"));
            assert!(found == expected, "{file} is not the one that the peers read");
        }
        let (encoder, _) = SentenceEncoder::load(&fixture, &device).expect("the encoder loads");
        let sequences = TEXTS.map(|text| tokenizer.encode(text).expect("ids"));
        let golden = Golden::open(&fixture.join("golden.safetensors"));
        assert_close("vectors", &encoder.embed(&sequences).concat(), &golden.get("vectors").values, SIMPLE);
    }
}
