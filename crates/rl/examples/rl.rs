//! Sums from rewards: a small decoder learns from worked sums, most of which give the answer at once while some add digit by digit. Told which of
//! its own answers to further sums are right, it finds that adding digit by digit pays. Beside it, the same decoder learns from the worked sums for
//! as long again. A minute or two on two cores.
//!
//! ```sh
//! cargo run --example rl -- OUT SEED
//! ```

use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::world::{World, write_jsonl};
use kiln_kernels::random::Key;
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::reward::{RewardConfig, RewardKind};
use kiln_rl::train::{Summary, train};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Sums of two numbers below 100 that come with a completion, and those that come with their answer only.
const WORKED: usize = 1000;
const ANSWERED: usize = 1600;
/// Of five worked sums, so many give the answer without a step.
const AT_ONCE_OF_FIVE: usize = 3;
const WARM_UP_EPOCHS: usize = 40;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "sums".into()));
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (device, world) = (device::by_name("flex")?, World::new(seed));
    let mut rows = world.sum_rows(2, WORKED + ANSWERED);
    for row in rows[..WORKED].iter_mut().enumerate().filter(|(index, _)| index % 5 < AT_ONCE_OF_FIVE).map(|(_, row)| row) {
        row.completion = row.answer.clone();
    }
    write_jsonl(&folder.join("worked.jsonl"), &rows[..WORKED])?;
    // Only their prompts and answers are used.
    write_jsonl(&folder.join("answered.jsonl"), &rows[WORKED..])?;
    write_jsonl(&folder.join("held-out.jsonl"), &world.held_out().sum_rows(2, 500))?;
    // A vocabulary of bytes only: every digit is a token.
    let tokenizer = Tokenizer::train(["0"].into_iter(), 260)?;
    let Value::Object(shape) = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 64, "intermediate_size": 168, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 64, "hidden_act": "silu", "tie_word_embeddings": true, "eos_token_id": 2,
    }) else {
        unreachable!("an object")
    };
    let shape = ModelConfig::from_json(shape, Path::new("config.json"))?;
    model::save(&LanguageModel::new(shape, &device, Key::new(seed))?, &tokenizer, &folder.join("untrained"))?;

    let mut config = RlConfig { model: folder.join("untrained"), algorithm: Algorithm::Grpo, epochs: 0, seed, ..RlConfig::default() };
    config.data.train = folder.join("worked.jsonl");
    config.data.held_out = Some(folder.join("held-out.jsonl"));
    config.rewards = vec![RewardConfig { kind: RewardKind::Numeric, column: "answer".into(), ..RewardConfig::default() }];
    config.sampling.max_new_tokens = 28;
    config.evaluation.temperature = 0.0;
    config.warm_up.epochs = WARM_UP_EPOCHS;
    config.warm_up.update.learning_rate = 3e-3;
    config.warm_up.update.warmup_share = 0.05;
    let warm = train(&config, &device, &folder.join("warm-up"))?;
    show("warm-up", &warm);

    let mut rewarded = RlConfig { model: folder.join("warm-up/model"), epochs: 1, batch_prompts: 32, ..config.clone() };
    rewarded.warm_up.epochs = 0;
    rewarded.data.train = folder.join("answered.jsonl");
    rewarded.update.learning_rate = 2e-4;
    rewarded.update.warmup_share = 0.2;
    let after = train(&rewarded, &device, &folder.join("rewards"))?;
    show("rewards", &after);

    // As long again with supervision only, at a rate that does not undo what is learnt.
    let mut longer = RlConfig { model: folder.join("warm-up/model"), ..config };
    longer.warm_up.epochs = ((after.train_seconds / warm.train_seconds) * WARM_UP_EPOCHS as f64).ceil() as usize;
    longer.warm_up.update.learning_rate = 1e-3;
    show("control", &train(&longer, &device, &folder.join("control"))?);
    Ok(())
}

/// The share of the held-out sums that the likeliest completion gets right, with its interval, and what it took.
fn show(what: &str, summary: &Summary) {
    let (reward, tokens) = (&summary.after.reward, &summary.after.others[1]);
    println!(
        "{what:<8} {:.3} of the sums right [{:.3}, {:.3}], {:.1} tokens each; {} steps, {:.0} s",
        reward.value, reward.interval.low, reward.interval.high, tokens.value, summary.n_steps, summary.train_seconds
    );
}
