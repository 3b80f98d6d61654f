//! The two files of an adapter, as PEFT writes and reads them.

use super::joined::{Joined, floats};
use super::settings::Settings;
use super::targets::last_part;
use super::{LoraConfig, TABLE, freeze_but, full_layers, is_in, is_tied, untie};
use crate::builder;
use crate::checkpoint::{self, Weights, transposed};
use crate::embedding::EmbeddingAdapter;
use crate::family::{Layout, Place};
use crate::language_model::OUTPUT;
use crate::linear::Adapter;
use crate::model::Model;
use crate::parameters::{Change, Parameter, change_parameters, parameters};
use crate::{Error, Result, files, hub};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// File name of an adapter's weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// File name of an adapter's configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// What PEFT puts before the names of the base.
const PREFIX: &str = "base_model.model.";

/// Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them; `base` is the folder or name of the model adapted.
///
/// # Errors
/// If a file cannot be written.
pub fn save<M: Model>(model: &M, config: &LoraConfig, base: &str, folder: &Path) -> Result<()> {
    let mut model = model.clone();
    let full = full_layers(&mut model, &config.modules_to_save)?;
    let layout = model.layout();
    let (mut all, mut adapted, mut fan_in_fan_out) = (Vec::new(), BTreeMap::<String, Vec<Adapter>>::new(), false);
    model.linears_mut(&mut |path, linear| {
        let name = layout.layer(path);
        if let Some(adapter) = &linear.adapter {
            adapted.entry(name.clone()).or_default().push(adapter.clone());
            fan_in_fan_out |= layout.place(&format!("{path}.weight")).transposed;
        }
        all.push(name);
    });
    let mut tensors = Vec::new();
    let mut patterns = [Map::new(), Map::new()];
    let mut add = |name: &str, tensor: &str, shape: Vec<usize>, values: Vec<f32>| {
        let tensor = format!("{PREFIX}{name}.{tensor}");
        tensors.push((Place::plain(tensor.clone()), Parameter::stored(tensor, shape, values)));
    };
    for (name, parts) in &adapted {
        let joined = Joined::new(parts);
        let n_out = joined.b.len() / joined.rank;
        add(name, "lora_A.weight", vec![joined.rank, joined.n_in], joined.a);
        add(name, "lora_B.weight", vec![n_out, joined.rank], joined.b);
        if !joined.magnitude.is_empty() {
            add(name, "lora_magnitude_vector", vec![n_out], joined.magnitude);
        }
        if joined.rank != config.rank {
            patterns[0].insert(name.clone(), joined.rank.into());
        }
        let alpha = joined.scale * config.divisor(joined.rank);
        if (alpha - config.alpha).abs() > 1e-9 * config.alpha.abs() {
            patterns[1].insert(name.clone(), alpha.into());
        }
    }
    let mut targets: BTreeSet<String> = adapted.keys().cloned().collect();
    if let Some(EmbeddingAdapter { a, b, .. }) = &model.trunk_mut().embeddings.token.adapter {
        let ([n_ids, rank], [width, _]) = (a.val().dims(), b.val().dims());
        let name = layout.layer(TABLE);
        add(&name, "lora_embedding_A", vec![rank, n_ids], transposed(&floats(a.val()), n_ids));
        add(&name, "lora_embedding_B", vec![width, rank], floats(b.val()));
        targets.insert(name);
    }
    let of_full = parameters(&model).into_iter().filter(|parameter| is_in(&full, &parameter.path)).map(|parameter| {
        let place = layout.place(&parameter.path);
        (Place { tensor: format!("{PREFIX}{}", place.tensor), ..place }, parameter)
    });
    checkpoint::write(&folder.join(WEIGHTS_FILE), tensors.into_iter().chain(of_full))?;

    let names: BTreeSet<&str> = targets.iter().map(|path| last_part(path)).collect();
    // BERT calls three different layers `dense`, GPT-2 two `c_proj`: there, and where some blocks only are adapted, only whole paths tell an
    // adapted layer from another.
    let is_partial = |name: &&str| all.iter().any(|path| last_part(path) == *name && !targets.contains(path));
    let by_path = ["dense", "c_proj"].iter().any(|name| names.contains(name)) || names.iter().any(is_partial);
    let targets: Vec<&str> = if by_path { targets.iter().map(String::as_str).collect() } else { names.into_iter().collect() };
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
        "fan_in_fan_out": fan_in_fan_out,
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
    let mut used = part(&mut model, &weights)?;

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
        let (rank, scale) = settings.rank_and_scale(&config, name)?;
        let (a, b) = (weights.read(&name_a, &[rank, *n_in])?, weights.read(&name_b, &[n_out, rank])?);
        used.extend([name_a, name_b]);
        let magnitude = if config.use_dora {
            if layers[first].0 == OUTPUT {
                refuse_dora(&settings, name)?;
            }
            let name = format!("{PREFIX}{name}.lora_magnitude_vector");
            let magnitude = weights.read(&name, &[n_out])?;
            used.insert(name);
            magnitude
        } else {
            Vec::new()
        };
        let joined = Joined { rank, scale, n_in: *n_in, a, b, magnitude };
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

    let name = layout.layer(TABLE);
    let [name_a, name_b] = ["A", "B"].map(|part| format!("{PREFIX}{name}.lora_embedding_{part}"));
    let mut table = None;
    if weights.contains(&name_a) {
        refuse_dora(&settings, &name)?;
        let (rank, scale) = settings.rank_and_scale(&config, &name)?;
        let [n_ids, width] = model.trunk_mut().embeddings.token.weight.val().dims();
        let a = transposed(&weights.read(&name_a, &[rank, n_ids])?, rank);
        let (a, b) = (TensorData::new(a, [n_ids, rank]), TensorData::new(weights.read(&name_b, &[width, rank])?, [width, rank]));
        let (a, b) = (Tensor::<2>::from_data(a, device), Tensor::<2>::from_data(b, device));
        used.extend([name_a, name_b]);
        table = Some(EmbeddingAdapter::new(a, b, scale));
    }
    // PEFT saves the weights themselves beside an adapter of one of these layers.
    let mut bases = BTreeMap::new();
    for path in [TABLE, OUTPUT] {
        let name = format!("{PREFIX}{}.base_layer.weight", layout.layer(path));
        if weights.contains(&name) {
            let shape = [model.config().vocab_size, model.config().hidden_size];
            let weight = Tensor::<2>::from_data(TensorData::new(weights.read(&name, &shape)?, shape), device);
            bases.insert(path.to_owned(), Param::from_tensor(weight).set_require_grad(false));
            used.insert(name);
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
        let message = format!("tensor {name:?} fits nothing in this model: is the adapter for another base model?");
        return Err(Error::checkpoint(weights.path(), message));
    }
    let mut model = freeze_but(model, &full);
    model.linears_mut(&mut |path, linear| {
        linear.adapter = adapters.remove(path);
        if let Some(base) = bases.remove(path) {
            linear.weight = base;
        }
    });
    let embeddings = &mut model.trunk_mut().embeddings.token;
    embeddings.adapter = table;
    if let Some(base) = bases.remove(TABLE) {
        embeddings.weight = base;
    }
    load_full(model, &full, &weights, device)
}

/// DoRA's lengths are those of rows that have inputs.
fn refuse_dora(settings: &Settings, name: &str) -> Result<()> {
    match settings.is_dora() {
        true => Err(settings.error("use_dora", format!("found true, which {name:?} among the targets cannot have"))),
        false => Ok(()),
    }
}

/// Unties the token embeddings and the output over the vocabulary where the adapter changes one of them, or both unlike each other; the names
/// of the tensors that need not be read.
fn part<M: Model>(model: &mut M, weights: &Weights) -> Result<BTreeSet<String>> {
    if !is_tied(model) {
        return Ok(BTreeSet::new());
    }
    let layers = [TABLE, OUTPUT].map(|path| model.layout().layer(path));
    let names = layers.each_ref().map(|layer| format!("{PREFIX}{layer}.weight"));
    if names.iter().all(|name| weights.contains(name)) && weights.are_equal(&names[0], &names[1])? {
        return Ok(BTreeSet::from([names[1].clone()]));
    }
    let parts = ["weight", "lora_embedding_A", "lora_A.weight"];
    let is_changed = |layer: &&String| parts.iter().any(|part| weights.contains(&format!("{PREFIX}{layer}.{part}")));
    if let Some(layer) = layers.iter().find(is_changed) {
        untie(model, layer).map_err(|message| Error::checkpoint(weights.path(), message))?;
    }
    Ok(BTreeSet::new())
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
