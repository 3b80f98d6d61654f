//! Classification metrics against scikit-learn (`tests/golden/generate/classification_metrics.py`).

use kiln_eval::classification::{Confusion, Scores};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    n_classes: usize,
    golds: Vec<usize>,
    predictions: Vec<usize>,
    confusion: Vec<Vec<u64>>,
    accuracy: f64,
    per_class: Vec<Scores>,
    micro: Scores,
    #[serde(rename = "macro")]
    macro_average: Scores,
    weighted: Scores,
}

#[test]
fn classification_metrics_agree_with_scikit_learn() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/fixtures/classification_metrics.json");
    let fixture: Fixture = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(fixture.cases.len(), 6);
    for case in fixture.cases {
        let confusion = Confusion::new(&case.predictions, &case.golds, case.n_classes);
        assert_eq!(confusion.counts(), case.confusion, "{}", case.name);
        assert_close(confusion.accuracy(), case.accuracy, &case.name);
        for (class, expected) in case.per_class.into_iter().enumerate() {
            assert_scores(confusion.class(class), expected, &format!("{}, class {class}", case.name));
        }
        assert_scores(confusion.micro_average(), case.micro, &format!("{}, micro", case.name));
        assert_scores(confusion.macro_average(), case.macro_average, &format!("{}, macro", case.name));
        assert_scores(confusion.weighted_average(), case.weighted, &format!("{}, weighted", case.name));
    }
}

fn assert_scores(actual: Scores, expected: Scores, what: &str) {
    assert_close(actual.precision, expected.precision, &format!("{what}, precision"));
    assert_close(actual.recall, expected.recall, &format!("{what}, recall"));
    assert_close(actual.f1, expected.f1, &format!("{what}, f1"));
    assert_eq!(actual.support, expected.support, "{what}, support");
}

fn assert_close(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() < 1e-12, "{what}: {actual}, expected {expected}");
}
