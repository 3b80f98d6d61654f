//! A method's settings: defaults, under the file of `--config`, under each `--set`, under `--seed`.

use crate::MethodArgs;
use kiln_core::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::{Table, Value};

/// The settings the arguments describe.
///
/// # Errors
/// [`Error::Config`] naming the file and line, or the `--set`, that is wrong.
pub fn read<T: DeserializeOwned>(args: &MethodArgs) -> Result<T> {
    read_over(Table::new(), args)
}

/// The same over other defaults, where `table` has some.
///
/// # Errors
/// As [`read`].
pub fn read_over<T: DeserializeOwned>(mut table: Table, args: &MethodArgs) -> Result<T> {
    if let Some(path) = &args.config {
        lay(&mut table, from_file::<T>(path)?);
    }
    let seed = args.seed.map(|seed| format!("seed={seed}"));
    let force = args.force.then(|| "force=true".to_owned());
    let flags = seed.iter().map(|seed| ("--seed", seed)).chain(force.iter().map(|force| ("--force", force)));
    for (flag, assignment) in args.sets.iter().map(|set| ("--set", set)).chain(flags) {
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| Error::config(format!("{flag} {assignment}"), "expected KEY=VALUE, such as update.learning_rate=1e-4"))?;
        // Each one alone, so that an error names the assignment at fault.
        table =
            assigned::<T>(&table, key.trim(), value.trim()).map_err(|message| Error::config(format!("{flag} {assignment}"), message))?;
    }
    decode(&table).map_err(|message| Error::config("settings", message))
}

/// The settings of `--set`s alone.
///
/// # Errors
/// As [`read`].
pub fn of_sets<T: DeserializeOwned>(sets: &[String]) -> Result<T> {
    read(&MethodArgs { config: None, sets: sets.to_vec(), device: String::new(), seed: None, force: false, out: None })
}

fn from_file<T: DeserializeOwned>(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    let fail = |error: toml::de::Error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Error::data(path, line, one_line(error.message()))
    };
    toml::from_str::<T>(&text).map_err(fail)?;
    toml::from_str(&text).map_err(fail)
}

/// Puts all settings of `over` into `table`, section by section.
fn lay(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => lay(inner, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

fn decode<T: DeserializeOwned>(table: &Table) -> std::result::Result<T, String> {
    T::deserialize(Value::Table(table.clone())).map_err(|error| one_line(error.message()))
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The table with `key` set to what `text` says, or to the text itself where that alone fits: 42 may be a prompt.
fn assigned<T: DeserializeOwned>(table: &Table, key: &str, text: &str) -> std::result::Result<Table, String> {
    let with = |value| {
        let mut table = table.clone();
        assign(&mut table, key, value)?;
        decode::<T>(&table).map(|_| table)
    };
    with(parse(text)).or_else(|message| with(Value::String(text.to_owned())).map_err(|_| message))
}

/// A TOML value, or else the text itself: quotes are not needed around names and paths.
fn parse(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn assign(table: &mut Table, key: &str, value: Value) -> std::result::Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((section, rest)) => match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => assign(inner, rest, value),
            other => Err(format!("{section:?} is {other}, not a section")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_sft::config::{SftConfig, Task};

    fn args(sets: &[&str]) -> MethodArgs {
        let sets = sets.iter().map(|&set| set.to_owned()).collect();
        MethodArgs { config: None, sets, device: "flex".into(), seed: Some(7), force: false, out: None }
    }

    #[test]
    fn sets_reach_sections_and_need_no_quotes() {
        let sets = [
            "task=classification",
            "data.train=my rows.tsv",
            "update.learning_rate=1e-3",
            "columns.names=[\"a\", \"b\"]",
            "adapter.rank=4",
            "columns.label=1",
        ];
        let config: SftConfig = read(&args(&sets)).unwrap();
        assert_eq!(config.task, Task::Classification);
        assert_eq!(config.data.train.first().to_str(), Some("my rows.tsv"));
        assert_eq!(config.update.learning_rate, 1e-3);
        assert_eq!(config.columns.names, ["a", "b"]);
        assert_eq!(config.adapter.unwrap().rank, 4);
        assert_eq!(config.columns.label, "1");
        assert_eq!(config.seed, 7);
    }

    #[test]
    fn a_misspelled_key_is_named_with_its_assignment() {
        let error = read::<SftConfig>(&args(&["epochs=2", "update.lerning_rate=1"])).unwrap_err().to_string();
        assert!(error.starts_with("--set update.lerning_rate=1: unknown field `lerning_rate`"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sft.toml");
        std::fs::write(&path, "epochs = 2\n\n[update]\nlearning_rte = 1\n").unwrap();
        let error = read::<SftConfig>(&MethodArgs { config: Some(path), ..args(&[]) }).unwrap_err().to_string();
        assert!(error.contains("sft.toml:4: unknown field `learning_rte`"), "{error}");
    }
}
