//! `cargo xtask verify-run`: makes some steps of a run once more and compares what comes of them with what the run left.

use crate::resume::go_on;
use clap::Args;
use kiln_core::files::{TEMPORARY, sha256};
use kiln_core::{Error, Result};
use kiln_train::checkpoint;
use kiln_train::manifest::{CONFIG_FILE, MANIFEST_FILE, Manifest};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What `verify-run` takes.
#[derive(Args, Debug)]
pub struct VerifyRunArgs {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Steps after this one, from the last checkpoint before it [default: that of the oldest checkpoint kept]
    #[arg(long, value_name = "STEP")]
    from: Option<usize>,
    /// Steps up to this one [default: the last]
    #[arg(long, value_name = "STEP")]
    to: Option<usize>,
}

/// Files that a checkpoint needs beside it, or that grow with the run.
const KEPT: [&str; 5] = [CONFIG_FILE, MANIFEST_FILE, "metrics.jsonl", "samples.jsonl", "stages"];

/// Replays steps in a folder of its own, and says whether the losses and the weights are the same to the last bit.
///
/// # Errors
/// [`Error::Unmet`] if they are not; [`Error::Config`] if there is no run, something it reads was changed, or there are no such steps.
pub fn run(VerifyRunArgs { run, from, to }: &VerifyRunArgs) -> Result<()> {
    Manifest::read(run)?.check(run)?;
    let recorded = lines(run)?;
    let last = recorded.keys().next_back().copied().unwrap_or(0);
    let to = to.unwrap_or(last);
    let kept = checkpoint::list(run)?;
    let from = from.unwrap_or_else(|| kept.first().map_or(0, |(step, _)| *step).min(to.saturating_sub(1)));
    if from >= to || to > last {
        let message = format!("there are no steps after {from} up to {to}: the run has {last}");
        return Err(Error::config(run.display().to_string(), message));
    }
    let start = kept.iter().rev().find(|(step, _)| *step <= from);
    let first = start.map_or(0, |(step, _)| *step);
    let replay = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(run).map_err(|source| Error::io(run, source))?;
    let again = replay.path();
    for path in KEPT.iter().map(Path::new).chain(start.map(|(_, path)| path.strip_prefix(run).expect("it is in the run"))) {
        link(&run.join(path), &again.join(path))?;
    }
    println!("steps {} to {to}, from {}", first + 1, start.map_or("the start".to_owned(), |(_, path)| path.display().to_string()));

    let mut n_weights = 0;
    let ends = kept.iter().map(|(step, _)| *step).filter(|step| (first + 1..to).contains(step)).chain([to]);
    // A finished run ends by itself, perhaps before its last step; of one with tasks alone the common part is made.
    let is_whole = run.join("results.json").exists() && !run.join("alone").exists();
    for end in ends {
        match go_on(again, (end < last || !is_whole).then_some(end)) {
            Ok(_) => {}
            Err(Error::Interrupted { step, .. }) if step == end => {}
            Err(Error::Interrupted { .. }) => return Err(unmet(run, "the replay was interrupted, nothing is known".into())),
            Err(error) => return Err(error),
        }
        let name = Path::new("checkpoints").join(format!("step-{end:06}/weights.safetensors"));
        n_weights += compare(run, again, &name)?;
    }
    for name in ["model", "adapter", "adapters"] {
        let is_weights = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
        for path in files(&again.join(name)).into_iter().filter(is_weights) {
            n_weights += compare(run, again, path.strip_prefix(again).expect("it is inside"))?;
        }
    }
    let replayed = lines(again)?;
    let mut n_lines = 0;
    for (step, expected) in recorded.range(first + 1..=to) {
        let found = replayed.get(step).map_or("nothing", String::as_str);
        if found != expected {
            return Err(unmet(run, format!("step {step} left {}, and now {}", expected.trim_end(), found.trim_end())));
        }
        n_lines += 1;
    }
    println!("the same to the last bit: the metrics of {n_lines} steps, {n_weights} files of weights");
    Ok(())
}

fn unmet(run: &Path, message: String) -> Error {
    Error::Unmet { message: format!("{}: {message}", run.display()) }
}

/// Whether a file of the run has the bytes that it has in the replay: 1, or 0 if one of them is not there.
fn compare(run: &Path, again: &Path, name: &Path) -> Result<usize> {
    let [left, now] = [run, again].map(|folder| folder.join(name));
    if !left.exists() || !now.exists() {
        return Ok(0);
    }
    match sha256(&left)? == sha256(&now)? {
        true => Ok(1),
        false => Err(unmet(run, format!("{} came out otherwise", name.display()))),
    }
}

/// The metrics of each step, evaluations too, without the times.
fn lines(run: &Path) -> Result<BTreeMap<usize, String>> {
    let path = run.join("metrics.jsonl");
    let text = fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
    let mut lines: BTreeMap<usize, String> = BTreeMap::new();
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        // The text itself: a reader of decimals may lose the last bit.
        let parts: Vec<&str> = line.split(',').filter(|part| !part.starts_with("\"seconds\":")).collect();
        let step = parts[0].trim_start_matches("{\"step\":").trim_end_matches(['}', '\n']);
        let step = step.parse().map_err(|_| Error::data(&path, None, format!("no step in {line:?}")))?;
        *lines.entry(step).or_default() += &parts.join(",");
    }
    Ok(lines)
}

/// Every file in `folder` and in the folders inside.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Gives a file, or each file of a folder, a second name where the system can, or else copies it. Logs are copied: they grow in place.
fn link(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        return files(from).iter().try_for_each(|file| link(file, &to.join(file.strip_prefix(from).expect("it is inside"))));
    }
    let attempt = || {
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        let is_log = from.extension().is_some_and(|extension| extension == "jsonl");
        match is_log || fs::hard_link(from, to).is_err() {
            true => fs::copy(from, to).map(|_| ()),
            false => Ok(()),
        }
    };
    if from.exists() { attempt().map_err(|source| Error::io(to, source)) } else { Ok(()) }
}
