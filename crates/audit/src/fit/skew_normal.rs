//! The skew-normal distribution: its fit to a sample, and how much of it lies below a value, also far out in its tail.

use libm::erfc;
use std::f64::consts::{FRAC_1_SQRT_2, LN_2, PI, TAU};

/// The distribution with density `2/ω·φ(z)·Φ(α·z)`, `z = (x − ξ)/ω`.
///
/// Source: Azzalini, "A Class of Distributions which Includes the Normal Ones" (1985), Eq. 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkewNormal {
    /// ξ.
    pub location: f64,
    /// ω, above 0.
    pub scale: f64,
    /// α; 0 is the normal distribution.
    pub shape: f64,
}

impl SkewNormal {
    /// The likeliest of a sample, from that with the sample's own mean, variance and skewness (Azzalini's, Section 2) on. `None` if the sample has
    /// no variance.
    pub fn fit(sample: &[f64]) -> Option<Self> {
        let n = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / n;
        let moment = |power| sample.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
        let deviation = moment(2).sqrt();
        // What rounding leaves of equal values is no variance.
        if deviation.is_nan() || deviation <= 1e-12 * mean.abs().max(1.0) {
            return None;
        }
        // Skewness has a largest value, 0.9953.
        let skewness = (moment(3) / deviation.powi(3)).clamp(-0.98, 0.98);
        let power = skewness.abs().powf(2.0 / 3.0);
        let delta = skewness.signum() * (PI / 2.0 * power / (power + ((4.0 - PI) / 2.0).powf(2.0 / 3.0))).sqrt();
        let scale = deviation / (1.0 - 2.0 * delta * delta / PI).sqrt();
        let start = [mean - scale * delta * (2.0 / PI).sqrt(), scale.ln(), delta / (1.0 - delta * delta).sqrt()];
        let of = |[location, log_scale, shape]: [f64; 3]| Self { location, scale: log_scale.exp(), shape };
        let cost = |point: [f64; 3]| -sample.iter().map(|&x| of(point).log_density(x)).sum::<f64>();
        Some(of(least(start, [0.1 * scale, 0.1, 0.5], cost)))
    }

    /// The natural logarithm of the density at `x`.
    pub fn log_density(&self, x: f64) -> f64 {
        let z = (x - self.location) / self.scale;
        LN_2 - self.scale.ln() - 0.5 * (z * z + TAU.ln()) + log_normal_below(self.shape * z)
    }

    /// The natural logarithm of the probability of a value of at most `x`.
    ///
    /// The density is integrated from `x` downwards relative to its value there, so that no tail is too thin; its logarithm is concave, so it is
    /// at an end where it has fallen by a factor of e⁵⁰ below its largest value.
    pub fn log_below(&self, x: f64) -> f64 {
        let unit = Self { location: 0.0, scale: 1.0, shape: self.shape };
        let z = (x - self.location) / self.scale;
        // Far to the right nothing is missing, and there would be much to integrate.
        let z = z.min(12.0);
        let log_density = |u: f64| unit.log_density(z - u);
        let mut end = 0.01;
        let mut largest = log_density(0.0);
        while log_density(end) > largest - 50.0 {
            largest = largest.max(log_density(end));
            end *= 1.5;
        }
        // Simpson's rule.
        const N: usize = 4000;
        let step = end / N as f64;
        let weight = |i: usize| {
            if i == 0 || i == N {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            }
        };
        let sum: f64 = (0..=N).map(|i| weight(i) * (log_density(i as f64 * step) - largest).exp()).sum();
        (largest + (sum * step / 3.0).ln()).min(0.0)
    }
}

/// ln Φ(x).
fn log_normal_below(x: f64) -> f64 {
    if x > -20.0 {
        return (0.5_f64 * erfc(-x * FRAC_1_SQRT_2)).ln();
    }
    // Abramowitz and Stegun 26.2.12: Φ(x) = φ(x)/|x|·(1 − 1/x² + 3/x⁴ − 15/x⁶ + 105/x⁸ − …).
    let square = 1.0 / (x * x);
    -0.5 * (x * x + TAU.ln()) - (-x).ln() + (-square * (1.0 - square * (3.0 - square * (15.0 - 105.0 * square)))).ln_1p()
}

/// Where `cost` is least, from `start` on with first steps of `steps`.
///
/// Source: Nelder and Mead, "A Simplex Method for Function Minimization" (1965).
fn least(start: [f64; 3], steps: [f64; 3], cost: impl Fn([f64; 3]) -> f64) -> [f64; 3] {
    let judged = |point: [f64; 3]| (cost(point), point);
    let mut simplex = vec![judged(start)];
    for (axis, step) in steps.into_iter().enumerate() {
        let mut point = start;
        point[axis] += step;
        simplex.push(judged(point));
    }
    for _ in 0..1000 {
        simplex.sort_by(|a, b| a.0.total_cmp(&b.0));
        if simplex[3].0 - simplex[0].0 < 1e-10 {
            break;
        }
        let centre: [f64; 3] = std::array::from_fn(|axis| simplex[..3].iter().map(|(_, point)| point[axis]).sum::<f64>() / 3.0);
        let worst = simplex[3];
        let along = |by: f64| judged(std::array::from_fn(|axis| centre[axis] + by * (worst.1[axis] - centre[axis])));
        let mirrored = along(-1.0);
        let better = if mirrored.0 < simplex[0].0 {
            let further = along(-2.0);
            Some(if further.0 < mirrored.0 { further } else { mirrored })
        } else if mirrored.0 < simplex[2].0 {
            Some(mirrored)
        } else {
            let nearer = if mirrored.0 < worst.0 { along(-0.5) } else { along(0.5) };
            (nearer.0 < mirrored.0.min(worst.0)).then_some(nearer)
        };
        match better {
            Some(better) => simplex[3] = better,
            None => {
                let best = simplex[0].1;
                for (_, point) in &mut simplex[1..] {
                    *point = std::array::from_fn(|axis| 0.5 * (best[axis] + point[axis]));
                }
                simplex[1..].iter_mut().for_each(|vertex| *vertex = judged(vertex.1));
            }
        }
    }
    simplex.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("four points").1
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    #[test]
    fn without_skew_it_is_the_normal_distribution() {
        let normal = SkewNormal { location: 3.0, scale: 2.0, shape: 0.0 };
        for (x, below) in [(3.0, 0.5), (3.0 - 2.0 * 1.959_963_984_540_054, 0.025), (3.0 + 2.0 * 1.959_963_984_540_054, 0.975), (99.0, 1.0)]
        {
            assert!((normal.log_below(x).exp() - below).abs() < 1e-9, "{x}: {}", normal.log_below(x).exp());
        }
        // Φ(−30): ln of 4.907e-198, by tables.
        assert!((normal.log_below(3.0 - 60.0) - 4.906_713_927_148_187e-198_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_mirrored_distribution_has_the_rest_above() {
        for shape in [0.5, 3.0, 20.0] {
            let [one, other] = [shape, -shape].map(|shape| SkewNormal { location: 0.0, scale: 1.0, shape });
            for x in [-1.5, 0.1, 0.9] {
                assert!((one.log_below(x).exp() + other.log_below(-x).exp() - 1.0).abs() < 1e-7, "{shape} {x}");
            }
        }
    }

    #[test]
    fn planted_parameters_are_found_again() {
        // δ·|u| + √(1 − δ²)·v of two normal variables is skew-normal with α = δ / √(1 − δ²).
        let key = Key::new(5);
        let delta = 3.0 / 10f64.sqrt();
        let draw = |index| {
            let [u, v] = [0, 1].map(|stream| f64::from(key.fold(stream).normal(index)));
            40.0 + 5.0 * (delta * u.abs() + (1.0 - delta * delta).sqrt() * v)
        };
        let sample: Vec<f64> = (0..20_000).map(draw).collect();
        let SkewNormal { location, scale, shape } = SkewNormal::fit(&sample).unwrap();
        assert!((location - 40.0).abs() < 0.1 && (scale - 5.0).abs() < 0.1 && (shape - 3.0).abs() < 0.2, "{location} {scale} {shape}");
        assert_eq!(SkewNormal::fit(&[1.5; 9]), None);
    }
}
