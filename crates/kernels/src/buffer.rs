//! New buffers. `vec![0.0; n]` is written by one thread before all threads write it again.

use rayon::prelude::*;

/// Elements per unit of parallel work.
const CHUNK: usize = 64 * 1024;

/// A buffer with nothing in it yet.
///
/// # Safety
/// The caller writes every element before it reads it or lets others see it.
#[allow(clippy::uninit_vec)]
pub(crate) unsafe fn unwritten(length: usize) -> Vec<f32> {
    let mut buffer = Vec::with_capacity(length);
    // SAFETY: there is room for them, and the caller writes them.
    unsafe { buffer.set_len(length) };
    buffer
}

/// A buffer of zeros, written by all threads.
pub(crate) fn zeros(length: usize) -> Vec<f32> {
    // SAFETY: all of it is written here.
    let mut buffer = unsafe { unwritten(length) };
    buffer.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
    buffer
}
