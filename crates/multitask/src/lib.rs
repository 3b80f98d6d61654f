//! Several tasks on one trunk: a model learns classes, numbers, tags and next tokens at once, with a head for each task.
//!
//! Rows of all tasks are laid end to end in one batch, go through the trunk together, and each head reads the tokens of its own rows
//! ([`model::MultitaskModel`]). How often each task has its turn is decided in [`sampling`], how much it counts in [`weighting`]: by fixed weights,
//! by learnt uncertainty ([`objective::uncertainty`]) or so that all losses fall at one rate ([`objective::famo`]). Gradients that conflict can be
//! projected ([`objective::pcgrad`]). [`train::train`] is the one loop, [`predict::predict`] lets all heads of a saved model answer at once.
//!
//! ```no_run
//! use kiln_multitask::config::{Kind, MultitaskConfig, TaskConfig};
//! use kiln_multitask::train::train;
//! use std::path::Path;
//!
//! let mut config = MultitaskConfig { model: "all-MiniLM-L6-v2".into(), ..MultitaskConfig::default() };
//! for (name, kind) in [("mood", Kind::Classification), ("names", Kind::TokenClassification)] {
//!     let mut task = TaskConfig { kind, ..TaskConfig::default() };
//!     task.data.train = format!("{name}.jsonl").into();
//!     config.tasks.insert(name.to_owned(), task);
//! }
//! let summary = train(&config, &kiln_core::device::by_name("flex")?, Path::new("run"))?;
//! for (name, task) in &summary.tasks {
//!     println!("{name}: {} {:.3} -> {:.3}", task.after.figure.metric, task.before.figure.value, task.after.figure.value);
//! }
//! # Ok::<(), kiln_core::Error>(())
//! ```

pub mod checkpoint;
pub mod config;
pub mod data;
pub mod evaluate;
pub mod gradients;
pub mod model;
pub mod objective;
pub mod plan;
pub mod predict;
pub mod sampling;
pub mod train;
mod validation;
pub mod weighting;
