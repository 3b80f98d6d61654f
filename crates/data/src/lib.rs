//! Data: rows from files, packing into batches, and the built-in sample world.
//!
//! - [`rows`]: tables of named fields from `.jsonl`, `.csv`, `.tsv` and `.txt` files
//! - [`examples`]: rows as token sequences for language models
//! - [`labels`]: the label names of a classification task and their indices
//! - [`retrieval`]: queries, documents, and which answer which
//! - [`source`]: where a run's rows are, and which are held out
//! - [`split`]: which rows are trained on, and in which order
//! - [`pack`]: which rows share a batch
//! - [`world`]: a little English of its own, so that every method can be tried without downloading anything

pub mod examples;
pub mod labels;
pub mod pack;
mod random;
pub mod retrieval;
pub mod rows;
pub mod source;
pub mod split;
pub mod world;
