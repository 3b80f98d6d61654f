//! Names of parameters and keys of configurations.

use super::*;
use crate::config::PositionKind;
use crate::rotary::Scaling;
use serde_json::{Value, json};

#[test]
fn parameters_have_their_hugging_face_names() {
    for (family, ours, theirs) in [
        (Family::Llama, "trunk.layers.12.attention.query.weight", "model.layers.12.self_attn.q_proj.weight"),
        (Family::Llama, "trunk.final_norm.gain", "model.norm.weight"),
        (Family::Bert, "trunk.layers.3.attention_norm.bias", "bert.encoder.layer.3.attention.output.LayerNorm.bias"),
        (Family::Bert, "trunk.embeddings.position.weight", "bert.embeddings.position_embeddings.weight"),
        (Family::Gpt2, "trunk.layers.10.feed_forward.up.bias", "transformer.h.10.mlp.c_fc.bias"),
        (Family::Roberta, "classifier.weight", "classifier.out_proj.weight"),
        (Family::DistilBert, "trunk.layers.1.feed_forward_norm.gain", "distilbert.transformer.layer.1.output_layer_norm.weight"),
        (Family::Gemma3, "trunk.layers.5.feed_forward_norm.gain", "model.layers.5.pre_feedforward_layernorm.weight"),
    ] {
        assert_eq!(family.tensor_name(ours), theirs);
    }
}

#[test]
fn a_bare_trunk_has_no_prefix() {
    let (full, bare) = (Layout::new(Family::Bert), Layout::bare(Family::Bert));
    let query = "trunk.layers.3.attention.query";
    assert_eq!(full.layer(query), "bert.encoder.layer.3.attention.self.query");
    assert_eq!(bare.layer(query), "encoder.layer.3.attention.self.query");
    assert_eq!(bare.layer("head.transform"), "cls.predictions.transform.dense");
}

#[test]
fn a_classifier_of_tokens_has_its_own_name() {
    for (family, name) in [(Family::Roberta, "classifier"), (Family::Bert, "classifier"), (Family::Llama, "score")] {
        assert_eq!(Layout::of_tokens(family).layer("classifier"), name);
    }
}

#[test]
fn joined_layers_share_a_tensor() {
    let place = |part| Place { tensor: "transformer.h.1.attn.c_attn.weight".into(), transposed: true, part, n_parts: 3 };
    for (part, ours) in ["query", "key", "value"].into_iter().enumerate() {
        assert_eq!(Family::Gpt2.place(&format!("trunk.layers.1.attention.{ours}.weight")), place(part));
        assert!(!Family::Gpt2.place(&format!("trunk.layers.1.attention.{ours}.bias")).transposed);
    }
    let gate = Family::ModernBert.place("trunk.layers.2.feed_forward.up.weight");
    assert_eq!(gate, Place { tensor: "model.layers.2.mlp.Wi.weight".into(), transposed: false, part: 1, n_parts: 2 });
    // Two heads that no model has both of.
    for head in ["pooler", "head.transform"] {
        assert_eq!(Family::ModernBert.place(&format!("{head}.weight")), Place::plain("head.dense.weight".into()));
    }
    let table = Place::plain("transformer.wte.weight".into());
    assert_eq!(Family::Gpt2.place("trunk.embeddings.token.weight"), table);
}

#[test]
fn constants_are_told_from_biases() {
    for (tensor, is_constant) in [("h.0.attn.bias", true), ("transformer.h.0.attn.masked_bias", true), ("h.0.attn.c_attn.bias", false)] {
        assert_eq!(Family::Gpt2.is_constant(tensor), is_constant, "{tensor}");
    }
}

/// The configuration of a small model of `kind` with these keys too.
fn config(kind: &str, keys: Value) -> Result<ModelConfig> {
    let mut all = json!({
        "model_type": kind, "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 6,
        "num_attention_heads": 4, "max_position_embeddings": 64,
    });
    let Value::Object(all) = &mut all else { unreachable!("an object") };
    let Value::Object(keys) = keys else { panic!("an object") };
    all.extend(keys);
    ModelConfig::from_json(all.clone(), Path::new("config.json"))
}

fn windows(config: &ModelConfig) -> Vec<Option<usize>> {
    (0..config.n_layers).map(|layer| config.window(layer)).collect()
}

#[test]
fn keys_of_transformers_4_and_5_say_the_same() {
    let (full, sliding) = ("full_attention", "sliding_attention");
    let linear = json!({"rope_type": "linear", "factor": 8.0});
    for (kind, older, newer) in [
        (
            "gemma3_text",
            json!({"head_dim": 8, "sliding_window": 16, "sliding_window_pattern": 3, "rope_theta": 5e5, "rope_local_base_freq": 2e4,
                "rope_scaling": linear}),
            json!({"head_dim": 8, "sliding_window": 16, "layer_types": [sliding, sliding, full, sliding, sliding, full],
                "rope_parameters": {full: {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
                    sliding: {"rope_type": "default", "rope_theta": 2e4}}}),
        ),
        (
            "modernbert",
            json!({"local_attention": 16, "global_attn_every_n_layers": 2, "global_rope_theta": 5e5, "local_rope_theta": 2e4}),
            json!({"local_attention": 16, "layer_types": [full, sliding, full, sliding, full, sliding],
                "rope_parameters": {full: {"rope_type": "default", "rope_theta": 5e5}, sliding: {"rope_type": "default", "rope_theta": 2e4}}}),
        ),
        (
            "llama",
            json!({"rope_theta": 5e5, "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}),
            json!({"rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 16}}),
        ),
        (
            "qwen2",
            json!({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 4}),
            json!({"use_sliding_window": true, "sliding_window": 16, "layer_types": [full, full, full, full, sliding, sliding]}),
        ),
    ] {
        let [older, newer] = [older, newer].map(|keys| config(kind, keys).unwrap_or_else(|error| panic!("{kind}: {error}")));
        assert_eq!(older.position, newer.position, "{kind}");
        assert_eq!(windows(&older), windows(&newer), "{kind}");
        let n_sliding = windows(&older).iter().filter(|window| **window == Some(16)).count();
        assert!((n_sliding > 0) == (kind != "llama") && n_sliding < 6, "{kind}: {n_sliding} windows");
    }
}

#[test]
fn windows_are_used_only_where_a_family_has_them() {
    for (kind, keys, expected) in [
        ("mistral", json!({"sliding_window": 9}), Some(9)),
        ("mistral", json!({"sliding_window": null}), None),
        ("mistral", json!({}), Some(4096)),
        ("qwen3", json!({"sliding_window": 9, "use_sliding_window": false}), None),
        ("llama", json!({"sliding_window": 9}), None),
    ] {
        assert_eq!(windows(&config(kind, keys).expect("a configuration")), [expected; 6], "{kind}");
    }
}

#[test]
fn what_a_file_leaves_out_is_as_in_transformers() {
    let of = |kind, keys| config(kind, keys).expect("a configuration");
    assert_eq!((of("qwen3", json!({})).head_dim, of("qwen2", json!({})).head_dim), (128, 8));
    assert_eq!(of("mistral", json!({"max_position_embeddings": null})).max_positions, 131_072);
    let local = |keys| match of("modernbert", keys).position {
        PositionKind::Rotary { sliding, .. } => sliding.theta,
        PositionKind::Learned { .. } => panic!("rotary"),
    };
    let all = [json!({}), json!({"local_rope_theta": null}), json!({"global_rope_theta": 5e5, "local_rope_theta": null})];
    assert_eq!(all.map(local), [1e4, 16e4, 5e5]);
}

/// `generation_config.json` knows more ends than `config.json`, whose own come first; it is written back as it was.
#[test]
fn tokens_that_end_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, keys: Value| std::fs::write(folder.path().join(name), keys.to_string()).unwrap();
    let keys = json!({
        "model_type": "llama", "vocab_size": 50, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "eos_token_id": 4,
    });
    write("config.json", keys);
    let ends = || ModelConfig::from_folder(folder.path()).map(|config| config.end_ids);
    assert_eq!(ends().unwrap(), [4]);
    for (keys, expected) in [
        (json!({"eos_token_id": [7, 4, 9], "temperature": 0.6}), vec![4, 7, 9]),
        (json!({"eos_token_id": 9}), vec![9]),
        (json!({"eos_token_id": null}), vec![4]),
        (json!({}), vec![4]),
    ] {
        write("generation_config.json", keys.clone());
        assert_eq!(ends().unwrap(), expected, "{keys}");
    }
    write("generation_config.json", json!({"eos_token_id": [50]}));
    let error = ends().unwrap_err().to_string();
    assert!(error.contains("generation_config.json") && error.contains("found 50, the vocabulary has 50 tokens"), "{error}");
}

#[test]
fn positions_end_where_they_can() {
    let positions = |kind, keys| config(kind, keys).expect("a configuration").max_positions;
    assert_eq!(positions("roberta", json!({"pad_token_id": 1})), 62);
    assert_eq!(positions("llama", json!({"rope_scaling": {"type": "dynamic", "factor": 2.5}})), 160);
    let yarn = config("llama", json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": null}})).expect("a configuration");
    let PositionKind::Rotary { full, .. } = yarn.position else { panic!("rotary") };
    // What the file leaves out is as in the paper: 0.1·ln 4 + 1.
    assert!(matches!(full.scaling, Scaling::Yarn { factor: 4.0, attention_factor, .. } if (attention_factor - 1.138_629).abs() < 1e-6));
}

#[test]
fn what_is_not_supported_is_refused() {
    for (kind, keys, words) in [
        ("llama", json!({"rope_scaling": {"type": "longrope"}}), ["rope_scaling", "longrope"]),
        ("llama", json!({"rope_scaling": {"type": "linear"}}), ["rope_scaling", "\"factor\""]),
        ("llama", json!({"rope_scaling": {"type": "linear", "factor": 0}}), ["rope_scaling", "above 0"]),
        ("llama", json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), ["rope_parameters", "partial_rotary_factor"]),
        ("llama", json!({"rope_parameters": 3}), ["rope_parameters", "object"]),
        ("llama", json!({"hidden_act": "mish"}), ["hidden_act", "mish"]),
        ("qwen2", json!({"is_causal": false}), ["is_causal", "false"]),
        ("llama", json!({"quantization_config": {"bits": 4}}), ["quantization_config", "bits"]),
        ("qwen3", json!({"use_sliding_window": true, "layer_types": ["full_attention"]}), ["layer_types", "1 kinds for 6 blocks"]),
        (
            "gpt2",
            json!({"n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 9, "add_cross_attention": true}),
            ["add_cross_attention", "true"],
        ),
        ("llama", json!({"eos_token_id": "</s>"}), ["eos_token_id", "</s>"]),
        ("mistral", json!({"sliding_window": 0}), ["sliding_window", "0"]),
        ("qwen2", json!({"use_sliding_window": true, "sliding_window": 8, "layer_types": ["linear"]}), ["layer_types", "linear"]),
        ("gemma3_text", json!({"use_bidirectional_attention": true}), ["use_bidirectional_attention", "true"]),
        ("gemma3_text", json!({"final_logit_softcapping": -1}), ["final_logit_softcapping", "-1"]),
        ("gemma3", json!({}), ["model_type", "gemma3_text"]),
        ("bert", json!({"is_decoder": true}), ["is_decoder", "true"]),
        ("roberta", json!({"pad_token_id": 64}), ["max_position_embeddings", "65"]),
        ("modernbert", json!({"classifier_pooling": "max"}), ["classifier_pooling", "max"]),
        ("distilbert", json!({}), ["dim", "missing"]),
    ] {
        let error = config(kind, keys).expect_err("refused").to_string();
        assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{kind}: {error}");
    }
}
