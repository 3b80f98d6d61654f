//! Choosing one class of each row of logits, or the best few.
//!
//! ```text
//! z ← z / penalty if z > 0, else z · penalty        for the classes seen already
//! z ← z / temperature
//! top-k: the k largest z stay        top-p: the fewest classes that together have probability p        min-p: p ≥ min_p · largest p
//! p = softmax(z of what stays)        drawn: the first class at which the running sum of p exceeds u
//! ```
//!
//! u: a uniform number of the row's own. So what a row draws depends on its logits, what it has seen and its number only.
//!
//! Source: repetition penalty, arXiv:1909.05858, Section 4.1; top-k, arXiv:1805.04833, Section 5.4; top-p, arXiv:1904.09751, Section 3.1;
//! min-p, arXiv:2407.01082, Section 3; in the order of transformers.

use crate::host::{change, on_host};
use crate::math::{exp, simd};
use crate::reduce::{max, sum_pairs};
use burn::tensor::Tensor;
use rayon::prelude::*;

/// What was chosen from a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Drawn {
    /// The class.
    pub class: u32,
    /// Its log-probability, in nats.
    pub log_probability: f32,
    /// The entropy of the distribution it was drawn from, in nats.
    pub entropy: f32,
}

/// How a class is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Divisor of the logits; 0 takes the largest, among all.
    pub temperature: f32,
    /// Only this many classes, and those as probable as the last of them; 0 for all.
    pub top_k: usize,
    /// Only the fewest classes that together have this probability.
    pub top_p: f32,
    /// Only classes with this share of the largest probability.
    pub min_p: f32,
    /// How much less likely the classes seen already become.
    pub repetition_penalty: f32,
}

impl Default for Choice {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

/// The logit of a class that cannot be drawn. Finite, so that it has an entropy of 0 and not of 0 · ∞.
pub const REMOVED: f32 = -1e30;

/// Classes whose probabilities are summed at once before the search goes into them.
const BLOCK: usize = 512;

/// The distribution of a row.
struct Softmax {
    /// Of the exponentials of each block.
    sums: Vec<f64>,
    total: f64,
    entropy: f64,
}

impl Softmax {
    /// Turns logits into differences from their largest, divided by the temperature.
    fn new(logits: &mut [f32], temperature: f32) -> Self {
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
        Self { entropy: total.ln() - weighted / total, sums, total }
    }

    fn drawn(&self, logits: &[f32], class: usize) -> Drawn {
        let log_probability = (f64::from(logits[class]) - self.total.ln()) as f32;
        Drawn { class: class as u32, log_probability, entropy: self.entropy as f32 }
    }
}

/// Turns logits into differences from their largest, and draws.
fn draw(logits: &mut [f32], temperature: f32, uniform: f32) -> Drawn {
    let softmax = Softmax::new(logits, temperature);
    let mut remaining = f64::from(uniform) * softmax.total;
    // The last class that can be drawn at all takes what rounding leaves over.
    let mut class = logits.iter().rposition(|&z| exp(z) > 0.0).unwrap_or(0);
    'search: for (block, sum) in softmax.sums.iter().enumerate() {
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
    softmax.drawn(logits, class)
}

/// The first class of the most probable.
fn largest(logits: &mut [f32]) -> Drawn {
    let softmax = Softmax::new(logits, 1.0);
    let class = logits.iter().position(|&z| z == 0.0).unwrap_or(0);
    softmax.drawn(logits, class)
}

fn penalise(logits: &mut [f32], seen: &[u32], penalty: f32) {
    for &class in seen {
        let z = &mut logits[class as usize];
        *z = if *z < 0.0 { *z * penalty } else { *z / penalty };
    }
}

impl Choice {
    /// Whether every class may be drawn.
    fn keeps_all(&self) -> bool {
        self.top_k == 0 && self.top_p >= 1.0 && self.min_p <= 0.0
    }

    /// Changes one row of logits into those that are drawn from: penalised for the distinct classes `seen`, divided by the temperature
    /// (which must not be 0), and [`REMOVED`] where a class cannot be drawn.
    pub fn process(&self, logits: &mut [f32], seen: &[u32]) {
        self.penalise(logits, seen);
        logits.iter_mut().for_each(|z| *z /= self.temperature);
        self.remove(logits);
    }

    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty != 1.0 {
            penalise(logits, seen, self.repetition_penalty);
        }
    }

    fn remove(&self, logits: &mut [f32]) {
        if self.keeps_all() {
            return;
        }
        let mut least = f32::NEG_INFINITY;
        if self.top_k > 0 && self.top_k < logits.len() {
            let mut sorted = logits.to_vec();
            let (_, &mut last, _) = sorted.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            least = last;
        }
        let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, &z| largest.max(z));
        if self.top_p < 1.0 {
            least = least.max(self.nucleus(logits, least, largest));
        }
        if self.min_p > 0.0 {
            least = least.max(largest + self.min_p.ln());
        }
        // The largest always stays.
        least = least.min(largest);
        logits.iter_mut().filter(|z| **z < least).for_each(|z| *z = REMOVED);
    }

    /// The smallest logit that top-p keeps of those from `least` on.
    fn nucleus(&self, logits: &[f32], least: f32, largest: f32) -> f32 {
        let weight = |z: f32| f64::from(exp(z - largest));
        let kept = || logits.iter().copied().filter(|&z| z >= least);
        let (total, n_kept) = kept().fold((0.0, 0usize), |(total, n), z| (total + weight(z), n + 1));
        let tail = (1.0 - f64::from(self.top_p)) * total;
        // Those that all together stay below the tail are in it: what is left to sort is little.
        let negligible = tail / n_kept as f64;
        let mut sum = 0.0;
        let mut candidates = Vec::new();
        for z in kept() {
            if weight(z) < negligible { sum += weight(z) } else { candidates.push(z) }
        }
        candidates.sort_unstable_by(f32::total_cmp);
        for z in candidates {
            sum += weight(z);
            if sum > tail {
                return z;
            }
        }
        largest
    }

    fn choose(&self, logits: &mut [f32], seen: &[u32], uniform: f32) -> Drawn {
        self.penalise(logits, seen);
        if self.temperature == 0.0 {
            return largest(logits);
        }
        if self.keeps_all() {
            return draw(logits, self.temperature, uniform);
        }
        logits.iter_mut().for_each(|z| *z /= self.temperature);
        self.remove(logits);
        draw(logits, 1.0, uniform)
    }
}

/// Runs `each` on every row of logits, in place where they are in host memory.
fn for_rows<T: Send>(logits: Tensor<2>, out: &mut [T], each: impl Fn(usize, &mut [f32], &mut T) + Sync) {
    let [rows, classes] = logits.dims();
    assert_eq!(out.len(), rows, "one result for each row");
    let all = |logits: &mut [f32]| {
        let rows = logits.par_chunks_mut(classes.max(1)).zip(out).enumerate();
        rows.for_each(|(row, (logits, out))| each(row, logits, out));
    };
    if on_host(&logits.device()) {
        change(logits, all);
    } else {
        let mut logits: Vec<f32> = logits.into_data().convert::<f32>().try_to_vec().expect("floats");
        all(&mut logits);
    }
}

/// One class of each row, as `choice` says, with the row's number of `uniforms` in [0, 1). `seen` are the distinct classes that each row has
/// seen, or nothing where there is no penalty.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `uniforms` and the result: one per row.
///
/// # Panics
/// If there are not as many numbers as rows, or the temperature is below 0.
pub fn choose_rows(logits: Tensor<2>, choice: &Choice, seen: &[&[u32]], uniforms: &[f32]) -> Vec<Drawn> {
    assert!(choice.temperature >= 0.0, "a temperature is 0 or more, not {}", choice.temperature);
    assert!(seen.is_empty() || seen.len() == uniforms.len(), "what each row has seen");
    let mut drawn = vec![Drawn::default(); uniforms.len()];
    for_rows(logits, &mut drawn, |row, logits, drawn| {
        *drawn = choice.choose(logits, seen.get(row).copied().unwrap_or_default(), uniforms[row]);
    });
    drawn
}

/// The `count` most probable classes of each row with their log-probabilities in nats, the best first. A penalty acts on the
/// log-probabilities of the distinct classes each row has `seen`, as in transformers' beam search.
///
/// # Shapes
/// `logits`: `[rows, classes]`; `seen` and the result: one per row.
pub fn best_rows(logits: Tensor<2>, count: usize, repetition_penalty: f32, seen: &[&[u32]]) -> Vec<Vec<(u32, f32)>> {
    let mut best = vec![Vec::new(); logits.dims()[0]];
    for_rows(logits, &mut best, |row, logits, best| {
        let log_total = Softmax::new(logits, 1.0).total.ln() as f32;
        logits.iter_mut().for_each(|z| *z -= log_total);
        if repetition_penalty != 1.0 {
            penalise(logits, seen.get(row).copied().unwrap_or_default(), repetition_penalty);
        }
        let by_value = |&a: &u32, &b: &u32| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b));
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        if count < order.len() {
            order.select_nth_unstable_by(count, by_value);
            order.truncate(count);
        }
        order.sort_unstable_by(by_value);
        *best = order.into_iter().map(|class| (class, logits[class as usize])).collect();
    });
    best
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
        let choice = Choice { temperature: 0.8, ..Choice::default() };
        for device in devices() {
            let data = numbers(3 * 700, 9);
            let uniforms = [0.2, 0.9, 0.55];
            let logits = Tensor::<2>::from_data(TensorData::new(data.clone(), [3, 700]), &device);
            let together = choose_rows(logits, &choice, &[], &uniforms);
            for (row, drawn) in together.iter().enumerate() {
                let alone = TensorData::new(data[row * 700..(row + 1) * 700].to_vec(), [1, 700]);
                assert_eq!(choose_rows(Tensor::from_data(alone, &device), &choice, &[], &uniforms[row..row + 1])[0], *drawn);
            }
        }
    }

    const LOGITS: [f32; 5] = [1.0, 3.0, 3.0, -1.0, 2.0];

    fn drawn(choice: Choice, seen: &[u32]) -> [usize; 5] {
        let mut counts = [0; 5];
        for index in 0..2000 {
            counts[choice.choose(&mut LOGITS.clone(), seen, Key::new(5).uniform(index)).class as usize] += 1;
        }
        counts
    }

    #[test]
    fn temperature_0_takes_the_first_of_the_best() {
        let greedy = Choice { temperature: 0.0, top_k: 1, ..Choice::default() };
        let found = greedy.choose(&mut LOGITS.clone(), &[], 0.9);
        let total: f64 = LOGITS.iter().map(|&z| f64::from(z - 3.0).exp()).sum();
        assert_eq!(found.class, 1);
        assert!((f64::from(found.log_probability) + total.ln()).abs() < 1e-6);
        // Seen, the first two are worth less than the last.
        let found = Choice { repetition_penalty: 2.0, ..greedy }.choose(&mut LOGITS.clone(), &[1, 2], 0.9);
        assert_eq!(found.class, 4);
    }

    #[test]
    fn the_tail_is_cut() {
        let is_drawn = |choice: Choice, seen: &[u32]| drawn(choice, seen).map(|count| count > 0);
        assert_eq!(is_drawn(Choice::default(), &[]), [true; 5]);
        // The second and third are alike: with either the other stays.
        assert_eq!(is_drawn(Choice { top_k: 1, ..Choice::default() }, &[]), [false, true, true, false, false]);
        assert_eq!(is_drawn(Choice { top_k: 3, ..Choice::default() }, &[]), [false, true, true, false, true]);
        assert_eq!(is_drawn(Choice { top_p: 0.9, ..Choice::default() }, &[]), [false, true, true, false, true]);
        assert_eq!(is_drawn(Choice { top_p: 1e-6, ..Choice::default() }, &[]), [false, true, true, false, false]);
        // e^-1 is more than 0.3, e^-2 is less.
        assert_eq!(is_drawn(Choice { min_p: 0.3, ..Choice::default() }, &[]), [false, true, true, false, true]);
        let counts = drawn(Choice { top_k: 1, ..Choice::default() }, &[]);
        assert!(counts[1] > 900 && counts[2] > 900, "{counts:?}");
    }

    #[test]
    fn the_best_come_in_order() {
        for device in devices() {
            let logits = Tensor::<2>::from_data(TensorData::new(LOGITS.to_vec(), [1, 5]), &device);
            let best = best_rows(logits, 4, 1.0, &[]).remove(0);
            assert_eq!(best.iter().map(|(class, _)| *class).collect::<Vec<_>>(), [1, 2, 4, 0]);
            assert!((best[0].1 - best[2].1 - 1.0).abs() < 1e-6);
        }
    }
}
