//! How rows are grouped changes speed and memory, not what is learnt.

use crate::support::{Place, flex};
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::text;
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::data::source;
use kiln_sft::objective::next_token;

#[test]
fn parts_of_a_batch_add_up_to_it() {
    let place = Place::new();
    place.questions(320, 40);
    place.topics(320, 40);
    for (task, model, rows) in [(Task::NextToken, "decoder", "questions"), (Task::Classification, "encoder", "topics")] {
        let mut config = place.config(task, model, rows, rows);
        // Parts have dropout of their own.
        config.dropout = false;
        config.update.learning_rate = 1e-3;
        let whole = place.train(&config, &format!("{rows}-whole"));
        let cut = place.train(&SftConfig { micro_batch_tokens: 100, ..config.clone() }, &format!("{rows}-cut"));
        let (whole_losses, cut_losses) = (place.losses(&format!("{rows}-whole")), place.losses(&format!("{rows}-cut")));
        assert_eq!((whole_losses.len(), cut_losses.len()), (10, 10));
        let apart = whole_losses.iter().zip(&cut_losses).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let held_out = (whole.after.loss - cut.after.loss).abs();
        println!("{rows}: losses differ by at most {apart:e}, held-out losses by {held_out:e}");
        assert!(apart < 1e-5 && held_out < 1e-5, "{whole_losses:?} {cut_losses:?}");
        assert!(whole.after.loss != whole.before.loss, "it trains");
    }
}

/// With a learning rate of 0 and a row per batch, the losses of an epoch are those of the rows.
#[test]
fn every_row_trains_once_per_epoch() {
    const N_ROWS: usize = 90;
    let place = Place::new();
    place.questions(N_ROWS, 10);
    let mut config = place.config(Task::NextToken, "decoder", "questions", "questions");
    (config.batch_rows, config.batch_tokens, config.epochs) = (1, 256, 2);
    config.update.learning_rate = 0.0;
    let summary = place.train(&config, "rows");
    assert_eq!((summary.effort.n_steps, summary.train_rows.n_rows), (2 * N_ROWS, N_ROWS));

    let shape = ModelConfig::from_folder(&config.model).expect("a configuration");
    let tokenizer = Tokenizer::from_folder(&config.model).expect("a tokenizer");
    let source = source(&config, &shape, &tokenizer).expect("a source");
    let rows = text::examples(&config.data, &source, config.seed).expect("rows").train;
    let (model, _) = LanguageModel::load(&config.model, &flex()).expect("a model");
    let loss = |row| {
        let (batch, supervised) = kiln_data::examples::pack(&[row]);
        f64::from(next_token::loss(&model, &batch, &supervised, None).into_scalar::<f32>()) / supervised.targets.len() as f64
    };
    let mut expected: Vec<f64> = rows.iter().map(loss).collect();
    expected.sort_by(f64::total_cmp);
    let losses = place.losses("rows");
    let (first, second) = losses.split_at(N_ROWS);
    assert_ne!(first, second, "each epoch has its own order");
    for epoch in [first, second] {
        let mut epoch = epoch.to_vec();
        epoch.sort_by(f64::total_cmp);
        assert!(epoch.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{epoch:?}\n{expected:?}");
    }
    // Distinct rows, or the sums could hide one that trained twice.
    assert!(expected.windows(2).filter(|pair| pair[1] - pair[0] < 1e-6).count() < N_ROWS / 10);

    config.batch_rows = 0;
    let packed = place.train(&config, "packed");
    println!("{} batches of at most 256 tokens for {} tokens", packed.effort.n_steps / 2, packed.train_rows.n_tokens);
    assert!(packed.effort.n_steps / 2 >= packed.train_rows.n_tokens.div_ceil(256) && packed.effort.n_steps < N_ROWS);
    assert_eq!(packed.after.loss, packed.before.loss, "a learning rate of 0 changes nothing");
}
