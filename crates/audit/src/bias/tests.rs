//! Groups that are treated unlike are told from groups that are not.

use super::*;
use crate::limits;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::device;
use kiln_core::tokenizer::Tokenizer;
use kiln_kernels::random::Key;
use serde_json::json;
use std::fmt::Write;

/// Rows with predictions: right in 9 of 10, but for one group of one site, whose positive rows are missed.
fn predictions(folder: &std::path::Path) -> BiasAuditConfig {
    let key = Key::new(3);
    let mut text = String::from("label,prediction,gender,site\n");
    for row in 0..400 {
        let (gender, site) = (["f", "m"][row % 2], ["north", "south"][row / 2 % 2]);
        let label = key.uniform(row as u64) < 0.5;
        let is_right = key.fold(1).uniform(row as u64) < if gender == "f" && site == "south" && label { 0.3 } else { 0.9 };
        writeln!(text, "{},{},{gender},{site}", u8::from(label), u8::from(label == is_right)).unwrap();
    }
    text.push_str("1,1,x,north\n");
    let path = folder.join("predictions.csv");
    std::fs::write(&path, text).unwrap();
    BiasAuditConfig { data: path, groups: vec!["gender".into(), "site".into()], ..BiasAuditConfig::default() }
}

#[test]
fn the_worst_treated_are_where_two_groups_meet() {
    let folder = tempfile::tempdir().unwrap();
    let config = predictions(folder.path());
    let audit = audit(&config, &device::by_name("flex").unwrap()).unwrap();
    let names: Vec<&str> = audit.groupings.iter().map(|grouping| grouping.by.as_str()).collect();
    assert_eq!(names, ["gender", "site", "gender × site"]);
    assert!(audit.groupings.iter().all(|grouping| grouping.positive == "1"));
    let rows: Vec<(&str, usize, bool)> =
        audit.groupings[0].groups.iter().map(|group| (group.group.as_str(), group.rows, group.compared)).collect();
    assert_eq!(rows, [("f", 200, true), ("m", 200, true), ("x", 1, false)], "a single row is not compared");
    let opportunity: Vec<f64> = audit.groupings.iter().map(|grouping| grouping.gaps[1].difference.value).collect();
    assert!(opportunity[2] > 0.5 && opportunity[2] > opportunity[0] && audit.groupings[2].gaps[1].p < 0.01, "{opportunity:?}");
    assert!(audit.swap.is_none());

    let fail_if = |limit: &str| limits::check(&[limit.to_owned()], &audit.measured());
    fail_if("equal_opportunity=0.9").unwrap();
    assert!(matches!(fail_if("equal_opportunity=0.5"), Err(Error::Unmet { .. })));
    fail_if("gender.equal_opportunity=0.5").unwrap();

    write(&audit, &config, &folder.path().join("out")).unwrap();
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("<td>f × south</td>") && page.contains("equalized_odds"), "{page}");
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = predictions(folder.path());
    let refused = |change: fn(&mut BiasAuditConfig)| {
        let mut config = config.clone();
        change(&mut config);
        audit(&config, &device::by_name("flex").unwrap()).unwrap_err().to_string()
    };
    assert!(refused(|config| config.groups.clear()).contains("groups: missing"));
    assert!(refused(|config| config.groups = vec!["gendre".into()]).contains("did you mean groups=\"gender\"?"));
    assert!(refused(|config| config.positive = Some("yes".into())).contains("no class \"yes\"; there are 0, 1"));
    assert!(refused(|config| config.prediction = "said".into()).contains("no column \"said\""));
}

/// A classifier with random weights, of the classes "no" and `second`.
fn classifier(folder: &std::path::Path, second: &str, seed: u64) {
    let tokenizer = Tokenizer::train(["he saw her and she saw him", "the cook met a man"].into_iter(), 300).unwrap();
    let keys = json!({
        "model_type": "bert", "hidden_act": "gelu", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.5,
    });
    let serde_json::Value::Object(keys) = keys else { panic!("an object") };
    let config = ModelConfig::from_json(keys, std::path::Path::new("config.json")).unwrap();
    let labels = ["no", second].map(str::to_owned);
    let model = SequenceClassifier::new(config, &labels, &device::by_name("flex").unwrap(), Key::new(seed)).unwrap();
    kiln_core::model::save(&model, &tokenizer, folder).unwrap();
}

#[test]
fn what_changed_is_compared_on_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    classifier(&path("one"), "yes", 1);
    classifier(&path("two"), "yes", 2);
    classifier(&path("other"), "maybe", 1);
    let row = |row: usize| {
        let (who, verb) = (["he", "she", "the man", "a cook"][row % 4], ["met", "saw", "and"][row % 3]);
        format!("{who} {verb} him {},{},{}\n", "saw ".repeat(row % 5), ["no", "yes"][row / 2 % 2], ["f", "m"][row % 2])
    };
    std::fs::write(path("rows.csv"), format!("text,label,gender\n{}", (0..60).map(row).collect::<String>())).unwrap();
    let config =
        BiasAuditConfig { model: Some(path("two")), data: path("rows.csv"), groups: vec!["gender".into()], ..BiasAuditConfig::default() };
    let beside = |before: &str| audit(&BiasAuditConfig { before: Some(path(before)), ..config.clone() }, &device::by_name("flex").unwrap());
    let found = beside("one").unwrap();
    let names: Vec<&str> = found.changes.iter().map(|row| row.figure.as_str()).collect();
    let expected = ["gender.demographic_parity", "gender.equal_opportunity", "gender.equalized_odds", "gender.accuracy", "flips", "shift"];
    assert_eq!(names, expected);
    for (row, gap) in found.changes.iter().zip(&found.groupings[0].gaps) {
        assert_eq!(row.model, gap.difference, "{}", row.figure);
    }
    assert!(found.changes.iter().all(|row| (row.change.unwrap().value - row.model.value + row.before.unwrap().value).abs() < 1e-12));
    assert!(found.changes[5].change.unwrap().value.abs() > 1e-6, "the models differ: {:?}", found.changes[5]);
    assert!(found.measured().iter().any(|measured| measured.name == "gender.equalized_odds.worse"));
    assert!(beside("two").unwrap().changes.iter().all(|row| row.change.unwrap().value == 0.0));
    let error = beside("other").unwrap_err().to_string();
    assert!(error.contains("has the classes no, maybe, the model no, yes: they cannot be compared"), "{error}");
}
