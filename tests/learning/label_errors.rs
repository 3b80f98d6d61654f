//! Wrong labels are found by models fine-tuned on the other rows: of classes, of tags and of numbers; and without them training does better.

use crate::support::{Place, flex, shared};
use kiln_audit::cross_validation::{CrossValidation, Kind};
use kiln_audit::data::{Check, DataAuditConfig, audit, clean};
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::source::{DataConfig, Source};
use kiln_data::world::{LabelledText, TaggedSentence};
use kiln_kernels::random::Key;
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::train::train;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;

const N_ROWS: usize = 1200;
const N_FOLDS: usize = 3;

/// The rows of which `change` makes wrong ones: 8 in 100.
fn planted<R>(rows: &mut [R], mut change: impl FnMut(&mut R, u64)) -> BTreeSet<usize> {
    let chosen: BTreeSet<usize> = Key::new(21).permutation(rows.len()).into_iter().take(rows.len() * 8 / 100).collect();
    chosen.iter().for_each(|&row| change(&mut rows[row], row as u64));
    chosen
}

fn config(place: &Place, task: Task) -> SftConfig {
    let mut config = SftConfig { model: place.path("encoder"), task, seed: 5, epochs: 12, force: true, ..SftConfig::default() };
    config.update.learning_rate = 2e-3;
    config.update.warmup_share = 0.1;
    config
}

/// What models say of `NAME.jsonl` that were trained on the other folds.
fn judged(place: &Place, name: &str, rows: &[impl Serialize], kind: Kind, config: &SftConfig) -> CrossValidation {
    let path = place.path(&format!("{name}.jsonl"));
    write_jsonl(&path, rows).unwrap();
    let mut folds = CrossValidation::new(Table::read(&path, &[]).unwrap(), &config.columns, kind, N_FOLDS, 7).unwrap();
    for fold in 0..N_FOLDS {
        let folder = place.path(&format!("{name}-{fold}"));
        let [train_rows, held_out] = folds.write(fold, &folder).unwrap();
        let train_rows = [Source { path: train_rows, weight: 1.0 }].into_iter().collect();
        let data = DataConfig { train: train_rows, held_out: Some(held_out), ..DataConfig::default() };
        train(&SftConfig { data, ..config.clone() }, &flex(), &folder.join("run")).unwrap();
        folds.judge(fold, &folder.join("run/model"), &flex()).unwrap();
    }
    folds
}

/// Precision and recall of the rows found.
fn scores(name: &str, folds: &CrossValidation, planted: &BTreeSet<usize>) -> [f64; 2] {
    let found: BTreeSet<usize> = folds.issues().into_iter().map(|issue| issue.row).collect();
    let both = found.intersection(planted).count() as f64;
    let scores = [both / found.len() as f64, both / planted.len() as f64];
    println!(
        "{name}: {} found of {}, precision {:.2}, recall {:.2}, agreement {:.3}",
        found.len(),
        planted.len(),
        scores[0],
        scores[1],
        folds.agreement()
    );
    scores
}

/// A label beside that of the row, of `n`.
fn other(label: usize, n: usize, row: u64) -> usize {
    (label + 1 + Key::new(22).below(row, n as u64 - 1) as usize) % n
}

#[test]
fn wrong_intents_are_found_and_training_without_them_is_better() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let table = Table::read(&shared.join("data/banking77/train.csv"), &[]).unwrap();
    let mut questions: Vec<[String; 2]> = Vec::new();
    for row in &table.rows {
        questions.push(["text", "category"].map(|column| table.text(row, column).unwrap().to_owned()));
    }
    // The file is sorted by intent.
    questions.truncate(1300);
    let questions: Vec<LabelledText> = Key::new(23)
        .permutation(questions.len())
        .into_iter()
        .map(|row| LabelledText { text: questions[row][0].clone(), label: questions[row][1].clone() })
        .collect();
    let (held_out, rows) = questions.split_at(500);
    let intents: Vec<String> = questions.iter().map(|row| row.label.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let mut rows = rows.to_vec();
    let wrong = planted(&mut rows, |row, index| {
        let intent = intents.iter().position(|intent| *intent == row.label).expect("an intent");
        row.label.clone_from(&intents[other(intent, intents.len(), index)]);
    });
    let mut settings = config(&place, Task::Classification);
    (settings.model, settings.epochs, settings.update.learning_rate) = (shared.join("models/all-MiniLM-L6-v2"), 6, 2e-4);
    let folds = judged(&place, "intents", &rows, Kind::Class, &settings);
    let [precision, recall] = scores("classes", &folds, &wrong);
    assert!(precision > 0.5 && recall > 0.8, "precision {precision}, recall {recall}");
    let config = DataAuditConfig { data: place.path("intents.jsonl"), remove: vec![Check::LabelErrors], ..DataAuditConfig::default() };
    let found = audit(&config, Some(&folds), &flex()).unwrap();
    let removed = clean(&found, &config, &place.path("cleaned.jsonl")).unwrap();
    let likelier_wrong: BTreeSet<usize> = folds.issues().iter().filter(|issue| issue.probability >= 0.5).map(|issue| issue.row).collect();
    assert_eq!(removed.iter().map(|row| row.line - 1).collect::<BTreeSet<_>>(), likelier_wrong);
    let share_wrong = likelier_wrong.intersection(&wrong).count() as f64 / likelier_wrong.len() as f64;
    println!("{} removed, {share_wrong:.2} of them wrong", likelier_wrong.len());
    assert!(share_wrong > precision, "what is left out is wrong more often than what is found");
    write_jsonl(&place.path("intents-held-out.jsonl"), held_out).unwrap();
    let trained = |rows: &str| {
        let mut config = settings.clone();
        config.data.train = place.path(&format!("{rows}.jsonl")).into();
        config.data.held_out = Some(place.path("intents-held-out.jsonl"));
        place.train(&config, &format!("{rows}-run")).after
    };
    let (noisy, cleaned) = (trained("intents"), trained("cleaned"));
    let gain = cleaned.figure.minus(&noisy.figure);
    println!("accuracy {:.3} -> {:.3}, {:+.3} {:?}", noisy.figure.value, cleaned.figure.value, gain.value, gain.interval);
    assert!(cleaned.loss < noisy.loss && gain.value > 0.0);
}

#[test]
fn wrong_tags_are_found() {
    let place = Place::new();
    let mut rows = place.world.entity_rows(N_ROWS);
    let has_entity = |row: &TaggedSentence| row.tags.iter().any(|tag| tag != "O");
    rows.retain(has_entity);
    // One kind of entity is taken for another.
    let kinds: BTreeSet<String> = rows.iter().flat_map(|row| &row.tags).filter_map(|tag| Some(tag.split_once('-')?.1.to_owned())).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    let wrong = planted(&mut rows, |row, index| {
        for tag in &mut row.tags {
            if let Some((begin, kind)) = tag.clone().split_once('-') {
                let place = kinds.iter().position(|known| known == kind).expect("a kind");
                *tag = format!("{begin}-{}", kinds[other(place, kinds.len(), index)]);
            }
        }
    });
    let folds = judged(&place, "entities", &rows, Kind::Tags, &config(&place, Task::TokenClassification));
    let [precision, recall] = scores("tags", &folds, &wrong);
    assert!(precision > 0.25 && recall > 0.85, "precision {precision}, recall {recall}");
}

#[test]
fn wrong_numbers_are_found() {
    let Some(shared) = shared() else { return };
    let place = Place::new();
    let text = std::fs::read_to_string(shared.join("data/stsb/sts-train.csv")).unwrap();
    let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let row = |index: usize| (fields[index][5].to_owned(), fields[index][6].to_owned(), fields[index][4].parse::<f64>().unwrap());
    let mut rows: Vec<(String, String, f64)> = Key::new(24).permutation(fields.len()).into_iter().take(900).map(row).collect();
    // Of a scale from 0 to 5.
    let wrong = planted(&mut rows, |row, _| row.2 += if row.2 < 2.5 { 2.5 } else { -2.5 });
    let rows: Vec<_> = rows.into_iter().map(|(text, text_b, score)| json!({"text": text, "text_b": text_b, "label": score})).collect();
    let mut settings = config(&place, Task::Regression);
    (settings.model, settings.epochs, settings.update.learning_rate) = (shared.join("models/all-MiniLM-L6-v2"), 5, 2e-4);
    let folds = judged(&place, "scores", &rows, Kind::Number, &settings);
    let [precision, recall] = scores("numbers", &folds, &wrong);
    // Found is what is likelier wrong than right; of rows named at random 8 % would be wrong.
    assert!(precision > 0.5 && recall > 0.1, "precision {precision}, recall {recall}");
}
