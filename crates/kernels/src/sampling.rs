//! Drawing one class of each row of logits.
//!
//! ```text
//! p = softmax(logits / temperature)        drawn: the first class at which the running sum of p exceeds u
//! ```
//!
//! u: a uniform number of the row's own. So what a row draws depends on its logits and its number only.

use crate::host::{change, on_host};
use crate::math::{exp, simd};
use crate::reduce::{max, sum_pairs};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// What was drawn from a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drawn {
    /// The class.
    pub class: u32,
    /// Its log-probability, in nats.
    pub log_probability: f32,
    /// The entropy of the distribution it was drawn from, in nats.
    pub entropy: f32,
}

/// Classes whose probabilities are summed at once before the search goes into them.
const BLOCK: usize = 512;

/// Turns logits into differences from their largest, and draws.
fn draw(logits: &mut [f32], temperature: f32, uniform: f32) -> Drawn {
    let scale = 1.0 / temperature;
    let mut sums = Vec::with_capacity(logits.len().div_ceil(BLOCK));
    let mut weighted = 0.0;
    simd(
        #[inline(always)]
        || {
            let largest = max(logits);
            for block in logits.chunks_mut(BLOCK) {
                block.iter_mut().for_each(|z| *z = (*z - largest) * scale);
                sums.push(f64::from(sum_pairs(
                    block,
                    block,
                    #[inline(always)]
                    |z, _| exp(z),
                )));
                weighted += f64::from(sum_pairs(
                    block,
                    block,
                    #[inline(always)]
                    |z, _| z * exp(z),
                ));
            }
        },
    );
    let total: f64 = sums.iter().sum();
    let mut remaining = f64::from(uniform) * total;
    // The last class that can be drawn at all takes what rounding leaves over.
    let mut class = logits.iter().rposition(|&z| exp(z) > 0.0).unwrap_or(0);
    'search: for (block, sum) in sums.iter().enumerate() {
        if remaining >= *sum {
            remaining -= sum;
            continue;
        }
        let start = block * BLOCK;
        for (index, &z) in logits[start..].iter().take(BLOCK).enumerate() {
            let p = f64::from(exp(z));
            if p > 0.0 {
                class = start + index;
            }
            remaining -= p;
            if remaining < 0.0 {
                break 'search;
            }
        }
        break;
    }
    let log_total = total.ln();
    Drawn {
        class: class as u32,
        log_probability: (f64::from(logits[class]) - log_total) as f32,
        entropy: (log_total - weighted / total) as f32,
    }
}

/// One class of each row, drawn from the softmax of `logits / temperature` with the row's number of `uniforms` in [0, 1).
///
/// # Shapes
/// `logits`: `[rows, classes]`; `uniforms` and the result: one per row.
///
/// # Panics
/// If there are not as many numbers as rows, or the temperature is not above 0.
pub fn draw_rows(logits: Tensor<2>, temperature: f32, uniforms: &[f32]) -> Vec<Drawn> {
    let [rows, classes] = logits.dims();
    assert_eq!(uniforms.len(), rows, "one number for each row");
    assert!(temperature > 0.0, "a temperature is above 0, not {temperature}");
    let mut drawn = vec![Drawn::default(); rows];
    let mut each = |logits: &mut [f32]| {
        let rows = logits.par_chunks_mut(classes.max(1)).zip(uniforms).zip(&mut drawn);
        rows.for_each(|((logits, &uniform), drawn)| *drawn = draw(logits, temperature, uniform));
    };
    if on_host(&logits.device()) {
        change(logits, each);
    } else {
        let mut logits: Vec<f32> = logits.into_data().convert::<f32>().try_to_vec().expect("floats");
        each(&mut logits);
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;
    use crate::testing::{devices, numbers};
    use burn::tensor::TensorData;

    /// Classes in several blocks, drawn as often as their probability says, with the log-probability and entropy of the softmax.
    #[test]
    fn draws_follow_the_softmax() {
        const CLASSES: usize = 2 * BLOCK + 7;
        const TEMPERATURE: f32 = 1.5;
        let mut logits = numbers(CLASSES, 3);
        logits[5] = 7.0;
        logits[BLOCK + 3] = 6.0;
        logits[CLASSES - 1] = f32::NEG_INFINITY;
        let exps: Vec<f64> = logits.iter().map(|&z| f64::from(z / TEMPERATURE).exp()).collect();
        let total: f64 = exps.iter().sum();
        let p: Vec<f64> = exps.iter().map(|e| e / total).collect();
        let entropy: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        let mut shares = vec![0.0; CLASSES];
        const DRAWS: u64 = 20_000;
        for index in 0..DRAWS {
            let mut row = logits.clone();
            row[CLASSES - 1] = -1e30;
            let drawn = draw(&mut row, TEMPERATURE, Key::new(1).uniform(index));
            shares[drawn.class as usize] += 1.0 / DRAWS as f64;
            assert!((f64::from(drawn.log_probability) - p[drawn.class as usize].ln()).abs() < 1e-5);
            assert!((f64::from(drawn.entropy) - entropy).abs() < 1e-4, "{} {entropy}", drawn.entropy);
        }
        for class in [5, BLOCK + 3] {
            let deviation = (p[class] * (1.0 - p[class]) / DRAWS as f64).sqrt();
            assert!((shares[class] - p[class]).abs() < 4.0 * deviation, "{class}: {} instead of {}", shares[class], p[class]);
        }
        let second_half: f64 = shares[BLOCK..].iter().sum();
        let expected: f64 = p[BLOCK..].iter().sum();
        assert!((second_half - expected).abs() < 0.015, "{second_half} {expected}");
        assert_eq!(shares[CLASSES - 1], 0.0);
    }

    #[test]
    fn the_ends_of_the_number_line_draw_the_ends_of_the_row() {
        let just_below_1 = 1.0 - f32::EPSILON / 2.0;
        assert_eq!(draw(&mut [0.0; 3], 1.0, 0.0).class, 0);
        assert_eq!(draw(&mut [0.0; 3], 1.0, just_below_1).class, 2);
        // What has no probability is not drawn, not even by rounding.
        assert_eq!(draw(&mut [-500.0, 0.0, -500.0], 1.0, 0.0).class, 1);
        assert_eq!(draw(&mut [-500.0, 0.0, -500.0], 1.0, just_below_1).class, 1);
    }

    #[test]
    fn rows_are_drawn_each_by_itself() {
        for device in devices() {
            let data = numbers(3 * 700, 9);
            let uniforms = [0.2, 0.9, 0.55];
            let logits = Tensor::<2>::from_data(TensorData::new(data.clone(), [3, 700]), &device);
            let together = draw_rows(logits, 0.8, &uniforms);
            for (row, drawn) in together.iter().enumerate() {
                let alone = TensorData::new(data[row * 700..(row + 1) * 700].to_vec(), [1, 700]);
                assert_eq!(draw_rows(Tensor::from_data(alone, &device), 0.8, &uniforms[row..row + 1])[0], *drawn);
            }
        }
    }
}
