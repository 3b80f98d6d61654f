//! Whether training works: every task beats its control on held-out rows, and the same seed gives the same bytes.
//!
//! The tests on real weights and data read the folder the environment variable `KILN_SHARED` names, and skip themselves where it is not set.

mod accumulation;
mod clean_files;
mod continual;
mod determinism;
mod embeddings;
mod encoders;
mod gradient_checkpointing;
mod label_errors;
mod memorisation;
mod mitigation;
mod multitask;
mod overfitting;
mod real_weights;
mod rewards;
mod support;
mod validation;
mod world;
