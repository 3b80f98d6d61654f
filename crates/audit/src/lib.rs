//! What is wrong with data, and unfair in a model: each check a function of slices, and all of them at once on a file.
//!
//! Checks of single rows:
//!
//! - [`garbled`]: empty, wrongly decoded, full of control characters, stuck
//! - [`truncated`]: cut off at one length
//! - [`language`]: in another language or script than the rest
//! - [`personal`]: e-mail addresses, phone numbers, cards, accounts, addresses of machines, keys; and their redaction
//! - [`copies`]: there twice, exactly or nearly; trained on and held out; labelled two ways
//! - [`label_errors`]: labels that a classifier is confident are wrong, from the probabilities that [`classifier`] makes
//! - [`number_errors`]: numbers that are likelier wrong than right, by how far they lie from what is predicted
//! - [`cross_validation`]: the same for classes, tags and numbers, from models that were fine-tuned on the other rows
//! - [`outliers`]: unlike all others
//!
//! Checks of the file as a whole:
//!
//! - [`balance`]: classes with too few rows
//! - [`order`]: whether the order of the rows carries information
//! - [`spurious`]: labels that a word, the length or the source gives away
//! - [`diversity`]: how varied the texts are
//!
//! And of a model: [`bias::audit`] compares groups of people by [`kiln_eval::fairness`] on a file, and exchanges the words of one group for
//! another's; [`benchmarks::ask`] asks a model by published benchmarks.
//! Of a run, [`fit::audit`] says whether it learnt its rows by heart; [`run`] reads it, and leaves with it what audits found.
//! [`statistics`] has the tests behind the checks. [`data::audit`] makes all checks of data on a file, and [`limits`] says what an audit must not
//! exceed.
//!
//! ```
//! use kiln_audit::garbled::{Damage, damage};
//! use kiln_audit::label_errors::Given;
//!
//! assert_eq!(damage("itâ€™s fine"), Some(Damage::Mojibake));
//!
//! // What a classifier that has not seen them says of five rows. It is sure that the third is of class 1.
//! let probabilities = [0.9, 0.1, 0.8, 0.2, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8];
//! let given = Given { probabilities: &probabilities, labels: &[0, 0, 0, 1, 1], n_classes: 2 };
//! assert_eq!(given.errors(), [2]);
//! ```

pub mod balance;
pub mod benchmarks;
pub mod bias;
pub mod classifier;
pub mod copies;
pub mod cross_validation;
pub mod data;
pub mod diversity;
pub mod fit;
pub mod garbled;
pub mod label_errors;
pub mod label_noise;
pub mod language;
pub mod limits;
pub mod number_errors;
pub mod order;
pub mod outliers;
pub mod personal;
mod predict;
pub mod run;
pub mod spurious;
pub mod statistics;
pub mod truncated;
