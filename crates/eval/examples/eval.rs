//! Judges two classifiers on the same rows: their accuracy, the classes they miss, and whether one really beats the other.
//!
//! `cargo run --example eval`

use kiln_eval::bootstrap::mean;
use kiln_eval::classification::{ClassificationReport, Confusion};
use kiln_eval::figure::Figure;

const NAMES: [&str; 3] = ["complaint", "praise", "question"];
const N_ROWS: usize = 300;

fn main() {
    let golds: Vec<usize> = (0..N_ROWS).map(|row| row % 3).collect();
    // One calls every fourth row a complaint, the other every twentieth.
    let predictions =
        |wrong_every: usize| -> Vec<usize> { (0..N_ROWS).map(|row| if row % wrong_every == 1 { 0 } else { golds[row] }).collect() };
    let accuracy = |predictions: &[usize]| {
        let hits = predictions.iter().zip(&golds).map(|(prediction, gold)| f64::from(u8::from(prediction == gold))).collect();
        Figure::new("accuracy", hits, mean, 0)
    };
    let (before, after) = (predictions(4), predictions(20));
    println!("{}\n", ClassificationReport::new(&Confusion::new(&after, &golds, NAMES.len()), &NAMES));
    let (before, after) = (accuracy(&before), accuracy(&after));
    let gain = after.minus(&before);
    println!("{} {:.3} [{:.3}, {:.3}]", before.metric, before.value, before.interval.low, before.interval.high);
    println!("{} {:.3} [{:.3}, {:.3}]", after.metric, after.value, after.interval.low, after.interval.high);
    println!("difference {:+.3} [{:+.3}, {:+.3}]", gain.value, gain.interval.low, gain.interval.high);
    println!("{}", if gain.interval.low > 0.0 { "better beyond chance" } else { "perhaps chance" });
}
