//! Mitigation of bias: what changes in training and after it so that a classifier does not go by the group that a row is about.

mod config;
mod control;

pub use config::{CounterfactualConfig, GroupDroConfig, Method, MitigationConfig, Parity};
pub use control::{Comparison, GroupThreshold, MitigationSummary};

use crate::config::SftConfig;
use crate::evaluate::Answer;
use crate::objective::{group_dro, reweighing};
use control::Control;
use kiln_core::{Error, Result};
use kiln_data::grouped::{Grouped, Groups};
use kiln_data::labels::Labels;
use kiln_data::swaps::Swaps;
use kiln_eval::evaluation::{Classified, Evaluation, FEWEST_ROWS};
use kiln_eval::thresholds::{Scored, choose};
use kiln_kernels::random::Key;
use kiln_train::preflight::{Finding, Severity};
use kiln_train::thresholds::Thresholds;
use std::borrow::Borrow;
use std::collections::BTreeMap;

/// The stream of randomness that says which rows come, of the run's seed.
const DRAW: u64 = 4;

/// What a run knows of groups, and what it does about them.
pub(crate) struct Mitigation<'a> {
    config: &'a MitigationConfig,
    seed: u64,
    groups: Groups,
    classes: Vec<String>,
    /// The classes that are counted.
    positives: Vec<usize>,
    /// The group and label of each training row, as one number.
    cells: Vec<usize>,
    /// Which row has which twin, by index.
    twins: BTreeMap<usize, usize>,
    /// Training rows of each cell.
    counts: Vec<usize>,
    /// How much each cell counts, for methods that weigh: fixed, or the weights of group DRO.
    weights: Vec<f64>,
    thresholds: Option<Thresholds>,
    control: Option<Control>,
}

impl<'a> Mitigation<'a> {
    /// For the training rows with these `cells`.
    pub fn new(
        config: &'a SftConfig,
        groups: Groups,
        labels: &Labels,
        members: Vec<(u32, u32)>,
        twins: BTreeMap<usize, usize>,
    ) -> Result<Self> {
        let SftConfig { mitigation, seed, .. } = config;
        let classes = labels.names().to_vec();
        let cell = |(group, label): (u32, u32)| group as usize * classes.len() + label as usize;
        let positives = match &mitigation.positive {
            Some(name) => {
                let message = || format!("no class {name:?}; there are {}", classes.join(", "));
                vec![labels.index(name).ok_or_else(|| Error::config("mitigation.positive", message()))?]
            }
            None if classes.len() == 2 => vec![1],
            None => (0..classes.len()).collect(),
        };
        if mitigation.thresholds.is_some() && classes.len() != 2 {
            let message = format!("are for two classes, and there are {}: leave them out", classes.len());
            return Err(Error::config("mitigation.thresholds", message));
        }
        if matches!(mitigation.method, Method::Counterfactual(_)) && twins.is_empty() {
            let message = "\"counterfactual\" finds no word to exchange in any training row: name pairs of words in a file under mitigation.method.swaps";
            return Err(Error::config("mitigation.method", message));
        }
        let control = mitigation.control.as_deref().map(|folder| Control::find(folder, config)).transpose()?;
        let cells = members.into_iter().map(cell).collect();
        let (counts, weights, thresholds) = (Vec::new(), Vec::new(), None);
        Ok(Self { config: mitigation, seed: *seed, groups, classes, positives, cells, twins, counts, weights, thresholds, control })
    }

    /// Words to be exchanged, if that is what is done.
    ///
    /// # Errors
    /// If a file of them is bad.
    pub fn swaps(config: &MitigationConfig) -> Result<Option<Swaps>> {
        let Method::Counterfactual(CounterfactualConfig { swaps, .. }) = &config.method else { return Ok(None) };
        swaps.as_deref().map_or_else(|| Ok(Swaps::built_in()), |path| Swaps::built_in().with_file(path)).map(Some)
    }

    /// Learns which rows train, by index; one that comes twice is two.
    pub fn begin(&mut self, rows: &[usize]) {
        self.counts = vec![0; self.groups.names().len() * self.classes.len()];
        rows.iter().for_each(|&row| self.counts[self.cells[row]] += 1);
        self.weights = match self.config.method {
            Method::Reweighing => reweighing::weights(&self.counts, self.classes.len()),
            Method::GroupDro(_) => self.each_cell(1.0),
            _ => Vec::new(),
        };
    }

    /// A `total`, shared by all cells that have rows.
    fn each_cell(&self, total: f64) -> Vec<f64> {
        let n_cells = self.counts.iter().filter(|&&count| count > 0).count();
        self.counts.iter().map(|&count| if count > 0 { total / n_cells as f64 } else { 0.0 }).collect()
    }

    /// The rows that an epoch sees, of those that it would see without mitigation.
    pub fn drawn(&self, rows: Vec<usize>, epoch: u64) -> Vec<usize> {
        let key = Key::new(self.seed).fold(DRAW);
        let draw = |targets: &[f64]| {
            let cells: Vec<usize> = rows.iter().map(|&row| self.cells[row]).collect();
            reweighing::draw(&rows, &cells, targets, key, epoch)
        };
        match self.config.method {
            Method::None | Method::Reweighing => rows,
            Method::Resampling => draw(&reweighing::independent(&self.counts, self.classes.len())),
            Method::GroupDro(_) => draw(&self.each_cell(rows.len() as f64)),
            Method::Counterfactual(CounterfactualConfig { replace: false, .. }) => {
                let twins: Vec<usize> = rows.iter().filter_map(|row| self.twins.get(row)).copied().collect();
                [rows, twins].concat()
            }
            Method::Counterfactual(CounterfactualConfig { replace: true, .. }) => {
                let key = key.fold(epoch);
                let chosen = |row: usize| match self.twins.get(&row) {
                    Some(&twin) if key.uniform(row as u64) < 0.5 => twin,
                    _ => row,
                };
                rows.into_iter().map(chosen).collect()
            }
        }
    }

    /// How much each row counts and what all of them weigh together, if not all count as 1. `losses` says what each costs; it is not asked for
    /// without need.
    pub fn row_weights(&mut self, rows: &[&Grouped], losses: impl FnOnce() -> Vec<f64>) -> Option<(Vec<f32>, f64)> {
        let cells: Vec<usize> = rows.iter().map(|row| self.cell((row.group, row.row.label))).collect();
        match self.config.method {
            Method::Reweighing => {
                let weights: Vec<f32> = cells.iter().map(|&cell| self.weights[cell] as f32).collect();
                let total = weights.iter().map(|&weight| f64::from(weight)).sum();
                Some((weights, total))
            }
            // The sum over groups is the loss: groups that are not in the batch have none.
            Method::GroupDro(GroupDroConfig { step_size, adjustment }) => {
                let weights =
                    group_dro::step(&mut self.weights, &losses(), &cells, step_size, &group_dro::adjustments(&self.counts, adjustment));
                Some((weights, 1.0))
            }
            _ => None,
        }
    }

    /// The loss of other rows as the method sees it: with the weights of these rows, or of the worst group.
    pub fn validation_loss(&self, answers: &[Answer], rows: &[Grouped]) -> f64 {
        let mut sums = vec![(0.0, 0_usize); self.counts.len()];
        for (answer, row) in answers.iter().zip(rows) {
            let (sum, count) = &mut sums[self.cell((row.group, row.row.label))];
            (*sum, *count) = (*sum + answer.cross_entropy, *count + 1);
        }
        let counts: Vec<usize> = sums.iter().map(|(_, count)| *count).collect();
        let weights = match self.config.method {
            Method::Reweighing | Method::Resampling => reweighing::weights(&counts, self.classes.len()),
            Method::GroupDro(_) => {
                let means = sums.iter().filter(|(_, count)| *count > 0).map(|(sum, count)| sum / *count as f64);
                return means.reduce(f64::max).unwrap_or(f64::NAN);
            }
            Method::None | Method::Counterfactual(_) => vec![1.0; counts.len()],
        };
        let total: f64 = weights.iter().zip(&counts).map(|(weight, &count)| weight * count as f64).sum();
        weights.iter().zip(&sums).map(|(weight, (sum, _))| weight * sum).sum::<f64>() / total
    }

    /// The number of a group with a label.
    fn cell(&self, (group, label): (u32, u32)) -> usize {
        group as usize * self.classes.len() + label as usize
    }

    /// What a checkpoint has to keep.
    pub fn carried(&self) -> &[f64] {
        if matches!(self.config.method, Method::GroupDro(_)) { &self.weights } else { &[] }
    }

    /// Goes on from what a checkpoint kept.
    pub fn carry(&mut self, carried: Vec<f64>) {
        if !carried.is_empty() {
            self.weights = carried;
        }
    }

    /// What the user should know of the groups.
    pub fn findings(&self) -> Vec<Finding> {
        let n_labels = self.classes.len();
        let name = |cell: usize| {
            format!("{} with {:?} ({})", self.groups.names()[cell / n_labels], self.classes[cell % n_labels], self.counts[cell])
        };
        let small: Vec<usize> = (0..self.counts.len()).filter(|&cell| self.counts[cell] < FEWEST_ROWS).collect();
        let finding = Finding {
            name: "small-groups",
            severity: Severity::Note,
            count: small.len(),
            found: format!("{} of {} groups by label have fewer than {FEWEST_ROWS} training rows", small.len(), self.counts.len()),
            examples: small.iter().take(kiln_train::preflight::MOST_EXAMPLES).map(|&cell| name(cell)).collect(),
            advice: "what is learnt of so few rows holds for few others: join groups, or find more rows".into(),
        };
        if self.config.groups.is_empty() || small.is_empty() { Vec::new() } else { vec![finding] }
    }

    /// How many rows have a twin, in a line for the user.
    pub fn note(&self) -> Option<String> {
        let count = || format!("{} training rows have words to exchange", self.twins.len());
        matches!(self.config.method, Method::Counterfactual(_)).then(count)
    }

    /// The class that thresholds are for.
    pub fn positive(&self) -> u32 {
        self.positives[0] as u32
    }

    /// What the answers are worth: by the thresholds, if they were chosen.
    pub fn evaluation<R: Borrow<Grouped>>(&self, answers: &[Answer], rows: &[R], seed: u64) -> Evaluation {
        judged(answers, rows, &self.groups, &self.positives, &self.classes, self.thresholds.as_ref(), seed)
    }

    /// Chooses the thresholds by the `answers` to `rows`, if they are asked for.
    pub fn calibrate<R: Borrow<Grouped>>(&mut self, answers: &[Answer], rows: &[R]) {
        let Some(parity) = self.config.thresholds else { return };
        let scored = |(answer, row): (&Answer, &R)| {
            let row = row.borrow();
            Scored { group: row.group as usize, label: row.row.label == self.positive(), score: answer.score }
        };
        let scored: Vec<Scored> = answers.iter().zip(rows).map(scored).collect();
        let names = self.groups.names();
        let chosen = choose(&scored, names.len(), parity.criterion());
        self.thresholds = Some(Thresholds {
            columns: self.config.groups.clone(),
            positive: self.classes[self.positives[0]].clone(),
            criterion: parity.criterion().name().to_owned(),
            thresholds: names.iter().cloned().zip(chosen).collect(),
        });
    }

    /// The thresholds, once they were chosen.
    pub fn thresholds(&self) -> Option<&Thresholds> {
        self.thresholds.as_ref()
    }
}

/// What answers to rows are worth. Of several groups how far they lie apart belongs to it; `thresholds` decide instead of ½.
pub(crate) fn judged<R: Borrow<Grouped>>(
    answers: &[Answer],
    rows: &[R],
    groups: &Groups,
    positives: &[usize],
    classes: &[String],
    thresholds: Option<&Thresholds>,
    seed: u64,
) -> Evaluation {
    let thresholds: Option<Vec<f64>> = thresholds.map(|found| groups.names().iter().map(|group| found.of(group)).collect());
    let prediction = |(answer, row): (&Answer, &R)| match &thresholds {
        Some(thresholds) if answer.score >= thresholds[row.borrow().group as usize] => positives[0],
        // Of two classes the other one.
        Some(_) => 1 - positives[0],
        None => answer.class,
    };
    let predictions: Vec<usize> = answers.iter().zip(rows).map(prediction).collect();
    let golds: Vec<usize> = rows.iter().map(|row| row.borrow().row.label as usize).collect();
    let found: Vec<(usize, f64)> = predictions.iter().zip(answers).map(|(&class, answer)| (class, answer.cross_entropy)).collect();
    let evaluation = Evaluation::of_classes(&found, &golds, classes, seed);
    if groups.names().len() < 2 {
        return evaluation;
    }
    let classified =
        |((row, &label), &prediction): ((&R, &usize), &usize)| Classified { group: row.borrow().group as usize, label, prediction };
    let classified: Vec<Classified> = rows.iter().zip(&golds).zip(&predictions).map(classified).collect();
    evaluation.with_groups(&classified, groups.names(), positives, classes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_data::rows::{Row, Table};
    use kiln_data::sequences::Labelled;

    /// Six rows of group a, of which four have label 1, and two of group b, of which none has. Their losses are those of their cells: 1 and 2 in
    /// group a, 4 in group b.
    #[test]
    fn a_validation_weighs_the_rows_as_the_method_does() {
        let config = |method| {
            let mitigation = MitigationConfig { groups: vec!["who".into()], method, ..MitigationConfig::default() };
            SftConfig { mitigation, ..SftConfig::default() }
        };
        let rows: Vec<(u32, u32)> = vec![(0, 0), (0, 0), (0, 1), (0, 1), (0, 1), (0, 1), (1, 0), (1, 0)];
        let loss = |method| {
            let (config, labels) = (config(method), Labels::in_order(vec!["0".into(), "1".into()]));
            let row = |who: &str| Row { line: 1, fields: [("who".to_owned(), who.into())].into_iter().collect() };
            let table = Table { path: "rows.csv".into(), columns: vec!["who".into()], rows: ["a", "b"].map(row).into() };
            let groups = Groups::of_table(&table, &config.mitigation.groups).unwrap();
            let mut mitigation = Mitigation::new(&config, groups, &labels, rows.clone(), BTreeMap::new()).unwrap();
            mitigation.begin(&(0..rows.len()).collect::<Vec<_>>());
            let grouped = |&(group, label): &(u32, u32)| Grouped {
                row: Labelled { ids: Vec::new(), token_types: Vec::new(), label },
                group,
                twin: None,
            };
            let answer = |&cell: &(u32, u32)| Answer {
                class: 0,
                cross_entropy: [[1.0, 2.0], [4.0, f64::NAN]][cell.0 as usize][cell.1 as usize],
                score: 0.5,
            };
            mitigation.validation_loss(&rows.iter().map(answer).collect::<Vec<_>>(), &rows.iter().map(grouped).collect::<Vec<_>>())
        };
        assert_eq!(loss(Method::None), (2.0 * 1.0 + 4.0 * 2.0 + 2.0 * 4.0) / 8.0);
        // Of 8 rows half have label 1 and 6 are of group a: were both independent, there would be 3 rows, 3 rows, and 1 of group b with label 0.
        let independent = (3.0 * 1.0 + 3.0 * 2.0 + 1.0 * 4.0) / 7.0;
        assert!((loss(Method::Reweighing) - independent).abs() < 1e-12 && (loss(Method::Resampling) - independent).abs() < 1e-12);
        assert_eq!(loss(Method::GroupDro(GroupDroConfig::default())), 4.0);
    }
}
