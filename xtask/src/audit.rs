//! `cargo xtask audit`: what is wrong with data, whether a classifier treats groups of people alike, and whether a run overfits.

mod data;
mod fit;
mod run_files;

use crate::sft::{number, range};
use crate::{MethodArgs, out_folder, results_file, settings};
use clap::{Args, Subcommand};
use kiln_audit::benchmarks::{Answers, Benchmark, score};
use kiln_audit::bias::templates::TemplatesConfig;
use kiln_audit::bias::{self, BiasAudit, BiasAuditConfig, Grouping, SwapTest};
use kiln_audit::limits;
use kiln_core::{Error, Result, device};
use kiln_eval::fairness::{Estimate, Gap};
use std::path::PathBuf;

/// What to look at.
#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// Label errors, copies, leaks, personal data, shortcuts and damaged rows of a file, or of the files of a run
    Data(data::DataArgs),
    /// Differences between groups of people, by a file of predictions, by a classifier, or by published benchmarks
    Bias(BiasArgs),
    /// Whether a run learnt its rows by heart: gap, membership, calibration, verbatim continuation, canaries
    Fit(fit::FitArgs),
}

/// What `audit bias` takes.
#[derive(Args, Debug)]
struct BiasArgs {
    /// A file with labels, predictions and groups; or the folder of a classifier, with --data or --templates, or of any model, with --benchmark
    #[arg(value_name = "PREDICTIONS|MODEL")]
    subject: PathBuf,
    /// The rows for a classifier
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// A benchmark, and its file or folder: --benchmark crows-pairs=crows_pairs_anonymized.csv
    #[arg(long = "benchmark", value_name = "NAME=PATH")]
    benchmarks: Vec<String>,
    /// Ask the classifier sentences that differ only in whom they are about: Kiln's own, or those of FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    templates: Option<Option<PathBuf>>,
    /// The folder of the model that MODEL was made from, to be compared with
    #[arg(long, value_name = "MODEL")]
    before: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// What all take.
#[derive(Args, Debug)]
struct Common {
    /// Fail, with exit code 1, if something is above a limit: --fail-if duplicates=0, --fail-if label-errors=2%
    #[arg(long, value_name = "NAME=LIMIT")]
    fail_if: Vec<String>,
    #[command(flatten)]
    method: MethodArgs,
}

impl AuditArgs {
    /// Whether the settings can be read.
    #[cfg(test)]
    pub fn settings(&self) -> Result<()> {
        match &self.subject {
            Subject::Data(args) => args.settings().map(|_| ()),
            Subject::Bias(args) => args.config().map(|_| ()),
            Subject::Fit(args) => args.config().map(|_| ()),
        }
    }
}

impl BiasArgs {
    fn config(&self) -> Result<BiasAuditConfig> {
        let mut config: BiasAuditConfig = settings::read(&self.common.method)?;
        for benchmark in &self.benchmarks {
            let place = || format!("--benchmark {benchmark}");
            let (name, path) = benchmark.split_once('=').ok_or_else(|| Error::config(place(), "expected NAME=PATH"))?;
            config.benchmarks.insert(Benchmark::by_name(name)?, path.into());
        }
        config.before = self.before.clone().or(config.before);
        if let Some(file) = &self.templates {
            config.templates = Some(TemplatesConfig { file: file.clone() });
        }
        config.data = self.data.clone().unwrap_or(config.data);
        // A name on the hub is a model too.
        let is_asked = !config.data.as_os_str().is_empty() || !config.benchmarks.is_empty() || config.templates.is_some();
        match self.subject.is_file() || (!self.subject.is_dir() && !is_asked) {
            true => config.data = self.subject.clone(),
            false => config.model = Some(self.subject.clone()),
        }
        Ok(config)
    }
}

/// Looks, prints what was found, and leaves it in a folder.
///
/// # Errors
/// If the input is bad, or a limit of `--fail-if` is exceeded.
pub fn run(args: &AuditArgs) -> Result<()> {
    match &args.subject {
        Subject::Data(args) => data::run(args),
        Subject::Bias(args) => audit_bias(args),
        Subject::Fit(args) => fit::run(args),
    }
}

fn audit_bias(args: &BiasArgs) -> Result<()> {
    let config = args.config()?;
    let out = out_folder(args.common.method.out.as_ref(), "audit")?;
    results_file(&out)?;
    let audit = bias::audit(&config, &device::by_name(&args.common.method.device)?)?;
    bias::write(&audit, &config, &out)?;
    print_bias(&audit, &config);
    println!("{:<16} {}", "report", out.join("report.html").display());
    limits::check(&args.common.fail_if, &audit.measured())
}

fn print_bias(audit: &BiasAudit, config: &BiasAuditConfig) {
    if !config.data.as_os_str().is_empty() {
        println!("{:<16} {} rows of {}", "data", audit.rows, config.data.display());
    }
    for Grouping { by, positive, groups, gaps } in &audit.groupings {
        println!("\n{by}, class {positive:?}");
        let width = groups.iter().map(|group| group.group.chars().count()).chain([5]).max().unwrap_or(0);
        println!(
            "  {:width$}  {:>6}  {:<24}  {:<24}  {:<24}  {:<24}",
            "group", "rows", "accuracy", "selected", "true positives", "false positives"
        );
        for group in groups {
            let rates = [group.accuracy, group.selection_rate, group.true_positive_rate, group.false_positive_rate];
            let rates = rates.map(|rate| format!("{:<24}", estimate(&rate))).join("  ");
            let note = if group.compared { "" } else { "  too few rows to compare" };
            println!("  {:width$}  {:>6}  {}{note}", group.group, group.rows, rates.trim_end());
        }
        for Gap { criterion, difference, ratio, difference_by_chance, p } in gaps {
            let (difference, ratio) = (estimate(difference), estimate(ratio));
            println!(
                "  {:<18}  difference {difference}, by chance up to {difference_by_chance:.4} (p {p:.3}); ratio {ratio}",
                criterion.name()
            );
        }
    }
    if let Some(SwapTest { positive, rows, flips, shift, first_minus_second, .. }) = &audit.swap {
        println!("\nexchanged words, {rows} rows");
        println!("  {:<18}  {} of the answers", "flips", estimate(flips));
        println!("  {:<18}  {} of the probability of {positive:?}", "shift", estimate(shift));
        if let Some(lean) = first_minus_second {
            println!("  {:<18}  {} more of it with the words of the first group", "lean", estimate(lean));
        }
    } else if config.model.is_some() && audit.rows > 0 {
        println!("\nno row has words to exchange");
    }
    if !audit.changes.is_empty() {
        println!("\nchanges on the same rows");
        print_figures(&audit.changes);
    }
    if !audit.templates.is_empty() {
        println!("\nsentences that differ only in whom they are about");
        print_figures(&audit.templates);
    }
    if let Some(Answers { by, figures }) = &audit.benchmarks {
        println!("benchmarks by {by}, 95 % intervals");
        print_figures(figures);
    }
}

fn print_figures(figures: &[score::Row]) {
    let width = figures.iter().map(|row| row.figure.chars().count()).max().unwrap_or(0);
    let has_before = figures.iter().any(|row| row.before.is_some());
    let line = |figure: &str, items: &str, fair: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<26}  ")).collect();
        println!("{}", format!("  {figure:width$}  {items:>6}  {fair:>4}  {cells}").trim_end());
    };
    let shown = |heads: [&str; 4]| -> Vec<String> {
        let is_shown = [has_before, true, has_before, figures.iter().any(|row| row.p.is_some())];
        heads.iter().zip(is_shown).filter(|(_, is_shown)| *is_shown).map(|(head, _)| (*head).to_owned()).collect()
    };
    line("figure", "items", "fair", &shown(["before", "model", "change", "p"]));
    for row in figures {
        let cell = |of: Option<&Estimate>| of.map_or_else(String::new, estimate);
        let (before, model, change) = (cell(row.before.as_ref()), cell(Some(&row.model)), cell(row.change.as_ref()));
        let p = row.p.map_or_else(String::new, number);
        let fair = row.fair.map_or_else(|| "-".to_owned(), |fair| fair.to_string());
        line(&row.figure, &row.n.to_string(), &fair, &shown([&before, &model, &change, &p]));
    }
}

fn estimate(estimate: &Estimate) -> String {
    if estimate.value.is_nan() { "-".to_owned() } else { format!("{} {}", number(estimate.value), range(&estimate.interval)) }
}
