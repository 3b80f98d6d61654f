//! What an audit for bias found, as files.

use super::{BiasAudit, BiasAuditConfig, Grouping};
use crate::benchmarks::score::Row;
use crate::data::write_settings;
use crate::limits::Measured;
use kiln_core::Result;
use kiln_core::files::write_json;
use kiln_eval::fairness::{Criterion, Estimate, Gap};
use kiln_train::card::{self, table, with_interval};
use kiln_train::report;
use serde_json::{Map, Value, json};
use std::path::Path;

impl BiasAudit {
    /// The differences by criterion, the worst of all groupings and, under `GROUPING.CRITERION`, the worst of each; the share of flips; by
    /// how much each is worse than before; and the figures of templates and benchmarks.
    pub fn measured(&self) -> Vec<Measured> {
        let worst = |groupings: &[&Grouping], criterion: Criterion| {
            let gaps = groupings.iter().flat_map(|grouping| &grouping.gaps).filter(|gap| gap.criterion == criterion);
            gaps.map(|gap| gap.difference.value).reduce(f64::max)
        };
        let mut names: Vec<&str> = self.groupings.iter().map(|grouping| grouping.by.as_str()).collect();
        names.dedup();
        let mut measured = Vec::new();
        for criterion in Criterion::ALL {
            let mut add = |name: String, value: Option<f64>| measured.extend(value.map(|value| Measured { name, value, whole: 1.0 }));
            add(criterion.name().to_owned(), worst(&self.groupings.iter().collect::<Vec<_>>(), criterion));
            for name in &names {
                let of_name: Vec<&Grouping> = self.groupings.iter().filter(|grouping| grouping.by == *name).collect();
                add(format!("{name}.{}", criterion.name()), worst(&of_name, criterion));
            }
        }
        // What the figures are now stands above, under the same names.
        measured.extend(self.changes.iter().flat_map(Row::measured).filter(|measured| measured.name.ends_with(".worse")));
        measured.extend(self.templates.iter().flat_map(Row::measured));
        measured.extend(self.benchmarks.iter().flat_map(|answers| &answers.figures).flat_map(Row::measured));
        measured.extend(self.swap.iter().map(|swap| Measured { name: "flips".to_owned(), value: swap.flips.value, whole: 1.0 }));
        measured
    }

    /// As a section of a model card.
    fn section(&self) -> String {
        let shown = |of: &Estimate| with_interval(of.value, of.interval.low, of.interval.high);
        let mut text = String::new();
        for Grouping { by, positive, gaps, .. } in &self.groupings {
            let rows = |gap: &Gap| {
                vec![
                    gap.criterion.name().to_owned(),
                    shown(&gap.difference),
                    format!("{:.4}", gap.difference_by_chance),
                    format!("{:.3}", gap.p),
                ]
            };
            let rows: Vec<Vec<String>> = gaps.iter().map(rows).collect();
            text +=
                &format!("Groups by {by}, class {positive:?}:\n\n{}\n", table(&["criterion", "difference", "by chance up to", "p"], &rows));
        }
        if let Some(swap) = &self.swap {
            text +=
                &format!("With the words of one group for another's, {} rows: {} of the answers flip.\n\n", swap.rows, shown(&swap.flips));
        }
        let figures = |rows: &[Row]| {
            let row = |row: &Row| {
                let cell = |of: &Option<Estimate>| of.as_ref().map_or_else(|| "-".to_owned(), shown);
                let fair = row.fair.map_or_else(|| "-".to_owned(), |fair| fair.to_string());
                vec![row.figure.clone(), row.n.to_string(), fair, cell(&row.before), shown(&row.model), cell(&row.change)]
            };
            table(&["figure", "items", "fair", "before", "model", "change"], &rows.iter().map(row).collect::<Vec<_>>())
        };
        if !self.changes.is_empty() {
            text += &format!("Changes on the same rows:\n\n{}\n", figures(&self.changes));
        }
        if !self.templates.is_empty() {
            text += &format!("Sentences that differ only in whom they are about:\n\n{}\n", figures(&self.templates));
        }
        if let Some(answers) = &self.benchmarks {
            text += &format!("Benchmarks by {}:\n\n{}\n", answers.by, figures(&answers.figures));
        }
        text + "Intervals are of 95 %. That a figure is near its fair value does not show that the model is fair."
    }

    /// As results: tables by grouping and class.
    fn results(&self) -> Value {
        let mut results = Map::new();
        results.insert("rows".to_owned(), self.rows.into());
        for Grouping { by, positive, groups, gaps } in &self.groupings {
            let key = format!("{by}, class {positive:?}");
            results.insert(key, json!({ "groups": groups, "gaps": gaps }));
        }
        results.extend(self.swap.iter().map(|swap| ("swap".to_owned(), json!(swap))));
        if !self.changes.is_empty() {
            results.insert("changes".to_owned(), json!(self.changes));
        }
        if !self.templates.is_empty() {
            results.insert("templates".to_owned(), json!(self.templates));
        }
        results.extend(self.benchmarks.iter().map(|answers| ("benchmarks".to_owned(), json!(answers))));
        results.into()
    }
}

/// Writes `results.json`, `config.toml` and `report.html` into `folder`.
///
/// # Errors
/// If one cannot be written.
pub fn write(audit: &BiasAudit, config: &BiasAuditConfig, folder: &Path) -> Result<()> {
    let results = audit.results();
    write_settings(folder, config)?;
    let subject = config.model.as_ref().unwrap_or(&config.data);
    report::write(folder, &format!("Bias: {}", subject.display()), &results, &[])?;
    if let Some(model) = &config.model {
        card::add_section(model, "Bias", &audit.section())?;
    }
    // Last: a folder that has it is complete.
    write_json(&folder.join("results.json"), &results)
}
