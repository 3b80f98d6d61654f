//! PCGrad: where the gradients of two tasks point against each other, each gives up what it has against the other.
//!
//! ```text
//! for each task i:  g'_i = g_i;  for the other tasks j in random order:  if g'_i·g_j < 0:  g'_i −= (g'_i·g_j / g_j·g_j)·g_j
//! update: Σ_i g'_i = Σ_k C_k·g_k
//! ```
//!
//! g_i: the gradient of task i for the parameters that all share. Every g'_i is a sum of the g_k, so the inner products of all pairs say how much
//! of each, C_k, is in the result: the gradients themselves are read once for the products and once for the sum.
//! Source: Yu et al., arXiv:2001.06782, Algorithm 1.  Differs from the source: nothing.

use kiln_kernels::random::Key;

/// The inner products of the gradients of all pairs of tasks, `[tasks][tasks]`.
pub type Products = Vec<Vec<f64>>;

/// C. `key` draws the orders.
pub fn coefficients(products: &Products, key: Key) -> Vec<f64> {
    let order = |task: usize| key.fold(task as u64).permutation(products.len());
    in_orders(products, &(0..products.len()).map(order).collect::<Vec<_>>())
}

/// C, where task i meets the other tasks in the order `orders[i]`.
pub fn in_orders(products: &Products, orders: &[Vec<usize>]) -> Vec<f64> {
    let n = products.len();
    let mut sum = vec![0.0; n];
    for (task, order) in orders.iter().enumerate() {
        let mut parts = vec![0.0; n];
        parts[task] = 1.0;
        for &other in order.iter().filter(|&&other| other != task) {
            let product: f64 = parts.iter().zip(products).map(|(part, row)| part * row[other]).sum();
            if product < 0.0 {
                parts[other] -= product / products[other][other];
            }
        }
        sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// The cosine between the gradients of tasks `a` and `b`; 0 where one of them is 0.
pub fn cosine(products: &Products, a: usize, b: usize) -> f64 {
    let lengths = (products[a][a] * products[b][b]).sqrt();
    if lengths > 0.0 { products[a][b] / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products(gradients: &[&[f64]]) -> Products {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
        gradients.iter().map(|a| gradients.iter().map(|b| dot(a, b)).collect()).collect()
    }

    fn result(gradients: &[&[f64]], coefficients: &[f64]) -> Vec<f64> {
        (0..gradients[0].len()).map(|index| gradients.iter().zip(coefficients).map(|(gradient, c)| c * gradient[index]).sum()).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
    }

    /// (1, 0) and (−1, 1): the first keeps (½, ½), the second (0, 1).
    #[test]
    fn two_that_conflict_by_hand() {
        let gradients: [&[f64]; 2] = [&[1.0, 0.0], &[-1.0, 1.0]];
        let products = products(&gradients);
        assert_close(&result(&gradients, &coefficients(&products, Key::new(0))), &[0.5, 1.5]);
        assert!((cosine(&products, 0, 1) + 0.5f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn those_that_agree_are_summed() {
        let gradients: [&[f64]; 3] = [&[1.0, 2.0, 0.0], &[0.5, 1.0, 3.0], &[0.0, 4.0, 1.0]];
        assert_eq!(coefficients(&products(&gradients), Key::new(0)), [1.0; 3]);
        assert_eq!(coefficients(&products(&gradients[..1]), Key::new(0)), [1.0]);
    }

    #[test]
    fn a_gradient_of_zero_changes_nothing() {
        let gradients: [&[f64]; 3] = [&[1.0, 0.0], &[0.0, 0.0], &[-1.0, 1.0]];
        let products = products(&gradients);
        assert_close(&result(&gradients, &coefficients(&products, Key::new(0))), &[0.5, 1.5]);
        assert_eq!(cosine(&products, 0, 1), 0.0);
    }

    /// The definition on the vectors themselves, in every order of three.
    #[test]
    fn sums_of_products_are_the_projections() {
        let gradients: [&[f64]; 3] = [&[1.0, -0.5, 0.3, 0.2], &[-0.7, 0.1, 0.9, -0.4], &[0.2, 0.8, -1.0, 0.5]];
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut expected = vec![0.0; 4];
            for (task, gradient) in gradients.iter().enumerate() {
                let mut projected = gradient.to_vec();
                for other in order.into_iter().filter(|&other| other != task) {
                    let product = dot(&projected, gradients[other]);
                    if product < 0.0 {
                        let share = product / dot(gradients[other], gradients[other]);
                        projected.iter_mut().zip(gradients[other]).for_each(|(value, other)| *value -= share * other);
                    }
                }
                expected.iter_mut().zip(projected).for_each(|(sum, value)| *sum += value);
            }
            assert_close(&result(&gradients, &in_orders(&products(&gradients), &[0, 1, 2].map(|_| order.to_vec()))), &expected);
        }
    }
}
