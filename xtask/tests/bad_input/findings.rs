//! What each method's pre-flight asks of its rows: faults of its training files, of the second as of the first, and nothing of good ones.

use super::preflight::rows;
use super::support::{Place, arguments, models};
use serde_json::{Value, json};

/// Texts that have nothing in common, each as `row` writes it.
fn jsonl(from: usize, n: usize, row: impl Fn(usize, String) -> Value) -> Vec<Value> {
    rows(from, n).into_iter().enumerate().map(|(index, (text, _))| row(index, text)).collect()
}

/// Good rows of a method, and how its settings name two training files and a held-out one.
struct Method {
    command: &'static str,
    model: &'static str,
    /// How a row is written.
    row: fn(usize, String) -> Value,
    sets: &'static [&'static str],
}

const FILES: [&str; 3] = ["a.jsonl", "b.jsonl", "held.jsonl"];

const METHODS: [Method; 5] = [
    Method {
        command: "sft",
        model: "decoder",
        row: |_, text| json!({"prompt": &text[..8], "completion": &text[8..]}),
        sets: &["data.train=[\"a.jsonl\", \"b.jsonl\"]", "data.held_out=held.jsonl"],
    },
    Method {
        command: "contrastive",
        model: "encoder",
        row: |index, text| json!({"anchor": text, "positive": format!("{:x}", (index + 11) * 1_299_709 % 999_983)}),
        sets: &["data.train=[\"a.jsonl\", \"b.jsonl\"]", "data.held_out=held.jsonl"],
    },
    Method {
        command: "continual",
        model: "decoder",
        row: |_, text| json!({"text": text}),
        sets: &["domains=[{name=\"law\", train=[\"a.jsonl\", \"b.jsonl\"], held_out=\"held.jsonl\"}]"],
    },
    Method {
        command: "rl",
        model: "decoder",
        row: |_, text| json!({"prompt": text, "completion": "the sea"}),
        sets: &[
            "data.train=[\"a.jsonl\", \"b.jsonl\"]",
            "data.held_out=held.jsonl",
            "rewards=[{kind=\"regex\", pattern=\"e\"}]",
            "sampling.max_new_tokens=4",
            "warm_up.epochs=1",
        ],
    },
    Method {
        command: "multitask",
        model: "encoder",
        row: |index, text| json!({"text": text, "label": if index.is_multiple_of(3) { "cold" } else { "warm" }}),
        sets: &["tasks.mood.data.train=[\"a.jsonl\", \"b.jsonl\"]", "tasks.mood.data.held_out=held.jsonl"],
    },
];

impl Place {
    fn lines(&self, name: &str, rows: &[Value]) {
        self.file(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    }

    /// The findings that `plan` prints for good rows that `spoil` has spoilt: those of the two training files and the held-out ones.
    fn found(&self, method: &Method, more: &[&str], spoil: impl Fn(&mut [Vec<Value>; 3])) -> Vec<String> {
        let mut files = [(0, 150), (150, 150), (5000, 100)].map(|(from, n)| jsonl(from, n, method.row));
        spoil(&mut files);
        FILES.iter().zip(&files).for_each(|(name, rows)| self.lines(name, rows));
        let sets: Vec<&str> = method.sets.iter().chain(more).copied().collect();
        let mut plan = arguments(method.command, &models().join(method.model), &sets);
        plan.insert(0, "plan".to_owned());
        let output = self.run(&plan);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{plan:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let findings = text.lines().skip_while(|line| !line.starts_with("time ")).skip(1).map(str::to_owned);
        findings.filter(|line| line != "findings       none").collect()
    }
}

/// What is expected of a fault: the finding's name, and words of it.
fn expect(method: &Method, fault: &str, found: &[String], expected: &[&[&str]]) {
    let case = format!("{}, {fault}: {found:#?}", method.command);
    assert_eq!(found.len(), expected.len(), "{case}");
    for (line, words) in found.iter().zip(expected) {
        assert!(line.starts_with(words[0]), "{case}");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} of {case}");
    }
}

#[test]
fn good_rows_of_every_method_are_quiet() {
    for method in &METHODS {
        let found = Place::new().found(method, &[], |_| {});
        expect(method, "nothing", &found, &[]);
    }
}

#[test]
fn a_second_file_that_repeats_the_first() {
    for method in &METHODS {
        let found = Place::new().found(method, &[], |[first, second, _]| second.clone_from(first));
        let told: &[&[&str]] = &[&["duplicate-rows: 150 of 300 training rows", "45 %", "b.jsonl:1 (a.jsonl:1)"]];
        // A prompt may be asked again.
        expect(method, "the same rows", &found, if method.command == "rl" { &[] } else { told });
    }
}

#[test]
fn held_out_rows_of_the_second_file() {
    for method in &METHODS {
        let found = Place::new().found(method, &[], |[_, second, held_out]| held_out[20..40].clone_from_slice(&second[..20]));
        expect(method, "leaked rows", &found, &[&["leaked-rows: 20 of 100 held-out rows", "5 %", "held.jsonl:21 (b.jsonl:1)"]]);
    }
}

#[test]
fn few_held_out_rows() {
    for method in &METHODS {
        let found = Place::new().found(method, &[], |[_, _, held_out]| held_out.truncate(40));
        expect(method, "40 held-out rows", &found, &[&["few-held-out-rows: 40 rows are held out, fewer than 100", "±15 points"]]);
    }
}

#[test]
fn special_tokens_in_the_second_file() {
    for method in &METHODS {
        let found = Place::new().found(method, &[], |[_, second, _]| {
            let text = second[6].as_object_mut().and_then(|row| row.values_mut().next()).expect("a text");
            *text = json!(format!("{} </s>", text.as_str().expect("a text")));
        });
        expect(method, "a special token", &found, &[&["special-tokens: 1 of 400 rows", "\"</s>\" (b.jsonl:7)", "the limit is 0"]]);
    }
}

#[test]
fn long_rows_of_the_second_file() {
    for method in &METHODS {
        let more: &[&str] = if method.command == "rl" { &["overlong=drop", "warm_up.epochs=0"] } else { &["overlong=drop"] };
        let found = Place::new().found(method, more, |[_, second, _]| {
            for row in second.iter_mut().take(4) {
                let text = row.as_object_mut().and_then(|row| row.values_mut().next()).expect("a text");
                *text = json!(text.as_str().expect("a text").repeat(4));
            }
        });
        expect(
            method,
            "long rows",
            &found,
            &[&["cut-tokens: 4 of 150 rows are left out", "2.7 %", "1 %", "b.jsonl:1, b.jsonl:2, b.jsonl:3"]],
        );
    }
}

/// What is asked of classes, and of completions before rewards.
#[test]
fn faults_that_only_one_method_can_have() {
    let of = |command: &str| METHODS.iter().find(|method| method.command == command).expect("a method");
    let multitask = of("multitask");
    let label = |row: &mut Value, label: &str| row["label"] = json!(label);
    let found = Place::new().found(multitask, &[], |[first, second, _]| {
        second[..40].clone_from_slice(&first[..40]);
        second[..40].iter_mut().for_each(|row| label(row, if row["label"] == "cold" { "warm" } else { "cold" }));
    });
    expect(multitask, "conflicts", &found, &[&["conflicting-labels: 40 of 300", "10 %", "b.jsonl:1 (a.jsonl:1)"]]);
    let found = Place::new().found(multitask, &[], |[first, second, held_out]| {
        first.iter_mut().chain(second).skip(2).for_each(|row| label(row, "warm"));
        held_out.iter_mut().for_each(|row| label(row, "warm"));
    });
    expect(multitask, "one side", &found, &[&["one-sided-labels: 299 of 300", "95 %"]]);
    let rl = of("rl");
    let found = Place::new().found(rl, &["update.learning_rate=0.1", "warm_up.update.learning_rate=0.2"], |_| {});
    let rate = "learning-rate: update.learning_rate is 1e-1";
    expect(rl, "rates", &found, &[&[rate], &["learning-rate: warm_up.update.learning_rate is 2e-1"]]);
}

/// Only of the file that has the fault.
#[test]
fn completions_of_the_second_file_that_never_end() {
    let place = Place::new();
    let row = |_, text: String| json!({"prompt": &text[..6], "completion": &text[6..]});
    place.lines("a.jsonl", &jsonl(0, 150, row));
    let long = jsonl(150, 30, |_, text| json!({"prompt": &text[..6], "completion": text.repeat(4)}));
    place.lines("b.jsonl", &long);
    place.lines("held.jsonl", &jsonl(5000, 100, row));
    let sets = ["data.train=[\"a.jsonl\", \"b.jsonl\"]", "data.held_out=held.jsonl", "overlong=truncate"];
    let output = place.run(&arguments("sft", &models().join("decoder"), &sets));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    for words in ["cut-tokens: 30 of 30 rows are cut", "b.jsonl:1", "stop-token-untrained: in 30 of 30 rows of b.jsonl"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("a.jsonl"), "the first file is good: {text}");
}
