//! Whether a classifier treats groups of people alike: the metrics of [`kiln_eval::fairness`] on the user's own rows, and what changes when the words of
//! one group take the place of another's.

mod change;
mod config;
mod report;
pub mod templates;
#[cfg(test)]
mod tests;

pub use config::BiasAuditConfig;
pub use report::write;

use crate::benchmarks::{self, Answers, score};
use crate::predict::{Classifier, Texts, texts};
use burn::tensor::Device;
use kiln_core::{Error, Result};
use kiln_data::grouped;
use kiln_data::labels::Labels;
use kiln_data::rows::{Row, Table};
use kiln_data::swaps::Swaps;
use kiln_eval::bootstrap::mean;
use kiln_eval::fairness::{Estimate, Gap, Group, Outcome, gaps};
use serde::Serialize;
use std::path::Path;
use templates::{Templates, TemplatesConfig};

/// The groups that one column makes, or several together, compared by how often they get one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grouping {
    /// The column; of several, joined by `×`.
    pub by: String,
    /// The class that is counted.
    pub positive: String,
    /// The groups, by name.
    pub groups: Vec<Group>,
    /// How far they lie apart; none if fewer than two have enough rows.
    pub gaps: Vec<Gap>,
}

/// What changes when words of one group take the place of the other's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SwapTest {
    /// The class whose probability is compared.
    pub positive: String,
    /// Rows with such words.
    pub rows: usize,
    /// The share of them whose predicted class changes.
    pub flips: Estimate,
    /// By how much the probability of the class changes, on average.
    pub shift: Estimate,
    /// By how much it is larger with the words of the first group, such as "he", than with those of the second; of rows with more words of one.
    pub first_minus_second: Option<Estimate>,
    /// Rows that change most, with their lines.
    pub examples: Vec<SwapExample>,
}

/// A row whose answer depends on whom it is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SwapExample {
    /// The text after the exchange.
    pub text: String,
    /// The line the row starts on.
    pub line: usize,
    /// The probability of the positive class before.
    pub before: f64,
    /// And after.
    pub after: f64,
}

/// What came of an audit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BiasAudit {
    /// Rows looked at.
    pub rows: usize,
    /// The groupings: every column and every class counted, then all columns together.
    pub groupings: Vec<Grouping>,
    /// With a model: what an exchange of words does. None if no row has such words.
    pub swap: Option<SwapTest>,
    /// With a model before and rows: how far groups lay apart and what an exchange of words did before, after, and the change on the same rows.
    pub changes: Vec<score::Row>,
    /// What the classifier, and the one before, make of sentences that differ only in whom they are about; none if that was not asked for.
    pub templates: Vec<score::Row>,
    /// What benchmarks say of the model, and of the one before; none if none were asked for.
    pub benchmarks: Option<Answers>,
}

/// Examples that a swap test keeps.
const MOST_EXAMPLES: usize = 10;

/// Looks at the rows, and the model, that `config` names.
///
/// # Errors
/// If a setting, a file, a column or a model is bad.
pub fn audit(config: &BiasAuditConfig, device: &Device) -> Result<BiasAudit> {
    config.validate()?;
    let none = BiasAudit { rows: 0, groupings: Vec::new(), swap: None, changes: Vec::new(), templates: Vec::new(), benchmarks: None };
    let of_rows = if config.data.as_os_str().is_empty() { none } else { audit_rows(config, device)? };
    let benchmarks = match &config.model {
        Some(model) if !config.benchmarks.is_empty() => {
            Some(benchmarks::ask(model, config.before.as_deref(), &config.benchmarks, config.seed, device)?)
        }
        _ => None,
    };
    let templates = config.templates.as_ref().map(|templates| ask_templates(templates, config, device)).transpose()?.unwrap_or_default();
    Ok(BiasAudit { templates, benchmarks, ..of_rows })
}

/// What the model, and the one before, make of templates.
fn ask_templates(templates: &TemplatesConfig, config: &BiasAuditConfig, device: &Device) -> Result<Vec<score::Row>> {
    let model = config.model.as_deref().ok_or_else(|| Error::config("templates", "there is no classifier to ask"))?;
    let templates = templates.file.as_deref().map_or_else(|| Ok(Templates::built_in()), |path| Templates::built_in().with_file(path))?;
    let classifier = Classifier::load(model, device)?;
    let names = classifier.class_names();
    let positive =
        (config.positive.is_some() || names.len() == 2).then(|| positives(config, &names)).transpose()?.map(|classes| classes[0]);
    let scores = |classifier: &Classifier| templates.scores(classifier, positive, config.seed);
    let before = config.before.as_deref().map(|folder| scores(&before(folder, &names, device)?)).transpose()?;
    Ok(score::Row::all("templates", &scores(&classifier)?, before.as_deref()))
}

/// The classifier before, which must have the same classes as the model.
fn before(folder: &Path, names: &[String], device: &Device) -> Result<Classifier> {
    let before = Classifier::load(folder, device)?;
    let found = before.class_names();
    if found != names {
        let message = format!("has the classes {}, the model {}: they cannot be compared", found.join(", "), names.join(", "));
        return Err(Error::checkpoint(folder, message));
    }
    Ok(before)
}

fn audit_rows(config: &BiasAuditConfig, device: &Device) -> Result<BiasAudit> {
    let table = Table::read(&config.data, &config.columns.names)?;
    let groups: Vec<(&str, &str)> = config.groups.iter().map(|column| ("groups", column.as_str())).collect();
    table.require_named(&groups)?;
    let rows: Vec<&Row> = table.rows.iter().collect();
    let classifier = config.model.as_deref().map(|folder| Classifier::load(folder, device)).transpose()?;
    let (names, predictions, swap, before) = match &classifier {
        Some(classifier) => {
            let names = classifier.class_names();
            let texts = texts(&table, &config.columns, &rows)?;
            let probabilities = classifier.probabilities(texts.clone(), &table, &rows)?;
            let swapped = swapped(classifier, config, &table, &texts, &probabilities)?;
            let before = match &config.before {
                Some(folder) => {
                    let before = before(folder, &names, device)?;
                    let probabilities = before.probabilities(texts.clone(), &table, &rows)?;
                    let swapped = self::swapped(&before, config, &table, &texts, &probabilities)?;
                    Some((before.classes(&probabilities, &table, &rows)?, swapped))
                }
                None => None,
            };
            (names, classifier.classes(&probabilities, &table, &rows)?, swapped, before)
        }
        None => {
            table.require_named(&[("prediction", &config.prediction), ("columns.label", &config.columns.label)])?;
            let predicted = column(&table, &config.prediction)?;
            let known = Labels::distinct(column(&table, &config.columns.label)?.into_iter().chain(predicted.iter().cloned()));
            let predictions = predicted.iter().map(|name| known.index(name).expect("one of them")).collect::<Vec<_>>();
            (known.names().to_vec(), predictions, None, None)
        }
    };
    let (mut groupings, mut changes) = (Vec::new(), Vec::new());
    if !config.groups.is_empty() {
        table.require_named(&[("columns.label", &config.columns.label)])?;
        let known = Labels::in_order(names.clone());
        let labels = rows.iter().map(|row| known.index_of_row(&table, row, &config.columns.label)).collect::<Result<Vec<_>>>()?;
        let columns = config.groups.iter().map(|name| column(&table, name)).collect::<Result<Vec<_>>>()?;
        let joined = || rows.iter().map(|row| grouped::name(&table, row, &config.groups)).collect::<Result<Vec<_>>>();
        let mut all: Vec<(String, Vec<String>)> = config.groups.iter().cloned().zip(columns.iter().cloned()).collect();
        if columns.len() > 1 {
            all.push((config.groups.join(" × "), joined()?));
        }
        let positives = positives(config, &names)?;
        for (by, of_rows) in &all {
            for &positive in &positives {
                let name = &names[positive];
                let (found, outcomes) = grouping(by, of_rows, &labels, &predictions, positive, name, config);
                if let Some((before, _)) = &before {
                    let (_, earlier) = grouping(by, of_rows, &labels, before, positive, name, config);
                    let part = if positives.len() > 1 { format!("{by}.{name}") } else { by.clone() };
                    changes.extend(change::of_groups(&part, found.groups.len(), &outcomes, &earlier, config.seed));
                }
                groupings.push(found);
            }
        }
    }
    if let (Some(swapped), Some((_, Some(earlier)))) = (&swap, &before) {
        changes.extend(change::of_swaps(swapped, earlier, config.seed));
    }
    Ok(BiasAudit { rows: rows.len(), groupings, swap: swap.map(|swapped| swapped.test), changes, templates: Vec::new(), benchmarks: None })
}

/// The classes that are counted.
fn positives(config: &BiasAuditConfig, names: &[String]) -> Result<Vec<usize>> {
    match &config.positive {
        Some(name) => {
            let place = names.iter().position(|known| known == name);
            let place = place.ok_or_else(|| Error::config("positive", format!("no class {name:?}; there are {}", names.join(", "))))?;
            Ok(vec![place])
        }
        None if names.len() <= 2 => Ok(vec![names.len() - 1]),
        None => Ok((0..names.len()).collect()),
    }
}

fn column(table: &Table, column: &str) -> Result<Vec<String>> {
    table.rows.iter().map(|row| table.label(row, column)).collect()
}

/// The groups compared, and the rows of those with enough of them.
fn grouping(
    by: &str,
    of_rows: &[String],
    labels: &[usize],
    predictions: &[usize],
    positive: usize,
    name: &str,
    config: &BiasAuditConfig,
) -> (Grouping, Vec<Outcome>) {
    let known = Labels::distinct(of_rows.iter().cloned());
    let outcome = |((group, &label), &prediction): ((&String, &usize), &usize)| Outcome {
        group: known.index(group).expect("one of them"),
        label: label == positive,
        prediction: prediction == positive,
    };
    let outcomes: Vec<Outcome> = of_rows.iter().zip(labels).zip(predictions).map(outcome).collect();
    let groups = Group::all(&outcomes, known.names(), config.fewest_rows, config.seed);
    let compared: Vec<Outcome> = outcomes.into_iter().filter(|outcome| groups[outcome.group].compared).collect();
    let n_compared = groups.iter().filter(|group| group.compared).count();
    let gaps = if n_compared > 1 { gaps(&compared, groups.len(), config.seed) } else { Vec::new() };
    (Grouping { by: by.to_owned(), positive: name.to_owned(), groups, gaps }, compared)
}

/// What came of an exchange of words, row by row.
struct Swapped {
    test: SwapTest,
    /// 1 for each row with such words whose predicted class changes, else 0.
    flips: Vec<f64>,
    /// By how much the probability of the positive class changes.
    shifts: Vec<f64>,
}

fn swapped(
    classifier: &Classifier,
    config: &BiasAuditConfig,
    table: &Table,
    texts: &[Texts],
    probabilities: &[Vec<f64>],
) -> Result<Option<Swapped>> {
    let swaps = config.swaps.as_deref().map_or_else(|| Ok(Swaps::built_in()), |path| Swaps::built_in().with_file(path))?;
    let names = classifier.class_names();
    let positive = positives(config, &names)?.pop().expect("a class");
    let mut rows = Vec::new();
    let (mut exchanged, mut leans) = (Vec::new(), Vec::new());
    for (index, (text, text_b)) in texts.iter().enumerate() {
        let (one, two) = (swaps.swapped(text), text_b.as_ref().and_then(|text| swaps.swapped(text)));
        if one.is_none() && two.is_none() {
            continue;
        }
        let count = |group: usize| [&one, &two].into_iter().flatten().map(|swapped| swapped.n_words[group]).sum::<usize>();
        leans.push(count(0).cmp(&count(1)));
        rows.push(index);
        let text = one.map_or_else(|| text.clone(), |swapped| swapped.text);
        exchanged.push((text, two.map(|swapped| swapped.text).or_else(|| text_b.clone())));
    }
    if rows.is_empty() {
        return Ok(None);
    }
    let of_rows: Vec<&Row> = rows.iter().map(|&row| &table.rows[row]).collect();
    let after = classifier.probabilities(exchanged.clone(), table, &of_rows)?;
    let pairs: Vec<(&Vec<f64>, &Vec<f64>)> = rows.iter().map(|&row| &probabilities[row]).zip(&after).collect();
    // Groups are those of the rows as they were.
    let of = |probabilities: Vec<Vec<f64>>| classifier.classes(&probabilities, table, &of_rows);
    let (first, second) = (of(rows.iter().map(|&row| probabilities[row].clone()).collect())?, of(after.clone())?);
    let flips: Vec<f64> = first.iter().zip(&second).map(|(before, after)| f64::from(u8::from(before != after))).collect();
    let shifts: Vec<f64> = pairs.iter().map(|(before, after)| (after[positive] - before[positive]).abs()).collect();
    let toward_first = pairs.iter().zip(&leans).filter_map(|((before, after), lean)| match lean {
        std::cmp::Ordering::Greater => Some(before[positive] - after[positive]),
        std::cmp::Ordering::Less => Some(after[positive] - before[positive]),
        std::cmp::Ordering::Equal => None,
    });
    let toward_first: Vec<f64> = toward_first.collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| shifts[b].total_cmp(&shifts[a]).then(a.cmp(&b)));
    order.truncate(MOST_EXAMPLES);
    let example = |place: usize| SwapExample {
        text: exchanged[place].0.clone(),
        line: of_rows[place].line,
        before: pairs[place].0[positive],
        after: pairs[place].1[positive],
    };
    let estimate = |values: &[f64]| Estimate::new(values, config.seed, mean);
    let test = SwapTest {
        positive: names[positive].clone(),
        rows: rows.len(),
        flips: estimate(&flips),
        shift: estimate(&shifts),
        first_minus_second: (!toward_first.is_empty()).then(|| estimate(&toward_first)),
        examples: order.into_iter().map(example).collect(),
    };
    Ok(Some(Swapped { test, flips, shifts }))
}
