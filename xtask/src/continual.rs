//! `cargo xtask adapt`, `continual` and `merge`: language models that learn new domains and keep what they knew.

use crate::sft::{closing, number, range};
use crate::{MethodArgs, out_folder, results_file, settings, sft};
use kiln_continual::budget::Verdict;
use kiln_continual::config::ContinualConfig;
use kiln_continual::evaluate::{Matrix, Transfer};
use kiln_continual::merge::{self, MergeConfig};
use kiln_continual::train::{DomainValidation, Summary, train};
use kiln_core::{Error, Result, device, files};
use kiln_eval::figure::Figure;
use std::path::Path;

/// Adapts to one domain.
///
/// # Errors
/// Whatever [`train`] and the settings refuse.
pub fn adapt(args: &MethodArgs) -> Result<()> {
    learn(&of_domain(args)?, args, "adapt")
}

/// The settings of one domain.
///
/// # Errors
/// Whatever the settings refuse.
pub fn of_domain(args: &MethodArgs) -> Result<ContinualConfig> {
    let mut config: ContinualConfig = settings::read(args)?;
    config.fetch()?;
    if !config.domains.is_empty() {
        return Err(Error::config("domains", "adapt takes one domain, under data.train; a stream of them is for continual"));
    }
    Ok(config)
}

/// Adapts to one domain after another.
///
/// # Errors
/// Whatever [`train`] and the settings refuse.
pub fn run(args: &MethodArgs) -> Result<()> {
    learn(&of_stream(args)?, args, "continual")
}

/// The settings of a stream of domains.
///
/// # Errors
/// Whatever the settings refuse.
pub fn of_stream(args: &MethodArgs) -> Result<ContinualConfig> {
    let mut config: ContinualConfig = settings::read(args)?;
    config.fetch()?;
    if config.domains.is_empty() {
        return Err(Error::config("domains", "missing: the domains in order, such as domains=[{train=\"law.txt\"}, {train=\"news.txt\"}]"));
    }
    Ok(config)
}

fn learn(config: &ContinualConfig, args: &MethodArgs, command: &str) -> Result<()> {
    let out = out_folder(args.out.as_ref(), command)?;
    print(train(config, &device::by_name(&args.device)?, &out)?, &out);
    Ok(())
}

/// Prints what the domains did to each other.
pub fn print(Summary { matrix, transfer, budget, effort, validation, .. }: Summary, out: &Path) {
    table(&matrix);
    let Transfer { gain, learnt, backward, forward, forgetting, general_rise } = transfer;
    for figure in [Some(gain), Some(learnt), backward, forward, forgetting].iter().flatten() {
        println!("{:<14} {} nats per token", figure.metric, of(figure));
    }
    if let Some(rise) = &general_rise {
        println!("{:<14} {} % in perplexity", rise.metric, of(&percent(rise.clone())));
    }
    if let Some(Verdict { allowed, kept, .. }) = budget {
        println!("{:<14} {} % met, with {} of the way", "budget", number(100.0 * allowed), number(kept));
    }
    validation.iter().for_each(|DomainValidation { domain, summary }| sft::validation(domain, Some(summary)));
    closing(&effort, out);
}

/// Perplexities: a line for each point of the stream, a column for each corpus.
fn table(matrix: &Matrix) {
    let cells = |stage: &kiln_continual::evaluate::Stage| stage.perplexities.iter().map(of).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = matrix.stages.iter().map(cells).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).chain([matrix.columns[column].len()]).max().unwrap_or(0);
    let line = |name: &str, cells: &[String]| {
        let cells: Vec<String> = cells.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column))).collect();
        println!("{name:<14} {}", cells.join("  ").trim_end());
    };
    line("perplexity of", &matrix.columns);
    matrix.stages.iter().zip(&rows).for_each(|(stage, row)| line(&stage.after, row));
}

fn of(figure: &Figure) -> String {
    format!("{} {}", number(figure.value), range(&figure.interval))
}

fn percent(mut figure: Figure) -> Figure {
    for share in [&mut figure.value, &mut figure.interval.low, &mut figure.interval.high] {
        *share *= 100.0;
    }
    figure
}

/// Joins checkpoints, or puts adapters into their base; `--out` keeps what there was to say as `results.json`.
///
/// # Errors
/// Whatever [`merge::merge`] and the settings refuse.
pub fn merge(args: &MethodArgs) -> Result<()> {
    let config: MergeConfig = settings::read(args)?;
    let results = args.out.as_deref().map(results_file).transpose()?;
    let summary = merge::merge(&config, &device::by_name(&args.device)?)?;
    let what = match config.adapters.len() {
        0 => format!("{} models", config.models.len()),
        1 => "the base and an adapter".to_owned(),
        n => format!("the base and {n} adapters"),
    };
    println!("{} parameters in {} tensors of {what}", summary.n_parameters, summary.n_tensors);
    println!("{:<14} {}", "model", config.output.display());
    results.map_or(Ok(()), |path| files::write_json(&path, &summary))
}
