//! How rows are grouped changes speed and memory, not what is learnt.

use crate::support::{Place, flex};
use crate::{embeddings, multitask, rewards};
use kiln_continual::config::ContinualConfig;
use kiln_contrastive::config::{ContrastiveConfig, Objective};
use kiln_core::checkpoint::Weights;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Example, Limit, Overlong};
use kiln_data::labels::Labels;
use kiln_data::rows::Table;
use kiln_data::sequences::{class_table, number_table};
use kiln_data::source::{Draw, TextColumns};
use kiln_data::words::{Tagged, sentence_table};
use kiln_data::world::TOPICS;
use kiln_data::{tags, text};
use kiln_kernels::random::Key;
use kiln_multitask::config::{Kind, MultitaskConfig};
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::train::train_with_rewards;
use kiln_sft::config::{PreferenceConfig, SftConfig, Task};
use kiln_sft::data::preferences::pair_table;
use kiln_sft::data::source;
use kiln_sft::evaluate;
use kiln_sft::objective::next_token;
use kiln_train::optimizer::{Optimizer, SgdConfig};
use kiln_train::schedule::Schedule;
use kiln_train::updater::UpdateConfig;
use std::path::Path;

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
    let draw = Draw::new(config.seed, TextColumns::Layout(&config.columns));
    let rows = text::examples(&config.data, &source, draw).expect("rows").train.each(Clone::clone).expect("rows");
    let (model, _) = LanguageModel::load(&config.model, &flex()).expect("a model");
    let loss = |row| {
        let (batch, supervised) = kiln_data::examples::pack(&[row]);
        f64::from(next_token::loss(&model, &batch, &supervised, 0.0, None).into_scalar::<f32>()) / supervised.targets.len() as f64
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

/// The updates of every method, by gradient descent, whose steps are as far apart as the gradients are: AdamW would turn rounding of a
/// gradient of 0 into a step.
fn plain(learning_rate: f64) -> UpdateConfig {
    let optimizer = Optimizer::Sgd(SgdConfig { momentum: 0.0, nesterov: false });
    UpdateConfig { learning_rate, schedule: Schedule::Constant, weight_decay: 0.0, optimizer, ..UpdateConfig::default() }
}

/// How large the parts are that a batch of `n_tokens` tokens is cut into: not at all, in about two, in about four, and each row alone.
fn cuts(n_tokens: usize) -> [usize; 4] {
    [0, n_tokens / 2 + 1, n_tokens / 4 + 1, 1]
}

/// Trains with each of `cuts`; all runs must end at the same weights, to a ten-thousandth of the largest change.
fn assert_no_difference(place: &Place, name: &str, start: &Path, cuts: impl IntoIterator<Item = usize>, train: impl Fn(usize, &Path)) {
    let weights = |cut: usize| {
        let out = place.path(&format!("{name}-{cut}"));
        train(cut, &out);
        Weights::open(&out.join("model")).expect("weights")
    };
    let values = |weights: &Weights, name: &str| weights.read(name, weights.shape(name).expect("a shape")).expect("values");
    let apart = |a: &Weights, b: &Weights| {
        // A folder of another class calls its trunk otherwise.
        let twin = |name: &str| b.names().find(|other| *other == name || other.ends_with(&format!(".{name}"))).map(str::to_owned);
        let of_tensor = |(name, twin): (&str, String)| {
            let (a, b) = (values(a, name), values(b, &twin));
            a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        a.names().filter_map(|name| Some((name, twin(name)?))).map(of_tensor).fold(0.0, f32::max)
    };
    let mut cuts = cuts.into_iter();
    let whole = weights(cuts.next().expect("a run"));
    let change = apart(&whole, &Weights::open(start).expect("weights"));
    assert!(change > 1e-3, "{name}: it trains: {change:e}");
    for cut in cuts {
        let share = apart(&weights(cut), &whole) / change;
        println!("{name}, parts of {cut} tokens: {share:.1e} of the largest change apart");
        assert!(share < 1e-4, "{name}, parts of {cut} tokens: {share:e} of {change:e}");
    }
}

#[test]
fn cuts_change_no_supervised_update() {
    let place = Place::new();
    place.questions(24, 8);
    place.topics(24, 8);
    place.scores(24, 8);
    place.entities(24, 8);
    place.preferences(26, 8);
    for (task, model, rows) in [
        (Task::NextToken, "decoder", "questions"),
        (Task::Classification, "encoder", "topics"),
        (Task::Regression, "encoder", "scores"),
        (Task::TokenClassification, "encoder", "entities"),
        (Task::Preference, "decoder", "preferences"),
    ] {
        let mut config = place.config(task, model, rows, rows);
        (config.dropout, config.batch_rows, config.update) = (false, 12, plain(0.1));
        assert_no_difference(&place, rows, &config.model.clone(), cuts(250), |micro_batch_tokens, out| {
            kiln_sft::train::train(&SftConfig { micro_batch_tokens, ..config.clone() }, &flex(), out).expect("a run");
        });
    }
}

#[test]
fn cuts_change_no_update_without_labels() {
    let place = Place::new();
    embeddings::pairs(&place, 24, 8);
    place.documents();
    for (objective, name) in [(Objective::Mlm, "everyday"), (Objective::CachedMnrl, "pairs")] {
        let mut config = embeddings::config(&place, objective, name, name);
        (config.dropout, config.batch_rows, config.update) = (false, 12, plain(0.1));
        config.overlong = Overlong::Truncate;
        // What is not cut at all is another objective: the one that is not cached.
        assert_no_difference(&place, name, &config.model.clone(), cuts(250), |micro_batch_tokens, out| {
            let objective = match objective {
                Objective::CachedMnrl if micro_batch_tokens == 0 => Objective::Mnrl,
                objective => objective,
            };
            kiln_contrastive::train::train(&ContrastiveConfig { objective, micro_batch_tokens, ..config.clone() }, &flex(), out)
                .expect("a run");
        });
    }
}

#[test]
fn cuts_change_no_update_of_a_stream() {
    let place = Place::new();
    place.documents();
    let mut config = place.stream("decoder");
    (config.dropout, config.batch_rows, config.update) = (false, 100, plain(0.1));
    (config.replay.share, config.ewc.strength, config.l2_sp.strength, config.lwf.strength) = (0.3, 10.0, 0.01, 0.5);
    config.ewc.rows = 20;
    assert_no_difference(&place, "stream", &config.model.clone(), cuts(2000), |micro_batch_tokens, out| {
        kiln_continual::train::train(&ContinualConfig { micro_batch_tokens, ..config.clone() }, &flex(), out).expect("a run");
    });
}

#[test]
fn cuts_change_no_update_by_rewards() {
    let place = Place::new();
    place.questions(4, 4);
    // One whose loss is a mean over completions, one over tokens, and one with a value head.
    for algorithm in [Algorithm::Grpo, Algorithm::Dapo, Algorithm::Ppo] {
        let mut config = rewards::config(&place, algorithm);
        (config.batch_prompts, config.update) = (4, plain(0.1));
        config.kl.coefficient = Some(0.05);
        assert_no_difference(&place, &format!("{algorithm:?}"), &config.model.clone(), cuts(700), |micro_batch_tokens, out| {
            train_with_rewards(&RlConfig { micro_batch_tokens, ..config.clone() }, rewards::share_of_e(), &flex(), out).expect("a run");
        });
    }
}

/// Several tasks have no parts: their batch is one pass, or one of each task where gradients are compared.
#[test]
fn a_pass_for_each_task_changes_no_update() {
    let place = Place::new();
    multitask::rows(&place, 24, 8);
    let tasks = [("topics", Kind::Classification), ("scores", Kind::Regression), ("entities", Kind::TokenClassification)];
    let mut config = multitask::config(&place, "encoder", &tasks, "");
    (config.dropout, config.batch_rows, config.update) = (false, 12, plain(0.1));
    assert_no_difference(&place, "tasks", &config.model.clone(), [0, 1], |cosine_steps, out| {
        kiln_multitask::train::train(&MultitaskConfig { cosine_steps, ..config.clone() }, &flex(), out).expect("a run");
    });
}

/// The loss of rows is the mean of the losses of any groups of them, each counted as often as it has items.
#[test]
fn evaluations_do_not_depend_on_what_is_evaluated_together() {
    fn assert_mean<R>(name: &str, rows: &[R], n_items: impl Fn(&R) -> usize, loss: impl Fn(&[R]) -> f64) {
        let whole = loss(rows);
        for n_rows in [1, 2, 7] {
            let (mut sum, mut n) = (0.0, 0);
            for part in rows.chunks(n_rows) {
                let items: usize = part.iter().map(&n_items).sum();
                sum += loss(part) * items as f64;
                n += items;
            }
            let apart = (sum / n as f64 - whole).abs();
            assert!(apart < 1e-6, "{name}: {n_rows} rows at a time, {apart:e} apart");
        }
    }

    let place = Place::new();
    place.questions(10, 20);
    place.topics(10, 20);
    place.scores(10, 20);
    place.entities(10, 20);
    place.preferences(10, 20);
    let limit = |shape: &ModelConfig, tokenizer: &Tokenizer| Limit::new(shape.max_positions, Overlong::Refuse, tokenizer).expect("a limit");
    let columns = ColumnsConfig::default();
    let held_out = |name: &str| Table::read(&place.path(&format!("{name}-held-out.jsonl")), &[]).expect("rows");
    let folder = place.path("encoder");
    let (shape, tokenizer) = (ModelConfig::from_folder(&folder).expect("a shape"), Tokenizer::from_folder(&folder).expect("a tokenizer"));
    let limit_of_encoder = limit(&shape, &tokenizer);
    let new = Key::new(7);

    let labels = Labels::in_order(TOPICS.map(str::to_owned).to_vec());
    let (model, _) = SequenceClassifier::from_pretrained(&folder, labels.names(), &[], &flex(), new).expect("a model");
    let (rows, _) = class_table(&held_out("topics"), &columns, &labels, &tokenizer, limit_of_encoder).expect("rows");
    assert_mean("classification", &rows, |_| 1, |rows| evaluate::classifier(&model, rows, labels.names(), 0).loss);

    let (model, _) = SequenceClassifier::from_pretrained(&folder, &[], &[], &flex(), new).expect("a model");
    let (rows, _) = number_table(&held_out("scores"), &columns, &tokenizer, limit_of_encoder).expect("rows");
    assert_mean("regression", &rows, |_| 1, |rows| evaluate::regression(&model, rows, 0).loss);

    let labels = tags::labels(&held_out("entities"), columns.tagged()).expect("tags");
    let (model, _) = TokenClassifier::from_pretrained(&folder, labels.names(), &[], &flex(), new).expect("a model");
    let (rows, _) = sentence_table(&held_out("entities"), &columns, &labels, &tokenizer, limit_of_encoder).expect("rows");
    let n_words = |row: &Tagged| row.supervised().count();
    assert_mean("token classification", &rows, n_words, |rows| evaluate::token_classifier(&model, rows, labels.names(), 0).loss);

    let config = place.config(Task::NextToken, "decoder", "questions", "questions");
    let shape = ModelConfig::from_folder(&config.model).expect("a shape");
    let source = source(&config, &shape, &tokenizer).expect("a source");
    let (model, _) = LanguageModel::load(&config.model, &flex()).expect("a model");
    let (rows, _) = source.examples(&held_out("questions")).expect("rows");
    assert_mean("next token", &rows, Example::n_supervised, |rows| evaluate::language_model(&model, rows, 0).loss);

    let reference = LanguageModel::new(shape.clone(), &flex(), Key::new(9)).expect("a model");
    let (rows, _) = pair_table(&source, &held_out("preferences"), &reference).expect("pairs");
    let beta = PreferenceConfig { beta: 1.0, ..PreferenceConfig::default() };
    assert_mean("preference", &rows, |_| 1, |rows| evaluate::preference(&model, rows, &beta, 0).loss);
}
