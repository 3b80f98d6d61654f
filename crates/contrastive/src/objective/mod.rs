//! What is minimised without labels.

pub mod cosent;
pub mod gradient_cache;
pub mod masked_language_model;
pub mod multiple_negatives_ranking;
pub mod simcse;
pub mod triplet;
