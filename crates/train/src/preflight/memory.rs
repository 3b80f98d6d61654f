//! The most memory that a run will hold, forecast from shapes before anything of that size is allocated.
//!
//! ```text
//! peak = held + moments + max( evaluation,  max over blocks l of ( kept(1..l) + work(l) + gradients(above l) ) )
//! ```
//!
//! held: what the process holds when the model is loaded, weights and rows among it. kept: what the forward pass leaves for the backward
//! pass, which frees it block by block from the last to the first, while the gradients of the blocks become more; work: what one block needs
//! besides. Counted are the tensors that the kernels keep; they are all linear in the tokens of a pass, since attention keeps no scores.

use super::machine::{resident_bytes, size, total_bytes};
use super::{Finding, Severity};
use kiln_core::config::{ModelConfig, NormPlace};
use kiln_kernels::cross_entropy::CHUNK_LOGITS;
use serde::Serialize;
use std::fmt;

/// What is trained, and how.
#[derive(Clone, Debug)]
pub struct Training<'a> {
    /// The model's shape.
    pub shape: &'a ModelConfig,
    /// Parameters that train.
    pub n_trainable: usize,
    /// Parameters, trained or not.
    pub n_parameters: usize,
    /// Numbers that the optimizer remembers of the parameters that train.
    pub n_moments: usize,
    /// Whether a moving average of them is kept.
    pub is_averaged: bool,
    /// Rank of an adapter on every linear layer; 0 without one.
    pub rank: usize,
    /// What the head says of a token or a sequence: the vocabulary, or classes.
    pub n_outputs: usize,
    /// Whether blocks are computed again in the backward pass.
    pub gradient_checkpointing: bool,
    /// Copies of the parameters that train which the method keeps, such as a reference.
    pub n_copies: usize,
}

/// A forward and a backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Tokens of all its sequences.
    pub n_tokens: usize,
    /// Tokens that the head reads.
    pub n_rows: usize,
    /// Whether gradients of an earlier pass of the same update wait for its own.
    pub adds: bool,
}

/// A forecast, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Held already: weights, rows, the program.
    pub held: usize,
    /// Gradients of what trains.
    pub gradients: usize,
    /// The optimizer's moments of it.
    pub moments: usize,
    /// What the largest pass keeps for its backward pass.
    pub kept: usize,
    /// Logits, of the most rows at a time.
    pub logits: usize,
    /// What an evaluation needs.
    pub evaluation: usize,
    /// All that is needed at the worst moment.
    pub peak: usize,
}

const FLOAT: usize = size_of::<f32>();
/// The allocator's share: what lies between blocks of changing sizes.
const HEAP: f64 = 1.08;

impl Training<'_> {
    fn queries(&self) -> usize {
        self.shape.n_heads * self.shape.head_dim
    }

    fn keys(&self) -> usize {
        self.shape.n_kv_heads * self.shape.head_dim
    }

    fn inner(&self) -> usize {
        self.shape.intermediate_size * if self.shape.gated { 2 } else { 1 }
    }

    /// Numbers that a block keeps of a token that its attention looks at.
    fn kept_of_seen(&self) -> usize {
        let width = self.shape.hidden_size;
        // The input, and what is made of it before the linear layers.
        let inputs = if self.shape.norm_place == NormPlace::Post { width } else { 2 * width + 2 };
        let normalised = if self.shape.query_key_norm { self.queries() + self.keys() } else { 0 };
        inputs + normalised + 2 * self.queries() + 2 * self.keys() + self.shape.n_heads + 3 * self.rank
    }

    /// And of one whose output is wanted.
    fn kept_of_wanted(&self) -> usize {
        let width = self.shape.hidden_size;
        let norms = match self.shape.norm_place {
            NormPlace::Post => 3 * width + 4,
            NormPlace::Pre => 2 * width + 2,
            NormPlace::Sandwich => 4 * width + 6,
        };
        let dropped = if self.shape.feed_forward_dropout > 0.0 { self.shape.intermediate_size } else { 0 };
        norms + self.inner() + dropped + 4 * self.rank
    }

    /// What a block works with besides, in its backward pass: the gradients on both sides of the feed-forward layer, and what its activation
    /// puts out again.
    fn work(&self, n_wanted: usize) -> usize {
        n_wanted * (2 * self.inner() + self.shape.intermediate_size + 2 * self.shape.hidden_size)
    }

    /// Numbers that the blocks keep, first to last. The last one works on the wanted tokens only, but for what attention looks at.
    fn kept(&self, pass: Pass) -> Vec<usize> {
        let n_layers = self.shape.n_layers;
        let n_wanted = |layer: usize| if layer + 1 == n_layers { pass.n_rows } else { pass.n_tokens };
        if self.gradient_checkpointing {
            return vec![pass.n_tokens * self.shape.hidden_size; n_layers];
        }
        (0..n_layers).map(|layer| pass.n_tokens * self.kept_of_seen() + n_wanted(layer) * self.kept_of_wanted()).collect()
    }

    /// Numbers that are kept from step to step: moments, an average of the weights, other copies of them.
    fn remembered(&self) -> usize {
        self.n_moments + (self.n_copies + usize::from(self.is_averaged)) * self.n_trainable
    }

    /// Numbers in the embedding tables, if they train.
    fn trained_embeddings(&self) -> usize {
        if self.rank > 0 { 0 } else { self.n_trainable.min(self.shape.vocab_size * self.shape.hidden_size) }
    }

    /// The gradient of a head over the vocabulary, which comes with the loss.
    fn head_gradient(&self) -> usize {
        if self.rank == 0 && self.n_outputs == self.shape.vocab_size { self.trained_embeddings() } else { 0 }
    }

    fn logits(&self, n_rows: usize) -> usize {
        (n_rows * self.n_outputs).min(CHUNK_LOGITS.max(self.n_outputs))
    }

    /// The most numbers that a forward and a backward pass need at once, less the moments.
    fn of_pass(&self, pass: Pass) -> usize {
        let n_layers = self.shape.n_layers;
        let kept = self.kept(pass);
        let around = 2 * pass.n_tokens * self.shape.hidden_size + 3 * pass.n_rows * self.shape.hidden_size;
        let waiting = if pass.adds { self.n_trainable } else { 0 };
        let in_blocks = self.n_trainable - self.trained_embeddings();
        let mut below: usize = around + kept.iter().sum::<usize>();
        let mut most = below + self.logits(pass.n_rows) + self.head_gradient();
        for layer in (0..n_layers).rev() {
            let n_wanted = if layer + 1 == n_layers { pass.n_rows } else { pass.n_tokens };
            // Computed again, a block keeps all that it otherwise would.
            let again =
                if self.gradient_checkpointing { pass.n_tokens * self.kept_of_seen() + n_wanted * self.kept_of_wanted() } else { 0 };
            let gradients = self.head_gradient() + in_blocks * (n_layers - layer) / n_layers.max(1);
            most = most.max(below + again + self.work(n_wanted) + gradients);
            below -= kept[layer];
        }
        waiting + most.max(below + self.n_trainable)
    }

    /// Numbers that a pass of an evaluation needs, which keeps nothing.
    fn of_evaluation(&self, n_tokens: usize) -> usize {
        n_tokens * (self.inner() + self.shape.intermediate_size + 4 * self.shape.hidden_size) + self.logits(n_tokens)
    }

    /// The forecast of a run with these passes; the tokens of an evaluation's largest pass are `evaluated`.
    pub fn memory(&self, passes: impl IntoIterator<Item = Pass>, evaluated: usize) -> Memory {
        let largest = passes.into_iter().max_by_key(|&pass| self.of_pass(pass)).unwrap_or_default();
        let moments = self.remembered();
        let evaluation = self.of_evaluation(evaluated);
        let held = resident_bytes().unwrap_or(self.n_parameters * FLOAT);
        let needed = (moments + self.of_pass(largest).max(evaluation)) * FLOAT;
        Memory {
            held,
            gradients: self.n_trainable * FLOAT,
            moments: moments * FLOAT,
            kept: self.kept(largest).iter().sum::<usize>() * FLOAT,
            logits: self.logits(largest.n_rows) * FLOAT,
            evaluation: evaluation * FLOAT,
            peak: held + (needed as f64 * HEAP) as usize,
        }
    }
}

impl Memory {
    /// Whether the machine has too little, and what would help.
    pub fn check(&self, training: &Training<'_>, micro_batch_tokens: Option<&str>) -> Option<Finding> {
        self.check_within(total_bytes()?, training, micro_batch_tokens)
    }

    fn check_within(&self, total: usize, training: &Training<'_>, micro_batch_tokens: Option<&str>) -> Option<Finding> {
        let mut help: Vec<String> = micro_batch_tokens.map(|key| format!("a smaller {key}")).into_iter().collect();
        help.extend((!training.gradient_checkpointing).then(|| "gradient_checkpointing=true".to_owned()));
        help.extend((training.rank == 0).then(|| "adapter.rank=16".to_owned()));
        (self.peak > total).then(|| Finding {
            name: "memory",
            severity: Severity::Stop,
            count: self.peak,
            found: format!("the run needs about {self}; the limit is the machine's {}", size(total)),
            examples: Vec::new(),
            advice: format!("less is needed with {}", if help.is_empty() { "shorter rows".to_owned() } else { help.join(", ") }),
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, gradients, moments, kept, logits, evaluation, peak } = self;
        let parts = [
            ("held", held),
            ("gradients", gradients),
            ("moments", moments),
            ("activations", kept),
            ("logits", logits),
            ("evaluation", evaluation),
        ];
        write!(f, "{} ({})", size(*peak), parts.map(|(name, bytes)| format!("{name} {}", size(*bytes))).join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    /// Of a decoder of 2 blocks.
    fn of<T>(rank: usize, gradient_checkpointing: bool, with: impl Fn(&Training<'_>) -> T) -> T {
        let Value::Object(keys) = json!({
            "model_type": "llama", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
            "num_attention_heads": 4, "hidden_act": "silu", "tie_word_embeddings": true,
        }) else {
            unreachable!()
        };
        let shape = ModelConfig::from_json(keys, Path::new("config.json")).unwrap();
        let (n_trainable, n_outputs) = (if rank > 0 { 5000 } else { 160_000 }, 1000);
        with(&Training {
            shape: &shape,
            n_trainable,
            n_parameters: 160_000,
            n_moments: 2 * n_trainable,
            is_averaged: false,
            rank,
            n_outputs,
            gradient_checkpointing,
            n_copies: 0,
        })
    }

    #[test]
    fn a_run_that_the_machine_has_no_room_for_is_stopped_and_told_what_helps() {
        let pass = Pass { n_tokens: 4096, n_rows: 64, adds: false };
        let help = |rank, again, key| {
            of(rank, again, |training| {
                let memory = training.memory([pass], 0);
                assert_eq!(memory.check_within(memory.peak, training, key), None, "just enough");
                let finding = memory.check_within(memory.peak - 1, training, key).unwrap();
                assert_eq!((finding.name, finding.severity, finding.count), ("memory", Severity::Stop, memory.peak));
                assert!(finding.found.starts_with("the run needs about ") && finding.found.contains("; the limit is the machine's "));
                finding.advice
            })
        };
        assert_eq!(
            help(0, false, Some("micro_batch_tokens")),
            "less is needed with a smaller micro_batch_tokens, gradient_checkpointing=true, adapter.rank=16"
        );
        assert_eq!(help(8, false, None), "less is needed with gradient_checkpointing=true");
        assert_eq!(help(8, true, None), "less is needed with shorter rows");
        // And it does help, whatever else this process holds meanwhile.
        let peak = |rank, again, n_tokens| {
            let needed = |memory: Memory| memory.peak - memory.held;
            of(rank, again, |training| needed(training.memory([Pass { n_tokens, n_rows: 64, adds: false }], 0)))
        };
        let most = peak(0, false, 4096);
        assert!(peak(0, false, 1024) < most && peak(8, false, 64) < peak(0, false, 64));
    }
}
