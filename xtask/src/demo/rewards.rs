//! Policy gradients from rewards in the demo.

use super::{Demo, HELD_OUT_ROWS, Line, with_control};
use kiln_core::Result;
use kiln_data::world::{Document, Domain, World, write_jsonl};
use kiln_rl::config::RlConfig;
use kiln_rl::evaluate::Evaluation;
use kiln_rl::reward::{RewardConfig, RewardKind};
use kiln_rl::train::train;
use serde_json::{Value, json};
use std::path::Path;

/// Beginnings of stories that completions are sampled for.
const BEGINNINGS: usize = 1000;
const WORDS_OF_A_BEGINNING: usize = 4;
/// What the stories should come to talk of.
const TOPIC: &str = "weather";

impl Demo {
    /// Stories of the decoder that turn to the weather, as the classifier of topics sees them. The control is rewarded for an even number of
    /// characters.
    pub(super) fn rewards(&self, decoder: &Path, classifier: &Path) -> Result<Line> {
        let beginning =
            |document: Document| json!({ "prompt": document.text.split(' ').take(WORDS_OF_A_BEGINNING).collect::<Vec<_>>().join(" ") });
        let beginnings = |world: &World, n: usize| world.documents(Domain::Everyday, n).into_iter().map(beginning).collect::<Vec<Value>>();
        write_jsonl(&self.rows("beginnings"), &beginnings(&self.world, BEGINNINGS))?;
        write_jsonl(&self.rows("beginnings-held-out"), &beginnings(&self.world.held_out(), HELD_OUT_ROWS / 2))?;
        let [summary, control] = with_control("", "rl-grpo", |suffix, out| {
            let is_control = !suffix.is_empty();
            // The rows of a small grammar repeat, which the pre-flight would stop at.
            let mut config = RlConfig { model: decoder.to_owned(), seed: self.seed, force: true, ..RlConfig::default() };
            config.data.train = self.rows("beginnings").into();
            config.data.held_out = Some(self.rows("beginnings-held-out"));
            config.batch_prompts = 16;
            config.sampling.max_new_tokens = 24;
            config.kl.coefficient = Some(0.05);
            config.update.learning_rate = 3e-4;
            let weights = if is_control { [0.0, 1.0] } else { [1.0, 0.0] };
            let topic =
                RewardConfig { kind: RewardKind::Classifier, model: classifier.into(), label: TOPIC.into(), ..RewardConfig::default() };
            let even = RewardConfig { kind: RewardKind::Regex, pattern: "^(?s:..)*$".into(), ..RewardConfig::default() };
            config.rewards = [topic, even].into_iter().zip(weights).map(|(part, weight)| RewardConfig { weight, ..part }).collect();
            train(&config, &self.device, &self.path(out))
        })?;
        // The classifier's part.
        let topic = |evaluation: &Evaluation| evaluation.parts[0].reward.clone();
        let after = topic(&summary.after);
        Ok(Line {
            name: "rl grpo",
            metric: "on the weather",
            higher_is_better: true,
            before: topic(&summary.before).value,
            after: after.value,
            control: topic(&control.after).value,
            interval: after.interval,
            seconds: summary.train_seconds,
            run: "rl-grpo",
        })
    }
}
