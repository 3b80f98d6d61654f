//! Ranking metrics of a search, query by query, as trec_eval (pytrec_eval, BEIR) computes them.
//!
//! A query's metrics are methods of its [`Ranking`]; the figure of a system is their [`mean`](crate::bootstrap::mean) over the
//! queries, which is also the statistic for [`Bootstrap`](crate::bootstrap::Bootstrap):
//!
//! ```
//! use kiln_eval::bootstrap::{Bootstrap, mean};
//! use kiln_eval::retrieval::Ranking;
//!
//! let rankings = [
//!     Ranking::new(&[("d1", 0.9), ("d2", 0.8)], &[("d2", 1)]),
//!     Ranking::new(&[("d7", 0.6), ("d1", 0.2)], &[("d7", 2), ("d3", 1)]),
//! ];
//! let ndcg: Vec<f64> = rankings.iter().map(|ranking| ranking.ndcg(10)).collect();
//! let interval = Bootstrap::new(7).interval(&ndcg, mean);
//! assert!(interval.contains(mean(&ndcg)));
//! ```

use std::collections::BTreeMap;
use std::fmt::Debug;

/// What a system found for one query, best first, and how relevant it was.
///
/// Documents are ordered by descending score; of tied ones the greater identifier comes first, as in trec_eval, so a system
/// gains nothing from the order in which it lists ties. Scores are `f32`, as in trec_eval. A document without a judgement
/// counts as not relevant.
///
/// Every metric looks at the first `k` documents (all of them for `usize::MAX`) and lies between 0 and 1. A query without
/// relevant documents scores 0 and still counts in the mean, as in pytrec_eval.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Relevance of each retrieved document, best first.
    gains: Vec<u32>,
    /// Relevance of every relevant document, retrieved or not, descending.
    ideal: Vec<u32>,
}

impl Ranking {
    /// The ranking of the `retrieved` documents with their scores, in any order, under the query's judgements: documents with
    /// their relevance, 0 for not relevant (negative grades of TREC files are 0 too).
    ///
    /// # Panics
    /// If a document is retrieved or judged twice, or a score is NaN.
    pub fn new<D: Ord + Debug>(retrieved: &[(D, f32)], judgements: &[(D, u32)]) -> Self {
        let mut relevance = BTreeMap::new();
        for (document, grade) in judgements {
            assert!(relevance.insert(document, *grade).is_none(), "{document:?} is judged twice");
        }
        let mut order: Vec<&(D, f32)> = retrieved.iter().collect();
        order.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        for pair in order.windows(2) {
            assert!(pair[0].0 != pair[1].0, "{:?} is retrieved twice", pair[0].0);
        }
        // The sort is stable, so ties stay in descending order of their identifiers.
        order.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or_else(|| panic!("a score of {:?} and {:?} is NaN", a.0, b.0)));
        let gains = order.iter().map(|(document, _)| relevance.get(document).copied().unwrap_or(0)).collect();
        let mut ideal: Vec<u32> = relevance.into_values().filter(|&grade| grade > 0).collect();
        ideal.sort_unstable_by(|a, b| b.cmp(a));
        Self { gains, ideal }
    }

    /// Normalised discounted cumulative gain at `k`, with the relevance itself as gain.
    ///
    /// ```text
    /// dcg = Σ_{rank ≤ k} relevance / log2(rank + 1)      ndcg = dcg / dcg of the best possible order
    /// ```
    ///
    /// Source: Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques" (2002), with the discount of Burges et
    /// al. (2005) from the second rank on. Other than there, the gain is not `2^relevance - 1`.
    pub fn ndcg(&self, k: usize) -> f64 {
        let dcg = |gains: &[u32]| -> f64 {
            let discounted = |(index, &gain): (usize, &u32)| f64::from(gain) / (index as f64 + 2.0).log2();
            gains.iter().take(k).enumerate().map(discounted).sum()
        };
        let ideal = dcg(&self.ideal);
        if ideal == 0.0 { 0.0 } else { dcg(&self.gains) / ideal }
    }

    /// One over the rank of the first relevant document; 0 if none is among the first `k`. Its mean is MRR@k.
    ///
    /// Source: Voorhees, "The TREC-8 Question Answering Track Report" (1999).
    pub fn reciprocal_rank(&self, k: usize) -> f64 {
        self.relevant_ranks(k).next().map_or(0.0, |rank| 1.0 / rank as f64)
    }

    /// Share of the relevant documents that are among the first `k`.
    pub fn recall(&self, k: usize) -> f64 {
        self.per_relevant(self.relevant_ranks(k).count() as f64)
    }

    /// Share of the first `k` that is relevant; places left empty count as not relevant.
    ///
    /// # Panics
    /// If `k` is 0.
    pub fn precision(&self, k: usize) -> f64 {
        assert!(k > 0, "precision at 0 documents");
        self.relevant_ranks(k).count() as f64 / k as f64
    }

    /// Mean over all relevant documents of the precision at their rank, 0 for one that is not among the first `k`. Its mean is
    /// MAP@k, and MAP for `usize::MAX`.
    ///
    /// ```text
    /// ap = 1/n_relevant · Σ_{relevant at rank ≤ k} precision at rank
    /// ```
    pub fn average_precision(&self, k: usize) -> f64 {
        self.per_relevant(self.relevant_ranks(k).enumerate().map(|(n_before, rank)| (n_before + 1) as f64 / rank as f64).sum())
    }

    /// The ranks, from 1, of the relevant documents among the first `k`.
    fn relevant_ranks(&self, k: usize) -> impl Iterator<Item = usize> {
        self.gains.iter().take(k).enumerate().filter(|(_, gain)| **gain > 0).map(|(index, _)| index + 1)
    }

    fn per_relevant(&self, sum: f64) -> f64 {
        if self.ideal.is_empty() { 0.0 } else { sum / self.ideal.len() as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::draw;

    /// Ranks 1 to 4 hold b (grade 1), d (none), a (grade 3), e (unjudged); c (grade 2) was not found.
    fn ranking() -> Ranking {
        Ranking::new(&[("a", 0.2), ("b", 0.9), ("d", 0.5), ("e", -1.0)], &[("a", 3), ("b", 1), ("c", 2), ("d", 0)])
    }

    #[test]
    fn by_hand() {
        let ranking = ranking();
        let (found, ideal) = (1.0 + 3.0 / 2.0, 3.0 + 2.0 / 3f64.log2() + 1.0 / 2.0);
        assert!((ranking.ndcg(10) - found / ideal).abs() < 1e-15);
        assert!((ranking.ndcg(2) - 1.0 / (3.0 + 2.0 / 3f64.log2())).abs() < 1e-15);
        assert_eq!(ranking.reciprocal_rank(10), 1.0);
        assert_eq!([1, 2, 3, 10].map(|k| ranking.recall(k)), [1.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!([1, 2, 3, 10].map(|k| ranking.precision(k)), [1.0, 0.5, 2.0 / 3.0, 0.2]);
        assert_eq!(ranking.average_precision(usize::MAX), (1.0 + 2.0 / 3.0) / 3.0);
        assert_eq!(ranking.average_precision(2), 1.0 / 3.0);
    }

    #[test]
    fn the_first_relevant_document_must_be_among_the_first_k() {
        let ranking = Ranking::new(&[("a", 3.0), ("b", 2.0), ("c", 1.0)], &[("c", 1)]);
        assert_eq!([2, 3, 4].map(|k| ranking.reciprocal_rank(k)), [0.0, 1.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn the_greater_identifier_wins_a_tie_in_any_order_of_listing() {
        let judgements = [("b", 1)];
        let one = Ranking::new(&[("a", 0.5), ("b", 0.5), ("c", 0.5)], &judgements);
        let other = Ranking::new(&[("c", 0.5), ("b", 0.5), ("a", 0.5)], &judgements);
        assert_eq!(one, other);
        assert_eq!(one.reciprocal_rank(3), 0.5);
    }

    #[test]
    fn the_best_order_scores_one_and_a_better_swap_never_lowers() {
        for trial in 0..50 {
            let grades: Vec<(u64, u32)> = (0..12).map(|i| (i, draw(trial, i, 4) as u32)).collect();
            if grades.iter().all(|(_, grade)| *grade == 0) {
                continue;
            }
            let best: Vec<(u64, f32)> = grades.iter().map(|&(i, grade)| (i, grade as f32)).collect();
            let best = Ranking::new(&best, &grades);
            assert_eq!([best.ndcg(5), best.reciprocal_rank(5), best.recall(12), best.average_precision(12)], [1.0; 4]);
            let mut scored: Vec<(u64, f32)> = (0..12).map(|i| (i, -(i as f32))).collect();
            let before = Ranking::new(&scored, &grades);
            let (a, b) = (draw(trial, 20, 12), draw(trial, 21, 12));
            if (grades[a].1 > grades[b].1) == (scored[a].1 < scored[b].1) {
                (scored[a].1, scored[b].1) = (scored[b].1, scored[a].1);
            }
            let after = Ranking::new(&scored, &grades);
            for metric in [Ranking::ndcg, Ranking::reciprocal_rank, Ranking::recall, Ranking::precision, Ranking::average_precision] {
                assert!(metric(&after, 6) >= metric(&before, 6), "trial {trial}");
            }
        }
    }

    #[test]
    fn nothing_relevant_or_nothing_found_is_zero() {
        for ranking in [Ranking::new(&[("a", 1.0)], &[("a", 0)]), Ranking::new(&[], &[("a", 1)]), Ranking::new::<&str>(&[], &[])] {
            let all = [ranking.ndcg(3), ranking.reciprocal_rank(3), ranking.recall(3), ranking.precision(3), ranking.average_precision(3)];
            assert_eq!(all, [0.0; 5]);
        }
    }

    #[test]
    #[should_panic(expected = "\"a\" is retrieved twice")]
    fn a_document_found_twice_panics() {
        Ranking::new(&[("a", 1.0), ("b", 0.5), ("a", 0.2)], &[]);
    }
}
