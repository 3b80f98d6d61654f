//! Rewards that are not given, do not fit the rows, or fail.

use crate::support::{Place, arguments, models};
use std::fs;

const TRAIN: &str = "data.train=pairs.jsonl";
const EXACT: &str = r#"rewards=[{kind="exact", column="completion"}]"#;

fn refused(place: &Place, sets: &[&str], words: &[&str]) {
    place.refused(&arguments("rl", &models().join("decoder"), &[&[TRAIN, "sampling.max_new_tokens=4"], sets].concat()), words);
}

#[test]
fn settings_that_make_no_sense() {
    let place = Place::new();
    refused(&place, &[], &["rewards", "missing", "at least one part"]);
    refused(&place, &[EXACT, "group_size=1"], &["group_size", "found 1", "at least 2"]);
    refused(&place, &[EXACT, "policy.advantage=generalised"], &["policy.advantage", "\"ppo\""]);
    refused(&place, &[EXACT, "epochs=0"], &["epochs", "found 0"]);
    refused(&place, &[EXACT, "sampling.temperature=0.0"], &["sampling.temperature", "found 0", "more than 0"]);
    refused(&place, &[EXACT, "kl.coefficient=-1.0"], &["kl.coefficient", "found -1"]);
    refused(&place, &[EXACT, "overlong=truncate"], &["overlong", "another question"]);
    refused(&place, &[EXACT, "sampling.max_new_tokens=30"], &["pairs.jsonl:1", "32 positions", "sampling.max_new_tokens = 30"]);
    refused(&place, &[EXACT, "columns.prompt=promt"], &["pairs.jsonl", "no column \"promt\"", "did you mean columns.prompt=\"prompt\""]);
    place.refused(&arguments("rl", &models().join("encoder"), &[TRAIN, EXACT]), &["model", "an encoder"]);
}

#[test]
fn parts_of_a_reward_that_do_not_fit() {
    let place = Place::new();
    for (reward, words) in [
        (r#"{kind="exact"}"#, ["rewards[0].column", "missing"]),
        (r#"{kind="exact", column="answer"}"#, ["rewards[0].column", "no column \"answer\""]),
        (r#"{kind="numeric", column="completion"}"#, ["rewards[0].column: line ", "found \" yes\" in \"completion\", expected a number"]),
        (r#"{kind="regex", pattern="("}"#, ["rewards[0].pattern", "no regular expression"]),
        (r#"{kind="classifier", model="nowhere", label="warm"}"#, ["nowhere", "no such folder"]),
        (r#"{kind="command"}"#, ["rewards[0].command", "missing"]),
        (r#"{kind="command", command=["no-such-program-anywhere"]}"#, ["rewards[0].command", "cannot be started"]),
        (r#"{kind="exakt", column="completion"}"#, ["--set rewards=", "unknown variant `exakt`"]),
    ] {
        refused(&place, &[&format!("rewards=[{reward}]")], &words);
    }
    let classifier = format!("rewards=[{{kind=\"classifier\", model='{}', label=\"hot\"}}]", models().join("classifier").display());
    refused(&place, &[&classifier], &["rewards[0].label", "unknown label \"hot\"", "\"cold\", \"warm\""]);
}

#[cfg(unix)]
#[test]
fn programs_that_fail() {
    let place = Place::new();
    let command = |script: &str| format!("rewards=[{{kind=\"command\", command=[\"sh\", \"-c\", \"{script}\"], timeout_seconds=1.0}}]");
    for (script, words) in [
        ("echo 'no module named judge' >&2; exit 1", ["rewards[0] (command): the program ended (exit status: 1)", "no module named judge"]),
        ("sleep 30", ["rewards[0] (command): 0 numbers for 1 completions after 1 s", "timeout_seconds"]),
        ("while read -r line; do echo nan; done", ["rewards[0] (command): gave NaN", "expected a finite number"]),
        ("while read -r line; do echo fine; done", ["rewards[0] (command): wrote", "expected a number"]),
    ] {
        refused(&place, &[&command(script)], &words);
    }
    // One that works for a while: what was trained until then is kept. One held-out completion, then steps of four.
    let script = "for i in 1 2 3 4 5 6 7; do read -r line; echo $i; done; exit 4";
    let sets = [TRAIN, "sampling.max_new_tokens=4", "group_size=2", "batch_prompts=2", &command(script)];
    let output = place.run(&arguments("rl", &models().join("decoder"), &sets));
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    let line = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        line.starts_with("error: rewards[0] (command): the program ended (exit status: 4) after 2 numbers for 4 completions"),
        "{text}"
    );
    assert!(line.contains("the run goes on after step 1 with `cargo xtask resume out`"), "{text}");
    assert!(place.path("out/checkpoints/step-000001/SHA256SUMS").exists() && place.path("out/metrics.jsonl").exists());
    assert_eq!(fs::read_to_string(place.path("out/samples.jsonl")).expect("samples").lines().count(), 2);
}
