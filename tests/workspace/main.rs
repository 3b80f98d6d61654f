//! The rules of the house that concern the workspace as a whole: what every file must have, and what none may.

mod source;

use serde_json::Value;
use source::{code_only, has_word};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_LINES: usize = 500;

/// Who may use whom, directly; through these a crate may use all that they may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("kiln-kernels", &[]),
    ("kiln-core", &["kiln-kernels"]),
    ("kiln-data", &["kiln-core"]),
    ("kiln-train", &["kiln-data"]),
    ("kiln-verify", &["kiln-train"]),
    ("kiln-eval", &[]),
    ("kiln-audit", &["kiln-train", "kiln-eval"]),
    ("kiln-sft", &["kiln-train", "kiln-eval"]),
    ("kiln-contrastive", &["kiln-train", "kiln-eval"]),
    ("kiln-rl", &["kiln-train", "kiln-eval"]),
    ("kiln-continual", &["kiln-train", "kiln-eval"]),
    ("kiln-multitask", &["kiln-train", "kiln-eval"]),
    ("xtask", &["kiln-sft", "kiln-contrastive", "kiln-rl", "kiln-continual", "kiln-multitask", "kiln-audit", "kiln-verify"]),
    ("kiln-tests", &["xtask"]),
];

#[test]
fn every_file_opens_with_its_subject() {
    let is_subject = |line: &str| line.strip_prefix("//! ").is_some_and(|subject| !subject.trim().is_empty());
    let broken = rust_files().into_iter().filter(|file| !file.text.lines().next().is_some_and(is_subject));
    assert_none("the first line must be `//! <the subject of the file>`", broken.map(|file| format!("{}:1", file.path)));
}

#[test]
fn no_file_is_too_long() {
    let too_long = rust_files().into_iter().filter_map(|file| {
        let n_lines = file.text.lines().count();
        (n_lines > MAX_LINES).then(|| format!("{}:{n_lines}: {n_lines} lines", file.path))
    });
    assert_none(&format!("a file has at most {MAX_LINES} lines; split it by subject"), too_long);
}

#[test]
fn crates_depend_only_on_crates_to_their_left() {
    let may_use: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut broken = Vec::new();
    for package in packages() {
        let name = text(&package["name"]);
        let manifest = relative(Path::new(text(&package["manifest_path"])));
        let Some(left) = may_use.get(name) else {
            broken.push(format!("{manifest}: {name} is not in the table of this test"));
            continue;
        };
        let allowed = reachable(left, &may_use);
        // Only dependencies inside the workspace have a path.
        for dependency in package["dependencies"].as_array().into_iter().flatten().filter(|dependency| dependency["path"].is_string()) {
            let used = text(&dependency["name"]);
            if !allowed.contains(used) {
                broken.push(format!("{manifest}: {name} uses {used}; allowed are {allowed:?}"));
            }
        }
    }
    assert_none("what two crates need moves down, see the dependency table", broken);
}

#[test]
fn unsafe_stays_in_the_kernels() {
    let outside = rust_files().into_iter().filter(|file| !file.path.starts_with("crates/kernels/"));
    assert_none("`unsafe` belongs in crates/kernels", outside.flat_map(|file| file.lines_with(&["unsafe"])));
}

#[test]
fn nothing_is_left_undone() {
    let words = ["#[ignore", "todo!", "unimplemented!", "dbg!"];
    assert_none("finish it or take it out", rust_files().iter().flat_map(|file| file.lines_with(&words)));
}

#[test]
fn every_objective_names_its_source() {
    let is_objective = |path: &str| {
        let path = Path::new(path);
        path.file_name().is_some_and(|name| name == "objective.rs")
            || path.parent().is_some_and(|folder| folder.components().any(|part| part.as_os_str() == "objective"))
    };
    let names_source = |line: &str| {
        let comment = line.trim_start();
        comment.starts_with("//") && comment.split_once("Source:").is_some_and(|(_, source)| !source.trim().is_empty())
    };
    // A `mod.rs` that only lists the objectives has no function and no source.
    let has_maths = |file: &File| is_objective(&file.path) && has_word(&code_only(&file.text), "fn");
    let silent = rust_files().into_iter().filter(|file| has_maths(file) && !file.text.lines().any(names_source));
    assert_none("an objective says `Source: <paper>, Eq. <number>`", silent.map(|file| format!("{}:1", file.path)));
}

#[test]
fn no_file_knows_a_machine() {
    // Put together here, so that this file keeps the rule too.
    let folders = ["work", "root", "tmp"].map(|folder| format!("/{folder}/"));
    let is_inside_path = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "._-~}".contains(c));
    let mut broken = Vec::new();
    for file in files() {
        for (index, line) in file.text.lines().enumerate() {
            let is_machine = |folder: &String| line.match_indices(folder.as_str()).any(|(start, _)| !is_inside_path(&line[..start]));
            if let Some(folder) = folders.iter().find(|folder| is_machine(folder)) {
                broken.push(format!("{}:{}: {folder}", file.path, index + 1));
            }
        }
    }
    assert_none("a path of one machine means nothing on another; make it relative or an argument", broken);
}

#[test]
fn every_fixture_has_its_generator() {
    let paths = paths();
    // A fixture is a file or a folder, named as its generator is.
    let stems = |folder: &str| -> BTreeSet<PathBuf> {
        let inside = paths.iter().filter_map(|path| path.strip_prefix(folder).ok()?.iter().next());
        inside.map(|entry| Path::new(entry).with_extension("")).collect()
    };
    let generators = stems("tests/golden/generate");
    let orphans = stems("tests/golden/fixtures").into_iter().filter(|stem| !generators.contains(stem));
    let orphans = orphans.map(|stem| format!("tests/golden/fixtures/{}", stem.display()));
    assert_none("a fixture travels with tests/golden/generate/<same name>.py", orphans);
}

/// A text file of the repository; `path` is relative to its root.
struct File {
    path: String,
    text: String,
}

impl File {
    /// `path:line: word` for every line whose code has one of the words.
    fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let code = code_only(&self.text);
        let hit = |(index, line)| words.iter().find(|word| has_word(line, word)).map(|word| format!("{}:{}: {word}", self.path, index + 1));
        code.lines().enumerate().filter_map(hit).collect()
    }
}

fn assert_none(rule: &str, broken: impl IntoIterator<Item = String>) {
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the workspace")
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn rust_files() -> Vec<File> {
    let files: Vec<File> = files().into_iter().filter(|file| file.path.ends_with(".rs")).collect();
    assert!(!files.is_empty(), "no Rust file found under {}", root().display());
    files
}

/// Files that are not UTF-8 are data and left out.
fn files() -> Vec<File> {
    let read = |path: PathBuf| Some(File { text: fs::read_to_string(root().join(&path)).ok()?, path: path.display().to_string() });
    paths().into_iter().filter_map(read).collect()
}

/// What git tracks or would track; in a copy without git, all but build output.
fn paths() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root()).output();
    let mut paths: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(PathBuf::from).collect()
        }
        _ => walk(root()).into_iter().map(|path| PathBuf::from(relative(&path))).collect(),
    };
    // A deleted file is listed until the deletion is committed.
    paths.retain(|path| root().join(path).is_file());
    paths.sort();
    paths
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path());
    let wanted = paths.filter(|path| !path.ends_with("target") && !path.ends_with(".git"));
    wanted.flat_map(|path| if path.is_dir() && !path.is_symlink() { walk(&path) } else { vec![path] }).collect()
}

/// The packages of the workspace as `cargo metadata` lists them.
fn packages() -> Vec<Value> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo starts");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("cargo metadata lists packages").clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string in cargo metadata")
}

/// `direct` and all that they may use.
fn reachable<'a>(direct: &[&'a str], may_use: &BTreeMap<&'a str, &'a [&'a str]>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = direct.to_vec();
    while let Some(name) = open.pop() {
        if reached.insert(name) {
            open.extend(may_use[name]);
        }
    }
    reached
}
