//! What an audit for bias found, as files.

use super::{BiasAudit, BiasAuditConfig, Grouping};
use crate::benchmarks::score::Row;
use crate::data::write_settings;
use crate::limits::Measured;
use kiln_core::Result;
use kiln_core::files::write_json;
use kiln_eval::fairness::Criterion;
use kiln_train::report;
use serde_json::{Map, Value, json};
use std::path::Path;

impl BiasAudit {
    /// The differences by criterion, the worst of all groupings and, under `GROUPING.CRITERION`, the worst of each; the share of flips; and
    /// the figures of benchmarks.
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
        measured.extend(self.benchmarks.iter().flat_map(|answers| &answers.figures).flat_map(Row::measured));
        measured.extend(self.swap.iter().map(|swap| Measured { name: "flips".to_owned(), value: swap.flips.value, whole: 1.0 }));
        measured
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
    // Last: a folder that has it is complete.
    write_json(&folder.join("results.json"), &results)
}
