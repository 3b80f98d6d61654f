//! The update against `torch.optim.AdamW` with two parameter groups, schedules and clipping.

use crate::support::{COMPOSED, Golden, SIMPLE, assert_close, devices, fixture, loss_sum, numbers, rows, values};
use burn::tensor::Device;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::parameters::parameters;
use kiln_train::optimizer::{AdamwConfig, Optimizer};
use kiln_train::schedule::Schedule;
use kiln_train::updater::{UpdateConfig, Updater};

#[test]
fn linear_schedule() {
    check("linear", Schedule::Linear, 0.0);
}

#[test]
fn linear_schedule_after_a_warm_up() {
    check("linear_warmup", Schedule::Linear, 0.25);
}

#[test]
fn cosine_schedule_after_a_warm_up() {
    check("cosine_warmup", Schedule::Cosine { floor: 0.0 }, 0.25);
}

fn check(name: &str, schedule: Schedule, warmup_share: f64) {
    let golden = Golden::open(&fixture("updater").join("golden.safetensors"));
    let config = UpdateConfig {
        learning_rate: 1e-2,
        schedule,
        warmup_share,
        optimizer: Optimizer::Adamw(AdamwConfig { beta_2: 0.98, ..AdamwConfig::default() }),
        weight_decay: 0.1,
        max_gradient_norm: 4.0,
        ..UpdateConfig::default()
    };
    for device in devices() {
        check_run(&golden, name, &config, &device);
    }
}

fn check_run(golden: &Golden, name: &str, config: &UpdateConfig, device: &Device) {
    let n_steps = golden.get(&format!("{name}.losses")).values.len();
    let (mut model, _) = LanguageModel::load(&fixture("updater"), &device.clone().autodiff()).expect("the model loads");
    let mut updater = Updater::new(config.clone(), n_steps);
    let (mut losses, mut norms, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..n_steps {
        let (loss, n_tokens) = loss_sum(&model, &rows(golden, &format!("{step}.")));
        updater.add(&model, loss.backward(), n_tokens as f64);
        let stats;
        (model, stats) = updater.step(model, f64::from(values(loss.clone())[0])).expect("a finite update");
        losses.push(values(loss)[0] / n_tokens as f32);
        norms.push(stats.gradient_norm as f32);
        rates.push(stats.learning_rate as f32);
    }
    let expected = |column: &str| &golden.get(&format!("{name}.{column}")).values;
    assert_close("learning rates", &rates, expected("learning_rates"), 1e-9);
    assert_close("losses", &losses, expected("losses"), COMPOSED);
    assert_close("gradient norms", &norms, expected("gradient_norms"), COMPOSED);
    assert!(
        norms.iter().any(|&norm| norm > 4.0) && norms.iter().any(|&norm| norm < 4.0),
        "some steps are clipped, some are not: {norms:?}"
    );
    let trained = golden.with_prefix(&format!("{name}.trained."));
    let family = model.config().family;
    for parameter in parameters(&model).iter().filter(|_| !trained.is_empty()) {
        let tensor = family.tensor_name(&parameter.path);
        assert_close(&tensor, &numbers(parameter.data()), &trained[&tensor].values, COMPOSED);
    }
}

/// A fixture that could not tell the schedules apart would prove nothing.
#[test]
fn the_schedules_of_the_fixture_differ() {
    let golden = Golden::open(&fixture("updater").join("golden.safetensors"));
    let last = |name: &str| *golden.get(&format!("{name}.losses")).values.last().expect("a loss");
    assert!((last("linear") - last("linear_warmup")).abs() > 100.0 * SIMPLE);
    assert!((last("cosine_warmup") - last("linear_warmup")).abs() > 100.0 * SIMPLE);
}
