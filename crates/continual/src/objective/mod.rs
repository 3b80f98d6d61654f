//! What holds a model to what it knew, and how checkpoints are joined.

pub mod ewc;
pub mod l2_sp;
pub mod lwf;
pub mod ties;
pub mod wise_ft;
