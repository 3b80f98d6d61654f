//! Tensor operations with hand-written gradients for training transformers on packed sequences.
//!
//! Every operation is one file: the kernel over host slices, the same in plain Burn operations for devices without host memory, and a test
//! that both agree in value and gradient. [`kernel`] turns a kernel into a Burn operation; [`host`] reaches the slices.

pub mod accumulate;
pub mod activation;
pub mod adafactor;
pub mod adamw;
pub mod adapter;
pub mod attention;
pub mod average;
mod buffer;
mod chain;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod host;
pub mod kernel;
pub mod linear;
pub mod lion;
mod math;
mod matmul;
pub mod muon;
pub mod norm;
pub mod pool;
pub mod quadratic;
pub mod random;
mod reduce;
pub mod rotary;
pub mod rows;
pub mod sampling;
pub mod segments;
pub mod sgd;
mod sweep;
#[cfg(test)]
mod testing;
pub mod threads;
