//! Errors and correlations of predicted numbers, over pairs of `(prediction, gold)`.
//!
//! Every function here is a statistic for [`Bootstrap`](crate::bootstrap::Bootstrap).

use crate::ranks::ranks;

/// Mean squared error. NaN without pairs.
///
/// ```text
/// mse = 1/n Σ (prediction - gold)²
/// ```
pub fn mean_squared_error(pairs: &[(f64, f64)]) -> f64 {
    mean(pairs, |(prediction, gold)| (prediction - gold).powi(2))
}

/// Mean absolute error, in the unit of the numbers. NaN without pairs.
///
/// ```text
/// mae = 1/n Σ |prediction - gold|
/// ```
pub fn mean_absolute_error(pairs: &[(f64, f64)]) -> f64 {
    mean(pairs, |(prediction, gold)| (prediction - gold).abs())
}

/// Pearson's correlation: how well a straight line maps one number to the other. NaN where either side does not vary.
///
/// ```text
/// r = Σ (x - x̄)(y - ȳ) / √( Σ (x - x̄)² · Σ (y - ȳ)² )
/// ```
///
/// Source: Pearson, "Notes on Regression and Inheritance in the Case of Two Parents" (1895).
pub fn pearson(pairs: &[(f64, f64)]) -> f64 {
    // Rounding would leave a constant side with a little variance.
    let constant = |of: fn(&(f64, f64)) -> f64| pairs.iter().all(|pair| of(pair) == of(&pairs[0]));
    if constant(|pair| pair.0) || constant(|pair| pair.1) {
        return f64::NAN;
    }
    let (mean_x, mean_y) = (mean(pairs, |(x, _)| x), mean(pairs, |(_, y)| y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs.iter().map(|(x, y)| (x - mean_x, y - mean_y)) {
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    // Two roots: the product of the sums of very small numbers would vanish. Rounding can reach beyond 1.
    (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0)
}

/// Spearman's correlation: Pearson's of the ranks, tied numbers sharing the mean of their ranks. It asks only whether the
/// order is right. NaN where either side does not vary.
///
/// Source: Spearman, "The Proof and Measurement of Association between Two Things" (1904).
pub fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let side = |of: fn(&(f64, f64)) -> f64| ranks(&pairs.iter().map(of).collect::<Vec<_>>());
    match (side(|pair| pair.0), side(|pair| pair.1)) {
        (Some(x), Some(y)) => pearson(&x.into_iter().zip(y).collect::<Vec<_>>()),
        _ => f64::NAN,
    }
}

fn mean(pairs: &[(f64, f64)], of: impl Fn((f64, f64)) -> f64) -> f64 {
    pairs.iter().map(|&pair| of(pair)).sum::<f64>() / pairs.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::draw;

    const PAIRS: [(f64, f64); 4] = [(1.0, 2.0), (2.0, 1.0), (3.0, 5.0), (4.0, 5.0)];

    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-14, "{actual}, expected {expected}");
    }

    #[test]
    fn errors_by_hand() {
        // Differences -1, 1, -2, -1.
        assert_eq!(mean_squared_error(&PAIRS), 7.0 / 4.0);
        assert_eq!(mean_absolute_error(&PAIRS), 5.0 / 4.0);
        assert!(mean_squared_error(&[]).is_nan() && mean_absolute_error(&[]).is_nan());
    }

    #[test]
    fn correlations_by_hand() {
        // From the means 2.5 and 3.25: xy = 1.875 + 1.125 + 0.875 + 2.625, xx = 5, yy = 1.5625 + 5.0625 + 2·3.0625.
        close(pearson(&PAIRS), 6.5 / (5.0f64 * 12.75).sqrt());
        // Ranks of gold 2, 1, 3.5, 3.5: xy = 0.75 + 0.75 + 0.5 + 1.5, xx = 5, yy = 0.25 + 2.25 + 1 + 1.
        close(spearman(&PAIRS), 3.5 / (5.0f64 * 4.5).sqrt());
    }

    #[test]
    fn a_line_correlates_fully_and_a_curve_in_its_ranks() {
        let xs: Vec<f64> = (0..50).map(|i| draw(3, i, 1000) as f64 / 100.0).collect();
        let with = |f: fn(f64) -> f64| xs.iter().map(|&x| (x, f(x))).collect::<Vec<_>>();
        close(pearson(&with(|x| 3.0 * x - 7.0)), 1.0);
        let tiny: Vec<(f64, f64)> = xs.iter().map(|x| (1e-100 * x, 1e-100 * (2.0 - x))).collect();
        close(pearson(&tiny), -1.0);
        close(spearman(&with(f64::exp)), 1.0);
        close(spearman(&with(|x| -x.powi(3))), -1.0);
        assert!(pearson(&with(f64::exp)) < 0.9);
    }

    #[test]
    fn scale_shift_order_and_sides_change_nothing() {
        let pairs: Vec<(f64, f64)> =
            (0..60).map(|i| (draw(1, i, 40) as f64, draw(2, i, 40) as f64 + 0.3 * draw(1, i, 40) as f64)).collect();
        let mut changed: Vec<(f64, f64)> = pairs.iter().map(|&(x, y)| (0.1 * y - 3.0, 1e6 * x + 5.0)).collect();
        changed.reverse();
        for correlation in [pearson, spearman] {
            assert!((correlation(&pairs) - correlation(&changed)).abs() < 1e-10);
            assert!(correlation(&pairs).abs() < 1.0);
        }
    }

    #[test]
    fn what_does_not_vary_has_no_correlation() {
        for pairs in [&[][..], &[(1.0, 2.0)], &[(0.1, 1.0), (0.1, 2.0), (0.1, 4.0)], &[(1.0, f64::NAN), (2.0, 1.0)]] {
            assert!(pearson(pairs).is_nan() && spearman(pairs).is_nan(), "{pairs:?}");
        }
    }
}
