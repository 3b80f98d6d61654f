//! Adding to a sum of gradients in place, on all cores.

use crate::host::on_host;
use crate::sweep::sweep;
use burn::tensor::Tensor;

/// `sum + addend`, written to `sum` where the caller holds its only handle. Not differentiable: the tensors are plain ones.
///
/// # Shapes
/// Both have the same.
///
/// # Panics
/// If they have not.
pub fn accumulate(sum: Tensor<1>, addend: Tensor<1>) -> Tensor<1> {
    assert_eq!(sum.dims(), addend.dims(), "elements correspond");
    if !on_host(&sum.device()) {
        return sum + addend;
    }
    let [sum] = sweep(
        [sum],
        addend,
        #[inline(always)]
        |[sum], addend| sum.iter_mut().zip(addend).for_each(|(sum, addend)| *sum += addend),
    );
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::read;
    use crate::testing::{devices, numbers};

    #[test]
    fn sums_are_those_of_the_elements_and_other_handles_keep_theirs() {
        let count = 40_000;
        for device in devices() {
            let [first, second] = [1, 2].map(|seed| Tensor::<1>::from_floats(numbers(count, seed).as_slice(), &device));
            let other = first.clone();
            let sum: Vec<f32> = accumulate(first, second).into_data().try_to_vec().expect("f32");
            let kept: Vec<f32> = other.into_data().try_to_vec().expect("f32");
            assert_eq!(kept, numbers(count, 1));
            assert!(sum.iter().zip(kept).zip(numbers(count, 2)).all(|((sum, x), y)| *sum == x + y));
        }
    }

    #[test]
    fn a_sum_with_one_handle_stays_where_it_is() {
        let device = &devices()[0];
        let address = |x: &Tensor<1>| read(x.clone(), |x| x.as_ptr() as usize);
        // A first sum gives the tensor memory of its own.
        let sum = accumulate(Tensor::<1>::zeros([100], device), Tensor::ones([100], device));
        let before = address(&sum);
        assert_eq!(address(&accumulate(sum, Tensor::ones([100], device))), before);
    }
}
