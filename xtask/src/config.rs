//! `cargo xtask config METHOD`: the settings of a method in TOML, each with its default and what it means.
//!
//! What they mean is what the source says of the fields, so that it is written once: the files of the settings are part of the program.

use clap::{Args, ValueEnum};
use kiln_continual::config::{ContinualConfig, DomainConfig};
use kiln_contrastive::config::ContrastiveConfig;
use kiln_core::adapter::LoraConfig;
use kiln_core::{Error, Result};
use kiln_data::source::DataConfig;
use kiln_multitask::config::{MultitaskConfig, TaskConfig};
use kiln_rl::config::RlConfig;
use kiln_rl::reward::RewardConfig;
use kiln_sft::config::SftConfig;
use kiln_train::groups::GroupConfig;
use serde::Serialize;
use toml::{Table, Value};

/// The method whose settings to print.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The method
    pub method: Method,
}

/// A method that trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Supervised fine-tuning
    Sft,
    /// Policy gradients from rewards
    Rl,
    /// Masked language modelling and embedding tuning
    Contrastive,
    /// One domain within a budget of forgetting
    Adapt,
    /// A stream of domains
    Continual,
    /// Several tasks on one trunk
    Multitask,
}

/// Prints the settings.
///
/// # Errors
/// If they cannot be written as TOML.
pub fn run(args: &ConfigArgs) -> Result<()> {
    print!("{}", settings(args.method)?);
    Ok(())
}

const SHARED: [&str; 12] = [
    include_str!("../../crates/data/src/canaries.rs"),
    include_str!("../../crates/data/src/source.rs"),
    include_str!("../../crates/data/src/columns.rs"),
    include_str!("../../crates/data/src/examples.rs"),
    include_str!("../../crates/data/src/masking.rs"),
    include_str!("../../crates/train/src/updater.rs"),
    include_str!("../../crates/train/src/schedule.rs"),
    include_str!("../../crates/train/src/optimizer.rs"),
    include_str!("../../crates/train/src/groups.rs"),
    include_str!("../../crates/train/src/guard.rs"),
    include_str!("../../crates/train/src/checkpoint.rs"),
    include_str!("../../crates/train/src/validation.rs"),
];

/// The settings of a method, commented.
fn settings(method: Method) -> Result<String> {
    let of = |name, own: &[&'static str], defaults| {
        let adapter = include_str!("../../crates/core/src/adapter/mod.rs");
        let sources = own.iter().copied().chain(SHARED).chain([adapter]).collect();
        Printer { sources, text: String::new() }.all(name, defaults)
    };
    let continual =
        || of("ContinualConfig", &[include_str!("../../crates/continual/src/config.rs")], defaults(&ContinualConfig::default())?);
    match method {
        Method::Sft => of("SftConfig", &[include_str!("../../crates/sft/src/config.rs")], defaults(&SftConfig::default())?),
        Method::Rl => {
            let own = [include_str!("../../crates/rl/src/config.rs"), include_str!("../../crates/rl/src/reward/mod.rs")];
            of("RlConfig", &own, defaults(&RlConfig::default())?)
        }
        Method::Contrastive => {
            of("ContrastiveConfig", &[include_str!("../../crates/contrastive/src/config.rs")], defaults(&ContrastiveConfig::default())?)
        }
        Method::Adapt | Method::Continual => continual(),
        Method::Multitask => {
            of("MultitaskConfig", &[include_str!("../../crates/multitask/src/config.rs")], defaults(&MultitaskConfig::default())?)
        }
    }
}

fn defaults(config: &impl Serialize) -> Result<Table> {
    Table::try_from(config).map_err(|error| Error::config("settings", error.to_string()))
}

/// The defaults of a section that is left out unless the user asks for it.
fn optional(name: &str) -> Result<Option<Table>> {
    Ok(Some(match name {
        "LoraConfig" => defaults(&LoraConfig::default())?,
        "DataConfig" => defaults(&DataConfig::default())?,
        "DomainConfig" => defaults(&DomainConfig::default())?,
        "TaskConfig" => defaults(&TaskConfig::default())?,
        "RewardConfig" => defaults(&RewardConfig::default())?,
        "GroupConfig" => defaults(&GroupConfig::default())?,
        _ => return Ok(None),
    }))
}

/// A field of a struct, or a variant of an enum.
#[derive(Debug)]
struct Item<'a> {
    name: &'a str,
    /// The type of a field.
    kind: &'a str,
    /// What the source says of it.
    doc: String,
}

/// The fields of the struct or the variants of the enum called `name`.
fn items<'a>(source: &'a str, keyword: &str, name: &str) -> Option<Vec<Item<'a>>> {
    let (_, rest) = source.split_once(&format!("pub {keyword} {name} {{\n"))?;
    let (body, _) = rest.split_once("\n}")?;
    let (mut items, mut doc, mut is_inside) = (Vec::new(), String::new(), false);
    for line in body.lines().map(str::trim) {
        if is_inside {
            // The fields of a variant.
            is_inside = line != "},";
        } else if let Some(words) = line.strip_prefix("///") {
            doc = format!("{doc} {}", words.trim()).trim_start().to_owned();
        } else if let Some(name) = line.strip_suffix(" {") {
            items.push(Item { name, kind: "", doc: std::mem::take(&mut doc) });
            is_inside = true;
        } else if let Some(item) = line.strip_suffix(',').filter(|item| !item.starts_with("#[")) {
            // A field has a type, and so may a variant.
            let item = item.trim_start_matches("pub ");
            let (name, kind) = item.split_once(": ").or_else(|| item.trim_end_matches(')').split_once('(')).unwrap_or((item, ""));
            items.push(Item { name, kind, doc: std::mem::take(&mut doc) });
        }
    }
    Some(items)
}

/// `DrGrpo` as `dr-grpo`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase());
    }
    kebab
}

/// What a type holds: `LoraConfig` of `Option<LoraConfig>` and of `BTreeMap<String, LoraConfig>`.
fn held(kind: &str) -> &str {
    let inner = kind.split_once('<').map_or(kind, |(_, inner)| inner.trim_end_matches('>'));
    let inner = inner.rsplit(", ").next().unwrap_or(inner);
    inner.rsplit("::").next().unwrap_or(inner)
}

const WIDTH: usize = 110;

/// The text so far.
struct Printer {
    sources: Vec<&'static str>,
    text: String,
}

impl Printer {
    fn all(mut self, name: &str, defaults: Table) -> Result<String> {
        self.section(name, &defaults, "", false)?;
        Ok(self.text)
    }

    fn items(&self, keyword: &str, name: &str) -> Option<Vec<Item<'static>>> {
        self.sources.iter().find_map(|source| items(source, keyword, name))
    }

    /// The settings of a struct, then its sections. What is `off` is commented out.
    fn section(&mut self, name: &str, defaults: &Table, path: &str, off: bool) -> Result<()> {
        let fields = self.items("struct", name).ok_or_else(|| Error::config("settings", format!("the source has no struct {name}")))?;
        let is_named = |field: &Item<'_>| defaults.get(field.name).is_some_and(Value::is_table) && self.items("enum", field.kind).is_some();
        let is_section = |field: &Item<'_>| self.items("struct", held(field.kind)).is_some() || is_named(field);
        let (sections, values): (Vec<_>, Vec<_>) = fields.into_iter().partition(is_section);
        for field in &values {
            self.value(field, defaults.get(field.name), off);
        }
        for field in &sections {
            let (inner, name) = (held(field.kind), field.name);
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            if let (Some(table), Some(variants)) = (defaults.get(name).and_then(Value::as_table), self.items("enum", inner)) {
                self.choice(field, &variants, table, &path, off)?;
                continue;
            }
            let default =
                defaults.get(name).and_then(Value::as_table).filter(|table| !field.kind.starts_with("BTreeMap") || !table.is_empty());
            // What is left out unless asked for.
            let (table, off) = match default {
                Some(table) => (table.clone(), off),
                None => (optional(inner)?.ok_or_else(|| Error::config("settings", format!("{inner} has no defaults")))?, true),
            };
            let path = if field.kind.starts_with("BTreeMap") { format!("{path}.NAME") } else { path };
            let header = if field.kind.starts_with("Vec") { format!("[[{path}]]") } else { format!("[{path}]") };
            self.text.push('\n');
            self.comment(&field.doc);
            self.line(&header, off);
            self.section(inner, &table, &path, off)?;
        }
        Ok(())
    }

    /// A choice that has settings of its own: a section with its name and these.
    fn choice(&mut self, field: &Item<'_>, variants: &[Item<'_>], table: &Table, path: &str, off: bool) -> Result<()> {
        let names: Vec<String> = variants.iter().map(|variant| format!("{:?}", kebab(variant.name))).collect();
        let chosen = table.get("name").and_then(Value::as_str).unwrap_or_default();
        self.text.push('\n');
        self.comment(&format!("{} One of {}.", field.doc, names.join(", ")));
        self.line(&format!("[{path}]"), off);
        let variant = variants.iter().find(|variant| kebab(variant.name) == chosen);
        self.comment(variant.map_or("", |variant| variant.doc.as_str()));
        self.line(&format!("name = {chosen:?}"), off);
        match variant.filter(|variant| !variant.kind.is_empty()) {
            Some(variant) => self.section(held(variant.kind), table, path, off),
            None => Ok(()),
        }
    }

    fn value(&mut self, field: &Item<'_>, default: Option<&Value>, off: bool) {
        let choices = self.items("enum", held(field.kind)).filter(|_| !field.kind.starts_with("Vec"));
        let choices: Vec<String> =
            choices.iter().flatten().filter(|item| !item.name.contains('(')).map(|item| format!("{:?}", kebab(item.name))).collect();
        let doc = if choices.is_empty() { field.doc.clone() } else { format!("{} One of {}.", field.doc, choices.join(", ")) };
        self.comment(&doc);
        // What has no default is shown with an example.
        let example = || match held(field.kind) {
            "f64" | "f32" => "0.1".to_owned(),
            "usize" => "1".to_owned(),
            _ => choices.first().cloned().unwrap_or_else(|| "\"\"".to_owned()),
        };
        let value = default.map(written);
        self.line(&format!("{} = {}", field.name, value.clone().unwrap_or_else(example)), off || value.is_none());
    }

    fn comment(&mut self, doc: &str) {
        let mut line = String::new();
        for word in doc.split(' ') {
            if !line.is_empty() && line.len() + word.len() > WIDTH {
                self.text += &format!("# {}\n", std::mem::take(&mut line).trim_end());
            }
            line += &format!("{word} ");
        }
        self.text += &format!("# {}\n", line.trim_end());
    }

    fn line(&mut self, line: &str, off: bool) {
        self.text += &format!("{}{line}\n", if off { "#" } else { "" });
    }
}

/// A value, small numbers with an exponent.
fn written(value: &Value) -> String {
    match value {
        Value::Float(number) if *number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    const METHODS: [Method; 6] = [Method::Sft, Method::Rl, Method::Contrastive, Method::Adapt, Method::Continual, Method::Multitask];

    fn parsed<T: DeserializeOwned + Default + PartialEq + Debug>(method: Method) {
        let text = settings(method).unwrap();
        let config: T = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(config, T::default());
        // What is commented out are settings too.
        let on: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
            .collect();
        let config: T = toml::from_str(&on).unwrap_or_else(|error| panic!("{error}\n{on}"));
        assert_ne!(config, T::default());
    }

    #[test]
    fn what_is_printed_are_the_defaults() {
        parsed::<SftConfig>(Method::Sft);
        parsed::<RlConfig>(Method::Rl);
        parsed::<ContrastiveConfig>(Method::Contrastive);
        parsed::<ContinualConfig>(Method::Adapt);
        parsed::<ContinualConfig>(Method::Continual);
        parsed::<MultitaskConfig>(Method::Multitask);
    }

    #[test]
    fn every_setting_says_what_it_is() {
        for method in METHODS {
            let text = settings(method).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ") && !pair[1].starts_with("# ")) {
                assert!(pair[0].starts_with("# ") && pair[0].len() > 4, "{method:?}: nothing said of {:?}", pair[1]);
            }
            assert!(lines.iter().all(|line| line.len() <= 2 + WIDTH + 1), "{text}");
        }
    }

    #[test]
    fn every_setting_is_there() {
        fn keys(table: &Table, path: &str, all: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    Value::Table(inner) if !inner.is_empty() => keys(inner, &format!("{path}{key}."), all),
                    Value::Table(_) => {}
                    _ => all.push(format!("{path}{key}")),
                }
            }
        }
        let mut expected = Vec::new();
        keys(&defaults(&SftConfig::default()).unwrap(), "", &mut expected);
        let text = settings(Method::Sft).unwrap();
        // A list of sections is commented out as long as it has none.
        expected.retain(|key| !text.contains(&format!("[[{key}]]")));
        let mut found = Vec::new();
        keys(&toml::from_str(&text).unwrap(), "", &mut found);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn choices_are_named_as_they_are_written() {
        assert_eq!([kebab("DrGrpo"), kebab("Mlm")], ["dr-grpo", "mlm"]);
        let text = settings(Method::Sft).unwrap();
        let joined = text.replace("\n# ", " ");
        let choices = "One of \"classification\", \"regression\", \"token-classification\", \"next-token\", \"preference\".";
        assert!(joined.contains(choices), "{text}");
        assert!(text.contains("\nlearning_rate = 5e-5\n") && text.contains("\n#[adapter]\n") && text.contains("\n#rank = 16\n"), "{text}");
    }
}
