//! Label errors against cleanlab, group fairness against fairlearn, exposures against SciPy and calibration against scikit-learn
//! (`tests/golden/generate`).

use kiln_audit::fit::calibration::calibration;
use kiln_audit::fit::exposure;
use kiln_audit::fit::skew_normal::SkewNormal;
use kiln_audit::label_errors::Given;
use kiln_eval::fairness::{Counts, Criterion, Outcome};
use kiln_train::observed::{Answer, Observation};
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

#[derive(Deserialize)]
struct Exposure {
    name: String,
    losses: Vec<f64>,
    location: f64,
    scale: f64,
    shape: f64,
    log_likelihood: f64,
    canaries: Vec<f64>,
    log_below: Vec<f64>,
    counted: Vec<f64>,
    fitted: Vec<f64>,
}

#[test]
fn exposures_agree_with_scipy() {
    for case in cases::<Exposure>("exposure", 3) {
        let planted = SkewNormal { location: case.location, scale: case.scale, shape: case.shape };
        let fit = SkewNormal::fit(&case.losses).unwrap();
        let likelihood = |of: &SkewNormal| case.losses.iter().map(|&loss| of.log_density(loss)).sum::<f64>();
        assert_close(likelihood(&planted), case.log_likelihood, &format!("{}, the likelihood", case.name));
        assert_close(likelihood(&fit), case.log_likelihood, &format!("{}, the largest likelihood", case.name));
        for (found, expected) in [(fit.location, case.location), (fit.scale, case.scale), (fit.shape, case.shape)] {
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{}: found {found}, expected {expected}", case.name);
        }
        for (index, &canary) in case.canaries.iter().enumerate() {
            let what = format!("{}, canary {index}", case.name);
            assert_close(planted.log_below(canary), case.log_below[index], &what);
            assert_close(exposure::counted(canary, &case.losses), case.counted[index], &what);
            let found = exposure::fitted(canary, &case.losses);
            assert!((found - case.fitted[index]).abs() < 1e-4 * case.fitted[index].max(1.0), "{what}: {found}");
        }
    }
}

#[derive(Deserialize)]
struct Calibration {
    name: String,
    logits: Vec<Vec<f32>>,
    golds: Vec<usize>,
    ece: f64,
    brier: f64,
    n_answers: Vec<u64>,
    accuracy: Vec<f64>,
}

#[test]
fn calibration_agrees_with_scikit_learn() {
    for case in cases::<Calibration>("calibration", 3) {
        let observe = |(logits, &gold): (&Vec<f32>, &usize)| {
            let (answer, loss) = Answer::new(logits, gold);
            Observation { loss, n_items: 1, answers: vec![answer] }
        };
        let rows: Vec<Observation> = case.logits.iter().zip(&case.golds).map(observe).collect();
        let found = calibration(&rows, 0).unwrap();
        assert_close(found.ece.value, case.ece, &format!("{}, ECE", case.name));
        assert_close(found.brier.value, case.brier, &format!("{}, Brier score", case.name));
        assert_eq!(found.reliability.iter().map(|line| line.n_answers).collect::<Vec<_>>(), case.n_answers, "{}", case.name);
        for (line, expected) in found.reliability.iter().zip(&case.accuracy) {
            assert_close(line.accuracy, *expected, &case.name);
        }
    }
}
