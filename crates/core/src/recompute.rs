//! Gradient checkpointing: a module that keeps its input only, and is computed again when its gradient is wanted.
//!
//! Source: Chen et al., arXiv:1604.06174, Section 4.

use crate::parameters::{Visit, visit_parameters};
use burn::backend::DispatchTensor;
use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use kiln_kernels::host::on_host;
use kiln_kernels::kernel::{Context, Forward, Kernel, Operand, apply};
use std::fmt;

/// Inputs: x, then every trainable parameter of the module.
struct Recompute<M, F> {
    /// Off the tape, but it remembers which parameters train.
    module: M,
    run: F,
    device: Device,
}

impl<M, F> fmt::Debug for Recompute<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recompute")
    }
}

impl<M, F> Recompute<M, F> {
    fn tensor(&self, operand: Operand<'_>) -> Tensor<2> {
        Tensor::from_data(TensorData::new(operand.data.to_vec(), operand.shape), &self.device)
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("kernels compute in f32")
}

impl<M, F> Kernel for Recompute<M, F>
where
    M: Module + Sync + 'static,
    F: Fn(&M, Tensor<2>) -> Tensor<2> + Send + Sync + 'static,
{
    fn forward(&self, inputs: &[Operand<'_>], _: &[bool]) -> Forward {
        let y = (self.run)(&self.module, self.tensor(inputs[0]));
        let shape = y.dims().to_vec();
        Forward { data: values(y), shape, saved: Vec::new() }
    }

    /// The tape that is running cannot be extended, so the module gets a tape of its own, with leaves of its own.
    fn backward(&self, context: Context<'_>) -> Vec<Option<Vec<f32>>> {
        struct Take {
            from: Gradients,
            into: Vec<Option<Vec<f32>>>,
        }

        impl Visit for Take {
            fn visit<const D: usize>(&mut self, _: &str, tensor: &Tensor<D>) {
                if tensor.is_require_grad() {
                    self.into.push(tensor.grad_remove(&mut self.from).map(values));
                }
            }
        }

        let module = self.module.clone().train();
        let x = Tensor::from_inner(self.tensor(context.input(0))).set_require_grad(context.wanted[0]);
        let upstream = Tensor::from_inner(self.tensor(context.grad));
        let y = (self.run)(&module, x.clone());
        // The gradient of this sum with respect to y is the upstream one, to the bit.
        let mut gradients = (y * upstream).sum().backward();
        let of_x = x.grad_remove(&mut gradients).map(values);
        let mut take = Take { from: gradients, into: vec![of_x] };
        visit_parameters(&module, &mut take);
        take.into
    }

    fn keeps_input(&self, index: usize, _: &[bool]) -> bool {
        index == 0
    }
}

/// `run(module, x)` with its gradients, keeping nothing for them but `x`. On a device without host memory it keeps everything.
///
/// # Shapes
/// `x` and the output: `[tokens, width]`, each of its own width.
pub fn recompute<M, F>(module: &M, x: Tensor<2>, run: F) -> Tensor<2>
where
    M: Module + Sync + 'static,
    F: Fn(&M, Tensor<2>) -> Tensor<2> + Send + Sync + 'static,
{
    struct Trainable(Vec<DispatchTensor>);

    impl Visit for Trainable {
        fn visit<const D: usize>(&mut self, _: &str, tensor: &Tensor<D>) {
            if tensor.is_require_grad() {
                self.0.push(tensor.clone().into_dispatch());
            }
        }
    }

    if !on_host(&x.device()) {
        return run(module, x);
    }
    let mut inputs = Trainable(vec![x.clone().into_dispatch()]);
    visit_parameters(module, &mut inputs);
    let device = x.inner().device();
    apply(Recompute { module: module.valid(), run, device }, inputs.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;
    use crate::family::{Family, Layout};
    use crate::linear::Linear;
    use kiln_kernels::random::Key;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The output of a linear layer, kept or computed again, and the gradients of its input, weight and bias; how often it was computed.
    fn trained(recomputed: bool, x_trains: bool, layer: &Linear, device: &Device) -> (TensorData, [Option<TensorData>; 3], usize) {
        let counter = Arc::new(AtomicUsize::new(0));
        let count = counter.clone();
        let run = move |layer: &Linear, x: Tensor<2>| {
            count.fetch_add(1, Ordering::Relaxed);
            x.clone() + layer.forward(x).tanh()
        };
        let x = Tensor::<2>::from_data([[0.3, -1.2, 0.7], [2.0, 0.1, -0.4]], device).set_require_grad(x_trains);
        let before = x.clone() * 1.5;
        let y = if recomputed { recompute(layer, before, run) } else { run(layer, before) };
        let mut gradients = (y.clone() * y.clone()).sum().backward();
        let mut of = |tensor: &Tensor<2>| tensor.grad_remove(&mut gradients).map(Tensor::into_data);
        let matrices = [of(&x), of(&layer.weight.val())];
        let bias = layer.bias.as_ref().and_then(|bias| bias.val().grad_remove(&mut gradients)).map(Tensor::into_data);
        let [of_x, of_weight] = matrices;
        (y.into_data(), [of_x, of_weight, bias], counter.load(Ordering::Relaxed))
    }

    #[test]
    fn a_module_computed_again_has_the_same_bytes() {
        let device = Device::flex().autodiff();
        let mut builder = Builder::from_random(Layout::new(Family::Llama), &device, Key::new(1));
        let mut layer = Linear::build(&mut builder, "layer", 3, 3, true, 0.5).expect("random weights");
        for (x_trains, weight_trains) in [(true, true), (false, true), (true, false), (false, false)] {
            layer.weight = layer.weight.set_require_grad(weight_trains);
            let (y, gradients, runs) = trained(false, x_trains, &layer, &device);
            assert_eq!((runs, gradients[0].is_some(), gradients[1].is_some()), (1, x_trains, weight_trains));
            let (same_y, same_gradients, runs) = trained(true, x_trains, &layer, &device);
            assert_eq!(runs, 2, "once in each pass");
            assert_eq!((y, gradients), (same_y, same_gradients), "x trains: {x_trains}, the weight: {weight_trains}");
        }
    }
}
