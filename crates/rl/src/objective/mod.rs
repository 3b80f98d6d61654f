//! The maths, one objective per file.

pub mod advantage;
pub mod clipped_policy;
pub mod ppo;
