//! What the golden tests share: devices, reference files, ragged rows and comparison.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_core::device;
use kiln_core::model::{self, Model};
use kiln_core::tokenizer::Tokenizer;
use kiln_verify::reference::Reference;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use kiln_verify::gradients::{by_path, by_tensor_name};
pub use kiln_verify::reference::Array;
pub use kiln_verify::rows::{Row, packed, supervised};
pub use kiln_verify::verify::loss_sum;

/// Largest difference allowed to a simple value, relative to `max(1, |value|)`.
pub const SIMPLE: f64 = 1e-5;
/// The same for a value that a whole model or several updates went into.
pub const COMPOSED: f64 = 1e-4;

/// The CPU devices of this build.
pub fn devices() -> Vec<Device> {
    let on_cpu = device::NAMES.iter().filter(|name| ["flex", "ndarray"].contains(name));
    on_cpu.map(|name| device::by_name(name).expect("a device of this build")).collect()
}

/// The folder of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures").join(name)
}

/// A folder of the shared models and reference values; `None`, with a word about it, where there are none.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("KILN_SHARED");
    if root.is_none() {
        println!("skipped: KILN_SHARED is not set, so there is no {folder}");
    }
    root.map(|root| Path::new(&root).join(folder))
}

/// The arrays of a reference file by name.
#[derive(Debug)]
pub struct Golden(pub BTreeMap<String, Array>, Reference);

impl Golden {
    /// Reads a safetensors file of float32 and int32.
    pub fn open(path: &Path) -> Self {
        let reference = Reference::open(path).unwrap_or_else(|error| panic!("{error}"));
        Self(reference.arrays.clone(), reference)
    }

    /// One array.
    pub fn get(&self, name: &str) -> &Array {
        self.1.get(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The vectors of a `[batch, time, width]` array at real tokens, one after the other.
    pub fn at_tokens(&self, name: &str) -> Vec<f64> {
        self.1.at_tokens(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The arrays whose name starts with `prefix`, under the rest of their name.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, Array> {
        self.1.with_prefix(prefix)
    }

    /// The class of each sequence.
    pub fn classes(&self) -> Vec<u32> {
        self.get("labels").values.iter().map(|&class| class as u32).collect()
    }
}

/// The sequences of the batch whose arrays' names start with `prefix`.
pub fn rows(golden: &Golden, prefix: &str) -> Vec<Row> {
    kiln_verify::rows::rows(&golden.1, prefix).unwrap_or_else(|error| panic!("{error}"))
}

/// The gradients of `loss` by the path of their parameter; parameters it does not reach are left out.
pub fn gradients(model: &impl Module, loss: &Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    by_path(model, loss.backward())
}

/// As `formula.py`: the first outputs of splitmix64 from the FNV-1a hash of the name.
pub fn bits(name: &str) -> impl Iterator<Item = u64> {
    let hash = |state: u64, byte| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// As `formula.py`: values from minus the bound to it.
pub fn uniform(name: &str, count: usize, bound: f64) -> Vec<f32> {
    bits(name).take(count).map(|bits| ((bits >> 40) as f32 / 8_388_608.0 - 1.0) * bound as f32).collect()
}

/// The values of a tensor.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    numbers(tensor.into_data())
}

/// The floats of tensor data.
pub fn numbers(data: TensorData) -> Vec<f32> {
    data.try_to_vec().expect("f32")
}

/// Asserts that no value is further than `tolerance x max(1, |expected|)` from the expected one.
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(
            difference <= tolerance * expected.abs().max(1.0),
            "{what}[{index}]: found {found}, expected {expected}, off by {difference:e}"
        );
    }
}

/// Asserts that the same parameters have gradients, and each is close: no element further than [`SIMPLE`] from the expected one, nor, since
/// gradients are small, than [`COMPOSED`] of the tensor's largest.
pub fn assert_gradients(what: &str, found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Array>) {
    let (names, expected_names): (Vec<&String>, Vec<&String>) = (found.keys().collect(), expected.keys().collect());
    assert_eq!(names, expected_names, "{what}: parameters with a gradient");
    for (name, gradient) in found {
        let expected = &expected[name].values;
        let what = format!("{what}: gradient of {name}");
        assert_close(&what, gradient, expected, SIMPLE);
        let largest = expected.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        // Where the true gradient is 0, as for BERT's key biases, what is left is rounding, up to 1e-7 on either side.
        let limit = COMPOSED * largest + 2e-7;
        for (index, (&found, &expected)) in gradient.iter().zip(expected).enumerate() {
            assert!((f64::from(found) - expected).abs() <= limit, "{what}[{index}]: found {found}, expected {expected}, largest {largest}");
        }
    }
}

/// Gradients as expected values, for comparing two runs of ours.
pub fn as_expected(gradients: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Array> {
    let array = |values: &Vec<f32>| Array { shape: vec![values.len()], values: values.iter().map(|&value| f64::from(value)).collect() };
    gradients.iter().map(|(name, values)| (name.clone(), array(values))).collect()
}

/// The model written into a folder, with a tokenizer that does not belong to it.
pub fn saved(model: &impl Model) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokenizer = Tokenizer::train(["a b c"].into_iter(), 300).expect("a tokenizer");
    model::save(model, &tokenizer, folder.path()).expect("the model is written");
    folder
}

/// Asserts that two files hold the same tensors.
pub fn assert_same_tensors(found: &Path, expected: &Path) {
    let [found, expected] = [found, expected].map(Golden::open);
    let shapes = |golden: &Golden| golden.0.iter().map(|(name, array)| (name.clone(), array.shape.clone())).collect::<Vec<_>>();
    assert_eq!(shapes(&found), shapes(&expected));
    for (name, array) in &found.0 {
        assert_eq!(array.values, expected.get(name).values, "{name}");
    }
}
