//! L2-SP: weights are pulled towards the starting point instead of towards zero.
//!
//! ```text
//! penalty = α/2·‖θ − θ⁰‖²        gradient = α·(θ − θ⁰)
//! ```
//!
//! θ⁰ are the weights before the domain. The gradient is added where that of the loss lies, before it is clipped.
//! Source: Li, Grandvalet and Davoine, arXiv:1802.01483, Eq. 2.
//! Differs from the source: no decay towards zero of parameters that are new, since there are none.

use burn::tensor::Tensor;
use kiln_train::updater::Pull;
use std::collections::BTreeMap;

/// The pull of `strength` α towards `anchor`, θ⁰.
pub fn pull(anchor: &BTreeMap<String, Tensor<1>>, strength: f64) -> Pull<'_> {
    Pull { anchor, importance: None, strength }
}
