//! Sums from rewards: a small decoder learns to add digit by digit from some worked sums, and then more of it from being told which of its own
//! answers are right; beside it, the same decoder on the worked sums for at least as long.
//!
//! ```sh
//! cargo run -p kiln-rl -p xtask --example rl -- OUT [warm-up epochs] [rows]
//! ```

use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::world::{World, write_jsonl};
use kiln_kernels::random::Key;
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::evaluate::Evaluation;
use kiln_rl::reward::{RewardConfig, RewardKind};
use kiln_rl::train::train;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "sums".into()));
    let mut number = |default: usize| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (n_epochs, n_rows) = (number(30), number(400));
    let device = device::by_name("flex")?;
    let world = World::new(1);
    write_jsonl(&folder.join("sums.jsonl"), &world.sum_rows(3, n_rows))?;
    write_jsonl(&folder.join("held-out.jsonl"), &world.held_out().sum_rows(3, 200))?;
    // A vocabulary of bytes only: every digit is a token.
    let tokenizer = Tokenizer::train(["0"].into_iter(), 260)?;
    let Value::Object(shape) = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2,
    }) else {
        unreachable!("an object")
    };
    let shape = ModelConfig::from_json(shape, Path::new("config.json"))?;
    model::save(&LanguageModel::new(shape, &device, Key::new(1))?, &tokenizer, &folder.join("untrained"))?;

    let mut config = RlConfig { model: folder.join("untrained"), algorithm: Algorithm::Grpo, epochs: 0, seed: 1, ..RlConfig::default() };
    config.data.train = folder.join("sums.jsonl");
    config.data.held_out = Some(folder.join("held-out.jsonl"));
    config.rewards = vec![RewardConfig { kind: RewardKind::Numeric, column: "answer".into(), ..RewardConfig::default() }];
    config.sampling.max_new_tokens = 40;
    config.evaluation.temperature = 0.0;
    config.warm_up.epochs = n_epochs;
    config.warm_up.update.learning_rate = 2e-3;
    let warm = train(&config, &device, &folder.join("warm-up"))?;
    show("warm-up", &warm.after, warm.train_seconds);

    let mut rewarded = RlConfig { model: folder.join("warm-up/model"), epochs: 4, batch_prompts: 16, ..config.clone() };
    rewarded.warm_up.epochs = 0;
    rewarded.update.learning_rate = 3e-4;
    let after = train(&rewarded, &device, &folder.join("rewards"))?;
    show("rewards", &after.after, after.train_seconds);

    // As long again with supervision only, at a rate that does not undo what is learnt.
    let mut longer = RlConfig { model: folder.join("warm-up/model"), ..config };
    longer.warm_up.epochs = ((after.train_seconds / warm.train_seconds) * n_epochs as f64).ceil() as usize;
    longer.warm_up.update.learning_rate = 1e-3;
    let control = train(&longer, &device, &folder.join("control"))?;
    show("control", &control.after, control.train_seconds);
    Ok(())
}

fn show(what: &str, evaluation: &Evaluation, seconds: f64) {
    let interval = evaluation.reward.interval;
    println!("{what:<8} {:.3} of the sums right [{:.3}, {:.3}], {seconds:.0} s", evaluation.reward.value, interval.low, interval.high);
}
