//! Supervised fine-tuning: a model learns from rows that say what is right.
//!
//! Two tasks: the label of a text ([`objective::classification`]) and the next token of a completion or of plain text
//! ([`objective::next_token`]); in full, or through a low-rank adapter. [`train::train`] is the one loop.
//!
//! ```no_run
//! use kiln_sft::{config::{SftConfig, Task}, train::train};
//! use std::path::Path;
//!
//! let mut config = SftConfig { model: "all-MiniLM-L6-v2".into(), task: Task::Classification, ..SftConfig::default() };
//! config.data.train = "reviews.tsv".into();
//! let summary = train(&config, &kiln_core::device::by_name("flex")?, Path::new("run"))?;
//! println!("accuracy {:.3} -> {:.3}", summary.before.value, summary.after.value);
//! # Ok::<(), kiln_core::Error>(())
//! ```

pub mod config;
pub mod data;
pub mod evaluate;
pub mod objective;
pub mod train;
