//! Trainings of a run's configuration on other rows: on parts of its own, and on its own with shuffled labels.

use burn::tensor::Device;
use kiln_audit::fit::control::{ShuffledControl, shuffled_control};
use kiln_audit::fit::power_law::{LearningCurve, Point};
use kiln_audit::fit::variations::{Shuffle, shuffled, subset, write};
use kiln_audit::run::FinishedRun;
use kiln_core::{Error, Result};
use kiln_data::layout::Layout;
use kiln_data::rows::{Row, Table};
use kiln_data::source::{DataConfig, Source};
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::observe::observe;
use kiln_sft::train::train;
use kiln_train::manifest::settings;
use kiln_train::observed::{Observation, Observed};
use std::path::{Path, PathBuf};

/// The parts of the rows that a learning curve trains on, beside all of them.
const SHARES: [(f64, &str); 3] = [(0.125, "eighth"), (0.25, "quarter"), (0.5, "half")];

/// A run to be made again on other rows.
pub struct Again<'a> {
    run: &'a FinishedRun,
    config: SftConfig,
    train: Vec<Table>,
    held_out: PathBuf,
    /// Where rows and runs are left.
    out: &'a Path,
    most_rows: usize,
    device: &'a Device,
}

impl<'a> Again<'a> {
    /// The run in `run`, of `sft`, whose held-out rows are kept. Rows and runs are left in `out`.
    ///
    /// # Errors
    /// If it is no run of `sft`, or a file cannot be read or written.
    pub fn new(run: &'a FinishedRun, out: &'a Path, most_rows: usize, device: &'a Device) -> Result<Self> {
        if run.manifest.method != "sft" {
            let message = format!("a run of {} is not trained again: only those of sft are", run.manifest.method);
            return Err(Error::config(run.folder.display().to_string(), message));
        }
        let config: SftConfig = settings(&run.folder)?;
        let [train, held_out] = config.data.open(&config.columns.names, config.draw())?.into_tables()?;
        let held_out = write(&held_out, &out.join("rows"), "held-out")?;
        Ok(Self { run, config, train, held_out, out, most_rows, device })
    }

    /// What these trainings are expected to take, in times of the run.
    pub fn cost(learning_curve: bool, shuffled_labels: bool) -> f64 {
        let shares: f64 = SHARES.iter().map(|(share, _)| share).sum();
        f64::from(u8::from(learning_curve)) * shares + f64::from(u8::from(shuffled_labels))
    }

    /// Errors on the held-out rows after training on parts of the rows, and on all by the run itself, of which `observed` is.
    ///
    /// # Errors
    /// If a training fails.
    pub fn learning_curve(&self, observed: &Observed, seed: u64) -> Result<LearningCurve> {
        let has_answers = matches!(self.config.task, Task::Classification | Task::TokenClassification | Task::Preference);
        let mut points = Vec::new();
        for (share, name) in SHARES {
            let parts = self
                .train
                .iter()
                .map(|table| subset(table, share, |row| self.labels(table, row), self.config.seed))
                .collect::<Result<Vec<_>>>()?;
            let part = self.trained(&parts, name)?;
            if part.held_out.n_rows != observed.held_out.n_rows {
                let message = "held-out blocks of several files of running text cannot be kept: name a file under data.held_out";
                return Err(Error::config(self.run.folder.display().to_string(), message));
            }
            points.push(point(&part, has_answers));
        }
        points.push(point(observed, has_answers));
        Ok(LearningCurve::new(if has_answers { "share of wrong answers" } else { "loss" }, &points, seed))
    }

    /// The run against one on its own rows with shuffled labels.
    ///
    /// # Errors
    /// If the rows have no labels, or the training fails.
    pub fn shuffled_labels(&self, observed: &Observed, seed: u64) -> Result<ShuffledControl> {
        let tables = self.train.iter().map(|table| shuffled(table, self.shuffle(table)?, self.config.seed)).collect::<Result<Vec<_>>>()?;
        let control = self.trained(&tables, "shuffled")?;
        let right = [&observed.train.before[..], &observed.train.after];
        Ok(shuffled_control(right, [&control.train.before, &control.train.after], seed))
    }

    /// The classes of a row, which a model has to know to be judged.
    fn labels(&self, table: &Table, row: &Row) -> Result<Vec<String>> {
        let columns = &self.config.columns;
        match self.config.task {
            Task::Classification => Ok(vec![table.label(row, &columns.label)?]),
            Task::TokenClassification => Ok(table.texts(row, &columns.tags)?.into_iter().map(str::to_owned).collect()),
            Task::Regression | Task::NextToken | Task::Preference => Ok(Vec::new()),
        }
    }

    /// What is a label in `table`.
    fn shuffle(&self, table: &Table) -> Result<Shuffle<'_>> {
        let columns = &self.config.columns;
        let [_, chosen, rejected] = columns.preference();
        match self.config.task {
            Task::Classification | Task::Regression => Ok(Shuffle::Deal(&columns.label)),
            Task::Preference => Ok(Shuffle::Swap([chosen, rejected])),
            Task::TokenClassification => Ok(Shuffle::Tags(&columns.tags)),
            Task::NextToken => match Layout::of(table, columns)?.0 {
                Layout::PromptCompletion([_, completion]) => Ok(Shuffle::Deal(completion)),
                Layout::Alpaca([_, _, output]) => Ok(Shuffle::Deal(output)),
                Layout::Messages(column) => Ok(Shuffle::Turns(column)),
                Layout::Text(_) | Layout::RunningText(_) => {
                    Err(Error::data(&table.path, None, "texts have no labels to shuffle: leave out --shuffled-labels"))
                }
            },
        }
    }

    /// Trains on `tables`, in a run of its own called `name`, and asks its models about its rows.
    fn trained(&self, tables: &[Table], name: &str) -> Result<Observed> {
        let rows = self.out.join("rows");
        let source = |(index, (table, source)): (usize, (&Table, &Source))| {
            Ok(Source { path: write(std::slice::from_ref(table), &rows, &format!("{name}-{}", index + 1))?, weight: source.weight })
        };
        let train_on = tables.iter().zip(self.config.data.train.iter()).enumerate().map(source).collect::<Result<Vec<_>>>()?;
        let mut config = SftConfig {
            data: DataConfig { train: train_on.into_iter().collect(), held_out: Some(self.held_out.clone()), ..self.config.data.clone() },
            // Labels that contradict each other are what a control is made of.
            force: true,
            ..self.config.clone()
        };
        // The rows are written with the names of their columns.
        config.columns.names.clear();
        let folder = self.out.join("runs").join(name);
        train(&config, self.device, &folder)?;
        observe(&folder, self.most_rows, self.device)
    }
}

/// What a training on some rows leaves of errors on held-out ones: wrong answers, or the loss.
fn point(observed: &Observed, has_answers: bool) -> Point {
    let wrong = |row: &Observation| row.answers.iter().filter(|answer| !answer.is_right).count() as f64;
    let error = |row: &Observation| match has_answers {
        true => (wrong(row), row.answers.len() as f64),
        false => (row.loss, row.n_items as f64),
    };
    Point { n_rows: observed.train.n_rows, errors: observed.held_out.after.iter().map(error).collect() }
}
