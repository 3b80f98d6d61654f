//! The two files of an adapter, as PEFT writes and reads them.

use super::targets::{Targets, last_part};
use super::{LoraConfig, freeze_but, full_layers, is_in};
use crate::builder;
use crate::checkpoint::{self, Weights};
use crate::family::{Layout, Place};
use crate::linear::Adapter;
use crate::model::Model;
use crate::parameters::{Change, Parameter, change_parameters, parameters};
use crate::{Error, Result, files, hub};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use fancy_regex::Regex;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// File name of an adapter's weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// File name of an adapter's configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// What PEFT puts before the names of the base.
const PREFIX: &str = "base_model.model.";

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().expect("floats")
}

/// The adapters of one tensor of the checkpoint as one: usually one, but several where the tensor joins several of our layers.
struct Joined {
    rank: usize,
    scale: f64,
    n_in: usize,
    a: Vec<f32>,
    /// `[outputs of all layers, rank]`.
    b: Vec<f32>,
    magnitude: Vec<f32>,
}

impl Joined {
    /// Layers with one A share it; those with an A each, which the parts of a tensor have once they trained, lie in blocks of B.
    fn new(parts: &[Adapter]) -> Self {
        let ([rank, n_in], scale) = (parts[0].a.val().dims(), parts[0].scale);
        let factors: Vec<[Vec<f32>; 2]> = parts.iter().map(|part| [floats(part.a.val()), floats(part.b.val())]).collect();
        let magnitude = parts.iter().filter_map(|part| part.magnitude.as_ref()).flat_map(|m| floats(m.val())).collect();
        if factors.iter().all(|[a, _]| *a == factors[0][0]) {
            let b = factors.iter().flat_map(|[_, b]| b.clone()).collect();
            return Self { rank, scale, n_in, a: factors[0][0].clone(), b, magnitude };
        }
        let joined_rank = rank * parts.len();
        let mut b = Vec::new();
        for (index, [_, block]) in factors.iter().enumerate() {
            for row in block.chunks_exact(rank) {
                let mut wide = vec![0.0; joined_rank];
                wide[index * rank..][..rank].copy_from_slice(row);
                b.extend(wide);
            }
        }
        Self { rank: joined_rank, scale, n_in, a: factors.into_iter().flat_map(|[a, _]| a).collect(), b, magnitude }
    }

    /// Rank, A and B of each of the layers with so many outputs.
    fn parts(&self, n_outs: &[usize]) -> Vec<(usize, Vec<f32>, Vec<f32>)> {
        let part_rank = self.rank / n_outs.len();
        let mut rest = self.b.as_slice();
        let rows: Vec<&[f32]> = n_outs
            .iter()
            .map(|n_out| {
                let (rows, after) = rest.split_at(n_out * self.rank);
                rest = after;
                rows
            })
            .collect();
        let is_block = |(index, rows): (usize, &&[f32])| {
            let of_block = index * part_rank..(index + 1) * part_rank;
            let is_zero = |(column, value): (usize, &f32)| of_block.contains(&column) || *value == 0.0;
            rows.chunks_exact(self.rank).all(|row| row.iter().enumerate().all(is_zero)) && rows.iter().any(|&value| value != 0.0)
        };
        if n_outs.len() == 1 || part_rank * n_outs.len() != self.rank || !rows.iter().enumerate().all(is_block) {
            return rows.into_iter().map(|rows| (self.rank, self.a.clone(), rows.to_vec())).collect();
        }
        let part = |(index, rows): (usize, &[f32])| {
            let a = self.a[index * part_rank * self.n_in..][..part_rank * self.n_in].to_vec();
            let b = rows.chunks_exact(self.rank).flat_map(|row| row[index * part_rank..][..part_rank].to_vec()).collect();
            (part_rank, a, b)
        };
        rows.into_iter().enumerate().map(part).collect()
    }
}

/// Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them; `base` is the folder or name of the model adapted.
///
/// # Errors
/// If a file cannot be written.
pub fn save<M: Model>(model: &M, config: &LoraConfig, base: &str, folder: &Path) -> Result<()> {
    let mut model = model.clone();
    let full = full_layers(&mut model, &config.modules_to_save)?;
    let layout = model.layout();
    let (mut all, mut adapted, mut transposed) = (Vec::new(), BTreeMap::<String, Vec<Adapter>>::new(), false);
    model.linears_mut(&mut |path, linear| {
        let name = layout.layer(path);
        if let Some(adapter) = &linear.adapter {
            adapted.entry(name.clone()).or_default().push(adapter.clone());
            transposed |= layout.place(&format!("{path}.weight")).transposed;
        }
        all.push(name);
    });
    let mut tensors = Vec::new();
    let mut patterns = [Map::new(), Map::new()];
    for (name, parts) in &adapted {
        let joined = Joined::new(parts);
        let n_out = joined.b.len() / joined.rank;
        let mut add = |tensor: &str, shape: Vec<usize>, values: Vec<f32>| {
            let tensor = format!("{PREFIX}{name}.{tensor}");
            tensors.push((Place::plain(tensor.clone()), Parameter::stored(tensor, shape, values)));
        };
        add("lora_A.weight", vec![joined.rank, joined.n_in], joined.a);
        add("lora_B.weight", vec![n_out, joined.rank], joined.b);
        if !joined.magnitude.is_empty() {
            add("lora_magnitude_vector", vec![n_out], joined.magnitude);
        }
        if joined.rank != config.rank {
            patterns[0].insert(name.clone(), joined.rank.into());
        }
        let alpha = joined.scale * config.divisor(joined.rank);
        if (alpha - config.alpha).abs() > 1e-9 * config.alpha.abs() {
            patterns[1].insert(name.clone(), alpha.into());
        }
    }
    let of_full = parameters(&model).into_iter().filter(|parameter| is_in(&full, &parameter.path)).map(|parameter| {
        let place = layout.place(&parameter.path);
        (Place { tensor: format!("{PREFIX}{}", place.tensor), ..place }, parameter)
    });
    checkpoint::write(&folder.join(WEIGHTS_FILE), tensors.into_iter().chain(of_full))?;

    let mut targets: Vec<&str> = adapted.keys().map(|path| last_part(path)).collect();
    targets.sort_unstable();
    targets.dedup();
    // BERT calls three different layers `dense`, GPT-2 two `c_proj`: there, and where some blocks only are adapted, only whole paths tell an
    // adapted layer from another.
    let is_partial = |name: &&str| all.iter().any(|path| last_part(path) == *name && !adapted.contains_key(path));
    let by_path = ["dense", "c_proj"].iter().any(|name| targets.contains(name)) || targets.iter().any(is_partial);
    let targets: Vec<&str> = if by_path { adapted.keys().map(String::as_str).collect() } else { targets };
    let mut saved: Vec<String> = full.iter().map(|path| layout.layer(path)).collect();
    saved.dedup();
    let [rank_pattern, alpha_pattern] = patterns;
    let settings = json!({
        "peft_type": "LORA",
        "task_type": task_type(&model),
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "inference_mode": true,
        "init_lora_weights": true,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "target_modules": targets,
        "modules_to_save": (!saved.is_empty()).then_some(saved),
    });
    files::write_json(&folder.join(CONFIG_FILE), &settings)
}

fn task_type<M: Model>(model: &M) -> Option<&'static str> {
    let family = model.config().family;
    // PEFT has no word for masked language modelling.
    match model.class() {
        class if class == family.token_classifier_class() => Some("TOKEN_CLS"),
        class if class == family.classifier_class() => Some("SEQ_CLS"),
        class if class == family.trunk_class() => Some("FEATURE_EXTRACTION"),
        _ => model.config().causal.then_some("CAUSAL_LM"),
    }
}

/// The content of [`CONFIG_FILE`].
pub(super) struct Settings {
    path: PathBuf,
    values: Map<String, Value>,
}

/// What an adapter may ask for and Kiln does not do, unless it is null, false or empty.
const UNSUPPORTED: [&str; 11] = [
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "velora_config",
    "kasa_config",
    "monteclora_config",
];

impl Settings {
    /// Reads the settings in `folder`.
    ///
    /// # Errors
    /// If the file is missing or damaged, or asks for something Kiln does not do.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG_FILE);
        let values: Map<String, Value> = files::read_json(&path)?;
        let settings = Self { path, values };
        let only = |key: &str, known: &str| settings.error(key, format!("found {}, only {known} is supported", settings.get(key)));
        if *settings.get("peft_type") != "LORA" {
            return Err(only("peft_type", "\"LORA\""));
        }
        if !settings.get("bias").is_null() && *settings.get("bias") != "none" {
            return Err(only("bias", "\"none\""));
        }
        let is_asked = |value: &Value| match value {
            Value::Null => false,
            Value::Bool(asked) => *asked,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if let Some(key) = UNSUPPORTED.into_iter().find(|key| is_asked(settings.get(key))) {
            return Err(settings.error(key, format!("found {}, which is not supported", settings.get(key))));
        }
        // These start from other weights of the base, which PEFT computes again when it loads the adapter.
        let initial = settings.get("init_lora_weights").as_str().unwrap_or_default();
        if ["pissa", "olora", "corda", "loftq"].iter().any(|kind| initial.starts_with(kind)) {
            let message = format!("found {initial:?}, which changes the base's weights; save it in PEFT as a plain LoRA first");
            return Err(settings.error("init_lora_weights", message));
        }
        Ok(settings)
    }

    fn get(&self, key: &str) -> &Value {
        self.values.get(key).unwrap_or(&Value::Null)
    }

    fn error(&self, key: &str, message: String) -> Error {
        Error::checkpoint(&self.path, format!("key {key:?}: {message}"))
    }

    pub(super) fn is_dora(&self) -> bool {
        *self.get("use_dora") == true
    }

    pub(super) fn task_type(&self) -> Option<String> {
        self.get("task_type").as_str().map(str::to_owned)
    }

    fn config(&self) -> Result<LoraConfig> {
        let config = LoraConfig {
            rank: self.get("r").as_u64().ok_or_else(|| self.error("r", "expected a whole number".into()))? as usize,
            alpha: self.get("lora_alpha").as_f64().ok_or_else(|| self.error("lora_alpha", "expected a number".into()))?,
            dropout: self.get("lora_dropout").as_f64().unwrap_or(0.0),
            use_rslora: *self.get("use_rslora") == true,
            use_dora: self.is_dora(),
            target_modules: Targets::default(),
            modules_to_save: Vec::new(),
        };
        config.validate().map_err(|error| Error::checkpoint(&self.path, error.to_string()))?;
        Ok(config)
    }

    /// What the first key of a pattern that fits the layer says.
    fn of_pattern(&self, key: &str, layer: &str) -> Result<Option<f64>> {
        let Some(pattern) = self.get(key).as_object() else { return Ok(None) };
        for (name, value) in pattern {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{name})$")).map_err(|error| self.error(key, format!("{name:?}: {error}")))?;
            if regex.is_match(layer).map_err(|error| self.error(key, format!("{name:?}: {error}")))? {
                let number = value.as_f64().filter(|number| number.is_finite());
                return number.map(Some).ok_or_else(|| self.error(key, format!("{name:?}: found {value}, expected a number")));
            }
        }
        Ok(None)
    }
}

/// Attaches the adapter that PEFT or Kiln wrote into `folder`, and takes over the layers saved in full with it. Where one of two tied layers
/// is among them, they are untied.
///
/// # Errors
/// If a file is missing or damaged, the adapter is none Kiln knows, or it does not fit the model.
pub fn load<M: Model>(mut model: M, folder: &Path, device: &Device) -> Result<M> {
    let folder = &hub::folder(folder)?;
    let settings = Settings::read(folder)?;
    let config = settings.config()?;
    let weights = Weights::open_file(&folder.join(WEIGHTS_FILE))?;
    let layout = model.layout();
    let mut used = untie(&mut model, layout, &weights)?;

    let mut layers: Vec<(String, String, [usize; 2])> = Vec::new();
    model.linears_mut(&mut |path, linear| layers.push((path.to_owned(), layout.layer(path), linear.weight.val().dims())));
    let mut adapters = BTreeMap::new();
    for (first, (_, name, [_, n_in])) in layers.iter().enumerate() {
        let [name_a, name_b] = ["A", "B"].map(|part| format!("{PREFIX}{name}.lora_{part}.weight"));
        if !weights.contains(&name_a) || used.contains(&name_a) {
            continue;
        }
        let parts: Vec<(&String, usize)> =
            layers[first..].iter().filter(|(_, other, _)| other == name).map(|(path, _, [n_out, _])| (path, *n_out)).collect();
        let n_outs: Vec<usize> = parts.iter().map(|(_, n_out)| *n_out).collect();
        let n_out = n_outs.iter().sum();
        let rank = settings.of_pattern("rank_pattern", name)?.map_or(config.rank, |rank| rank as usize);
        let alpha = settings.of_pattern("alpha_pattern", name)?.unwrap_or(config.alpha);
        let (a, b) = (weights.read(&name_a, &[rank, *n_in])?, weights.read(&name_b, &[n_out, rank])?);
        used.extend([name_a, name_b]);
        let magnitude = if config.use_dora {
            let name = format!("{PREFIX}{name}.lora_magnitude_vector");
            let magnitude = weights.read(&name, &[n_out])?;
            used.insert(name);
            magnitude
        } else {
            Vec::new()
        };
        let joined = Joined { rank, scale: config.scale(alpha, rank), n_in: *n_in, a, b, magnitude };
        let mut start = 0;
        for ((path, n_out), (rank, a, b)) in parts.iter().zip(joined.parts(&n_outs)) {
            let a = Tensor::from_data(TensorData::new(a, [rank, *n_in]), device);
            let b = Tensor::from_data(TensorData::new(b, [*n_out, rank]), device);
            let lengths = config.use_dora.then(|| joined.magnitude[start..start + n_out].to_vec());
            let magnitude = lengths.map(|lengths| Tensor::from_data(TensorData::new(lengths, [*n_out]), device));
            adapters.insert((*path).clone(), Adapter::new(a, b, magnitude, joined.scale, config.dropout));
            start += n_out;
        }
    }

    let full: Vec<String> = {
        let mut full: Vec<String> = model.new_heads().iter().map(|&head| head.to_owned()).collect();
        for parameter in parameters(&model).iter().filter(|parameter| !parameter.path.contains(".adapter.")) {
            let name = format!("{PREFIX}{}", layout.place(&parameter.path).tensor);
            if weights.contains(&name) {
                used.insert(name);
                if let Some((layer, _)) = parameter.path.rsplit_once('.').filter(|_| !is_in(&full, &parameter.path)) {
                    full.push(layer.to_owned());
                }
            }
        }
        full
    };
    if let Some(name) = weights.names().find(|name| !used.contains(*name)) {
        let message = match name.contains(".lora_embedding_") || name.contains("lm_head.lora_") {
            true => format!("tensor {name:?} adapts the embeddings or the output over the vocabulary, which is not supported"),
            false => format!("tensor {name:?} fits nothing in this model: is the adapter for another base model?"),
        };
        return Err(Error::checkpoint(weights.path(), message));
    }
    let mut model = freeze_but(model, &full);
    model.linears_mut(&mut |path, linear| linear.adapter = adapters.remove(path));
    load_full(model, &full, &weights, device)
}

/// Unties the token embeddings and the output over the vocabulary where the adapter holds one of them, or both unlike each other; the names
/// of the tensors that need not be read.
fn untie<M: Model>(model: &mut M, layout: Layout, weights: &Weights) -> Result<BTreeSet<String>> {
    let is_tied = model.config().tied_head && model.class() == layout.family.language_model_class();
    let names = ["trunk.embeddings.token.weight", "head.output.weight"].map(|path| format!("{PREFIX}{}", layout.place(path).tensor));
    let held: Vec<&String> = names.iter().filter(|name| weights.contains(name)).collect();
    if !is_tied || held.is_empty() {
        return Ok(BTreeSet::new());
    }
    if let [table, output] = held[..] {
        let shape = weights.shape(table).unwrap_or_default();
        if weights.shape(output) == Some(shape) && weights.read(table, shape)? == weights.read(output, shape)? {
            return Ok(BTreeSet::from([output.clone()]));
        }
    }
    match model.untie() {
        true => Ok(BTreeSet::new()),
        false => {
            let message = format!("tensor {:?} is tied to the output over the vocabulary, which this model cannot untie", held[0]);
            Err(Error::checkpoint(weights.path(), message))
        }
    }
}

/// Reads the parameters of the layers `full` that the file holds.
fn load_full<M: Model>(model: M, full: &[String], weights: &Weights, device: &Device) -> Result<M> {
    struct Load<'a> {
        layout: Layout,
        weights: &'a Weights,
        full: &'a [String],
        device: &'a Device,
        remainders: BTreeMap<String, Vec<f32>>,
        outcome: Result<()>,
    }

    impl Change for Load<'_> {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.outcome.is_err() || !is_in(self.full, path) {
                return param;
            }
            let place = self.layout.place(path);
            let name = format!("{PREFIX}{}", place.tensor);
            if !self.weights.contains(&name) {
                return param;
            }
            let shape = param.val().dims();
            match builder::read(self.weights, &mut self.remainders, &name, &place, &shape) {
                Ok(values) => Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device)),
                Err(error) => {
                    self.outcome = Err(error);
                    param
                }
            }
        }
    }

    let mut load = Load { layout: model.layout(), weights, full, device, remainders: BTreeMap::new(), outcome: Ok(()) };
    let model = change_parameters(model, &mut load);
    load.outcome.map(|()| model)
}
