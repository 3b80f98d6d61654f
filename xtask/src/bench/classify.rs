//! Fine-tuning a sentence encoder to tell good reviews from bad ones.

use super::Setup;
use super::measure::{Meter, Report, counts, rounded};
use super::train::{NEW_WEIGHTS, batches, train, usual_update};
use super::work::{Gradients, head, trunk};
use kiln_core::Result;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::model::Model;
use kiln_core::packed::Packed;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_sft::data::Labelled;
use kiln_sft::evaluate;
use kiln_sft::objective::classification;
use serde_json::{Map, json};
use std::sync::Arc;

/// Rows per step.
const ROWS: usize = 32;

/// # Errors
/// If the model or the rows are missing or bad, or training diverges.
pub fn run(setup: &Setup<'_>) -> Result<Report> {
    let device = setup.device()?.autodiff();
    let folder = setup.model("all-MiniLM-L6-v2")?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let columns = ["text", "label"].map(str::to_owned);
    let train_table = Table::read(&setup.data("sst2/train.tsv")?, &columns)?;
    let labels = Labels::of_column(&train_table, "label")?;
    let key = Key::new(setup.args.seed);
    let (model, _) = SequenceClassifier::from_pretrained(&folder, labels.names(), &device, key.fold(NEW_WEIGHTS))?;
    let config = model.config().clone();
    let rows = labelled(&train_table, &labels, &tokenizer, config.max_positions)?;
    let batches = batches(&order(rows.len(), setup.args.seed), ROWS, setup.n_steps, setup.full);
    let mut meter = Meter::start();
    let model = train(model, &batches, usual_update(5e-5), key, &mut meter, |model, batch, dropout| {
        let packed = Packed::new(batch.iter().map(|&index| rows[index].ids.as_slice()));
        let classes: Arc<[u32]> = batch.iter().map(|&index| rows[index].label).collect();
        let lengths: Vec<usize> = batch.iter().map(|&index| rows[index].ids.len()).collect();
        let mut counts = counts(batch.len(), &lengths);
        let width = config.hidden_size;
        let heads = [width, labels.len()].map(|n_out| head(width, n_out, batch.len(), Gradients::All));
        counts.insert("gflop", trunk(&config, &lengths, Gradients::All) + heads.iter().sum::<f64>());
        (classification::loss(model, &packed, &classes, Some(dropout)), batch.len(), counts)
    })?;
    let mut extra = Map::new();
    if setup.full {
        let test = labelled(&Table::read(&setup.data("sst2/test.tsv")?, &columns)?, &labels, &tokenizer, config.max_positions)?;
        let found = evaluate::classifier(&model, &test, labels.names(), setup.args.seed);
        let quality = json!({ "test_accuracy": rounded(found.value, 4), "test_loss": rounded(found.loss_nats, 4) });
        extra.insert("quality".into(), quality);
    }
    meter.report(setup.workload.name, setup.workload.unit, extra)
}

fn labelled(table: &Table, labels: &Labels, tokenizer: &Tokenizer, max_tokens: usize) -> Result<Vec<Labelled>> {
    let texts = table.rows.iter().map(|row| table.text(row, "text").map(str::to_owned)).collect::<Result<_>>()?;
    let n_end_tokens = tokenizer.n_end_tokens()?;
    let row = |(row, mut ids): (_, Vec<u32>)| {
        if ids.len() > max_tokens {
            ids.drain(max_tokens - n_end_tokens..ids.len() - n_end_tokens);
        }
        Ok(Labelled { ids, label: labels.index_of_row(table, row, "label")? as u32 })
    };
    table.rows.iter().zip(tokenizer.encode_all(texts)?).map(row).collect()
}
