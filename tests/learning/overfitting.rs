//! What keeps a model from knowing its rows by heart: validation, early stopping, the best weights, mixout and R-Drop.

use crate::support::{Place, flex};
use kiln_core::checkpoint::Weights;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Limit, Overlong};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use kiln_data::sequences::{class_table, packed};
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::objective::classification;
use kiln_sft::objective::r_drop::Regularization;
use kiln_sft::train::resume;
use kiln_train::run::read_metrics;
use kiln_train::schedule::Schedule;
use kiln_train::validation::ValidationConfig;

/// Few rows with labels that mean nothing, so that what is learnt of them holds for no others.
fn overfitted(place: &Place) -> SftConfig {
    place.topics(60, 60);
    let mut config = place.config(Task::Classification, "encoder", "topics-control", "topics");
    (config.batch_rows, config.epochs, config.update.learning_rate) = (10, 12, 2e-3);
    config.update.schedule = Schedule::Constant;
    config.validation = ValidationConfig { share: 0.3, patience: 3, ..ValidationConfig::default() };
    config
}

/// The validation losses of a run, and after which steps they were measured.
fn validations(place: &Place, out: &str) -> Vec<(usize, f64)> {
    let lines = read_metrics(&place.path(out).join("metrics.jsonl")).expect("metrics");
    lines.iter().filter_map(|line| Some((line.step, line.values.get("validation_loss")?.as_f64()?))).collect()
}

#[test]
fn a_run_stops_where_it_no_longer_learns_and_keeps_its_best_weights() {
    let place = Place::new();
    let config = overfitted(&place);
    let summary = place.train(&config, "stopped");
    let validation = summary.validation.expect("it was validated");
    let losses = validations(&place, "stopped");
    println!("{validation:?} {losses:?}");
    assert!(validation.stopped_early && summary.effort.n_steps < 5 * 12, "{} steps", summary.effort.n_steps);
    assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=losses.len()).map(|epoch| 5 * epoch).collect::<Vec<_>>());
    let best = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).expect("a validation");
    // The file of metrics is read to the last digit but one.
    let is_same = |(step, loss): (usize, f64), (other_step, other): (usize, f64)| step == other_step && (loss - other).abs() < 1e-12;
    assert!(is_same((validation.best_step, validation.best), best));
    assert!(is_same((validation.best_step + 3 * 5, validation.last), *losses.last().expect("a validation")));
    assert!(validation.gap > 0.0, "what holds for these rows only is a gap: {validation:?}");

    // A run that ends at the best step is the same run up to there: so must be the weights.
    let epochs = validation.best_step / 5;
    let shorter = SftConfig { epochs, ..config };
    place.train(&shorter, "shorter");
    assert!(place.weights("stopped") == place.weights("shorter"), "the best weights are those of the best step");
    assert_eq!(losses[..epochs], validations(&place, "shorter")[..]);
}

#[test]
fn a_resumed_run_has_not_forgotten_its_best_weights() {
    let place = Place::new();
    let mut config = overfitted(&place);
    (config.checkpoint.every_steps, config.update.ema_decay, config.regularization.mixout) = (4, 0.9, 0.1);
    place.train(&config, "whole");
    // As if killed after its last checkpoint: what is written later goes.
    for name in ["results.json", "report.html"] {
        std::fs::remove_file(place.path("whole").join(name)).expect("a file");
    }
    let (weights, losses) = (place.weights("whole"), validations(&place, "whole"));
    std::fs::remove_dir_all(place.path("whole/model")).expect("a folder");
    resume(&place.path("whole"), &flex(), None).expect("a run");
    assert!(weights == place.weights("whole") && losses == validations(&place, "whole"));
}

/// Where mixing brings all of the pretrained weights back, matrices inside blocks never move.
#[test]
fn mixout_of_everything_keeps_the_pretrained_matrices() {
    let place = Place::new();
    place.topics(400, 60);
    let mut config = place.config(Task::Classification, "encoder", "topics", "topics");
    (config.update.learning_rate, config.update.weight_decay, config.batch_rows, config.epochs) = (2e-3, 0.0, 16, 3);
    let plain = place.train(&config, "plain");
    config.regularization.mixout = 0.5;
    let half = place.train(&config, "half");
    config.regularization.mixout = 1.0;
    place.train(&config, "all");
    assert!(place.weights("plain") != place.weights("half"));
    assert!(half.after.loss < half.before.loss && plain.after.loss < plain.before.loss, "half of it still trains");
    let weights = |name: &str| Weights::open(&place.path(name)).expect("weights");
    let (before, after) = (weights("encoder"), weights("all/model"));
    let (mut n_kept, mut n_moved) = (0, 0);
    for name in after.names() {
        let shape = after.shape(name).expect("a shape");
        let twin =
            before.names().find(|other| *other == name || other.ends_with(&format!(".{name}")) || name.ends_with(&format!(".{other}")));
        let Some(twin) = twin else { continue };
        let same = before.read(twin, shape).expect("values") == after.read(name, shape).expect("values");
        let is_mixed = shape.len() == 2 && name.contains("layer.");
        assert_eq!(same, is_mixed, "{name}");
        if same { n_kept += 1 } else { n_moved += 1 }
    }
    assert!(n_kept == 12 && n_moved > 10, "{n_kept} kept, {n_moved} moved");
}

/// Passes with other dropout agree better after training that asks for it.
#[test]
fn r_drop_makes_passes_agree() {
    let place = Place::new();
    place.topics(400, 60);
    let mut config = place.config(Task::Classification, "encoder", "topics", "topics");
    (config.update.learning_rate, config.batch_rows, config.epochs) = (2e-3, 16, 3);
    let table = Table::read(&place.path("topics-held-out.jsonl"), &[]).expect("rows");
    let disagreement = |name: &str| {
        let folder = place.path(name).join("model");
        let (model, _) = SequenceClassifier::load(&folder, &flex()).expect("a classifier");
        let tokenizer = Tokenizer::from_folder(&folder).expect("a tokenizer");
        let labels = Labels::in_order(model.config().label_names());
        let limit = Limit::new(model.config().max_positions, Overlong::Refuse, &tokenizer).expect("a limit");
        let (rows, _) = class_table(&table, &ColumnsConfig::default(), &labels, &tokenizer, limit).expect("rows");
        let passes = rows.iter().collect::<Vec<_>>().repeat(2);
        let classes = passes.iter().map(|row| row.label).collect();
        let loss = |r_drop| {
            let regularization = Regularization { r_drop, ..Regularization::default() };
            classification::loss(&model, &packed(&passes), &classes, regularization, Some(Key::new(1))).into_scalar::<f32>()
        };
        loss(1.0) - loss(1e-9)
    };
    let plain = place.train(&config, "plain");
    config.regularization.r_drop = 4.0;
    let agreed = place.train(&config, "agreed");
    assert!(agreed.after.loss < agreed.before.loss && plain.after.loss < plain.before.loss);
    let [of_plain, of_agreed] = ["plain", "agreed"].map(disagreement);
    println!("two passes disagree by {of_plain:.4} nats, with R-Drop by {of_agreed:.4}");
    assert!(0.0 < of_agreed && of_agreed < 0.8 * of_plain, "{of_plain} {of_agreed}");
}
