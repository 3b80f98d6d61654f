//! The settings of policy gradients.

use crate::reward::RewardConfig;
use burn::tensor::Device;
use kiln_core::adapter::LoraConfig;
use kiln_core::{Error, Result};
use kiln_data::examples::Overlong;
use kiln_data::source::{DataConfig, Draw, TextColumns, required};
use kiln_train::checkpoint::CheckpointConfig;
use kiln_train::manifest::About;
use kiln_train::updater::UpdateConfig;
use kiln_train::validation::ValidationConfig;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A published combination of the parts below; any part may be set otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// REINFORCE with a moving baseline (Williams, 1992).
    Reinforce,
    /// The mean of the other completions as baseline (arXiv:2402.14740).
    Rloo,
    /// Rewards standardised within a group (arXiv:2402.03300).
    Grpo,
    /// GRPO without its biases by length and difficulty (arXiv:2503.20783).
    DrGrpo,
    /// GRPO per token, with more room upwards (arXiv:2503.14476).
    Dapo,
    /// Proximal policy optimisation with a value head (arXiv:1707.06347).
    Ppo,
}

/// What a completion's reward is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advantage {
    /// A moving mean of the rewards of earlier steps.
    MovingBaseline,
    /// The mean of the group's other completions.
    LeaveOneOut,
    /// The group's mean.
    GroupMean,
    /// The group's mean, in units of its standard deviation.
    GroupStandardised,
    /// What the value head expected, token by token (arXiv:1506.02438).
    Generalised,
}

/// What the sum over tokens is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// The completions: the gradient of the expected reward.
    Completion,
    /// A completion's own tokens, then the completions: every completion counts alike, so tokens of short ones more.
    CompletionMean,
    /// All tokens: every token counts alike.
    Token,
    /// The completions and the most tokens they may have.
    MaxTokens,
}

/// Where the divergence from the reference model enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KlPlace {
    /// A term of each token's loss, estimated by k3.
    Loss,
    /// Subtracted from the reward: from a completion's, or with PPO from each token's.
    Reward,
}

/// What happens to completions that reach `max_new_tokens` without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unfinished {
    /// They train with the reward they get.
    Keep,
    /// They are rewarded and compared, but do not train (arXiv:2503.14476, Section 3.4).
    Drop,
}

/// Everything a run depends on, apart from the device and the output folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RlConfig {
    /// The folder of the decoder to start from, in Hugging Face layout.
    pub model: PathBuf,
    /// The published method the parts below are taken from unless set. Default grpo.
    pub algorithm: Algorithm,
    /// Passes over the training prompts; 0 warms up only. Default 1.
    pub epochs: usize,
    /// Prompts per step. Default 8.
    pub batch_prompts: usize,
    /// Completions per prompt. Default 8, as TRL's.
    pub group_size: usize,
    /// Updates per step, all on the same completions. Default 1.
    pub passes: usize,
    /// Tokens per forward pass of the update: more are cut into parts whose gradients are summed, which changes memory but not the result.
    /// 0 never cuts. Default 0.
    pub micro_batch_tokens: usize,
    /// Whether the blocks are computed again in the backward pass instead of kept for it. Default false.
    pub gradient_checkpointing: bool,
    /// What happens to completions without an end. Default keep.
    pub unfinished: Unfinished,
    /// What happens to prompts that leave no room for `max_new_tokens`: refuse or drop. Default refuse.
    pub overlong: Overlong,
    /// Whether the run goes on where a finding of the pre-flight would stop it. Default false.
    pub force: bool,
    /// Seed of the split, the order, an adapter's weights and all samples. Default 0.
    pub seed: u64,
    /// How completions are sampled.
    pub sampling: SamplingConfig,
    /// Parts of the loss, over those of the algorithm.
    pub policy: PolicyConfig,
    /// How the model is held near where it started.
    pub kl: KlConfig,
    /// The value head of PPO.
    pub ppo: PpoConfig,
    /// The parts of the reward, which are added up.
    pub rewards: Vec<RewardConfig>,
    /// Supervised training before rewards.
    pub warm_up: WarmUpConfig,
    /// How the model is judged.
    pub evaluation: EvaluationConfig,
    /// Where the rows are.
    pub data: DataConfig,
    /// What their columns mean.
    pub columns: ColumnsConfig,
    /// The update by rewards. Its own defaults: learning rate 1e-6, as TRL's, and no weight decay.
    #[serde(deserialize_with = "over_own_defaults")]
    pub update: UpdateConfig,
    /// When the steps by rewards are validated, by the mean reward.
    pub validation: ValidationConfig,
    /// When checkpoints are written.
    pub checkpoint: CheckpointConfig,
    /// Train a low-rank adapter instead of all weights.
    pub adapter: Option<LoraConfig>,
}

/// How completions are sampled: from the whole distribution, or their probabilities would not be the model's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// Divisor of the logits, also where log-probabilities are trained. Default 1.
    pub temperature: f32,
    /// The most tokens of a completion. Default 128.
    pub max_new_tokens: usize,
}

/// Parts of the loss that are not the algorithm's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// What rewards are compared with.
    pub advantage: Option<Advantage>,
    /// What the sum over tokens is divided by.
    pub normalisation: Option<Normalisation>,
    /// How far below 1 a probability ratio still counts.
    pub clip_low: Option<f64>,
    /// How far above 1 a probability ratio still counts.
    pub clip_high: Option<f64>,
}

/// How the model is held near where it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlConfig {
    /// β, the cost of a nat of divergence; 0 for none. Default 0.05 for rloo and ppo as TRL's, else 0.
    pub coefficient: Option<f64>,
    /// Where it enters. Default the reward for rloo and ppo, else the loss.
    pub place: Option<KlPlace>,
}

/// The value head of PPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// γ, the worth of a reward a token later. Default 1.
    pub gamma: f64,
    /// λ, the share of what follows that is taken from rewards rather than from the value head. Default 0.95.
    pub lambda: f64,
    /// The factor of the value loss. Default 0.1, as TRL's.
    pub value_coefficient: f64,
    /// How far a value may move in a step and still be corrected. Default 0.2.
    pub value_clip: f64,
}

/// Supervised training on given completions before rewards (ReFT, arXiv:2401.08967, Section 3.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmUpConfig {
    /// Passes over the training rows, whose completions are in the column `columns.completion`. Default 0.
    pub epochs: usize,
    /// Rows per update. Default 32.
    pub batch_rows: usize,
    /// The update.
    pub update: UpdateConfig,
}

/// How the model is judged on held-out prompts, before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Divisor of the logits; 0 takes the most probable token. Default 1.
    pub temperature: f32,
    /// Completions per prompt. Default 1.
    pub samples: usize,
}

/// What the columns of a file mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColumnsConfig {
    /// Names of the columns of a file without a header, in order. Default: the file has a header.
    pub names: Vec<String>,
    /// The column of prompts, texts or conversations. Default "prompt".
    pub prompt: String,
    /// The column of completions, for a warm-up. Default "completion".
    pub completion: String,
}

impl Default for RlConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            algorithm: Algorithm::Grpo,
            epochs: 1,
            batch_prompts: 8,
            group_size: 8,
            passes: 1,
            micro_batch_tokens: 0,
            gradient_checkpointing: false,
            unfinished: Unfinished::Keep,
            overlong: Overlong::Refuse,
            force: false,
            seed: 0,
            sampling: SamplingConfig::default(),
            policy: PolicyConfig::default(),
            kl: KlConfig::default(),
            ppo: PpoConfig::default(),
            rewards: Vec::new(),
            warm_up: WarmUpConfig::default(),
            evaluation: EvaluationConfig::default(),
            data: DataConfig::default(),
            columns: ColumnsConfig::default(),
            update: own_update(),
            validation: ValidationConfig::default(),
            checkpoint: CheckpointConfig::default(),
            adapter: None,
        }
    }
}

fn own_update() -> UpdateConfig {
    UpdateConfig { learning_rate: 1e-6, weight_decay: 0.0, ..UpdateConfig::default() }
}

/// The keys given, over the defaults of this method rather than those of every update.
fn over_own_defaults<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<UpdateConfig, D::Error> {
    let given = Map::<String, Value>::deserialize(deserializer)?;
    let Value::Object(mut all) = serde_json::to_value(own_update()).map_err(D::Error::custom)? else {
        unreachable!("a struct is an object")
    };
    all.extend(given);
    serde_json::from_value(Value::Object(all)).map_err(D::Error::custom)
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self { temperature: 1.0, max_new_tokens: 128 }
    }
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self { gamma: 1.0, lambda: 0.95, value_coefficient: 0.1, value_clip: 0.2 }
    }
}

impl Default for WarmUpConfig {
    fn default() -> Self {
        Self { epochs: 0, batch_rows: 32, update: UpdateConfig::default() }
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { temperature: 1.0, samples: 1 }
    }
}

impl Default for ColumnsConfig {
    fn default() -> Self {
        Self { names: Vec::new(), prompt: "prompt".into(), completion: "completion".into() }
    }
}

/// An algorithm with what was set otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// What rewards are compared with.
    pub advantage: Advantage,
    /// What the sum over tokens is divided by.
    pub normalisation: Normalisation,
    /// How far below 1 a probability ratio still counts.
    pub clip_low: f64,
    /// How far above 1 a probability ratio still counts.
    pub clip_high: f64,
    /// β, the cost of a nat of divergence.
    pub kl_coefficient: f64,
    /// Where it enters.
    pub kl_place: KlPlace,
}

impl Algorithm {
    /// The parts as published, with TRL's coefficients.
    pub fn parts(self) -> Parts {
        use {Advantage::*, Normalisation::*};
        let none = f64::INFINITY;
        let (advantage, normalisation, clip_low, clip_high) = match self {
            Self::Reinforce => (MovingBaseline, Completion, none, none),
            Self::Rloo => (LeaveOneOut, Completion, none, none),
            Self::Grpo => (GroupStandardised, CompletionMean, 0.2, 0.2),
            Self::DrGrpo => (GroupMean, MaxTokens, 0.2, 0.2),
            Self::Dapo => (GroupStandardised, Token, 0.2, 0.28),
            Self::Ppo => (Generalised, Token, 0.2, 0.2),
        };
        let (kl_coefficient, kl_place) = match self {
            Self::Rloo | Self::Ppo => (0.05, KlPlace::Reward),
            _ => (0.0, KlPlace::Loss),
        };
        Parts { advantage, normalisation, clip_low, clip_high, kl_coefficient, kl_place }
    }
}

impl RlConfig {
    /// The parts of the loss.
    pub fn parts(&self) -> Parts {
        let parts = self.algorithm.parts();
        Parts {
            advantage: self.policy.advantage.unwrap_or(parts.advantage),
            normalisation: self.policy.normalisation.unwrap_or(parts.normalisation),
            clip_low: self.policy.clip_low.unwrap_or(parts.clip_low),
            clip_high: self.policy.clip_high.unwrap_or(parts.clip_high),
            kl_coefficient: self.kl.coefficient.unwrap_or(parts.kl_coefficient),
            kl_place: self.kl.place.unwrap_or(parts.kl_place),
        }
    }

    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        required("model", &self.model, "the folder of the decoder to start from")?;
        self.data.validate()?;
        for (key, value) in [
            ("batch_prompts", self.batch_prompts),
            ("group_size", self.group_size),
            ("passes", self.passes),
            ("sampling.max_new_tokens", self.sampling.max_new_tokens),
            ("warm_up.batch_rows", self.warm_up.batch_rows),
            ("evaluation.samples", self.evaluation.samples),
        ] {
            if value == 0 {
                return Err(Error::config(key, "found 0, expected at least 1"));
            }
        }
        if self.epochs == 0 && self.warm_up.epochs == 0 {
            return Err(Error::config("epochs", "found 0 without a warm-up, expected at least 1"));
        }
        if self.overlong == Overlong::Truncate {
            return Err(Error::config(
                "overlong",
                "found \"truncate\", but a prompt cut short is another question; \"refuse\" or \"drop\"",
            ));
        }
        self.validate_parts()?;
        self.rewards.iter().enumerate().try_for_each(|(index, reward)| reward.validate(&format!("rewards[{index}]")))?;
        self.warm_up.update.validate("warm_up.update", false)?;
        let is_validated = self.validation.validate(&[("data".to_owned(), &self.data)])?;
        self.checkpoint.validate(&self.update)?;
        self.update.validate("update", is_validated)
    }

    /// How prompts are drawn that do not train.
    pub(crate) fn draw(&self) -> Draw<'_> {
        self.validation.draw(self.seed, TextColumns::one(&self.columns.prompt))
    }

    /// What a run of `n_steps` updates is of.
    pub(crate) fn about<'a>(&'a self, device: &'a Device, n_steps: usize) -> About<'a> {
        let Self { checkpoint, seed, .. } = self;
        let judges = self.rewards.iter().map(|reward| reward.model.as_path()).filter(|model| !model.as_os_str().is_empty());
        let models: Vec<&Path> = [self.model.as_path()].into_iter().chain(judges).collect();
        About { method: "rl", n_steps, checkpoint, seed: *seed, device, models, data: self.data.files() }
    }

    fn validate_parts(&self) -> Result<()> {
        let parts = self.parts();
        let in_range = |key: &str, value: f64, fits: bool, expected: &str| {
            if fits { Ok(()) } else { Err(Error::config(key, format!("found {value}, expected {expected}"))) }
        };
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        let (temperature, judged_at) = (f64::from(self.sampling.temperature), f64::from(self.evaluation.temperature));
        in_range("sampling.temperature", temperature, is_positive(temperature), "more than 0")?;
        in_range("evaluation.temperature", judged_at, judged_at >= 0.0 && judged_at.is_finite(), "0 or more")?;
        in_range("policy.clip_low", parts.clip_low, parts.clip_low > 0.0, "more than 0")?;
        in_range("policy.clip_high", parts.clip_high, parts.clip_high > 0.0, "more than 0")?;
        let coefficient = parts.kl_coefficient;
        in_range("kl.coefficient", coefficient, coefficient >= 0.0 && coefficient.is_finite(), "0 or more")?;
        in_range("ppo.gamma", self.ppo.gamma, (0.0..=1.0).contains(&self.ppo.gamma), "0 to 1")?;
        in_range("ppo.lambda", self.ppo.lambda, (0.0..=1.0).contains(&self.ppo.lambda), "0 to 1")?;
        in_range("ppo.value_coefficient", self.ppo.value_coefficient, is_positive(self.ppo.value_coefficient), "more than 0")?;
        in_range("ppo.value_clip", self.ppo.value_clip, self.ppo.value_clip > 0.0, "more than 0")?;
        if (self.algorithm == Algorithm::Ppo) != (parts.advantage == Advantage::Generalised) {
            return Err(Error::config(
                "policy.advantage",
                "\"generalised\" goes with algorithm \"ppo\", whose value head it needs, and no other does",
            ));
        }
        let in_groups = matches!(parts.advantage, Advantage::LeaveOneOut | Advantage::GroupMean | Advantage::GroupStandardised);
        if in_groups && self.group_size < 2 {
            let message = format!("found {}, expected at least 2: completions of one prompt are compared with each other", self.group_size);
            return Err(Error::config("group_size", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_setting_of_the_update_leaves_the_others() {
        let config: RlConfig = serde_json::from_str(r#"{"update": {"warmup_share": 0.5}}"#).unwrap();
        assert_eq!(config.update, UpdateConfig { warmup_share: 0.5, ..RlConfig::default().update });
        let error = serde_json::from_str::<RlConfig>(r#"{"update": {"lerning_rate": 1}}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `lerning_rate`"), "{error}");
    }

    #[test]
    fn parts_are_the_algorithms_unless_set() {
        let config: RlConfig =
            serde_json::from_str(r#"{"algorithm": "dapo", "policy": {"clip_high": 0.2}, "kl": {"coefficient": 0.1}}"#).unwrap();
        assert_eq!(config.parts(), Parts { clip_high: 0.2, kl_coefficient: 0.1, ..Algorithm::Dapo.parts() });
    }
}
