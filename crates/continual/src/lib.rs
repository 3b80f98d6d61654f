//! Continual learning: a language model goes on learning from the texts of one domain after another, and keeps what it knew.
//!
//! Training continues by next-token prediction or masked language modelling. Against forgetting: rows of earlier domains and of general text
//! are replayed ([`replay`]), weights are held where they were, all alike ([`objective::l2_sp`]) or as they matter ([`objective::ewc`]), the
//! model is held to what it predicted before ([`objective::lwf`]), or only a low-rank adapter learns. A budget on how much worse general text
//! may become is kept by going back part of the way ([`budget`], [`objective::wise_ft`]). [`train::train`] is the one loop; [`merge`] joins
//! checkpoints ([`objective::ties`]).
//!
//! ```no_run
//! use kiln_continual::{config::ContinualConfig, train::train};
//! use kiln_data::source::DataConfig;
//! use std::path::Path;
//!
//! let mut config = ContinualConfig { model: "SmolLM2-135M".into(), budget: Some(0.02), ..ContinualConfig::default() };
//! config.data.train = "law.jsonl".into();
//! config.general = Some(DataConfig { train: "general.jsonl".into(), ..DataConfig::default() });
//! config.replay.share = 0.25;
//! let summary = train(&config, &kiln_core::device::by_name("flex")?, Path::new("run"))?;
//! println!("gain {:.3} nats per token", summary.transfer.gain.value);
//! # Ok::<(), kiln_core::Error>(())
//! ```

pub mod budget;
pub mod config;
pub mod data;
pub mod evaluate;
mod judges;
pub mod merge;
pub mod objective;
pub mod observe;
pub mod plan;
pub mod replay;
pub mod train;
