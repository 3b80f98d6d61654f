//! Sums from rewards: a small decoder learns to add digit by digit from 300 worked sums, and then from being told which of its own answers to
//! 3,000 further sums are right; beside it, the same decoder on the worked sums for as long again. A minute or two on two cores.
//!
//! ```sh
//! cargo run --example rl -- OUT
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

const WARM_UP_EPOCHS: usize = 60;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "sums".into()));
    let device = device::by_name("flex")?;
    let world = World::new(1);
    write_jsonl(&folder.join("worked.jsonl"), &world.sum_rows(2, 300))?;
    // Beyond the worked ones; only prompts and answers are used.
    write_jsonl(&folder.join("answers.jsonl"), &world.sum_rows(2, 3300)[300..])?;
    write_jsonl(&folder.join("held-out.jsonl"), &world.held_out().sum_rows(2, 200))?;
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
    config.data.train = folder.join("worked.jsonl");
    config.data.held_out = Some(folder.join("held-out.jsonl"));
    config.rewards = vec![RewardConfig { kind: RewardKind::Numeric, column: "answer".into(), ..RewardConfig::default() }];
    config.sampling.max_new_tokens = 32;
    config.evaluation.temperature = 0.0;
    config.warm_up.epochs = WARM_UP_EPOCHS;
    config.warm_up.update.learning_rate = 3e-3;
    config.warm_up.update.warmup_share = 0.05;
    let warm = train(&config, &device, &folder.join("warm-up"))?;
    show("warm-up", &warm.after, warm.train_seconds);

    let mut rewarded = RlConfig { model: folder.join("warm-up/model"), epochs: 1, batch_prompts: 32, ..config.clone() };
    rewarded.warm_up.epochs = 0;
    rewarded.data.train = folder.join("answers.jsonl");
    rewarded.update.learning_rate = 5e-5;
    rewarded.update.warmup_share = 0.1;
    let after = train(&rewarded, &device, &folder.join("rewards"))?;
    show("rewards", &after.after, after.train_seconds);

    // As long again with supervision only, at a rate that does not undo what is learnt.
    let mut longer = RlConfig { model: folder.join("warm-up/model"), ..config };
    longer.warm_up.epochs = ((after.train_seconds / warm.train_seconds) * WARM_UP_EPOCHS as f64).ceil() as usize;
    longer.warm_up.update.learning_rate = 1e-3;
    let control = train(&longer, &device, &folder.join("control"))?;
    show("control", &control.after, control.train_seconds);
    Ok(())
}

fn show(what: &str, evaluation: &Evaluation, seconds: f64) {
    let interval = evaluation.reward.interval;
    println!("{what:<8} {:.3} of the sums right [{:.3}, {:.3}], {seconds:.0} s", evaluation.reward.value, interval.low, interval.high);
}
