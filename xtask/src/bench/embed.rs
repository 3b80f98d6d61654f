//! Embedding two thousand sentences.

use super::Setup;
use super::measure::{Meter, Report, counts, rounded};
use kiln_core::model::Model as _;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::rows::Table;
use kiln_train::preflight::work::{Gradients, trunk};
use serde_json::{Map, json};

/// Sentences embedded per step.
const N_SENTENCES: usize = 2000;
/// Shorter parts of a line, in characters, are no sentences.
const MIN_CHARS: usize = 20;
/// Rows of the batches by which `padded` is counted.
const ROWS: usize = 32;

/// Tokenises and embeds all sentences in each step.
///
/// # Errors
/// If the model or the text is missing or bad.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let folder = setup.model("all-MiniLM-L6-v2")?;
    let path = setup.data("wikitext2/test.txt")?;
    let sentences = sentences(&Table::read(&path, &[])?)?;
    if sentences.is_empty() {
        return Err(Error::data(&path, None, format!("no sentence of {MIN_CHARS} characters")));
    }
    let (model, _) = SentenceEncoder::load(&folder, &setup.device()?)?;
    let tokenizer = Tokenizer::for_model(&folder, model.config())?;
    let mut lengths: Vec<usize> = model.tokens(&tokenizer, sentences.clone())?.iter().map(Vec::len).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let padded: usize = lengths.chunks(ROWS).map(|batch| batch.len() * batch[0]).sum();
    let mut counts = counts(sentences.len(), &lengths);
    counts.insert("padded", padded as f64);
    counts.insert("gflop", trunk(model.config(), &lengths, lengths.iter().sum(), Gradients::None));
    let mut vectors = Vec::new();
    let mut meter = Meter::start();
    for _ in 0..setup.n_steps {
        vectors = model.embed(&model.tokens(&tokenizer, sentences.clone())?);
        meter.step(counts.clone(), None);
    }
    let head: Vec<f64> = vectors[0].iter().take(4).map(|&value| rounded(value.into(), 5)).collect();
    let sum: f64 = vectors.iter().flatten().map(|&value| f64::from(value)).sum();
    let check = json!({ "first_row_head": head, "sum": rounded(sum, 3) });
    meter.report(setup.workload.name, setup.workload.unit, Map::from_iter([("check".to_owned(), check)]))
}

/// The first sentences of lines that are not headings.
fn sentences(table: &Table) -> Result<Vec<String>> {
    let mut sentences = Vec::with_capacity(N_SENTENCES);
    for row in &table.rows {
        let line = table.text(row, "text")?;
        if line.starts_with(" =") {
            continue;
        }
        let parts = line.trim().split(" . ").map(str::trim).filter(|part| part.chars().count() >= MIN_CHARS);
        sentences.extend(parts.map(str::to_owned));
    }
    sentences.truncate(N_SENTENCES);
    Ok(sentences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_data::rows::Row;

    #[test]
    fn headings_and_short_parts_are_no_sentences() {
        let lines = [" = Heading of some length = ", " The first is long enough . No . The third is long enough , too . "];
        let row = |(index, line): (usize, &str)| Row { line: index + 1, fields: [("text".to_owned(), line.into())].into() };
        let rows = lines.into_iter().enumerate().map(row).collect();
        let table = Table { path: "test.txt".into(), columns: vec!["text".into()], rows };
        assert_eq!(sentences(&table).unwrap(), ["The first is long enough", "The third is long enough , too ."]);
    }
}
