//! Label errors against cleanlab, and group fairness against fairlearn (`tests/golden/generate`).

use kiln_audit::label_errors::Given;
use kiln_eval::fairness::{Counts, Criterion, Outcome};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The cases of a fixture, of which there must be `n`.
fn cases<C: DeserializeOwned>(fixture: &str, n: usize) -> Vec<C> {
    #[derive(Deserialize)]
    struct Fixture<C> {
        cases: Vec<C>,
    }
    let path = format!("{}/../../tests/golden/fixtures/{fixture}.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: Fixture<C> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(fixture.cases.len(), n);
    fixture.cases
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-6, "{what}: found {found}, expected {expected}");
}

#[derive(Deserialize)]
struct LabelErrors {
    name: String,
    labels: Vec<usize>,
    n_classes: usize,
    probabilities: Vec<f32>,
    thresholds: Vec<f64>,
    joint: Vec<Vec<i64>>,
    errors: Vec<usize>,
    margins: Vec<f64>,
}

#[test]
fn label_errors_agree_with_cleanlab() {
    for case in cases::<LabelErrors>("label_errors", 6) {
        let given = Given { probabilities: &case.probabilities, labels: &case.labels, n_classes: case.n_classes };
        for (class, (found, expected)) in given.thresholds().into_iter().zip(&case.thresholds).enumerate() {
            assert_close(found, *expected, &format!("{}, threshold of class {class}", case.name));
        }
        assert_eq!(given.confident_joint(), case.joint, "{}", case.name);
        for (row, expected) in case.margins.iter().enumerate() {
            assert_close(f64::from(given.normalised_margin(row)), *expected, &format!("{}, margin of row {row}", case.name));
        }
        // The same rows; of equally confident ones either may come first.
        let errors = given.errors();
        let confidences = |rows: &[usize]| rows.iter().map(|&row| given.self_confidence(row)).collect::<Vec<_>>();
        assert_eq!(confidences(&errors), confidences(&case.errors), "{}", case.name);
        let sorted = |rows: &[usize]| rows.iter().copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&errors), sorted(&case.errors), "{}", case.name);
    }
}

#[derive(Deserialize)]
struct Fairness {
    name: String,
    outcomes: Vec<[usize; 3]>,
    n_groups: usize,
    by_group: Vec<[f64; 4]>,
    demographic_parity: [f64; 2],
    equal_opportunity: [f64; 2],
    equalized_odds: [f64; 2],
    accuracy: [f64; 2],
}

#[test]
fn group_fairness_agrees_with_fairlearn() {
    for case in cases::<Fairness>("fairness", 4) {
        let outcome = |&[group, label, prediction]: &[usize; 3]| Outcome { group, label: label == 1, prediction: prediction == 1 };
        let outcomes: Vec<Outcome> = case.outcomes.iter().map(outcome).collect();
        let counts = Counts::by_group(&outcomes, case.n_groups);
        for (group, (counts, expected)) in counts.iter().zip(&case.by_group).enumerate() {
            let found = [counts.selection_rate(), counts.true_positive_rate(), counts.false_positive_rate(), counts.accuracy()];
            found
                .iter()
                .zip(expected)
                .for_each(|(found, expected)| assert_close(*found, *expected, &format!("{}, group {group}", case.name)));
        }
        let expected = [case.demographic_parity, case.equal_opportunity, case.equalized_odds, case.accuracy];
        for (criterion, [difference, ratio]) in Criterion::ALL.into_iter().zip(expected) {
            assert_close(criterion.difference(&counts), difference, &format!("{}, {} difference", case.name, criterion.name()));
            assert_close(criterion.ratio(&counts), ratio, &format!("{}, {} ratio", case.name, criterion.name()));
        }
    }
}
