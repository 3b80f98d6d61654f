//! The learning rates of transformers' schedules, and of PyTorch's plateau.

use crate::support::{assert_close, fixture};
use kiln_core::files::read_json;
use kiln_train::schedule::{DecayShape, Plateau, Schedule};
use serde_json::Value;

const N_STEPS: usize = 40;

fn golden() -> Value {
    read_json(&fixture("schedules.json")).expect("a fixture")
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a number")).collect()
}

#[test]
fn shares_of_the_peak() {
    let wsd = |shape, floor| Schedule::Wsd { decay_share: 0.25, shape, floor };
    let golden = golden();
    for (name, schedule) in [
        ("constant", Schedule::Constant),
        ("linear", Schedule::Linear),
        ("cosine", Schedule::Cosine { floor: 0.0 }),
        ("cosine_floor", Schedule::Cosine { floor: 0.1 }),
        ("inverse_sqrt", Schedule::InverseSqrt { timescale_steps: 0 }),
        ("inverse_sqrt_timescale", Schedule::InverseSqrt { timescale_steps: 20 }),
        ("polynomial", Schedule::Polynomial { power: 2.0, floor: 0.05 }),
        ("wsd", wsd(DecayShape::Linear, 0.0)),
        ("wsd_cosine", wsd(DecayShape::Cosine, 0.1)),
        ("wsd_one_minus_sqrt", wsd(DecayShape::OneMinusSqrt, 0.0)),
    ] {
        for n_warmup_steps in [0, 8] {
            let expected = floats(&golden[n_warmup_steps.to_string()][name]);
            let found: Vec<f32> = (0..N_STEPS).map(|step| schedule.share(step, N_STEPS, n_warmup_steps) as f32).collect();
            // While the rate rises ours is a step ahead, on purpose.
            assert_close(name, &found[n_warmup_steps..], &expected[n_warmup_steps..], 1e-6);
        }
    }
}

#[test]
fn a_plateau_lowers_the_rate() {
    let golden = &golden()["plateau"];
    let schedule = Schedule::Plateau { factor: 0.5, patience: 2, threshold: 1e-4, floor: 0.2 };
    let mut plateau = Plateau::default();
    let validated = |loss| {
        plateau.validated(&schedule, loss);
        plateau.share as f32
    };
    let found: Vec<f32> = floats(&golden["losses"]).into_iter().map(validated).collect();
    assert_close("plateau", &found, &floats(&golden["shares"]), 1e-6);
    assert!(found.contains(&0.5) && found.contains(&0.2), "{found:?}");
}
