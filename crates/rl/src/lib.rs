//! Policy gradients from rewards: a decoder samples completions of prompts, each is rewarded, and what was rewarded above the others becomes
//! more probable.
//!
//! One loss ([`objective::clipped_policy`]) serves REINFORCE, RLOO, GRPO, Dr. GRPO and DAPO, which differ in the advantage
//! ([`objective::advantage`]), in how tokens are weighted, and in the clip range; PPO ([`objective::ppo`]) adds a value head. Rewards are
//! any number of weighted parts ([`reward`]). [`train::train`] is the one loop; a supervised warm-up before it makes it ReFT.
//!
//! ```no_run
//! use kiln_rl::{config::{Algorithm, RlConfig}, reward::{RewardConfig, RewardKind}, train::train};
//! use std::path::Path;
//!
//! let numeric = RewardConfig { kind: RewardKind::Numeric, column: "answer".into(), ..RewardConfig::default() };
//! let mut config = RlConfig { model: "runs/sft-1/model".into(), algorithm: Algorithm::Grpo, rewards: vec![numeric], ..RlConfig::default() };
//! config.data.train = "sums.jsonl".into();
//! let summary = train(&config, &kiln_core::device::by_name("flex")?, Path::new("run"))?;
//! println!("mean reward {:.3} -> {:.3}", summary.before.reward.value, summary.after.reward.value);
//! # Ok::<(), kiln_core::Error>(())
//! ```

pub mod config;
pub mod data;
#[cfg(test)]
mod enumeration;
pub mod evaluate;
pub mod lesson;
pub mod objective;
pub mod plan;
pub mod policy;
pub mod reward;
pub mod rollout;
pub mod train;
mod warm_up;
