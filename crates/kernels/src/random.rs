//! Random numbers that are a function of a key and an index: no state, so no order of calls and no number of threads can change them.
//!
//! The function is the output mixer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, Figure 16), taken at `key + index · γ`.

use crate::buffer::unwritten;
use crate::math::simd;
use rayon::prelude::*;

/// Names one stream of random numbers. Derive one per use with [`Key::fold`]: seed, then step, then layer, then site.
#[derive(Clone, Copy, Debug)]
pub struct Key(u64);

/// 2^64 divided by the golden ratio, made odd: consecutive multiples of it differ in many bits.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A whole number below 2^52, exactly, by operations that every SIMD has.
#[inline(always)]
fn float(n: u64) -> f64 {
    const EXPONENT: u64 = 0x4330_0000_0000_0000;
    f64::from_bits(EXPONENT | n) - f64::from_bits(EXPONENT)
}

/// √(−2·ln u)·cos(2π·t) with u and t from 32 bits each. Not by the platform's `ln` and `cos`, which take ten times as long and whose last bits
/// differ from one to the next.
#[inline(always)]
fn normal(bits: u64) -> f32 {
    let steps = (1u64 << 32) as f64;
    // u·2³² = m·2ᵉ with m around 1; ln m = 2·artanh(s) with s = (m − 1) / (m + 1).
    let u = float((bits >> 32) + 1).to_bits();
    let m = f64::from_bits(u & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000);
    let is_large = m > std::f64::consts::SQRT_2;
    let m = if is_large { 0.5 * m } else { m };
    let e = float(u >> 52) - 1055.0 + if is_large { 1.0 } else { 0.0 };
    let s = (m - 1.0) / (m + 1.0);
    let artanh = s * powers(
        s * s,
        [1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0],
    );
    let ln = e * std::f64::consts::LN_2 + 2.0 * artanh;
    // t to within half a turn of 0, and its cosine as a sine of at most a quarter turn.
    let t = (float((bits & 0xffff_ffff) ^ 0x8000_0000) - 0.5 * steps) / steps;
    let x = std::f64::consts::TAU * (0.25 - t.abs());
    let sin = x * powers(x * x, SINE);
    ((-2.0 * ln).sqrt() * sin) as f32
}

/// (−1)ⁿ / (2n + 1)! from the tenth down.
const SINE: [f64; 11] = [
    1.0 / 51_090_942_171_709_440_000.0,
    -1.0 / 121_645_100_408_832_000.0,
    1.0 / 355_687_428_096_000.0,
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
    1.0,
];

/// A polynomial, its highest coefficient first.
#[inline(always)]
fn powers<const N: usize>(x: f64, coefficients: [f64; N]) -> f64 {
    coefficients.into_iter().fold(
        0.0,
        #[inline(always)]
        |sum, coefficient| sum * x + coefficient,
    )
}

impl Key {
    /// The stream of a run with this seed.
    pub fn new(seed: u64) -> Self {
        Self(0).fold(seed)
    }

    /// The sub-stream numbered `index`, unrelated to this stream and to its other sub-streams.
    #[inline(always)]
    pub fn fold(self, index: u64) -> Self {
        Self(mix(self.0 ^ mix(index.wrapping_add(GAMMA))).wrapping_add(GAMMA))
    }

    /// 64 random bits.
    #[inline(always)]
    pub fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(GAMMA)))
    }

    /// Uniform in [0, 1), in steps of 2^-24.
    #[inline(always)]
    pub fn uniform(self, index: u64) -> f32 {
        (self.bits(index) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, 1958), at most 6.7 from 0.
    #[inline(always)]
    pub fn normal(self, index: u64) -> f32 {
        normal(self.bits(index))
    }

    /// The first `count` numbers of [`Self::normal`], times `deviation`, on all cores.
    pub fn normals(self, count: usize, deviation: f32) -> Vec<f32> {
        const CHUNK: usize = 1 << 14;
        // SAFETY: every element is written below.
        let mut out = unsafe { unwritten(count) };
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            let start = (chunk * CHUNK) as u64;
            simd(
                #[inline(always)]
                || out.iter_mut().enumerate().for_each(|(index, out)| *out = self.normal(start + index as u64) * deviation),
            )
        });
        out
    }

    /// Uniform among `0..n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(self, index: u64, n: u64) -> u64 {
        assert!(n > 0, "no number is below 0");
        ((u128::from(self.bits(index)) * u128::from(n)) >> 64) as u64
    }

    /// The numbers `0..n` in random order (Fisher and Yates).
    pub fn permutation(self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last as u64, last as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u64 = 100_000;

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        values.sum::<f64>() / COUNT as f64
    }

    #[test]
    fn numbers_depend_only_on_key_and_index() {
        let key = Key::new(7).fold(3);
        assert_eq!(key.bits(5), Key::new(7).fold(3).bits(5));
        assert_ne!(key.bits(5), key.bits(6));
        assert_ne!(key.bits(5), Key::new(7).fold(4).bits(5));
        assert_ne!(Key::new(1).fold(2).bits(0), Key::new(2).fold(1).bits(0));
    }

    /// Bounds of four standard deviations.
    #[test]
    fn uniform_and_normal_have_their_moments() {
        let key = Key::new(1);
        let uniform = |index| f64::from(key.uniform(index));
        assert!((0..COUNT).all(|index| (0.0..1.0).contains(&key.uniform(index))));
        assert!((mean((0..COUNT).map(uniform)) - 0.5).abs() < 4.0 * 0.289 / 316.0);
        assert!((mean((0..COUNT).map(|i| uniform(i).powi(2))) - 1.0 / 3.0).abs() < 4.0 * 0.299 / 316.0);

        let normal = |index| f64::from(key.normal(index));
        for (power, moment, deviation) in [(1, 0.0, 1.0), (2, 1.0, 1.42), (3, 0.0, 3.88), (4, 3.0, 9.8)] {
            let got = mean((0..COUNT).map(|i| normal(i).powi(power)));
            assert!((got - moment).abs() < 4.0 * deviation / 316.0, "moment {power} is {got}");
        }
    }

    /// Those of the formula, but for the last bits of the functions in it; and the ends of what they are taken at.
    #[test]
    fn normals_are_those_of_box_and_muller() {
        let formula = |bits: u64| {
            let unit = |bits: u64| bits as f64 / (1u64 << 32) as f64;
            (-2.0 * unit((bits >> 32) + 1).ln()).sqrt() * (std::f64::consts::TAU * unit(bits & 0xffff_ffff)).cos()
        };
        let key = Key::new(4);
        let ends = [0, u64::MAX, u64::MAX << 32, 0xffff_ffff, 0x8000_0000, 0x4000_0000, 0xb504_f333_0000_0001, 0xb504_f332_c000_0000];
        for bits in ends.into_iter().chain((0..COUNT).map(|index| key.bits(index))) {
            let (found, expected) = (f64::from(normal(bits)), formula(bits));
            assert!((found - expected).abs() <= 6.1e-8 * expected.abs() + 1e-14, "{bits:x}: {found}, expected {expected}");
        }
        let numbers = key.normals(40_000, 3.0);
        assert!(numbers.iter().zip(0..).all(|(&number, index)| number == key.normal(index) * 3.0));
    }

    #[test]
    fn every_bit_is_fair() {
        let key = Key::new(2);
        for bit in 0..64 {
            let ones = mean((0..COUNT).map(|i| (key.bits(i) >> bit & 1) as f64));
            assert!((ones - 0.5).abs() < 5.0 * 0.5 / 316.0, "bit {bit} is 1 in {ones} of the draws");
        }
    }

    #[test]
    fn neighbours_are_uncorrelated() {
        type Pair = fn(u64) -> (f32, f32);
        let pairs: [(&str, Pair); 3] = [
            ("seeds", |i| (Key::new(10).uniform(i), Key::new(11).uniform(i))),
            ("sub-keys", |i| (Key::new(10).fold(0).uniform(i), Key::new(10).fold(1).uniform(i))),
            ("indices", |i| (Key::new(10).uniform(i), Key::new(10).uniform(i + 1))),
        ];
        for (what, pair) in pairs {
            let covariance = mean((0..COUNT).map(|i| {
                let (x, y) = pair(i);
                (f64::from(x) - 0.5) * (f64::from(y) - 0.5)
            }));
            assert!((covariance * 12.0).abs() < 4.0 / 316.0, "correlation of neighbouring {what}: {}", covariance * 12.0);
        }
    }

    #[test]
    fn below_is_even_and_permutations_are_complete() {
        let key = Key::new(3);
        let mut counts = [0; 7];
        (0..70_000).for_each(|i| counts[key.below(i, 7) as usize] += 1);
        assert!(counts.iter().all(|&count| (9_600..10_400).contains(&count)), "{counts:?}");

        let mut order = key.permutation(100);
        assert_ne!(order, key.fold(1).permutation(100));
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        assert!(key.permutation(0).is_empty());
    }
}
