//! `cargo xtask inspect data`: the rows of a file as a model sees them.

use super::grouped;
use crate::settings;
use clap::Args;
use kiln_core::Result;
use kiln_core::chat::ChatTemplate;
use kiln_core::config::ModelConfig;
use kiln_core::sentence_encoder::{SentenceHead, is_sentence_encoder};
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::conversations::messages;
use kiln_data::examples::{Counts, Example, Limit, Overlong, end_id, prompt_completion};
use kiln_data::labels::Labels;
use kiln_data::layout::Layout;
use kiln_data::rows::{Row, Table, text_of};
use kiln_data::sequences::class_table;
use kiln_data::source::fetched;
use kiln_data::tags;
use kiln_data::text::TextSource;
use kiln_data::words::sentence_table;
use kiln_train::preflight::rows::{Fields, check};
use kiln_train::preflight::{Finding, percent, tokens};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::PathBuf;

/// What `inspect data` takes.
#[derive(Args, Debug)]
pub struct DataArgs {
    /// The rows: .jsonl, .json, .csv, .tsv, .parquet, .txt or .conll, or a split of a data set on the hub
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder of the model that shall learn from them
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// How many rows to show
    #[arg(long, default_value_t = 3)]
    rows: usize,
    /// What the columns mean: --set columns.text=sentence
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// The settings of an inspection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InspectConfig {
    /// What the columns of the file mean.
    columns: ColumnsConfig,
    /// Tokens per block of running text (.txt); 0 takes the model's positions, at most 512. Default 0.
    block_tokens: usize,
}

/// A row as a model sees it.
struct Seen {
    ids: Vec<u32>,
    /// The tokens that are predicted with a loss.
    trained: Vec<Range<usize>>,
    /// What else is right of it: a class, or tags.
    label: Option<String>,
}

/// The rows of a file.
struct View<'a> {
    /// What they are.
    kind: String,
    /// As many as there are in the file or, of running text, its blocks.
    rows: Vec<Seen>,
    /// What the limit would cut.
    counts: Counts,
    /// Lines of rows of which it would leave nothing to learn.
    unlearnt: Vec<usize>,
    fields: Fields<'a>,
    /// Whether a decoder learns to continue them.
    continues: bool,
}

/// Prints what there is to know.
///
/// # Errors
/// If the model, the file or a setting is bad.
pub fn run(args: &DataArgs) -> Result<()> {
    let config: InspectConfig = settings::of_sets(&args.sets)?;
    let shape = ModelConfig::from_folder(&args.model)?;
    let tokenizer = Tokenizer::for_model(&args.model, &shape)?;
    let table = Table::read(&fetched("FILE", &args.file, "test")?, &config.columns.names)?;
    let is_labelled = [&config.columns.label, &config.columns.tags].into_iter().any(|column| table.has(column));
    let max_tokens = if !is_labelled && is_sentence_encoder(&args.model)? {
        SentenceHead::from_folder(&args.model, &shape)?.max_tokens
    } else {
        shape.max_positions
    };
    // Rows too long are shown whole, and counted.
    let most = if table.is_running_text() { max_tokens } else { usize::MAX };
    let limit = Limit::new(most, Overlong::Truncate, &tokenizer)?;
    let source = TextSource {
        columns: &config.columns,
        block_tokens: config.block_tokens,
        folder: &args.model,
        model: &shape,
        tokenizer: &tokenizer,
        limit,
    };
    let view = view(&table, &source, max_tokens)?;
    println!("{}", args.file.display());
    let line = |name: &str, value: String| println!("  {name:12}{value}");
    let lengths: Vec<usize> = view.rows.iter().map(|row| row.ids.len()).collect();
    let n_tokens: usize = lengths.iter().sum();
    let n_trained: usize = view.rows.iter().flat_map(|row| &row.trained).map(Range::len).sum();
    line("rows", format!("{}: {}", grouped(table.rows.len()), view.kind));
    line("tokens", format!("{}, {} of them trained ({})", grouped(n_tokens), grouped(n_trained), percent(n_trained, n_tokens)));
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    line(
        "length",
        format!(
            "{} to {} tokens, half of the rows up to {}, 95 % up to {}; the limit is {max_tokens}",
            at(0.0),
            at(1.0),
            at(0.5),
            at(0.95)
        ),
    );
    histogram(&sorted).into_iter().for_each(|bar| line("", bar));
    let is_terminal = std::io::stdout().is_terminal();
    for (index, row) in view.rows.iter().take(args.rows).enumerate() {
        let place = if table.is_running_text() { format!("block {}", index + 1) } else { format!("line {}", table.rows[index].line) };
        let label = row.label.as_ref().map_or(String::new(), |label| format!(": {label}"));
        println!("\n{place}, {} tokens{label}", row.ids.len());
        println!("{}", shown(row, &tokenizer, is_terminal)?);
    }
    let findings = findings(&table, &view, &tokenizer, &shape.end_ids)?;
    println!();
    findings.iter().for_each(|finding| println!("{finding}"));
    if findings.is_empty() {
        println!("nothing found that is wrong");
    }
    Ok(())
}

fn findings(table: &Table, view: &View<'_>, tokenizer: &Tokenizer, end_ids: &[u32]) -> Result<Vec<Finding>> {
    let fields = |_: &Table| view.fields.clone();
    let mut findings = check(std::slice::from_ref(table), &[], &fields)?;
    findings.extend(tokens::cut(&table.path, &view.counts));
    findings.extend(tokens::nothing_to_learn(&table.path, &view.unlearnt, view.rows.len()));
    findings.extend(tokens::special(&[table], &fields, tokenizer)?);
    if view.continues && !table.is_running_text() {
        let examples: Vec<Example> =
            view.rows.iter().map(|row| Example { ids: row.ids.clone(), supervised: row.trained.clone() }).collect();
        findings.extend(tokens::stop(&table.path, &examples, end_ids));
    }
    Ok(findings)
}

impl<'a> View<'a> {
    fn new(kind: String, rows: Vec<Seen>, fields: Fields<'a>) -> Self {
        Self { kind, rows, counts: Counts::default(), unlearnt: Vec::new(), fields, continues: false }
    }

    /// Counts what a limit of `max_tokens` would cut off the rows of `table`.
    fn count_cuts(&mut self, table: &Table, max_tokens: usize) {
        for (seen, row) in self.rows.iter().zip(&table.rows) {
            let n_tokens = seen.ids.len();
            let kept = n_tokens.min(max_tokens);
            let n_trained: usize = seen.trained.iter().map(Range::len).sum();
            let n_left: usize = seen.trained.iter().map(|part| part.end.min(kept).saturating_sub(part.start)).sum();
            let lines_cut = [if kept < n_tokens { row.line } else { 0 }, 0, 0];
            self.counts.n_rows += 1;
            self.counts.n_truncated += usize::from(kept < n_tokens);
            self.counts.n_tokens += kept;
            let of_row = Counts {
                n_targets: n_left,
                n_tokens_cut: n_tokens - kept,
                n_targets_cut: n_trained - n_left,
                lines_cut,
                ..Counts::default()
            };
            self.counts.add_cuts(&of_row);
            self.unlearnt.extend((n_trained > 0 && n_left == 0).then_some(row.line));
        }
    }
}

/// What the rows are, by their columns and the model.
fn view<'a>(table: &Table, source: &TextSource<'a>, max_tokens: usize) -> Result<View<'a>> {
    let mut view = whole(table, source)?;
    if !table.is_running_text() {
        view.count_cuts(table, max_tokens);
    }
    Ok(view)
}

fn whole<'a>(table: &Table, source: &TextSource<'a>) -> Result<View<'a>> {
    let columns = source.columns;
    let has = |column: &str| table.has(column);
    if has(&columns.tokens) && has(&columns.tags) {
        return sentences(table, source);
    }
    let [prompt, chosen, rejected] = columns.preference();
    if has(chosen) && has(rejected) {
        let kind = format!("prompts in {prompt:?}, the better completion in {chosen:?}, the other one in {rejected:?}");
        let is_text = table.rows[0].fields.get(prompt).is_some_and(serde_json::Value::is_string);
        if !is_text || !source.model.causal {
            return texts(table, source, kind, vec![prompt, chosen, rejected]);
        }
        let end_id = end_id(&source.model.end_ids, source.folder)?;
        let better = prompt_completion(table, [prompt, chosen], source.tokenizer, end_id, source.limit)?;
        return Ok(continued(kind, better.0, vec![prompt, chosen, rejected]));
    }
    if has(&columns.text) && has(&columns.label) {
        return classes(table, source);
    }
    let is_pair = |column: &str| has(column) && !has(&columns.text);
    if is_pair("anchor") && is_pair("positive") {
        return texts(table, source, "anchors and positives".into(), vec!["anchor", "positive", "negative"]);
    }
    if !source.model.causal {
        return texts(table, source, format!("texts in {:?}", columns.text), vec![&columns.text]);
    }
    let (layout, _) = Layout::of(table, columns)?;
    let fields = layout.columns();
    let kind = match layout {
        Layout::PromptCompletion([prompt, completion]) => format!("prompts in {prompt:?} and completions in {completion:?}"),
        Layout::Messages(column) => format!("conversations in {column:?}, by the model's chat template"),
        Layout::Alpaca([instruction, _, output]) => format!("instructions in {instruction:?} and answers in {output:?}"),
        Layout::RunningText(_) => "lines of running text, in blocks".into(),
        Layout::Text(column) => format!("documents in {column:?}"),
    };
    Ok(continued(kind, source.examples(table)?.0, fields))
}

/// Rows that a decoder learns to continue.
fn continued(kind: String, examples: Vec<Example>, columns: Vec<&str>) -> View<'_> {
    let rows = examples.into_iter().map(|Example { ids, supervised }| Seen { ids, trained: supervised, label: None }).collect();
    View { continues: true, ..View::new(kind, rows, Fields { texts: columns, class: None }) }
}

fn classes<'a>(table: &Table, source: &TextSource<'a>) -> Result<View<'a>> {
    let columns = source.columns;
    let labels = Labels::of_column(table, &columns.label)?;
    let (rows, _) = class_table(table, columns, &labels, source.tokenizer, source.limit)?;
    let row = |row: kiln_data::sequences::Labelled<u32>| Seen {
        ids: row.ids,
        trained: Vec::new(),
        label: Some(labels.names()[row.label as usize].clone()),
    };
    let pairs = if table.has(&columns.text_b) { "pairs of texts" } else { "texts" };
    let kind = format!("{pairs} with a label in {:?}, {} of them", columns.label, labels.len());
    let fields = Fields { texts: vec![&columns.text, &columns.text_b], class: Some(&columns.label) };
    Ok(View::new(kind, rows.into_iter().map(row).collect(), fields))
}

fn sentences<'a>(table: &Table, source: &TextSource<'a>) -> Result<View<'a>> {
    let columns = source.columns;
    let labels = tags::labels(table, columns.tagged())?;
    let (rows, _) = sentence_table(table, columns, &labels, source.tokenizer, source.limit)?;
    let row = |row: kiln_data::words::Tagged| {
        let names: Vec<&str> = row.tags.iter().map(|&tag| labels.names()[tag as usize].as_str()).collect();
        let trained = row.supervised().map(|(first, _)| first..first + 1).collect();
        Seen { label: Some(names.join(" ")), ids: row.ids, trained }
    };
    let kind = format!("sentences in {:?} with tags in {:?}, {} of them", columns.tokens, columns.tags, labels.len());
    let fields = Fields { texts: vec![&columns.tokens], class: None };
    Ok(View::new(kind, rows.into_iter().map(row).collect(), fields))
}

/// Rows of which no single token is what is learnt.
fn texts<'a>(table: &Table, source: &TextSource<'a>, kind: String, columns: Vec<&'a str>) -> Result<View<'a>> {
    table.require(&columns[..1])?;
    let is_chat = |row: &Row| row.fields.get(columns[0]).is_some_and(serde_json::Value::is_array);
    let template = if table.rows.iter().any(is_chat) { Some(ChatTemplate::from_folder(source.folder)?) } else { None };
    let text = |row: &Row| match &template {
        Some(template) if is_chat(row) => {
            template.text(&messages(table, row, columns[0])?, false).map_err(|message| table.error(row, message))
        }
        _ => Ok(text_of(row, &columns)),
    };
    let texts = table.rows.iter().map(text).collect::<Result<Vec<_>>>()?;
    let ids = source.tokenizer.encode_all(texts)?;
    let rows = ids.into_iter().map(|ids| Seen { ids, trained: Vec::new(), label: None }).collect();
    Ok(View::new(kind, rows, Fields { texts: columns, class: None }))
}

/// Columns of the widest bar.
const BAR: usize = 40;

/// A bar for each range of lengths, from powers of 2 to the next.
fn histogram(sorted: &[usize]) -> Vec<String> {
    let bin = |length: usize| length.max(1).ilog2();
    let (first, last) = (bin(sorted[0]), bin(sorted[sorted.len() - 1]));
    let counts: Vec<usize> = (first..=last).map(|of| sorted.iter().filter(|&&length| bin(length) == of).count()).collect();
    let most = counts.iter().copied().max().unwrap_or(1);
    let bar = |(of, count): (u32, &usize)| {
        let range = format!("{} to {}", 1_usize << of, (2_usize << of) - 1);
        format!("{range:>16} {} {}", "█".repeat((count * BAR).div_ceil(most)), grouped(*count))
    };
    (first..=last).zip(&counts).map(bar).collect()
}

const TRAINED: &str = "\x1b[32m";
const SPECIAL: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// The text of a row: what is trained in green on a terminal, in brackets elsewhere; special tokens by their names.
fn shown(row: &Seen, tokenizer: &Tokenizer, is_terminal: bool) -> Result<String> {
    let special = tokenizer.special_ids();
    let is_trained = |token: usize| row.trained.iter().any(|part| part.contains(&token));
    let mut text = String::new();
    let mut open = false;
    for run in runs(&row.ids, &special, is_trained) {
        if is_trained(run.start) != open {
            open = !open;
            text += match (is_terminal, open) {
                (true, true) => TRAINED,
                (true, false) => PLAIN,
                (false, true) => "⟦",
                (false, false) => "⟧",
            };
        }
        let id = row.ids[run.start];
        if special.contains(&id) {
            let name = tokenizer.token(id).unwrap_or_default();
            text += &if is_terminal && !open { format!("{SPECIAL}{name}{PLAIN}") } else { name };
        } else {
            text += &piece(&row.ids, run, tokenizer)?;
        }
    }
    if open {
        text += if is_terminal { PLAIN } else { "⟧" };
    }
    Ok(text)
}

/// Tokens side by side that are shown alike: special ones each alone.
fn runs(ids: &[u32], special: &BTreeSet<u32>, is_trained: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for token in 0..ids.len() {
        let joins =
            |before: usize| !special.contains(&ids[before]) && !special.contains(&ids[token]) && is_trained(before) == is_trained(token);
        match runs.last_mut() {
            Some(run) if joins(token - 1) => run.end = token + 1,
            _ => runs.push(token..token + 1),
        }
    }
    runs
}

/// The text of some tokens where they stand: many tokenizers drop the space before a text's first word.
fn piece(ids: &[u32], run: Range<usize>, tokenizer: &Tokenizer) -> Result<String> {
    let [before, with] = [tokenizer.decode(&ids[..run.start])?, tokenizer.decode(&ids[..run.end])?];
    match with.strip_prefix(before.as_str()) {
        Some(piece) => Ok(piece.to_owned()),
        None => tokenizer.decode(&ids[run]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_there_are_rows() {
        assert_eq!(
            histogram(&[3, 4, 5, 7, 9]),
            [
                "          2 to 3 ██████████████ 1",
                "          4 to 7 ████████████████████████████████████████ 3",
                "         8 to 15 ██████████████ 1"
            ]
        );
    }

    #[test]
    fn trained_tokens_are_in_brackets_and_spaces_stay() {
        let tokenizer = Tokenizer::train(["the sea is cold", "the sun is warm"].into_iter(), 300).unwrap();
        let ids = tokenizer.encode("the sea is cold").unwrap();
        let end = *tokenizer.special_ids().last().unwrap();
        let cold = tokenizer.encode("the sea is").unwrap().len();
        let ids: Vec<u32> = ids.into_iter().chain([end]).collect();
        let answer = cold..ids.len();
        let row = Seen { trained: vec![answer], ids, label: None };
        let name = tokenizer.token(end).unwrap();
        assert!(shown(&row, &tokenizer, false).unwrap().ends_with(&format!("the sea is⟦ cold{name}⟧")));
        assert!(shown(&row, &tokenizer, true).unwrap().ends_with(&format!("the sea is{TRAINED} cold{name}{PLAIN}")));
    }
}
