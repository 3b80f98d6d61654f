//! Metrics and their uncertainty, as plain functions over slices.
//!
//! - [`classification`]: confusion counts, precision, recall, F1 and Matthews correlation, with scikit-learn's conventions
//! - [`binary`]: area under the ROC curve and average precision of scores
//! - [`calibration`]: whether a model is right as often as it is sure: reliability, expected calibration error, Brier's score
//! - [`regression`]: squared and absolute error, Pearson's and Spearman's correlation
//! - [`entities`]: precision, recall and F1 of named entities, strict IOB2 as in seqeval
//! - [`fairness`]: how a classifier's answers differ between groups of people, as in fairlearn
//! - [`retrieval`]: nDCG, MRR, recall, precision and MAP as in trec_eval
//! - [`bleu`]: corpus BLEU as in sacreBLEU
//! - [`answers`]: exact match and token F1 as in SQuAD, ROUGE-L
//! - [`scores`]: precision, recall and F1 themselves, shared by classifiers and taggers
//! - [`thresholds`]: a threshold for each group, so that a classifier treats them alike
//! - [`perplexity`]: negative log-likelihood per token and per byte, whatever the batches were
//! - [`figure`]: a figure with its interval, and its paired difference to that of another model
//! - [`evaluation`]: the figure a model is judged by at a task, and what belongs to it
//! - [`bootstrap`]: how far a score could have come out otherwise, and whether "after" really beats "before"
//!
//! All have one shape. A metric is a function from a slice of items, one per example and the prediction before the gold, to a
//! number; where an example is costly to score, its item is a small struct of counts made once ([`bleu::Segment`],
//! [`entities::Sentence`], [`retrieval::Ranking`]). What is scored example by example is averaged by [`bootstrap::mean`]. So every
//! metric is a statistic for [`bootstrap::Bootstrap`], and no figure need be without its interval. Where a metric is undefined
//! it is NaN, unless the field's reference says 0.
//!
//! Nothing here reads files or knows about tensors. Slices that do not fit together are a bug of the caller and panic with
//! both lengths.
//!
//! `cargo run --example eval` compares two classifiers (`crates/eval/examples/eval.rs`).
//!
//! A classifier:
//!
//! ```
//! use kiln_eval::bootstrap::{Bootstrap, mean};
//! use kiln_eval::classification::{ClassificationReport, Confusion};
//!
//! let golds = [0, 0, 1, 1, 1, 0];
//! let predictions = [0, 1, 1, 1, 0, 0];
//! let report = ClassificationReport::new(&Confusion::new(&predictions, &golds, 2), &["bad", "good"]);
//! println!("{report}");
//!
//! let correct: Vec<f64> = predictions.iter().zip(&golds).map(|(p, g)| f64::from(p == g)).collect();
//! let interval = Bootstrap::new(7).interval(&correct, mean);
//! assert!(interval.contains(report.accuracy));
//!
//! let pairs: Vec<(usize, usize)> = predictions.into_iter().zip(golds).collect();
//! let matthews = |pairs: &[(usize, usize)]| Confusion::of_pairs(pairs, 2).matthews_correlation();
//! assert!(Bootstrap::new(7).interval(&pairs, matthews).contains(1.0 / 3.0));
//! ```
//!
//! Scores of similarity, before and after training, on the same pairs of sentences:
//!
//! ```
//! use kiln_eval::bootstrap::Bootstrap;
//! use kiln_eval::regression::spearman;
//!
//! let golds = [0.0, 1.0, 2.5, 3.0, 4.5, 5.0];
//! let pairs = |similarities: [f64; 6]| -> Vec<(f64, f64)> { similarities.into_iter().zip(golds).collect() };
//! let before = pairs([0.3, 0.1, 0.5, 0.4, 0.2, 0.6]);
//! let after = pairs([0.1, 0.2, 0.4, 0.5, 0.8, 0.7]);
//! let gain = Bootstrap::new(7).paired_difference(&before, &after, spearman);
//! println!("{:.3} to {:.3}, gain between {:.3} and {:.3}", spearman(&before), spearman(&after), gain.low, gain.high);
//! assert!(gain.contains(spearman(&after) - spearman(&before)));
//! ```
//!
//! Scores of a detector, such as how likely a row is of the positive class:
//!
//! ```
//! use kiln_eval::binary::roc_auc;
//! use kiln_eval::bootstrap::Bootstrap;
//!
//! let pairs = [(0.9, true), (0.2, false), (0.6, true), (0.7, false), (0.1, false)];
//! assert!(Bootstrap::new(7).interval(&pairs, roc_auc).contains(roc_auc(&pairs)));
//! ```

pub mod answers;
pub mod binary;
pub mod bleu;
pub mod bootstrap;
pub mod calibration;
pub mod classification;
pub mod entities;
pub mod evaluation;
pub mod fairness;
pub mod figure;
pub mod perplexity;
mod ranks;
pub mod regression;
pub mod retrieval;
pub mod scores;
pub mod thresholds;
