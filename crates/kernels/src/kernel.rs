//! How a kernel over host slices becomes a differentiable Burn operation.
//!
//! A [`Kernel`] reads dense `f32` slices and writes one; [`apply`] runs it on the CPU backends, plain or under autodiff, and records its
//! hand-written gradient. Devices without host memory never come here: every public operation of this crate first asks
//! [`on_host`](crate::host::on_host), and otherwise takes its plain-Burn path.

use crate::buffer::zeros;
use crate::host::{HostBackend, Inputs};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchTensor, Flex, backend_extension};
use burn::tensor::Tensor;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

#[cfg(feature = "ndarray")]
use burn::backend::NdArray;

/// A dense, row-major operand of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// The extent of each axis.
    pub shape: &'a [usize],
}

impl Operand<'_> {
    /// Rows of a rank-2 operand, or the length of a rank-1 operand.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Extent of the last axis.
    pub fn width(&self) -> usize {
        *self.shape.last().expect("a kernel operand has at least one axis")
    }
}

/// What the forward pass of a kernel produced.
#[derive(Debug)]
pub struct Forward {
    /// The output's elements, row-major.
    pub data: Vec<f32>,
    /// The output's shape.
    pub shape: Vec<usize>,
    /// Whatever the backward pass wants to find again; empty when no gradient is wanted.
    pub saved: Vec<Vec<f32>>,
}

/// What the backward pass of a kernel may read.
#[derive(Debug)]
pub struct Context<'a> {
    /// The inputs, in order; `None` for those [`Kernel::keeps_input`] declined.
    pub inputs: Vec<Option<Operand<'a>>>,
    /// The output, if [`Kernel::keeps_output`] asked for it.
    pub output: Option<Operand<'a>>,
    /// The forward pass's [`Forward::saved`], to keep or to change.
    pub saved: Vec<Vec<f32>>,
    /// Gradient of the loss with respect to the output.
    pub grad: Operand<'a>,
    /// Which inputs want a gradient.
    pub wanted: &'a [bool],
}

impl<'a> Context<'a> {
    /// The kept input at `index`.
    pub fn input(&self, index: usize) -> Operand<'a> {
        self.inputs[index].expect("the kernel reads an input it declined to keep")
    }

    /// The kept output.
    pub fn output(&self) -> Operand<'a> {
        self.output.expect("the kernel reads an output it declined to keep")
    }
}

/// One fused operation over dense host slices with a hand-written gradient.
pub trait Kernel: Debug + Send + Sync + 'static {
    /// Computes the output. `wanted[i]` says that input `i` will want a gradient; all false means that nothing need be saved.
    fn forward(&self, inputs: &[Operand<'_>], wanted: &[bool]) -> Forward;

    /// The gradient of each wanted input, `None` for the others. Each has its input's shape, or that of its [`Kernel::gradient_rows`].
    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>>;

    /// Whether the backward pass reads input `index`, given which inputs want a gradient.
    fn keeps_input(&self, index: usize, wanted: &[bool]) -> bool;

    /// The rows of input `index` that get a gradient, in the order of the gradient's rows and perhaps more than once, where the others
    /// get none. They are then added to what the input's other uses gave, without a dense gradient of their own.
    fn gradient_rows(&self, _index: usize) -> Option<&[u32]> {
        None
    }

    /// Whether the backward pass reads the output.
    fn keeps_output(&self) -> bool {
        false
    }
}

/// The most inputs a kernel may have. Burn's tape wants the number at compile time, so more than 6 are filled up to this many.
const MAX_INPUTS: usize = 32;

/// Runs `kernel` on CPU tensors; ranks are the kernel's own business.
///
/// # Panics
/// On a device without host memory: ask [`on_host`](crate::host::on_host) first.
pub fn apply<const D: usize>(kernel: impl Kernel, inputs: impl IntoIterator<Item = DispatchTensor>) -> Tensor<D> {
    let inputs = Inputs(inputs.into_iter().collect());
    Tensor::from_dispatch(<Dispatch as RunKernel>::run(Arc::new(kernel), inputs))
}

/// The operation that Burn dispatches: one for all kernels.
#[backend_extension(Flex, NdArray: cfg(feature = "ndarray"), Autodiff)]
pub trait RunKernel: Backend {
    /// Runs the kernel and, under autodiff, records its gradient.
    fn run(kernel: Arc<dyn Kernel>, #[extension_type] inputs: Inputs<Self>) -> FloatTensor<Self>;
}

impl RunKernel for Flex {
    fn run(kernel: Arc<dyn Kernel>, inputs: Inputs<Self>) -> FloatTensor<Self> {
        run_plain::<Self>(&*kernel, inputs)
    }
}

#[cfg(feature = "ndarray")]
impl RunKernel for NdArray {
    fn run(kernel: Arc<dyn Kernel>, inputs: Inputs<Self>) -> FloatTensor<Self> {
        run_plain::<Self>(&*kernel, inputs)
    }
}

fn operand<B: HostBackend>(dense: &B::Dense) -> Operand<'_> {
    Operand { data: B::slice(dense), shape: B::shape(dense) }
}

fn run_plain<B: HostBackend>(kernel: &dyn Kernel, inputs: Inputs<B>) -> FloatTensor<B> {
    let dense: Vec<B::Dense> = inputs.0.into_iter().map(B::dense).collect();
    let operands: Vec<Operand> = dense.iter().map(operand::<B>).collect();
    let wanted = vec![false; operands.len()];
    let forward = kernel.forward(&operands, &wanted);
    B::tensor(forward.data, forward.shape)
}

impl<B: HostBackend, C: CheckpointStrategy> RunKernel for Autodiff<B, C> {
    fn run(kernel: Arc<dyn Kernel>, inputs: Inputs<Self>) -> FloatTensor<Self> {
        match inputs.0.len() {
            1 => record::<B, C, 1>(kernel, inputs),
            2 => record::<B, C, 2>(kernel, inputs),
            3 => record::<B, C, 3>(kernel, inputs),
            4 => record::<B, C, 4>(kernel, inputs),
            5 => record::<B, C, 5>(kernel, inputs),
            6 => record::<B, C, 6>(kernel, inputs),
            7..=MAX_INPUTS => record::<B, C, MAX_INPUTS>(kernel, inputs),
            count => panic!("a kernel takes 1 to {MAX_INPUTS} inputs, not {count}"),
        }
    }
}

/// What the tape keeps of one kernel call.
#[derive(Clone, Debug)]
struct Record<B: HostBackend, T> {
    kernel: Arc<dyn Kernel>,
    inputs: Vec<Option<B::Dense>>,
    output: Option<B::Dense>,
    saved: Vec<Vec<f32>>,
    wanted: Vec<bool>,
    shapes: Vec<Vec<usize>>,
    /// The inputs with [`Kernel::gradient_rows`], to find the gradient they have already.
    with_rows: Vec<Option<T>>,
}

/// Adds each row of `gradient` to the row of the dense matrix that it belongs to, in order.
fn add_at_rows(dense: &mut [f32], rows: &[u32], gradient: &[f32]) {
    let width = gradient.len() / rows.len().max(1);
    for (&row, gradient) in rows.iter().zip(gradient.chunks_exact(width.max(1))) {
        dense[row as usize * width..][..width].iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
    }
}

fn record<B: HostBackend, C: CheckpointStrategy, const N: usize>(
    kernel: Arc<dyn Kernel>,
    inputs: Inputs<Autodiff<B, C>>,
) -> FloatTensor<Autodiff<B, C>> {
    #[derive(Debug)]
    struct KernelBackward<C>(PhantomData<fn() -> C>);

    impl<B: HostBackend, C: CheckpointStrategy, const N: usize> Backward<B, N> for KernelBackward<C> {
        type State = Arc<Record<B, FloatTensor<Autodiff<B, C>>>>;

        fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
            let grad = B::dense(grads.consume::<B>(&ops.node));
            let Record { kernel, inputs, output, saved, wanted, shapes, with_rows } =
                Arc::into_inner(ops.state).expect("a tape runs backward once");
            let context = Context {
                inputs: inputs.iter().map(|x| x.as_ref().map(operand::<B>)).collect(),
                output: output.as_ref().map(operand::<B>),
                saved,
                grad: operand::<B>(&grad),
                wanted: &wanted,
            };
            let gradients = kernel.backward(context);
            for (index, ((parent, gradient), shape)) in ops.parents.into_iter().zip(gradients).zip(shapes).enumerate() {
                let (Some(parent), Some(gradient)) = (parent, gradient) else { continue };
                let dense = match (kernel.gradient_rows(index), &with_rows[index]) {
                    (Some(rows), Some(input)) => {
                        let zeros = || B::tensor(zeros(shape.iter().product()), shape);
                        B::change(grads.remove::<B>(input).unwrap_or_else(zeros), |dense| add_at_rows(dense, rows, &gradient))
                    }
                    _ => B::tensor(gradient, shape),
                };
                grads.register::<B>(parent.id, dense);
            }
        }
    }

    let wanted: Vec<bool> = inputs.0.iter().map(|tensor| tensor.is_tracked()).collect();
    let with_rows = inputs.0.iter().enumerate().map(|(index, tensor)| kernel.gradient_rows(index).map(|_| tensor.clone())).collect();
    let mut guards = Vec::with_capacity(N);
    let mut dense = Vec::with_capacity(inputs.0.len());
    for tensor in inputs.0 {
        let (primitive, guard) = tensor.into_parts();
        guards.push(guard);
        dense.push(B::dense(primitive));
    }
    let forward = {
        let operands: Vec<Operand> = dense.iter().map(operand::<B>).collect();
        kernel.forward(&operands, &wanted)
    };
    let output = B::tensor(forward.data, forward.shape);
    guards.resize_with(N, || FloatTensor::<Autodiff<B, C>>::new(output.clone()).node());
    let Ok(guards) = <[_; N]>::try_from(guards) else { unreachable!("N is at least the number of inputs") };
    match KernelBackward::<C>(PhantomData).prepare::<C>(guards).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let shapes = dense.iter().map(|x| B::shape(x).to_vec()).collect();
            let record = Record {
                inputs: dense.into_iter().enumerate().map(|(index, x)| kernel.keeps_input(index, &wanted).then_some(x)).collect(),
                output: kernel.keeps_output().then(|| B::dense(output.clone())),
                saved: forward.saved,
                kernel,
                wanted,
                shapes,
                with_rows,
            };
            prepared.finish(Arc::new(record), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}
