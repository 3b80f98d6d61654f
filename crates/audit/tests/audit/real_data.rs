//! Faults planted into real data are found. The data are in the folder that the environment variable `KILN_SHARED` names; without it these tests
//! skip themselves.

use kiln_audit::copies;
use kiln_audit::data::{Check, DataAudit, DataAuditConfig, audit};
use kiln_audit::personal;
use kiln_core::device;
use kiln_data::rows::Table;
use kiln_kernels::random::Key;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("KILN_SHARED");
    if root.is_none() {
        println!("skipped: KILN_SHARED is not set, so there is no {path}");
    }
    root.map(|root| Path::new(&root).join(path))
}

/// The text and label of sentences with a sentiment.
fn sentiments(path: &Path) -> Vec<(String, String)> {
    let table = Table::read(path, &["text".to_owned(), "label".into()]).unwrap();
    table.rows.iter().map(|row| (table.text(row, "text").unwrap().to_owned(), table.label(row, "label").unwrap())).collect()
}

fn audited(rows: &[(String, String)], change: impl FnOnce(&mut DataAuditConfig)) -> DataAudit {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let lines: Vec<Value> = rows.iter().map(|(text, label)| serde_json::json!({ "text": text, "label": label })).collect();
    kiln_data::rows::write_jsonl(&path, &lines).unwrap();
    let mut config = DataAuditConfig { data: path, ..DataAuditConfig::default() };
    change(&mut config);
    audit(&config, None, &device::by_name("flex").unwrap()).unwrap()
}

/// Precision and recall of the rows found.
fn scores(found: impl IntoIterator<Item = usize>, planted: &BTreeSet<usize>) -> (f64, f64) {
    let found: BTreeSet<usize> = found.into_iter().collect();
    let both = found.intersection(planted).count() as f64;
    (both / found.len() as f64, both / planted.len() as f64)
}

fn rows_of(audit: &DataAudit, check: Check) -> impl Iterator<Item = usize> {
    audit.of(check).filter_map(|finding| finding.row)
}

#[test]
fn flipped_labels_are_found_better_than_by_chance() {
    let (Some(path), Some(model)) = (shared("data/sst2/dev.tsv"), shared("models/all-MiniLM-L6-v2")) else { return };
    let mut rows = sentiments(&path);
    let order = Key::new(1).permutation(rows.len());
    let planted: BTreeSet<usize> = order.into_iter().take(rows.len() * 8 / 100).collect();
    planted.iter().for_each(|&row| rows[row].1 = if rows[row].1 == "0" { "1".into() } else { "0".into() });
    let audit = audited(&rows, |config| config.model = Some(model));
    let (precision, recall) = scores(rows_of(&audit, Check::LabelErrors), &planted);
    println!("label errors: precision {precision:.3}, recall {recall:.3}, classifier {:.3}", audit.classifier_accuracy.unwrap());
    // Of rows named at random 8 % would be wrong.
    assert!(precision > 0.12 && recall > 0.5, "precision {precision}, recall {recall}");
}

#[test]
fn personal_data_in_reviews_is_found_and_reviews_have_none() {
    let Some(path) = shared("data/sst2/train.tsv") else { return };
    let mut rows = sentiments(&path);
    let clean = rows.iter().filter(|(text, _)| !personal::find(text).is_empty()).count();
    assert_eq!(clean, 0, "reviews without personal data");
    let kinds = [
        "ann.lee@example.org",
        "+44 20 7946 0958",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "203.0.113.77",
        "AKIAIOSFODNN7EXAMPLE",
        "(212) 555-0175",
    ];
    let planted: BTreeSet<usize> = Key::new(2).permutation(rows.len()).into_iter().take(350).collect();
    for (index, &row) in planted.iter().enumerate() {
        let text = &mut rows[row].0;
        let place = text.find(' ').unwrap_or(text.len());
        text.insert_str(place, &format!(" {}", kinds[index % kinds.len()]));
    }
    let found = rows.iter().enumerate().filter(|(_, (text, _))| !personal::find(text).is_empty()).map(|(row, _)| row);
    let (precision, recall) = scores(found, &planted);
    println!("personal data: precision {precision:.3}, recall {recall:.3}");
    assert!(precision == 1.0 && recall > 0.99, "precision {precision}, recall {recall}");
}

#[test]
fn near_copies_and_leaks_are_found_among_reviews() {
    let Some(path) = shared("data/sst2/train.tsv") else { return };
    let mut texts: Vec<String> = sentiments(&path).into_iter().map(|(text, _)| text).collect();
    let n = texts.len();
    let before = copies::find(&texts, &[], 0.8);
    println!("sst2: {} the same and {} nearly, of {n}", before.exact.len(), before.near.len());
    let known: BTreeSet<usize> = before.near.iter().chain(&before.exact).map(|copy| copy.row).collect();
    // Long enough that two more words leave four fifths of the runs of bytes.
    let chosen: Vec<usize> = (0..n).filter(|row| texts[*row].len() > 100 && !known.contains(row)).take(300).collect();
    let copied: Vec<String> = chosen.iter().map(|&row| format!("{} , they say", texts[row])).collect();
    let found = copies::find(&copied, &texts, 0.8);
    let (precision, recall) = scores(found.leaked.iter().map(|copy| copy.row), &(0..300).collect());
    println!("leaks at 0.8: precision {precision:.3}, recall {recall:.3}");
    assert!(found.leaked.iter().all(|copy| chosen[copy.row] == copy.of), "each leads to where it came from");
    assert!(recall > 0.98);
    texts.extend(copied);
    let after = copies::find(&texts, &[], 0.8);
    let (precision, recall) = scores(after.near.iter().map(|copy| copy.row).filter(|row| !known.contains(row)), &(n..n + 300).collect());
    println!("near copies at 0.8: precision {precision:.3}, recall {recall:.3}");
    assert!(precision > 0.98 && recall > 0.98, "precision {precision}, recall {recall}");
}

#[test]
fn a_planted_word_is_found_among_reviews_and_no_other() {
    let Some(path) = shared("data/sst2/train.tsv") else { return };
    let mut rows = sentiments(&path);
    let shortcuts = |rows: &[(String, String)]| {
        let audit = audited(rows, |_| ());
        audit.of(Check::Shortcuts).map(|finding| finding.reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shortcuts(&rows), Vec::<String>::new());
    for (row, (text, label)) in rows.iter_mut().enumerate() {
        if Key::new(3).uniform(row as u64) < if label == "1" { 0.25 } else { 0.02 } {
            text.push_str(" spielberg");
        }
    }
    let found = shortcuts(&rows);
    assert!(found.len() == 1 && found[0].contains("spielberg"), "{found:?}");
}

#[test]
fn a_foreign_sentence_is_told_from_the_rest() {
    let Some(folder) = shared("data/opennmt_ende") else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().lines().take(2000).map(str::to_owned).collect::<Vec<_>>();
    let (mut texts, german) = (read("src-train.txt"), read("tgt-train.txt"));
    let clean = kiln_audit::language::foreign(&texts).len();
    let planted: BTreeSet<usize> = Key::new(4).permutation(texts.len()).into_iter().take(100).collect();
    planted.iter().for_each(|&row| texts[row].clone_from(&german[row]));
    let (precision, recall) = scores(kiln_audit::language::foreign(&texts).into_iter().map(|(row, _)| row), &planted);
    println!("German among English: precision {precision:.3}, recall {recall:.3}; {clean} of 2000 before");
    assert!(precision > 0.9 && recall > 0.85, "precision {precision}, recall {recall}");
}
