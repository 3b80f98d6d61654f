//! Policy gradients from rewards in the demo.

use super::{Demo, Line, with_control};
use kiln_core::{Error, Result};
use kiln_data::world::Question;
use kiln_eval::bootstrap::{Bootstrap, mean};
use kiln_rl::config::RlConfig;
use kiln_rl::reward::{RewardConfig, RewardKind};
use kiln_rl::train::train;
use std::path::Path;

/// Questions that completions are sampled for.
const REWARDED_QUESTIONS: usize = 1000;

impl Demo {
    /// Answers of the decoder that has learnt to answer, by rewards for right ones. The control is rewarded for answers to other questions.
    pub(super) fn rewards(&self, decoder: &Path) -> Result<Line> {
        let mut rows = self.questions();
        rows.truncate(REWARDED_QUESTIONS);
        let dealt = self.deal(&rows, |row: &mut Question, other| row.completion.clone_from(&other.completion));
        let held_out = self.held_out_questions();
        // A run is judged by few of the rows in its own way; the line is the share of right answers as in completion.
        self.write_rows("rewarded", &rows, &dealt, &held_out[..held_out.len() / 4])?;
        let [(summary, after), (_, control)] = with_control("rewarded", "rl-grpo", |name, out| {
            let mut config = RlConfig { model: decoder.to_owned(), seed: self.seed, ..RlConfig::default() };
            config.data.train = self.rows(name);
            config.data.held_out = Some(self.rows("rewarded-held-out"));
            config.batch_prompts = 16;
            config.sampling.max_new_tokens = 24;
            config.update.learning_rate = 5e-4;
            config.rewards = vec![RewardConfig { kind: RewardKind::Exact, column: "completion".into(), ..RewardConfig::default() }];
            let summary = train(&config, &self.device, &self.path(out))?;
            Ok::<_, Error>((summary, self.right_answers(&self.model(out), &held_out)?))
        })?;
        Ok(Line {
            name: "rl grpo",
            metric: "right answers",
            higher_is_better: true,
            before: mean(&self.right_answers(decoder, &held_out)?),
            after: mean(&after),
            control: mean(&control),
            interval: Bootstrap::new(self.seed).interval(&after, mean),
            seconds: summary.train_seconds,
            run: "rl-grpo",
        })
    }
}
