//! The files that a run was trained on, and what their columns are, by the settings it was begun with.

use kiln_audit::data::DataAuditConfig;
use kiln_audit::run::FinishedRun;
use kiln_continual::config::{ContinualConfig, GENERAL};
use kiln_contrastive::config::ContrastiveConfig;
use kiln_core::{Error, Result};
use kiln_data::columns::ColumnsConfig;
use kiln_data::source::DataConfig;
use kiln_multitask::config::{Kind, MultitaskConfig};
use kiln_rl::config::RlConfig;
use kiln_sft::config::{SftConfig, Task};
use kiln_train::manifest::settings;
use std::collections::BTreeSet;

/// Each file of training rows of `run`, by a name of its own, with the settings of an audit of it: its columns, of which only those of the run's task
/// have a name, and the file held out beside it. Rows that the run itself held out are rows of the file like all others.
///
/// # Errors
/// If the run's settings cannot be read, or are those of no method.
pub fn files(run: &FinishedRun) -> Result<Vec<(String, DataAuditConfig)>> {
    let folder = &run.folder;
    let parts: Vec<(String, DataConfig, ColumnsConfig)> = match run.manifest.method.as_str() {
        "sft" => {
            let config: SftConfig = settings(folder)?;
            vec![(String::new(), config.data, of_sft(config.task, config.columns))]
        }
        "contrastive" => {
            let ContrastiveConfig { data, columns, .. } = settings(folder)?;
            let columns = ColumnsConfig {
                names: columns.names,
                text: columns.text,
                prompt: columns.anchor,
                chosen: columns.positive,
                rejected: columns.negative,
                ..unnamed()
            };
            vec![(String::new(), data, columns)]
        }
        "rl" => {
            let RlConfig { data, columns, warm_up, .. } = settings(folder)?;
            let completion = if warm_up.epochs > 0 { columns.completion } else { String::new() };
            vec![(String::new(), data, ColumnsConfig { names: columns.names, prompt: columns.prompt, completion, ..unnamed() })]
        }
        "continual" => {
            let config: ContinualConfig = settings(folder)?;
            // General text trains where it is replayed.
            let general = config.general.clone().filter(|_| config.replay.share > 0.0).map(|data| (GENERAL.to_owned(), data));
            let columns = ColumnsConfig { names: config.columns.names.clone(), text: config.columns.text.clone(), ..unnamed() };
            let all = general.into_iter().chain(config.stream()?);
            all.map(|(name, data)| (name, data, columns.clone())).collect()
        }
        "multitask" => {
            let MultitaskConfig { tasks, .. } = settings(folder)?;
            tasks.into_iter().map(|(name, task)| (name, task.data, of_task(task.kind, task.columns))).collect()
        }
        other => return Err(Error::config(folder.display().to_string(), format!("a run of {other:?}, of which no audit of data knows"))),
    };
    let mut taken = BTreeSet::new();
    let mut files = Vec::new();
    for (part, data, columns) in parts {
        for source in data.train.iter() {
            let file = source.path.file_name().unwrap_or_default().to_string_lossy();
            let name = if part.is_empty() { file.into_owned() } else { format!("{part}: {file}") };
            // A run may have files of the same name in several folders.
            let numbered = (1..).map(|n| if n == 1 { name.clone() } else { format!("{name} ({n})") });
            let name = numbered.into_iter().find(|name| taken.insert(name.clone())).expect("a number that is free");
            // What is held out may be a folder of judged queries.
            let held_out = data.held_out.clone().filter(|path| path.is_file());
            let config = DataAuditConfig { data: source.path.clone(), held_out, columns: columns.clone(), ..DataAuditConfig::default() };
            files.push((name, config));
        }
    }
    Ok(files)
}

/// No column at all.
fn unnamed() -> ColumnsConfig {
    let none = String::new;
    ColumnsConfig {
        names: Vec::new(),
        text: none(),
        text_b: none(),
        label: none(),
        tokens: none(),
        tags: none(),
        prompt: none(),
        completion: none(),
        messages: none(),
        chosen: none(),
        rejected: none(),
    }
}

/// The columns that a task of fine-tuning reads. Numbers are no classes.
fn of_sft(task: Task, columns: ColumnsConfig) -> ColumnsConfig {
    let ColumnsConfig { names, text, text_b, label, tokens, tags, prompt, completion, messages, chosen, rejected } = columns;
    match task {
        Task::Classification => ColumnsConfig { names, text, text_b, label, ..unnamed() },
        Task::Regression => ColumnsConfig { names, text, text_b, ..unnamed() },
        Task::TokenClassification => ColumnsConfig { names, tokens, tags, ..unnamed() },
        Task::NextToken => ColumnsConfig { names, prompt, completion, messages, text, ..unnamed() },
        Task::Preference => ColumnsConfig { names, prompt, chosen, rejected, ..unnamed() },
    }
}

/// The columns that one task of several reads.
fn of_task(kind: Kind, columns: ColumnsConfig) -> ColumnsConfig {
    match kind {
        Kind::Classification => of_sft(Task::Classification, columns),
        Kind::Regression => of_sft(Task::Regression, columns),
        Kind::TokenClassification => of_sft(Task::TokenClassification, columns),
        Kind::NextToken => of_sft(Task::NextToken, columns),
        Kind::MaskedToken => ColumnsConfig { names: columns.names, text: columns.text, ..unnamed() },
    }
}
