//! Every value and gradient against PyTorch, transformers, PEFT, TRL and sentence-transformers in float32, and the laws no reference is needed for.
//!
//! The fixtures beside this file were written by the scripts in `generate/`. Tests on real weights and on the larger set of reference values
//! read the folder the environment variable `KILN_SHARED` names, and skip themselves where it is not set.

mod adapter_kinds;
mod adapters;
mod chat_templates;
mod checkpoints;
mod classifiers;
mod continual;
mod data_files;
mod embeddings;
mod families;
mod first_losses;
mod generation;
mod head;
mod laws;
mod layouts;
mod mitigation;
mod multitask;
mod optimizers;
mod policy_losses;
mod preference;
mod r_drop;
mod real_weights;
mod schedules;
mod sentence_encoders;
mod support;
mod text_inputs;
mod tokenizers;
mod updates;
mod written;
