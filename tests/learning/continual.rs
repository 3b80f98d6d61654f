//! Continual learning in the sample world: what is not held is forgotten, replay and a budget keep it; and laws of the loop.

use crate::support::{Place, flex};
use kiln_continual::config::{ContinualConfig, DomainConfig, Objective};
use kiln_continual::train::{Summary, resume, train};
use kiln_core::adapter::LoraConfig;
use kiln_core::{Error, files};
use kiln_data::source::DataConfig;
use kiln_data::world::{Domain, write_jsonl};
use kiln_sft::config::{EvalConfig, Task};
use kiln_sft::evaluate::evaluate;
use serde_json::Value;
use std::path::Path;

const DOMAINS: [(&str, Domain); 3] = [("everyday", Domain::Everyday), ("kitchen", Domain::Kitchen), ("ship", Domain::ShipsLog)];

impl Place {
    /// Documents of each domain, and held-out ones.
    pub fn documents(&self) {
        for (name, domain) in DOMAINS {
            for (part, world, n) in [("", self.world.clone(), 400), ("-held-out", self.world.held_out(), 120)] {
                write_jsonl(&self.path(&format!("{name}{part}.jsonl")), &world.documents(domain, n)).expect("rows");
            }
        }
    }

    fn data(&self, name: &str) -> DataConfig {
        let file = |part: &str| self.path(&format!("{name}{part}.jsonl"));
        DataConfig { train: file("").into(), held_out: Some(file("-held-out")), ..DataConfig::default() }
    }

    /// A stream of two domains for the model in the folder `model`, with everyday text as the general one.
    pub fn stream(&self, model: &str) -> ContinualConfig {
        let domain = |name: &str| {
            let DataConfig { train, held_out, held_out_share, validation } = self.data(name);
            DomainConfig { name: String::new(), train, held_out, held_out_share, validation }
        };
        let mut config = ContinualConfig { model: self.path(model), batch_rows: 16, seed: 5, ..ContinualConfig::default() };
        config.general = Some(self.data("everyday"));
        config.domains = ["kitchen", "ship"].map(domain).to_vec();
        config.update.learning_rate = 3e-3;
        config
    }

    /// Learns into the folder `out`, and prints what came of it.
    pub fn learn(&self, config: &ContinualConfig, out: &str) -> Summary {
        let summary = train(config, &flex(), &self.path(out)).unwrap_or_else(|error| panic!("{out}: {error}"));
        for stage in &summary.matrix.stages {
            let figures: Vec<String> = stage.perplexities.iter().map(|figure| format!("{:.3}", figure.value)).collect();
            println!("{out}: after {} {}", stage.after, figures.join(" "));
        }
        let transfer = &summary.transfer;
        println!("{out}: gain {:.4}, learnt {:.4}, {:?}", transfer.gain.value, transfer.learnt.value, transfer.general_rise);
        summary
    }
}

/// A decoder that knows everyday text, in `base/model`.
fn with_base() -> Place {
    let place = Place::new();
    place.documents();
    let mut config = place.config(Task::NextToken, "decoder", "everyday", "everyday");
    (config.epochs, config.batch_rows) = (4, 16);
    config.update.learning_rate = 3e-3;
    let summary = place.train(&config, "base");
    assert!(
        summary.after.figure.value < 0.1 * summary.before.figure.value,
        "the base model learns: {} -> {}",
        summary.before.figure.value,
        summary.after.figure.value
    );
    place
}

/// The rise of the loss on general text, in nats.
fn forgotten(summary: &Summary) -> f64 {
    summary.transfer.general_rise.as_ref().expect("general text").value.ln_1p()
}

fn perplexity(model: &Path, adapter: Option<&Path>, data: &Path) -> f64 {
    let (model, adapter, data) = (model.to_owned(), adapter.map(Path::to_owned), data.to_owned());
    evaluate(&EvalConfig { model, adapter, data, ..EvalConfig::default() }, &flex()).expect("an evaluation").figure.value
}

#[test]
fn replay_keeps_what_is_forgotten_without() {
    let place = with_base();
    let naive = place.learn(&place.stream("base/model"), "naive");
    assert!(forgotten(&naive) > 0.5, "what is not held is forgotten: {}", forgotten(&naive));
    assert!(naive.transfer.forgetting.as_ref().expect("two domains").interval.low > 0.0, "the first domain too");
    let mut config = place.stream("base/model");
    config.replay.share = 0.5;
    let replay = place.learn(&config, "replay");
    assert!(forgotten(&replay) < 0.2 * forgotten(&naive), "{} {}", forgotten(&replay), forgotten(&naive));
    assert!(replay.transfer.learnt.value > 0.8 * naive.transfer.learnt.value, "and as much is learnt");
    assert!(replay.transfer.gain.interval.low > naive.transfer.gain.interval.high, "more is known in the end, beyond chance");

    let stages = &replay.matrix.stages;
    assert_eq!(stages.iter().map(|stage| stage.after.as_str()).collect::<Vec<_>>(), ["start", "kitchen", "ship"]);
    let held_out = place.path("kitchen-held-out.jsonl");
    for (folder, stage) in [("base/model", 0), ("replay/stages/kitchen", 1), ("replay/model", 2)] {
        let found = perplexity(&place.path(folder), None, &held_out);
        let expected = stages[stage].perplexities[1].value;
        assert!((found / expected - 1.0).abs() < 1e-5, "{folder}: {found} {expected}");
    }
}

#[test]
fn penalties_hold_the_model_back() {
    let place = with_base();
    let with = |change: &dyn Fn(&mut ContinualConfig), out: &str| {
        let mut config = place.stream("base/model");
        change(&mut config);
        place.learn(&config, out)
    };
    let naive = with(&|_| {}, "naive");
    let (limit, start) = (0.8 * forgotten(&naive), naive.matrix.stages[0].perplexities[2].value);
    for (out, change) in [
        ("ewc", (&|config: &mut ContinualConfig| config.ewc.strength = 300.0) as &dyn Fn(&mut ContinualConfig)),
        ("l2-sp", &|config| config.l2_sp.strength = 0.15),
        ("lwf", &|config| config.lwf.strength = 2.0),
    ] {
        let summary = with(change, out);
        assert!(forgotten(&summary) < limit, "{out}: {} {limit}", forgotten(&summary));
        assert!(summary.matrix.last().perplexities[2].value < 0.5 * start, "{out} still learns");
    }
}

#[test]
fn a_budget_is_met_or_the_run_fails() {
    let place = with_base();
    for allowed in [0.02, 0.1] {
        let mut config = place.stream("base/model");
        (config.budget, config.replay.share) = (Some(allowed), 0.25);
        let out = format!("budget {allowed}");
        let summary = place.learn(&config, &out);
        let verdict = summary.budget.as_ref().expect("a budget");
        assert!(verdict.met && verdict.rise.value <= allowed && verdict.probe_rise.interval.high <= allowed, "{verdict:?}");
        assert!(summary.transfer.gain.interval.low > 0.0, "something is learnt");
        let rise = summary.transfer.general_rise.as_ref().expect("general text");
        assert_eq!((rise.value, rise.interval), (verdict.rise.value, verdict.rise.interval));
        let kept = perplexity(&place.path(&out).join("model"), None, &place.path("ship-held-out.jsonl"));
        let expected = summary.matrix.last().perplexities[2].value;
        assert!((kept / expected - 1.0).abs() < 1e-5, "the model kept is the one promised: {kept} {expected}");
    }
    // So fast that the smallest part of the way is too far.
    let mut config = place.stream("base/model");
    (config.budget, config.update.learning_rate) = (Some(0.001), 0.3);
    let run = place.path("none");
    let error = train(&config, &flex(), &run).expect_err("no budget to be met");
    assert!(matches!(error, Error::Unmet { .. }), "{error}");
    assert!(!run.join("model").exists() && run.join("over-budget/model.safetensors").exists());
    let results: Value = files::read_json(&run.join("results.json")).expect("results");
    assert_eq!(results["budget"]["met"], false);
}

/// Nothing that is off leaves a trace: the bytes are those of plain training by another crate.
#[test]
fn without_replay_and_penalties_it_is_plain_training() {
    let place = Place::new();
    place.documents();
    let mut sft = place.config(Task::NextToken, "decoder", "kitchen", "kitchen");
    (sft.batch_rows, sft.epochs) = (16, 2);
    sft.update.learning_rate = 2e-3;
    place.train(&sft, "plain");
    let adapt = |general: bool, change: &dyn Fn(&mut ContinualConfig), out: &str| {
        let (stream, mut config) = (place.stream("decoder"), ContinualConfig::default());
        (config.model, config.seed, config.data) = (stream.model, stream.seed, place.data("kitchen"));
        (config.batch_rows, config.epochs, config.update) = (16, 2, sft.update.clone());
        config.general = stream.general.filter(|_| general);
        change(&mut config);
        place.learn(&config, out);
        place.weights(out)
    };
    let plain = place.weights("plain");
    assert!(adapt(false, &|_| {}, "alone") == plain, "without general text");
    assert!(adapt(true, &|config| config.budget = Some(1e9), "general") == plain, "with a budget that is never reached");
    assert!(adapt(true, &|config| config.replay.share = 0.1, "replay") != plain, "replay is seen");
    assert!(adapt(true, &|config| config.l2_sp.strength = 1e-3, "l2-sp") != plain, "a pull is felt");
    assert!(adapt(true, &|config| config.micro_batch_tokens = 256, "parts") != plain, "sums in another order round otherwise");
}

#[test]
fn adapters_learn_one_domain_each() {
    let place = with_base();
    let mut config = place.stream("base/model");
    config.adapter = Some(LoraConfig { rank: 4, ..LoraConfig::default() });
    config.replay.share = 0.3;
    config.update.learning_rate = 1e-2;
    let summary = place.learn(&config, "adapters");
    assert!(summary.effort.n_trainable < summary.effort.n_parameters / 2);
    assert!(summary.transfer.gain.interval.low > 0.3, "both domains are learnt");
    let held_out = place.path("ship-held-out.jsonl");
    for (base, adapter, stage) in [("base/model", "kitchen", 1), ("adapters/stages/kitchen", "ship", 2)] {
        let adapter = place.path("adapters/adapters").join(adapter);
        let found = perplexity(&place.path(base), Some(&adapter), &held_out);
        let expected = summary.matrix.stages[stage].perplexities[2].value;
        assert!((found / expected - 1.0).abs() < 1e-4, "{base} with {}: {found} {expected}", adapter.display());
    }
}

#[test]
fn a_run_goes_on_from_the_last_step_of_a_domain() {
    let place = Place::new();
    place.documents();
    let mut config = ContinualConfig { general: None, batch_rows: 100, ..place.stream("decoder") };
    (config.checkpoint.every_steps, config.checkpoint.keep) = (1, 100);
    place.learn(&config, "run");
    let (expected, run) = (place.weights("run"), place.path("run"));
    // Of 4 steps each: what the end of the first domain left, before the second one began.
    std::fs::remove_file(run.join("results.json")).expect("removed");
    for (step, checkpoint) in kiln_train::checkpoint::list(&run).expect("checkpoints") {
        if step > 3 {
            std::fs::remove_dir_all(checkpoint).expect("removed");
        }
    }
    assert!(matches!(resume(&run, &flex(), Some(4)), Err(Error::Interrupted { .. })));
    resume(&run, &flex(), None).expect("it goes on");
    assert!(place.weights("run") == expected, "the second domain begins with its own update");
}

#[test]
fn an_encoder_adapts_by_hidden_tokens() {
    let place = Place::new();
    place.documents();
    let mut config = place.stream("encoder");
    config.objective = Objective::Mlm;
    (config.epochs, config.replay.share, config.ewc.strength) = (2, 0.3, 1.0);
    let summary = place.learn(&config, "mlm");
    for (start, end) in summary.matrix.stages[0].perplexities.iter().zip(&summary.matrix.last().perplexities) {
        assert!(end.interval.high < 0.7 * start.interval.low, "{} -> {}", start.value, end.value);
    }
    config.update.learning_rate = 0.0;
    let still = place.learn(&config, "still");
    assert_eq!(still.matrix.stages[0].losses, still.matrix.last().losses, "no rate, nothing learnt");
}
