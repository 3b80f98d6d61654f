//! Several files with weights whose rows are kept on disk: the same run as from memory, killed and gone on with.

use crate::support::{Case, Place, n_logged, succeeded};
use crate::{assert_same, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Every way that rows come to be.
const CASES: [Case; 7] = [
    Case {
        name: "sft",
        command: "sft",
        sets: &["model=decoder", "data.train=[{path=\"pairs.jsonl\", weight=0.5}, {path=\"more.jsonl\", weight=1.5}]", "batch_rows=8"],
    },
    Case {
        name: "sft of classes",
        command: "sft",
        sets: &[
            "model=encoder",
            "task=classification",
            "data.train=[\"topics.tsv\", {path=\"topics.jsonl\", weight=2.0}]",
            "batch_tokens=80",
        ],
    },
    Case {
        name: "sft of preferences",
        command: "sft",
        sets: &["model=decoder", "task=preference", "data.train=[{path=\"better.jsonl\", weight=0.5}, \"worse.jsonl\"]", "batch_rows=8"],
    },
    Case {
        name: "contrastive",
        command: "contrastive",
        sets: &["model=encoder", "data.train=[{path=\"likes.jsonl\", weight=0.5}, {path=\"alike.jsonl\", weight=1.5}]", "batch_rows=8"],
    },
    Case {
        name: "continual",
        command: "continual",
        sets: &[
            "model=encoder",
            "objective=mlm",
            "domains=[{train=[{path=\"texts.jsonl\", weight=0.5}, \"words.jsonl\"]}, {train=\"texts.jsonl\", name=\"again\"}]",
            "batch_rows=8",
            "replay.share=0.3",
            "ewc.strength=5.0",
            "ewc.rows=8",
        ],
    },
    Case {
        name: "rl after a warm-up",
        command: "rl",
        sets: &[
            "model=decoder",
            "algorithm=reinforce",
            "data.train=[{path=\"pairs.jsonl\", weight=0.5}, {path=\"more.jsonl\", weight=1.5}]",
            "rewards=[{kind=\"regex\", pattern=\"[aeiou]\"}]",
            "batch_prompts=8",
            "group_size=2",
            "sampling.max_new_tokens=4",
            "warm_up.epochs=1",
            "warm_up.batch_rows=16",
        ],
    },
    Case {
        name: "multitask",
        command: "multitask",
        sets: &[
            "model=encoder",
            "tasks.topics.data.train=[\"topics.tsv\", {path=\"topics.jsonl\", weight=0.5}]",
            "tasks.texts.kind=masked-token",
            "tasks.texts.data.train=[{path=\"texts.jsonl\", weight=1.5}, \"words.jsonl\"]",
            "batch_rows=16",
        ],
    },
];

impl Place {
    /// Files of other layouts, of the sentences there are.
    fn more_files(&self) {
        let read = |name: &str| fs::read_to_string(self.path(name)).expect("a file").lines().map(str::to_owned).collect::<Vec<_>>();
        let (lines, more) = (read("lines.txt"), read("more.txt"));
        let write = |name: &str, row: &dyn Fn(usize, &String) -> Value, lines: &[String]| {
            self.file(name, lines.iter().enumerate().map(|(index, line)| format!("{}\n", row(index, line))).collect::<String>());
        };
        let other = |index: usize| &more[(index * 7 + 3) % more.len()];
        write("more.jsonl", &|_, line| json!({"prompt": &line[..10], "completion": &line[10..]}), &more);
        write("topics.jsonl", &|_, line| json!({"text": line, "label": if line.contains("sea") { "cold" } else { "warm" }}), &lines);
        for (name, lines) in [("better.jsonl", &lines), ("worse.jsonl", &more)] {
            write(
                name,
                &|index, line| json!({"prompt": &line[..8], "chosen": &line[8..], "rejected": format!("{} no", other(index))}),
                lines,
            );
        }
        for (name, lines) in [("likes.jsonl", &lines), ("alike.jsonl", &more)] {
            write(name, &|index, line| json!({"anchor": line, "positive": other(index)}), lines);
        }
        for (name, lines) in [("texts.jsonl", &lines), ("words.jsonl", &more)] {
            write(name, &|_, line| json!({"text": line}), lines);
        }
    }

    /// Rows on disk, of files of any size.
    fn cached(&self, mut command: Command) -> Command {
        command.env("KILN_CACHE", self.path("cache")).env("KILN_CACHE_ABOVE_MIB", "0");
        command
    }

    fn n_kept(&self) -> usize {
        let entries = fs::read_dir(self.path("cache")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rows")).count()
    }
}

#[test]
fn mixed_rows_on_disk_are_those_in_memory_and_go_on() {
    for (index, case) in CASES.iter().enumerate() {
        let place = Place::new();
        place.more_files();
        let mut whole = place.begin(case, 2, "out");
        // What the model says of preferences before training depends in its last bits on which rows are in a pass: those of a part, or of all.
        let is_cached = case.name == "sft of preferences";
        if is_cached {
            whole = place.cached(whole);
        }
        let said = succeeded(&mut whole, case.name);
        assert!(said.contains(".jsonl: ") && said.contains("become tokens") == is_cached, "{}: {said}", case.name);
        let expected = place.outcome("out");
        fs::remove_dir_all(place.path("out")).expect("removed");
        assert_eq!(place.n_kept() > 0, is_cached);
        let mut child = place.cached(place.begin(case, 2, "out")).spawn().expect("the runner starts");
        wait_until(&mut child, || n_logged(&place.path("out")) >= 4);
        child.kill().expect("a process of ours");
        child.wait().expect("it ends");
        assert!(!place.path("out/results.json").exists(), "{}: killed too late", case.name);
        let n_kept = place.n_kept();
        assert!(n_kept >= 3, "{}: {n_kept} files of rows", case.name);
        // What the cache has is not made again, and it may be gone.
        if index % 2 == 0 {
            fs::remove_dir_all(place.path("cache")).expect("removed");
        }
        let said = succeeded(&mut place.cached(place.resume("out")), case.name);
        assert_eq!(said.contains("become tokens"), index % 2 == 0, "{}: {said}", case.name);
        assert_eq!(place.n_kept(), n_kept, "{}", case.name);
        assert_same(&place.outcome("out"), &expected, case.name);
    }
}
