//! Muon: the momentum of a matrix is made nearly orthogonal before it moves the matrix, so that all its directions count alike.
//!
//! ```text
//! g ← c·g     b ← μ·b + (1-μ)·g     u = (1-μ)·g + μ·b     X₀ = u / max(‖u‖, ε)
//! five times: A = X·Xᵀ, X ← 3.4445·X + (-4.775·A + 2.0315·A·A)·X
//! p ← p - η·λ·p - η·0.2·√max(rows, columns)·X
//! ```
//!
//! Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), for the iteration and its constants; Liu et al.,
//! arXiv:2502.16982, Eq. 4, for the factor that gives a step the root mean square of one of AdamW's, so that both share a learning rate.
//! Differs from PyTorch's `Muon`: the iteration runs in f32, not in bfloat16.

use crate::adamw::sum_of_squares;
use crate::host::{on_host, read};
use crate::matmul::{Matrix, Onto, multiply, product};
use crate::sweep::{sweep, write};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// η.
    pub learning_rate: f64,
    /// μ, decay of the momentum.
    pub momentum: f64,
    /// λ, decoupled weight decay.
    pub weight_decay: f64,
    /// c, the factor of the gradient: averaging and clipping in one.
    pub gradient_scale: f64,
}

/// Newton-Schulz iterations.
const ITERATIONS: usize = 5;
/// Factors of X, A·X and A·A·X.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// ε, the least norm that is divided by.
const EPSILON: f64 = 1e-7;
/// The root mean square that steps of AdamW typically have.
const USUAL_STEP: f64 = 0.2;

impl Muon {
    fn step_size(&self, [rows, columns]: [usize; 2]) -> f64 {
        self.learning_rate * USUAL_STEP * (rows.max(columns) as f64).sqrt()
    }
}

/// Updates a matrix and its momentum, in place where the caller holds the only handles; returns them.
///
/// # Shapes
/// All three tensors: `[rows · columns]`; none is on an autodiff device.
pub fn muon(parameter: Tensor<1>, gradient: Tensor<1>, momentum: Tensor<1>, shape: [usize; 2], update: &Muon) -> [Tensor<1>; 2] {
    if !on_host(&parameter.device()) {
        return plain(parameter, gradient, momentum, shape, update);
    }
    let (keep, scale) = (update.momentum as f32, update.gradient_scale as f32);
    let take = 1.0 - keep;
    let [momentum, direction] = sweep(
        [momentum, parameter.zeros_like()],
        gradient,
        #[inline(always)]
        |[b, u], g| {
            for ((b, u), &g) in b.iter_mut().zip(u).zip(g) {
                let g = take * g * scale;
                *b = keep * *b + g;
                *u = g + keep * *b;
            }
        },
    );
    let norm = sum_of_squares(direction.clone()).sqrt().max(EPSILON);
    let x = read(direction, |u| orthogonal(u, shape, norm));
    let (decay, step_size) = ((1.0 - update.learning_rate * update.weight_decay) as f32, update.step_size(shape) as f32);
    let [parameter] = write([parameter], |[p]| {
        let chunk = crate::sweep::CHUNK;
        p.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(p, x)| {
            p.iter_mut().zip(x).for_each(|(p, &x)| *p = decay * *p - step_size * x);
        });
    });
    [parameter, momentum]
}

/// The matrix `u / norm` with its singular values brought near 1.
fn orthogonal(u: &[f32], [rows, columns]: [usize; 2], norm: f64) -> Vec<f32> {
    let [a, b, c] = COEFFICIENTS.map(|factor| factor as f32);
    // Products of the short side cost least.
    let turn = rows > columns;
    let (m, k) = (rows.min(columns), rows.max(columns));
    let mut x = if turn { transposed(u, rows, columns) } else { u.to_vec() };
    x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    for _ in 0..ITERATIONS {
        let gram = product(1.0, Matrix::new(&x, m, k), Matrix::new(&x, m, k).t());
        let mut polynomial = gram.clone();
        multiply(&mut polynomial, Onto::Output(b), c, Matrix::new(&gram, m, m), Matrix::new(&gram, m, m));
        let mut next = x.clone();
        multiply(&mut next, Onto::Output(a), 1.0, Matrix::new(&polynomial, m, m), Matrix::new(&x, m, k));
        x = next;
    }
    if turn { transposed(&x, m, k) } else { x }
}

/// The transpose of a `[rows, columns]` matrix.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| x[row * columns + column])).collect()
}

fn plain(parameter: Tensor<1>, gradient: Tensor<1>, momentum: Tensor<1>, shape: [usize; 2], update: &Muon) -> [Tensor<1>; 2] {
    let [a, b, c] = COEFFICIENTS;
    let [rows, columns] = shape;
    let gradient = gradient * (update.gradient_scale * (1.0 - update.momentum));
    let momentum = momentum * update.momentum + gradient.clone();
    let direction = gradient + momentum.clone() * update.momentum;
    let norm = sum_of_squares(direction.clone()).sqrt().max(EPSILON);
    let mut x = direction.reshape(shape) / norm;
    if rows > columns {
        x = x.transpose();
    }
    for _ in 0..ITERATIONS {
        let gram = x.clone().matmul(x.clone().transpose());
        let polynomial = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + polynomial.matmul(x);
    }
    if rows > columns {
        x = x.transpose();
    }
    let kept = parameter * (1.0 - update.learning_rate * update.weight_decay);
    [kept - x.reshape([rows * columns]) * update.step_size(shape), momentum]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_steps, numbers};

    const UPDATE: Muon = Muon { learning_rate: 1e-2, momentum: 0.95, weight_decay: 0.1, gradient_scale: 0.5 };

    #[test]
    fn sweep_matches_plain_burn_over_several_steps() {
        for shape in [[24, 70], [70, 24], [33, 33], [1, 9]] {
            let n = shape[0] * shape[1];
            assert_same_steps([n; 2], |[p, b], g| muon(p, g, b, shape, &UPDATE), |[p, b], g| plain(p, g, b, shape, &UPDATE));
        }
    }

    /// What the iteration is for: rows of the short side are nearly orthogonal and of norm near 1, however the matrix was scaled. Its
    /// constants trade exactness for speed: singular values end between 0.67 and 1.2.
    #[test]
    fn directions_count_alike() {
        let (rows, columns) = (8, 200);
        let mut u = numbers(rows * columns, 3);
        u.chunks_exact_mut(columns).enumerate().for_each(|(row, values)| values.iter_mut().for_each(|value| *value *= 1.0 + row as f32));
        let norm = u.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        for (u, shape, turn) in [(u.clone(), [rows, columns], false), (transposed(&u, rows, columns), [columns, rows], true)] {
            let x = orthogonal(&u, shape, norm);
            let x = if turn { transposed(&x, columns, rows) } else { x };
            let gram = product(1.0, Matrix::new(&x, rows, columns), Matrix::new(&x, rows, columns).t());
            for row in 0..rows {
                for other in 0..rows {
                    let value = gram[row * rows + other];
                    let fits = if row == other { (0.45..1.45).contains(&value) } else { value.abs() < 0.3 };
                    assert!(fits, "[{row}, {other}] is {value}");
                }
            }
        }
    }
}
