//! Fine-tuning a sentence encoder to tell good reviews from bad ones.

use super::Setup;
use super::measure::{Meter, Report, counts, rounded};
use super::train::{NEW_WEIGHTS, batches, train, usual_update};
use kiln_core::Result;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::model::Model;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Limit, Overlong};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use kiln_data::sequences::{class_table, packed};
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_sft::evaluate;
use kiln_sft::objective::classification;
use kiln_sft::objective::r_drop::Regularization;
use kiln_train::preflight::work::{Gradients, head, trunk};
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
    let columns = ColumnsConfig { names: ["text", "label"].map(str::to_owned).to_vec(), ..ColumnsConfig::default() };
    let train_table = Table::read(&setup.data("sst2/train.tsv")?, &columns.names)?;
    let labels = Labels::of_column(&train_table, &columns.label)?;
    let key = Key::new(setup.args.seed);
    let (model, _) = SequenceClassifier::from_pretrained(&folder, labels.names(), &[], &device, key.fold(NEW_WEIGHTS))?;
    let config = model.config().clone();
    let limit = Limit::new(config.max_positions, Overlong::Truncate, &tokenizer)?;
    let (rows, _) = class_table(&train_table, &columns, &labels, &tokenizer, limit)?;
    let batches = batches(&order(rows.len(), setup.args.seed), ROWS, setup.n_steps, setup.full);
    let mut meter = Meter::start();
    let model = train(model, &batches, usual_update(5e-5), key, &mut meter, |model, batch, dropout| {
        let batch: Vec<_> = batch.iter().map(|&index| &rows[index]).collect();
        let classes: Arc<[u32]> = batch.iter().map(|row| row.label).collect();
        let lengths: Vec<usize> = batch.iter().map(|row| row.ids.len()).collect();
        let mut counts = counts(batch.len(), &lengths);
        let width = config.hidden_size;
        let heads = [width, labels.len()].map(|n_out| head(width, n_out, batch.len(), Gradients::All));
        counts.insert("gflop", trunk(&config, &lengths, batch.len(), Gradients::All) + heads.iter().sum::<f64>());
        (classification::loss(model, &packed(&batch), &classes, Regularization::default(), |_| None, Some(dropout)), batch.len(), counts)
    })?;
    let mut extra = Map::new();
    if setup.full {
        let test = Table::read(&setup.data("sst2/test.tsv")?, &columns.names)?;
        let (test, _) = class_table(&test, &columns, &labels, &tokenizer, limit)?;
        let found = evaluate::classifier(&model, &test, labels.names(), setup.args.seed);
        let quality = json!({ "test_accuracy": rounded(found.figure.value, 4), "test_loss": rounded(found.loss, 4) });
        extra.insert("quality".into(), quality);
    }
    meter.report(setup.workload.name, setup.workload.unit, extra)
}
