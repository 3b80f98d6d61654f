//! How the loss of a run went, on the rows it was trained on and on those that validated it.

use kiln_train::run::Line;
use serde::Serialize;

/// Validations after the best one from which on a loss counts as rising.
pub const RISES_AFTER: usize = 3;
/// By what share of the best validation loss the last one has to be higher to count as risen, or lower than the one before to count as falling.
pub const CHANGE: f64 = 0.01;

/// What the validations of a run say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// There were none.
    NotValidated,
    /// The last one is the best, and lower than the one before by more than [`CHANGE`]: more steps may help.
    Falling,
    /// The best one lies at least [`RISES_AFTER`] validations back, and the last is higher by more than [`CHANGE`]: the run learnt its rows by heart.
    Rising,
    /// Neither.
    Level,
}

/// The losses of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curves {
    /// What the validations say.
    pub course: Course,
    /// The mean training loss of the first tenth of the steps.
    pub first_train_loss: f64,
    /// That of the last tenth.
    pub last_train_loss: f64,
    /// How often the run was validated.
    pub n_validations: usize,
    /// The step and the loss of the best validation.
    pub best_validation: Option<(usize, f64)>,
    /// Those of the last.
    pub last_validation: Option<(usize, f64)>,
}

/// The losses of a run by its metrics: `loss` of each step and `validation_loss` of each validation.
pub fn curves(metrics: &[Line]) -> Curves {
    let series = |name: &str| -> Vec<(usize, f64)> {
        metrics.iter().filter_map(|line| Some((line.step, line.values.get(name)?.as_f64()?))).collect()
    };
    let (train, validation) = (series("loss"), series("validation_loss"));
    let n_ends = train.len().div_ceil(10);
    let mean = |part: &[(usize, f64)]| part.iter().map(|(_, loss)| loss).sum::<f64>() / part.len() as f64;
    // Of equal losses the first is the best, as for the run itself.
    let best = (0..validation.len()).min_by(|&a, &b| validation[a].1.total_cmp(&validation[b].1).then(a.cmp(&b)));
    Curves {
        course: best.map_or(Course::NotValidated, |best| course(&validation, best)),
        first_train_loss: mean(&train[..n_ends]),
        last_train_loss: mean(&train[train.len() - n_ends..]),
        n_validations: validation.len(),
        best_validation: best.map(|best| validation[best]),
        last_validation: validation.last().copied(),
    }
}

fn course(validation: &[(usize, f64)], best: usize) -> Course {
    let n_since = validation.len() - 1 - best;
    let (best_loss, last_loss) = (validation[best].1, validation[validation.len() - 1].1);
    if n_since >= RISES_AFTER && last_loss > best_loss * (1.0 + CHANGE) {
        return Course::Rising;
    }
    let is_falling = n_since == 0 && best > 0 && last_loss < validation[best - 1].1 * (1.0 - CHANGE);
    if is_falling { Course::Falling } else { Course::Level }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(validations: &[f64]) -> Curves {
        let line =
            |step, name: &str, value: f64| Line { step, seconds: 0.0, values: [(name.to_owned(), value.into())].into_iter().collect() };
        let steps = (1..=20).map(|step| line(step, "loss", 21.0 - step as f64));
        let all = steps.chain(validations.iter().enumerate().map(|(index, &loss)| line(2 * index + 2, "validation_loss", loss)));
        curves(&all.collect::<Vec<_>>())
    }

    #[test]
    fn a_course_is_named_by_the_stated_rule() {
        for (validations, course) in [
            (&[][..], Course::NotValidated),
            (&[1.0], Course::Level),
            (&[1.0, 0.8, 0.6], Course::Falling),
            (&[1.0, 0.8, 0.799], Course::Level),
            (&[1.0, 0.6, 0.7, 0.8], Course::Level),
            (&[1.0, 0.6, 0.7, 0.8, 0.7], Course::Rising),
            (&[1.0, 0.6, 0.7, 0.8, 0.605], Course::Level),
        ] {
            assert_eq!(of(validations).course, course, "{validations:?}");
        }
    }

    #[test]
    fn ends_are_means_and_the_first_of_equal_bests_counts() {
        let curves = of(&[0.9, 0.5, 0.7, 0.5]);
        // Steps 1, 2 and 19, 20 of losses 20, 19 and 2, 1.
        assert_eq!((curves.first_train_loss, curves.last_train_loss), (19.5, 1.5));
        assert_eq!((curves.best_validation, curves.last_validation), (Some((4, 0.5)), Some((8, 0.5))));
        assert!(super::curves(&[]).first_train_loss.is_nan());
    }
}
