//! Adding to a sum of gradients in place, on all cores.

use crate::host::{change, on_host, read};
use crate::math::simd;
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Elements per unit of parallel work.
const CHUNK: usize = 16 * 1024;

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
    change(sum, |sum| {
        read(addend, |addend| {
            sum.par_chunks_mut(CHUNK).zip(addend.par_chunks(CHUNK)).for_each(|(sum, addend)| {
                simd(
                    #[inline(always)]
                    || sum.iter_mut().zip(addend).for_each(|(sum, addend)| *sum += addend),
                )
            });
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{devices, numbers};

    #[test]
    fn sums_are_those_of_the_elements_and_other_handles_keep_theirs() {
        let count = 2 * CHUNK + 5;
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
        // A first update gives the tensor memory of its own.
        let sum = accumulate(Tensor::<1>::zeros([100], device), Tensor::ones([100], device));
        let before = address(&sum);
        assert_eq!(address(&accumulate(sum, Tensor::ones([100], device))), before);
    }
}
