//! Fine-tuning a sentence encoder on pairs that belong together, in one pass per step or through a gradient cache.

use super::Setup;
use super::measure::{Counts, Meter, Report, counts, rounded};
use super::train::{epochs, train_by, usual_update};
use kiln_contrastive::data::{Group, by_column};
use kiln_contrastive::evaluate;
use kiln_contrastive::judge::Judge;
use kiln_contrastive::objective::gradient_cache;
use kiln_contrastive::objective::multiple_negatives_ranking::{self, false_negatives};
use kiln_core::model::Model;
use kiln_core::packed::Packed;
use kiln_core::sentence_encoder::SentenceEncoder;
use kiln_core::tokenizer::Tokenizer;
use kiln_core::{Error, Result};
use kiln_data::rows::Table;
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_train::preflight::work::{Gradients, trunk};
use serde_json::{Map, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The factor of the cosines.
const SCALE: f64 = 20.0;

/// Batches of 64 pairs.
///
/// # Errors
/// As [`run`].
pub fn in_one_pass(setup: &Setup<'_>) -> Result<Report> {
    run(setup, 64, usize::MAX)
}

/// Batches of 256 pairs, in the memory of 32 texts.
///
/// # Errors
/// As [`run`].
pub fn cached(setup: &Setup<'_>) -> Result<Report> {
    run(setup, 256, 32)
}

/// # Errors
/// If the model or the rows are missing or bad, or training diverges.
fn run(setup: &Setup<'_>, batch_rows: usize, texts_per_part: usize) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let folder = setup.model("all-MiniLM-L6-v2")?;
    let (model, _) = SentenceEncoder::load(&folder, &device)?;
    let config = model.config().clone();
    let tokenizer = Tokenizer::for_model(&folder, &config)?;
    let rows = groups(entailed(&setup.data("snli_dev/snli_dev.jsonl")?)?, &model, &tokenizer)?;
    let judge = match setup.full {
        true => Some(Judge::Scores(groups(scored(&setup.data("stsb/sts-test.csv")?)?, &model, &tokenizer)?)),
        false => None,
    };
    let spearman = |model: &SentenceEncoder, judge: &Judge| rounded(evaluate::encoder(model, judge, setup.args.seed).figures[0].value, 4);
    let before = judge.as_ref().map(|judge| spearman(&model, judge));
    let epoch = without_duplicates(&order(rows.len(), setup.args.seed), &rows, batch_rows);
    let batches = epochs(epoch, setup.n_steps, setup.full);
    let key = Key::new(setup.args.seed);
    let mut meter = Meter::start();
    let model = train_by(model, &batches, usual_update(2e-5), key, &mut meter, |model, batch, dropout, updater| {
        let rows: Vec<&Group> = batch.iter().map(|&index| &rows[index]).collect();
        let texts = by_column(&rows);
        let parts: Vec<Packed> = texts.chunks(texts_per_part).map(|part| Packed::new(part.iter().copied())).collect();
        let hide = false_negatives(&texts, rows.len());
        // The pairs count once for all parts.
        let mut weight = rows.len() as f64;
        let loss = gradient_cache::backward(
            model,
            &parts,
            Some(dropout),
            |embeddings| multiple_negatives_ranking::loss(embeddings, rows.len(), &hide, SCALE, false),
            |gradients| updater.add(model, gradients, std::mem::take(&mut weight)),
        );
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let mut counts = by_columns(&lengths, rows.len());
        counts.insert("gflop", trunk(&config, &lengths, lengths.iter().sum(), Gradients::All));
        (loss, rows.len(), counts)
    })?;
    let mut extra = Map::new();
    if let (Some(judge), Some(before)) = (&judge, before) {
        let quality = json!({ "sts_test_spearman_before": before, "sts_test_spearman_after": spearman(&model, judge) });
        extra.insert("quality".into(), quality);
    }
    meter.report(setup.workload.name, setup.workload.unit, extra)
}

/// The counts of a step on pairs, each column a rectangle of its own.
fn by_columns(lengths: &[usize], n_pairs: usize) -> Counts {
    let [first, second] = [&lengths[..n_pairs], &lengths[n_pairs..]].map(|column| counts(0, column));
    let mut counts: Counts = first.into_iter().map(|(name, count)| (name, count + second[name])).collect();
    counts.insert("units", n_pairs as f64);
    counts
}

/// Premises and what they entail.
fn entailed(path: &Path) -> Result<Vec<([String; 2], f64)>> {
    let table = Table::read(path, &[])?;
    let mut pairs = Vec::new();
    for row in &table.rows {
        if table.label(row, "label")? == "entailment" {
            pairs.push(([table.text(row, "premise")?.to_owned(), table.text(row, "hypothesis")?.to_owned()], 0.0));
        }
    }
    if pairs.is_empty() { Err(Error::data(path, None, "no row has the label \"entailment\"")) } else { Ok(pairs) }
}

/// The pairs of STS-B and their scores: the file's name says commas, but it has tabs and no quoting.
///
/// # Errors
/// If the file is missing or a line has other fields.
pub fn scored(path: &Path) -> Result<Vec<([String; 2], f64)>> {
    let text = fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    let pair = |(index, line): (usize, &str)| {
        let fields: Vec<&str> = line.split('\t').collect();
        match (fields.get(4).and_then(|score| score.parse().ok()), fields.get(5..7)) {
            (Some(score), Some([first, second])) => Ok((([*first, *second]).map(str::to_owned), score)),
            _ => Err(Error::data(path, Some(index + 1), "expected 7 fields between tabs, the fifth a score and then two texts")),
        }
    };
    text.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(pair).collect()
}

fn groups(pairs: Vec<([String; 2], f64)>, model: &SentenceEncoder, tokenizer: &Tokenizer) -> Result<Vec<Group>> {
    let (texts, scores): (Vec<[String; 2]>, Vec<f64>) = pairs.into_iter().unzip();
    let mut sequences = model.tokens(tokenizer, texts.into_iter().flatten().collect())?.into_iter();
    Ok(scores.into_iter().map(|score| Group { texts: sequences.by_ref().take(2).collect(), score }).collect())
}

/// Batches in which no text is twice: a row that has one in common with the batch waits for the next.
fn without_duplicates(order: &[usize], rows: &[Group], batch_rows: usize) -> Vec<Vec<usize>> {
    let mut waiting = order.to_vec();
    let mut batches = Vec::new();
    while !waiting.is_empty() {
        let (mut batch, mut seen) = (Vec::with_capacity(batch_rows), BTreeSet::new());
        waiting.retain(|&row| {
            let texts = &rows[row].texts;
            let fits = batch.len() < batch_rows && texts.iter().all(|text| !seen.contains(text));
            if fits {
                batch.push(row);
                seen.extend(texts);
            }
            !fits
        });
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_in_a_batch_once() {
        let row = |first, second| Group { texts: vec![vec![first], vec![second]], score: 0.0 };
        let rows = [row(1, 2), row(1, 3), row(4, 2), row(5, 6), row(7, 7)];
        assert_eq!(without_duplicates(&[0, 1, 2, 3, 4], &rows, 2), [vec![0, 3], vec![1, 2], vec![4]]);
    }

    #[test]
    fn each_column_is_padded_on_its_own() {
        let counts = by_columns(&[4, 6, 1, 3], 2);
        assert_eq!([counts["units"], counts["real"], counts["padded"]], [2.0, 14.0, 12.0 + 6.0]);
    }
}
