//! Elementary functions without branches or calls, so that loops over them become SIMD; and the dispatch that lets them.
//!
//! [`simd`] runs a loop compiled for the widest instruction set this machine has (AVX-512, AVX2 with FMA, NEON, else the baseline): one
//! binary runs everywhere. What it calls must be `#[inline(always)]`, or it is compiled for the baseline.

/// The widest vectors this machine has.
#[inline(always)]
pub(crate) fn arch() -> pulp::Arch {
    #[cfg(test)]
    if let Some(narrower) = tests::narrower() {
        return narrower;
    }
    pulp::Arch::new()
}

/// Runs `work`, with everything inlined into it, on the widest vectors this machine has.
#[inline(always)]
pub(crate) fn simd<T>(work: impl FnOnce() -> T) -> T {
    arch().dispatch(work)
}

/// e^x, relative error below 2e-7; 0 below -87, and the largest finite power of e above 88.
///
/// x = n·ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial, 2^n through the exponent bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, clamped));
    let coefficients = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let p = coefficients.iter().fold(1.0 / 5040.0, |p: f32, &coefficient| p.mul_add(r, coefficient));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { p * power }
}

/// tanh x, absolute error below 2e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// The logistic function 1 / (1 + e^-x), relative error below 4e-7.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function, absolute error below 2e-7 (Abramowitz and Stegun, 7.1.26). Takes e^(-x²) because callers need it too.
#[inline(always)]
pub(crate) fn erf(x: f32, exp_minus_x_squared: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let p = t * (0.254_829_6 + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152 + t * 1.061_405_4))));
    (1.0 - p * exp_minus_x_squared).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Arch;
    use std::process::Command;
    use std::sync::OnceLock;

    /// The environment variable that holds the tests to narrower vectors.
    const NARROWER: &str = "KILN_TEST_VECTORS";

    pub(super) fn narrower() -> Option<Arch> {
        static ASKED_FOR: OnceLock<Option<Arch>> = OnceLock::new();
        *ASKED_FOR.get_or_init(|| match std::env::var(NARROWER).ok()?.as_str() {
            #[cfg(target_arch = "x86_64")]
            "avx2" => pulp::x86::V3::try_new().map(Arch::V3),
            _ => Some(Arch::Scalar),
        })
    }

    /// The kernels that choose by the vectors, on those of other machines: their tests once more, each in a process of its own.
    #[test]
    fn narrower_vectors_pass_the_same_tests() {
        if narrower().is_some() {
            return;
        }
        for vectors in ["avx2", "baseline"] {
            let program = std::env::current_exe().expect("this program");
            let output =
                Command::new(program).args(["attention", "matmul", "math", "norm"]).env(NARROWER, vectors).output().expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && !said.contains(" 0 passed"), "{vectors}: {said}");
        }
    }

    #[test]
    fn elementary_functions_match_the_standard_library_in_f64() {
        for step in -40_000..40_000 {
            let x = step as f32 * 2.2e-3;
            let exact = f64::from(x).exp();
            if x > -87.0 && x < 88.0 {
                assert!(((f64::from(exp(x)) - exact) / exact).abs() < 3e-7, "exp({x})");
            }
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7, "tanh({x})");
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs() < 3e-7, "sigmoid({x})");
        }
    }

    /// The Taylor series of erf, summed in f64: an independent reference for small arguments.
    #[test]
    fn erf_matches_its_series() {
        for step in -300..300 {
            let x = step as f32 * 1e-2;
            let (mut term, mut sum) = (f64::from(x), f64::from(x));
            for n in 1..80 {
                term *= -f64::from(x) * f64::from(x) / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            let exact = sum * std::f64::consts::FRAC_2_SQRT_PI;
            assert!((f64::from(erf(x, exp(-x * x))) - exact).abs() < 4e-7, "erf({x})");
        }
    }

    #[test]
    fn extremes_stay_finite() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::INFINITY).is_finite());
        assert_eq!(tanh(1e4), 1.0);
        assert_eq!(tanh(-1e4), -1.0);
    }
}
