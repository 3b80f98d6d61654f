//! Putting adapters into the weights they change, and the proof that this changes nothing else.

use super::settings::Settings;
use super::{TABLE, WEIGHTS_FILE, load};
use crate::checkpoint::Weights;
use crate::classifier::SequenceClassifier;
use crate::config::ModelConfig;
use crate::embedding::Embedding;
use crate::language_model::LanguageModel;
use crate::model::{self, Model};
use crate::packed::Packed;
use crate::parameters::{Change, change_parameters, counts};
use crate::sentence_encoder::SentenceEncoder;
use crate::token_classifier::TokenClassifier;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, hub};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::linear::linear;
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most by which outputs may move in a merge, relative to those above 1.
const TOLERANCE: f32 = 1e-4;

/// The largest difference of outputs before and after, relative to those above 1.
fn moved(before: Tensor<2>, after: Tensor<2>) -> f32 {
    let [before, after] = [before, after].map(|tensor| tensor.into_data().try_to_vec::<f32>().expect("outputs are f32"));
    // Not `f32::max`, which passes over what is not a number.
    before.iter().zip(&after).map(|(x, y)| (x - y).abs() / x.abs().max(1.0)).fold(0.0, |most, d| if d <= most { most } else { d })
}

fn check(moved: f32, what: &str) -> Result<()> {
    if moved <= TOLERANCE {
        return Ok(());
    }
    let message = format!(
        "the adapter cannot be merged: the outputs of {what} would move by {moved:.1e}, at most {TOLERANCE:.0e} is allowed; use it as an adapter"
    );
    Err(Error::Unmet { message })
}

/// Puts the adapters into the weights, all of which train again.
///
/// # Errors
/// [`Error::Unmet`] if the model's outputs on a few random tokens move by more than 1e-4: the adapter is too large for the precision of the
/// weights.
pub fn merge<M: Model>(mut model: M) -> Result<M> {
    struct Thaw;

    impl Change for Thaw {
        fn change<const D: usize>(&mut self, _: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.set_require_grad(true)
        }
    }

    let config = model.config();
    let length = config.max_positions.min(8) as u64;
    let ids: Vec<u32> = (0..4 * length).map(|index| Key::new(0).below(index, config.vocab_size as u64) as u32).collect();
    let probe = Packed::new(ids.chunks(length as usize));
    let before = model.clone().valid().outputs(&probe);
    model.linears_mut(&mut |_, linear| {
        if linear.adapter.is_some() {
            let merged = linear.merged_weight();
            let merged = if linear.weight.val().is_autodiff() { Tensor::from_inner(merged) } else { merged };
            linear.weight = Param::from_tensor(merged);
            linear.adapter = None;
        }
    });
    let table = &mut model.trunk_mut().embeddings.token;
    if table.adapter.is_some() {
        let merged = table.merged_weight();
        let merged = if table.weight.val().is_autodiff() { Tensor::from_inner(merged) } else { merged };
        *table = Embedding { weight: Param::from_tensor(merged), adapter: None };
    }
    check(moved(before, model.clone().valid().outputs(&probe)), "the model")?;
    Ok(change_parameters(model, &mut Thaw))
}

/// The same proof layer by layer, for a model that is merged while it is written: its adapted layers are merged one at a time.
///
/// # Errors
/// [`Error::Unmet`] naming the first layer whose outputs on random inputs move by more than 1e-4.
pub fn check_merge<M: Model>(model: &M) -> Result<()> {
    const N_ROWS: usize = 8;
    let layout = model.layout();
    let mut model = model.clone();
    let mut outcome = Ok(());
    if model.trunk_mut().embeddings.token.adapter.is_some() {
        let table = model.trunk_mut().embeddings.token.clone().valid();
        let n_ids = table.weight.val().dims()[0] as u64;
        let ids: Arc<[u32]> = (0..N_ROWS as u64).map(|index| Key::new(0).below(index, n_ids) as u32).collect();
        outcome = check(moved(table.forward(&ids), take_rows(table.merged_weight(), &ids)), &layout.layer(TABLE));
    }
    model.linears_mut(&mut |path, layer| {
        if outcome.is_ok() && layer.adapter.is_some() {
            let layer = layer.clone().valid();
            let weight = layer.weight.val();
            let [_, n_in] = weight.dims();
            let x = TensorData::new(Key::new(0).normals(N_ROWS * n_in, 1.0), [N_ROWS, n_in]);
            let x = Tensor::from_data(x, &weight.device());
            let merged = linear(x.clone(), layer.merged_weight(), layer.bias.as_ref().map(Param::val));
            outcome = check(moved(layer.forward(x), merged), &layout.layer(path));
        }
    });
    outcome
}

/// Reads the model in `base`, adds up the adapters on it and writes the folder of the merged model; how many numbers it holds.
///
/// # Errors
/// If a file is missing, damaged or does not fit, the adapters cannot be added up, or a merge would move the outputs.
pub fn merge_folder(base: &Path, adapters: &[PathBuf], output: &Path, device: &Device) -> Result<usize> {
    let (mut task, mut n_rows, mut full) = (None, 0, None);
    let adapters = &adapters.iter().map(|folder| hub::folder(folder)).collect::<Result<Vec<_>>>()?;
    for folder in adapters {
        let settings = Settings::read(folder)?;
        let weights = Weights::open_file(&folder.join(WEIGHTS_FILE))?;
        if let Some(name) = weights.names().find(|name| !name.contains(".lora_"))
            && let Some(other) = full.replace(folder)
        {
            let message = format!("tensor {name:?} is a whole layer, and {} holds such too: merge one of the two", other.display());
            return Err(Error::checkpoint(weights.path(), message));
        }
        let head = weights
            .names()
            .find(|name| name.ends_with("classifier.weight") || name.ends_with("score.weight") || name.ends_with("out_proj.weight"));
        if let Some(shape) = head.and_then(|name| weights.shape(name)) {
            n_rows = shape[0];
        }
        task = task.or(settings.task_type());
    }
    let shape = ModelConfig::from_folder(base)?;
    let tokenizer = Tokenizer::for_model(base, &shape)?;
    let key = Key::new(0);
    // What the base says of its classes, or transformers' names of as many as the adapter has.
    let labels = || match shape.label_names() {
        names if names.len() == n_rows || n_rows == 0 => names,
        _ => (0..n_rows).map(|class| format!("LABEL_{class}")).collect(),
    };
    match task.as_deref() {
        Some("SEQ_CLS") if n_rows == 1 || shape.is_regression() => {
            let model = merged(SequenceClassifier::from_pretrained(base, &[], &[], device, key)?.0, adapters, device)?;
            model::save(&model, &tokenizer, output).map(|()| counts(&model)[1])
        }
        Some("SEQ_CLS") => {
            let model = merged(SequenceClassifier::from_pretrained(base, &labels(), &[], device, key)?.0, adapters, device)?;
            model::save(&model, &tokenizer, output).map(|()| counts(&model)[1])
        }
        Some("TOKEN_CLS") => {
            let model = merged(TokenClassifier::from_pretrained(base, &labels(), &[], device, key)?.0, adapters, device)?;
            model::save(&model, &tokenizer, output).map(|()| counts(&model)[1])
        }
        Some("FEATURE_EXTRACTION") => {
            let model = merged(SentenceEncoder::load(base, device)?.0, adapters, device)?;
            model.save(&tokenizer, base, output).map(|()| counts(&model)[1])
        }
        _ => {
            let model = merged(LanguageModel::from_pretrained(base, device, key)?.0, adapters, device)?;
            model::save(&model, &tokenizer, output).map(|()| counts(&model)[1])
        }
    }
}

/// The adapters one after the other, each on what the one before it left, magnitudes compared with the lengths of the base's rows: as PEFT
/// computes several at work at once.
fn merged<M: Model>(base: M, adapters: &[PathBuf], device: &Device) -> Result<M> {
    let mut weights = BTreeMap::new();
    base.clone().linears_mut(&mut |path, linear| {
        weights.insert(path.to_owned(), linear.weight.val());
    });
    adapters.iter().try_fold(base, |model, folder| {
        let mut adapted = load(model, folder, device)?;
        adapted.linears_mut(&mut |path, linear| {
            if let Some(weight) = weights.get(path) {
                linear.fix_lengths(weight.clone());
            }
        });
        merge(adapted)
    })
}
