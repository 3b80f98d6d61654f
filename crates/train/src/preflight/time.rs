//! How long a run will take, from a few updates of it.
//!
//! The time of an update is taken as `a + b·w`, where w is the work of its matrix products ([`super::work`]): a for what every update costs,
//! such as the optimizer's sweep over all weights.

use serde::Serialize;
use std::fmt;

/// An update that was timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// Its work, GFLOP.
    pub gflop: f64,
    /// Its time.
    pub seconds: f64,
}

/// A forecast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Time {
    /// Of all updates.
    pub training_seconds: f64,
    /// Of all evaluations.
    pub evaluation_seconds: f64,
}

/// The time of updates and evaluations of so much work each, from a smaller and a larger update that were timed.
pub fn forecast([small, large]: [Timed; 2], updates: &[f64], evaluations: &[f64]) -> Time {
    let per_gflop = large.seconds / large.gflop.max(f64::MIN_POSITIVE);
    let slope = (large.seconds - small.seconds) / (large.gflop - small.gflop);
    // Two updates of the same size say nothing about others; and no update costs less than nothing.
    let is_apart = large.gflop > 1.2 * small.gflop;
    let slope = if is_apart { slope.clamp(0.0, per_gflop) } else { per_gflop };
    let fixed = (large.seconds - slope * large.gflop).max(0.0);
    let total: f64 = updates.iter().sum();
    Time { training_seconds: fixed * updates.len() as f64 + slope * total, evaluation_seconds: slope * evaluations.iter().sum::<f64>() }
}

impl Time {
    /// Of the whole run.
    pub fn seconds(&self) -> f64 {
        self.training_seconds + self.evaluation_seconds
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (training {}, evaluation {})",
            duration(self.seconds()),
            duration(self.training_seconds),
            duration(self.evaluation_seconds)
        )
    }
}

/// A duration as precise as a forecast deserves.
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..9.95 => format!("{seconds:.1} s"),
        ..99.5 => format!("{seconds:.0} s"),
        ..5970.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }

    /// 0.1 s and 0.05 s per GFLOP.
    #[test]
    fn a_line_through_two_updates() {
        let timed = |gflop: f64| Timed { gflop, seconds: 0.1 + 0.05 * gflop };
        let time = forecast([timed(2.0), timed(6.0)], &[2.0, 6.0, 4.0], &[1.0, 1.0]);
        close(time.training_seconds, 3.0 * 0.1 + 0.05 * 12.0);
        close(time.evaluation_seconds, 0.1);
        close(time.seconds(), 1.0);
    }

    #[test]
    fn updates_of_one_size_are_taken_as_all_work() {
        let timed = Timed { gflop: 4.0, seconds: 0.4 };
        close(forecast([timed, timed], &[4.0, 2.0], &[]).training_seconds, 0.6);
        // The smaller one was slower: chance.
        let slow = Timed { gflop: 1.0, seconds: 0.5 };
        close(forecast([slow, timed], &[4.0, 2.0], &[]).training_seconds, 0.8);
    }

    #[test]
    fn durations_have_units() {
        assert_eq!([0.42, 8.4, 99.0, 100.0, 5900.0, 6000.0].map(duration), ["0.4 s", "8.4 s", "99 s", "2 min", "98 min", "1.7 h"]);
    }
}
