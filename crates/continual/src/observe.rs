//! What the model of a run says of its rows, row by row, before training and after: for an audit of what it learnt by heart.

use crate::config::ContinualConfig;
use crate::data::{Corpus, Objective};
use crate::train::{Purpose, start};
use burn::module::Module;
use burn::tensor::Device;
use kiln_core::Result;
use kiln_core::language_model::LanguageModel;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::store::Sequence as _;
use kiln_kernels::random::Key;
use kiln_train::evaluate::batches;
use kiln_train::manifest::settings;
use kiln_train::observed::{self, Observation, Observed};
use std::path::Path;

/// Of each domain, by name, what the model before the first one and the trained one say of at most `most_rows` rows that the run in `folder` was trained
/// on, and of as many held-out ones; its seed draws them, and the tokens that are hidden. Rows that validated it, and canaries, are neither.
///
/// # Errors
/// If there is no run, it is not finished, or what it reads is no longer there.
pub fn observe(folder: &Path, most_rows: usize, device: &Device) -> Result<Vec<(String, Observed)>> {
    start(&settings::<ContinualConfig>(folder)?, device, Look { trained: &folder.join("model"), most_rows })
}

/// A look at the rows of a run.
struct Look<'a> {
    /// The trained model.
    trained: &'a Path,
    most_rows: usize,
}

impl Purpose for Look<'_> {
    type Outcome = Vec<(String, Observed)>;

    fn pursue<O: Objective>(
        self,
        config: &ContinualConfig,
        objective: &O,
        model: LanguageModel,
        _: &Tokenizer,
        (corpora, n_general): (Vec<Corpus<O::Row>>, usize),
        device: &Device,
    ) -> Result<Self::Outcome> {
        let models = [model.valid(), LanguageModel::load(self.trained, device)?.0.valid()];
        let says = |model: usize, rows: &[O::Row]| {
            let mut said: Vec<Observation> = Vec::with_capacity(rows.len());
            for batch in batches(rows, |row| row.n_tokens()) {
                let (packed, supervised) = objective.pack(&batch, Key::new(config.seed), said.len());
                said.extend(observed::tokens(&models[model], &packed, &supervised));
            }
            said
        };
        let look = observed::Look { most_rows: self.most_rows, seed: config.seed };
        let of = |corpus: &Corpus<O::Row>| Ok((corpus.name.clone(), look.at(&corpus.rows, says, O::example)?));
        corpora[n_general..].iter().map(of).collect()
    }
}
