//! What supervised fine-tuning minimises.

pub mod classification;
pub mod group_dro;
pub mod next_token;
pub mod preference;
pub mod r_drop;
pub mod regression;
pub mod reweighing;
pub mod token_classification;
