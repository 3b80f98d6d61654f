//! Random numbers that are a function of a key and an index: no state, so no order of calls and no number of threads can change them.
//!
//! The function is the output mixer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, Figure 16), taken at `key + index · γ`.

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
    pub fn normal(self, index: u64) -> f32 {
        let bits = self.bits(index);
        let unit = |bits: u64| bits as f64 / (1u64 << 32) as f64;
        let radius = (-2.0 * unit((bits >> 32) + 1).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit(bits & 0xffff_ffff);
        (radius * angle.cos()) as f32
    }

    /// The first `count` numbers of [`Self::normal`], times `deviation`, on all cores.
    pub fn normals(self, count: usize, deviation: f32) -> Vec<f32> {
        (0..count).into_par_iter().with_min_len(4096).map(|index| self.normal(index as u64) * deviation).collect()
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
