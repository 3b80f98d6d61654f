//! The forgetting budget: how far from the model it came from a model may go, so that general text is predicted almost as well.
//!
//! The weights go back along the line to those before training ([`crate::objective::wise_ft`]) as far as the probe asks for: the largest
//! share α of the way is kept at which the upper end of the 95 % interval of the rise of the probe's perplexity is within the budget. What is
//! promised is then measured on other rows. Since those had no part in choosing α, the promise can fail; the run then does.

use kiln_core::{Error, Result};
use kiln_eval::bootstrap::Interval;
use kiln_eval::figure::Figure;
use serde::Serialize;
use std::path::Path;

/// How often the range of α is halved: steps of 1/256.
const N_HALVINGS: u32 = 8;

/// What became of the promise. Shares, not per cent.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// How much the perplexity of general text may rise.
    pub allowed: f64,
    /// α, how much of the way from the model before training is kept.
    pub kept: f64,
    /// The rise on the rows α was chosen by, at that α.
    pub probe_rise: Figure,
    /// The rise on the other rows.
    pub rise: Figure,
    /// Whether that is within what is allowed, with something learnt.
    pub met: bool,
}

/// The largest share α, up to 1/256, at which `rise` is within what is `allowed` in the upper end of its interval, and the rise there. The
/// rise at 0 must be 0. Where it is not growing all the way, what is found is still within.
pub fn largest_share(allowed: f64, mut rise: impl FnMut(f64) -> Figure) -> (f64, Figure) {
    let whole = rise(1.0);
    if whole.interval.high <= allowed {
        return (1.0, whole);
    }
    let (mut kept, mut too_far, mut found) = (0.0, 1.0, None);
    for _ in 0..N_HALVINGS {
        let middle = (kept + too_far) / 2.0;
        let figure = rise(middle);
        if figure.interval.high <= allowed {
            (kept, found) = (middle, Some(figure));
        } else {
            too_far = middle;
        }
    }
    (kept, found.unwrap_or_else(|| rise(0.0)))
}

impl Verdict {
    /// Of a rise, measured on rows that had no part in choosing `kept`.
    pub fn new(allowed: f64, kept: f64, probe_rise: Figure, rise: Figure) -> Self {
        let met = kept > 0.0 && rise.value <= allowed;
        Self { allowed, kept, probe_rise, rise, met }
    }

    /// Whether the promise is kept; `run` is where the report is.
    ///
    /// # Errors
    /// [`Error::Unmet`] saying what came instead.
    pub fn check(&self, run: &Path) -> Result<()> {
        if self.met {
            return Ok(());
        }
        let (percent, Interval { low, high }) = (|share: f64| 100.0 * share, self.rise.interval);
        let what = match self.kept {
            0.0 => format!("nothing of the training fits into a budget of {:.4} %", percent(self.allowed)),
            _ => format!(
                "the perplexity of general text rose by {:.4} % [{:.4}, {:.4}], the budget is {:.4} %",
                percent(self.rise.value),
                percent(low),
                percent(high),
                percent(self.allowed)
            ),
        };
        let message = format!("{what}; replay more, lower the learning rate or give more general text; the report is in {}", run.display());
        Err(Error::Unmet { message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_eval::bootstrap::mean;

    /// Of two items a quarter of the resamples has one of them only.
    fn figure(value: f64, width: f64) -> Figure {
        Figure::new("general rise", vec![value - width, value + width], mean, 0)
    }

    #[test]
    fn the_share_is_the_largest_within_the_upper_end() {
        // The rise grows as the square of the way.
        let quadratic = |alpha: f64| figure(0.32 * alpha * alpha, 0.01 * alpha);
        for allowed in [0.001, 0.02, 0.1] {
            let (kept, found) = largest_share(allowed, quadratic);
            assert!(found.interval.high <= allowed, "{allowed}");
            assert!(quadratic(kept + 1.0 / 256.0).interval.high > allowed, "{allowed}: {kept} could be more");
            assert_eq!((found.value, found.interval), (quadratic(kept).value, quadratic(kept).interval));
        }
        assert_eq!(largest_share(0.33, quadratic).0, 1.0, "all of it fits");
        let (kept, found) = largest_share(0.0, quadratic);
        assert_eq!((kept, found.value), (0.0, 0.0));
    }

    #[test]
    fn a_promise_is_met_or_fails() {
        let run = Path::new("runs/x");
        assert!(Verdict::new(0.02, 0.5, figure(0.015, 0.004), figure(0.019, 0.01)).check(run).is_ok());
        let above = Verdict::new(0.02, 0.5, figure(0.015, 0.004), figure(0.021, 0.01)).check(run).unwrap_err().to_string();
        assert!(above.contains("2.1000 % [1.1000, 3.1000]") && above.contains("2.0000 %") && above.contains("runs/x"), "{above}");
        let nothing = Verdict::new(0.0, 0.0, figure(0.0, 0.0), figure(0.0, 0.0)).check(run).unwrap_err().to_string();
        assert!(nothing.contains("nothing of the training fits"), "{nothing}");
    }
}
