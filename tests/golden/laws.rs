//! Laws that need no reference: packing, order, fresh adapters, the cache, batched generation and frozen parameters.

use crate::classifiers::mean_loss;
use crate::support::{
    COMPOSED, Golden, Row, SIMPLE, as_expected, assert_close, assert_gradients, devices, fixture, gradients, loss_sum, numbers, packed,
    rows, supervised, values,
};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_core::adapter::{self, LoraConfig};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::generate::{Sampling, generate};
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::{Branched, Packed};
use kiln_core::parameters::parameters;
use kiln_kernels::random::Key;
use kiln_kernels::rows::take_rows;
use kiln_train::updater::{UpdateConfig, Updater};
use std::collections::BTreeMap;
use std::sync::Arc;

fn language_model(device: &Device) -> (LanguageModel, Vec<Row>) {
    let folder = fixture("lora");
    let (model, _) = LanguageModel::load(&folder, device).expect("the model loads");
    (model, rows(&Golden::open(&folder.join("golden.safetensors")), ""))
}

fn classifier(device: &Device) -> (SequenceClassifier, Vec<Row>, Vec<u32>) {
    let folder = fixture("bert_classifier");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let (model, _) = SequenceClassifier::load(&folder, device).expect("the classifier loads");
    (model, rows(&golden, ""), golden.classes())
}

/// A value and the gradients of its parameters.
type Outcome = (f32, BTreeMap<String, Vec<f32>>);

fn outcome(model: &impl Model, loss: Tensor<1>) -> Outcome {
    let gradients = gradients(model, &loss);
    (values(loss)[0], gradients)
}

fn add(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let join = |(total, mut sums): Outcome, (value, gradients): Outcome| {
        for (path, gradient) in gradients {
            let sum = sums.remove(&path).unwrap_or_else(|| vec![0.0; gradient.len()]);
            sums.insert(path, sum.iter().zip(&gradient).map(|(sum, value)| sum + value).collect());
        }
        (total + value, sums)
    };
    outcomes.into_iter().fold((0.0, BTreeMap::new()), join)
}

fn assert_same(what: &str, found: &Outcome, expected: &Outcome) {
    assert_close(what, &[found.0], &[expected.0.into()], SIMPLE);
    assert_gradients(what, &found.1, &as_expected(&expected.1));
}

#[test]
fn some_rows_are_those_rows_of_all() {
    // One is asked for twice; together the two sets are not all rows.
    let some: Arc<[u32]> = Arc::from([4, 0, 4, 3]);
    let weigh = |hidden: Tensor<2>| {
        let shape = hidden.dims();
        let weights = Tensor::<2>::from_data(TensorData::new(Key::new(5).normals(shape[0] * shape[1], 0.1), shape), &hidden.device());
        (hidden * weights).sum()
    };
    for device in devices() {
        let device = device.autodiff();
        let (model, rows) = language_model(&device);
        let batch = packed(&rows);
        let expected = outcome(&model, weigh(take_rows(model.trunk.forward(&batch, None), &some)));
        assert_same("a decoder", &outcome(&model, weigh(model.trunk.forward_rows(&batch, &some, None))), &expected);
        let (model, rows, _) = classifier(&device);
        let batch = packed(&rows);
        let expected = outcome(&model, weigh(take_rows(model.trunk.forward(&batch, None), &some)));
        assert_same("an encoder", &outcome(&model, weigh(model.trunk.forward_rows(&batch, &some, None))), &expected);
    }
}

#[test]
fn packed_sequences_do_not_see_each_other() {
    for device in devices() {
        let (model, rows) = language_model(&device.clone().autodiff());
        let of = |rows: &[Row]| outcome(&model, loss_sum(&model, rows).0);
        assert_same("decoder", &of(&rows), &add(rows.chunks(1).map(of)));

        let (model, rows, classes) = classifier(&device.autodiff());
        let of = |rows: &[Row], classes: &[u32]| {
            let loss = mean_loss(model.forward(&packed(rows), None), classes) * classes.len() as f32;
            outcome(&model, loss)
        };
        assert_same("encoder", &of(&rows, &classes), &add(rows.chunks(1).zip(classes.chunks(1)).map(|(row, class)| of(row, class))));
    }
}

/// Value and gradient of sequences with a beginning in common are those of each sequence by itself.
#[test]
fn a_shared_beginning_changes_nothing() {
    let ends: [&[u32]; 4] = [&[3, 9, 4, 12, 7], &[8], &[], &[11, 5, 6]];
    for device in devices() {
        let (model, rows) = language_model(&device.autodiff());
        let [first, second] = [&rows[0].ids, &rows[1].ids].map(Vec::as_slice);
        let weigh = |hidden: Tensor<2>| {
            let shape = hidden.dims();
            let weights = Tensor::<2>::from_data(TensorData::new(Key::new(5).normals(shape[0] * shape[1], 0.1), shape), &hidden.device());
            (hidden * weights).sum()
        };
        // From the last token of each beginning on: what predicts the ends, and what follows them.
        let groups = [(first, ends.to_vec()), (second, vec![ends[3]])];
        let whole: Vec<(usize, Vec<u32>)> =
            groups.iter().flat_map(|(start, ends)| ends.iter().map(|end| (start.len() - 1, [*start, end].concat()))).collect();
        let alone = Packed::new(whole.iter().map(|(_, ids)| ids.as_slice()));
        let wanted = alone.segments.ranges().zip(&whole).flat_map(|(range, (skipped, _))| range.start + skipped..range.end);
        let wanted: Arc<[u32]> = wanted.map(|row| row as u32).collect();
        let expected = outcome(&model, weigh(model.trunk.forward_rows(&alone, &wanted, None)));

        let branched = Branched::new(groups.clone());
        assert_eq!(branched.packed.ids.len(), first.len() + 9 + second.len() + 3);
        let ranges: Vec<_> = branched.packed.segments.ranges().collect();
        let of_branch = |branch: usize| std::iter::once(branched.prefixes[branch].end - 1).chain(ranges[branch].clone());
        let wanted: Arc<[u32]> = [1, 2, 3, 4, 6].into_iter().flat_map(of_branch).map(|row| row as u32).collect();
        assert_same("branches", &outcome(&model, weigh(model.trunk.forward_branches(&branched, &wanted, None))), &expected);
    }
}

#[test]
fn the_order_of_sequences_does_not_matter() {
    for device in devices() {
        let (model, rows) = language_model(&device.clone().autodiff());
        let reversed: Vec<Row> = rows.iter().rev().cloned().collect();
        let of = |rows: &[Row]| outcome(&model, loss_sum(&model, rows).0);
        assert_same("decoder", &of(&reversed), &of(&rows));

        let (model, rows, _) = classifier(&device);
        let reversed: Vec<Row> = rows.iter().rev().cloned().collect();
        let logits = |rows: &[Row]| values(model.forward(&packed(rows), None));
        let expected: Vec<f64> = logits(&rows).rchunks_exact(3).flatten().map(|&logit| logit.into()).collect();
        assert_close("encoder", &logits(&reversed), &expected, SIMPLE);
    }
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    for device in devices() {
        let (model, rows) = language_model(&device);
        let logits = |model: &LanguageModel| values(model.logits(model.trunk.forward(&packed(&rows), None)));
        let adapted = adapter::attach(model.clone(), &LoraConfig::default(), &device, Key::new(1)).expect("an adapter");
        assert_eq!(logits(&adapted), logits(&model));
    }
}

/// With gradient checkpointing the masks of a block are drawn a second time.
#[test]
fn dropout_of_an_adapter_repeats_and_acts_in_training_only() {
    for device in devices() {
        let device = device.autodiff();
        let (model, rows) = language_model(&device);
        let supervised = supervised(&rows, true);
        for use_dora in [false, true] {
            let config = LoraConfig { rank: 3, alpha: 6.0, dropout: 0.5, use_dora, ..LoraConfig::default() };
            let mut model = adapter::attach(model.clone(), &config, &device, Key::new(1)).expect("an adapter");
            let of = |model: &LanguageModel, key: Option<u64>| outcome(model, model.loss(&packed(&rows), &supervised, key.map(Key::new)));
            let [without, one, again, other] = [None, Some(1), Some(1), Some(2)].map(|key| of(&model, key));
            assert_eq!(one, again);
            assert!(one.1 != other.1 && one.1 != without.1);
            model.trunk_mut().set_gradient_checkpointing(true).expect("host memory");
            assert_eq!(of(&model, Some(1)), one, "computed again, DoRA {use_dora}");
        }
    }
}

#[test]
fn the_cache_changes_nothing() {
    for device in devices() {
        let (model, rows) = language_model(&device);
        for row in &rows {
            let sampling = Sampling { max_new_tokens: 20, ..Sampling::default() };
            let new = generate(&model, std::slice::from_ref(&row.ids), &sampling, &[], Key::new(0)).expect("a continuation");
            assert_eq!(new[0].len(), 20);
            let mut ids = row.ids.clone();
            for &token in &new[0] {
                let logits = values(model.logits(model.trunk.forward(&Packed::new([ids.as_slice()]), None)));
                let last = &logits[logits.len() - model.config().vocab_size..];
                let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("a best token");
                assert_eq!(token as usize, best, "after {ids:?}");
                ids.push(token);
            }
        }
    }
}

#[test]
fn a_batch_generates_what_its_prompts_do_alone() {
    for device in devices() {
        let (model, rows) = language_model(&device);
        let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.ids.clone()).collect();
        let greedy = Sampling { max_new_tokens: 16, ..Sampling::default() };
        let continued = |prompts: &[Vec<u32>], sampling: &Sampling, end_ids: &[u32]| {
            generate(&model, prompts, sampling, end_ids, Key::new(7)).expect("continuations")
        };
        let together = continued(&prompts, &greedy, &[]);
        // A token that one prompt meets early on ends it while the others go on.
        let end_id = together[0][2];
        for end_ids in [vec![], vec![end_id]] {
            let alone: Vec<Vec<u32>> =
                prompts.iter().flat_map(|prompt| continued(std::slice::from_ref(prompt), &greedy, &end_ids)).collect();
            let together = continued(&prompts, &greedy, &end_ids);
            assert_eq!(together, alone);
            let ended = |new: &Vec<u32>| new.len() < 16;
            assert_eq!(together.iter().any(ended), !end_ids.is_empty());
        }
        let sampled = Sampling { temperature: 1.0, ..greedy };
        assert_eq!(continued(&prompts, &sampled, &[])[0], continued(&prompts[..1], &sampled, &[])[0]);
    }
}

#[test]
fn generation_ends_at_the_last_position() {
    for device in devices() {
        let (model, rows) = language_model(&device);
        let sampling = Sampling { max_new_tokens: 1000, ..Sampling::default() };
        let prompts: Vec<Vec<u32>> = rows.iter().map(|row| row.ids.clone()).collect();
        for (prompt, new) in prompts.iter().zip(generate(&model, &prompts, &sampling, &[], Key::new(0)).expect("continuations")) {
            assert_eq!(prompt.len() + new.len(), model.config().max_positions);
        }
    }
}

#[test]
fn frozen_parameters_stay_as_they_are() {
    let bits = |model: &SequenceClassifier| -> BTreeMap<String, (bool, Vec<u32>)> {
        let of = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
        parameters(model)
            .into_iter()
            .map(|parameter| (parameter.path.clone(), (parameter.trainable, of(numbers(parameter.data())))))
            .collect()
    };
    for device in devices() {
        let device = device.autodiff();
        let (model, rows, classes) = classifier(&device);
        let config = LoraConfig { rank: 3, alpha: 6.0, ..LoraConfig::default() };
        let mut model = adapter::attach(model, &config, &device, Key::new(2)).expect("an adapter");
        let before = bits(&model);
        let mut updater = Updater::new(UpdateConfig { learning_rate: 1e-2, ..UpdateConfig::default() }, 4);
        let mut losses = Vec::new();
        for _ in 0..3 {
            let loss = mean_loss(model.forward(&packed(&rows), None), &classes);
            updater.add(&model, loss.backward(), 1.0);
            (model, _) = updater.step(model, f64::from(values(loss.clone())[0])).expect("a finite update");
            losses.push(values(loss)[0]);
        }
        assert!(losses[2] < losses[0] - COMPOSED as f32, "the updates lower the loss: {losses:?}");
        for (path, (trainable, after)) in bits(&model) {
            let (was_trainable, ref before) = before[&path];
            assert_eq!(trainable, was_trainable, "{path}");
            assert_eq!(trainable, path.contains(".adapter.") || path.starts_with("classifier."), "{path}");
            assert_eq!(trainable, after != *before, "{path} changes if and only if it trains");
        }
    }
}
