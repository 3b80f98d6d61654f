//! Direct preference optimisation against TRL: loss, margin and every gradient; and laws of its own.

use crate::support::{COMPOSED, Golden, assert_close, assert_gradients, by_tensor_name, devices, fixture, gradients, rows, values};
use burn::tensor::Device;
use kiln_core::language_model::LanguageModel;
use kiln_data::examples::Example;
use kiln_sft::config::PreferenceConfig;
use kiln_sft::data::preferences::{Pair, margins};
use kiln_sft::evaluate::preference as evaluation;
use kiln_sft::objective::preference;

fn load(part: &str, device: &Device) -> LanguageModel {
    LanguageModel::load(&fixture("preference").join(part), device).expect("the model loads").0
}

/// The reference file, and its pairs: all chosen sequences, then all rejected ones.
fn pairs(device: &Device) -> (Golden, Vec<Pair>) {
    let mut golden = Golden::open(&fixture("preference").join("golden.safetensors"));
    let completion = golden.get("completion_mask").clone();
    golden.0.insert("labels".to_owned(), completion.clone());
    let examples: Vec<Example> = rows(&golden, "")
        .into_iter()
        .zip(completion.values.chunks_exact(completion.shape[1]))
        .map(|(row, completion)| {
            Example::from(row.ids, completion.iter().position(|&is_completion| is_completion == 1.0).expect("a completion"))
        })
        .collect();
    let (chosen, rejected) = examples.split_at(examples.len() / 2);
    let pair =
        |(chosen, rejected): (&Example, &Example)| Pair { chosen: chosen.clone(), rejected: rejected.clone(), reference_margin: 0.0 };
    let mut pairs: Vec<Pair> = chosen.iter().zip(rejected).map(pair).collect();
    let reference = margins(&load("reference", device), &pairs);
    pairs.iter_mut().zip(reference).for_each(|(pair, margin)| pair.reference_margin = margin);
    (golden, pairs)
}

#[test]
fn of_pairs_in_one_batch() {
    for device in devices() {
        let device = device.autodiff();
        let (golden, pairs) = pairs(&device);
        let pairs: Vec<&Pair> = pairs.iter().collect();
        let model = load("model", &device);
        let beta = golden.get("beta").values[0];
        for (prefix, label_smoothing) in [("", 0.0), ("smooth_", golden.get("label_smoothing").values[0])] {
            let config = PreferenceConfig { beta, label_smoothing };
            let loss = preference::loss(&model, &pairs, &config, None) / pairs.len() as f32;
            assert_close(prefix, &values(loss.clone()), &golden.get(&format!("{prefix}loss")).values, COMPOSED);
            let found = by_tensor_name(&model, gradients(&model, &loss));
            assert_gradients(prefix, &found, &golden.with_prefix(&format!("{prefix}grad.")));
            let owned: Vec<Pair> = pairs.iter().map(|&pair| pair.clone()).collect();
            let evaluation = evaluation(&model, &owned, &config, 0);
            assert_close("evaluated loss", &[evaluation.loss as f32], &golden.get(&format!("{prefix}loss")).values, COMPOSED);
            assert_close("margin", &[evaluation.others[0].value as f32], &golden.get("margin").values, COMPOSED);
        }
    }
}

#[test]
fn a_model_is_no_better_than_itself() {
    for device in devices() {
        let device = device.autodiff();
        let (_, mut pairs) = pairs(&device);
        let model = load("model", &device);
        let own = margins(&model, &pairs);
        pairs.iter_mut().zip(own).for_each(|(pair, margin)| pair.reference_margin = margin);
        let config = PreferenceConfig::default();
        let before = evaluation(&model, &pairs, &config, 0);
        assert_eq!((before.figure.value, before.others[0].value), (0.5, 0.0));
        assert!((before.loss - 2.0f64.ln()).abs() < 1e-12);
        // The step from there is that of raising β/2 · [log π(chosen) − log π(rejected)], whatever the smoothing takes off it.
        let all: Vec<&Pair> = pairs.iter().collect();
        let swapped: Vec<Pair> = pairs
            .iter()
            .map(|pair| Pair { chosen: pair.rejected.clone(), rejected: pair.chosen.clone(), reference_margin: -pair.reference_margin })
            .collect();
        let swapped: Vec<&Pair> = swapped.iter().collect();
        let of = |pairs: &[&Pair], label_smoothing| {
            let config = PreferenceConfig { label_smoothing, ..config.clone() };
            gradients(&model, &preference::loss(&model, pairs, &config, None))
        };
        let (straight, smooth, other_way) = (of(&all, 0.0), of(&all, 0.25), of(&swapped, 0.0));
        for (path, gradient) in &straight {
            let largest = gradient.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            for (index, value) in gradient.iter().enumerate() {
                assert!((smooth[path][index] - 0.5 * value).abs() <= 1e-4 * largest, "{path}: smoothed by a quarter, half the step");
                assert!((other_way[path][index] + value).abs() <= 1e-4 * largest, "{path}: the other way round, the other way");
            }
        }
    }
}
