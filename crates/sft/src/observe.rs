//! What the model of a run says of its rows, row by row, before training and after: for an audit of what it learnt by heart.

use crate::config::SftConfig;
use crate::learner::Learner;
use crate::train::{Purpose, start};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::source::Rows;
use kiln_data::store::Sequence;
use kiln_train::evaluate::batches;
use kiln_train::manifest::settings;
use kiln_train::observed::{self, Observed};
use std::path::Path;

/// What the model before training and the trained one say of at most `most_rows` rows that the run in `folder` was trained on, and of as many
/// held-out ones; its seed draws them. Rows that validated it, and canaries, are neither.
///
/// # Errors
/// If there is no run, it is not finished, or what it reads is no longer there.
pub fn observe(folder: &Path, most_rows: usize, device: &Device) -> Result<Observed> {
    start(&settings::<SftConfig>(folder)?, device, Look { trained: &folder.join("model"), most_rows })
}

/// A look at the rows of a run.
struct Look<'a> {
    /// The trained model.
    trained: &'a Path,
    most_rows: usize,
}

impl Purpose for Look<'_> {
    type Outcome = Observed;

    fn pursue<L: Learner>(
        self,
        learner: &mut L,
        config: &SftConfig,
        model: L::Model,
        _: &Tokenizer,
        rows: &Rows<L::Row>,
        device: &Device,
    ) -> Result<Observed> {
        let models = [model.valid(), L::load(self.trained, device)?.valid()];
        let says = |model: usize, rows: &[L::Row]| {
            batches(rows, Sequence::n_tokens).flat_map(|batch| learner.observe(&models[model], &batch)).collect::<Vec<_>>()
        };
        observed::Look { most_rows: self.most_rows, seed: config.seed }.at(rows, says, L::example)
    }
}
