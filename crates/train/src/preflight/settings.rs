//! Settings that are probably not meant.

use super::{Finding, Severity};
use kiln_core::adapter::LoraConfig;

/// Learning rates that are usual: above and below nobody trains by gradients whose size AdamW evens out. All weights at 2e-3 unlearn what a
/// model knows within a few steps; an adapter starts from zero and takes ten times as much.
const ALL_WEIGHTS: [f64; 2] = [1e-7, 2e-3];
const ADAPTER: [f64; 2] = [1e-6, 2e-2];
/// With fewer held-out rows the 95 % interval of a share is wider than 10 points to either side: 1.96·√(¼ / 100).
const HELD_OUT: usize = 100;

/// A learning rate that belongs to another kind of training. `key` is its setting.
pub fn learning_rate(key: &str, rate: f64, adapter: Option<&LoraConfig>) -> Option<Finding> {
    let [least, most] = if adapter.is_some() { ADAPTER } else { ALL_WEIGHTS };
    let what = if adapter.is_some() { "an adapter" } else { "all weights" };
    (rate < least || rate > most).then(|| Finding {
        name: "learning-rate",
        severity: Severity::Note,
        count: 1,
        found: format!("{key} is {rate:e}; {what} are usually trained with {least:e} to {most:e}"),
        examples: Vec::new(),
        advice: if rate > most { "expect it to diverge or forget" } else { "expect nothing to change" }.into(),
    })
}

/// Too few rows for the figures to mean much.
pub fn held_out(n_rows: usize) -> Option<Finding> {
    (n_rows < HELD_OUT).then(|| Finding {
        name: "few-held-out-rows",
        severity: Severity::Note,
        count: n_rows,
        found: format!("{n_rows} rows are held out, fewer than {HELD_OUT}: the interval of a share is ±{:.0} points", half_width(n_rows)),
        examples: Vec::new(),
        advice: "hold out more with data.held_out_share, or name a file under data.held_out".into(),
    })
}

/// Of the 95 % interval of a share near one half, in points.
fn half_width(n_rows: usize) -> f64 {
    (196.0 * (0.25 / n_rows.max(1) as f64).sqrt()).min(50.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_another_kind_of_training_are_told() {
        let lora = LoraConfig::default();
        let of = |rate, adapter| learning_rate("update.learning_rate", rate, adapter).is_some();
        assert_eq!([1e-8, 1e-6, 5e-5, 1e-3, 1e-2].map(|rate| of(rate, None)), [true, false, false, false, true]);
        assert_eq!([1e-7, 2e-4, 1e-2, 0.1].map(|rate| of(rate, Some(&lora))), [true, false, false, true]);
    }

    /// 1.96 · √(¼ / 25) = 0.196.
    #[test]
    fn few_held_out_rows_are_told_with_their_interval() {
        assert!(held_out(25).unwrap().found.ends_with("±20 points"));
        assert!(held_out(99).is_some() && held_out(100).is_none());
    }
}
