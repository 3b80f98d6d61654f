//! Adapters of every kind against PEFT: reading its files, loss and gradients, merging, and writing the same files.

use crate::support::{
    COMPOSED, Golden, SIMPLE, assert_close, assert_gradients, devices, fixture, gradients, loss_sum, packed, rows, saved, values,
};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::adapter::{self, Adapters, LoraConfig, Targets};
use kiln_core::checkpoint::transposed;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::parameters::parameters;
use kiln_kernels::random::Key;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    fixture("adapter_kinds").join(name)
}

fn base(name: &str, device: &Device) -> LanguageModel {
    LanguageModel::load(&folder(name), device).expect("the model loads").0
}

#[test]
fn dora_on_layers_that_a_pattern_names() {
    check("dora", "llama", &LoraConfig { rank: 3, alpha: 7.0, use_dora: true, ..LoraConfig::default() });
}

#[test]
fn rslora_with_patterns_and_embeddings_that_part_from_the_output() {
    let config =
        LoraConfig { rank: 4, alpha: 6.0, use_rslora: true, modules_to_save: vec!["embed_tokens".into()], ..LoraConfig::default() };
    check("rslora", "llama", &config);
    for device in devices() {
        let model = adapter::load(base("llama", &device), &folder("rslora"), &device).expect("the adapter loads");
        let merged = saved(&model);
        let text = std::fs::read_to_string(merged.path().join("config.json")).expect("a configuration");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["tie_word_embeddings"], false);
    }
}

#[test]
fn joined_and_transposed_layers() {
    check("gpt2_lora", "gpt2", &LoraConfig { rank: 4, alpha: 10.0, ..LoraConfig::default() });
}

#[test]
fn dora_on_joined_and_transposed_layers() {
    check("gpt2_dora", "gpt2", &LoraConfig { rank: 3, alpha: 5.0, use_dora: true, ..LoraConfig::default() });
}

#[test]
fn token_embeddings_and_the_output_tied_to_them() {
    check("vocabulary", "llama", &LoraConfig { rank: 3, alpha: 7.0, ..LoraConfig::default() });
}

#[test]
fn embeddings_that_the_family_multiplies() {
    check("scaled", "gemma3", &LoraConfig { rank: 2, alpha: 5.0, use_rslora: true, ..LoraConfig::default() });
}

#[test]
fn joined_layers_of_an_encoder() {
    check("modernbert", "modernbert", &LoraConfig { rank: 3, alpha: 7.0, ..LoraConfig::default() });
}

/// In PEFT's file the two are apart, whatever ties them while they train.
#[test]
fn one_adapter_of_tied_layers() {
    let golden = Golden::open(&folder("tied").join("golden.safetensors"));
    for device in devices() {
        let model = adapter::load(base("llama", &device), &folder("tied"), &device).expect("the adapter loads");
        let logits = values(model.logits(model.trunk.forward(&packed(&rows(&golden, "")), None)));
        assert_close("logits", &logits, &golden.at_tokens("logits"), SIMPLE);
        check_save(&model, &LoraConfig { rank: 3, alpha: 7.0, ..LoraConfig::default() }, &folder("tied"));
    }
}

#[test]
fn adapters_with_magnitudes_are_merged_one_after_the_other() {
    let golden = Golden::open(&folder("together").join("golden.safetensors"));
    for device in devices() {
        let base_folder = saved(&base("llama", &device));
        let merged = tempfile::tempdir().expect("a temporary folder");
        let adapters = ["dora_first", "dora_other"].map(folder);
        adapter::merge_folder(base_folder.path(), &adapters, merged.path(), &device).expect("the model is written");
        let model = LanguageModel::load(merged.path(), &device).expect("the merged model loads").0;
        let logits = values(model.logits(model.trunk.forward(&packed(&rows(&golden, "")), None)));
        assert_close("merged logits", &logits, &golden.at_tokens("merged_logits"), COMPOSED);
    }
}

/// A fresh adapter of embeddings and output changes nothing, is trained and generated with, and is refused what it cannot have.
#[test]
fn fresh_adapters_of_the_vocabulary() {
    let prompts = [vec![3, 5, 9], vec![7]];
    let sampling = Sampling { max_new_tokens: 5, ..Sampling::default() };
    for device in devices() {
        let device = device.autodiff();
        let model = base("llama", &device);
        let before = generate(&model.clone().valid(), &prompts, &sampling, &[], Key::new(1)).expect("continuations");
        let targets = Targets::Names(["q_proj", "embed_tokens", "lm_head"].map(str::to_owned).to_vec());
        let config = LoraConfig { rank: 2, target_modules: targets, ..LoraConfig::default() };
        let fresh = adapter::attach(model.clone(), &config, &device, Key::new(2)).expect("an adapter");
        let all = parameters(&fresh);
        let trained = all.iter().filter(|parameter| parameter.trainable).map(|parameter| parameter.path.as_str());
        let of_vocabulary =
            ["trunk.embeddings.token.adapter.a", "trunk.embeddings.token.adapter.b", "head.output.adapter.a", "head.output.adapter.b"];
        assert_eq!(trained.filter(|path| !path.contains(".query.")).collect::<Vec<_>>(), of_vocabulary);
        assert_eq!(generate(&fresh.clone().valid(), &prompts, &sampling, &[], Key::new(1)).expect("continuations"), before);
        let detached = adapter::detach(fresh);
        assert!(parameters(&detached).iter().all(|parameter| !parameter.path.contains("adapter")));

        for (config, key) in
            [(LoraConfig { use_dora: true, ..config.clone() }, "use_dora"), (LoraConfig { dropout: 0.1, ..config }, "dropout")]
        {
            let error = adapter::attach(model.clone(), &config, &device, Key::new(2)).unwrap_err().to_string();
            assert!(error.contains(&format!("adapter.{key}")) && error.contains("cannot have"), "{error}");
        }
    }
}

/// With adapters of the output generation computes what they do to the weights once.
#[test]
fn generation_with_an_adapted_vocabulary() {
    let prompts = [vec![3, 5, 9], vec![7]];
    let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
    for device in devices() {
        let model = adapter::load(base("llama", &device), &folder("vocabulary"), &device).expect("the adapter loads");
        let merged = adapter::merge(model.clone()).expect("the outputs stay");
        let [adapted, merged] =
            [model, merged].map(|model| generate(&model, &prompts, &sampling, &[], Key::new(1)).expect("continuations"));
        assert_eq!(adapted, merged);
    }
}

fn check(kind: &str, base_name: &str, config: &LoraConfig) {
    let golden = Golden::open(&folder(kind).join("golden.safetensors"));
    let rows = rows(&golden, "");
    let logits = |model: &LanguageModel| values(model.logits(model.trunk.forward(&packed(&rows), None)));
    for device in devices() {
        let autodiff = device.clone().autodiff();
        let model = adapter::load(base(base_name, &autodiff), &folder(kind), &autodiff).expect("the adapter loads");
        assert_close("logits", &logits(&model), &golden.at_tokens("logits"), SIMPLE);
        let (loss, n_tokens) = loss_sum(&model, &rows);
        let loss = loss / n_tokens as f32;
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        assert_gradients(kind, &by_stored_name(&model, gradients(&model, &loss)), &golden.with_prefix("grad."));

        let written = LanguageModel::load(saved(&model).path(), &device).expect("the merged model loads").0;
        assert_close("merged logits, written", &logits(&written), &golden.at_tokens("merged_logits"), COMPOSED);
        let merged = adapter::merge(model.clone()).expect("the outputs stay");
        assert_close("merged logits", &logits(&merged), &golden.at_tokens("merged_logits"), COMPOSED);
        assert!(parameters(&merged).iter().all(|parameter| parameter.trainable && !parameter.path.contains("adapter")));
        check_save(&model, config, &folder(kind));
    }
}

/// Gradients under the names PEFT stores their parameters by. Where several of our layers are one of PEFT's, they share its A.
fn by_stored_name(model: &impl Model, mut gradients: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let layout = model.layout();
    let mut named: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for parameter in parameters(model) {
        let Some(mut gradient) = gradients.remove(&parameter.path) else { continue };
        let name = match parameter.path.split_once(".adapter.") {
            Some((layer @ "trunk.embeddings.token", part)) => {
                if part == "a" {
                    gradient = transposed(&gradient, parameter.shape[0]);
                }
                format!("{}.lora_embedding_{}", layout.layer(layer), part.to_uppercase())
            }
            Some((layer, "magnitude")) => format!("{}.lora_magnitude_vector", layout.layer(layer)),
            Some((layer, part)) => format!("{}.lora_{}.weight", layout.layer(layer), part.to_uppercase()),
            None => layout.place(&parameter.path).tensor,
        };
        let is_shared = name.ends_with("lora_A.weight");
        let all = named.entry(format!("base_model.model.{name}")).or_default();
        match is_shared && !all.is_empty() {
            true => all.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value),
            false => all.extend(gradient),
        }
    }
    named
}

/// What we write is what PEFT wrote, but for the weights themselves that it saves beside adapters of the vocabulary.
fn check_save(model: &LanguageModel, config: &LoraConfig, expected: &Path) {
    let written = tempfile::tempdir().expect("a temporary folder");
    adapter::save(model, config, "tiny", written.path()).expect("the adapter is written");
    let tensors = |folder: &Path| {
        let all = Golden::open(&folder.join(adapter::WEIGHTS_FILE)).0.into_iter();
        all.filter(|(name, _)| !name.contains(".base_layer."))
            .map(|(name, array)| (name, (array.shape, array.values)))
            .collect::<BTreeMap<_, _>>()
    };
    assert_eq!(tensors(written.path()), tensors(expected));
    let [found, expected] = [written.path(), expected].map(|folder| {
        let text = std::fs::read_to_string(folder.join(adapter::CONFIG_FILE)).expect("a configuration");
        serde_json::from_str::<Value>(&text).expect("JSON")
    });
    for key in ["task_type", "r", "fan_in_fan_out", "use_rslora", "use_dora"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
}

#[test]
fn adapters_take_turns_on_one_base() {
    let golden = Golden::open(&folder("dora").join("golden.safetensors"));
    let rows = rows(&golden, "");
    let logits = |model: &LanguageModel| values(model.logits(model.trunk.forward(&packed(&rows), None)));
    for device in devices() {
        let model = base("llama", &device);
        let of_base = logits(&model);
        let mut adapters = Adapters::new(model);
        for name in ["dora", "rslora"] {
            adapters.load(name, &folder(name), &device).expect("the adapter loads");
        }
        assert_eq!(adapters.names().collect::<Vec<_>>(), ["dora", "rslora"]);
        assert_eq!(logits(adapters.model()), of_base, "none is at work yet");
        for name in ["rslora", "dora", "rslora"] {
            adapters.activate(Some(name)).expect("a known adapter");
            let expected = Golden::open(&folder(name).join("golden.safetensors"));
            let unmerged = logits(adapters.model());
            assert_close(name, &unmerged, &expected.at_tokens("logits"), SIMPLE);
            adapters.merge().expect("the outputs stay");
            assert!(parameters(adapters.model()).iter().all(|parameter| !parameter.path.contains("adapter")));
            assert_close("merged", &logits(adapters.model()), &expected.at_tokens("merged_logits"), COMPOSED);
            adapters.unmerge();
            assert_eq!(logits(adapters.model()), unmerged, "unmerged");
        }
        adapters.activate(None).expect("the base");
        assert_eq!(logits(adapters.model()), of_base);
        let error = adapters.activate(Some("law")).unwrap_err().to_string();
        assert!(error.contains("\"law\" is not loaded; there are: dora, rslora"), "{error}");
    }
}

/// Two huge updates that cancel each other in exact arithmetic: in f32 the merged weight cannot hold what is left.
#[test]
fn a_merge_that_moves_the_outputs_is_refused() {
    for device in devices() {
        for factor in [3e5, f32::NAN] {
            let mut model = adapter::load(base("llama", &device), &folder("dora"), &device).expect("the adapter loads");
            model.linears_mut(&mut |_, linear| {
                if let Some(adapter) = &mut linear.adapter {
                    adapter.magnitude = None;
                    adapter.a = adapter.a.clone().map(|a| {
                        let row = a.clone().slice([0..1, 0..a.dims()[1]]);
                        burn::tensor::Tensor::cat(vec![row.clone() * factor, row.clone() * factor, row], 0)
                    });
                    adapter.b = adapter.b.clone().map(|b| {
                        let column = b.clone().slice([0..b.dims()[0], 0..1]);
                        burn::tensor::Tensor::cat(vec![column.clone(), column.clone() * -1.000_001, column], 1)
                    });
                }
            });
            let refusals = [adapter::merge(model.clone()).map(|_| ()), adapter::check_merge(&model)];
            for refusal in refusals {
                let error = refusal.unwrap_err().to_string();
                assert!(error.contains("cannot be merged") && error.contains("at most 1e-4"), "{error}");
            }
        }
    }
}

#[test]
fn what_is_not_supported_is_named() {
    for device in devices() {
        for (key, value) in [
            ("peft_type", json!("IA3")),
            ("bias", json!("all")),
            ("lora_bias", json!(true)),
            ("trainable_token_indices", json!([1, 2])),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("r", json!("four")),
            ("rank_pattern", json!({"v_proj": "two"})),
            ("lora_dropout", json!(1.5)),
        ] {
            let written = tempfile::tempdir().expect("a temporary folder");
            for file in [adapter::WEIGHTS_FILE, adapter::CONFIG_FILE] {
                std::fs::copy(folder("rslora").join(file), written.path().join(file)).expect("a copy");
            }
            let path = written.path().join(adapter::CONFIG_FILE);
            let mut settings: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
            settings[key] = value;
            std::fs::write(&path, settings.to_string()).expect("a file");
            let error = adapter::load(base("llama", &device), written.path(), &device).unwrap_err().to_string();
            let name = if key == "lora_dropout" { "adapter.dropout" } else { key };
            assert!(error.contains(name) && !error.contains('\n'), "{key}: {error}");
        }
    }
}
