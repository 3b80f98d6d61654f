//! Validation of every method but `sft`, whose is in `overfitting`: a run stops where it no longer learns, and keeps its best weights.

use crate::support::{Place, flex};
use crate::{embeddings, multitask, rewards};
use kiln_continual::train::train as learn;
use kiln_contrastive::config::Objective;
use kiln_data::examples::Overlong;
use kiln_data::world::Domain;
use kiln_rl::config::Algorithm;
use kiln_rl::train::train_with_rewards;
use kiln_train::run::read_metrics;
use kiln_train::schedule::Schedule;
use kiln_train::validation::{ValidationConfig, ValidationSummary};

/// The least gain is such that it ends within a few epochs.
fn rule(min_gain: f64) -> ValidationConfig {
    ValidationConfig { share: 0.25, patience: 2, min_gain, ..ValidationConfig::default() }
}

/// Checks what came of a run of epochs of `n_steps` steps against what it logged, by the rule that it went by; `sign` is 1 where less is
/// better, and -1 where more is. Returns the epochs up to the best validation.
fn check(
    place: &Place,
    out: &str,
    summary: &ValidationSummary,
    rule: &ValidationConfig,
    [n_steps, n_epochs]: [usize; 2],
    sign: f64,
) -> usize {
    let lines = read_metrics(&place.path(out).join("metrics.jsonl")).expect("metrics");
    let name = if sign > 0.0 { "validation_loss" } else { "validation_reward" };
    let found: Vec<(usize, f64)> = lines.iter().filter_map(|line| Some((line.step, line.values.get(name)?.as_f64()?))).collect();
    println!("{out}: {summary:?} {found:?}");
    assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=found.len()).map(|epoch| n_steps * epoch).collect::<Vec<_>>());
    let mut best = 0;
    for (index, (_, value)) in found.iter().enumerate() {
        assert!(index - best <= rule.patience, "{out}: it went on after {} without a gain", rule.patience);
        if sign * value < sign * found[best].1 - rule.min_gain {
            best = index;
        }
    }
    assert_eq!(found.len() - 1 - best, rule.patience, "{out}: it stops when patience ends");
    assert!(summary.stopped_early && found.len() < n_epochs, "{out}: before its last step");
    let is_same = |(step, value): (usize, f64), (other_step, other): (usize, f64)| step == other_step && (value - other).abs() < 1e-12;
    assert!(is_same((summary.best_step, summary.best), found[best]) && is_same((summary.last_step, summary.last), found[found.len() - 1]));
    assert!((summary.gap - sign * (summary.best - summary.train)).abs() < 1e-12);
    best + 1
}

#[test]
fn contrastive_runs_stop_and_keep_their_best_weights() {
    let place = Place::new();
    let texts = Domain::ALL.map(|domain| place.world.documents(domain, 60)).concat();
    embeddings::write(&place, "texts", &texts[..160]);
    embeddings::write(&place, "texts-held-out", &texts[160..]);
    embeddings::pairs(&place, 160, 40);
    for (objective, rows, min_gain) in
        [(Objective::Mlm, "texts", 0.5), (Objective::Mnrl, "pairs", 0.5), (Objective::CachedMnrl, "pairs", 0.5)]
    {
        let mut config = embeddings::config(&place, objective, rows, rows);
        (config.batch_rows, config.epochs, config.overlong) = (30, 20, Overlong::Truncate);
        (config.update.warmup_share, config.update.schedule, config.validation) = (0.0, Schedule::Constant, rule(min_gain));
        let [stopped, shorter] = ["stopped", "shorter"].map(|what| format!("{objective:?} {what}"));
        let summary = embeddings::run(&place, &config, &stopped);
        let validation = summary.validation.expect("it was validated");
        assert_eq!((validation.n_rows, summary.train_rows.n_rows, summary.effort.n_steps), (40, 160, validation.last_step));
        config.epochs = check(&place, &stopped, &validation, &config.validation, [4, 20], 1.0);
        embeddings::run(&place, &config, &shorter);
        assert!(place.weights(&stopped) == place.weights(&shorter), "{objective:?}: the best weights are those of the best step");
    }
}

/// Each domain has a schedule, and an end, of its own.
#[test]
fn continual_runs_stop_each_domain_and_keep_its_best_weights() {
    let place = Place::new();
    place.documents();
    let mut config = place.stream("decoder");
    config.general = None;
    (config.batch_rows, config.epochs) = (75, 20);
    (config.update.schedule, config.validation) = (Schedule::Constant, rule(1.0));
    let both = learn(&config, &flex(), &place.path("both")).expect("a run");
    config.domains.truncate(1);
    let first = learn(&config, &flex(), &place.path("first")).expect("a run");
    let [kitchen, ship] = &both.validation[..] else { panic!("{:?}", both.validation) };
    assert_eq!((kitchen.domain.as_str(), ship.domain.as_str(), kitchen.summary), ("kitchen", "ship", first.validation[0].summary));
    assert!(kitchen.summary.stopped_early && ship.summary.stopped_early && ship.summary.best_step > kitchen.summary.last_step);
    assert_eq!((both.effort.n_steps, kitchen.summary.n_rows), (ship.summary.last_step, 100));
    let read = |path: &str| std::fs::read(place.path(path)).expect("weights");
    assert!(read("both/stages/kitchen/model.safetensors") == read("first/model/model.safetensors"));
    config.epochs = check(&place, "first", &kitchen.summary, &config.validation, [4, 20], 1.0);
    learn(&config, &flex(), &place.path("shorter")).expect("a run");
    assert!(place.weights("first") == place.weights("shorter"), "the best weights are those of the best step");
}

#[test]
fn multitask_runs_stop_and_keep_their_best_weights() {
    let place = Place::new();
    multitask::rows(&place, 160, 40);
    let mut config = multitask::config(&place, "encoder", &multitask::TASKS, "");
    (config.batch_rows, config.epochs, config.cosine_steps) = (90, 12, 0);
    (config.update.schedule, config.validation) = (Schedule::Constant, rule(0.1));
    let summary = multitask::run(&place, &config, "stopped");
    let validation = summary.validation.expect("it was validated");
    assert_eq!((validation.n_rows, summary.n_steps), (3 * 40, validation.last_step));
    assert!(summary.tasks.values().all(|task| task.n_rows_trained == 30 * summary.n_steps));
    // The mean of what is left of each task's loss.
    let lines = read_metrics(&place.path("stopped/metrics.jsonl")).expect("metrics");
    let of_tasks = lines.iter().filter(|line| line.values.contains_key("scores.validation_loss")).count();
    assert_eq!(of_tasks, validation.last_step / 4);
    assert!(validation.best < 1.0, "a share of the losses before training is left: {validation:?}");
    config.epochs = check(&place, "stopped", &validation, &config.validation, [4, 12], 1.0);
    multitask::run(&place, &config, "shorter");
    assert!(place.weights("stopped") == place.weights("shorter"), "the best weights are those of the best step");
}

#[test]
fn rewarded_runs_stop_and_keep_their_best_weights() {
    let place = Place::new();
    place.questions(60, 20);
    let mut config = rewards::config(&place, Algorithm::Grpo);
    (config.batch_prompts, config.epochs) = (15, 8);
    // A gain of a reward that grows without end only gets smaller.
    (config.update.schedule, config.validation) = (Schedule::Constant, rule(1.0));
    let run = |config: &kiln_rl::config::RlConfig, out: &str| {
        train_with_rewards(config, rewards::share_of_e(), &flex(), &place.path(out)).unwrap_or_else(|error| panic!("{out}: {error}"))
    };
    let summary = run(&config, "stopped");
    let validation = summary.validation.expect("it was validated");
    assert_eq!((validation.n_rows, summary.n_steps), (15, validation.last_step));
    config.epochs = check(&place, "stopped", &validation, &config.validation, [3, 8], -1.0);
    run(&config, "shorter");
    assert!(place.weights("stopped") == place.weights("shorter"), "the best weights are those of the best step");
}
