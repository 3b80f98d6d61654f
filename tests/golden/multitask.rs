//! Several tasks on one trunk against PyTorch: losses and every gradient of a mixed batch, of its tasks one by one, and projected; and the
//! weights that are learnt.

use crate::support::{
    COMPOSED, Golden, Row, SIMPLE, as_expected, assert_close, assert_gradients, assert_same_tensors, devices, fixture,
    gradients as gradients_of, loss_sum, packed, rows, values,
};
use burn::tensor::{Device, Tensor};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::Packed;
use kiln_core::parameters::parameters;
use kiln_core::token_classifier::TokenClassifier;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::sequences::Labelled;
use kiln_data::words::Tagged;
use kiln_kernels::random::Key;
use kiln_multitask::data::{Batch, Part, Targets, TaskRows};
use kiln_multitask::gradients::{Gradients, gradients, passes};
use kiln_multitask::model::MultitaskModel;
use kiln_multitask::objective::famo::Famo;
use kiln_multitask::objective::pcgrad::cosine;
use kiln_multitask::objective::uncertainty::Uncertainty;
use kiln_multitask::weighting::Weights;
use std::collections::BTreeMap;

const TASKS: [&str; 3] = ["mood", "score", "tags"];
/// Every row of the batch: its task, and its place among the task's rows.
const PICKS: [(usize, usize); 7] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)];

fn load(device: &Device) -> (Golden, MultitaskModel, [TaskRows; 3]) {
    let golden = Golden::open(&fixture("multitask").join("golden.safetensors"));
    let model = MultitaskModel::load(&fixture("multitask").join("model"), device).expect("the model loads");
    let rows = rows(&golden, "");
    fn labelled<L>(rows: &[Row], labels: impl Iterator<Item = L>) -> Vec<Labelled<L>> {
        let row = |(row, label): (&Row, L)| Labelled { ids: row.ids.clone(), token_types: row.token_types.clone(), label };
        rows.iter().zip(labels).map(row).collect()
    }
    let moods = labelled(&rows[..3], golden.get("mood").values.iter().map(|&class| class as u32));
    let scores = labelled(&rows[3..5], golden.get("score").values.iter().map(|&score| score as f32));
    let tags = golden.get("tags");
    let sentence = |(row, tags): (&Row, &[f64])| {
        let tagged = tags.iter().enumerate().filter(|(_, tag)| **tag >= 0.0).map(|(token, &tag)| (Some(token), tag as u32));
        let (firsts, tags) = tagged.unzip();
        Tagged { ids: row.ids.clone(), firsts, tags }
    };
    let sentences: Vec<Tagged> = rows[5..].iter().zip(tags.values.chunks_exact(tags.shape[1])).map(sentence).collect();
    (golden, model, [TaskRows::Classes(moods.into()), TaskRows::Numbers(scores.into()), TaskRows::Sentences(sentences.into())])
}

/// Gradients, divided by what they are summed over, under the names of the fixture.
fn named(model: &MultitaskModel, found: Gradients) -> BTreeMap<String, Vec<f32>> {
    let mut by_path = found.by_path;
    let name = |path: &str| tensor_name(model, path).trim_start_matches("bert.").to_owned();
    let mut gradient = |path: String| Some((name(&path), values(by_path.remove(&path)? / found.n_items as f32)));
    parameters(model).into_iter().filter_map(|parameter| gradient(parameter.path)).collect()
}

/// The key of tokens to hide, where no task hides any.
fn none_hidden() -> Key {
    Key::new(0)
}

/// The name of a parameter: Hugging Face's, or that of its task's head.
fn tensor_name(model: &MultitaskModel, path: &str) -> String {
    match path.strip_prefix("heads.").and_then(|rest| rest.split_once('.')) {
        Some((task, leaf)) => format!("heads.{}.{leaf}", model.tasks()[task.parse::<usize>().expect("a number")].name),
        None => model.config().family.tensor_name(path),
    }
}

#[test]
fn a_mixed_batch_is_its_tasks_one_by_one() {
    for device in devices() {
        let (golden, model, rows) = load(&device.autodiff());
        let rows = [&rows[0], &rows[1], &rows[2]];
        let losses: Vec<f64> = TASKS.iter().map(|task| golden.get(&format!("loss.{task}")).values[0]).collect();
        let weights = golden.get("weights").values.clone();
        // Σ over the tasks of weight x share of the rows x gradient.
        let mut expected: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for ((task, weight), share) in TASKS.iter().zip(&weights).zip([3.0 / 7.0, 2.0 / 7.0, 2.0 / 7.0]) {
            for (name, gradient) in golden.with_prefix(&format!("grad.{task}.")) {
                let sum = expected.entry(name).or_insert_with(|| vec![0.0; gradient.values.len()]);
                sum.iter_mut().zip(gradient.values).for_each(|(sum, value)| *sum += (weight * share * value) as f32);
            }
        }
        for separate in [false, true] {
            let passes = passes(&rows, &PICKS, false, none_hidden(), None, separate).expect("rows");
            assert_eq!(passes.len(), if separate { 3 } else { 1 });
            let found = gradients(&model, &passes, &Weights::Fixed(weights.clone()), 3, None);
            let found_losses: Vec<f32> = found.losses.iter().map(|loss| loss.expect("rows of every task") as f32).collect();
            assert_close("losses", &found_losses, &losses, SIMPLE);
            assert_close("loss", &[found.loss as f32], &golden.get("loss").values, SIMPLE);
            assert_eq!(found.products.is_some(), separate);
            assert_gradients(if separate { "one by one" } else { "mixed" }, &named(&model, found), &as_expected(&expected));
        }
        // Each task alone, whose weight is then the only one.
        for (task, name) in TASKS.iter().enumerate() {
            let picks: Vec<(usize, usize)> = PICKS.into_iter().filter(|pick| pick.0 == task).collect();
            let passes = passes(&rows, &picks, false, none_hidden(), None, true).expect("rows");
            let found = gradients(&model, &passes, &Weights::Fixed(vec![1.0; 3]), 3, None);
            assert_gradients(name, &named(&model, found), &golden.with_prefix(&format!("grad.{name}.")));
        }
    }
}

/// Two tasks, whatever the order: the expected gradients are of a mood that weighs 3/5 and a score that weighs 2/5, as their rows do.
#[test]
fn conflicting_gradients_are_projected() {
    for device in devices() {
        let (golden, model, rows) = load(&device.autodiff());
        let passes = passes(&[&rows[0], &rows[1]], &PICKS[..5], false, none_hidden(), None, true).expect("rows");
        let found = gradients(&model, &passes, &Weights::Fixed(vec![1.0; 3]), 3, Some(Key::new(0)));
        let (tasks, products) = found.products.clone().expect("gradients were compared");
        assert_eq!(tasks, [0, 1]);
        assert_close("cosine", &[cosine(&products, 0, 1) as f32], &golden.get("cosine").values, SIMPLE);
        assert!(golden.get("cosine").values[0] < -0.01, "they conflict");
        assert_gradients("pcgrad", &named(&model, found), &golden.with_prefix("grad.pcgrad."));
    }
}

#[test]
fn weights_are_learnt() {
    let golden = Golden::open(&fixture("multitask").join("golden.safetensors"));
    let steps = |name: &str| -> Vec<Vec<Option<f64>>> {
        golden.get(name).values.chunks_exact(3).map(|losses| losses.iter().copied().map(Some).collect()).collect()
    };
    let floats = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<_>>();
    for device in devices() {
        let (mut famo, mut uncertainty) = (Famo::new(3, 0.025, &device), Uncertainty::new(&[false, true, false], 0.025, &device));
        for (index, (before, after)) in steps("before").iter().zip(steps("after")).enumerate() {
            let expected = |name: &str| golden.get(name).values[3 * index..][..3].to_vec();
            assert_close("weights of FAMO", &floats(famo.weights(before)), &expected("famo.weights"), SIMPLE);
            famo.learn(before, &after);
            assert_close("shares of FAMO", &floats(famo.shares()), &expected("famo.shares"), SIMPLE);
            uncertainty.learn(before);
            assert_close("weights of uncertainty", &floats(uncertainty.weights()), &expected("uncertainty.weights"), SIMPLE);
        }
    }
}

/// The folder of a trunk and its heads is read back as it was, and so is each head with the trunk alone.
#[test]
fn heads_are_saved_together_and_apart() {
    for device in devices() {
        let (_, model, rows) = load(&device);
        let tokenizer = Tokenizer::train(["a b c"].into_iter(), 300).expect("a tokenizer");
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        model.save(&tokenizer, &path("model")).expect("saved");
        for file in ["model.safetensors", "heads.safetensors"] {
            assert_same_tensors(&path("model").join(file), &fixture("multitask/model").join(file));
        }
        let again = MultitaskModel::load(&path("model"), &device).expect("loaded");
        assert_eq!((again.tasks(), again.task("tags")), (model.tasks(), Some(2)));
        let batch = Batch::new(&[&rows[0], &rows[1], &rows[2]], &PICKS, false, none_hidden()).expect("rows");
        let wanted: Vec<_> = batch.parts.iter().map(|part| &part.tokens).collect();
        let outputs = |model: &MultitaskModel| -> Vec<Tensor<2>> {
            let hidden = model.hidden(&batch.packed, &wanted, None);
            hidden.into_iter().enumerate().map(|(task, hidden)| model.outputs(task, hidden, None)).collect()
        };
        let (found, expected) = (outputs(&again), outputs(&model));
        for (task, name) in TASKS.iter().enumerate() {
            assert_eq!(values(found[task].clone()), values(expected[task].clone()), "{name}");
            model.export(task, &tokenizer, &path(name)).expect("exported");
        }
        // The task's rows alone, through what other programs load too.
        let packed = |rows: &TaskRows| -> Packed {
            let picks: Vec<_> = (0..rows.len()).map(|row| (0, row)).collect();
            Batch::new(&[rows], &picks, false, none_hidden()).expect("rows").packed
        };
        for task in [0, 1] {
            let (classifier, fit) = SequenceClassifier::load(&path(TASKS[task]), &device).expect("a classifier");
            assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
            let expected: Vec<f64> = values(expected[task].clone()).into_iter().map(f64::from).collect();
            assert_close(TASKS[task], &values(classifier.forward(&packed(&rows[task]), None)), &expected, COMPOSED);
        }
        let (tagger, fit) = TokenClassifier::load(&path("tags"), &device).expect("a token classifier");
        assert!(fit.new.is_empty() && fit.unused.is_empty(), "{fit:?}");
        let own = Batch::new(&[&rows[2]], &[(0, 0), (0, 1)], false, none_hidden()).expect("rows");
        let expected: Vec<f64> = values(expected[2].clone()).into_iter().map(f64::from).collect();
        assert_close("tags", &values(tagger.forward(&own.packed, &own.parts[0].tokens, None)), &expected, COMPOSED);
    }
}

/// Hidden tokens beside tags: the losses, every gradient, and the folders written.
#[test]
fn hidden_tokens_share_a_batch() {
    let folder = fixture("multitask_masked");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let rows = rows(&golden, "");
    let packed = packed(&rows);
    let n_texts = 3;
    // What is labelled in `name` of the rows of a task.
    let part = |task: usize, name: &str, of_task: std::ops::Range<usize>| {
        let labels = golden.get(name);
        let labels: Vec<&[f64]> = labels.values.chunks_exact(labels.shape[1]).collect();
        let ranges: Vec<_> = packed.segments.ranges().collect();
        let labelled = of_task.clone().flat_map(|row| ranges[row].clone().zip(labels[row])).filter(|(_, label)| **label >= 0.0);
        let (tokens, targets): (Vec<u32>, Vec<u32>) = labelled.map(|(token, &label)| (token as u32, label as u32)).unzip();
        Part { task, n_rows: of_task.len(), tokens: tokens.into(), targets: Targets::Classes(targets.into()) }
    };
    let parts = vec![part(0, "hidden", 0..n_texts), part(1, "tags", n_texts..rows.len())];
    assert_eq!(parts.iter().map(Part::n_items).collect::<Vec<_>>(), [5, 9]);
    let batch = Batch { packed: packed.clone(), parts };
    for device in devices() {
        let model = MultitaskModel::load(&folder.join("model"), &device.clone().autodiff()).expect("the model loads");
        let sums = model.losses(&batch, None);
        let means: Vec<Tensor<1>> = sums.into_iter().zip(&batch.parts).map(|(sum, part)| sum / part.n_items() as f32).collect();
        let share = n_texts as f32 / rows.len() as f32;
        for (mean, name) in means.iter().zip(["hidden", "tags"]) {
            assert_close(name, &values(mean.clone()), &golden.get(&format!("loss.{name}")).values, SIMPLE);
        }
        let loss = means[0].clone() * share + means[1].clone() * (1.0 - share);
        assert_close("loss", &values(loss.clone()), &golden.get("loss").values, SIMPLE);
        let found = gradients_of(&model, &loss).into_iter().map(|(path, gradient)| (tensor_name(&model, &path), gradient)).collect();
        assert_gradients("hidden tokens and tags", &found, &golden.with_prefix("grad."));

        // The folder, and the head of tokens as transformers saved it.
        let tokenizer = Tokenizer::train(["a b c"].into_iter(), 300).expect("a tokenizer");
        let written = tempfile::tempdir().expect("a folder");
        let path = |name: &str| written.path().join(name);
        model.save(&tokenizer, &path("model")).expect("saved");
        model.export(0, &tokenizer, &path("hidden")).expect("exported");
        for (found, file) in [("model", "heads.safetensors"), ("model", "model.safetensors"), ("hidden", "model.safetensors")] {
            assert_same_tensors(&path(found).join(file), &folder.join("model").join(file));
        }
        let (alone, fit) = LanguageModel::load(&path("hidden"), &device).expect("a language model");
        assert!(fit.new.is_empty() && fit.unused.is_empty() && alone.config().class_name() == Some("BertForMaskedLM"), "{fit:?}");
        let mut texts = rows[..n_texts].to_vec();
        let labels = golden.get("hidden");
        for (row, labels) in texts.iter_mut().zip(labels.values.chunks_exact(labels.shape[1])) {
            row.labels = labels[..row.ids.len()].iter().map(|&label| (label >= 0.0).then_some(label as u32)).collect();
        }
        let (loss, n_tokens) = loss_sum(&alone, &texts);
        assert_close("alone", &values(loss / n_tokens as f32), &golden.get("loss.hidden").values, SIMPLE);
    }
}
