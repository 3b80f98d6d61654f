//! Learning without labels: an encoder predicts hidden tokens, or learns which texts belong together.
//!
//! Six objectives: masked language modelling ([`objective::masked_language_model`]) on texts; multiple negatives ranking
//! ([`objective::multiple_negatives_ranking`]), the same through a gradient cache ([`objective::gradient_cache`]), unsupervised SimCSE
//! ([`objective::simcse`]), CoSENT ([`objective::cosent`]) and triplet loss ([`objective::triplet`]) on groups of texts. [`train::train`] is
//! the one loop; [`embed`] makes vectors and searches them.
//!
//! ```no_run
//! use kiln_contrastive::config::{ContrastiveConfig, Objective};
//! use kiln_contrastive::train::train;
//! use std::path::Path;
//!
//! let mut config = ContrastiveConfig { model: "all-MiniLM-L6-v2".into(), objective: Objective::Mnrl, ..ContrastiveConfig::default() };
//! config.data.train = "pairs.jsonl".into();
//! config.update.learning_rate = 2e-5;
//! let summary = train(&config, &kiln_core::device::by_name("flex")?, Path::new("run"))?;
//! for (before, after) in summary.before.figures.iter().zip(&summary.after.figures) {
//!     println!("{} {:.4} -> {:.4}", after.metric, before.value, after.value);
//! }
//! # Ok::<(), kiln_core::Error>(())
//! ```
//!
//! `cargo run --example contrastive` does it in seconds on the built-in world (`crates/contrastive/examples/contrastive.rs`).

pub mod config;
pub mod data;
pub mod embed;
pub mod evaluate;
pub mod judge;
pub mod objective;
pub mod plan;
pub mod train;
