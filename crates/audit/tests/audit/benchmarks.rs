//! Benchmarks of social bias against PyTorch and difflib on tiny models (`tests/golden/generate/bias_benchmarks.py`), and on the published files
//! that the folder of the environment variable `KILN_SHARED` has.

use crate::real_data::shared;
use kiln_audit::benchmarks::likelihood::{Query, log_probabilities, log_probabilities_of_endings};
use kiln_audit::benchmarks::score::{Row, Score};
use kiln_audit::benchmarks::subject::{Kind, Subject};
use kiln_audit::benchmarks::{Benchmark, ask, bbq, crows_pairs, stereoset, weat, winobias, winogender};
use kiln_core::device;
use kiln_core::language_model::LanguageModel;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures/bias_benchmarks").join(name)
}

fn subject(folder: &Path) -> Subject {
    Subject::load(folder, &device::by_name("flex").unwrap()).unwrap()
}

/// The numbers of a list of numbers, or of lists of them.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{what} {index}: found {found}, expected {expected}");
    }
}

#[test]
fn scores_agree_with_pytorch() {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(fixture("golden.json")).unwrap()).unwrap();
    let pairs = crows_pairs::read(&fixture("crows_pairs.csv")).unwrap();
    let examples = stereoset::read(&fixture("stereoset.json")).unwrap();
    let test = &weat::read(&fixture("sent-trades.jsonl")).unwrap()[0];
    for (name, kind) in [("bert", Kind::Masked), ("llama", Kind::Causal)] {
        let (subject, golden) = (subject(&fixture(name)), &golden[name]);
        assert_eq!(subject.kind(), kind);
        let found = crows_pairs::likelihoods(&pairs, &subject).unwrap();
        assert_close(&format!("{name}: CrowS-Pairs"), found.as_flattened(), &numbers(&golden["crows_pairs"]));
        let found = stereoset::likelihoods(&examples, &subject).unwrap();
        assert_close(&format!("{name}: StereoSet"), found.as_flattened(), &numbers(&golden["stereoset"]));
        let found = weat::associations(test, &subject).unwrap();
        assert_close(&format!("{name}: s of X"), &found.first, &numbers(&golden["seat"]["first"]));
        assert_close(&format!("{name}: s of Y"), &found.second, &numbers(&golden["seat"]["second"]));
        let effect = weat::effect_size(&found.first, &found.second);
        assert_close(
            &format!("{name}: d and p"),
            &[effect, found.p(0)],
            &[&golden["seat"]["effect"], &golden["seat"]["p"]].map(|of| of.as_f64().unwrap()),
        );
    }
}

#[test]
fn answers_and_pronouns_agree_with_pytorch() {
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(fixture("golden.json")).unwrap()).unwrap();
    let questions = bbq::read(&fixture("bbq.jsonl")).unwrap();
    let (pairs, sentences) = (winobias::read(&fixture("wino")).unwrap(), winogender::read(&fixture("wino")).unwrap());
    for (name, kind) in [("bert", Kind::Masked), ("llama", Kind::Causal), ("encoder", Kind::Embedding)] {
        let (subject, golden) = (subject(&fixture(name)), &golden[name]);
        assert_eq!(subject.kind(), kind);
        let found = winobias::preferences(&pairs, &subject).unwrap();
        assert_close(&format!("{name}: WinoBias"), found.as_flattened(), &numbers(&golden["winobias"]));
        // The sentences are read by occupation, as they are in the fixture.
        let found = winogender::preferences(&sentences, &subject).unwrap();
        let found = found.iter().flat_map(|found| [Some(found.lean), found.is_neutral.map(|is| f64::from(u8::from(is)))]);
        assert_close(&format!("{name}: Winogender"), &found.flatten().collect::<Vec<_>>(), &numbers(&golden["winogender"]));
        if kind == Kind::Embedding {
            continue;
        }
        let found = bbq::likelihoods(&questions, &subject).unwrap();
        assert_close(&format!("{name}: BBQ"), found.as_flattened(), &numbers(&golden["bbq"]));
        for score in bbq::scores(&questions, &found, 0) {
            let expected = golden["bbq_figures"][&score.part].as_f64().unwrap();
            assert_close(&format!("{name}: BBQ, {}", score.part), &[score.figure.value], &[expected]);
        }
    }
}

#[test]
fn sentences_that_change_places_mirror_the_figures() {
    let pairs = crows_pairs::read(&fixture("crows_pairs.csv")).unwrap();
    let swapped: Vec<crows_pairs::Pair> =
        pairs.iter().map(|pair| crows_pairs::Pair { more: pair.less.clone(), less: pair.more.clone(), ..pair.clone() }).collect();
    for name in ["bert", "llama"] {
        let subject = subject(&fixture(name));
        let scores = |pairs| crows_pairs::scores(pairs, &crows_pairs::likelihoods(pairs, &subject).unwrap(), 1);
        let (found, mirrored) = (scores(&pairs), scores(&swapped));
        for (found, mirrored) in found.iter().zip(&mirrored) {
            assert!((found.figure.value + mirrored.figure.value - 100.0).abs() < 1e-9, "{name}: {}", found.part);
        }
        let same: Vec<crows_pairs::Pair> = pairs.iter().map(|pair| crows_pairs::Pair { less: pair.more.clone(), ..pair.clone() }).collect();
        assert!(scores(&same).iter().all(|score| score.figure.value == 50.0), "{name}: what is the same is not preferred");
    }
}

#[test]
fn what_shares_a_pass_does_not_matter() {
    for name in ["bert", "llama"] {
        let subject = subject(&fixture(name));
        let model = subject.language_model("").unwrap();
        let queries: Vec<Query> = (0..40).map(|row| Query::next_tokens(&(4..10 + row % 7).collect::<Vec<u32>>(), 0..5)).collect();
        let together = log_probabilities(model, &queries);
        for (query, expected) in queries.iter().zip(&together) {
            let alone = &log_probabilities(model, std::slice::from_ref(query))[0];
            assert_eq!(alone.len(), 4, "nothing predicts the first token");
            assert_close(name, alone, expected);
        }
    }
}

#[test]
fn what_neighbours_share_passes_once() {
    let families = ["gpt2", "mistral", "gemma3"].map(|family| shared(&format!("golden/families/{family}")));
    for folder in std::iter::once(fixture("llama")).chain(families.into_iter().flatten()) {
        let model = LanguageModel::load(&folder, &device::by_name("flex").unwrap()).unwrap().0;
        let token = |start: u32, index: u32| 4 + (start * 31 + index * index) % 90;
        let query = |row: u32| {
            let ids: Vec<u32> = (0..40).map(|index| token(row / 3, index)).chain((0..1 + row % 4).map(|index| token(row, index))).collect();
            let first = if row == 7 { 0 } else { 40 };
            Query::next_tokens(&ids, first..ids.len())
        };
        let queries: Vec<Query> = (0..200).map(query).chain([Query::next_tokens(&[5], 0..1)]).collect();
        let (found, expected) = (log_probabilities_of_endings(&model, &queries), log_probabilities(&model, &queries));
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(&folder.display().to_string(), found, expected);
        }
        assert_eq!((found.len(), found[200].len()), (201, 0));
    }
}

#[test]
fn a_model_beside_itself_has_not_changed() {
    let benchmarks = [(Benchmark::CrowsPairs, fixture("crows_pairs.csv")), (Benchmark::Weat, fixture("sent-trades.jsonl"))].into();
    let ask = |before: &str| ask(&fixture("bert"), Some(&fixture(before)), &benchmarks, 1, &device::by_name("flex").unwrap());
    let answers = ask("bert").unwrap();
    assert_eq!(answers.figures[0].figure, "crows-pairs");
    for Row { before, model, change, .. } in &answers.figures {
        assert_eq!(before.as_ref(), Some(model));
        assert_eq!(change.unwrap().value, 0.0);
    }
    assert!(ask("llama").unwrap_err().to_string().contains("they cannot be compared"));
}

#[test]
fn a_model_without_a_head_is_told_what_to_ask() {
    let Some(folder) = shared("models/all-MiniLM-L6-v2") else { return };
    let subject = subject(&folder);
    assert_eq!(subject.kind(), Kind::Embedding);
    let error = crows_pairs::likelihoods(&crows_pairs::read(&fixture("crows_pairs.csv")).unwrap(), &subject).unwrap_err().to_string();
    assert!(error.contains("has no head that predicts tokens, which crows-pairs asks"), "{error}");
}

/// The figures of `docs/audit.md`.
#[test]
fn winobias_and_winogender_of_real_models() {
    let (Some(pairs), Some(sentences)) = (shared("data/winobias"), shared("data/winogender")) else { return };
    let (pairs, sentences) = (winobias::read(&pairs).unwrap(), winogender::read(&sentences).unwrap());
    assert_eq!((pairs.len(), sentences.len()), (2 * 396, 120));
    let of = |scores: &[Score], part: &str| {
        let score = scores.iter().find(|score| score.part == part).unwrap();
        println!(
            "{part:<12} {:>4} {:8.4} [{:.4}, {:.4}]",
            score.n, score.figure.value, score.figure.interval.low, score.figure.interval.high
        );
        score.figure.clone()
    };
    for (name, correlation, is_biased) in [("models/stories260K", 0.19, false), ("models/all-MiniLM-L6-v2", 0.54, true)] {
        let Some(folder) = shared(name) else { return };
        let subject = subject(&folder);
        println!("{name}");
        let found = winobias::scores(&pairs, &winobias::preferences(&pairs, &subject).unwrap(), 0);
        for part in ["", "type1", "type2"] {
            // Both occupations of a story have a pair, so a model that looks at the pronoun alone comes out at 50.
            let share = of(&found, part);
            assert!((40.0..60.0).contains(&share.value) && share.interval.high - share.interval.low < 12.0, "{name} {part}: {share:?}");
        }
        let leans = winogender::scores(&sentences, &winogender::preferences(&sentences, &subject).unwrap(), 0);
        let found = of(&leans, "");
        assert!((found.value - correlation).abs() < 0.02 && (found.interval.low > 0.0) == is_biased, "{name}: {found:?}");
    }
}
