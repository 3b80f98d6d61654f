//! Rows that are empty, there twice, held out and trained on, or labelled against each other; and classes that cannot be learnt.

use super::machine::size;
use super::{Finding, MOST_EXAMPLES, Severity, exceeds, limit, percent};
use kiln_core::Result;
use kiln_data::duplicates::{Texts, is_compared_line};
use kiln_data::rows::{Row, Table, text_of};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a row of the user's files is made of.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The columns of its texts: strings, lists of words, or messages. Those that a file lacks are left out.
    pub texts: Vec<&'a str>,
    /// The column of its class, if it has one.
    pub class: Option<&'a str>,
}

/// More empty rows are a mistake of the file, not of a row.
const EMPTY: f64 = 0.01;
/// Of twelve public corpora the one with the most equal rows has 1.7 %.
const EQUAL: f64 = 0.05;
/// A file that was put together with itself has half; rows that a grammar makes up may well have a third.
const MOSTLY_EQUAL: f64 = 0.45;
/// A resemblance of rows that differ by a word or two, or by a number.
pub const NEAR: f64 = 0.9;
/// SNLI, whose rows share premises three by three, has 3.3 % of them.
const NEARLY_EQUAL: f64 = 0.1;
/// By so much at most a share of right answers may be too high.
const LEAKED: f64 = 0.01;
/// What is held out of a file has none: equal rows go to one side. Of files of their own five points are more than most methods differ by.
const MUCH_LEAKED: f64 = 0.05;
/// As of exact ones: SNLI has 3.3 % of near ones.
const NEARLY_LEAKED: f64 = 0.05;
const MUCH_NEARLY_LEAKED: f64 = 0.2;
/// People who label texts twice disagree on more than this.
const CONFLICTING: f64 = 0.01;
const MUCH_CONFLICTING: f64 = 0.1;
/// Above it whoever always says the same class is right more often than most classifiers.
const ONE_SIDED: f64 = 0.95;
/// Fewer rows never stop a run: of a handful of held-out rows one is a large share.
const FEW: usize = 5;
/// Bytes of text that near duplicates are looked for among, training and held-out rows: seconds. Beyond it rows are compared exactly only.
const NEAR_BYTES: [usize; 2] = [24 << 20, 8 << 20];

/// Says what the rows of a table are made of.
pub type FieldsOf<'a> = dyn Fn(&Table) -> Fields<'a> + 'a;

/// What is wrong with the rows that train and, if they are rows too, with those held out.
///
/// # Errors
/// If a class cannot be read.
pub fn check(train: &[Table], held_out: &[Table], fields: &FieldsOf<'_>) -> Result<Vec<Finding>> {
    check_within(train, held_out, fields, NEAR_BYTES)
}

/// Near duplicates are looked for among the first `near_bytes` of training and of held-out text.
pub(super) fn check_within(train: &[Table], held_out: &[Table], fields: &FieldsOf<'_>, near_bytes: [usize; 2]) -> Result<Vec<Finding>> {
    let rows = Rows::new(train, held_out, fields, near_bytes);
    let class = fields(&train[0]).class;
    let classes = rows.classes(class)?;
    let (same, near) = (rows.texts.first_same(), rows.near());
    let mut findings: Vec<Finding> = [
        rows.empty(),
        rows.equal(&same, &classes),
        rows.nearly_equal(&near),
        rows.leaked(&same),
        rows.nearly_leaked(&near),
        rows.not_compared(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if class.is_some() {
        findings.extend(rows.conflicting(&same, &classes));
        findings.extend(rows.untrained(&classes));
        findings.extend(rows.one_sided(&classes));
    }
    Ok(findings)
}

/// Which of the rows that a run is validated on train too: what is chosen by them would be what is known by heart.
pub fn leaked_validation(train: &[Table], validation: &[Table], fields: &FieldsOf<'_>) -> Vec<Finding> {
    let rows = Rows { aside: "validation", ..Rows::new(train, validation, fields, NEAR_BYTES) };
    let leaked = [rows.leaked(&rows.texts.first_same()), rows.nearly_leaked(&rows.near())];
    leaked.into_iter().flatten().collect()
}

/// Whether so many of `whole` rows stop a run.
fn severity(count: usize, whole: usize, most: f64) -> Severity {
    if count >= FEW && exceeds(count, whole, most) { Severity::Stop } else { Severity::Note }
}

/// The rows of all tables, those that train first.
struct Rows<'a> {
    tables: Vec<&'a Table>,
    /// The table and the row of each text.
    places: Vec<(usize, &'a Row)>,
    texts: Texts,
    n_train: usize,
    is_running: bool,
    near_bytes: [usize; 2],
    /// What the rows are called that do not train.
    aside: &'static str,
}

impl<'a> Rows<'a> {
    fn new(train: &'a [Table], held_out: &'a [Table], fields: &FieldsOf<'_>, near_bytes: [usize; 2]) -> Self {
        let tables: Vec<&Table> = train.iter().chain(held_out).collect();
        let (mut places, mut texts, mut n_train) = (Vec::new(), Vec::new(), 0);
        for (index, table) in tables.iter().enumerate() {
            let columns = fields(table).texts;
            // What judges a run may be made of other columns, such as scored pairs.
            let is_alike = index < train.len() || columns.iter().any(|column| table.has(column));
            for row in table.rows.iter().filter(|_| is_alike) {
                let text = text_of(row, &columns);
                if !table.is_running_text() || is_compared_line(&text) {
                    places.push((index, row));
                    texts.push(text);
                }
            }
            n_train = if index < train.len() { texts.len() } else { n_train };
        }
        let is_running = train.iter().all(Table::is_running_text);
        Self { tables, places, texts: Texts::new(&texts), n_train, is_running, near_bytes, aside: "held-out" }
    }

    fn n_held_out(&self) -> usize {
        self.places.len() - self.n_train
    }

    /// `train.tsv:7`.
    fn place(&self, index: usize) -> String {
        let (table, row) = self.places[index];
        format!("{}:{}", self.tables[table].path.display(), row.line)
    }

    /// What a row is called: of running text it is a line.
    fn row(&self) -> &'static str {
        if self.is_running { "lines" } else { "rows" }
    }

    fn pair(&self, of: usize, other: usize) -> String {
        format!("{} ({})", self.place(of), self.place(other))
    }

    fn empty(&self) -> Option<Finding> {
        let empty: Vec<usize> = (0..self.places.len()).filter(|&index| self.texts.is_blank(index)).collect();
        let n = self.places.len();
        let severity = severity(empty.len(), n, EMPTY);
        (!empty.is_empty()).then(|| Finding {
            name: "empty-rows",
            severity,
            count: empty.len(),
            found: format!("{} of {n} rows have no text ({}; the limit is {})", empty.len(), percent(empty.len(), n), limit(EMPTY)),
            examples: empty.iter().take(MOST_EXAMPLES).map(|&index| self.place(index)).collect(),
            advice: "fill them or leave them out".into(),
        })
    }

    /// The class of each row that has one.
    fn classes(&self, column: Option<&str>) -> Result<Vec<String>> {
        let Some(column) = column else { return Ok(Vec::new()) };
        self.places.iter().map(|&(table, row)| self.tables[table].label(row, column)).collect()
    }

    fn equal(&self, same: &[usize], classes: &[String]) -> Option<Finding> {
        let n = self.n_train;
        let is_equal =
            |&index: &usize| same[index] != index && !self.texts.is_blank(index) && classes.get(index) == classes.get(same[index]);
        let equal: Vec<usize> = (0..n).filter(is_equal).collect();
        let severity = severity(equal.len(), n, MOSTLY_EQUAL);
        let threshold = if severity == Severity::Stop { MOSTLY_EQUAL } else { EQUAL };
        exceeds(equal.len(), n, EQUAL).then(|| Finding {
            name: "duplicate-rows",
            severity,
            count: equal.len(),
            found: format!(
                "{} of {n} training {} repeat an earlier one ({}; the limit is {})",
                equal.len(),
                self.row(),
                percent(equal.len(), n),
                limit(threshold)
            ),
            examples: equal.iter().take(MOST_EXAMPLES).map(|&index| self.pair(index, same[index])).collect(),
            advice: "leave the copies out, or set more epochs instead".into(),
        })
    }

    /// How many rows of both tables near duplicates are looked for among.
    fn looked_at(&self) -> [Range<usize>; 2] {
        let within = |range: Range<usize>, most_bytes: usize| {
            let mut n_bytes = 0;
            let end = range.clone().find(|&index| {
                n_bytes += self.texts.n_bytes(index);
                n_bytes > most_bytes
            });
            range.start..end.unwrap_or(range.end)
        };
        [within(0..self.n_train, self.near_bytes[0]), within(self.n_train..self.places.len(), self.near_bytes[1])]
    }

    /// For each row a training row before it that it is nearly the same as.
    fn near(&self) -> Vec<Option<usize>> {
        let [train, held_out] = self.looked_at();
        self.texts.alike(train, held_out, NEAR).into_iter().map(|alike| Some(alike?.index)).collect()
    }

    fn not_compared(&self) -> Option<Finding> {
        let [train, held_out] = self.looked_at();
        let n_left = self.places.len() - train.len() - held_out.len();
        (n_left > 0).then(|| Finding {
            name: "rows-not-compared",
            severity: Severity::Note,
            count: n_left,
            found: format!(
                "near duplicates were looked for among the first {} training and {} held-out rows only (the limits are {} and {} of text)",
                train.len(),
                held_out.len(),
                size(self.near_bytes[0]),
                size(self.near_bytes[1])
            ),
            examples: Vec::new(),
            advice: "the others were compared exactly".into(),
        })
    }

    fn nearly_equal(&self, near: &[Option<usize>]) -> Option<Finding> {
        let n = self.n_train;
        let equal: Vec<(usize, usize)> = (0..n).filter_map(|index| Some((index, near[index]?))).collect();
        exceeds(equal.len(), n, NEARLY_EQUAL).then(|| Finding {
            name: "near-duplicate-rows",
            severity: Severity::Note,
            count: equal.len(),
            found: format!(
                "{} of {n} training {} are nearly the same as an earlier one ({}; the limit is {})",
                equal.len(),
                self.row(),
                percent(equal.len(), n),
                limit(NEARLY_EQUAL)
            ),
            examples: equal.iter().take(MOST_EXAMPLES).map(|&(index, other)| self.pair(index, other)).collect(),
            advice: "look whether they are copies".into(),
        })
    }

    fn leaked(&self, same: &[usize]) -> Option<Finding> {
        let is_leaked = |&index: &usize| same[index] < self.n_train && !self.texts.is_blank(index);
        let leaked: Vec<(usize, usize)> = (self.n_train..self.places.len()).filter(is_leaked).map(|index| (index, same[index])).collect();
        self.leak("leaked-rows", "are training rows too", &leaked, [LEAKED, MUCH_LEAKED])
    }

    fn nearly_leaked(&self, near: &[Option<usize>]) -> Option<Finding> {
        let leaked: Vec<(usize, usize)> = (self.n_train..self.places.len()).filter_map(|index| Some((index, near[index]?))).collect();
        self.leak("near-leaked-rows", "are nearly the same as a training row", &leaked, [NEARLY_LEAKED, MUCH_NEARLY_LEAKED])
    }

    fn leak(&self, name: &'static str, what: &str, leaked: &[(usize, usize)], limits: [f64; 2]) -> Option<Finding> {
        let n = self.n_held_out();
        let severity = severity(leaked.len(), n, limits[1]);
        let threshold = if severity == Severity::Stop { limits[1] } else { limits[0] };
        exceeds(leaked.len(), n, limits[0]).then(|| Finding {
            name,
            severity,
            count: leaked.len(),
            found: format!(
                "{} of {n} {} {} {what} ({}; the limit is {})",
                leaked.len(),
                self.aside,
                self.row(),
                percent(leaked.len(), n),
                limit(threshold)
            ),
            examples: leaked.iter().take(MOST_EXAMPLES).map(|&(index, other)| self.pair(index, other)).collect(),
            advice: "leave them out of one side: the figures would count what was learnt by heart".into(),
        })
    }

    fn conflicting(&self, same: &[usize], classes: &[String]) -> Option<Finding> {
        let n = self.n_train;
        let is_conflicting = |&index: &usize| classes[index] != classes[same[index]] && !self.texts.is_blank(index);
        let conflicting: Vec<usize> = (0..n).filter(is_conflicting).collect();
        let severity = severity(conflicting.len(), n, MUCH_CONFLICTING);
        let threshold = if severity == Severity::Stop { MUCH_CONFLICTING } else { CONFLICTING };
        exceeds(conflicting.len(), n, CONFLICTING).then(|| Finding {
            name: "conflicting-labels",
            severity,
            count: conflicting.len(),
            found: format!(
                "{} of {n} training rows have the text of an earlier one and another label ({}; the limit is {})",
                conflicting.len(),
                percent(conflicting.len(), n),
                limit(threshold)
            ),
            examples: conflicting.iter().take(MOST_EXAMPLES).map(|&index| self.pair(index, same[index])).collect(),
            advice: "decide for one label of each text".into(),
        })
    }

    /// Held-out rows of a class that has no training row.
    fn untrained(&self, classes: &[String]) -> Option<Finding> {
        let (train, held_out) = classes.split_at(self.n_train);
        let known: BTreeSet<&String> = train.iter().collect();
        let unknown: Vec<usize> = (0..held_out.len()).filter(|&index| !known.contains(&held_out[index])).collect();
        let example = |&index: &usize| format!("{:?} ({})", held_out[index], self.place(self.n_train + index));
        (!unknown.is_empty()).then(|| Finding {
            name: "untrained-classes",
            severity: Severity::Stop,
            count: unknown.len(),
            found: format!("{} of {} held-out rows are of a class without a training row (the limit is 0)", unknown.len(), held_out.len()),
            examples: unknown.iter().take(MOST_EXAMPLES).map(example).collect(),
            advice: "give the class training rows or leave it out".into(),
        })
    }

    fn one_sided(&self, classes: &[String]) -> Option<Finding> {
        let n = self.n_train;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        classes[..n].iter().for_each(|class| *counts.entry(class).or_default() += 1);
        let (class, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        exceeds(count, n, ONE_SIDED).then(|| Finding {
            name: "one-sided-labels",
            severity: Severity::Note,
            count,
            found: format!(
                "{count} of {n} training rows are of the class {class:?} ({}; the limit is {})",
                percent(count, n),
                limit(ONE_SIDED)
            ),
            examples: Vec::new(),
            advice: "read F1 instead of accuracy, or add rows of the other classes".into(),
        })
    }
}
