//! Several tasks on one trunk: each beats its control, one alone is plain fine-tuning, and a saved model says what the trained one said.

use crate::support::{Place, flex};
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Limit, Overlong};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::world::{Domain, World};
use kiln_eval::entities::{Reading, Sentence, micro_f1};
use kiln_kernels::random::Key;
use kiln_multitask::checkpoint::{ExportConfig, export};
use kiln_multitask::config::{Kind, MultitaskConfig, TaskConfig, Weighting};
use kiln_multitask::data;
use kiln_multitask::evaluate::evaluate;
use kiln_multitask::model::MultitaskModel;
use kiln_multitask::train::{Summary, train};
use kiln_sft::config::Task;
use kiln_sft::train::train as train_one;
use kiln_train::run::read_metrics;
use serde_json::Value;
use std::path::Path;

/// Tasks that are called as their rows.
pub const TASKS: [(&str, Kind); 3] =
    [("topics", Kind::Classification), ("scores", Kind::Regression), ("entities", Kind::TokenClassification)];

/// Settings for tasks that are called as their rows; `part` of these trains.
pub fn config(place: &Place, model: &str, tasks: &[(&str, Kind)], part: &str) -> MultitaskConfig {
    let mut config = MultitaskConfig { model: place.path(model), seed: 5, ..MultitaskConfig::default() };
    for (rows, kind) in tasks {
        let mut task = TaskConfig { kind: *kind, ..TaskConfig::default() };
        task.data.train = place.path(&format!("{rows}{part}.jsonl")).into();
        task.data.held_out = Some(place.path(&format!("{rows}-held-out.jsonl")));
        config.tasks.insert((*rows).to_owned(), task);
    }
    config.update.learning_rate = 1e-3;
    config
}

/// The rows of all three tasks.
pub fn rows(place: &Place, n: usize, n_held_out: usize) {
    place.topics(n, n_held_out);
    place.scores(n, n_held_out);
    place.entities(n, n_held_out);
}

/// Trains into the folder `out`, and prints what came of it.
pub fn run(place: &Place, config: &MultitaskConfig, out: &str) -> Summary {
    let summary = train(config, &flex(), &place.path(out)).unwrap_or_else(|error| panic!("{out}: {error}"));
    for (name, task) in &summary.tasks {
        let (before, after) = (&task.before.figure, &task.after.figure);
        println!("{out}: {name}: {} {:.4} -> {:.4} {:?}", after.metric, before.value, after.value, after.interval);
    }
    println!("{out}: {} steps in {:.1} s, {:.0} tokens/s", summary.n_steps, summary.train_seconds, summary.tokens_per_second);
    summary
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// To the byte: the same order, the same new head, the same dropout.
#[test]
fn one_task_alone_is_plain_fine_tuning() {
    let place = Place::new();
    rows(&place, 200, 40);
    place.questions(200, 40);
    for (model, task, kind, rows) in [
        ("encoder", Task::Classification, Kind::Classification, "topics"),
        ("encoder", Task::Regression, Kind::Regression, "scores"),
        ("encoder", Task::TokenClassification, Kind::TokenClassification, "entities"),
        ("decoder", Task::Classification, Kind::Classification, "topics"),
        ("decoder", Task::TokenClassification, Kind::TokenClassification, "entities"),
        ("decoder", Task::NextToken, Kind::NextToken, "questions"),
    ] {
        let mut plain = place.config(task, model, rows, rows);
        plain.update.learning_rate = 1e-3;
        plain.epochs = 2;
        let what = format!("{model} {rows}");
        train_one(&plain, &flex(), &place.path(&format!("{what} plain"))).unwrap_or_else(|error| panic!("{what}: {error}"));
        let multitask = MultitaskConfig { epochs: 2, ..config(&place, model, &[(rows, kind)], "") };
        let summary = run(&place, &multitask, &what);
        assert!(summary.conflicts.is_empty() && summary.n_steps == 14, "{what}");
        let exported = place.path(&format!("{what} exported"));
        let of_task = ExportConfig { model: place.path(&what).join("model"), task: rows.to_owned(), output: exported.clone() };
        export(&of_task, &flex()).unwrap_or_else(|error| panic!("{what}: {error}"));
        for file in ["model.safetensors", "config.json"] {
            let plain = place.path(&format!("{what} plain/model")).join(file);
            assert!(read(&exported.join(file)) == read(&plain), "{what}: {file}");
        }
        assert_eq!(place.losses(&what), place.losses(&format!("{what} plain")), "{what}");
    }
}

#[test]
fn every_task_beats_its_control() {
    let place = Place::new();
    rows(&place, 1000, 200);
    let with = |part: &str, out: &str| {
        let mut config = MultitaskConfig { epochs: 8, ..config(&place, "encoder", &TASKS, part) };
        config.update.learning_rate = 2e-3;
        config.update.warmup_share = 0.1;
        run(&place, &config, out)
    };
    let (control, summary) = (with("-control", "control"), with("", "multitask"));
    for (name, task) in &summary.tasks {
        let (after, control) = (&task.after.figure, &control.tasks[name].after.figure);
        assert!(after.interval.low > control.interval.high, "{name}: {after:?} {control:?}");
        assert_eq!(task.n_rows_trained, 8000, "{name}: in proportion");
    }
    assert_eq!(summary.conflicts.len(), 3);
    for conflict in &summary.conflicts {
        assert_eq!(conflict.n_steps, summary.n_steps.div_ceil(20), "{conflict:?}");
        assert!(conflict.cosine.value.abs() <= 1.0 && conflict.cosine.interval.contains(conflict.cosine.value), "{conflict:?}");
    }
    assert_answers(&place, &place.path("multitask/model"), &summary);
}

/// All heads of the saved model answer at once, and are right as often as the trained model was.
fn assert_answers(place: &Place, folder: &Path, summary: &Summary) {
    let model = MultitaskModel::load(folder, &flex()).expect("the model loads");
    let tokenizer = Tokenizer::from_folder(folder).expect("a tokenizer");
    let limit = Limit::new(model.config().max_positions, Overlong::Refuse, &tokenizer).expect("a limit");
    let columns = ColumnsConfig::default();
    let table = Table::read(&place.path("topics-held-out.jsonl"), &[]).expect("rows");
    let (answers, counts) = model.predict(&table, &columns, &tokenizer, limit).expect("answers");
    assert_eq!((answers.len(), counts.n_rows), (table.rows.len(), table.rows.len()));
    let right = |(row, answer): (&kiln_data::rows::Row, &Value)| table.label(row, "label").expect("a label") == answer["topics"]["label"];
    let n_right = table.rows.iter().zip(&answers).filter(|&pair| right(pair)).count();
    assert!((n_right as f64 / table.rows.len() as f64 - summary.tasks["topics"].after.figure.value).abs() < 1e-12);
    for (row, answer) in table.rows.iter().zip(&answers) {
        assert_eq!(answer["line"], row.line);
        assert!(answer["topics"]["probability"].as_f64().is_some_and(|p| p > 1.0 / 6.0 && p <= 1.0), "{answer}");
        assert!(answer["scores"]["number"].is_f64(), "{answer}");
        let n_words = table.text(row, "text").expect("a text").split_whitespace().count();
        assert_eq!(answer["entities"]["tags"].as_array().map(Vec::len), Some(n_words), "{answer}");
    }
    // Words as they were trained on.
    let table = Table::read(&place.path("entities-held-out.jsonl"), &[]).expect("rows");
    let (answers, _) = model.predict(&table, &columns, &tokenizer, limit).expect("answers");
    let judged = table.rows.iter().zip(&answers).map(|(row, answer)| {
        assert!(answer["topics"].is_null(), "lists of words are no texts: {answer}");
        let found: Vec<&str> = answer["entities"]["tags"].as_array().expect("tags").iter().filter_map(Value::as_str).collect();
        Sentence::new(&found, &table.texts(row, "tags").expect("tags"), Reading::Strict).expect("tags of IOB2")
    });
    assert_eq!(micro_f1(&judged.collect::<Vec<_>>()), summary.tasks["entities"].after.figure.value);
}

/// Hidden tokens beside classes; the control's texts have their words in random order.
#[test]
fn hidden_tokens_are_predicted_beside_other_tasks() {
    let place = Place::new();
    place.topics(1000, 100);
    let documents = |world: &World, n: usize| Domain::ALL.map(|domain| world.documents(domain, n)).concat();
    let texts = documents(&place.world, 150);
    let mut shuffled = texts.clone();
    for (index, row) in shuffled.iter_mut().enumerate() {
        let words: Vec<&str> = row.text.split(' ').collect();
        let order = Key::new(11).fold(index as u64).permutation(words.len());
        row.text = order.into_iter().map(|index| words[index]).collect::<Vec<_>>().join(" ");
    }
    let held_out = documents(&place.world.held_out(), 30);
    for (part, rows) in [("", texts), ("-control", shuffled), ("-held-out", held_out)] {
        write_jsonl(&place.path(&format!("texts{part}.jsonl")), &rows).expect("rows");
    }
    let tasks = [("texts", Kind::MaskedToken), ("topics", Kind::Classification)];
    let with = |part: &str, out: &str| {
        let mut config = MultitaskConfig { epochs: 6, ..config(&place, "encoder", &tasks, part) };
        config.update.learning_rate = 2e-3;
        config.update.warmup_share = 0.1;
        run(&place, &config, out)
    };
    let (control, summary) = (with("-control", "control"), with("", "texts"));
    let [dealt, hidden] = [&control, &summary].map(|summary| &summary.tasks["texts"].after.figure);
    assert!(hidden.interval.high < dealt.interval.low, "{hidden:?} {dealt:?}");
    // So few steps only begin to teach the topics.
    let [dealt, topics] = [&control, &summary].map(|summary| summary.tasks["topics"].after.loss);
    assert!(topics < dealt, "topics: {topics} {dealt}");
    // The same tokens are hidden at every evaluation.
    let folder = place.path("texts/model");
    let model = MultitaskModel::load(&folder, &flex()).expect("the model loads");
    let tokenizer = Tokenizer::from_folder(&folder).expect("a tokenizer");
    let texts = data::read(&config(&place, "encoder", &tasks[..1], ""), model.config(), &tokenizer).expect("rows");
    assert_eq!(evaluate(&model, 0, &texts[0].held_out, 5).figure.value, summary.tasks["texts"].after.figure.value);
    // A head for single texts and none for hidden tokens answers.
    let limit = Limit::new(model.config().max_positions, Overlong::Refuse, &tokenizer).expect("a limit");
    let table = Table::read(&place.path("topics-held-out.jsonl"), &[]).expect("rows");
    let (answers, _) = model.predict(&table, &ColumnsConfig::default(), &tokenizer, limit).expect("answers");
    assert!(answers.iter().all(|answer| answer["topics"].is_object() && answer["texts"].is_null()), "{}", answers[0]);
}

#[test]
fn weights_are_learnt_and_projection_trains() {
    let place = Place::new();
    rows(&place, 400, 100);
    for (out, weighting, pcgrad) in
        [("famo", Weighting::Famo, false), ("uncertainty", Weighting::Uncertainty, false), ("pcgrad", Weighting::Fixed, true)]
    {
        let config = MultitaskConfig { epochs: 3, weighting, pcgrad, ..config(&place, "encoder", &TASKS, "") };
        let summary = run(&place, &config, out);
        for (name, task) in &summary.tasks {
            // After so few steps some tasks have hardly begun.
            assert!(task.after.loss < 1.05 * task.before.loss, "{out}: {name}: {} -> {}", task.before.loss, task.after.loss);
            assert_eq!(task.weight.is_some(), weighting != Weighting::Fixed, "{out}: {name}");
        }
        let falls = summary.tasks.values().map(|task| (task.before.loss / task.after.loss).ln());
        assert!(falls.sum::<f64>() > 0.5, "{out}: the losses fall");
        let weights: Vec<f64> = summary.tasks.values().filter_map(|task| task.weight).collect();
        assert!(weights.windows(2).all(|pair| pair[0] != pair[1]), "{out}: {weights:?}");
        let n_measured = if pcgrad { summary.n_steps } else { summary.n_steps.div_ceil(20) };
        assert!(summary.conflicts.iter().all(|conflict| conflict.n_steps == n_measured), "{out}: {:?}", summary.conflicts);
        let lines = read_metrics(&place.path(out).join("metrics.jsonl")).expect("metrics");
        assert_eq!(lines[1].values.contains_key("topics.weight"), weighting != Weighting::Fixed);
        assert!(lines[1].values.contains_key("topics.loss") && lines[0].values.contains_key("entities.scores.cosine"));
    }
}

/// Beside the run, each task by itself: as in a run of that task.
#[test]
fn transfer_is_the_difference_to_each_task_alone() {
    let place = Place::new();
    rows(&place, 160, 40);
    let config = MultitaskConfig { baselines: true, ..config(&place, "encoder", &TASKS[..2], "") };
    let summary = run(&place, &config, "both");
    for (name, kind) in &TASKS[..2] {
        let alone = self::config(&place, "encoder", &[(name, *kind)], "");
        let expected = run(&place, &alone, name);
        let found = summary.tasks[*name].alone.as_ref().expect("it was trained alone");
        assert_eq!((found.after.loss, found.n_steps), (expected.tasks[*name].after.loss, 5));
        assert_eq!(place.losses(&format!("both/alone/{name}")), place.losses(name));
        let (together, transfer) = (&summary.tasks[*name].after.figure, &found.transfer[0]);
        assert_eq!(transfer.value, together.value - found.after.figure.value);
        assert!(transfer.interval.contains(transfer.value));
        assert!(!place.path(&format!("both/alone/{name}/model")).exists(), "only the figures of baselines are kept");
    }
    assert!(summary.alone_seconds.is_some_and(|seconds| seconds > 0.0));
}
