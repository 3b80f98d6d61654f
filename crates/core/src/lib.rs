//! The model: a transformer on packed sequences, its tokenizer, checkpoints, adapters and generation.
//!
//! One [`transformer::Transformer`] serves every family; a family is a mapping from Hugging Face's `config.json` and tensor names to ours
//! ([`family`]). Hidden states are `[tokens, width]`, without padding; [`packed::Packed`] says where each sequence starts.
//!
//! `cargo run --example core` makes a model, saves and loads it, and continues a text (`crates/core/examples/core.rs`).

pub mod adapter;
pub mod attention;
pub mod builder;
pub mod cache;
pub mod chat;
pub mod checkpoint;
pub mod classifier;
pub mod config;
pub mod device;
pub mod embedding;
pub mod error;
pub mod family;
pub mod feed_forward;
pub mod files;
pub mod generate;
pub mod guard;
pub mod hub;
pub mod language_model;
pub mod linear;
pub mod model;
pub mod norm;
pub mod packed;
pub mod parameters;
pub mod pooler;
pub mod recompute;
pub mod rotary;
pub mod search;
pub mod sentence_encoder;
pub mod token_classifier;
pub mod tokenizer;
pub mod transformer;
pub mod vocabulary;

pub use error::{Error, Result};
