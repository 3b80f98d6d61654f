//! Every metric against the Python library whose figures the field compares (`tests/golden/generate`).

use kiln_eval::answers::{exact_match, rouge_l, token_f1};
use kiln_eval::binary::{average_precision, roc_auc};
use kiln_eval::bleu::{SIGNATURE, Segment, bleu};
use kiln_eval::classification::Confusion;
use kiln_eval::entities::{EntityReport, Reading, Sentence, macro_f1, micro_f1};
use kiln_eval::fairness::{Counts, Criterion, Outcome};
use kiln_eval::regression::{mean_absolute_error, mean_squared_error, pearson, spearman};
use kiln_eval::retrieval::Ranking;
use kiln_eval::scores::{ClassScores, Scores};
use kiln_eval::thresholds::{Scored, choose};
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

#[derive(Deserialize)]
struct Classification {
    name: String,
    n_classes: usize,
    golds: Vec<usize>,
    predictions: Vec<usize>,
    confusion: Vec<Vec<u64>>,
    accuracy: f64,
    matthews: f64,
    per_class: Vec<Scores>,
    micro: Scores,
    #[serde(rename = "macro")]
    macro_average: Scores,
    weighted: Scores,
}

#[test]
fn classification_agrees_with_scikit_learn() {
    for case in cases::<Classification>("classification_metrics", 6) {
        let confusion = Confusion::new(&case.predictions, &case.golds, case.n_classes);
        assert_eq!(confusion.counts(), case.confusion, "{}", case.name);
        assert_close(confusion.accuracy(), case.accuracy, &case.name);
        assert_close(confusion.matthews_correlation(), case.matthews, &case.name);
        for (class, expected) in case.per_class.into_iter().enumerate() {
            assert_scores(confusion.class(class), expected, &format!("{}, class {class}", case.name));
        }
        assert_scores(confusion.micro_average(), case.micro, &format!("{}, micro", case.name));
        assert_scores(confusion.macro_average(), case.macro_average, &format!("{}, macro", case.name));
        assert_scores(confusion.weighted_average(), case.weighted, &format!("{}, weighted", case.name));
    }
}

#[derive(Deserialize)]
struct Regression {
    name: String,
    pairs: Vec<(f64, f64)>,
    mean_squared_error: f64,
    mean_absolute_error: f64,
    pearson: f64,
    spearman: f64,
}

#[test]
fn regression_agrees_with_scikit_learn_and_scipy() {
    for case in cases::<Regression>("regression", 6) {
        // Errors have the unit of the numbers: relative to their size.
        let squared = case.mean_squared_error.max(1.0);
        assert_close(mean_squared_error(&case.pairs) / squared, case.mean_squared_error / squared, &case.name);
        let absolute = case.mean_absolute_error.max(1.0);
        assert_close(mean_absolute_error(&case.pairs) / absolute, case.mean_absolute_error / absolute, &case.name);
        assert_close(pearson(&case.pairs), case.pearson, &case.name);
        assert_close(spearman(&case.pairs), case.spearman, &case.name);
    }
}

#[derive(Deserialize)]
struct Binary {
    name: String,
    pairs: Vec<(f64, bool)>,
    roc_auc: f64,
    average_precision: f64,
}

#[test]
fn binary_agrees_with_scikit_learn() {
    for case in cases::<Binary>("binary", 6) {
        assert_close(roc_auc(&case.pairs), case.roc_auc, &case.name);
        assert_close(average_precision(&case.pairs), case.average_precision, &case.name);
    }
}

#[derive(Deserialize)]
struct Bleu {
    name: String,
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    /// Per segment: tokens of the hypothesis, of the closest reference, n-grams matched, n-grams.
    counts: Vec<[u64; 10]>,
    bleu: f64,
    resample: Vec<usize>,
    resampled_bleu: f64,
    signature: String,
}

#[test]
fn bleu_agrees_with_sacrebleu() {
    for case in cases::<Bleu>("bleu", 8) {
        let segments: Vec<Segment> = case.hypotheses.iter().zip(&case.references).map(|(text, of)| Segment::new(text, of)).collect();
        for ((segment, counts), hypothesis) in segments.iter().zip(&case.counts).zip(&case.hypotheses) {
            let lengths = [segment.hypothesis_tokens, segment.reference_tokens];
            let counted = [&lengths[..], &segment.n_matched, &segment.n_grams].concat();
            assert_eq!(counted, counts, "{}: {hypothesis}", case.name);
        }
        assert_close(bleu(&segments) / 100.0, case.bleu / 100.0, &case.name);
        let drawn: Vec<Segment> = case.resample.iter().map(|&index| segments[index]).collect();
        assert_close(bleu(&drawn) / 100.0, case.resampled_bleu / 100.0, &format!("{}, resampled", case.name));
        assert!(case.signature.contains(SIGNATURE), "{}", case.signature);
    }
}

#[derive(Deserialize)]
struct Tagging {
    name: String,
    golds: Vec<String>,
    predictions: Vec<String>,
    strict: Expected,
    conlleval: Expected,
}

#[derive(Deserialize)]
struct Expected {
    types: Vec<ClassScores>,
    micro: Scores,
    #[serde(rename = "macro")]
    macro_average: Scores,
    weighted: Scores,
}

#[test]
fn entities_agree_with_seqeval() {
    let words = |tags: &String| tags.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for case in cases::<Tagging>("entities", 6) {
        for (reading, expected) in [(Reading::Strict, case.strict), (Reading::Conlleval, case.conlleval)] {
            let name = format!("{}, {reading:?}", case.name);
            let tags = case.predictions.iter().map(words).zip(case.golds.iter().map(words));
            let sentences: Vec<Sentence> = tags.map(|(predicted, gold)| Sentence::new(&predicted, &gold, reading).unwrap()).collect();
            let report = EntityReport::new(&sentences);
            assert_eq!(report.types.len(), expected.types.len(), "{name}");
            for (of_type, expected) in report.types.iter().zip(expected.types) {
                assert_eq!(of_type.name, expected.name, "{name}");
                assert_scores(of_type.scores, expected.scores, &format!("{name}, {}", of_type.name));
            }
            assert_close(micro_f1(&sentences), expected.micro.f1, &name);
            assert_close(macro_f1(&sentences), expected.macro_average.f1, &name);
            assert_scores(report.micro_average, expected.micro, &format!("{name}, micro"));
            assert_scores(report.macro_average, expected.macro_average, &format!("{name}, macro"));
            assert_scores(report.weighted_average, expected.weighted, &format!("{name}, weighted"));
        }
    }
}

#[derive(Deserialize)]
struct Query {
    name: String,
    retrieved: Vec<(String, f32)>,
    judgements: Vec<(String, u32)>,
    at: Vec<Cut>,
    map: f64,
    mrr: f64,
}

#[derive(Deserialize)]
struct Cut {
    k: usize,
    ndcg: f64,
    recall: f64,
    precision: f64,
    average_precision: f64,
    reciprocal_rank: f64,
}

#[test]
fn rankings_agree_with_trec_eval() {
    for case in cases::<Query>("retrieval", 13) {
        let ranking = Ranking::new(&case.retrieved, &case.judgements);
        for Cut { k, ndcg, recall, precision, average_precision, reciprocal_rank } in case.at {
            let name = format!("{}, k = {k}", case.name);
            assert_close(ranking.ndcg(k), ndcg, &name);
            assert_close(ranking.recall(k), recall, &name);
            assert_close(ranking.precision(k), precision, &name);
            assert_close(ranking.average_precision(k), average_precision, &name);
            assert_close(ranking.reciprocal_rank(k), reciprocal_rank, &name);
        }
        assert_close(ranking.average_precision(usize::MAX), case.map, &case.name);
        assert_close(ranking.reciprocal_rank(usize::MAX), case.mrr, &case.name);
    }
}

#[derive(Deserialize)]
struct Answer {
    prediction: String,
    references: Vec<String>,
    exact_match: f64,
    token_f1: f64,
    rouge_l: f64,
}

#[test]
fn answers_agree_with_squad_and_rouge_score() {
    for Answer { prediction, references, exact_match: em, token_f1: f1, rouge_l: rouge } in cases("answers", 78) {
        let name = format!("{prediction:?} for {references:?}");
        assert_close(exact_match(&prediction, &references), em, &name);
        assert_close(token_f1(&prediction, &references), f1, &name);
        assert_close(rouge_l(&prediction, &references), rouge, &name);
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

#[derive(Deserialize)]
struct GroupThresholds {
    name: String,
    rows: Vec<(usize, u8, f64)>,
    n_groups: usize,
    criterion: String,
    selection_rates: Vec<f64>,
    true_positive_rates: Vec<f64>,
    accuracy: f64,
}

/// fairlearn draws between two thresholds, so that its rates are equal exactly and it may be right a little more often.
#[test]
fn thresholds_of_groups_are_as_good_as_those_of_fairlearn() {
    for case in cases::<GroupThresholds>("thresholds", 4) {
        let what = format!("{}, {}", case.name, case.criterion);
        let (criterion, expected) = match case.criterion.as_str() {
            "demographic_parity" => (Criterion::DemographicParity, case.selection_rates),
            _ => (Criterion::EqualOpportunity, case.true_positive_rates),
        };
        assert!(expected.iter().all(|rate| (rate - expected[0]).abs() < 1e-9), "{what}");
        let rows: Vec<Scored> = case.rows.iter().map(|&(group, label, score)| Scored { group, label: label == 1, score }).collect();
        let counts = |thresholds: &[f64]| {
            let outcome = |row: &Scored| Outcome { group: row.group, label: row.label, prediction: row.score >= thresholds[row.group] };
            Counts::by_group(&rows.iter().map(outcome).collect::<Vec<_>>(), case.n_groups)
        };
        let accuracy = |counts: &[Counts]| {
            let right: f64 = counts.iter().map(|counts| counts.accuracy() * counts.rows as f64).sum();
            right / rows.len() as f64
        };
        let (before, after) = (counts(&vec![0.5; case.n_groups]), counts(&choose(&rows, case.n_groups, criterion)));
        assert!(criterion.difference(&before) > 0.1, "{what}: there is something to do");
        assert!(criterion.difference(&after) < 0.01, "{what}: {after:?}");
        assert!((accuracy(&after) - case.accuracy).abs() < 0.005, "{what}: {} right, by fairlearn {}", accuracy(&after), case.accuracy);
    }
}
