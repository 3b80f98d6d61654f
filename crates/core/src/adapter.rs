//! Low-rank adapters on a whole model: attaching, saving and loading them in PEFT's files.
//!
//! Source: LoRA, arXiv:2106.09685; initialisation and file format as in PEFT: A uniform in ±1/√in, B zero, so a fresh adapter changes nothing.

use crate::checkpoint::{self, Weights};
use crate::family::{Layout, Place};
use crate::linear::{Adapter, Linear};
use crate::model::Model;
use crate::parameters::{Change, change_parameters, parameters};
use crate::{Error, Result, files, hub};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::random::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// File name of an adapter's weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// File name of an adapter's configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// What kind of adapter to attach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the update (PEFT's `r`). Default 16.
    pub rank: usize,
    /// Numerator of the scale alpha / rank (PEFT's `lora_alpha`). Default 32.
    pub alpha: f64,
    /// Hugging Face names of the linear layers to adapt, such as `q_proj`; empty for all of them, which learns better than attention alone.
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, target_modules: Vec::new() }
    }
}

/// What a layer is called within its block.
fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether the layer at our `path` is joined with others in one tensor. PEFT adapts such layers as one, with a shared A that ours, apart,
/// could not stand for.
fn is_joined(layout: Layout, path: &str) -> bool {
    layout.place(&format!("{path}.weight")).n_parts > 1
}

/// Whether the parameter at our `path` is of one of the layers `heads`.
fn is_in(heads: &[&str], path: &str) -> bool {
    heads.iter().any(|head| path.strip_prefix(head).is_some_and(|rest| rest.starts_with('.')))
}

/// Whether `target` names the layer at the Hugging Face path: the path, or its last part or parts.
fn is_target(path: &str, target: &str) -> bool {
    path == target || path.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
}

/// Freezes the model and attaches fresh adapters; they, and the layers of a head ([`Model::new_heads`]), are what trains.
///
/// # Errors
/// [`Error::Config`] if the rank is 0, a target names no layer, or one that PEFT's files cannot hold.
pub fn attach<M: Model>(model: M, config: &LoraConfig, device: &Device, key: Key) -> Result<M> {
    if config.rank == 0 {
        return Err(Error::config("adapter.rank", "found 0, expected at least 1"));
    }
    let layout = model.layout();
    let mut model = freeze_but_heads(model);
    let (mut names, mut joined) = (Vec::new(), BTreeSet::new());
    model.linears_mut(&mut |path, linear| {
        let name = layout.layer(path);
        let is_adapted = config.target_modules.is_empty() || config.target_modules.iter().any(|target| is_target(&name, target));
        if is_adapted && is_joined(layout, path) {
            joined.insert(last_part(&name).to_owned());
        } else if is_adapted {
            let [n_out, n_in] = linear.weight.val().dims();
            let bound = (n_in as f32).powf(-0.5);
            let key = path.bytes().fold(key, |key, byte| key.fold(u64::from(byte)));
            let a: Vec<f32> = (0..(config.rank * n_in) as u64).map(|index| (2.0 * key.uniform(index) - 1.0) * bound).collect();
            linear.adapter = Some(adapter(a, vec![0.0; n_out * config.rank], config.rank, n_in, n_out, config.alpha, device));
        }
        names.push((name, is_joined(layout, path)));
    });
    let layers = |names: &mut dyn Iterator<Item = &(String, bool)>| {
        names.map(|(name, _)| last_part(name)).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    if let Some(name) = joined.first() {
        let others = layers(&mut names.iter().filter(|(_, is_joined)| !is_joined));
        let message = format!("{name:?} joins several layers in one, which cannot be adapted; name others: {others}");
        return Err(Error::config("adapter.target_modules", message));
    }
    for target in &config.target_modules {
        if !names.iter().any(|(name, _)| is_target(name, target)) {
            let message = format!("{target:?} names no linear layer; there are {}", layers(&mut names.iter()));
            return Err(Error::config("adapter.target_modules", message));
        }
    }
    Ok(model)
}

/// Puts the adapters into the weights, all of which train again.
pub fn merge<M: Model>(mut model: M) -> M {
    struct Thaw;

    impl Change for Thaw {
        fn change<const D: usize>(&mut self, _: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(true)
        }
    }

    model.linears_mut(&mut |_, linear| {
        if linear.adapter.is_some() {
            linear.weight = Param::from_tensor(Tensor::from_inner(linear.merged_weight()));
            linear.adapter = None;
        }
    });
    change_parameters(model, &mut Thaw)
}

fn adapter(a: Vec<f32>, b: Vec<f32>, rank: usize, n_in: usize, n_out: usize, alpha: f64, device: &Device) -> Adapter {
    Adapter {
        a: Param::from_tensor(Tensor::from_data(TensorData::new(a, [rank, n_in]), device)),
        b: Param::from_tensor(Tensor::from_data(TensorData::new(b, [n_out, rank]), device)),
        scale: alpha / rank as f64,
    }
}

/// Freezes every parameter but those of a head.
fn freeze_but_heads<M: Model>(model: M) -> M {
    struct Freeze(&'static [&'static str]);

    impl Change for Freeze {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(is_in(self.0, path))
        }
    }

    let heads = model.new_heads();
    change_parameters(model, &mut Freeze(heads))
}

/// Writes `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them; `base` is the folder or name of the model adapted.
///
/// # Errors
/// If a file cannot be written.
pub fn save<M: Model>(model: &M, config: &LoraConfig, base: &str, folder: &Path) -> Result<()> {
    let (layout, heads) = (model.layout(), model.new_heads());
    let (mut adapted, mut transposed) = (Vec::new(), false);
    model.clone().linears_mut(&mut |path, linear| {
        if linear.adapter.is_some() {
            adapted.push(layout.layer(path));
            transposed |= layout.place(&format!("{path}.weight")).transposed;
        }
    });
    let named = parameters(model).into_iter().filter_map(|parameter| {
        let name = match parameter.path.split_once(".adapter.") {
            Some((path, part)) => format!("{}.lora_{}.weight", layout.layer(path), part.to_uppercase()),
            None if is_in(heads, &parameter.path) => layout.place(&parameter.path).tensor,
            None => return None,
        };
        Some((Place::plain(format!("base_model.model.{name}")), parameter))
    });
    checkpoint::write(&folder.join(WEIGHTS_FILE), named)?;
    let mut targets: Vec<&str> = adapted.iter().map(|path| last_part(path)).collect();
    targets.sort_unstable();
    targets.dedup();
    // BERT calls three different layers `dense`, GPT-2 two `c_proj`: only whole paths tell an adapted one from another.
    let targets: Vec<&str> =
        if ["dense", "c_proj"].iter().any(|name| targets.contains(name)) { adapted.iter().map(String::as_str).collect() } else { targets };
    let (class, family) = (model.class(), layout.family);
    // PEFT has no word for masked language modelling.
    let task_type = match class {
        class if class == family.token_classifier_class() => Some("TOKEN_CLS"),
        class if class == family.classifier_class() => Some("SEQ_CLS"),
        class if class == family.trunk_class() => Some("FEATURE_EXTRACTION"),
        _ => model.config().causal.then_some("CAUSAL_LM"),
    };
    let saved: Vec<String> = heads.iter().map(|head| layout.layer(head)).collect();
    let settings = json!({
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "use_rslora": false,
        "use_dora": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "target_modules": targets,
        "modules_to_save": (!saved.is_empty()).then_some(saved),
    });
    files::write_json(&folder.join(CONFIG_FILE), &settings)
}

/// Attaches the adapter that PEFT or Kiln wrote into `folder`, and takes over the head saved with it.
///
/// # Errors
/// If a file is missing or damaged, the adapter is not a plain LoRA, or it does not fit the model.
pub fn load<M: Model>(model: M, folder: &Path, device: &Device) -> Result<M> {
    let folder = &hub::folder(folder)?;
    let config_path = folder.join(CONFIG_FILE);
    let settings: Value = files::read_json(&config_path)?;
    let fail = |message: String| Error::checkpoint(&config_path, message);
    if settings["peft_type"] != "LORA" {
        return Err(fail(format!("key \"peft_type\": found {}, only \"LORA\" is supported", settings["peft_type"])));
    }
    for key in ["use_dora", "alpha_pattern", "rank_pattern"] {
        let value = &settings[key];
        if value == true || value.as_object().is_some_and(|pattern| !pattern.is_empty()) {
            return Err(fail(format!("key {key:?}: found {value}, which is not supported: only one rank and alpha for all layers")));
        }
    }
    let rank = settings["r"].as_u64().ok_or_else(|| fail("key \"r\": expected a whole number".into()))? as usize;
    let alpha = settings["lora_alpha"].as_f64().ok_or_else(|| fail("key \"lora_alpha\": expected a number".into()))?;
    // rsLoRA (arXiv:2312.03732) scales by alpha / sqrt(rank).
    let alpha = if settings["use_rslora"] == true { alpha * (rank as f64).sqrt() } else { alpha };
    let weights = Weights::open_file(&folder.join(WEIGHTS_FILE))?;
    let (layout, heads) = (model.layout(), model.new_heads());
    let mut model = freeze_but_heads(model);
    let mut used = BTreeSet::new();
    let mut attach = |path: &str, linear: &mut Linear| -> Result<()> {
        let name = |part: &str| format!("base_model.model.{}.lora_{part}.weight", layout.layer(path));
        if weights.contains(&name("A")) {
            if is_joined(layout, path) {
                let message = format!("tensor {:?} adapts several of our layers as one, which is not supported", name("A"));
                return Err(Error::checkpoint(weights.path(), message));
            }
            let [n_out, n_in] = linear.weight.val().dims();
            let a = weights.read(&name("A"), &[rank, n_in])?;
            let b = weights.read(&name("B"), &[n_out, rank])?;
            linear.adapter = Some(adapter(a, b, rank, n_in, n_out, alpha, device));
            used.extend([name("A"), name("B")]);
        }
        Ok(())
    };
    let mut outcome = Ok(());
    model.linears_mut(&mut |path, linear| {
        if outcome.is_ok() {
            outcome = attach(path, linear);
        }
    });
    outcome?;
    let in_head = |name: &str| heads.iter().any(|head| name.starts_with(&format!("base_model.model.{}.", layout.layer(head))));
    if let Some(name) = weights.names().find(|name| !used.contains(*name) && !in_head(name)) {
        let message = format!("tensor {name:?} fits nothing in this model: is the adapter for another base model?");
        return Err(Error::checkpoint(weights.path(), message));
    }
    load_heads(model, &weights, device)
}

fn load_heads<M: Model>(model: M, weights: &Weights, device: &Device) -> Result<M> {
    struct Load<'a> {
        layout: Layout,
        weights: &'a Weights,
        heads: &'static [&'static str],
        device: &'a Device,
        outcome: Result<()>,
    }

    impl Change for Load<'_> {
        fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.outcome.is_err() || !is_in(self.heads, path) {
                return param;
            }
            let name = format!("base_model.model.{}", self.layout.place(path).tensor);
            if !self.weights.contains(&name) {
                return param;
            }
            let shape = param.val().dims();
            match self.weights.read(&name, &shape) {
                Ok(values) => Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device)),
                Err(error) => {
                    self.outcome = Err(error);
                    param
                }
            }
        }
    }

    let mut load = Load { layout: model.layout(), weights, heads: model.new_heads(), device, outcome: Ok(()) };
    let model = change_parameters(model, &mut load);
    load.outcome.map(|()| model)
}
