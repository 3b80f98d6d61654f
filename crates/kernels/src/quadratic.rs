//! Quadratic pulls towards anchors without a tape: their gradient is added where the loss's gradient lies, in one sweep; and the squares of
//! gradients that weigh them.
//!
//! ```text
//! pull:  g_i ← g_i + c·f_i·(p_i − a_i), and Σ_i f_i·(p_i − a_i)²        squares:  s_i ← s_i + g_i²
//! ```

use crate::host::{change, on_host, read};
use crate::math::simd;
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Elements per unit of parallel work; fixed, so that results never depend on the number of threads.
const CHUNK: usize = 16 * 1024;
/// Sums carried side by side.
const LANES: usize = 16;

/// `g += c·f·(p − a)` over a chunk; returns `Σ f·(p − a)²`.
#[inline(always)]
fn sweep(g: &mut [f32], p: &[f32], a: &[f32], f: impl Fn(usize) -> f32, c: f32) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for (index, ((g, &p), &a)) in g.iter_mut().zip(p).zip(a).enumerate() {
        let (distance, importance) = (p - a, f(index));
        *g += c * importance * distance;
        lanes[index % LANES] += f64::from(importance * distance * distance);
    }
    lanes.iter().sum()
}

/// Adds `scale·importance·(parameter − anchor)` to `gradient`, in place where the caller holds its only handle, and returns it with
/// `Σ importance·(parameter − anchor)²`. Without importances all are 1.
///
/// # Shapes
/// All tensors have the same; none is on an autodiff device.
pub fn pull(gradient: Tensor<1>, parameter: Tensor<1>, anchor: Tensor<1>, importance: Option<Tensor<1>>, scale: f64) -> (Tensor<1>, f64) {
    if !on_host(&gradient.device()) {
        return plain(gradient, parameter, anchor, importance, scale);
    }
    let (mut sum, scale) = (0.0, scale as f32);
    let gradient = change(gradient, |g| {
        read(parameter, |p| {
            read(anchor, |a| {
                let chunks = g.par_chunks_mut(CHUNK).zip(p.par_chunks(CHUNK)).zip(a.par_chunks(CHUNK));
                let sums: Vec<f64> = match importance {
                    None => chunks
                        .map(|((g, p), a)| {
                            simd(
                                #[inline(always)]
                                || sweep(g, p, a, |_| 1.0, scale),
                            )
                        })
                        .collect(),
                    Some(importance) => read(importance, |f| {
                        let chunks = chunks.zip(f.par_chunks(CHUNK));
                        chunks
                            .map(|(((g, p), a), f)| {
                                simd(
                                    #[inline(always)]
                                    || sweep(g, p, a, |index| f[index], scale),
                                )
                            })
                            .collect()
                    }),
                };
                sum = sums.into_iter().sum();
            });
        });
    });
    (gradient, sum)
}

fn plain(gradient: Tensor<1>, parameter: Tensor<1>, anchor: Tensor<1>, importance: Option<Tensor<1>>, scale: f64) -> (Tensor<1>, f64) {
    let distance = parameter - anchor;
    let weighted = match importance {
        None => distance.clone(),
        Some(importance) => importance * distance.clone(),
    };
    let sum = (weighted.clone() * distance).sum().into_scalar::<f32>();
    (gradient + weighted * scale, f64::from(sum))
}

/// Adds the squares of `gradient` to `sums`, in place where the caller holds the only handle.
///
/// # Shapes
/// Both have the same; neither is on an autodiff device.
pub fn add_squares(sums: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
    if !on_host(&sums.device()) {
        return sums + gradient.clone() * gradient;
    }
    change(sums, |sums| {
        read(gradient, |g| {
            let add = |(sums, g): (&mut [f32], &[f32])| {
                simd(
                    #[inline(always)]
                    || sums.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g * g),
                )
            };
            sums.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).for_each(add);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{devices, numbers};
    use burn::tensor::Device;

    const LENGTH: usize = 40_001;

    fn vector(seed: u64, device: &Device) -> Tensor<1> {
        Tensor::from_floats(numbers(LENGTH, seed).as_slice(), device)
    }

    fn largest(difference: Tensor<1>) -> f32 {
        difference.abs().max().into_scalar::<f32>()
    }

    #[test]
    fn sweeps_match_plain_burn() {
        for device in devices() {
            let [g, p, a, f] = [1, 2, 3, 4].map(|seed| vector(seed, &device));
            for importance in [None, Some(f.abs())] {
                let (fast, fast_sum) = pull(g.clone(), p.clone(), a.clone(), importance.clone(), 0.7);
                let (slow, slow_sum) = plain(g.clone(), p.clone(), a.clone(), importance, 0.7);
                assert!(largest(fast - slow) < 1e-6);
                assert!((fast_sum - slow_sum).abs() < 1e-4 * slow_sum, "{fast_sum} {slow_sum}");
            }
            assert!(largest(add_squares(p.clone(), g.clone()) - (p + g.clone() * g)) < 1e-6);
        }
    }

    /// The gradient is that of ½·scale·sum: central differences of the returned sum.
    #[test]
    fn the_gradient_is_that_of_half_the_sum() {
        let device = Device::flex();
        let of = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device);
        let sum = |p: [f32; 3]| pull(of([0.0; 3]), of(p), of([1.0, -2.0, 0.5]), Some(of([0.5, 2.0, 0.0])), 3.0);
        let at = [1.5, 0.25, -4.0];
        let gradient: Vec<f32> = sum(at).0.into_data().try_to_vec().expect("floats");
        for index in 0..3 {
            let moved = |shift: f32| {
                let mut p = at;
                p[index] += shift;
                0.5 * 3.0 * sum(p).1
            };
            let slope = (moved(0.125) - moved(-0.125)) / 0.25;
            assert!((slope - f64::from(gradient[index])).abs() < 1e-5, "{index}: {slope} {gradient:?}");
        }
    }

    #[test]
    fn sums_are_the_same_on_any_number_of_threads_and_nothing_is_copied() {
        let device = Device::flex();
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
            pool.install(|| pull(vector(1, &device), vector(2, &device), vector(3, &device), Some(vector(4, &device)), 0.1).1)
        };
        assert_eq!(run(1).to_bits(), run(4).to_bits());
        let gradient = vector(1, &device);
        let place = read(gradient.clone(), |values| values.as_ptr() as usize);
        let (gradient, _) = pull(gradient, vector(2, &device), vector(3, &device), None, 0.1);
        assert_eq!(read(add_squares(gradient, vector(5, &device)), |values| values.as_ptr() as usize), place);
    }
}
