//! What supervised fine-tuning minimises.

pub mod classification;
pub mod next_token;
pub mod preference;
pub mod r_drop;
pub mod regression;
pub mod token_classification;
