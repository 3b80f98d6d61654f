//! How the losses and the gradients of several tasks become one update.

pub(crate) mod adam;
pub mod famo;
pub mod pcgrad;
pub mod uncertainty;
