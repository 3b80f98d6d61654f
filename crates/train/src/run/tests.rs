//! Folders are written and read back, and runs go on.

use super::*;
use crate::guard::{Action, GuardConfig};
use crate::schedule::Schedule;
use crate::updater::UpdateConfig;
use burn::module::Param;
use burn::tensor::Tensor;
use serde_json::json;
use std::sync::LazyLock;

static FLEX: LazyLock<Device> = LazyLock::new(|| kiln_core::device::by_name("flex").unwrap());
const EVERY_STEP: CheckpointConfig = CheckpointConfig { every_steps: 1, every_minutes: 0.0, keep: 2 };

fn about(method: &str, n_steps: usize) -> About<'_> {
    About { method, n_steps, checkpoint: &EVERY_STEP, seed: 7, device: &FLEX, models: Vec::new(), data: Vec::new() }
}

#[test]
fn a_folder_is_written_and_read_back() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("nested/run");
    let config = json!({"seed": 7, "train": {"learning_rate": 5e-5}});
    let mut run = Run::open(&Start::new(&folder), &config, &about("banking <77>", 2)).unwrap();
    assert_eq!(run.folder(), folder);
    assert!(run.is_due(1) && !run.is_due(2), "after the last step the run itself is saved");
    run.log(1, &[("loss", 0.75), ("learning_rate", 5e-5), ("gradient_norm", 1.5)]).unwrap();
    let early = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert!(early.starts_with(r#"{"step":1,"seconds":"#), "{early}");
    assert!(early.ends_with(",\"loss\":0.75,\"learning_rate\":0.00005,\"gradient_norm\":1.5}\n"), "{early}");
    run.log(2, &[("loss", f64::NAN), ("learning_rate", 2.5e-5)]).unwrap();
    let elapsed_seconds = run.elapsed_seconds();
    run.finish(&json!({"accuracy": 0.5})).unwrap();

    let lines = read_metrics(&folder.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [1, 2]);
    assert!(lines[0].seconds <= lines[1].seconds && lines[1].seconds <= elapsed_seconds + 1e-3);
    assert_eq!(lines[1].values["loss"], Value::Null);
    let results: Value = kiln_core::files::read_json(&folder.join("results.json")).unwrap();
    assert_eq!(results, json!({"accuracy": 0.5}));
    let read: Value = toml::from_str(&std::fs::read_to_string(folder.join("config.toml")).unwrap()).unwrap();
    assert_eq!(read, config);
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.toml", "manifest.json", "metrics.jsonl", "report.html", "results.json"]);
}

#[test]
fn a_used_folder_is_refused() {
    for file in ["results.json", "metrics.jsonl", "manifest.json", "model"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), "kept").unwrap();
        let error = Run::open(&Start::new(folder.path()), &json!({}), &about("again", 1)).unwrap_err();
        assert!(matches!(&error, Error::Config { place, .. } if place == "--out"), "{error}");
        assert_eq!(error.to_string(), format!("--out: {} already holds {file}: choose another --out", folder.path().display()));
        assert_eq!(std::fs::read_to_string(folder.path().join(file)).unwrap(), "kept");
        assert!(!folder.path().join("config.toml").exists());
    }
}

#[test]
fn a_cut_last_line_is_left_out_and_a_bad_one_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"step\":1,\"seconds\":0.5,\"loss\":2.0}\n{\"step\":2,\"sec").unwrap();
    let lines = read_metrics(file.path()).unwrap();
    assert_eq!(lines, [Line { step: 1, seconds: 0.5, values: Map::from_iter([("loss".into(), json!(2.0))]) }]);
    std::fs::write(file.path(), "{\"step\":1,\"seconds\":0.5}\n{\"step\":-2}\n").unwrap();
    assert!(matches!(read_metrics(file.path()), Err(Error::Data { line: Some(2), .. })));
}

/// One weight that moves, one that does not.
#[derive(Module, Debug)]
struct Two {
    moving: Param<Tensor<1>>,
    frozen: Param<Tensor<2>>,
}

impl Two {
    fn new() -> Self {
        let device = FLEX.clone().autodiff();
        let frozen = Param::from_tensor(Tensor::from_floats([[1.0, 2.0]], &device));
        Self { moving: Param::from_tensor(Tensor::from_floats([0.5, -1.0, 3.0], &device)), frozen: frozen.no_grad() }
    }

    fn loss(&self, step: usize) -> Tensor<1> {
        (self.moving.val() * (step as f64 + 0.3)).powi_scalar(2).sum()
    }

    fn values(&self) -> Vec<f32> {
        self.moving.val().into_data().try_to_vec().unwrap()
    }
}

/// Not finite, not short in decimal, and one whose last bit a careless reader of decimals loses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    floats: Vec<f64>,
    stage: Option<usize>,
    nested: BTreeMap<String, Vec<(f64, u64)>>,
}

/// Steps that are not taken leave the weights as they were, or take those of the last checkpoint by steps back, and what follows is as if
/// they had never been.
#[test]
fn a_step_with_a_bad_loss_leaves_no_trace() {
    const EVERY_FOUR: CheckpointConfig = CheckpointConfig { every_steps: 4, every_minutes: 0.0, keep: 1 };
    let learn = |action: Action, bad: &[usize], steps: &[usize], config: &CheckpointConfig| {
        let folder = tempfile::tempdir().unwrap();
        let about = About { checkpoint: config, ..about("two", 100) };
        let mut run = Run::open(&Start::new(&folder.path().join("run")), &json!({}), &about)?;
        let guard = GuardConfig { action, ..GuardConfig::default() };
        let schedule = Schedule::Constant;
        let mut updater = Updater::new(UpdateConfig { learning_rate: 0.1, schedule, guard, ..UpdateConfig::default() }, 100);
        let mut model = Two::new();
        for &step in steps {
            updater.add(&model, model.loss(step).backward(), 1.0);
            let loss = if bad.contains(&step) { f64::NAN } else { 1.0 };
            let stats;
            (model, stats) = run.update(step, model, &mut updater, loss)?;
            assert_eq!(stats.trouble.is_some(), bad.contains(&step));
            if run.is_due(step) {
                run.save(step, &model, &updater, &Progress::default(), &ByName::new())?;
            }
        }
        Ok::<_, Error>((model.values(), updater.n_skipped()))
    };
    let plain = |steps: &[usize]| learn(Action::Stop, &[], steps, &EVERY_FOUR).unwrap().0;
    let all: Vec<usize> = (1..=9).collect();
    assert_eq!(learn(Action::Skip, &[3, 7], &all, &EVERY_FOUR).unwrap(), (plain(&[1, 2, 4, 5, 6, 8, 9]), 2));
    assert_eq!(learn(Action::RollBack, &[7], &all, &EVERY_FOUR).unwrap(), (plain(&[1, 2, 3, 4, 8, 9]), 1));
    assert_eq!(learn(Action::RollBack, &[2], &all, &EVERY_FOUR).unwrap(), (plain(&[1, 3, 4, 5, 6, 7, 8, 9]), 1), "no checkpoint yet");
    let error = learn(Action::Stop, &[3], &all, &EVERY_FOUR).unwrap_err().to_string();
    assert!(error.starts_with("step 3: the loss is not a finite number: lower the learning rate"), "{error}");
    let every: Vec<usize> = (1..=20).collect();
    let error = learn(Action::Skip, &every[4..], &every, &EVERY_FOUR).unwrap_err().to_string();
    assert!(error.starts_with("step 15: "), "after ten in a row: {error}");
}

fn learn(start: &Start, n_steps: usize) -> Result<Vec<f32>> {
    let mut run = Run::open(start, &json!({"seed": 7}), &about("two", n_steps))?;
    let mut updater = Updater::new(UpdateConfig { learning_rate: 0.1, ..UpdateConfig::default() }, n_steps);
    let mut model = run.restore(Two::new(), &mut updater)?;
    let mut progress: Progress = run.progress()?;
    for step in run.step() + 1..=n_steps {
        updater.add(&model, model.loss(step).backward(), 1.0);
        (model, _) = updater.step(model, 1.0)?;
        run.log(step, &[("loss", 0.1 * step as f64)])?;
        run.append("samples.jsonl", &format!("{step}\n"))?;
        progress.floats.extend([0.1 + 0.2 * step as f64, f64::NEG_INFINITY, 3.0e-310]);
        progress.stage = Some(step);
        progress.nested.entry(format!("a.\"{step}\"")).or_default().push((1.0 / 3.0, step as u64));
        if run.is_due(step) {
            let carried = ByName::from([("anchor".to_owned(), model.moving.val().inner())]);
            run.save(step, &model, &updater, &progress, &carried)?;
        }
    }
    assert_eq!(
        progress.floats.iter().step_by(3).copied().collect::<Vec<_>>(),
        (1..=n_steps).map(|step| 0.1 + 0.2 * step as f64).collect::<Vec<_>>()
    );
    assert!(progress.floats.len() == 3 * n_steps && progress.floats[4] == f64::NEG_INFINITY && progress.floats[5] == 3.0e-310);
    Ok(model.values())
}

#[test]
fn a_run_goes_on_as_if_there_had_been_no_break() {
    let parent = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| parent.path().join(name));
    let expected = learn(&Start::new(&whole), 5).unwrap();
    // Until step 3 there is a checkpoint of each step; a run killed later has written more.
    let resumed = |until| Start::resumed(&cut, until);
    std::fs::create_dir(&cut).unwrap();
    for file in ["config.toml", "manifest.json"] {
        std::fs::copy(whole.join(file), cut.join(file)).unwrap();
    }
    let error = learn(&resumed(Some(3)), 5).unwrap_err();
    assert!(matches!(&error, Error::Interrupted { step: 3, path } if *path == cut), "{error}");
    let steps = |folder: &Path| checkpoint::list(folder).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    assert_eq!(steps(&cut), [2, 3]);
    let append = |file: &str| std::fs::write(cut.join(file), std::fs::read_to_string(cut.join(file)).unwrap() + "{\"st").unwrap();
    append("metrics.jsonl");
    append("samples.jsonl");
    std::fs::create_dir(cut.join("checkpoints/.kiln-abc")).unwrap();
    std::fs::write(cut.join("checkpoints/.kiln-abc/weights.safetensors"), "cut").unwrap();
    let device = FLEX.clone();
    let run = Run::open(&resumed(None), &json!({}), &about("two", 5)).unwrap();
    assert!(run.step() == 3 && run.carried(&device).unwrap()["anchor"].dims() == [3]);
    drop(run);
    assert_eq!(learn(&resumed(None), 5).unwrap(), expected);
    assert_eq!(std::fs::read_to_string(cut.join("samples.jsonl")).unwrap(), "1\n2\n3\n4\n5\n");
    let losses =
        |folder: &Path| read_metrics(&folder.join("metrics.jsonl")).unwrap().into_iter().map(|line| line.values).collect::<Vec<_>>();
    assert_eq!(losses(&cut), losses(&whole));
    assert_eq!(steps(&cut), steps(&whole));
    let sums = |folder: &Path| std::fs::read_to_string(folder.join("checkpoints/step-000004/SHA256SUMS")).unwrap();
    let weights = |folder: &Path| sums(folder).lines().take(3).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(weights(&cut), weights(&whole), "the checkpoints' tensors are the same too");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    let expected = learn(&Start::new(&folder), 4).unwrap();
    let newest = folder.join("checkpoints/step-000003");
    for file in ["weights.safetensors", "moments.safetensors", "carried.safetensors", "state.toml", "SHA256SUMS"] {
        let path = newest.join(file);
        let kept = std::fs::read(&path).unwrap();
        for damage in ["flipped", "cut", "gone"] {
            let mut bytes = kept.clone();
            match damage {
                "flipped" => bytes[kept.len() / 2] ^= 1,
                _ => bytes.truncate(kept.len() / 2),
            }
            std::fs::write(&path, bytes).unwrap();
            if damage == "gone" {
                std::fs::remove_file(&path).unwrap();
            }
            let (found, damaged) = checkpoint::newest(&folder).unwrap();
            assert_eq!((found.unwrap().state.step, damaged.len()), (2, 1), "{file} {damage}");
            let error = damaged[0].to_string();
            assert!(error.contains("step-000003: ") && error.contains(file) && !error.contains('\n'), "{error}");
        }
        std::fs::write(&path, &kept).unwrap();
    }
    std::fs::write(newest.join("weights.safetensors"), "").unwrap();
    assert_eq!(learn(&Start::resumed(&folder, None), 4).unwrap(), expected);
    // Made again on the way.
    assert_eq!(checkpoint::newest(&folder).unwrap().0.unwrap().state.step, 3);
    for step in [2, 3] {
        std::fs::write(folder.join(format!("checkpoints/step-{step:06}/weights.safetensors")), "").unwrap();
    }
    let error = learn(&Start::resumed(&folder, None), 4).unwrap_err().to_string();
    assert!(error.contains("none can be used") && error.contains("weights.safetensors is damaged"), "{error}");
}
