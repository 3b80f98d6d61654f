//! Runs that are made once more, listed and compared.

use crate::support::{CASES, Place, finished, n_logged, succeeded, text};
use crate::wait_until;
use std::fs;
use std::process::Output;

fn verify(place: &Place, arguments: &[&str]) -> Output {
    place.command(&[&["verify-run", "out"], arguments].concat()).output().expect("the runner starts")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn every_method_makes_its_steps_again() {
    for case in &CASES {
        let place = Place::new();
        succeeded(&mut place.begin(case, 1, "out"), case.name);
        let before = place.outcome("out");
        let all = verify(&place, &["--from", "0"]);
        assert_eq!(all.status.code(), Some(0), "{}: {}", case.name, text(&all));
        assert!(said(&all).contains("the same to the last bit: the metrics of "), "{}", said(&all));
        let some = verify(&place, &[]);
        assert_eq!(some.status.code(), Some(0), "{}: {}", case.name, text(&some));
        assert!(said(&some).contains("out/checkpoints/step-"), "{}", said(&some));
        assert_eq!(place.outcome("out"), before, "{}: the run is left alone", case.name);
    }
}

#[test]
fn a_run_that_was_tampered_with_is_found_out() {
    let place = Place::new();
    succeeded(&mut place.begin(&CASES[0], 1, "out"), "sft");
    let change = |path: &str, with: &dyn Fn(&mut Vec<u8>), arguments: &[&str], expected: &str| {
        let kept = fs::read(place.path(path)).expect("a file");
        let mut changed = kept.clone();
        with(&mut changed);
        place.file(path, changed);
        let output = verify(&place, arguments);
        assert_eq!(output.status.code(), Some(1), "{path}: {}{}", said(&output), text(&output));
        let last = text(&output).lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("error: out: ") && last.contains(expected), "{last}");
        place.file(path, kept);
    };
    let digit = |bytes: &mut Vec<u8>| {
        // The last digit of the fourth loss.
        let text = String::from_utf8(bytes.clone()).expect("UTF-8");
        let line = text.match_indices('\n').nth(2).expect("four lines").0 + 1;
        let end = line + text[line..].find(",\"learning_rate\"").expect("a rate");
        bytes[end - 1] = if bytes[end - 1] == b'1' { b'2' } else { b'1' };
    };
    change("out/metrics.jsonl", &digit, &["--from", "0"], "step 4 left {\"step\":4,\"loss\":");
    let last = |bytes: &mut Vec<u8>| *bytes.last_mut().expect("bytes") ^= 1;
    change("out/model/model.safetensors", &last, &["--from", "0"], "model/model.safetensors came out otherwise");
    change("out/checkpoints/step-000008/weights.safetensors", &last, &[], "checkpoints/step-000008/weights.safetensors came out otherwise");
    let output = verify(&place, &["--to", "100"]);
    assert!(output.status.code() == Some(2) && text(&output).contains("out: there are no steps after"), "{}", text(&output));
}

#[test]
fn runs_are_listed_and_set_side_by_side() {
    let place = Place::new();
    succeeded(&mut place.begin(&CASES[0], 1, "runs/sft-1"), "sft");
    succeeded(&mut place.begin(&CASES[0], 2, "runs/sft-2"), "sft");
    let mut child = place.begin(&CASES[0], 2, "runs/sft-3").spawn().expect("the runner starts");
    wait_until(&mut child, || n_logged(&place.path("runs/sft-3")) >= 5);
    child.kill().expect("a process of ours");
    finished(child, None, "killed");
    let run = |arguments: &[&str]| {
        let output = place.command(arguments).output().expect("the runner starts");
        assert!(output.status.success(), "{}", text(&output));
        said(&output)
    };
    let table = run(&["runs"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("run ") && lines[1].starts_with("runs/sft-1  sft     decoder  finished "), "{table}");
    assert!(lines[1].contains("perplexity ") && lines[1].contains(" -> "), "{table}");
    assert!(lines[3].contains("at step ") && lines[3].contains("checkpoint at "), "{table}");
    let table = run(&["runs", "runs/sft-1", "runs/sft-2"]);
    let settings: Vec<&str> = table.lines().filter(|line| line.starts_with("epochs")).collect();
    let cells: Vec<Vec<&str>> = settings.iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells, [["epochs", "1", "2"]], "{table}");
    assert!(!table.contains("batch_rows"), "what is the same is left out: {table}");
    assert!(table.lines().last().is_some_and(|line| line.starts_with("perplexity  ")), "{table}");
    let output = place.command(&["runs", "decoder"]).output().expect("the runner starts");
    assert!(output.status.code() == Some(2) && text(&output).contains("decoder: no run is in it"), "{}", text(&output));
}
