//! Adafactor in place: the squared gradients of a matrix are remembered by row and by column only.
//!
//! ```text
//! g ← c·g     β = 1 - t^γ
//! matrix:     r_i ← β·r_i + (1-β)·mean_j(g_ij² + ε₁)     s_j ← β·s_j + (1-β)·mean_i(g_ij² + ε₁)     v_ij = r_i·s_j / mean(r)
//! vector:     v_i ← β·v_i + (1-β)·(g_i² + ε₁)
//! u = g / √v     α = η, or η·max(ε₂, rms(p))     p ← p - α·λ·p - α·u / max(1, rms(u) / d)
//! ```
//!
//! Source: Shazeer and Stern, arXiv:1804.04235, Algorithms 4 and 5, with the constants of transformers' `Adafactor`. Differs from the source:
//! the learning rate η comes from outside, and weight decay is decoupled, as in transformers.

use crate::adamw::{products, sum_of_squares};
use crate::host::{on_host, read};
use crate::math::simd;
use crate::sweep::{CHUNK, sweep, write};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    /// η.
    pub learning_rate: f64,
    /// γ, by which the decay of the squared gradients grows with t.
    pub decay_rate: f64,
    /// ε₁, added to squared gradients.
    pub epsilon: f64,
    /// d, the largest root mean square of a step before the learning rate.
    pub clip_threshold: f64,
    /// ε₂, the least scale of a parameter, if steps are as large as their parameters.
    pub least_scale: Option<f64>,
    /// λ, decoupled weight decay.
    pub weight_decay: f64,
    /// t, updates including this one.
    pub step: usize,
    /// c, the factor of the gradient: averaging and clipping in one.
    pub gradient_scale: f64,
}

impl Adafactor {
    /// β.
    fn decay(&self) -> f64 {
        1.0 - (self.step as f64).powf(self.decay_rate)
    }

    /// α, for a parameter.
    fn rate(&self, parameter: &Tensor<1>) -> f64 {
        let n_elements = parameter.dims()[0] as f64;
        let scale = |least: f64| (sum_of_squares(parameter.clone()) / n_elements).sqrt().max(least);
        self.learning_rate * self.least_scale.map_or(1.0, scale)
    }

    /// The factor of `u` for the sum of its squares over `n` elements.
    fn step_size(&self, rate: f64, squares: f64, n: usize) -> f64 {
        rate / ((squares / n as f64).sqrt() / self.clip_threshold).max(1.0)
    }
}

/// Updates a matrix and what is remembered of its rows and its columns, in place where the caller holds the only handles; returns them.
///
/// # Shapes
/// `parameter`, `gradient`: `[rows · columns]`; then `[rows]` and `[columns]`. None is on an autodiff device.
pub fn adafactor_matrix(
    parameter: Tensor<1>,
    gradient: Tensor<1>,
    [row_squares, column_squares]: [Tensor<1>; 2],
    update: &Adafactor,
) -> [Tensor<1>; 3] {
    if !on_host(&parameter.device()) {
        return plain_matrix(parameter, gradient, [row_squares, column_squares], update);
    }
    let rate = update.rate(&parameter);
    let ([n_rows], [n_columns]) = (row_squares.dims(), column_squares.dims());
    // Whole rows, as near to the usual unit as they come.
    let chunk = (CHUNK / n_columns).max(1) * n_columns;
    let squared = update.gradient_scale * update.gradient_scale;
    read(gradient, |g| {
        let mut factors = None;
        let [row_squares, column_squares] = write([row_squares, column_squares], |[rows, columns]| {
            let of_rows: Vec<f64> = g.par_chunks(n_columns).map(|row| products(row, row)).collect();
            let of_columns: Vec<Vec<f32>> = g.par_chunks(chunk).map(|rows| simd(|| column_sums(rows, n_columns))).collect();
            let decay = update.decay();
            let next = |old: f32, sum: f64, n: usize| {
                (decay * f64::from(old) + (1.0 - decay) * (sum * squared / n as f64 + update.epsilon)) as f32
            };
            rows.iter_mut().zip(of_rows).for_each(|(row, sum)| *row = next(*row, sum, n_columns));
            for (index, column) in columns.iter_mut().enumerate() {
                *column = next(*column, of_columns.iter().map(|part| f64::from(part[index])).sum(), n_rows);
            }
            let mean = rows.iter().map(|&row| f64::from(row)).sum::<f64>() / n_rows as f64;
            // The factor of the gradient is left to the rows.
            let of_row = |row: &f32| (update.gradient_scale / (f64::from(*row) / mean).sqrt()) as f32;
            factors = Some((rows.iter().map(of_row).collect(), columns.iter().map(|column| column.sqrt().recip()).collect()));
        });
        let (of_rows, of_columns): (Vec<f32>, Vec<f32>) = factors.expect("computed above");
        let squares = |(row, factor): (&[f32], &f32)| {
            let factor = f64::from(*factor);
            simd(
                #[inline(always)]
                || factor * factor * scaled_squares(row, &of_columns),
            )
        };
        let squares: Vec<f64> = g.par_chunks(n_columns).zip(&of_rows).map(squares).collect();
        let step_size = update.step_size(rate, squares.into_iter().sum(), g.len()) as f32;
        let keep = (1.0 - rate * update.weight_decay) as f32;
        let [parameter] = write([parameter], |[p]| {
            p.par_chunks_mut(n_columns).zip(g.par_chunks(n_columns)).zip(&of_rows).for_each(|((p, g), factor)| {
                let factor = step_size * factor;
                simd(
                    #[inline(always)]
                    || p.iter_mut().zip(g).zip(&of_columns).for_each(|((p, &g), &column)| *p = keep * *p - factor * g * column),
                );
            });
        });
        [parameter, row_squares, column_squares]
    })
}

/// The sums of squares of each column of whole rows.
#[inline(always)]
fn column_sums(rows: &[f32], n_columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0f32; n_columns];
    for row in rows.chunks_exact(n_columns) {
        sums.iter_mut().zip(row).for_each(|(sum, &g)| *sum += g * g);
    }
    sums
}

/// The sum of the squares of `row` times `factors`.
#[inline(always)]
fn scaled_squares(row: &[f32], factors: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    for (index, (&g, &factor)) in row.iter().zip(factors).enumerate() {
        let u = g * factor;
        lanes[index % LANES] += f64::from(u * u);
    }
    lanes.iter().sum()
}

/// Updates a vector and the mean of its squared gradients, in place where the caller holds the only handles; returns them.
///
/// # Shapes
/// All three tensors have the same; none is on an autodiff device.
pub fn adafactor_vector(parameter: Tensor<1>, gradient: Tensor<1>, squares: Tensor<1>, update: &Adafactor) -> [Tensor<1>; 2] {
    if !on_host(&parameter.device()) {
        return plain_vector(parameter, gradient, squares, update);
    }
    let rate = update.rate(&parameter);
    let (decay, scale, epsilon) = (update.decay() as f32, update.gradient_scale as f32, update.epsilon as f32);
    let [squares] = sweep(
        [squares],
        gradient.clone(),
        #[inline(always)]
        |[v], g| {
            for (v, &g) in v.iter_mut().zip(g) {
                let g = g * scale;
                *v = decay * *v + (1.0 - decay) * (g * g + epsilon);
            }
        },
    );
    let sum: f64 = read(gradient.clone(), |g| {
        let chunk = |(g, v): (&[f32], &[f32])| {
            let square = |(&g, &v): (&f32, &f32)| f64::from(g * scale).powi(2) / f64::from(v);
            g.iter().zip(v).map(square).sum::<f64>()
        };
        read(squares.clone(), |v| g.par_chunks(CHUNK).zip(v.par_chunks(CHUNK)).map(chunk).collect::<Vec<f64>>().into_iter().sum())
    });
    let step_size = (update.step_size(rate, sum, squares.dims()[0]) * update.gradient_scale) as f32;
    let keep = (1.0 - rate * update.weight_decay) as f32;
    let [parameter] = read(squares.clone(), |v| {
        write([parameter], |[p]| {
            read(gradient, |g| {
                p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(v.par_chunks(CHUNK)).for_each(|((p, g), v)| {
                    simd(
                        #[inline(always)]
                        || p.iter_mut().zip(g).zip(v).for_each(|((p, &g), &v)| *p = keep * *p - step_size * g / v.sqrt()),
                    );
                });
            });
        })
    });
    [parameter, squares]
}

fn plain_matrix(parameter: Tensor<1>, gradient: Tensor<1>, squares: [Tensor<1>; 2], update: &Adafactor) -> [Tensor<1>; 3] {
    let rate = update.rate(&parameter);
    let [row_squares, column_squares] = squares;
    let ([n_rows], [n_columns]) = (row_squares.dims(), column_squares.dims());
    let g = gradient.reshape([n_rows, n_columns]) * update.gradient_scale;
    let decay = update.decay();
    let next = |old: Tensor<1>, mean: Tensor<1>| old * decay + (mean + update.epsilon) * (1.0 - decay);
    let squared = g.clone() * g.clone();
    let row_squares = next(row_squares, squared.clone().mean_dim(1).reshape([n_rows]));
    let column_squares = next(column_squares, squared.mean_dim(0).reshape([n_columns]));
    let rows = row_squares.clone() / row_squares.clone().mean();
    let u = g / rows.sqrt().reshape([n_rows, 1]) / column_squares.clone().sqrt().reshape([1, n_columns]);
    let [parameter] = stepped(parameter, u.reshape([n_rows * n_columns]), rate, update);
    [parameter, row_squares, column_squares]
}

fn plain_vector(parameter: Tensor<1>, gradient: Tensor<1>, squares: Tensor<1>, update: &Adafactor) -> [Tensor<1>; 2] {
    let rate = update.rate(&parameter);
    let g = gradient * update.gradient_scale;
    let squares = squares * update.decay() + (g.clone() * g.clone() + update.epsilon) * (1.0 - update.decay());
    let [parameter] = stepped(parameter, g / squares.clone().sqrt(), rate, update);
    [parameter, squares]
}

fn stepped(parameter: Tensor<1>, u: Tensor<1>, rate: f64, update: &Adafactor) -> [Tensor<1>; 1] {
    let step_size = update.step_size(rate, sum_of_squares(u.clone()), u.dims()[0]);
    [parameter * (1.0 - rate * update.weight_decay) - u * step_size]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_steps, numbers};
    use burn::tensor::Device;

    fn update(step: usize) -> Adafactor {
        Adafactor {
            learning_rate: 1e-2,
            decay_rate: -0.8,
            epsilon: 1e-30,
            clip_threshold: 0.5,
            least_scale: Some(1e-3),
            weight_decay: 0.1,
            step,
            gradient_scale: 0.5,
        }
    }

    /// The updates of steps 1, 2, 3 and so on.
    fn updates() -> impl FnMut() -> Adafactor {
        let mut steps = 1..;
        move || update(steps.next().expect("without end"))
    }

    #[test]
    fn matrices_match_plain_burn_over_several_steps() {
        for [rows, columns] in [[173, 231], [3, 40_000], [1, 5]] {
            let (mut fast, mut slow) = (updates(), updates());
            assert_same_steps(
                [rows * columns, rows, columns],
                |[p, r, c], g| adafactor_matrix(p, g, [r, c], &fast()),
                |[p, r, c], g| plain_matrix(p, g, [r, c], &slow()),
            );
        }
    }

    #[test]
    fn vectors_match_plain_burn_over_several_steps() {
        let (mut fast, mut slow) = (updates(), updates());
        assert_same_steps([40_000; 2], |[p, v], g| adafactor_vector(p, g, v, &fast()), |[p, v], g| plain_vector(p, g, v, &slow()));
    }

    /// What a matrix of one row remembers is what a vector does, but for the mean over columns: both move alike after a first step, when
    /// squared gradients are their own mean.
    #[test]
    fn steps_are_clipped_by_their_root_mean_square() {
        let device = Device::flex();
        let vector = |seed| Tensor::<1>::from_floats(numbers(1000, seed).as_slice(), &device);
        let update = Adafactor { least_scale: None, weight_decay: 0.0, clip_threshold: 0.25, ..update(1) };
        let start = vector(1);
        let [moved, _] = adafactor_vector(start.clone(), vector(2), Tensor::zeros([1000], &device), &update);
        // g / √g² is ±1, a root mean square of 1, of which a quarter is left.
        let steps: Vec<f32> = (moved - start).abs().into_data().try_to_vec().unwrap();
        assert!(steps.iter().all(|step| (step - 0.25e-2).abs() < 1e-6), "{steps:?}");
    }
}
