//! What the updates of parameters share: sweeps over several tensors at once that write where they lie.

use crate::host::{change, read};
use crate::math::simd;
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Elements per unit of parallel work; fixed, so that results never depend on the number of threads.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Lets `write` see the elements of all `tensors` at once: in place where the caller holds the only handle, else on a copy.
pub(crate) fn write<const N: usize>(tensors: [Tensor<1>; N], write: impl FnOnce([&mut [f32]; N])) -> [Tensor<1>; N] {
    let (mut write, mut done) = (Some(write), Vec::with_capacity(N));
    open(&mut tensors.into_iter(), Vec::with_capacity(N), &mut done, &mut |opened| {
        write.take().expect("called once")(opened.try_into().expect("every tensor is open"));
    });
    done.reverse();
    done.try_into().expect("every tensor comes back")
}

/// Opens the tensors one inside the other, since each is open only within a call, and puts them into `done`, the last one first.
fn open(
    closed: &mut dyn Iterator<Item = Tensor<1>>,
    opened: Vec<&mut [f32]>,
    done: &mut Vec<Tensor<1>>,
    then: &mut dyn FnMut(Vec<&mut [f32]>),
) {
    let Some(tensor) = closed.next() else { return then(opened) };
    let tensor = change(tensor, |slice| {
        let mut opened: Vec<&mut [f32]> = opened;
        opened.push(slice);
        open(closed, opened, done, then);
    });
    done.push(tensor);
}

/// Lets `sweep` change corresponding chunks of all `tensors` by those of `gradient`, on all cores.
///
/// # Panics
/// If the tensors have other lengths.
pub(crate) fn sweep<const N: usize>(
    tensors: [Tensor<1>; N],
    gradient: Tensor<1>,
    sweep: impl Fn([&mut [f32]; N], &[f32]) + Sync,
) -> [Tensor<1>; N] {
    write(tensors, |slices| {
        read(gradient, |gradient| {
            assert!(slices.iter().all(|slice| slice.len() == gradient.len()), "elements correspond");
            let mut parts = slices.map(|slice| slice.chunks_mut(CHUNK));
            let chunk = |gradient| (parts.each_mut().map(|part| part.next().expect("as many chunks")), gradient);
            let chunks: Vec<([&mut [f32]; N], &[f32])> = gradient.chunks(CHUNK).map(chunk).collect();
            chunks.into_par_iter().for_each(|(parts, gradient)| {
                simd(
                    #[inline(always)]
                    || sweep(parts, gradient),
                );
            });
        });
    })
}
