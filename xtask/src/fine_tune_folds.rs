//! Models fine-tuned on the folds of a file, for its label errors.

use crate::{MethodArgs, settings};
use kiln_audit::cross_validation::{CrossValidation, Kind};
use kiln_core::{Error, Result, device};
use kiln_data::rows::Table;
use kiln_data::source::{DataConfig, Source};
use kiln_sft::config::{SftConfig, Task};
use std::path::{Path, PathBuf};

/// The settings of a fine-tuning in the file `path`.
///
/// # Errors
/// If they cannot be read, or its task has no labels.
pub fn settings_of(path: &Path) -> Result<SftConfig> {
    let args = MethodArgs { config: Some(path.to_owned()), sets: Vec::new(), device: String::new(), seed: None, force: false, out: None };
    let config: SftConfig = settings::read(&args)?;
    kind(config.task).map(|_| config)
}

fn kind(task: Task) -> Result<Kind> {
    match task {
        Task::Classification => Ok(Kind::Class),
        Task::TokenClassification => Ok(Kind::Tags),
        Task::Regression => Ok(Kind::Number),
        Task::NextToken | Task::Preference => {
            let message = "has no labels to be wrong: expected \"classification\", \"regression\" or \"token-classification\"";
            Err(Error::config("task", message))
        }
    }
}

/// Trains as `config` says on the rows of the file `data`, once for each fold without it, and lets the model judge the fold. `columns` names the
/// columns of a file without a header.
///
/// # Errors
/// As the training itself.
pub fn cross_validate(data: &Path, config: &SftConfig, n_folds: usize, seed: u64, device: &str) -> Result<CrossValidation> {
    let device = device::by_name(device)?;
    let table = Table::read(data, &config.columns.names)?;
    let mut folds = CrossValidation::new(table, &config.columns, kind(config.task)?, n_folds, seed)?;
    let scratch = tempfile::tempdir().map_err(|error| Error::io(&std::env::temp_dir(), error))?;
    for fold in 0..n_folds {
        let folder = scratch.path().join(format!("fold-{}", fold + 1));
        let [train, held_out] = folds.write(fold, &folder)?;
        let train = [Source { path: train, weight: 1.0 }].into_iter().collect();
        let mut config = SftConfig { data: DataConfig { train, held_out: Some(held_out), ..config.data.clone() }, ..config.clone() };
        // The fold's file has a header. What the pre-flight would stop for, the audit itself tells.
        (config.columns.names, config.force) = (Vec::new(), true);
        let run: PathBuf = folder.join("run");
        kiln_sft::train::train(&config, &device, &run)?;
        folds.judge(fold, &run.join("model"), &device)?;
        // A model for each fold would fill the disk.
        std::fs::remove_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
    }
    Ok(folds)
}
