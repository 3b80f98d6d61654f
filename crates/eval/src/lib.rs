//! Metrics and their uncertainty, as plain functions over slices.
//!
//! - [`classification`]: confusion counts, precision, recall and F1, with scikit-learn's conventions
//! - [`perplexity`]: negative log-likelihood per token and per byte, whatever the batches were
//! - [`bootstrap`]: how far a score could have come out otherwise, and whether "after" really beats "before"
//!
//! Nothing here reads files or knows about tensors. Slices that do not fit together are a bug of the caller and panic with
//! both lengths.
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
//! assert!(interval.low <= report.accuracy && report.accuracy <= interval.high);
//! ```

pub mod bootstrap;
pub mod classification;
pub mod perplexity;
