//! Public corpora have nothing that the pre-flight should stop at, or tell.

use crate::support::shared;
use kiln_data::source::{DataConfig, Draw, Sample, TextColumns};
use kiln_train::preflight::rows::{Fields, check};
use std::time::Instant;

/// What is found in a file of `data/`, of which a tenth is held out.
fn found(file: &str, names: &[&str], texts: &[&str], class: Option<&str>) -> Option<(Vec<String>, f64)> {
    let path = shared()?.join("data").join(file);
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let data = DataConfig { train: path.into(), ..DataConfig::default() };
    let columns = TextColumns::Named([texts[0], texts.get(1).copied().unwrap_or_default(), ""]);
    let Sample { train, held_out, .. } = data.sample(&names, Draw::new(0, columns)).expect("two tables");
    let start = Instant::now();
    let findings = check(&train, &held_out, &|_| Fields { texts: texts.to_vec(), class }).expect("classes");
    Some((findings.iter().map(ToString::to_string).collect(), start.elapsed().as_secs_f64()))
}

#[test]
fn clean_corpora_are_quiet() {
    for (file, names, texts, class) in [
        ("sst2/train.tsv", &["text", "label"][..], &["text"][..], Some("label")),
        ("snli_dev/snli_dev.jsonl", &[], &["premise", "hypothesis"], Some("label")),
        ("gsm8k/train.jsonl", &[], &["question", "answer"], None),
        ("banking77/train.csv", &[], &["text"], Some("category")),
        ("dolly_small/dolly.jsonl", &[], &["prompt", "answer"], None),
        // Its tweets are repeated: 5 % of a tenth drawn row by row would stay to be trained on.
        ("wnut17/wnut17train.conll", &[], &["tokens"], None),
    ] {
        let Some((findings, seconds)) = found(file, names, texts, class) else { return };
        println!("{file}: {seconds:.3} s");
        assert!(findings.is_empty(), "{file}: {findings:#?}");
        assert!(seconds < 5.0, "{file}: {seconds:.2} s");
    }
}
