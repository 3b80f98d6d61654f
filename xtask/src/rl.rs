//! `cargo xtask rl`: policy gradients from rewards.

use crate::sft::{differences, number, range, validation};
use crate::{MethodArgs, out_folder, settings};
use kiln_core::{Result, device};
use kiln_eval::figure::Figure;
use kiln_rl::config::RlConfig;
use kiln_rl::evaluate::Evaluation;
use kiln_rl::train::{Summary, train};
use std::path::Path;

/// Trains, and prints what it did for the held-out prompts.
///
/// # Errors
/// Whatever [`train`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    let config = of(args)?;
    let out = out_folder(args.out.as_ref(), "rl")?;
    print(&train(&config, &device::by_name(&args.device)?, &out)?, &out);
    Ok(())
}

/// The settings of a run.
///
/// # Errors
/// Whatever the settings refuse; if a data set of the hub cannot be fetched.
pub fn of(args: &MethodArgs) -> Result<RlConfig> {
    let mut config: RlConfig = settings::read(args)?;
    config.data.fetch()?;
    Ok(config)
}

/// Prints what training did for the held-out prompts.
pub fn print(summary: &Summary, out: &Path) {
    evaluation("before", &summary.before);
    summary.warmed_up.iter().for_each(|figures| evaluation("warmed up", figures));
    evaluation("after", &summary.after);
    differences(&[summary.difference]);
    validation("validation", summary.validation.as_ref());
    println!("{:<14} {} of {} parameters, {} steps", "trained", summary.n_trainable, summary.n_parameters, summary.n_steps);
    println!(
        "{:<14} {:.1} s: sampling {:.1} s at {:.0} tokens/s, rewards {:.1} s, updates {:.1} s",
        "training",
        summary.train_seconds,
        summary.sample_seconds,
        summary.sampled_tokens_per_second,
        summary.reward_seconds,
        summary.update_seconds
    );
    println!("{:<14} {}", "run", out.display());
}

/// The mean reward, and what else belongs to it.
fn evaluation(when: &str, evaluation: &Evaluation) {
    let figure = |name: &str, Figure { value, interval, .. }: &Figure| format!("{name} {} {}", number(*value), range(interval));
    let Evaluation { reward, parts, others, n_prompts, n_samples } = evaluation;
    println!("{when:<14} {} on {n_prompts} prompts, {n_samples} completions of each", figure(reward.metric, reward));
    let parts = parts.iter().map(|part| (part.name.as_str(), &part.reward));
    for (name, other) in parts.chain(others.iter().map(|other| (other.metric, other))) {
        println!("{:<14} {}", "", figure(name, other));
    }
}
