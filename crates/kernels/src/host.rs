//! Host memory behind tensors: the CPU backends' dense slices, and in-place updates of them.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor, DispatchTensorKind, ExtensionType,
    Flex,
};
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};
use std::fmt::Debug;

#[cfg(feature = "ndarray")]
use burn::backend::{NdArray, ndarray::NdArrayTensor};

/// A backend whose float tensors are `f32` slices in host memory.
pub trait HostBackend: Backend {
    /// A dense, row-major, cheaply cloned tensor.
    type Dense: Clone + Debug + Send + Sync + 'static;

    /// Makes the tensor dense; free if it is already.
    fn dense(tensor: FloatTensor<Self>) -> Self::Dense;
    /// The elements.
    fn slice(dense: &Self::Dense) -> &[f32];
    /// The shape.
    fn shape(dense: &Self::Dense) -> &[usize];
    /// Takes over `data` without copying it.
    fn tensor(data: Vec<f32>, shape: Vec<usize>) -> FloatTensor<Self>;
    /// Lets `change` write to the elements: in place if nothing else holds the tensor, else on a copy.
    fn change(tensor: FloatTensor<Self>, change: impl FnOnce(&mut [f32])) -> FloatTensor<Self>;
}

impl HostBackend for Flex {
    type Dense = FlexTensor;

    fn dense(tensor: FlexTensor) -> FlexTensor {
        assert_eq!(tensor.dtype(), DType::F32, "kernels compute in f32");
        tensor.to_contiguous()
    }

    fn slice(dense: &FlexTensor) -> &[f32] {
        dense.as_slice::<f32>().expect("a dense tensor is contiguous")
    }

    fn shape(dense: &FlexTensor) -> &[usize] {
        dense.layout().shape().as_slice()
    }

    fn tensor(data: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
        FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(Shape::from(shape)), DType::F32)
    }

    fn change(tensor: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
        let mut dense = Self::dense(tensor);
        change(dense.storage_mut::<f32>());
        dense
    }
}

/// An array in row-major order whose elements start at the beginning of its storage.
#[cfg(feature = "ndarray")]
type Array = ndarray::ArcArray<f32, ndarray::IxDyn>;

#[cfg(feature = "ndarray")]
impl HostBackend for NdArray {
    type Dense = Array;

    fn dense(tensor: NdArrayTensor) -> Array {
        let NdArrayTensor::F32(storage) = tensor else { panic!("kernels compute in f32") };
        let array = storage.into_shared();
        if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned().into_shared() }
    }

    fn slice(dense: &Array) -> &[f32] {
        dense.as_slice().expect("a dense tensor is contiguous")
    }

    fn shape(dense: &Array) -> &[usize] {
        dense.shape()
    }

    fn tensor(data: Vec<f32>, shape: Vec<usize>) -> NdArrayTensor {
        let array = ndarray::Array::from_shape_vec(ndarray::IxDyn(&shape), data).expect("the kernel's output has its shape");
        array.into_shared().into()
    }

    fn change(tensor: NdArrayTensor, change: impl FnOnce(&mut [f32])) -> NdArrayTensor {
        let mut dense = Self::dense(tensor);
        change(dense.as_slice_mut().expect("a dense tensor is contiguous"));
        dense.into()
    }
}

/// Whether tensors of `device` lie in host memory, so that kernels can run on them.
pub fn on_host(device: &Device) -> bool {
    *device == Device::flex() || is_ndarray(device)
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)]
fn is_ndarray(device: &Device) -> bool {
    *device == Device::ndarray()
}

#[cfg(not(feature = "ndarray"))]
fn is_ndarray(_: &Device) -> bool {
    false
}

/// Tells the memory allocator to keep what is freed for what is needed next, in one heap of huge pages. A training step frees large tensors
/// only to ask for as large ones in the next: fetched from the system each time, every page costs a fault, and returning it interrupts the
/// other cores; together they can take as long as all the arithmetic. Products that read whole weights spend a tenth of their time on
/// looking up small pages. Only glibc has to be told, and elsewhere this does nothing. For a whole process, and lasting: call it before
/// there are threads, since those that have a heap of their own keep it.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            // SAFETY: mallopt only sets numbers, under the allocator's lock.
            unsafe {
                libc::mallopt(libc::M_ARENA_MAX, 1);
                libc::mallopt(libc::M_MMAP_MAX, 0);
                libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            }
            reserve_huge_pages();
        });
    }
}

/// Makes the heap as large as half of the machine's memory, to be filled with huge pages where it is written, and leaves it to the
/// allocator. Addresses only: no memory is taken until then.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn reserve_huge_pages() {
    // SAFETY: the advice concerns whole pages inside a block that this function owns and nobody has written to.
    unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(0);
        let n_pages = usize::try_from(libc::sysconf(libc::_SC_PHYS_PAGES)).unwrap_or(0);
        let length = page * n_pages / 2;
        let block = libc::malloc(length);
        if page > 0 && !block.is_null() {
            let skipped = block.align_offset(page);
            libc::madvise(block.wrapping_byte_add(skipped), (length - skipped) / page * page, libc::MADV_HUGEPAGE);
        }
        libc::free(block);
    }
}

/// Lets `change` write to the elements of a plain (not autodiff) host tensor: in place if this is its only handle, else on a copy.
///
/// # Panics
/// On a device without host memory: ask [`on_host`] first.
pub fn change<const D: usize>(tensor: Tensor<D>, change: impl FnOnce(&mut [f32])) -> Tensor<D> {
    #[cfg(feature = "ndarray")]
    if is_ndarray(&tensor.device()) {
        return Tensor::from_primitive::<NdArray>(NdArray::change(primitive::<NdArray, D>(tensor), change));
    }
    Tensor::from_primitive::<Flex>(Flex::change(primitive::<Flex, D>(tensor), change))
}

/// Lets `read` see the elements of a plain (not autodiff) host tensor without copying them.
///
/// # Panics
/// On a device without host memory: ask [`on_host`] first.
pub fn read<const D: usize, T>(tensor: Tensor<D>, read: impl FnOnce(&[f32]) -> T) -> T {
    #[cfg(feature = "ndarray")]
    if is_ndarray(&tensor.device()) {
        return read(NdArray::slice(&NdArray::dense(primitive::<NdArray, D>(tensor))));
    }
    read(Flex::slice(&Flex::dense(primitive::<Flex, D>(tensor))))
}

fn primitive<B: Backend, const D: usize>(tensor: Tensor<D>) -> FloatTensor<B>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    tensor.try_into_primitive::<B>().expect("a plain tensor in host memory")
}

/// The inputs of one kernel call, as many as the kernel wants.
#[derive(Debug)]
pub struct Inputs<B: Backend>(pub Vec<FloatTensor<B>>);

// By hand, because the derive maps a fixed number of fields.
impl<B: Backend> ExtensionType<B> for Inputs<B> {
    type Target = Inputs<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Inputs<Dispatch>
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        Inputs(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Inputs<Dispatch>, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Inputs(target.0.into_iter().map(|tensor| unwrap_kind(tensor).float()).collect())
    }

    fn routing_tensor(target: &Inputs<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Inputs<Dispatch>) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Inputs<Dispatch>) -> DispatchAutodiffContext {
        target.0.iter().fold(DispatchAutodiffContext::Disabled, |context, tensor| context.merge(tensor.autodiff))
    }
}
