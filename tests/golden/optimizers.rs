//! Ten updates by each optimizer, by parameter groups and with an average, on gradients that both sides make from a formula.

use crate::support::{Golden, SIMPLE, assert_close, devices, fixture, gradients, loss_sum, numbers, rows, uniform};
use burn::tensor::{Device, Tensor};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::parameters::parameters;
use kiln_train::groups::GroupConfig;
use kiln_train::optimizer::{AdafactorConfig, LionConfig, MuonConfig, Optimizer, SgdConfig};
use kiln_train::schedule::Schedule;
use kiln_train::updater::{UpdateConfig, Updater};
use std::collections::BTreeMap;

const N_STEPS: usize = 10;

fn config(optimizer: Optimizer) -> UpdateConfig {
    UpdateConfig {
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        weight_decay: 0.1,
        max_gradient_norm: 0.0,
        optimizer,
        ..UpdateConfig::default()
    }
}

fn check(run: &str, config: &UpdateConfig) {
    let golden = Golden::open(&fixture("optimizers").join("golden.safetensors"));
    let expected = golden.with_prefix(&format!("{run}."));
    assert!(!expected.is_empty());
    for device in devices() {
        let trained = trained(config, &device);
        for (tensor, expected) in &expected {
            assert_close(&format!("{run}: {tensor}"), &trained[tensor], &expected.values, SIMPLE);
        }
    }
}

/// The tensors of the fixture's model after ten updates.
fn trained(config: &UpdateConfig, device: &Device) -> BTreeMap<String, Vec<f32>> {
    config.validate("update", false).expect("settings in range");
    let (model, _) = LanguageModel::load(&fixture("updater"), &device.clone().autodiff()).expect("the model loads");
    let mut updater = Updater::new(config.clone(), N_STEPS);
    let mut model = updater.prepare(model, "update").expect("groups that fit");
    let family = model.config().family;
    for step in 0..N_STEPS {
        let gradient = |path: &str, n| {
            let values = uniform(&format!("{}.{step}", family.tensor_name(path)), n, 0.5f64.powi(step as i32 % 3));
            Tensor::from_floats(values.as_slice(), device)
        };
        let gradients = parameters(&model)
            .iter()
            .filter(|parameter| parameter.trainable)
            .map(|parameter| (parameter.path.clone(), gradient(&parameter.path, parameter.len())))
            .collect();
        updater.add_by_path(gradients, 1.0);
        (model, _) = updater.step(model, 1.0).expect("a finite update");
    }
    let named = |parameter: &kiln_core::parameters::Parameter| (family.tensor_name(&parameter.path), numbers(parameter.data()));
    parameters(&updater.averaged(&model)).iter().map(named).collect()
}

#[test]
fn adafactor() {
    check("adafactor", &config(Optimizer::Adafactor(AdafactorConfig::default())));
    let scaled = AdafactorConfig { scale_parameter: true, clip_threshold: 0.5, ..AdafactorConfig::default() };
    check("adafactor_scaled", &config(Optimizer::Adafactor(scaled)));
}

#[test]
fn lion() {
    check("lion", &config(Optimizer::Lion(LionConfig::default())));
}

#[test]
fn muon() {
    check("muon", &config(Optimizer::Muon(MuonConfig::default())));
}

#[test]
fn sgd() {
    for (run, momentum, nesterov) in [("sgd", 0.0, false), ("sgd_momentum", 0.9, false), ("sgd_nesterov", 0.9, true)] {
        check(run, &config(Optimizer::Sgd(SgdConfig { momentum, nesterov })));
    }
}

#[test]
fn a_moving_average() {
    check("adamw_averaged", &UpdateConfig { ema_decay: 0.8, ..config(Optimizer::default()) });
}

/// What is frozen gets no gradient, not even one that is thrown away, and the others get the same as without.
#[test]
fn frozen_parameters_get_no_gradient() {
    let golden = Golden::open(&fixture("updater").join("golden.safetensors"));
    let rows = rows(&golden, "0.");
    for device in devices() {
        let found = |patterns: &[&str], checkpointing| {
            let groups = patterns.iter().map(|&pattern| GroupConfig { frozen: true, ..group(pattern) }).collect();
            let mut updater = Updater::new(UpdateConfig { groups, ..UpdateConfig::default() }, 1);
            let (model, _) = LanguageModel::load(&fixture("updater"), &device.clone().autodiff()).expect("the model loads");
            let mut model = updater.prepare(model, "update").expect("groups that fit");
            model.trunk_mut().set_gradient_checkpointing(checkpointing).expect("a checkpointed model");
            let found = gradients(&model, &loss_sum(&model, &rows).0);
            let thawed = parameters(&updater.finished(model));
            assert!(thawed.iter().all(|parameter| parameter.trainable));
            found
        };
        let all = found(&[], false);
        for checkpointing in [false, true] {
            let some = found(&["embeddings", r"layers\.0\.", "query"], checkpointing);
            let is_frozen = |path: &str| path.contains("embeddings") || path.contains("layers.0.") || path.contains("query");
            let expected: BTreeMap<_, _> = all.clone().into_iter().filter(|(path, _)| !is_frozen(path)).collect();
            assert!(!expected.is_empty() && expected.len() < all.len());
            assert_eq!(some, expected);
        }
    }
}

#[test]
fn a_pattern_that_finds_nothing_is_named() {
    let (model, _) = LanguageModel::load(&fixture("updater"), &devices()[0].clone().autodiff()).expect("the model loads");
    let groups = vec![group("layers"), group("layer\\.0"), group("embeddings")];
    let error = Updater::new(UpdateConfig { groups, ..UpdateConfig::default() }, 1).prepare(model, "update").expect_err("no such layer");
    let error = error.to_string();
    let start = r#"update.groups[1].pattern: "layer\\.0" finds none of the parameters that train, such as trunk.embeddings.token.weight, "#;
    assert!(error.starts_with(start), "{error}");
}

fn group(pattern: &str) -> GroupConfig {
    GroupConfig { pattern: pattern.into(), ..GroupConfig::default() }
}

#[test]
fn groups() {
    let groups = vec![
        GroupConfig { frozen: true, ..group("embeddings") },
        GroupConfig { learning_rate_factor: Some(10.0), ..group(r"\.layers\.1\.") },
        GroupConfig { learning_rate: Some(3e-3), weight_decay: Some(0.5), ..group("feed_forward") },
    ];
    check("adamw_grouped", &UpdateConfig { groups, ..config(Optimizer::default()) });
}
