//! `README.md` of a trained model: Hugging Face's model card, with what it was made from, its figures before and after, and what audits found.
//!
//! The card is written when a run ends, a section for each audit when that audit is made ([`add_section`]). It names files by their last part and their
//! SHA-256, and holds no time of day and no path, so that the same run has the same card.

use crate::manifest::{CONFIG_FILE, Manifest};
use crate::report::significant;
use kiln_core::files::{read_json, write_atomic};
use kiln_core::{Error, Result};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::Path;
use toml::Table;

/// The file name of a card.
pub const FILE: &str = "README.md";
/// What tells a card that Kiln wrote from others, which are left as they are.
const MARK: &str = "<!-- Written by Kiln. Sections of audits are replaced when an audit is made again. -->";

/// Writes the card of the model in `model`, which the run in `run` came to with `results`.
///
/// # Errors
/// If a file of the run or the model cannot be read, or the card not be written.
pub(crate) fn write(run: &Path, model: &Path, results: &Value) -> Result<()> {
    let manifest = Manifest::read(run)?;
    let path = run.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
    let settings: Table = toml::from_str(&text).map_err(|error| Error::data(&path, None, error.message()))?;
    let base = settings.get("model").and_then(toml::Value::as_str).map(public_name);
    let figures = figures(results);
    let card = card(&manifest, &settings, base.as_deref(), &Kind::of(model)?, &figures, results).map_err(std::io::Error::other);
    let path = model.join(FILE);
    let card = card.map_err(|source| Error::io(&path, source))?;
    write_atomic(&path, |temporary| std::fs::write(temporary, card))
}

/// Puts the section `title` into the card of the model in `folder`, in place of an older one; whether there is such a card. Cards that Kiln did not
/// write are left as they are.
///
/// # Errors
/// If the card cannot be read or written.
pub fn add_section(folder: &Path, title: &str, body: &str) -> Result<bool> {
    let path = folder.join(FILE);
    if !path.is_file() {
        return Ok(false);
    }
    let card = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
    if !card.contains(MARK) {
        return Ok(false);
    }
    let heading = format!("## {title}\n");
    let mut parts: Vec<&str> = card.split_inclusive("\n## ").collect();
    // Each part but the last ends with the mark of the next heading.
    let is_old = |part: &str| part.starts_with(&heading[3..]);
    let section = format!("{}\n{}\n", &heading[3..], body.trim());
    let replaced = parts.iter().position(|part| is_old(part));
    let new = match replaced {
        Some(place) => {
            let ends = if parts[place].ends_with("\n## ") { "\n## " } else { "" };
            let section = format!("{section}{ends}");
            parts[place] = &section;
            parts.concat()
        }
        None => format!("{}\n\n## {section}", card.trim_end()),
    };
    write_atomic(&path, |temporary| std::fs::write(temporary, new))?;
    Ok(true)
}

/// Rows under their heads, as Markdown.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let line =
        |cells: &mut dyn Iterator<Item = &str>| cells.map(|cell| format!("| {} ", cell.replace('|', "\\|"))).collect::<String>() + "|\n";
    let mut text = line(&mut heads.iter().copied());
    text += &line(&mut heads.iter().map(|_| "---"));
    rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
    text
}

/// A number with four digits that count, and its interval.
pub fn with_interval(value: f64, low: f64, high: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    format!("{} [{}, {}]", significant(value, 4), significant(low, 4), significant(high, 4))
}

/// What the hub calls such a model.
struct Kind {
    task: Option<&'static str>,
    library: &'static str,
}

impl Kind {
    fn of(folder: &Path) -> Result<Self> {
        if folder.join("adapter_config.json").exists() {
            return Ok(Self { task: None, library: "peft" });
        }
        if folder.join("modules.json").exists() {
            return Ok(Self { task: Some("sentence-similarity"), library: "sentence-transformers" });
        }
        let config: Map<String, Value> = read_json(&folder.join("config.json"))?;
        let class = config.get("architectures").and_then(|classes| classes[0].as_str()).unwrap_or_default();
        let tasks = [
            ("ForSequenceClassification", "text-classification"),
            ("ForTokenClassification", "token-classification"),
            ("ForMaskedLM", "fill-mask"),
            ("ForCausalLM", "text-generation"),
            ("LMHeadModel", "text-generation"),
        ];
        let task = tasks.iter().find(|(end, _)| class.ends_with(end)).map(|(_, task)| *task);
        Ok(Self { task, library: "transformers" })
    }
}

/// A path on this machine by its last part; other texts, such as names on the hub, as they are.
fn public_name(text: &str) -> String {
    let path = Path::new(text);
    match path.file_name().filter(|_| path.is_absolute() || path.exists()) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => text.to_owned(),
    }
}

/// The settings without paths of this machine.
fn public(value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::String(text) => toml::Value::String(public_name(text)),
        toml::Value::Array(list) => toml::Value::Array(list.iter().map(public).collect()),
        toml::Value::Table(table) => toml::Value::Table(table.iter().map(|(key, value)| (key.clone(), public(value))).collect()),
        other => other.clone(),
    }
}

/// A figure of a run's results: what it is of, and as it is before, after and by how much it changed.
struct Figure {
    name: String,
    cells: [String; 3],
}

/// The figures of results that come before and after; of others, such as those over a stream, what they are in the end.
fn figures(results: &Value) -> Vec<Figure> {
    let mut all: Vec<(Vec<&str>, String, String)> = Vec::new();
    collect(results, &mut Vec::new(), &mut all);
    let is_in = |path: &[&str], stage: &str| path.contains(&stage);
    let without = |path: &[&str], stages: &[&str]| {
        path.iter().filter(|part| !stages.contains(part)).map(|part| (*part).to_owned()).collect::<Vec<_>>()
    };
    let found = |stage: &str, of: &[String], metric: &str| {
        let matches =
            |(path, name, _): &&(Vec<&str>, String, String)| name == metric && is_in(path, stage) && without(path, &[stage, "alone"]) == of;
        all.iter().filter(|(path, ..)| !is_in(path, "alone")).find(matches).map_or_else(|| "-".to_owned(), |(.., text)| text.clone())
    };
    let figure = |(path, metric, text): &(Vec<&str>, String, String)| {
        if is_in(path, "before") || is_in(path, "difference") || is_in(path, "alone") {
            return None;
        }
        let of = without(path, &["after"]);
        let is_after = is_in(path, "after");
        let of_name: Vec<&str> = of.iter().map(String::as_str).filter(|part| !["tasks", "others", "figures"].contains(part)).collect();
        let name = of_name.iter().copied().chain([metric.as_str()]).collect::<Vec<_>>().join(" ");
        // Differences stand in one list, whatever the figures they are of.
        let group: Vec<String> = of.iter().filter(|part| !["others", "figures"].contains(&part.as_str())).cloned().collect();
        let [before, change] =
            [("before", &of), ("difference", &group)].map(|(stage, of)| if is_after { found(stage, of, metric) } else { "-".to_owned() });
        Some(Figure { name, cells: [before, text.clone(), change] })
    };
    all.iter().filter_map(figure).collect()
}

/// Every figure inside `value`: the keys on the way, lists left out, its metric and its value with the interval.
fn collect<'a>(value: &'a Value, path: &mut Vec<&'a str>, all: &mut Vec<(Vec<&'a str>, String, String)>) {
    match value {
        Value::Object(map) => {
            if let (Some(metric), Some(value), Some(interval)) = (map.get("metric"), map.get("value"), map.get("interval")) {
                let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
                let text = with_interval(number(value), number(&interval["low"]), number(&interval["high"]));
                all.push((path.clone(), metric.as_str().unwrap_or_default().to_owned(), text));
            }
            for (key, value) in map {
                path.push(key);
                collect(value, path, all);
                path.pop();
            }
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, path, all)),
        _ => {}
    }
}

fn card(
    manifest: &Manifest,
    settings: &Table,
    base: Option<&str>,
    kind: &Kind,
    figures: &[Figure],
    results: &Value,
) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::from("---\n");
    let mut front = |key: &str, value: &str| writeln!(text, "{key}: {}", Value::from(value));
    base.map_or(Ok(()), |base| front("base_model", base))?;
    front("library_name", kind.library)?;
    kind.task.map_or(Ok(()), |task| front("pipeline_tag", task))?;
    text += "tags:\n";
    for tag in ["kiln", &manifest.method] {
        writeln!(text, "- {}", Value::from(tag))?;
    }
    let mut metrics: Vec<&str> = figures.iter().map(|figure| figure.name.rsplit(' ').next().unwrap_or(&figure.name)).collect();
    metrics.sort_unstable();
    metrics.dedup();
    if !metrics.is_empty() {
        text += "metrics:\n";
        metrics.iter().try_for_each(|metric| writeln!(text, "- {}", Value::from(*metric)))?;
    }
    let name = base.unwrap_or("model");
    writeln!(text, "---\n\n# {name}, {}\n\n{MARK}\n", manifest.method)?;
    writeln!(text, "{name}, trained by `{}` of Kiln {}.\n", manifest.method, manifest.kiln)?;
    if !figures.is_empty() {
        let rows: Vec<Vec<String>> = figures.iter().map(|figure| [&[figure.name.clone()][..], &figure.cells].concat()).collect();
        writeln!(
            text,
            "## Figures\n\nOn held-out rows, with 95 % bootstrap intervals.\n\n{}",
            table(&["figure", "before", "after", "change"], &rows)
        )?;
    }
    let mut rows = vec![vec!["seed".to_owned(), manifest.seed.to_string()], vec!["device".to_owned(), manifest.device.clone()]];
    for (key, name) in [("n_steps", "steps"), ("n_trainable", "parameters trained"), ("n_parameters", "parameters")] {
        rows.extend(results.get(key).and_then(Value::as_u64).map(|number| vec![name.to_owned(), number.to_string()]));
    }
    let shown = toml::to_string(&public(&toml::Value::Table(settings.clone()))).unwrap_or_default();
    writeln!(
        text,
        "## Training\n\n{}\n<details><summary>Settings</summary>\n\n```toml\n{}\n```\n\n</details>\n",
        table(&["", ""], &rows),
        shown.trim()
    )?;
    let files = manifest.files_sha256.iter().map(|(path, sum)| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        vec![name, format!("`{sum}`")]
    });
    writeln!(text, "## Made from\n\n{}", table(&["file", "SHA-256"], &files.collect::<Vec<_>>()))?;
    Ok(text.trim_end().to_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::CheckpointConfig;
    use crate::manifest::About;
    use serde_json::json;

    fn figure(metric: &str, value: f64) -> Value {
        json!({"metric": metric, "higher_is_better": true, "value": value, "interval": {"low": value - 0.1, "high": value + 0.1}})
    }

    /// A run of a model, and its model's card.
    fn written(results: &Value, class: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("model")).unwrap();
        std::fs::write(path("model/config.json"), json!({"architectures": [class]}).to_string()).unwrap();
        std::fs::write(path("rows.tsv"), "text\tlabel\n").unwrap();
        let rows = path("rows.tsv");
        std::fs::write(path(CONFIG_FILE), format!("model = \"org/base\"\nepochs = 3\n[data]\ntrain = {:?}\n", rows.display().to_string()))
            .unwrap();
        let device = kiln_core::device::by_name("flex").unwrap();
        let checkpoint = CheckpointConfig::default();
        let about =
            About { method: "sft", n_steps: 3, checkpoint: &checkpoint, seed: 7, device: &device, models: Vec::new(), data: vec![&rows] };
        Manifest::new(folder.path(), &about).unwrap().write(folder.path()).unwrap();
        write(folder.path(), &path("model"), results).unwrap();
        let card = std::fs::read_to_string(path("model").join(FILE)).unwrap();
        (folder, card)
    }

    #[test]
    fn a_card_says_what_the_model_is_and_what_it_was_made_from() {
        let results = json!({
            "before": {"metric": "accuracy", "value": 0.5, "interval": {"low": 0.4, "high": 0.6}, "others": [figure("f1", 0.25)]},
            "after": {"metric": "accuracy", "value": 0.75, "interval": {"low": 0.7, "high": 0.8}, "others": [figure("f1", 0.5)]},
            "difference": [figure("accuracy", 0.25), figure("f1", 0.3)],
            "n_steps": 12, "train_seconds": 3.25,
        });
        let (folder, card) = written(&results, "BertForSequenceClassification");
        for part in [
            "---\nbase_model: \"org/base\"\nlibrary_name: \"transformers\"\npipeline_tag: \"text-classification\"\ntags:\n- \"kiln\"\n- \"sft\"\nmetrics:\n- \"accuracy\"\n- \"f1\"\n---\n",
            "| accuracy | 0.5 [0.4, 0.6] | 0.75 [0.7, 0.8] | 0.25 [0.15, 0.35] |\n| f1 | 0.25 [0.15, 0.35] | 0.5 [0.4, 0.6] | 0.3 [0.2, 0.4] |\n",
            "| seed | 7 |",
            "| steps | 12 |",
            "train = \"rows.tsv\"",
            "epochs = 3",
            "| rows.tsv | `",
        ] {
            assert!(card.contains(part), "{part} in {card}");
        }
        assert!(!card.contains(&folder.path().display().to_string()) && !card.contains("3.25"), "neither paths nor times: {card}");
    }

    #[test]
    fn figures_of_tasks_and_of_streams_are_named() {
        let of = |value: f64| json!({"before": figure("accuracy", value), "after": figure("accuracy", 2.0 * value), "difference": [figure("accuracy", value)]});
        let (_folder, card) = written(
            &json!({"tasks": {"mood": of(0.25), "topic": of(0.5)}, "transfer": {"forgetting": figure("perplexity", 3.0)}}),
            "BertModel",
        );
        for part in [
            "| mood accuracy | 0.25 [0.15, 0.35] | 0.5 [0.4, 0.6] | 0.25 [",
            "| topic accuracy | 0.5 [",
            "| transfer forgetting perplexity | - | 3 [2.9, 3.1] | - |",
        ] {
            assert!(card.contains(part), "{part} in {card}");
        }
    }

    #[test]
    fn sections_are_added_and_replaced_in_cards_of_ours() {
        let (folder, card) = written(&json!({}), "BertModel");
        let model = folder.path().join("model");
        let read = || std::fs::read_to_string(model.join(FILE)).unwrap();
        assert!(add_section(&model, "Bias", "first\n").unwrap() && add_section(&model, "Data", "rows").unwrap());
        assert_eq!(read(), format!("{card}\n## Bias\n\nfirst\n\n## Data\n\nrows\n"));
        assert!(add_section(&model, "Bias", "second").unwrap());
        assert_eq!(read(), format!("{card}\n## Bias\n\nsecond\n\n## Data\n\nrows\n"));
        std::fs::write(model.join(FILE), "# Another's card\n").unwrap();
        assert!(!add_section(&model, "Bias", "third").unwrap());
        assert_eq!(read(), "# Another's card\n");
        assert!(!add_section(folder.path(), "Bias", "no card").unwrap());
    }
}
