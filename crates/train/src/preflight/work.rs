//! The floating-point operations a step cannot do without, counted from the shapes: those of its matrix products.
//!
//! A product of `[m, k]` and `[k, n]` is `2·m·k·n`. Not counted: norms, activations, the softmax, the update, anything computed twice.

use kiln_core::config::ModelConfig;

/// Which gradients a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// None: evaluation.
    None,
    /// Of every weight.
    All,
    /// Of adapters of this rank on every linear layer of the blocks, whose own weights are frozen.
    Adapters {
        /// The adapters' rank.
        rank: usize,
    },
}

/// The inner and outer width of every linear layer of a block, those that read the block's input first.
fn linears(config: &ModelConfig) -> Vec<(usize, usize)> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
    let mut linears = vec![(width, queries), (width, keys), (width, keys), (queries, width), (width, inner), (inner, width)];
    linears.extend(config.gated.then_some((width, inner)));
    linears
}

/// Query-key pairs of a sequence that attention looks at.
fn pairs(config: &ModelConfig, length: usize) -> f64 {
    let length = length as f64;
    if config.causal { length * (length + 1.0) / 2.0 } else { length * length }
}

/// GFLOP of the trunk on sequences of these lengths, if the hidden states of `n_rows` tokens are wanted: the last block computes no others
/// beyond its queries, keys and values.
pub fn trunk(config: &ModelConfig, lengths: &[usize], n_rows: usize, gradients: Gradients) -> f64 {
    let all = lengths.iter().sum::<usize>();
    let mut flop = 0.0;
    for layer in 0..config.n_layers {
        for (index, (n_in, n_out)) in linears(config).into_iter().enumerate() {
            let n_tokens = if layer + 1 == config.n_layers && index >= 3 { n_rows } else { all } as f64;
            let product = 2.0 * n_tokens * (n_in * n_out) as f64;
            flop += match gradients {
                Gradients::None => product,
                Gradients::All => 3.0 * product,
                Gradients::Adapters { rank } => {
                    // Nothing below the first queries, keys and values is trained, so their input needs no gradient.
                    let of_input = if layer == 0 && index < 3 { 0.0 } else { 1.0 };
                    let low_rank = |width: usize| 2.0 * n_tokens * (rank * width) as f64;
                    // Forward and the gradients of A and B; that of the input goes back through both.
                    (1.0 + of_input) * product + (2.0 + of_input) * low_rank(n_in) + 3.0 * low_rank(n_out)
                }
            };
        }
    }
    // Scores and their use: 2 products forward, 4 backward.
    let n_products = if gradients == Gradients::None { 2.0 } else { 6.0 };
    let pairs: f64 = lengths.iter().map(|&length| pairs(config, length)).sum();
    flop += n_products * 2.0 * pairs * (config.n_layers * config.n_heads * config.head_dim) as f64;
    flop / 1e9
}

/// GFLOP of a linear head on so many rows; with [`Gradients::Adapters`] its weight is frozen.
pub fn head(n_in: usize, n_out: usize, n_rows: usize, gradients: Gradients) -> f64 {
    let n_products = match gradients {
        Gradients::None => 1.0,
        Gradients::All => 3.0,
        Gradients::Adapters { .. } => 2.0,
    };
    n_products * 2.0 * (n_in * n_out * n_rows) as f64 / 1e9
}

/// GB of weights that one forward pass reads, the embedding table only as the output head.
pub fn weight_gb(config: &ModelConfig) -> f64 {
    let block: usize = linears(config).iter().map(|(n_in, n_out)| n_in * n_out).sum();
    ((config.n_layers * block + config.vocab_size * config.hidden_size) * size_of::<f32>()) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn config(model_type: &str) -> ModelConfig {
        let Value::Object(keys) = json!({
            "model_type": model_type, "vocab_size": 100, "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "hidden_act": "silu", "tie_word_embeddings": true,
        }) else {
            unreachable!()
        };
        ModelConfig::from_json(keys, Path::new("config.json")).unwrap()
    }

    /// q 64, k 32, v 32, o 64, gate, up and down 160 each: 672 weights; 3 tokens see 6 pairs over 8 columns.
    #[test]
    fn a_gated_decoder_by_hand() {
        let config = config("llama");
        let close = |found: f64, expected: f64| assert!((found * 1e9 - expected).abs() < 1e-6, "{found} {expected}");
        close(trunk(&config, &[3], 3, Gradients::None), 2.0 * 3.0 * 672.0 + 2.0 * 2.0 * 6.0 * 8.0);
        close(trunk(&config, &[3], 3, Gradients::All), 3.0 * trunk(&config, &[3], 3, Gradients::None) * 1e9);
        // Inner widths 8·6 + 20 = 68, of which 24 in q, k and v; outer widths 8 + 4 + 4 + 8 + 20 + 20 + 8 = 72.
        let low_rank = 2.0 * 3.0 * 5.0 * (2.0 * 68.0 + (68.0 - 24.0) + 3.0 * 72.0);
        let frozen = 2.0 * 3.0 * (672.0 + (672.0 - 128.0));
        close(trunk(&config, &[3], 3, Gradients::Adapters { rank: 5 }), frozen + low_rank + 6.0 * 2.0 * 6.0 * 8.0);
        close(head(8, 100, 3, Gradients::All), 3.0 * 2.0 * 800.0 * 3.0);
        close(weight_gb(&config), 4.0 * (672.0 + 800.0));
    }

    /// Without a gate, and every token sees every other: q, k, v and o 64 each, up and down 160 each; 4 + 9 pairs.
    #[test]
    fn an_encoder_by_hand() {
        let found = trunk(&config("bert"), &[2, 3], 5, Gradients::None) * 1e9;
        assert!((found - (2.0 * 5.0 * 576.0 + 2.0 * 2.0 * 13.0 * 8.0)).abs() < 1e-6, "{found}");
    }
}
