//! The first losses of two whole training runs against PyTorch's: a decoder from scratch, and a published encoder under transformers'
//! Trainer. Both sides make weights, ids and row order from the same formulas.

use crate::support::{COMPOSED, Golden, SIMPLE, assert_close, bits, devices, fixture, shared, uniform, values};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use kiln_core::classifier::SequenceClassifier;
use kiln_core::config::ModelConfig;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::packed::{Packed, Supervised};
use kiln_core::parameters::{Change, change_parameters};
use kiln_core::tokenizer::Tokenizer;
use kiln_data::split::order;
use kiln_kernels::random::Key;
use kiln_sft::objective::r_drop::Regularization;
use kiln_sft::objective::{classification, next_token};
use kiln_train::schedule::Schedule;
use kiln_train::updater::{UpdateConfig, Updater};
use std::time::Instant;

/// Fills the parameters that `bound` gives one with uniform values from minus the bound to it, as `formula.py`.
struct Formula(fn(&str) -> Option<f64>);

impl Change for Formula {
    fn change<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(bound) = self.0(path) else { return param };
        let tensor = param.val();
        let shape = tensor.dims();
        let values = uniform(path, shape.iter().product(), bound);
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &tensor.device()))
    }
}

/// As `dense_step.py` and `classify.py`: PyTorch's own bounds, uniform embeddings of variance 1, and a small head.
fn bound(path: &str) -> Option<f64> {
    match path {
        "classifier.weight" => Some(0.02 * 3f64.sqrt()),
        _ if path.contains("norm") => None,
        _ if path.contains("embeddings") => Some(3f64.sqrt()),
        _ if path.contains("feed_forward.down") => Some(1536f64.sqrt().recip()),
        _ => Some(384f64.sqrt().recip()),
    }
}

/// Ten updates; `loss` gives a step's summed loss and over how many items it is summed.
fn check<M: Model>(name: &str, mut model: M, mut updater: Updater, loss: impl Fn(&M, usize) -> (Tensor<1>, usize)) {
    let golden = Golden::open(&fixture(name).join("golden.safetensors"));
    let expected = |column: &str| &golden.get(column).values;
    let n_steps = expected("losses").len();
    let untrained = model.clone();
    let (mut losses, mut norms, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    for step in 0..n_steps {
        let (sum, n_items) = loss(&model, step);
        updater.add(&model, sum.backward(), n_items as f64);
        let stats;
        (model, stats) = updater.step(model, f64::from(values(sum.clone())[0])).expect("a finite update");
        losses.push(values(sum)[0] / n_items as f32);
        norms.push(stats.gradient_norm as f32);
        rates.push(stats.learning_rate as f32);
    }
    let seconds = start.elapsed().as_secs_f64() / n_steps as f64;
    let differences = losses.iter().zip(expected("losses")).map(|(found, expected)| (f64::from(*found) - expected).abs());
    println!("{name}: largest difference of a loss {:.1e}, {seconds:.3} s per step", differences.fold(0.0, f64::max));
    assert_close("losses", &losses, expected("losses"), SIMPLE);
    assert_close("gradient norms", &norms, expected("gradient_norms"), COMPOSED);
    assert_close("learning rates", &rates, expected("learning_rates"), 1e-9);
    let (sum, n_items) = loss(&untrained, n_steps - 1);
    let without = f64::from(values(sum)[0]) / n_items as f64;
    assert!((without - expected("losses")[n_steps - 1]).abs() > 10.0 * COMPOSED, "without updates the last loss is another: {without}");
}

#[test]
fn of_a_decoder_from_scratch() {
    const ROWS: usize = 8;
    const TOKENS: usize = 128;
    let folder = fixture("dense_step");
    let config = ModelConfig::from_folder(&folder).expect("a configuration");
    if let Some(shape) = shared("peers/shapes/gpt2-17m") {
        assert_eq!(ModelConfig::from_folder(&shape).expect("a configuration").raw, config.raw);
    }
    let update = UpdateConfig {
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        no_decay: Vec::new(),
        max_gradient_norm: 0.0,
        ..UpdateConfig::default()
    };
    for device in devices() {
        let model = LanguageModel::new(config.clone(), &device.autodiff(), Key::new(0)).expect("a model");
        let model = change_parameters(model, &mut Formula(bound));
        check("dense_step", model, Updater::new(update.clone(), 10), |model, step| {
            let vocab = config.vocab_size as u64;
            let ids: Vec<u32> = bits(&format!("ids.{step}")).take(ROWS * (TOKENS + 1)).map(|bits| (bits % vocab) as u32).collect();
            let rows = || ids.chunks_exact(TOKENS + 1);
            let supervised = Supervised {
                rows: (0..(ROWS * TOKENS) as u32).collect(),
                targets: rows().flat_map(|row| row[1..].to_vec()).collect(),
                weights: vec![1.0; ROWS * TOKENS].into(),
            };
            (next_token::loss(model, &Packed::new(rows().map(|row| &row[..TOKENS])), &supervised, 0.0, None), ROWS * TOKENS)
        });
    }
}

#[test]
fn of_a_published_encoder() {
    const ROWS: usize = 32;
    let (Some(folder), Some(data)) = (shared("models/all-MiniLM-L6-v2"), shared("data/sst2/train.tsv")) else { return };
    let tokenizer = Tokenizer::from_folder(&folder).expect("a tokenizer");
    let text = std::fs::read_to_string(&data).expect("rows");
    let lines: Vec<(&str, &str)> = text.split('\n').filter_map(|line| line.split_once('\t')).collect();
    let chosen: Vec<(&str, &str)> = order(lines.len(), 0).into_iter().take(10 * ROWS).map(|index| lines[index]).collect();
    let ids = tokenizer.encode_all(chosen.iter().map(|(text, _)| (*text).to_owned()).collect()).expect("ids");
    let labels: Vec<u32> = chosen.iter().map(|(_, label)| label.parse().expect("0 or 1")).collect();
    let update = UpdateConfig { weight_decay: 0.0, ..UpdateConfig::default() };
    let names = ["0", "1"].map(str::to_owned);
    for device in devices() {
        let (model, _) = SequenceClassifier::from_pretrained(&folder, &names, &[], &device.autodiff(), Key::new(0)).expect("a model");
        let head = |path: &str| bound(path).filter(|_| path == "classifier.weight");
        let model = change_parameters(model, &mut Formula(head));
        check("classify", model, Updater::new(update.clone(), 60), |model, step| {
            let rows = step * ROWS..(step + 1) * ROWS;
            let batch = Packed::new(ids[rows.clone()].iter().map(Vec::as_slice));
            (classification::loss(model, &batch, &labels[rows].into(), Regularization::default(), |_| None, None), ROWS)
        });
    }
}
