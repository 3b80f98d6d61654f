//! `cargo xtask audit data`: what is wrong with the rows of a file, or with those that a run was trained on.

use super::{Common, run_files};
use crate::sft::number;
use crate::{fine_tune_folds, out_folder, results_file, settings};
use clap::Args;
use kiln_audit::data::{self, AuditedFile, Check, DataAudit, DataAuditConfig, Diversity};
use kiln_audit::limits;
use kiln_audit::run::FinishedRun;
use kiln_core::{Error, Result, device};
use kiln_data::rows::Format;
use std::path::PathBuf;
use toml::Table;

/// What `audit data` takes.
#[derive(Args, Debug)]
pub struct DataArgs {
    /// The rows; or the folder of a finished run, whose settings then say which files and columns
    #[arg(value_name = "FILE|RUN")]
    data: PathBuf,
    /// Rows that a model will be judged by: none of them should be in FILE
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    /// The folder of a sentence encoder, for label errors, outliers and the order of topics
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Settings of cargo xtask sft: the model they name, fine-tuned on the other folds, looks for label errors of classes, tags and numbers
    #[arg(long, value_name = "FILE")]
    fine_tune: Option<PathBuf>,
    /// Write the rows without faults here
    #[arg(long, value_name = "FILE")]
    clean: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl DataArgs {
    /// The settings, over `defaults` where a run has some.
    fn over(&self, defaults: Table) -> Result<DataAuditConfig> {
        let config: DataAuditConfig = settings::read_over(defaults, &self.common.method)?;
        let (held_out, model) = (self.held_out.clone().or(config.held_out), self.model.clone().or(config.model));
        Ok(DataAuditConfig { held_out, model, ..config })
    }

    /// The settings for a file.
    pub fn settings(&self) -> Result<DataAuditConfig> {
        Ok(DataAuditConfig { data: self.data.clone(), ..self.over(Table::new())? })
    }

    /// The run that is meant, if it is one.
    fn finished_run(&self) -> Result<Option<FinishedRun>> {
        let is_file = self.data.is_file() || (!self.data.is_dir() && Format::of(&self.data).is_some());
        (!is_file).then(|| FinishedRun::read(&self.data)).transpose()
    }

    /// The files to look at, each with its name and settings.
    fn files(&self, run: Option<&FinishedRun>) -> Result<Vec<(String, DataAuditConfig)>> {
        let Some(run) = run else { return Ok(vec![(self.data.display().to_string(), self.settings()?)]) };
        let file = |(name, file): (String, DataAuditConfig)| {
            let defaults = Table::try_from(&file).map_err(|error| Error::config("settings", error.to_string()))?;
            Ok((name, DataAuditConfig { data: file.data, ..self.over(defaults)? }))
        };
        run_files::files(run)?.into_iter().map(file).collect()
    }
}

/// Looks, prints what was found, and leaves it in a folder and with the run.
///
/// # Errors
/// If the input is bad, or a limit of `--fail-if` is exceeded.
pub fn run(args: &DataArgs) -> Result<()> {
    let run = args.finished_run()?;
    let mut files = args.files(run.as_ref())?;
    if let (Some(_), [_, _, ..]) = (&args.clean, &files[..]) {
        let message = format!("{} was trained on {} files: name the one to clean instead of the run", args.data.display(), files.len());
        return Err(Error::config("--clean", message));
    }
    let training = args.fine_tune.as_deref().map(fine_tune_folds::settings_of).transpose()?;
    for (_, config) in &mut files {
        if let Some(training) = &training {
            config.columns = training.columns.clone();
        }
        config.validate()?;
    }
    let out = out_folder(args.common.method.out.as_ref(), "audit")?;
    results_file(&out)?;
    let name = &args.common.method.device;
    let device = device::by_name(name)?;
    let audited = |(file, config): (String, DataAuditConfig)| {
        let judged =
            training.as_ref().map(|training| fine_tune_folds::cross_validate(&config.data, training, config.folds, config.seed, name));
        let audit = data::audit(&config, judged.transpose()?.as_ref(), &device)?;
        Ok(AuditedFile { name: file, config, audit })
    };
    let files = files.into_iter().map(audited).collect::<Result<Vec<_>>>()?;
    let removed = args.clean.as_deref().map(|path| data::clean(&files[0].audit, &files[0].config, path)).transpose()?;
    data::write(&files, removed.as_deref(), &out)?;
    run.as_ref().map_or(Ok(()), |run| data::write_into_run(&files, run))?;
    for (index, AuditedFile { audit, .. }) in files.iter().enumerate() {
        if index > 0 {
            println!();
        }
        print(audit);
    }
    if let (Some(path), Some(removed)) = (&args.clean, &removed) {
        let n_removed = removed.iter().filter(|row| row.what == "removed").count();
        let n_left = files[0].audit.table.rows.len() - n_removed;
        println!("{:<16} {n_left} rows in {}, {n_removed} removed, {} redacted", "cleaned", path.display(), removed.len() - n_removed);
    }
    println!("{:<16} {}", "report", out.join("report.html").display());
    let exceeded = |AuditedFile { name, audit, .. }: &AuditedFile| match limits::check(&args.common.fail_if, &audit.measured()) {
        Err(Error::Unmet { message }) if files.len() > 1 => Err(Error::Unmet { message: format!("{name}: {message}") }),
        other => other,
    };
    files.iter().try_for_each(exceeded)
}

fn print(audit: &DataAudit) {
    println!("{:<16} {} rows of {}", "data", audit.table.rows.len(), audit.table.path.display());
    for &check in &audit.checked {
        let (found, share) = audit.count(check);
        let count = if found == 0 { "-".to_owned() } else { found.to_string() };
        let first = audit.of(check).next().map_or_else(String::new, |first| {
            let place = first.line.map_or_else(String::new, |line| format!("line {line}: "));
            format!("  {place}{}", first.reason)
        });
        println!("{}", format!("{:<16} {count:>6}  {share:>7}{first}", Check::name(check)).trim_end());
    }
    let lacking = audit.not_made();
    if !lacking.is_empty() {
        println!("{:<16} {}", "not looked for", lacking.join(", "));
    }
    if let Some(accuracy) = audit.classifier_accuracy {
        println!("{:<16} {} on rows not seen, by the labels as they are", "classifier", number(accuracy));
    }
    let Diversity { distinct_1, distinct_2, distinct_3, self_bleu, embedding_spread, vendi_score } = audit.diversity;
    let spread = embedding_spread.map_or_else(String::new, |spread| format!(", embedding spread {}", number(spread)));
    let vendi = vendi_score.map_or_else(String::new, |score| format!(", Vendi score {score:.1}"));
    let distinct = [distinct_1, distinct_2, distinct_3].map(|share| format!("{share:.3}")).join(" ");
    println!("{:<16} distinct 1, 2, 3-grams {distinct}, self-BLEU {self_bleu:.1}{spread}{vendi}", "diversity");
}
