//! `cargo xtask runs`: what runs there are, and how some of them differ.

use crate::sft::number;
use clap::Args;
use kiln_core::files::read_json;
use kiln_core::{Error, Result};
use kiln_train::checkpoint;
use kiln_train::manifest::{CONFIG_FILE, MANIFEST_FILE, Manifest};
use kiln_train::run::read_metrics;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What `runs` takes.
#[derive(Args, Debug)]
pub struct RunsArgs {
    /// A folder of runs to list, or runs to compare
    #[arg(value_name = "DIR", default_value = "runs")]
    folders: Vec<PathBuf>,
}

/// Lists the runs in a folder, or compares runs.
///
/// # Errors
/// If there is no run, or a file of one is damaged.
pub fn run(RunsArgs { folders }: &RunsArgs) -> Result<()> {
    match &folders[..] {
        [folder] if !is_run(folder) => list(folder),
        runs => compare(&runs.iter().map(|run| Record::read(run)).collect::<Result<Vec<_>>>()?),
    }
}

fn is_run(folder: &Path) -> bool {
    folder.join(MANIFEST_FILE).exists()
}

/// What is known of a run.
struct Record {
    name: String,
    method: String,
    settings: BTreeMap<String, String>,
    state: String,
    /// Of each figure its name, and its value before, if it is known, and after.
    figures: Vec<(String, Option<f64>, f64)>,
    seconds: f64,
}

impl Record {
    fn read(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let path = folder.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
        let config: toml::Table = toml::from_str(&text).map_err(|error| Error::data(&path, None, error.message()))?;
        let metrics = folder.join("metrics.jsonl");
        let lines = if metrics.exists() { read_metrics(&metrics)? } else { Vec::new() };
        let last = lines.last();
        let results = folder.join("results.json");
        let (state, figures) = if results.exists() {
            ("finished".to_owned(), figures(&read_json(&results)?))
        } else {
            let step = last.map_or(0, |line| line.step);
            let kept = checkpoint::list(folder)?.last().map_or("no checkpoint".to_owned(), |(step, _)| format!("checkpoint at {step}"));
            let loss = |line: &kiln_train::run::Line| line.values.get("loss").and_then(Value::as_f64);
            let (first, latest) = (lines.iter().find_map(loss), lines.iter().rev().find_map(loss));
            (format!("at step {step}, {kept}"), latest.map(|latest| ("loss".to_owned(), first, latest)).into_iter().collect())
        };
        let mut settings = BTreeMap::new();
        flatten("", &toml::Value::Table(config), &mut settings);
        let (name, seconds) = (folder.display().to_string(), last.map_or(0.0, |line| line.seconds));
        Ok(Self { name, method: manifest.method, settings, state, figures, seconds })
    }
}

/// Every setting by its whole key.
fn flatten(key: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            let inner = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
            table.iter().for_each(|(name, value)| flatten(&inner(name), value, into));
        }
        value => {
            into.insert(key.to_owned(), value.to_string());
        }
    }
}

/// The figures of a finished run, whatever its method, the one that it is judged by first.
fn figures(results: &Value) -> Vec<(String, Option<f64>, f64)> {
    let of = |evaluation: &Value| -> Vec<(String, f64)> {
        let figure = |value: &Value| Some((value["metric"].as_str()?.to_owned(), value["value"].as_f64()?));
        let several = ["figures", "others"].into_iter().filter_map(|key| evaluation[key].as_array()).flatten();
        [evaluation, &evaluation["reward"]].into_iter().chain(several).filter_map(figure).collect()
    };
    let pairs = |prefix: &str, whole: &Value| -> Vec<(String, Option<f64>, f64)> {
        let (before, after) = (of(&whole["before"]), of(&whole["after"]));
        let pair = |((name, before), (_, after)): ((String, f64), (String, f64))| (format!("{prefix}{name}"), Some(before), after);
        before.into_iter().zip(after).map(pair).collect()
    };
    let mut found = pairs("", results);
    for (name, task) in results["tasks"].as_object().into_iter().flatten() {
        found.extend(pairs(&format!("{name} "), task));
    }
    if let Some([first, .., last]) = results["matrix"].as_array().map(Vec::as_slice) {
        for (name, figure) in first.as_object().into_iter().flatten() {
            if let (Some(before), Some(after)) = (figure["value"].as_f64(), last[name]["value"].as_f64()) {
                found.push((format!("{name} {}", figure["metric"].as_str().unwrap_or_default()), Some(before), after));
            }
        }
    }
    found
}

fn list(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_run(path)).collect();
    folders.sort();
    let mut rows = vec![["run", "method", "model", "state", "figure", "time"].map(str::to_owned).to_vec()];
    for folder in &folders {
        let Record { name, method, settings, state, figures, seconds } = Record::read(folder)?;
        let model = settings.get("model").map_or("", |model| model.trim_matches(['"', '\'']));
        let model = Path::new(model).file_name().unwrap_or_default().to_string_lossy().into_owned();
        rows.push(vec![name, method, model, state, figures.first().map_or(String::new(), change), format!("{seconds:.0} s")]);
    }
    if folders.is_empty() {
        return Err(Error::config(folder.display().to_string(), "no run is in it: name another folder"));
    }
    print(&rows);
    Ok(())
}

/// `accuracy 0.5 -> 0.8`.
fn change((name, before, after): &(String, Option<f64>, f64)) -> String {
    let before = before.map_or(String::new(), |before| format!("{} -> ", number(before)));
    format!("{name} {before}{}", number(*after))
}

fn compare(runs: &[Record]) -> Result<()> {
    let mut rows = vec![[String::new()].into_iter().chain(runs.iter().map(|run| run.name.clone())).collect::<Vec<_>>()];
    let mut row = |name: &str, cell: &dyn Fn(&Record) -> String| {
        rows.push([name.to_owned()].into_iter().chain(runs.iter().map(cell)).collect());
    };
    row("method", &|run| run.method.clone());
    row("state", &|run| run.state.clone());
    row("time", &|run| format!("{:.0} s", run.seconds));
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    for key in keys {
        let cell = |run: &Record| run.settings.get(key).cloned().unwrap_or_default();
        if runs.len() == 1 || runs.iter().any(|run| cell(run) != cell(&runs[0])) {
            row(key, &cell);
        }
    }
    let mut names: Vec<&String> = Vec::new();
    for (name, ..) in runs.iter().flat_map(|run| &run.figures) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let cell = |run: &Record| {
            let figure = run.figures.iter().find(|(other, ..)| other == name);
            figure.map_or(String::new(), |(_, before, after)| change(&(String::new(), *before, *after)).trim_start().to_owned())
        };
        row(name, &cell);
    }
    print(&rows);
    Ok(())
}

/// A table, its columns aligned.
fn print(rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_method_has_a_figure() {
        let figure = |metric: &str, value: f64| json!({"metric": metric, "value": value, "interval": [0, 1]});
        let of = |results: &Value| figures(results).first().map(change).unwrap_or_default();
        assert_eq!(of(&json!({"before": figure("accuracy", 0.5), "after": figure("accuracy", 0.75)})), "accuracy 0.5000 -> 0.7500");
        let several = |value: f64| json!({"figures": [figure("spearman", value)], "unit": "pairs"});
        assert_eq!(of(&json!({"before": several(0.5), "after": several(0.75)})), "spearman 0.5000 -> 0.7500");
        let reward = |value: f64| json!({"reward": figure("reward", value), "n_prompts": 3});
        assert_eq!(of(&json!({"before": reward(0.5), "after": reward(0.75)})), "reward 0.5000 -> 0.7500");
        let task = json!({"before": figure("accuracy", 0.5), "after": figure("accuracy", 0.75)});
        assert_eq!(of(&json!({"tasks": {"topics": task}})), "topics accuracy 0.5000 -> 0.7500");
        let point = |after: &str, value: f64| json!({"after": after, "law": figure("perplexity", value)});
        assert_eq!(of(&json!({"matrix": [point("start", 9.0), point("law", 7.0), point("news", 8.0)]})), "law perplexity 9.0000 -> 8.0000");
    }
}
