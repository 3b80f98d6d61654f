//! Sums from rewards: a small decoder learns from worked sums, of which every other gives the answer at once and the rest add digit by digit. Told
//! which of its own answers to further sums are right, it finds that adding digit by digit pays. Beside it, the same decoder learns under supervision
//! for as long again, from the worked sums or from these and the further sums with their answers, at two learning rates. A few minutes on two cores.
//!
//! ```sh
//! cargo run --example rl -- OUT SEED
//! ```

use burn::tensor::Device;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Result, device, model};
use kiln_data::world::{World, write_jsonl};
use kiln_kernels::random::Key;
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::data::prompts;
use kiln_rl::evaluate::{Evaluation, evaluate};
use kiln_rl::reward::{RewardConfig, RewardKind, Rewards};
use kiln_rl::train::{Summary, train};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Sums of two numbers below 1000 that come with a completion, and those that come with their answer only.
const WORKED: usize = 1500;
const ANSWERED: usize = 640;
/// Passes of rewards over the answered sums.
const REWARD_EPOCHS: usize = 6;
const WARM_UP_EPOCHS: usize = 60;
/// Updates of the controls: they take no less time than the rewards do.
const CONTROL_STEPS: usize = 2200;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "sums".into()));
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (device, world) = (device::by_name("flex")?, World::new(seed));
    let mut rows = world.sum_rows(3, WORKED + ANSWERED);
    for row in rows[..WORKED].iter_mut().skip(1).step_by(2) {
        row.completion = row.answer.clone();
    }
    write_jsonl(&folder.join("worked.jsonl"), &rows[..WORKED])?;
    // Of these the answers are known, not the steps.
    rows[WORKED..].iter_mut().for_each(|row| row.completion = row.answer.clone());
    write_jsonl(&folder.join("answered.jsonl"), &rows[WORKED..])?;
    write_jsonl(&folder.join("both.jsonl"), &rows)?;
    write_jsonl(&folder.join("held-out.jsonl"), &world.held_out().sum_rows(3, 500))?;
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

    // The rows of a small grammar repeat, which the pre-flight would stop at.
    let mut config =
        RlConfig { model: folder.join("untrained"), algorithm: Algorithm::Grpo, epochs: 0, seed, force: true, ..RlConfig::default() };
    config.data.train = folder.join("worked.jsonl").into();
    config.data.held_out = Some(folder.join("held-out.jsonl"));
    config.rewards = vec![RewardConfig { kind: RewardKind::Numeric, column: "answer".into(), ..RewardConfig::default() }];
    config.sampling.max_new_tokens = 36;
    config.evaluation.temperature = 0.0;
    config.warm_up.epochs = WARM_UP_EPOCHS;
    config.warm_up.update.learning_rate = 3e-3;
    config.warm_up.update.warmup_share = 0.05;
    let warm_up = folder.join("warm-up");
    show("warm-up", &train(&config, &device, &warm_up)?, &config, &warm_up, &device)?;

    let mut rewarded = RlConfig { model: warm_up.join("model"), epochs: REWARD_EPOCHS, batch_prompts: 32, ..config.clone() };
    rewarded.warm_up.epochs = 0;
    rewarded.data.train = folder.join("answered.jsonl").into();
    rewarded.update.learning_rate = 6e-4;
    rewarded.update.warmup_share = 0.1;
    let out = folder.join("rewards");
    show("rewards", &train(&rewarded, &device, &out)?, &rewarded, &out, &device)?;

    // As long again with supervision only, at rates that do not undo what is learnt: on the worked sums, and on both.
    for (file, n_rows, rate) in
        [("worked", WORKED, 1e-3), ("worked", WORKED, 2e-4), ("both", WORKED + ANSWERED, 1e-3), ("both", WORKED + ANSWERED, 2e-4)]
    {
        let mut longer = RlConfig { model: warm_up.join("model"), ..config.clone() };
        longer.data.train = folder.join(format!("{file}.jsonl")).into();
        longer.warm_up.epochs = CONTROL_STEPS.div_ceil(n_rows.div_ceil(longer.warm_up.batch_rows));
        longer.warm_up.update.learning_rate = rate;
        let name = format!("{file}-{rate}");
        let out = folder.join(&name);
        show(&name, &train(&longer, &device, &out)?, &longer, &out, &device)?;
    }
    Ok(())
}

/// The share of the held-out sums that the likeliest completion gets right and that a sampled one does, with intervals, and what it took.
fn show(what: &str, summary: &Summary, config: &RlConfig, out: &Path, device: &Device) -> Result<()> {
    let mut sampled = RlConfig { model: out.join("model"), ..config.clone() };
    sampled.evaluation.temperature = 1.0;
    let shape = ModelConfig::from_folder(&sampled.model)?;
    let tokenizer = Tokenizer::for_model(&sampled.model, &shape)?;
    let held_out = prompts(&sampled, &shape, &tokenizer)?.rows.held_out;
    let (model, _) = LanguageModel::load(&sampled.model, &device.clone().autodiff())?;
    let sampled = evaluate(&model, None, &tokenizer, &held_out, &mut Rewards::open(&config.rewards, device)?, &sampled)?;
    let of = |evaluation: &Evaluation| {
        let (reward, tokens) = (&evaluation.reward, &evaluation.others[1]);
        format!("{:.3} [{:.3}, {:.3}], {:.1} tokens", reward.value, reward.interval.low, reward.interval.high, tokens.value)
    };
    println!(
        "{what:<14} right: likeliest {}; sampled {}; {} steps, {:.0} s",
        of(&summary.after),
        of(&sampled),
        summary.n_steps,
        summary.train_seconds
    );
    Ok(())
}
