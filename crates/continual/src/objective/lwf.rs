//! Learning without forgetting: the model is held to what it predicted before, on the text it learns from.
//!
//! ```text
//! loss = Σ_t −log q_t(x_t) + λ·T²·Σ_t KL(p_t ‖ q_t)        p_t, q_t at temperature T in the second term
//! ```
//!
//! p are the predictions of the model before the domain, q those of the model that learns; t are the supervised tokens.
//! Source: Li and Hoiem, arXiv:1606.09282, Eq. 2 to 4 and Figure 3; T² as Hinton et al., arXiv:1503.02531, Section 2.
//! Differs from the source: the old predictions are of the same output, the vocabulary, not of a head of their own; the divergence instead of
//! the cross-entropy, whose gradient is the same and whose least value is 0; they are computed at each step and not once, so that nothing of
//! the size of the vocabulary is kept.

use burn::tensor::Tensor;
use kiln_kernels::cross_entropy::distillation::{OutputHead, head_divergence};

/// `strength·T²·Σ KL(teacher ‖ student)` over the rows of the two heads, `[1]`.
pub fn penalty(student: OutputHead, teacher: OutputHead, strength: f64, temperature: f64) -> Tensor<1> {
    let [n_rows, _] = student.hidden.dims();
    let weight = strength * temperature * temperature;
    head_divergence(student, teacher, &vec![weight as f32; n_rows].into(), temperature as f32)
}
