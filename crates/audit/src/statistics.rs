//! Tests of independence and what they need: how improbable a statistic is by chance, and how large the effect behind it.

/// The probability that a χ² variable with `degrees` of freedom exceeds `x`: `Q(degrees / 2, x / 2)`, the regularised upper incomplete gamma
/// function. 1 without a degree of freedom.
///
/// Source: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.4.19, by the series 6.5.29 and the continued fraction 6.5.31.
pub fn chi_squared_tail(x: f64, degrees: usize) -> f64 {
    if degrees == 0 || x <= 0.0 {
        return 1.0;
    }
    let (a, x) = (degrees as f64 / 2.0, x / 2.0);
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        // P = scale · Σ x^n / (a·(a+1)···(a+n))
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        while term > sum * f64::EPSILON {
            n += 1.0;
            term *= x / n;
            sum += term;
        }
        return (1.0 - scale * sum).clamp(0.0, 1.0);
    }
    // Q = scale / (x+1-a - 1·(1-a) / (x+3-a - 2·(2-a) / (x+5-a - ...))), from the front by Lentz's rule.
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut fraction = d;
    for i in 1..10_000 {
        let i = f64::from(i);
        let numerator = -i * (i - a);
        b += 2.0;
        d = 1.0 / nonzero(numerator * d + b);
        c = nonzero(b + numerator / c);
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fn nonzero(value: f64) -> f64 {
        if value.abs() < TINY { TINY } else { value }
    }
    (scale * fraction).clamp(0.0, 1.0)
}

/// The logarithm of the gamma function for `x >= 0.5`: Stirling's series (Abramowitz and Stegun 6.1.41), after steps up to where it converges.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 12.0 {
        product *= x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series = (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0)))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - product.ln()
}

/// Whether two things go together: how improbable that is by chance, and how strongly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Association {
    /// The probability of at least as much by chance, before any correction for how many were tested.
    pub p: f64,
    /// The effect, from 0 to 1.
    pub effect: f64,
}

/// How much a group says about a label: the G-test of independence of the table `counts[group][label]`, and Theil's uncertainty coefficient,
/// the share of the label's entropy that knowing the group takes away, less what chance adds to it on average.
///
/// ```text
/// I = Σ (n_gl / n)·ln(n·n_gl / (n_g·n_l)),  G = 2·n·I ~ χ²(d),  d = (groups - 1)·(labels - 1),  effect = (I - d / (2·n)) / H(label)
/// ```
///
/// Source: Sokal and Rohlf, "Biometry" (1981), Section 17.4; Theil, "Statistical Decomposition Analysis" (1972); the correction: Miller, "Note on
/// the bias of information estimates" (1955).
pub fn uncertainty(counts: &[Vec<u64>]) -> Association {
    let of_group: Vec<u64> = counts.iter().map(|row| row.iter().sum()).collect();
    let n_labels = counts.first().map_or(0, Vec::len);
    let of_label: Vec<u64> = (0..n_labels).map(|label| counts.iter().map(|row| row[label]).sum()).collect();
    let n = of_group.iter().sum::<u64>() as f64;
    let mut information = 0.0;
    for (row, &in_group) in counts.iter().zip(&of_group) {
        for (&both, &with_label) in row.iter().zip(&of_label).filter(|(both, _)| **both > 0) {
            let both = both as f64;
            information += both / n * (n * both / (in_group as f64 * with_label as f64)).ln();
        }
    }
    let entropy: f64 = of_label.iter().filter(|count| **count > 0).map(|&count| -(count as f64 / n) * (count as f64 / n).ln()).sum();
    let filled = |counts: &[u64]| counts.iter().filter(|count| **count > 0).count();
    let degrees = filled(&of_group).saturating_sub(1) * filled(&of_label).saturating_sub(1);
    let beyond_chance = (information - degrees as f64 / (2.0 * n)).max(0.0);
    Association { p: chi_squared_tail(2.0 * n * information, degrees), effect: if entropy > 0.0 { beyond_chance / entropy } else { 0.0 } }
}

/// Whether a number differs between groups: the test of Kruskal and Wallis with its correction for ties, and its effect `ε² = H / (n - 1)`, the
/// share of the variance of ranks that lies between groups.
///
/// ```text
/// H = 12 / (n·(n + 1))·Σ R_g² / n_g - 3·(n + 1), divided by 1 - Σ (t³ - t) / (n³ - n) ~ χ²(groups - 1)
/// ```
///
/// with `R_g` the sum of the ranks in group g, and `t` numbers equal to each other.
///
/// Source: Kruskal and Wallis, "Use of Ranks in One-Criterion Variance Analysis" (1952); ε²: Tomczak and Tomczak (2014), Eq. 10.
///
/// # Panics
/// If there are not as many groups as values.
pub fn kruskal_wallis(values: &[f64], groups: &[usize]) -> Association {
    assert_eq!(values.len(), groups.len(), "a group for each value");
    let n = values.len() as f64;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let n_groups = groups.iter().max().map_or(0, |last| last + 1);
    let (mut rank_sums, mut sizes) = (vec![0.0; n_groups], vec![0.0; n_groups]);
    let (mut ties, mut below) = (0.0, 0.0);
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let count = equal.len() as f64;
        for &place in equal {
            rank_sums[groups[place]] += below + (count + 1.0) / 2.0;
            sizes[groups[place]] += 1.0;
        }
        below += count;
        ties += count * count * count - count;
    }
    let correction = 1.0 - ties / (n * n * n - n);
    let squares: f64 = rank_sums.iter().zip(&sizes).filter(|(_, size)| **size > 0.0).map(|(sum, size)| sum * sum / size).sum();
    let h = (12.0 / (n * (n + 1.0)) * squares - 3.0 * (n + 1.0)) / correction;
    if !h.is_finite() {
        return Association { p: 1.0, effect: 0.0 };
    }
    let degrees = sizes.iter().filter(|size| **size > 0.0).count().saturating_sub(1);
    Association { p: chi_squared_tail(h, degrees), effect: (h / (n - 1.0)).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_known_where_it_has_a_short_form() {
        for x in [0.01, 0.5, 2.0, 7.0, 40.0, 700.0] {
            // Two degrees of freedom: exp(-x/2); four: (1 + x/2)·exp(-x/2).
            let two: f64 = (-x / 2.0_f64).exp();
            assert!((chi_squared_tail(x, 2) / two - 1.0).abs() < 1e-12, "{x}");
            assert!((chi_squared_tail(x, 4) / ((1.0 + x / 2.0) * two) - 1.0).abs() < 1e-12, "{x}");
        }
        // The 5 % points of tables.
        for (degrees, x) in [(1, 3.841_458_820_694_124), (10, 18.307_038_053_275_146), (100, 124.342_113_404_004_08)] {
            assert!((chi_squared_tail(x, degrees) - 0.05).abs() < 1e-12, "{degrees}");
        }
        assert_eq!([chi_squared_tail(0.0, 3), chi_squared_tail(5.0, 0)], [1.0, 1.0]);
    }

    #[test]
    fn groups_that_say_all_or_nothing() {
        let all = uncertainty(&[vec![40, 0], vec![0, 60]]);
        // H is that of 0.4 and 0.6, and 1 / (2·100) of it is chance.
        let entropy = -(0.4 * 0.4_f64.ln() + 0.6 * 0.6_f64.ln());
        assert!((all.effect - (1.0 - 0.005 / entropy)).abs() < 1e-12 && all.p < 1e-20, "{all:?}");
        let nothing = uncertainty(&[vec![20, 30], vec![40, 60]]);
        assert!(nothing.effect.abs() < 1e-12 && nothing.p > 0.99, "{nothing:?}");
        // By hand: I = 2·(0.4·ln(0.4 / 0.25) + 0.1·ln(0.1 / 0.25)) of ln 2, with n = 10.
        let some = uncertainty(&[vec![4, 1], vec![1, 4]]);
        let information = 2.0 * (0.4 * 1.6_f64.ln() + 0.1 * 0.4_f64.ln());
        assert!((some.effect - (information - 1.0 / 20.0) / 2f64.ln()).abs() < 1e-12);
        assert!((some.p - chi_squared_tail(20.0 * information, 1)).abs() < 1e-15);
        // Forty groups and forty labels, unrelated, in cells of less than one row each: what is seen is chance.
        let key = kiln_kernels::random::Key::new(8);
        let mut sparse = vec![vec![0; 40]; 40];
        (0..1200).for_each(|row| sparse[key.below(row, 40) as usize][key.fold(1).below(row, 40) as usize] += 1);
        assert!(uncertainty(&sparse).effect < 0.05, "{:?}", uncertainty(&sparse));
        // A label or a group that never comes changes nothing.
        assert_eq!(uncertainty(&[vec![4, 1, 0], vec![0, 0, 0], vec![1, 4, 0]]), some);
    }

    #[test]
    fn ranks_between_groups() {
        // Ranks 1, 2, 3 against 4, 5, 6: H = 12/42·(36/3 + 225/3) - 21 = 27/7.
        let apart = kruskal_wallis(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0], &[0, 0, 0, 1, 1, 1]);
        assert!((apart.p - chi_squared_tail(27.0 / 7.0, 1)).abs() < 1e-12 && (apart.effect - 27.0 / 35.0).abs() < 1e-12, "{apart:?}");
        let equal = kruskal_wallis(&[5.0; 6], &[0, 0, 0, 1, 1, 1]);
        assert_eq!(equal, Association { p: 1.0, effect: 0.0 });
        let mixed = kruskal_wallis(&[1.0, 2.0, 2.0, 1.0], &[0, 0, 1, 1]);
        assert!(mixed.effect < 1e-12 && mixed.p > 0.99, "{mixed:?}");
    }
}
