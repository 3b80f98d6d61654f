//! Policy gradients: rewards rise where there is something to gain and nowhere else, and what should make no difference makes none.

use crate::support::{Place, flex};
use burn::module::Module;
use kiln_core::Result;
use kiln_core::generate::{Sampling, continuations};
use kiln_core::language_model::LanguageModel;
use kiln_kernels::random::Key;
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::policy::{Sequence, log_probabilities};
use kiln_rl::reward::{Completion, Reward, Rewards};
use kiln_rl::train::{Summary, train_with_rewards};
use kiln_sft::config::Task;
use kiln_train::run::read_metrics;

/// The share of a completion's characters that are `e`, or as a control that of another completion.
struct ShareOfE {
    is_control: bool,
}

impl Reward for ShareOfE {
    fn name(&self) -> String {
        "share_of_e".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        let share = |text: &str| text.matches('e').count() as f64 / text.chars().count().max(1) as f64;
        let order = Key::new(11).fold(completions.len() as u64).permutation(completions.len());
        let of = |index: usize| share(completions[if self.is_control { order[index] } else { index }].text);
        Ok((0..completions.len()).map(of).collect())
    }
}

/// The same for all.
struct Constant;

impl Reward for Constant {
    fn name(&self) -> String {
        "constant".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        Ok(vec![0.1; completions.len()])
    }
}

/// Settings for the untrained decoder and its questions.
pub fn config(place: &Place, algorithm: Algorithm) -> RlConfig {
    let mut config = RlConfig { model: place.path("decoder"), algorithm, seed: 5, batch_prompts: 4, ..RlConfig::default() };
    config.data.train = place.path("questions.jsonl").into();
    config.data.held_out = Some(place.path("questions-held-out.jsonl"));
    config.sampling.max_new_tokens = 16;
    config.update.learning_rate = 3e-3;
    config
}

/// Rewards of one's own.
pub fn share_of_e() -> Rewards {
    Rewards::new(vec![(10.0, Box::new(ShareOfE { is_control: false }))])
}

fn train(place: &Place, config: &RlConfig, rewards: Rewards, out: &str) -> Summary {
    let summary = train_with_rewards(config, rewards, &flex(), &place.path(out)).unwrap_or_else(|error| panic!("{out}: {error}"));
    let (before, after) = (&summary.before.reward, &summary.after.reward);
    println!(
        "{out}: reward {:.4} {:?} -> {:.4} {:?} in {} steps, {:.1} s",
        before.value, before.interval, after.value, after.interval, summary.n_steps, summary.train_seconds
    );
    summary
}

/// The values of a metric of every step that has it.
fn metric(place: &Place, out: &str, name: &str) -> Vec<f64> {
    let lines = read_metrics(&place.path(out).join("metrics.jsonl")).expect("metrics");
    lines.iter().filter_map(|line| line.values.get(name)?.as_f64()).collect()
}

#[test]
fn every_algorithm_raises_the_reward_and_shuffled_rewards_do_not() {
    let place = Place::new();
    place.questions(120, 60);
    for algorithm in [Algorithm::Reinforce, Algorithm::Rloo, Algorithm::Grpo, Algorithm::DrGrpo, Algorithm::Dapo, Algorithm::Ppo] {
        let name = format!("{algorithm:?}");
        let mut config = config(&place, algorithm);
        // What a token is worth to the loss differs between the algorithms; Adam takes care of it, but for the clip.
        config.passes = if algorithm == Algorithm::Ppo { 2 } else { 1 };
        let learnt = train(&place, &config, share_of_e(), &name);
        assert!(learnt.after.reward.interval.low > learnt.before.reward.interval.high, "{name} beats what it was");
        assert!(learnt.difference.interval.low > 0.0, "{name} gains on the same prompts");
        let rewards = metric(&place, &name, "reward");
        assert_eq!(rewards.len(), 30);
        if algorithm == Algorithm::Ppo {
            assert_eq!(metric(&place, &name, "explained_variance").len(), 30);
        }
        if matches!(algorithm, Algorithm::Grpo | Algorithm::Ppo) {
            let control = Rewards::new(vec![(10.0, Box::new(ShareOfE { is_control: true }))]);
            let control = train(&place, &config, control, &format!("{name}, control"));
            assert!(learnt.after.reward.interval.low > control.after.reward.interval.high, "{name} beats its control");
        }
    }
}

#[test]
fn equal_rewards_change_nothing() {
    let place = Place::new();
    place.questions(24, 8);
    for algorithm in [Algorithm::Grpo, Algorithm::DrGrpo, Algorithm::Dapo] {
        let name = format!("{algorithm:?}");
        let summary = train(&place, &config(&place, algorithm), Rewards::new(vec![(1.0, Box::new(Constant))]), &name);
        assert_eq!(metric(&place, &name, "dead_groups"), vec![1.0; summary.n_steps]);
        assert_eq!(metric(&place, &name, "gradient_norm"), vec![0.0; summary.n_steps]);
        assert!(place.weights(&name) == std::fs::read(place.path("decoder/model.safetensors")).expect("weights"), "the same bytes");
    }
}

/// Pulled back as hard as it can be, a policy stays near where it was; not at all, and it goes its way as if there were no reference.
#[test]
fn the_divergence_holds_the_policy_back() {
    let place = Place::new();
    place.questions(80, 40);
    let kl = |coefficient: Option<f64>, out: &str| {
        let mut config = config(&place, Algorithm::Grpo);
        config.kl.coefficient = coefficient;
        let summary = train(&place, &config, share_of_e(), out);
        summary.after.others.iter().find(|figure| figure.metric == "kl").expect("a divergence").value
    };
    let (none, zero, strong) = (kl(None, "none"), kl(Some(0.0), "zero"), kl(Some(20.0), "strong"));
    assert!(place.weights("none") == place.weights("zero") && none == zero, "a coefficient of 0 is none at all");
    println!("divergence {none:.3} without and {strong:.3} with a cost, in nats per completion");
    assert!(strong < 0.3 * none && none > 0.5);
}

#[test]
fn a_warm_up_alone_is_supervised_fine_tuning() {
    let place = Place::new();
    place.questions(100, 20);
    let mut sft = place.config(Task::NextToken, "decoder", "questions", "questions");
    (sft.epochs, sft.update.learning_rate, sft.micro_batch_tokens) = (2, 2e-3, 300);
    place.train(&sft, "supervised");
    let mut config = config(&place, Algorithm::Grpo);
    config.epochs = 0;
    config.micro_batch_tokens = 300;
    config.warm_up.epochs = 2;
    config.warm_up.update.learning_rate = 2e-3;
    train(&place, &config, share_of_e(), "warm-up");
    assert!(place.weights("supervised") == place.weights("warm-up"), "the same bytes");
    assert_eq!(place.losses("supervised"), place.losses("warm-up"));
    // And with rewards after it, it is more than that.
    config.epochs = 1;
    let both = train(&place, &config, share_of_e(), "both");
    assert_eq!(both.n_steps, 8 + 25);
    assert!(both.warmed_up.is_some() && place.weights("both") != place.weights("warm-up"));
}

#[test]
fn cutting_the_update_into_parts_changes_nothing_else() {
    let place = Place::new();
    place.questions(24, 8);
    for algorithm in [Algorithm::Grpo, Algorithm::Ppo] {
        let whole = config(&place, algorithm);
        let cut = RlConfig { micro_batch_tokens: 120, gradient_checkpointing: true, ..whole.clone() };
        let name = format!("{algorithm:?}");
        let after = |config: &RlConfig, out: &str| train(&place, config, share_of_e(), out).after.reward.value;
        let apart = (after(&whole, &format!("{name}, whole")) - after(&cut, &format!("{name}, cut"))).abs();
        let [a, b] = ["whole", "cut"].map(|out| metric(&place, &format!("{name}, {out}"), "gradient_norm"));
        assert!((a[0] - b[0]).abs() < 1e-4 * a[0], "{a:?} {b:?}");
        assert!(apart < 0.2, "{name}: {apart}");
    }
}

#[test]
fn samples_have_the_log_probabilities_of_training_and_do_not_depend_on_their_batch() {
    let place = Place::new();
    place.questions(60, 20);
    // A little training makes the distributions less even.
    let mut sft = place.config(Task::NextToken, "decoder", "questions", "questions");
    (sft.epochs, sft.update.learning_rate) = (3, 5e-3);
    place.train(&sft, "model");
    let folder = place.path("model/model");
    // Enough of them that some completions end early.
    let end_ids: Vec<u32> = (10..30).collect();
    let model = LanguageModel::load(&folder, &flex()).expect("a model").0.valid();
    let prompts: Vec<Vec<u32>> =
        (0..5).map(|prompt| (0..4 + 7 * prompt).map(|token| 4 + (prompt * 31 + token * 17) % 400).collect()).collect();
    let keys: Vec<Vec<Key>> = (0..5).map(|prompt| (0..6).map(|index| Key::new(9).fold(prompt).fold(index)).collect()).collect();
    for temperature in [1.0, 0.6] {
        let sampling = Sampling { temperature, max_new_tokens: 24, ..Sampling::default() };
        let groups = continuations(&model, &prompts, &keys, &sampling, &end_ids, &mut |_, _| true).expect("samples");
        let sequences: Vec<Sequence<'_>> = prompts
            .iter()
            .zip(&groups)
            .flat_map(|(prompt, group)| group.iter().map(move |continuation| Sequence { prompt, completion: &continuation.ids }))
            .collect();
        let sampled = groups.iter().flatten().map(|continuation| &continuation.log_probabilities);
        for (sampled, trained) in sampled.zip(log_probabilities(&model, &sequences, temperature)) {
            assert!(
                sampled.len() == trained.len() && sampled.iter().zip(&trained).all(|(a, b)| (a - b).abs() < 1e-4),
                "{sampled:?} {trained:?}"
            );
        }
        let lengths: Vec<usize> = groups.iter().flatten().map(|continuation| continuation.ids.len()).collect();
        assert!(lengths.iter().any(|&length| length < 24), "some end by themselves: {lengths:?}");
        for continuation in groups.iter().flatten() {
            let ends = end_ids.contains(continuation.ids.last().expect("a token"));
            assert!(continuation.ended == ends && (ends || continuation.ids.len() == 24));
        }
        // Each by itself, its prompt encoded for it alone.
        for ((prompt, keys), group) in prompts.iter().zip(&keys).zip(&groups) {
            for (key, expected) in keys.iter().zip(group) {
                let (prompt, keys) = (std::slice::from_ref(prompt), [vec![*key]]);
                let alone = continuations(&model, prompt, &keys, &sampling, &end_ids, &mut |_, _| true).expect("a sample");
                assert_eq!(alone[0][0].ids, expected.ids);
            }
        }
    }
}
