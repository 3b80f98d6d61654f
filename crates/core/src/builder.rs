//! Where the parameters of a model under construction come from: a checkpoint, or a random number generator.

use crate::checkpoint::{Weights, transposed};
use crate::family::{Layout, Place};
use crate::{Error, Result};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::random::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How a parameter starts when no checkpoint has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init<'a> {
    /// Normal with this standard deviation.
    Normal(f32),
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// These, or all zero if there are none.
    Values(&'a [f32]),
}

/// Hands out parameters by path while a model is built.
#[derive(Debug)]
pub struct Builder {
    layout: Layout,
    device: Device,
    weights: Option<Weights>,
    /// What no parameter has taken yet of tensors that join several layers, `[out, in]`, by name.
    remainders: BTreeMap<String, Vec<f32>>,
    key: Key,
    used: BTreeSet<String>,
    new: Vec<String>,
}

/// How a checkpoint and a model fitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// Parameters the checkpoint lacks, started at random; Hugging Face's names.
    pub new: Vec<String>,
    /// Tensors of the checkpoint the model has no use for.
    pub unused: Vec<String>,
}

impl Builder {
    /// Parameters of a model of this layout from the checkpoint in `folder`, those [`Builder::new_parameter`] may start from `key`.
    ///
    /// # Errors
    /// If the weights are missing or damaged.
    pub fn from_checkpoint(folder: &Path, layout: Layout, device: &Device, key: Key) -> Result<Self> {
        Ok(Self { weights: Some(Weights::open(folder)?), ..Self::from_random(layout, device, key) })
    }

    /// Random parameters of a model of this layout.
    pub fn from_random(layout: Layout, device: &Device, key: Key) -> Self {
        Self { layout, device: device.clone(), weights: None, remainders: BTreeMap::new(), key, used: BTreeSet::new(), new: Vec::new() }
    }

    /// The parameter at `path`, which a checkpoint must hold.
    ///
    /// # Errors
    /// If the checkpoint lacks it or has it in another shape.
    pub fn parameter<const D: usize>(&mut self, path: &str, shape: [usize; D], init: Init<'_>) -> Result<Param<Tensor<D>>> {
        let values = match (&self.weights, self.stored_name(path)) {
            (Some(weights), Some(name)) => {
                let place = self.place(path);
                let values = read(weights, &mut self.remainders, &name, &place, &shape)?;
                self.used.insert(name);
                values
            }
            (Some(weights), None) => {
                let name = self.place(path).tensor;
                return Err(Error::checkpoint(weights.path(), format!("tensor {name:?} is missing; expected shape {shape:?}")));
            }
            (None, _) => self.random(path, shape.iter().product(), init),
        };
        Ok(self.wrap(values, shape))
    }

    /// The parameter at `path`, started at random if the checkpoint does not hold it.
    ///
    /// # Errors
    /// If the checkpoint has it in another shape.
    pub fn new_parameter<const D: usize>(&mut self, path: &str, shape: [usize; D], init: Init<'_>) -> Result<Param<Tensor<D>>> {
        if self.stored_name(path).is_some() {
            return self.parameter(path, shape, init);
        }
        self.new.push(self.place(path).tensor);
        let values = self.random(path, shape.iter().product(), init);
        Ok(self.wrap(values, shape))
    }

    /// Whether the checkpoint of a model whose output head shall be its embedding table holds another output head nevertheless: then the
    /// configuration is wrong, as in transformers. PyTorch's files hold a tied one twice.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn parts_head(&mut self) -> Result<bool> {
        let names = ["trunk.embeddings.token.weight", "head.output.weight"].map(|path| self.stored_name(path));
        let (Some(weights), [Some(table), Some(output)]) = (&self.weights, names) else { return Ok(false) };
        let is_copy = weights.are_equal(&table, &output)?;
        if is_copy {
            self.used.insert(output);
        }
        Ok(!is_copy)
    }

    /// The stored shape of the parameter at `path`, if a checkpoint holds it.
    pub fn stored_shape(&self, path: &str) -> Option<&[usize]> {
        self.weights.as_ref()?.shape(&self.stored_name(path)?)
    }

    /// To be called when the trunk has its parameters, before a head takes any: whatever else the checkpoint holds inside the trunk would be
    /// left out of the computation.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming a tensor of the trunk that the model has no use for.
    pub fn check_trunk(&self) -> Result<()> {
        let Some(weights) = &self.weights else { return Ok(()) };
        let family = self.layout.family;
        let prefix = family.trunk_prefix();
        let root = |name: &str| name.strip_prefix(prefix).unwrap_or(name).split('.').next().unwrap_or_default().to_owned();
        let roots: BTreeSet<String> = self.used.iter().map(|name| root(name)).collect();
        let is_prefixed = self.used.iter().any(|name| name.starts_with(prefix));
        let is_trunk =
            |name: &str| if is_prefixed { name.starts_with(prefix) && root(name) != "pooler" } else { roots.contains(&root(name)) };
        let is_left = |name: &&str| is_trunk(name) && !self.used.contains(*name) && !family.is_constant(name);
        match weights.names().find(is_left) {
            None => Ok(()),
            Some(name) => {
                let message =
                    format!("tensor {name:?} belongs to no layer that config.json describes: the model would compute something else");
                Err(Error::checkpoint(weights.path(), message))
            }
        }
    }

    /// What was started at random although there is a checkpoint, and what of the checkpoint was left over.
    pub fn fit(self) -> Fit {
        let Some(weights) = self.weights else { return Fit::default() };
        let family = self.layout.family;
        let is_copy = |name: &str| self.used.iter().any(|used| family.are_copies(name, used));
        let is_unused = |name: &&str| !self.used.contains(*name) && !family.is_constant(name) && !is_copy(name);
        let unused = weights.names().filter(is_unused).map(str::to_owned).collect();
        Fit { new: self.new, unused }
    }

    /// Where a checkpoint with a head holds the parameter.
    fn place(&self, path: &str) -> Place {
        Layout { bare: false, ..self.layout }.place(path)
    }

    /// The name under which the checkpoint holds the parameter: with the trunk's prefix or, in a checkpoint of the bare trunk, without.
    fn stored_name(&self, path: &str) -> Option<String> {
        let weights = self.weights.as_ref()?;
        let full = self.place(path).tensor;
        let bare = full.strip_prefix(self.layout.family.trunk_prefix()).map(str::to_owned);
        [Some(full), bare].into_iter().flatten().find(|name| weights.contains(name))
    }

    /// Depends on the key and the path only, not on the order in which a model is built.
    fn random(&self, path: &str, count: usize, init: Init<'_>) -> Vec<f32> {
        match init {
            Init::Zeros | Init::Values([]) => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Values(values) => {
                assert_eq!(values.len(), count, "{path} has one value each");
                values.to_vec()
            }
            Init::Normal(deviation) => {
                let key = path.bytes().fold(self.key, |key, byte| key.fold(u64::from(byte)));
                key.normals(count, deviation)
            }
        }
    }

    fn wrap<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }
}

/// Reads a parameter of `shape` out of the tensor `name`. The parameters joined in one tensor take their part of it one after the other, so
/// that it is read once.
pub(crate) fn read(
    weights: &Weights,
    remainders: &mut BTreeMap<String, Vec<f32>>,
    name: &str,
    place: &Place,
    shape: &[usize],
) -> Result<Vec<f32>> {
    let mut values = match remainders.remove(name) {
        Some(remainder) => remainder,
        None => {
            assert_eq!(place.part, 0, "{name} is taken apart in order");
            let mut stored = shape.to_vec();
            if place.transposed {
                stored.reverse();
            }
            let outputs = if place.transposed { stored.len() - 1 } else { 0 };
            if place.n_parts > 1
                && let Some(&n_outputs) = weights.shape(name).and_then(|shape| shape.get(outputs))
            {
                stored[outputs] = n_outputs;
            }
            let values = weights.read(name, &stored)?;
            if place.transposed { transposed(&values, stored[0]) } else { values }
        }
    };
    let (count, is_last) = (shape.iter().product(), place.part + 1 == place.n_parts);
    if values.len() < count || is_last && values.len() > count {
        let found = weights.shape(name).unwrap_or_default();
        let message =
            format!("tensor {name:?} has shape {found:?}, config.json asks for other sizes of the {} layers in it", place.n_parts);
        return Err(Error::checkpoint(weights.path(), message));
    }
    if !is_last {
        remainders.insert(name.to_owned(), values.split_off(count));
    }
    Ok(values)
}
