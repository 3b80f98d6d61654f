//! The same seed gives the same bytes, whatever the number of threads; another seed gives others.

use crate::multitask;
use crate::rewards;
use crate::support::{Place, flex};
use kiln_continual::config::ContinualConfig;
use kiln_core::adapter::LoraConfig;
use kiln_multitask::config::{Kind, MultitaskConfig, Weighting};
use kiln_rl::config::Algorithm;
use kiln_rl::train::train_with_rewards;
use kiln_sft::config::{SftConfig, Task};

/// Trains on 1, 2 and 4 threads, twice on 2, and with another seed.
fn assert_deterministic(place: &Place, config: &SftConfig, name: &str) {
    let weights = |config: &SftConfig, n_threads: usize, out: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        pool.install(|| place.train(config, &format!("{name}, {out}")));
        place.weights(&format!("{name}, {out}"))
    };
    let losses = |out: &str| place.losses(&format!("{name}, {out}"));
    let first = weights(config, 2, "2 threads");
    assert!(first == weights(config, 2, "2 threads again"), "the same seed twice");
    assert!(first == weights(config, 1, "1 thread"), "1 and 2 threads");
    assert!(first == weights(config, 4, "4 threads"), "4 and 2 threads");
    assert!(losses("1 thread") == losses("4 threads"), "losses on 1 and 4 threads");
    let other = SftConfig { seed: config.seed + 1, ..config.clone() };
    assert!(first != weights(&other, 2, "another seed"), "another seed");
}

/// Batches large enough that every kernel cuts them into several units of work.
fn decoder(place: &Place) -> SftConfig {
    place.questions(400, 40);
    let mut config = place.config(Task::NextToken, "decoder", "questions", "questions");
    config.batch_rows = 64;
    config.update.learning_rate = 2e-3;
    config
}

#[test]
fn of_a_decoder() {
    let place = Place::new();
    assert_deterministic(&place, &decoder(&place), "decoder");
}

#[test]
fn of_a_decoder_with_an_adapter() {
    let place = Place::new();
    let config = SftConfig { adapter: Some(LoraConfig { rank: 4, ..LoraConfig::default() }), ..decoder(&place) };
    assert_deterministic(&place, &config, "adapter");
}

#[test]
fn of_preferences() {
    let place = Place::new();
    place.preferences(200, 40);
    let mut config = place.config(Task::Preference, "decoder", "preferences", "preferences");
    config.update.learning_rate = 1e-3;
    assert_deterministic(&place, &config, "preferences");
}

#[test]
fn of_an_encoder_with_dropout() {
    let place = Place::new();
    place.topics(400, 40);
    place.scores(400, 40);
    place.entities(400, 40);
    for (task, rows) in [(Task::Classification, "topics"), (Task::Regression, "scores"), (Task::TokenClassification, "entities")] {
        let mut config = place.config(task, "encoder", rows, rows);
        (config.batch_rows, config.batch_tokens) = (0, 2048);
        config.update.learning_rate = 1e-3;
        assert!(config.dropout);
        assert_deterministic(&place, &config, rows);
    }
}

#[test]
fn of_a_stream_of_domains() {
    let place = Place::new();
    place.documents();
    let mut config = place.stream("decoder");
    (config.replay.share, config.ewc.strength, config.l2_sp.strength, config.lwf.strength) = (0.3, 10.0, 0.01, 0.5);
    (config.ewc.rows, config.budget, config.micro_batch_tokens) = (40, Some(10.0), 400);
    let run = |config: &ContinualConfig, n_threads: usize, out: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        pool.install(|| place.learn(config, out));
        (place.weights(out), std::fs::read(place.path(out).join("stages/kitchen/model.safetensors")).expect("weights"))
    };
    let first = run(&config, 2, "2 threads");
    assert!(first == run(&config, 1, "1 thread"), "1 and 2 threads");
    assert!(first == run(&config, 4, "4 threads"), "4 and 2 threads");
    config.seed += 1;
    assert!(first != run(&config, 2, "another seed"), "another seed");
}

#[test]
fn of_several_tasks() {
    let place = Place::new();
    multitask::rows(&place, 160, 40);
    // The texts of topics once more, for their hidden tokens.
    for part in ["", "-held-out"] {
        std::fs::copy(place.path(&format!("topics{part}.jsonl")), place.path(&format!("texts{part}.jsonl"))).expect("rows");
    }
    let tasks = [
        ("topics", Kind::Classification),
        ("scores", Kind::Regression),
        ("entities", Kind::TokenClassification),
        ("texts", Kind::MaskedToken),
    ];
    for (name, weighting, pcgrad) in
        [("fixed", Weighting::Fixed, false), ("famo", Weighting::Famo, false), ("pcgrad", Weighting::Uncertainty, true)]
    {
        let weights = |seed: u64, n_threads: usize, out: &str| {
            let config = MultitaskConfig { weighting, pcgrad, seed, ..multitask::config(&place, "encoder", &tasks, "") };
            assert!(config.dropout);
            let out = format!("{name}, {out}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
            pool.install(|| multitask::run(&place, &config, &out));
            let read = |file: &str| std::fs::read(place.path(&out).join("model").join(file)).expect("weights");
            [read("model.safetensors"), read("heads.safetensors")]
        };
        let first = weights(5, 2, "2 threads");
        assert!(first == weights(5, 2, "2 threads again"), "{name}: the same seed twice");
        assert!(first == weights(5, 1, "1 thread"), "{name}: 1 and 2 threads");
        assert!(first == weights(5, 4, "4 threads"), "{name}: 4 and 2 threads");
        assert!(first != weights(6, 2, "another seed"), "{name}: another seed");
    }
}

#[test]
fn of_rewards() {
    let place = Place::new();
    place.questions(40, 20);
    for algorithm in [Algorithm::Grpo, Algorithm::Ppo] {
        let mut config = rewards::config(&place, algorithm);
        config.kl.coefficient = Some(0.05);
        let outcome = |n_threads: usize, out: &str| {
            let out = format!("{algorithm:?}, {out}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
            pool.install(|| train_with_rewards(&config, rewards::share_of_e(), &flex(), &place.path(&out))).expect("a run");
            let samples = std::fs::read(place.path(&out).join("samples.jsonl")).expect("samples");
            (place.weights(&out), samples)
        };
        let first = outcome(2, "2 threads");
        assert!(first == outcome(2, "2 threads again"), "the same seed twice");
        assert!(first == outcome(1, "1 thread"), "1 and 2 threads");
        assert!(first == outcome(4, "4 threads"), "4 and 2 threads");
        config.seed += 1;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
        let out = place.path(&format!("{algorithm:?}, another seed"));
        pool.install(|| train_with_rewards(&config, rewards::share_of_e(), &flex(), &out)).expect("a run");
        assert!(first.1 != std::fs::read(out.join("samples.jsonl")).expect("samples"), "another seed");
    }
}
