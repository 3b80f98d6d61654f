//! The progress of a run on the terminal.

use crate::report::significant;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// The progress on stderr: a bar on a terminal, elsewhere a plain line for each tenth of the run.
#[derive(Debug)]
pub(crate) struct Display {
    bar: ProgressBar,
    n_steps: usize,
    /// The first step: rates count from there, so that loading and warming up do not distort them.
    first: Option<First>,
    /// Tenths of the run already told in plain lines.
    n_tenths: usize,
}

#[derive(Debug)]
struct First {
    step: usize,
    seconds: f64,
    /// What came first among the values: a line that starts with another is no training step but, say, an evaluation.
    name: String,
}

impl Display {
    pub(crate) fn new(n_steps: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:24} {msg}").expect("the template is fixed");
        let bar = ProgressBar::new(n_steps as u64).with_style(style).with_finish(ProgressFinish::Abandon);
        Self { bar, n_steps, first: None, n_tenths: 0 }
    }

    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub(crate) fn show(&mut self, step: usize, seconds: f64, values: &[(&str, f64)]) {
        if step == 0 {
            return eprintln!("{}", self.line(step, values, ""));
        }
        let name = values.first().map_or("", |(name, _)| name);
        let is_first = self.first.is_none();
        let first = self.first.get_or_insert_with(|| First { step, seconds, name: name.to_owned() });
        let n_tenths = step * 10 / self.n_steps.max(1);
        if first.name != name {
            self.bar.suspend(|| eprintln!("{}", self.line(step, values, "")));
        } else if !self.bar.is_hidden() {
            self.bar.set_position(step as u64);
            self.bar.set_message(self.line(step, values, &self.rate(step, seconds)));
        } else if is_first || n_tenths > self.n_tenths {
            eprintln!("{}", self.line(step, values, &self.rate(step, seconds)));
            self.n_tenths = n_tenths;
        }
    }

    /// `step  20/217  loss 0.6123    learning_rate 4.5e-5` and `rate`.
    fn line(&self, step: usize, values: &[(&str, f64)], rate: &str) -> String {
        let n_steps = self.n_steps;
        let mut line = format!("step {step:>width$}/{n_steps}", width = n_steps.to_string().len());
        for (name, value) in values {
            line += &format!("  {name} {:<8}", significant(*value, 4));
        }
        line += rate;
        line.trim_end().to_owned()
    }

    /// `  3.2 steps/s  62 s left`; nothing before there is something to count, and no time left after the last step.
    fn rate(&self, step: usize, seconds: f64) -> String {
        match &self.first {
            Some(first) if step > first.step && seconds > first.seconds => {
                let rate = (step - first.step) as f64 / (seconds - first.seconds);
                let left = self.n_steps.saturating_sub(step);
                let left = if left > 0 { format!("  {} left", time(left as f64 / rate)) } else { String::new() };
                format!("  {} steps/s{left}", significant(rate, 2))
            }
            _ => String::new(),
        }
    }
}

/// A duration as precise as a forecast deserves.
fn time(seconds: f64) -> String {
    match seconds {
        ..99.5 => format!("{seconds:.0} s"),
        ..5970.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_align_and_rates_count_from_the_first_step() {
        let mut display = Display::new(217);
        // An evaluation and ten seconds of loading, then 4 steps a second.
        display.show(0, 5.0, &[("validation_loss", 0.9)]);
        display.show(1, 10.0, &[("loss", 0.61234), ("learning_rate", 4.5e-5)]);
        display.show(21, 12.0, &[("validation_loss", 0.7)]);
        assert_eq!(display.rate(1, 10.0), "");
        assert_eq!(display.rate(21, 15.0), "  4 steps/s  49 s left");
        assert_eq!(display.rate(217, 64.0), "  4 steps/s");
        let line = |step, values: &[(&str, f64)]| display.line(step, values, "  4 steps/s");
        assert_eq!(
            line(1, &[("loss", 0.61234), ("learning_rate", 4.5e-5)]),
            "step   1/217  loss 0.6123    learning_rate 4.5e-5    4 steps/s"
        );
        assert_eq!(line(21, &[("loss", 0.5), ("learning_rate", 0.0)]), "step  21/217  loss 0.5       learning_rate 0         4 steps/s");
        assert_eq!(display.line(21, &[("validation_loss", 0.7)], ""), "step  21/217  validation_loss 0.7");
    }

    #[test]
    fn forecasts_have_units() {
        assert_eq!([8.4, 99.0, 100.0, 5900.0, 6000.0].map(time), ["8 s", "99 s", "2 min", "98 min", "1.7 h"]);
    }
}
