//! `cargo xtask inspect model`: what a checkpoint is, what it needs, and what a training would train.

use super::grouped;
use crate::settings;
use burn::module::Module;
use clap::Args;
use kiln_core::adapter::{self, LoraConfig};
use kiln_core::builder::Fit;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::{ModelConfig, PositionKind};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::parameters::{counts, parameters};
use kiln_core::sentence_encoder::{SentenceEncoder, is_sentence_encoder};
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::{Result, device};
use kiln_kernels::random::Key;
use kiln_train::preflight::machine::size;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What `inspect model` takes.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// The folder of the model, in Hugging Face layout
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The adapter of a training: --set adapter.rank=8
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// The settings of an inspection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct InspectConfig {
    /// The adapter that would be trained; without one all parameters are.
    adapter: Option<LoraConfig>,
}

/// Prints what there is to know.
///
/// # Errors
/// If the model or a setting is bad.
pub fn run(ModelArgs { folder, sets }: &ModelArgs) -> Result<()> {
    let config: InspectConfig = settings::of_sets(sets)?;
    let shape = ModelConfig::from_folder(folder)?;
    let class = shape.class_name().unwrap_or_default().to_owned();
    let device = device::by_name("flex")?.autodiff();
    let family = shape.family;
    if class == family.classifier_class() {
        report(SequenceClassifier::load(folder, &device)?, folder, &config)
    } else if class == family.token_classifier_class() {
        report(TokenClassifier::load(folder, &device)?, folder, &config)
    } else if is_sentence_encoder(folder)? {
        report(SentenceEncoder::load(folder, &device)?, folder, &config)
    } else {
        report(LanguageModel::load(folder, &device)?, folder, &config)
    }
}

/// What a parameter's path says it belongs to.
const PARTS: [(&str, &str); 4] =
    [("embeddings", ".embeddings."), ("attention", ".attention."), ("feed-forward", ".feed_forward."), ("normalisation", "norm.")];

fn part(path: &str) -> &'static str {
    // From the end: a normalisation inside another part counts as one.
    let part = PARTS.iter().rev().find(|(_, mark)| path.starts_with("trunk.") && path.contains(mark));
    part.map_or("head", |(name, _)| name)
}

/// Bytes of a number.
const BYTES: usize = size_of::<f32>();

fn report<M: Model + Module>((model, fit): (M, Fit), folder: &Path, config: &InspectConfig) -> Result<()> {
    let shape = model.config().clone();
    let class = model.class();
    let all = parameters(&model);
    let of_part = |name: &str| all.iter().filter(|parameter| part(&parameter.path) == name).map(|parameter| parameter.len()).sum::<usize>();
    let names = PARTS.iter().map(|(name, _)| *name).chain(["head"]);
    let parts: Vec<String> = names
        .map(|name| (name, of_part(name)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {}", grouped(count)))
        .collect();
    let [_, n_parameters] = counts(&model);
    let heads = if shape.n_heads == shape.n_kv_heads {
        format!("{} heads of {}", shape.n_heads, shape.head_dim)
    } else {
        format!("{} heads of {}, {} for keys and values", shape.n_heads, shape.head_dim, shape.n_kv_heads)
    };
    let kind = match shape.position {
        PositionKind::Learned { .. } => "learned",
        PositionKind::Rotary { .. } => "rotary",
    };
    let n_sliding = (0..shape.n_layers).filter(|&layer| shape.window(layer).is_some()).count();
    let windows = match (&shape.window, n_sliding) {
        (None, _) | (_, 0) => String::new(),
        (Some(window), n) => format!(", a window of {} tokens in {n} of {} blocks", window.tokens, shape.n_layers),
    };
    let model = match &config.adapter {
        Some(adapter) => adapter::attach(model, adapter, &device::by_name("flex")?.autodiff(), Key::new(0))?,
        None => model,
    };
    let [n_trainable, n_with_adapter] = counts(&model);
    let trained = parameters(&model).into_iter().filter(|parameter| parameter.trainable).count();
    println!("{}", folder.display());
    for (name, value) in [
        ("family", format!("{} ({class})", shape.family.model_type())),
        ("shape", format!("{} blocks, width {}, inner width {}, {heads}", shape.n_layers, shape.hidden_size, shape.intermediate_size)),
        (
            "vocabulary",
            format!("{} tokens, output head {}", grouped(shape.vocab_size), if shape.tied_head { "tied" } else { "of its own" }),
        ),
        ("positions", format!("{} {kind}{windows}", grouped(shape.max_positions))),
        ("parameters", format!("{}: {}", grouped(n_parameters), parts.join(", "))),
        ("inference", inference(&shape, n_parameters)),
        (
            "training",
            // Weights, and for what trains a gradient and two moments.
            format!("{} for weights, gradients and AdamW's moments, and activations", size((n_with_adapter + 3 * n_trainable) * BYTES)),
        ),
        (
            "trains",
            format!(
                "{} parameters in {trained} tensors, {:.2} % of {}{}",
                grouped(n_trainable),
                100.0 * n_trainable as f64 / n_with_adapter as f64,
                grouped(n_with_adapter),
                if config.adapter.is_some() { "" } else { "; with --set adapter.rank=16 an adapter" },
            ),
        ),
    ] {
        println!("  {name:12}{value}");
    }
    if !fit.unused.is_empty() {
        let names = fit.unused.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        println!("  {:12}{} tensors that the model has no use for, such as {names}", "unused", fit.unused.len());
    }
    Ok(())
}

fn inference(shape: &ModelConfig, n_parameters: usize) -> String {
    let weights = format!("{} for weights", size(n_parameters * BYTES));
    if !shape.causal {
        return weights;
    }
    let per_token = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * BYTES;
    format!("{weights}, {} per cached token", size(per_token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_its_part() {
        for (path, expected) in [
            ("trunk.embeddings.token.weight", "embeddings"),
            ("trunk.embeddings.norm.gain", "normalisation"),
            ("trunk.layers.0.attention.query.weight", "attention"),
            ("trunk.layers.0.attention.query_norm.gain", "normalisation"),
            ("trunk.layers.0.feed_forward.up.bias", "feed-forward"),
            ("trunk.layers.3.feed_forward_norm.bias", "normalisation"),
            ("trunk.final_norm.gain", "normalisation"),
            ("head.norm.gain", "head"),
            ("pooler.weight", "head"),
        ] {
            assert_eq!(part(path), expected, "{path}");
        }
    }
}
