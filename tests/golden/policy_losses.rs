//! The policy losses against TRL and PyTorch: value and every gradient.

use crate::support::{COMPOSED, Golden, SIMPLE, assert_close, assert_gradients, by_tensor_name, devices, fixture, gradients};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_core::generate::Continuation;
use kiln_core::language_model::LanguageModel;
use kiln_core::linear::Linear;
use kiln_rl::config::{Algorithm, RlConfig};
use kiln_rl::data::Prompt;
use kiln_rl::lesson::Lesson;
use kiln_rl::policy::{Policy, log_probabilities};
use kiln_rl::rollout::Rollout;
use std::collections::BTreeMap;

const GROUP: usize = 3;

fn load(part: &str, device: &Device) -> LanguageModel {
    LanguageModel::load(&fixture("policy_losses").join(part), device).expect("the model loads").0
}

/// The values of each row of a padded `[rows, longest]` array that its mask keeps.
fn rows(golden: &Golden, name: &str, mask: &str) -> Vec<Vec<f64>> {
    let (array, mask) = (golden.get(name), golden.get(mask));
    let keep = |(row, mask): (&[f64], &[f64])| row.iter().zip(mask).filter(|(_, keep)| **keep == 1.0).map(|(value, _)| *value).collect();
    array.values.chunks_exact(array.shape[1]).zip(mask.values.chunks_exact(mask.shape[1])).map(keep).collect()
}

fn prompts(golden: &Golden) -> Vec<Prompt> {
    let ids = |row: Vec<f64>| row.into_iter().map(|id| id as u32).collect();
    let prompt = |(line, row)| Prompt { ids: ids(row), text: String::new(), line, fields: BTreeMap::new() };
    rows(golden, "prompt_ids", "prompt_mask").into_iter().enumerate().map(prompt).collect()
}

/// The completions, sampled with the log-probabilities called `old`.
fn rollouts<'a>(golden: &Golden, prompts: &'a [Prompt], old: &str) -> Vec<Rollout<'a>> {
    let ids = rows(golden, "completion_ids", "completion_mask");
    let olds = rows(golden, old, "completion_mask");
    let rewards = &golden.get("rewards").values;
    let rollout = |(index, prompt): (usize, &'a Prompt)| Rollout {
        prompt,
        continuation: Continuation {
            ids: ids[index].iter().map(|&id| id as u32).collect(),
            log_probabilities: olds[index].iter().map(|&l| l as f32).collect(),
            entropies: Vec::new(),
            ended: true,
        },
        text: String::new(),
        parts: vec![rewards[index]],
        reward: rewards[index],
    };
    prompts.iter().enumerate().map(rollout).collect()
}

fn config(golden: &Golden, algorithm: Algorithm) -> RlConfig {
    let mut config = RlConfig { algorithm, group_size: GROUP, ..RlConfig::default() };
    config.sampling.temperature = golden.get("temperature").values[0] as f32;
    config.sampling.max_new_tokens = golden.get("max_completion").values[0] as usize;
    config
}

/// The gradients of the decoder under Hugging Face's names.
fn of_model(policy: &Policy, gradients: BTreeMap<String, Vec<f32>>) -> BTreeMap<String, Vec<f32>> {
    let inside = gradients.into_iter().filter_map(|(path, gradient)| Some((path.strip_prefix("model.")?.to_owned(), gradient)));
    by_tensor_name(&policy.model, inside.collect())
}

#[test]
fn log_probabilities_at_a_temperature() {
    for device in devices() {
        let golden = Golden::open(&fixture("policy_losses").join("golden.safetensors"));
        let prompts = prompts(&golden);
        let rollouts = rollouts(&golden, &prompts, "old");
        let sequences: Vec<_> = rollouts.iter().map(Rollout::sequence).collect();
        for (part, name) in [("model", "log_probabilities"), ("reference", "reference_log_probabilities")] {
            let found = log_probabilities(&load(part, &device), &sequences, golden.get("temperature").values[0] as f32);
            assert_close(name, &found.concat(), &rows(&golden, name, "completion_mask").concat(), COMPOSED);
        }
    }
}

#[test]
fn of_every_algorithm_without_a_value_head() {
    for device in devices() {
        let device = device.autodiff();
        let golden = Golden::open(&fixture("policy_losses").join("golden.safetensors"));
        let prompts = prompts(&golden);
        let (policy, reference) = (Policy::new(load("model", &device), false, &device), load("reference", &device));
        for (case, algorithm, old) in [
            ("grpo", Algorithm::Grpo, "old"),
            ("dr_grpo", Algorithm::DrGrpo, "old"),
            ("dapo", Algorithm::Dapo, "old"),
            ("rloo", Algorithm::Rloo, "log_probabilities"),
            ("reinforce", Algorithm::Reinforce, "old"),
        ] {
            let rollouts = rollouts(&golden, &prompts, old);
            let mut config = config(&golden, algorithm);
            if case == "grpo" {
                config.kl.coefficient = Some(golden.get("grpo_beta").values[0]);
            }
            let lesson = Lesson::new(&policy, Some(&reference), &rollouts, &config, golden.get("baseline").values[0]);
            let all: Vec<usize> = (0..rollouts.len()).collect();
            let (loss, n_clipped) = lesson.loss(&policy, &all, &config);
            // RLOO's ratio is the sequence's in TRL: where it is 1 the gradient is the same, the value is not.
            if case != "rloo" {
                let expected = &golden.get(&format!("{case}_loss")).values;
                assert_close(case, &[loss.clone().into_scalar::<f32>()], expected, SIMPLE);
            }
            if let Some(share) = golden.0.get(&format!("{case}_clip_share")) {
                assert_close("clip share", &[n_clipped as f32 / lesson.n_tokens(&all) as f32], &share.values, SIMPLE);
                assert!(share.values[0] > 0.1, "the clip holds somewhere");
            }
            let found = of_model(&policy, gradients(&policy, &loss));
            assert_gradients(case, &found, &golden.with_prefix(&format!("{case}_grad.")));

            // Completions without a gradient are left out, and the rest cut into parts: the sum is the same.
            let in_parts = lesson.trained.chunks(2).map(|part| lesson.loss(&policy, part, &config).0);
            let sum = in_parts.reduce(|sum, part| sum + part).expect("completions that train");
            let found = of_model(&policy, gradients(&policy, &sum));
            assert_gradients(case, &found, &golden.with_prefix(&format!("{case}_grad.")));
        }
    }
}

fn value_head(golden: &Golden, prefix: &str, device: &Device) -> Linear {
    let values = |name: &str| golden.get(&format!("{prefix}value_{name}")).values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let (weight, bias) = (values("weight"), values("bias"));
    let width = weight.len();
    Linear {
        weight: Param::from_tensor(Tensor::from_data(TensorData::new(weight, [1, width]), device)),
        bias: Some(Param::from_tensor(Tensor::from_data(TensorData::new(bias, [1]), device))),
        adapter: None,
    }
}

#[test]
fn of_ppo_with_its_value_head() {
    for device in devices() {
        let device = device.autodiff();
        let golden = Golden::open(&fixture("policy_losses").join("golden.safetensors"));
        let prompts = prompts(&golden);
        let rollouts = rollouts(&golden, &prompts, "old");
        let mut config = config(&golden, Algorithm::Ppo);
        let [gamma, lambda, value_coefficient, value_clip, beta] = golden.get("ppo").values[..] else { panic!("five settings") };
        (config.ppo.gamma, config.ppo.lambda) = (gamma, lambda);
        (config.ppo.value_coefficient, config.ppo.value_clip) = (value_coefficient, value_clip);
        config.kl.coefficient = Some(beta);
        let model = load("model", &device);
        let sampled_by = Policy { model: model.clone(), value: Some(value_head(&golden, "old_", &device)) };
        let lesson = Lesson::new(&sampled_by, Some(&load("reference", &device)), &rollouts, &config, 0.0);
        let policy = Policy { model, value: Some(value_head(&golden, "", &device)) };
        let (loss, _) = lesson.loss(&policy, &(0..rollouts.len()).collect::<Vec<_>>(), &config);
        assert_close("ppo", &[loss.clone().into_scalar::<f32>()], &golden.get("ppo_loss").values, COMPOSED);
        let all = gradients(&policy, &loss);
        for part in ["weight", "bias"] {
            let expected = &golden.get(&format!("ppo_value_grad.{part}")).values;
            assert_close(part, &all[&format!("value.{part}")], expected, COMPOSED);
        }
        assert_gradients("ppo", &of_model(&policy, all), &golden.with_prefix("ppo_grad."));
    }
}
