//! Runs that are killed, interrupted, or meet a full disk, and go on: what they leave is what they would have left without the break.
#![cfg(unix)]

mod large;
mod mixed;
mod refused;
mod replayed;
mod support;

use kiln_kernels::random::Key;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;
use support::{CASES, Case, Place, finished, n_logged, succeeded, text};

/// `cargo xtask test --long` sets it.
fn is_long() -> bool {
    std::env::var_os("KILN_LONG_TESTS").is_some()
}

/// Whether a checkpoint is being written in a run or a part of it.
fn is_writing(folder: &Path) -> bool {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let is_temporary = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".kiln-"));
    let parts = entries(&folder.join("alone"));
    parts.iter().map(PathBuf::as_path).chain([folder]).any(|part| entries(&part.join("checkpoints")).iter().any(is_temporary))
}

/// Waits until `is_so` or the process has ended.
fn wait_until(child: &mut Child, mut is_so: impl FnMut() -> bool) {
    while !is_so() && child.try_wait().expect("a process").is_none() {
        sleep(Duration::from_micros(200));
    }
}

fn assert_same(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>, case: &str) {
    let differ = |path: &&PathBuf| found.get(*path) != expected.get(*path);
    let different: Vec<&PathBuf> = expected.keys().chain(found.keys()).filter(differ).collect();
    assert!(different.is_empty(), "{case}: {different:?} differ from those of the run without a break");
}

/// Kills a run of `case` at `n_kills` moments that `key` draws over its steps, every third in the middle of writing a checkpoint, and compares
/// what it leaves in the end with what a run without a break left. Returns how many kills met a process that was at work, and how many of them
/// left a checkpoint half written.
fn kill(place: &Place, case: &Case, n_epochs: usize, n_kills: usize, key: Key) -> [usize; 2] {
    let out = case.name;
    let folder = place.path(out);
    succeeded(&mut place.begin(case, n_epochs, out), case.name);
    let (expected, n_lines) = (place.outcome(out), n_logged(&folder));
    assert!(expected.keys().any(|path| path.ends_with("model/model.safetensors")), "{:?}", expected.keys());
    let mut targets: Vec<usize> = (0..n_kills as u64).map(|index| 1 + key.below(index, n_lines as u64 - 1) as usize).collect();
    targets.sort_unstable();
    // Under the same name, which an adapter of a later domain knows its base by.
    fs::remove_dir_all(&folder).expect("removed");
    let go = || if folder.join("manifest.json").exists() { place.resume(out) } else { place.begin(case, n_epochs, out) };
    let (mut n_killed, mut n_torn) = (0, 0);
    for (index, target) in targets.into_iter().enumerate() {
        let mut child = go().spawn().expect("the runner starts");
        wait_until(&mut child, || n_logged(&folder) >= target);
        if index % 3 == 0 {
            wait_until(&mut child, || is_writing(&folder));
        } else {
            sleep(Duration::from_micros(key.fold(1).below(index as u64, 20_000)));
        }
        child.kill().expect("a process of ours");
        let output = child.wait_with_output().expect("it ends");
        match (output.status.signal(), output.status.code()) {
            (Some(9), _) => n_killed += 1,
            (_, Some(0)) => break,
            _ => panic!("{}: {}\n{}", case.name, output.status, text(&output)),
        }
        n_torn += usize::from(is_writing(&folder));
    }
    if !folder.join("results.json").exists() {
        succeeded(&mut go(), case.name);
    }
    assert_same(&place.outcome(out), &expected, case.name);
    assert!(!is_writing(&folder), "{}: what was half written is gone", case.name);
    println!("{}: {n_lines} lines, killed {n_killed} times, {n_torn} times while a checkpoint was written", case.name);
    [n_killed, n_torn]
}

#[test]
fn killed_runs_go_on() {
    let place = Place::new();
    let mut total = [0, 0];
    for (index, case) in CASES.iter().enumerate() {
        let [n_killed, n_torn] = match is_long() {
            // At least 200 steps of each.
            true => kill(&place, case, 30, 50, Key::new(index as u64)),
            false => kill(&place, case, 2, 2, Key::new(index as u64)),
        };
        total = [total[0] + n_killed, total[1] + n_torn];
    }
    assert!(total[0] >= if is_long() { 50 * CASES.len() } else { 5 }, "{total:?}");
    assert!(total[1] > 0, "no kill met a checkpoint that was being written");
}

#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let place = Place::new();
    for case in &CASES[..1] {
        succeeded(&mut place.begin(case, 2, "whole"), case.name);
        let mut child = place.begin(case, 2, "out").spawn().expect("the runner starts");
        wait_until(&mut child, || n_logged(&place.path("out")) >= 3);
        let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill starts");
        assert!(status.success());
        let said = text(&finished(child, Some(130), case.name));
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("error: interrupted after step ") && last.ends_with("; it goes on with `cargo xtask resume out`"),
            "{said}"
        );
        let said = succeeded(&mut place.resume("out"), case.name);
        assert!(said.contains("going on after step "), "{said}");
        assert_same(&place.outcome("out"), &place.outcome("whole"), case.name);
    }
}

/// A limit on the size of files stands for a full disk: the system refuses to write on in the same place.
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let place = Place::new();
    let case = &CASES[0];
    succeeded(&mut place.begin(case, 2, "whole"), case.name);
    let mut child = place.begin(case, 2, "out").spawn().expect("the runner starts");
    wait_until(&mut child, || n_logged(&place.path("out")) >= 4);
    child.kill().expect("a process of ours");
    child.wait().expect("it ends");
    let before = support::files(&place.path("out/checkpoints"));
    let newest = before.iter().filter(|path| path.ends_with("state.toml")).max().expect("a checkpoint").clone();
    let state = fs::read(&newest).expect("a file");
    let limited = Command::new("sh")
        .current_dir(place.path(""))
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" resume out", env!("CARGO_BIN_EXE_xtask")])
        .output()
        .expect("sh starts");
    let said = text(&limited);
    assert_eq!(limited.status.code(), Some(2), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: out/checkpoints/step-") && last.contains("File too large"), "{said}");
    assert!(last.ends_with("the checkpoint before is as it was: make room, then `cargo xtask resume out`"), "{said}");
    assert_eq!(fs::read(newest).expect("a file"), state);
    assert!(!is_writing(&place.path("out")));
    succeeded(&mut place.resume("out"), case.name);
    assert_same(&place.outcome("out"), &place.outcome("whole"), case.name);
}
