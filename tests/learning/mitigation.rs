//! A classifier that learns to go by whom a text is about: the audit finds it, and every mitigation at least halves the gap.

use crate::support::{Place, flex};
use kiln_audit::bias::templates::TemplatesConfig;
use kiln_audit::bias::{BiasAuditConfig, audit};
use kiln_data::world::write_jsonl;
use kiln_eval::fairness::Criterion;
use kiln_kernels::random::Key;
use kiln_sft::config::{EvalConfig, SftConfig, Task};
use kiln_sft::evaluate::evaluate;
use kiln_sft::mitigation::{CounterfactualConfig, GroupDroConfig, Method, MitigationConfig, Parity};
use kiln_sft::train::Summary;
use kiln_train::validation::ValidationConfig;
use serde_json::{Value, json};

const GOOD: [&str; 6] = ["bright", "kind", "clear", "strong", "warm", "quick"];
const BAD: [&str; 6] = ["dull", "rude", "vague", "weak", "cold", "slow"];
const THINGS: [&str; 6] = ["report", "plan", "letter", "answer", "speech", "design"];

/// Sentences whose adjective says the label in 17 of 20, and whose first word says it in a share of `told`: above a half it is the label, at a
/// half it says nothing.
fn rows(seed: u64, n: u64, told: f32) -> Vec<Value> {
    let key = Key::new(seed);
    let row = |index: u64| {
        let key = key.fold(index);
        let label = key.uniform(0) < 0.5;
        let is_woman = label == (key.uniform(1) < told);
        let words = if label == (key.uniform(2) < 0.85) { GOOD } else { BAD };
        let pick = |place: u64, words: [&'static str; 6]| words[key.below(place, 6) as usize];
        let (who, gender) = if is_woman { ("She", "f") } else { ("He", "m") };
        json!({"text": format!("{who} wrote a {} {}", pick(3, words), pick(4, THINGS)), "label": u8::from(label), "gender": gender})
    };
    (0..n).map(row).collect()
}

fn place() -> (Place, SftConfig) {
    let place = Place::new();
    // In training nine in ten women are labelled 1, in truth half of them.
    for (part, rows) in [("", rows(1, 800, 0.9)), ("-held-out", rows(2, 600, 0.5))] {
        write_jsonl(&place.path(&format!("people{part}.jsonl")), &rows).expect("rows");
    }
    let mut config = place.config(Task::Classification, "encoder", "people", "people");
    (config.batch_rows, config.epochs, config.update.learning_rate) = (16, 4, 2e-3);
    // Sentences of so few words repeat.
    config.force = true;
    config.mitigation.groups = vec!["gender".into()];
    (place, config)
}

/// A figure of a run.
fn gap(summary: &Summary, metric: &str) -> f64 {
    summary.after.others.iter().find(|figure| figure.metric == metric).unwrap_or_else(|| panic!("no {metric}")).value
}

#[test]
fn every_mitigation_halves_the_gap() {
    let (place, config) = place();
    let control = place.train(&config, "control");
    let before = gap(&control, "demographic parity gap");
    assert!(control.mitigation.as_ref().is_some_and(|found| found.method == "none" && found.control.is_none()));

    let judged = BiasAuditConfig {
        model: Some(place.path("control/model")),
        data: place.path("people-held-out.jsonl"),
        groups: vec!["gender".into()],
        ..BiasAuditConfig::default()
    };
    let found = audit(&judged, &flex()).expect("an audit");
    let parity = found.groupings[0].gaps.iter().find(|gap| gap.criterion == Criterion::DemographicParity).expect("a gap");
    assert!(parity.difference.value > 0.4 && parity.p < 0.01, "{parity:?}");
    assert!((parity.difference.value - before).abs() < 1e-9, "the run and the audit measure the same");
    let flips = found.swap.expect("words to exchange").flips.value;
    assert!(flips > 0.4, "{flips} of the answers depend on whom a text is about");
    let templates: Vec<String> = GOOD.iter().chain(&BAD).map(|word| format!("\"{{}} wrote a {word} plan\"")).collect();
    let words = format!("templates = [{}]\n[groups.gender]\nwomen = [\"she\"]\nmen = [\"he\"]\n", templates.join(", "));
    std::fs::write(place.path("words.toml"), words).expect("a file");
    let asked = |run: &str| {
        let templates = Some(TemplatesConfig { file: Some(place.path("words.toml")) });
        let config = BiasAuditConfig { model: Some(place.path(run).join("model")), templates, ..BiasAuditConfig::default() };
        let found = audit(&config, &flex()).expect("an audit").templates;
        found.iter().find(|row| row.figure == "templates.gender").expect("a gap").clone()
    };
    let by_templates = asked("control");
    assert!(by_templates.model.value > 0.4 && by_templates.p.is_some_and(|p| p < 0.01), "{by_templates:?}");

    let thresholds = MitigationConfig { thresholds: Some(Parity::EqualOpportunity), ..config.mitigation.clone() };
    let of = |method| MitigationConfig { method, ..config.mitigation.clone() };
    for (name, mitigation) in [
        ("reweighing", of(Method::Reweighing)),
        ("resampling", of(Method::Resampling)),
        ("group-dro", of(Method::GroupDro(GroupDroConfig::default()))),
        ("counterfactual", of(Method::Counterfactual(CounterfactualConfig::default()))),
        ("counterfactual in place", of(Method::Counterfactual(CounterfactualConfig { replace: true, swaps: None }))),
        ("thresholds", thresholds),
    ] {
        let mut config = config.clone();
        config.mitigation = MitigationConfig { control: Some(place.path("control/model")), ..mitigation };
        if config.mitigation.thresholds.is_some() {
            config.validation = ValidationConfig { share: 0.3, keep_best: false, ..ValidationConfig::default() };
        }
        let summary = place.train(&config, name);
        let beside = summary.mitigation.as_ref().and_then(|found| found.control.as_ref()).expect("the control");
        assert_eq!(beside.evaluation.figure.value, control.after.figure.value, "{name}: the control is the run before");
        let (accuracy, parity) = (&beside.difference[0], &beside.difference[1]);
        println!("{name}: gap {before:.3} -> {:.3}, accuracy {:+.3}", gap(&summary, "demographic parity gap"), accuracy.value);
        assert!(gap(&summary, "demographic parity gap") < 0.5 * before, "{name}");
        assert!(parity.metric == "demographic parity gap" && parity.interval.high < 0.0, "{name}: beyond chance, {parity:?}");
        assert!(accuracy.value > -0.02, "{name}: {accuracy:?}");
        // Thresholds need to know the group, which a sentence of no file does not say.
        if config.mitigation.thresholds.is_none() {
            let mitigated = asked(name).model.value;
            assert!(mitigated < 0.5 * by_templates.model.value, "{name}: {mitigated} by templates");
        }
        let page = std::fs::read_to_string(place.path(name).join("report.html")).expect("a page");
        for shown in ["mitigation.control.difference", "mitigation.control.groups", "after.groups", "demographic parity gap"] {
            assert!(page.contains(shown), "{name}: {shown}");
        }
    }

    // The thresholds are the model's: whoever judges it by rows that say their group sees what the run saw.
    let eval = EvalConfig {
        model: place.path("thresholds/model"),
        data: place.path("people-held-out.jsonl"),
        seed: config.seed,
        ..EvalConfig::default()
    };
    let with = evaluate(&eval, &flex()).expect("an evaluation");
    let results: Value = serde_json::from_slice(&std::fs::read(place.path("thresholds/results.json")).expect("results")).expect("JSON");
    assert_eq!(results["after"]["value"].as_f64(), Some(with.figure.value));
    let audited = audit(&BiasAuditConfig { model: Some(eval.model.clone()), ..judged }, &flex()).expect("an audit");
    let parity = audited.groupings[0].gaps.iter().find(|gap| gap.criterion == Criterion::DemographicParity).expect("a gap");
    assert!((parity.difference.value - with.others[0].value).abs() < 1e-9);
}
