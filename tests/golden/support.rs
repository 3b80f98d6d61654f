//! What the golden tests share: devices, reference files, ragged rows and comparison.

use burn::module::Module;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use kiln_core::checkpoint::transposed;
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::{self, Model};
use kiln_core::packed::{Packed, Supervised};
use kiln_core::parameters::{Visit, parameters, visit_parameters};
use kiln_core::tokenizer::Tokenizer;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// An array of reference values; f64 holds i32 and f32 exactly.
#[derive(Clone, Debug)]
pub struct Array {
    /// The extent of each axis.
    pub shape: Vec<usize>,
    /// All values, last axis fastest.
    pub values: Vec<f64>,
}

/// The arrays of a reference file by name.
#[derive(Debug)]
pub struct Golden(pub BTreeMap<String, Array>);

impl Golden {
    /// Reads a safetensors file of float32 and int32.
    pub fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let array = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let words = view.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
            let values = match view.dtype() {
                Dtype::F32 => words.map(|word| f64::from(f32::from_le_bytes(word))).collect(),
                Dtype::I32 => words.map(|word| f64::from(i32::from_le_bytes(word))).collect(),
                other => panic!("{}: {name} is {other:?}", path.display()),
            };
            (name, Array { shape: view.shape().to_vec(), values })
        };
        Self(file.tensors().into_iter().map(array).collect())
    }

    /// One array.
    pub fn get(&self, name: &str) -> &Array {
        self.0.get(name).unwrap_or_else(|| panic!("the reference file has no {name}"))
    }

    /// The rows of a matrix of whole numbers.
    fn int_rows(&self, name: &str) -> Vec<Vec<i64>> {
        let Array { shape, values } = self.get(name);
        values.chunks_exact(shape[1]).map(|row| row.iter().map(|&value| value as i64).collect()).collect()
    }

    /// The vectors of a `[batch, time, width]` array at real tokens, one after the other.
    pub fn at_tokens(&self, name: &str) -> Vec<f64> {
        let Array { shape, values } = self.get(name);
        let keep = &self.get("attention_mask").values;
        assert_eq!(keep.len() * shape[2], values.len(), "{name} has a vector per token");
        values.chunks_exact(shape[2]).zip(keep).filter(|(_, keep)| **keep == 1.0).flat_map(|(vector, _)| vector.to_vec()).collect()
    }

    /// The arrays whose name starts with `prefix`, under the rest of their name.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<String, Array> {
        let rest = |(name, array): (&String, &Array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()));
        self.0.iter().filter_map(rest).collect()
    }

    /// The class of each sequence.
    pub fn classes(&self) -> Vec<u32> {
        self.get("labels").values.iter().map(|&class| class as u32).collect()
    }
}

/// One sequence of a reference batch, its padding gone.
#[derive(Clone, Debug)]
pub struct Row {
    /// Tokens.
    pub ids: Vec<u32>,
    /// Token types.
    pub token_types: Vec<u32>,
    /// What to predict at each token, in transformers' convention; `None` where there is no loss. Empty without labels of tokens.
    pub labels: Vec<Option<u32>>,
}

/// The sequences of the batch whose arrays' names start with `prefix`.
pub fn rows(golden: &Golden, prefix: &str) -> Vec<Row> {
    let name = |name: &str| format!("{prefix}{name}");
    let ids = golden.int_rows(&name("input_ids"));
    let masks = golden.int_rows(&name("attention_mask"));
    let types = golden.0.contains_key(&name("token_type_ids")).then(|| golden.int_rows(&name("token_type_ids")));
    let labels = golden.0.get(&name("labels")).is_some_and(|labels| labels.shape.len() == 2).then(|| golden.int_rows(&name("labels")));
    let row = |index: usize| {
        let length = masks[index].iter().filter(|&&keep| keep == 1).count();
        assert!(masks[index][..length].iter().all(|&keep| keep == 1), "the padding is on the right");
        let whole = |of: &Vec<Vec<i64>>| of[index][..length].iter().map(|&value| value as u32).collect::<Vec<u32>>();
        Row {
            ids: whole(&ids),
            token_types: types.as_ref().map_or_else(|| vec![0; length], whole),
            labels: labels.iter().flat_map(|labels| &labels[index][..length]).map(|&label| u32::try_from(label).ok()).collect(),
        }
    };
    (0..ids.len()).map(row).collect()
}

/// Rows laid end to end.
pub fn packed(rows: &[Row]) -> Packed {
    let token_types: Vec<u32> = rows.iter().flat_map(|row| row.token_types.clone()).collect();
    Packed { token_types: token_types.into(), ..Packed::new(rows.iter().map(|row| row.ids.as_slice())) }
}

/// The labelled tokens of packed rows; in causal models each is predicted from the token before it.
pub fn supervised(rows: &[Row], causal: bool) -> Supervised {
    let (mut at, mut targets, mut start) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        for (position, label) in row.labels.iter().enumerate().skip(usize::from(causal)) {
            if let Some(label) = label {
                at.push((start + position - usize::from(causal)) as u32);
                targets.push(*label);
            }
        }
        start += row.ids.len();
    }
    Supervised { weights: vec![1.0; targets.len()].into(), rows: at.into(), targets: targets.into() }
}

/// The summed loss of rows and the number of tokens it is summed over.
pub fn loss_sum(model: &LanguageModel, rows: &[Row]) -> (Tensor<1>, usize) {
    let supervised = supervised(rows, model.config().causal);
    (model.loss(&packed(rows), &supervised, None), supervised.targets.len())
}

/// The gradients of `loss` by the path of their parameter; parameters it does not reach are left out.
pub fn gradients(model: &impl Module, loss: &Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    by_path(model, loss.backward())
}

/// Gradients by the path of their parameter; parameters that have none are left out.
pub fn by_path(model: &impl Module, gradients: Gradients) -> BTreeMap<String, Vec<f32>> {
    struct Collect {
        from: Gradients,
        into: BTreeMap<String, Vec<f32>>,
    }

    impl Visit for Collect {
        fn visit<const D: usize>(&mut self, path: &str, tensor: &Tensor<D>) {
            if let Some(gradient) = tensor.grad_remove(&mut self.from) {
                self.into.insert(path.to_owned(), numbers(gradient.into_data()));
            }
        }
    }

    let mut collect = Collect { from: gradients, into: BTreeMap::new() };
    visit_parameters(model, &mut collect);
    collect.into
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
        // Where the true gradient is 0, as for BERT's key biases, what is left is rounding.
        let limit = COMPOSED * largest + 1e-7;
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

/// Gradients under Hugging Face's names and in its layout.
pub fn by_tensor_name(model: &impl Model, mut gradients: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let mut tensors: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for parameter in parameters(model) {
        let Some(gradient) = gradients.remove(&parameter.path) else { continue };
        let place = model.config().family.place(&parameter.path);
        let tensor = tensors.entry(place.tensor).or_default();
        tensor.extend(gradient);
        if place.transposed && place.part + 1 == place.n_parts {
            *tensor = transposed(tensor, tensor.len() / parameter.shape[1]);
        }
    }
    tensors
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
