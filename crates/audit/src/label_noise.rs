//! How likely a label is wrong: from what a classifier says of rows that it has not seen, how sure it may be, and how often labels are wrong.
//!
//! A row of class j is labelled otherwise with the rate e_j, by each other class alike. Which class it has the classifier says, once what it learnt of wrong
//! labels is taken out of its probabilities, a share s for which it is never surer than 1 - s, and a temperature t makes it as sure as it may
//! be: above 1 where it is too sure, as after many epochs, below 1 where it is not sure enough.
//!
//! ```text
//! p'(j|x) ∝ max(p(j|x) - s / (n_classes - 1), 0)^(1/t)
//! T(i|j) = 1 - e_j if i = j, else e_j / (n_classes - 1)
//! P(label i | x) = Σ_j T(i|j)·p'(j|x)
//! P(wrong | x, i) = 1 - T(i|i)·p'(i|x) / Σ_j T(i|j)·p'(j|x)
//! ```
//!
//! e, t and s are those under which the labels are likeliest: for each of a few s, e by expectation maximisation, and t by golden-section search in each round.
//! A classifier that errs disagrees with labels the more the less sure it is; wrong labels disagree with it as often where it is surest: that
//! tells the two apart.
//!
//! Source: Sukhbaatar et al., arXiv:1406.2080, Section 3, for the noise, and that a network which learns from wrong labels learns it; Guo et al.,
//! arXiv:1706.04599, Section 4.2, for the temperature.
//! Differs from the sources: all is fitted to out-of-sample probabilities after training; a rate for each class instead of each pair, because with many classes
//! those that the classifier confuses would count as confused by the labels.

use crate::label_errors::Given;
use rayon::prelude::*;

/// Rounds of expectation maximisation at most.
const N_ROUNDS: usize = 20;
/// By how little the mean log-likelihood has to grow for a round to be the last, in nats.
const LEAST_GAIN: f64 = 1e-6;
/// The temperatures that are looked at.
const TEMPERATURES: [f64; 2] = [0.1, 10.0];
/// Narrowings of the search for a temperature; after as many an interval is 1 % of what it was.
const N_NARROWINGS: usize = 10;
/// The shares of wrong labels learnt that are looked at.
const LEARNT: [f64; 7] = [0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08];
/// The least probability that a classifier is taken to mean: 0 would stay 0 at every temperature.
const LEAST: f64 = 1e-7;

/// How sure a classifier may be, and how often labels are wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelNoise {
    /// t.
    pub temperature: f64,
    /// s.
    pub learnt: f64,
    /// e: how often a row of each class is labelled otherwise.
    pub rates: Vec<f64>,
}

impl LabelNoise {
    /// The one under which the labels are likeliest.
    pub fn fit(given: &Given<'_>) -> Self {
        let fits = LEARNT.map(|learnt| Self::fit_learnt(given, learnt));
        let likeliest = fits.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best });
        likeliest.expect("a share").0
    }

    /// The likeliest with this share learnt, and the log-likelihood of the labels.
    fn fit_learnt(given: &Given<'_>, learnt: f64) -> (Self, f64) {
        let joint = given.confident_joint();
        let of_class = |class: usize| {
            let all: i64 = joint.iter().map(|row| row[class]).sum();
            [all as f64, (all - joint[class][class]) as f64]
        };
        let mut noise = Self { temperature: 1.0, learnt, rates: rates(&(0..given.n_classes).map(of_class).collect::<Vec<_>>()) };
        let mut before = f64::NEG_INFINITY;
        for _ in 0..N_ROUNDS {
            noise.temperature = noise.likeliest_temperature(given);
            let mut counts = vec![[0.0; 2]; given.n_classes];
            let mut log_likelihood = 0.0;
            for (&label, (shares, likelihood)) in given.labels.iter().zip(noise.truths(given)) {
                for (class, (count, share)) in counts.iter_mut().zip(shares).enumerate() {
                    count[0] += share;
                    count[1] += if class == label { 0.0 } else { share };
                }
                log_likelihood += likelihood.ln();
            }
            noise.rates = rates(&counts);
            let gain = (log_likelihood - before) / given.labels.len() as f64;
            before = log_likelihood;
            if gain < LEAST_GAIN {
                break;
            }
        }
        (noise, before)
    }

    /// How likely the label of each row is wrong.
    pub fn wrong(&self, given: &Given<'_>) -> Vec<f64> {
        self.truths(given).iter().zip(given.labels).map(|((shares, _), &label)| 1.0 - shares[label]).collect()
    }

    /// How likely each class is the true one of a row, and how likely its label is.
    fn truth(&self, given: &Given<'_>, row: usize) -> (Vec<f64>, f64) {
        let label = given.labels[row];
        let others = (given.n_classes - 1).max(1) as f64;
        let floor = self.learnt / others;
        let powers: Vec<f64> = given.row(row).iter().map(|&p| (f64::from(p) - floor).max(LEAST).powf(1.0 / self.temperature)).collect();
        let sum: f64 = powers.iter().sum();
        let share = |(class, (power, rate)): (usize, (f64, &f64))| power / sum * if class == label { 1.0 - rate } else { rate / others };
        let mut shares: Vec<f64> = powers.into_iter().zip(&self.rates).enumerate().map(share).collect();
        let likelihood = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        shares.iter_mut().for_each(|share| *share /= likelihood);
        (shares, likelihood)
    }

    /// The same of all rows, in their order.
    fn truths(&self, given: &Given<'_>) -> Vec<(Vec<f64>, f64)> {
        (0..given.labels.len()).into_par_iter().map(|row| self.truth(given, row)).collect()
    }

    /// The temperature under which the labels are likeliest, the rates being what they are.
    fn likeliest_temperature(&self, given: &Given<'_>) -> f64 {
        let cost = |log: f64| {
            let noise = Self { temperature: log.exp(), ..self.clone() };
            let of_rows: Vec<f64> = (0..given.labels.len()).into_par_iter().map(|row| noise.truth(given, row).1.ln()).collect();
            -of_rows.iter().sum::<f64>()
        };
        let golden = (5.0_f64.sqrt() - 1.0) / 2.0;
        let [mut low, mut high] = TEMPERATURES.map(f64::ln);
        let mut inner = [high - golden * (high - low), low + golden * (high - low)];
        let mut costs = inner.map(cost);
        for _ in 0..N_NARROWINGS {
            if costs[0] < costs[1] {
                high = inner[1];
                inner = [high - golden * (high - low), inner[0]];
                costs = [cost(inner[0]), costs[0]];
            } else {
                low = inner[0];
                inner = [inner[1], low + golden * (high - low)];
                costs = [costs[1], cost(inner[1])];
            }
        }
        ((low + high) / 2.0).exp()
    }
}

/// The share of rows of each class that is labelled otherwise, of `[rows, those labelled otherwise]`; with one row more of each class, which is so as
/// often as all rows are.
fn rates(counts: &[[f64; 2]]) -> Vec<f64> {
    let [all, wrong] = [0, 1].map(|which| counts.iter().map(|count| count[which]).sum::<f64>());
    counts.iter().map(|[n, n_wrong]| (n_wrong + wrong / all) / (n + 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    const N_ROWS: usize = 4000;

    /// Rows of `n_classes` classes whose true class has the probabilities that a classifier would state at temperature 1; it states them as if
    /// at `sureness` times the log-odds, and with a share of `learnt` for the wrong labels that it learnt from. 8 in 100 labels are of another class. Returns also
    /// which.
    fn drawn(n_classes: usize, sureness: f64, learnt: f64) -> (Vec<f32>, Vec<usize>, Vec<bool>) {
        let key = Key::new(4);
        let (mut probabilities, mut labels, mut is_wrong) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..N_ROWS as u64 {
            let key = key.fold(row);
            let odds: Vec<f64> =
                (0..n_classes as u64).map(|class| 6.0 * (f64::from(key.uniform(class)) - f64::from(key.uniform(100 + class)))).collect();
            let softmax = |sureness: f64| {
                let powers: Vec<f64> = odds.iter().map(|odds| (sureness * odds).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(|power| power / sum).collect::<Vec<f64>>()
            };
            let mut left = f64::from(key.uniform(200));
            let truth = softmax(1.0)
                .iter()
                .position(|p| {
                    left -= p;
                    left < 0.0
                })
                .unwrap_or(0);
            let wrong = key.uniform(201) < 0.08;
            let label = if wrong { (truth + 1 + key.below(202, n_classes as u64 - 1) as usize) % n_classes } else { truth };
            let others = (n_classes - 1) as f64;
            probabilities.extend(softmax(sureness).into_iter().map(|p| ((1.0 - learnt) * p + learnt * (1.0 - p) / others) as f32));
            labels.push(label);
            is_wrong.push(wrong);
        }
        (probabilities, labels, is_wrong)
    }

    #[test]
    fn noise_and_sureness_are_told_apart() {
        for (n_classes, sureness, learnt) in [(2, 1.0, 0.0), (2, 3.0, 0.0), (2, 0.5, 0.0), (8, 2.0, 0.0), (2, 1.0, 0.06), (2, 3.0, 0.03)] {
            let (probabilities, labels, is_wrong) = drawn(n_classes, sureness, learnt);
            let given = Given { probabilities: &probabilities, labels: &labels, n_classes };
            let noise = LabelNoise::fit(&given);
            let said = noise.wrong(&given);
            let rate = noise.rates.iter().sum::<f64>() / n_classes as f64;
            let rows: Vec<usize> = (0..N_ROWS).filter(|&row| said[row] >= 0.5).collect();
            let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / rows.len() as f64;
            let wrong = mean(&mut rows.iter().map(|&row| f64::from(u8::from(is_wrong[row]))));
            let expected = mean(&mut rows.iter().map(|&row| said[row]));
            println!(
                "{n_classes} classes, {sureness} times as sure, {learnt} learnt: t {:.2}, s {}, noise {:.3}; {} likelier wrong, {wrong:.2} are, {expected:.2} said",
                noise.temperature,
                noise.learnt,
                rate,
                rows.len()
            );
            assert!((rate - 0.08).abs() < 0.025, "{}", rate);
            assert!((wrong - expected).abs() < 0.12, "of rows said to be wrong with {expected:.2}, {wrong:.2} are");
        }
    }

    /// p = 0.8 and 0.2, labelled 1; a row of class 0 is labelled otherwise in 1 of 10 cases, one of class 1 in 2.
    #[test]
    fn a_row_by_hand() {
        let noise = LabelNoise { temperature: 1.0, learnt: 0.0, rates: vec![0.1, 0.2] };
        let given = Given { probabilities: &[0.8, 0.2], labels: &[1], n_classes: 2 };
        assert!((noise.wrong(&given)[0] - 0.08 / (0.08 + 0.16)).abs() < 1e-7);
        let cleared = LabelNoise { learnt: 0.05, ..noise.clone() };
        assert!((cleared.wrong(&given)[0] - 0.075 / (0.075 + 0.12)).abs() < 1e-7, "0.75 against 0.15");
        let colder = LabelNoise { temperature: 0.5, ..noise };
        assert!((colder.wrong(&given)[0] - 0.064 / (0.064 + 0.032)).abs() < 1e-7, "0.64 against 0.04, made to sum up to 1");
        // Of 8 rows two are labelled otherwise, so that the row more of each class counts a quarter.
        assert_eq!(rates(&[[3.0, 0.0], [5.0, 2.0]]), [0.25 / 4.0, 2.25 / 6.0]);
    }
}
