//! Continual learning against PyTorch and PEFT: Fisher information, EWC, L2-SP, LwF, TIES and WiSE-FT; and laws of merged folders.

use crate::support::{
    COMPOSED, Golden, Row, SIMPLE, assert_close, assert_gradients, assert_same_tensors, by_tensor_name, devices, fixture, gradients,
    loss_sum, numbers, packed, rows, saved, supervised, values,
};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_continual::merge::{self, MergeConfig, Method};
use kiln_continual::objective::ewc::{self, Importance};
use kiln_continual::objective::{l2_sp, lwf, ties, wise_ft};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::parameters::parameters;
use kiln_train::schedule::Schedule;
use kiln_train::updater::{Pull, UpdateConfig, Updater, anchor};
use std::collections::BTreeMap;

fn golden(name: &str) -> Golden {
    Golden::open(&fixture("continual").join(name).with_extension("safetensors"))
}

fn load(part: &str, device: &Device) -> LanguageModel {
    LanguageModel::load(&fixture("continual").join(part), device).expect("the model loads").0
}

fn fisher(model: &LanguageModel, rows: &[Row]) -> ewc::ByPath {
    ewc::fisher(model, rows.iter().map(|row| loss_sum(model, std::slice::from_ref(row))))
}

#[test]
fn fisher_information() {
    let golden = golden("golden");
    for device in devices() {
        let model = load("before", &device.autodiff());
        let found = fisher(&model, &rows(&golden, "")).into_iter().map(|(path, tensor)| (path, values(tensor))).collect();
        assert_gradients("fisher", &by_tensor_name(&model, found), &golden.with_prefix("fisher."));
    }
}

#[test]
fn elastic_weight_consolidation() {
    let golden = golden("golden");
    for device in devices() {
        let model = load("before", &device.autodiff());
        let (anchor, mut importance) = (anchor(&model), Importance::default());
        // Half of it twice over is the whole.
        let half = |of: ewc::ByPath| of.into_iter().map(|(path, tensor)| (path, tensor * 0.5)).collect::<ewc::ByPath>();
        let new = fisher(&model, &rows(&golden, ""));
        importance.add(new.clone(), 1.0);
        importance.add(half(new), 0.5);
        let pull = importance.pull(&anchor, golden.get("ewc_strength").values[0]).expect("importances");
        check_run(&golden, "ewc", model, pull);
    }
}

#[test]
fn l2_towards_the_starting_point() {
    let golden = golden("golden");
    for device in devices() {
        let model = load("before", &device.autodiff());
        let anchor = anchor(&model);
        check_run(&golden, "l2_sp", model, l2_sp::pull(&anchor, golden.get("l2_sp_strength").values[0]));
    }
}

/// Several steps of AdamW on the loss and the penalty.
fn check_run(settings: &Golden, name: &str, mut model: LanguageModel, pull: Pull<'_>) {
    let expected = golden(name);
    let n_steps = expected.get("losses").values.len();
    let config = UpdateConfig {
        learning_rate: settings.get("learning_rate").values[0],
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        max_gradient_norm: settings.get("max_gradient_norm").values[0],
        ..UpdateConfig::default()
    };
    let mut updater = Updater::new(config.clone(), n_steps);
    let (mut losses, mut penalties, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..n_steps {
        // In two parts, which must not change what the penalty weighs.
        let (mut loss_sum_of_step, mut n_tokens_of_step) = (0.0, 0);
        for row in rows(settings, &format!("{step}.")) {
            let (loss, n_tokens) = loss_sum(&model, &[row]);
            updater.add(&model, loss.backward(), n_tokens as f64);
            loss_sum_of_step += values(loss)[0];
            n_tokens_of_step += n_tokens;
        }
        losses.push(loss_sum_of_step / n_tokens_of_step as f32);
        penalties.push(updater.pull(&model, &pull) as f32);
        let stats;
        (model, stats) = updater.step(model, f64::from(*losses.last().expect("a loss"))).expect("a finite update");
        norms.push(stats.gradient_norm as f32);
    }
    for (what, found) in [("losses", &losses), ("penalties", &penalties), ("gradient_norms", &norms)] {
        assert_close(&format!("{name} {what}"), found, &expected.get(what).values, COMPOSED);
    }
    let limit = config.max_gradient_norm as f32;
    assert!(norms.iter().any(|&norm| norm > limit) && norms.iter().any(|&norm| norm < limit), "some are clipped: {norms:?}");
    let trained = expected.with_prefix("trained.");
    let family = model.config().family;
    for parameter in parameters(&model) {
        let tensor = family.tensor_name(&parameter.path);
        assert_close(&format!("{name} {tensor}"), &numbers(parameter.data()), &trained[&tensor].values, COMPOSED);
    }
}

/// Loss and penalty on rows, and the gradients of both together.
fn distilled(golden: &Golden, before: &LanguageModel, model: &LanguageModel) -> [Tensor<1>; 2] {
    let rows = rows(golden, "1.");
    let (batch, supervised) = (packed(&rows), supervised(&rows, true));
    let teacher = before.clone().valid().output_head(&batch, &supervised.rows, None);
    let head = model.output_head(&batch, &supervised.rows, None);
    let setting = |name: &str| golden.get(name).values[0];
    let penalty = lwf::penalty(head.clone(), teacher, setting("lwf_strength"), setting("temperature"));
    [LanguageModel::head_loss(head, &supervised, 0.0), penalty]
}

#[test]
fn learning_without_forgetting() {
    let golden = golden("golden");
    for device in devices() {
        let device = device.autodiff();
        let (before, model) = (load("before", &device), load("model", &device));
        let [loss, penalty] = distilled(&golden, &before, &model);
        assert_close("loss", &values(loss.clone()), &golden.get("lwf.loss").values, COMPOSED);
        assert_close("penalty", &values(penalty.clone()), &golden.get("lwf.penalty").values, COMPOSED);
        let found = by_tensor_name(&model, gradients(&model, &(loss + penalty)));
        assert_gradients("lwf", &found, &golden.with_prefix("lwf.grad."));
    }
}

#[test]
fn a_model_is_not_held_from_itself() {
    let golden = golden("golden");
    for device in devices() {
        let model = load("model", &device.autodiff());
        let [_, penalty] = distilled(&golden, &model, &model);
        let gradients = gradients(&model, &penalty);
        assert_eq!(values(penalty), [0.0]);
        assert!(!gradients.is_empty());
        for (path, gradient) in gradients {
            assert!(gradient.iter().all(|&value| value == 0.0), "{path}: {gradient:?}");
        }
        let (anchor, mut updater) = (anchor(&model), Updater::new(UpdateConfig::default(), 1));
        let (loss, n_tokens) = loss_sum(&model, &rows(&golden, "1."));
        updater.add(&model, loss.backward(), n_tokens as f64);
        assert_eq!(updater.pull(&model, &l2_sp::pull(&anchor, 3.0)), 0.0);
    }
}

#[test]
fn ties_merging() {
    let golden = golden("ties");
    let floats = |name: &str| golden.get(name).values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let weights = &golden.get("weights").values;
    let tuned: Vec<Vec<f32>> = (0..weights.len()).map(|index| floats(&format!("tuned.{index}"))).collect();
    let merged = golden.with_prefix("ties.");
    assert_eq!(merged.len(), 3);
    for (density, expected) in merged {
        let found = ties::merge(&floats("base"), &tuned, weights, density.parse().expect("a density"));
        assert_close(&format!("density {density}"), &found, &expected.values, SIMPLE);
    }
}

#[test]
fn models_on_the_line_between_two() {
    for device in devices() {
        let device = device.autodiff();
        let (before, after) = (load("before", &device), load("model", &device));
        let numbers_of = |model: &LanguageModel| {
            parameters(model).iter().map(|parameter| (parameter.path.clone(), numbers(parameter.data()))).collect::<BTreeMap<_, _>>()
        };
        let base = anchor(&before);
        for alpha in [0.0, 0.3, 1.0] {
            let between = numbers_of(&wise_ft::between(&base, after.clone(), alpha));
            for (path, values) in &between {
                let expected = wise_ft::interpolate(&numbers_of(&before)[path], &numbers_of(&after)[path], alpha);
                let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
                assert_close(path, values, &expected, if alpha == 0.3 { 1e-6 } else { 0.0 });
            }
        }
    }
}

/// Folders merged by `method` in `folder/name`, and the file of its weights.
fn merged(folder: &std::path::Path, name: &str, config: MergeConfig) -> std::path::PathBuf {
    let config = MergeConfig { output: folder.join(name), ..config };
    merge::merge(&config, &Device::flex()).unwrap_or_else(|error| panic!("{name}: {error}"));
    config.output.join("model.safetensors")
}

#[test]
fn merged_folders() {
    let device = devices().remove(0);
    let [before, after] = ["before", "model"].map(|part| saved(&load(part, &device)));
    let file = |folder: &tempfile::TempDir| folder.path().join("model.safetensors");
    let base = MergeConfig { base: before.path().to_owned(), models: vec![after.path().to_owned()], ..MergeConfig::default() };
    let to = tempfile::tempdir().expect("a folder");
    let wise = |alpha| MergeConfig { method: Method::WiseFt, alpha, ..base.clone() };
    assert_same_tensors(&merged(to.path(), "0", wise(0.0)), &file(&before));
    assert_same_tensors(&merged(to.path(), "1", wise(1.0)), &file(&after));
    let ties = |density, models| MergeConfig { density, models, ..base.clone() };
    assert_same_tensors(&merged(to.path(), "none", ties(0.0, base.models.clone())), &file(&before));
    let twice = merged(to.path(), "twice", ties(0.3, vec![base.models[0].clone(); 2]));
    assert_same_tensors(&twice, &merged(to.path(), "once", ties(0.3, base.models.clone())));
    let (model, _) = LanguageModel::load(twice.parent().expect("a folder"), &device).expect("the merged model loads");
    assert!(model.config().tied_head && model.head.output.is_none());
}

/// A copy of tied weights in a file, as some tools write, neither reaches the merged model nor is missed.
#[test]
fn tied_weights_are_merged_once() {
    use kiln_core::checkpoint::{WEIGHTS_FILE, Weights, write};
    use kiln_core::family::Place;
    use kiln_core::parameters::Parameter;
    let device = devices().remove(0);
    let [before, after] = ["before", "model"].map(|part| saved(&load(part, &device)));
    let path = after.path().join(WEIGHTS_FILE);
    let weights = Weights::open_file(&path).expect("weights");
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = weights
        .names()
        .flat_map(|name| {
            let shape = weights.shape(name).expect("its shape").to_vec();
            let values = weights.read(name, &shape).expect("its values");
            let copy = (name == "model.embed_tokens.weight").then(|| ("lm_head.weight".to_owned(), shape.clone(), values.clone()));
            std::iter::once((name.to_owned(), shape, values)).chain(copy)
        })
        .collect();
    let stored =
        |(name, shape, values): (String, Vec<usize>, Vec<f32>)| (Place::plain(name.clone()), Parameter::stored(name, shape, values));
    write(&path, tensors.into_iter().map(stored)).expect("written");
    let to = tempfile::tempdir().expect("a folder");
    let config = MergeConfig { base: before.path().to_owned(), models: vec![after.path().to_owned()], ..MergeConfig::default() };
    let file = merged(to.path(), "merged", config);
    assert!(!Weights::open_file(&file).expect("weights").contains("lm_head.weight"));
}
