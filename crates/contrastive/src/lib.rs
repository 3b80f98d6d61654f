//! Learning without labels: an encoder predicts hidden tokens, or learns which texts belong together.
pub mod config;
pub mod data;
pub mod evaluate;
pub mod objective;
pub mod train;
