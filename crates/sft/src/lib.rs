//! Supervised fine-tuning: a model learns from rows that say what is right.
//!
//! The class of a text or of a pair ([`objective::classification`]), its number ([`objective::regression`]), the tag of each word
//! ([`objective::token_classification`]), the next token of a completion, a conversation or plain text ([`objective::next_token`]), and which
//! of two completions is better ([`objective::preference`]); in full, or through a low-rank adapter. [`train::train`] is the one loop. [`mitigation`] keeps a classifier from going by the group that a row is about.
//!
//! ```no_run
//! use kiln_sft::{config::{SftConfig, Task}, train::train};
//! use std::path::Path;
//!
//! let mut config = SftConfig { model: "all-MiniLM-L6-v2".into(), task: Task::Classification, ..SftConfig::default() };
//! config.data.train = "reviews.tsv".into();
//! let summary = train(&config, &kiln_core::device::by_name("flex")?, Path::new("run"))?;
//! let gain = &summary.difference[0];
//! println!("accuracy {:.3} -> {:.3}, better by {:.3} to {:.3}", summary.before.figure.value, summary.after.figure.value, gain.interval.low, gain.interval.high);
//! # Ok::<(), kiln_core::Error>(())
//! ```
//!
//! `cargo run --example sft` does it in seconds on the built-in world (`crates/sft/examples/sft.rs`).

pub mod config;
pub mod data;
pub mod evaluate;
mod learner;
pub mod mitigation;
pub mod objective;
pub mod observe;
pub mod plan;
pub mod train;
