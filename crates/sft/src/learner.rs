//! What the training loop needs to know of each task.

use crate::config::PreferenceConfig;
use crate::data::preferences::{Pair, margins};
use crate::evaluate::{self, answers};
use crate::mitigation::{Mitigation, MitigationSummary};
use crate::objective::r_drop::Regularization;
use crate::objective::{classification, next_token, preference, regression, token_classification};
use burn::tensor::{Device, Tensor};
use kiln_core::Result;
use kiln_core::classifier::SequenceClassifier;
use kiln_core::language_model::LanguageModel;
use kiln_core::model::Model;
use kiln_core::token_classifier::TokenClassifier;
use kiln_data::examples::{Example, pack};
use kiln_data::grouped::Grouped;
use kiln_data::sequences::{Labelled, packed};
use kiln_data::store::Sequence;
use kiln_data::words::{self, Tagged};
use kiln_eval::evaluation::Evaluation;
use kiln_kernels::random::Key;
use kiln_train::evaluate::{cross_entropies, floats};
use kiln_train::observed::{self, Answer, Observation};
use kiln_train::preflight::Finding;
use std::path::Path;
use std::sync::Arc;

/// A task: what a row of it is, what it costs to be wrong, and how a model is judged.
pub(crate) trait Learner {
    /// The model that learns it.
    type Model: Model;
    /// One row.
    type Row: Clone + Sequence;

    /// Tokens of a row that the head reads.
    fn n_read(row: &Self::Row) -> usize;

    /// The row as a decoder learns to continue it, if it does.
    fn example(_: &Self::Row) -> Option<&Example> {
        None
    }

    /// What the head says of a token or a text: how many numbers.
    fn n_outputs(&self, model: &Self::Model) -> usize;

    /// The summed loss of rows, and what the items it is summed over weigh.
    fn loss(&mut self, model: &Self::Model, rows: &[&Self::Row], dropout: Option<Key>) -> (Tensor<1>, f64);

    /// The figure the run is judged by.
    fn evaluate(&self, model: &Self::Model, rows: &[Self::Row], seed: u64) -> Evaluation;

    /// The loss that a validation looks at: of what training makes small, on other rows.
    fn validation_loss(&self, model: &Self::Model, rows: &[Self::Row], seed: u64) -> f64 {
        self.evaluate(model, rows, seed).loss
    }

    /// Learns which rows train, by index; one that an epoch sees twice is there twice.
    fn begin(&mut self, _: &[usize]) {}

    /// The rows that an epoch sees, of those that it would see by default.
    fn drawn(&self, rows: Vec<usize>, _epoch: u64) -> Vec<usize> {
        rows
    }

    /// What it carries from step to step beside the model, for a checkpoint.
    fn carried(&self) -> &[f64] {
        &[]
    }

    /// Goes on from what a checkpoint has of it.
    fn carry(&mut self, _: Vec<f64>) {}

    /// What is wrong with the rows for this task.
    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Judges the trained model by the held-out rows, after those that validate have been used for what is chosen last.
    ///
    /// # Errors
    /// If a model to be compared with cannot be loaded.
    fn finish(
        &mut self,
        model: &Self::Model,
        [_, held_out]: [&[Self::Row]; 2],
        _: &Device,
        seed: u64,
    ) -> Result<(Evaluation, Option<MitigationSummary>)> {
        Ok((self.evaluate(model, held_out, seed), None))
    }

    /// Writes what belongs to the model into its folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    /// What the model, which does not train, says of a batch of rows, row by row.
    fn observe(&self, model: &Self::Model, rows: &[&Self::Row]) -> Vec<Observation>;

    /// A trained model from its folder.
    fn load(folder: &Path, device: &Device) -> Result<Self::Model>;
}

/// The class of a text or a pair.
pub(crate) struct Classification<'a> {
    pub regularization: Regularization,
    pub mitigation: Mitigation<'a>,
}

impl Learner for Classification<'_> {
    type Model = SequenceClassifier;
    type Row = Grouped;

    fn n_read(_: &Self::Row) -> usize {
        1
    }

    fn n_outputs(&self, model: &SequenceClassifier) -> usize {
        model.classifier.weight.dims()[0]
    }

    fn loss(&mut self, model: &SequenceClassifier, rows: &[&Grouped], dropout: Option<Key>) -> (Tensor<1>, f64) {
        let n_passes = self.regularization.n_passes();
        let passes: Vec<&Labelled<u32>> = rows.iter().map(|row| &row.row).collect::<Vec<_>>().repeat(n_passes);
        let labels: Arc<[u32]> = passes.iter().map(|row| row.label).collect();
        let (mitigation, mut total) = (&mut self.mitigation, rows.len() as f64);
        let weigh = |logits: &Tensor<2>| {
            let losses = || {
                let found = cross_entropies(logits.clone().inner(), &labels);
                let of_row = |row: usize| found.iter().skip(row).step_by(rows.len()).map(|(_, loss)| loss).sum::<f64>() / n_passes as f64;
                (0..rows.len()).map(of_row).collect()
            };
            let (weights, of_all) = mitigation.row_weights(rows, losses)?;
            total = of_all;
            Some(weights)
        };
        let loss = classification::loss(model, &packed(&passes), &labels, self.regularization, weigh, dropout);
        (loss, total)
    }

    fn evaluate(&self, model: &SequenceClassifier, rows: &[Grouped], seed: u64) -> Evaluation {
        let all: Vec<&Labelled<u32>> = rows.iter().map(|row| &row.row).collect();
        self.mitigation.evaluation(&answers(model, &all, self.mitigation.positive()), rows, seed)
    }

    fn validation_loss(&self, model: &SequenceClassifier, rows: &[Grouped], _: u64) -> f64 {
        let all: Vec<&Labelled<u32>> = rows.iter().map(|row| &row.row).collect();
        self.mitigation.validation_loss(&answers(model, &all, self.mitigation.positive()), rows)
    }

    fn begin(&mut self, rows: &[usize]) {
        self.mitigation.begin(rows);
    }

    fn drawn(&self, rows: Vec<usize>, epoch: u64) -> Vec<usize> {
        self.mitigation.drawn(rows, epoch)
    }

    fn carried(&self) -> &[f64] {
        self.mitigation.carried()
    }

    fn carry(&mut self, carried: Vec<f64>) {
        self.mitigation.carry(carried);
    }

    fn findings(&self) -> Vec<Finding> {
        self.mitigation.findings()
    }

    fn finish(
        &mut self,
        model: &SequenceClassifier,
        rows: [&[Grouped]; 2],
        device: &Device,
        seed: u64,
    ) -> Result<(Evaluation, Option<MitigationSummary>)> {
        self.mitigation.finish(model, rows, device, seed)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.mitigation.thresholds().map_or(Ok(()), |thresholds| thresholds.save(folder))
    }

    fn observe(&self, model: &SequenceClassifier, rows: &[&Self::Row]) -> Vec<Observation> {
        let rows: Vec<&Labelled<u32>> = rows.iter().map(|row| &row.row).collect();
        observed::classes(model.forward(&packed(&rows), None), &rows.iter().map(|row| row.label).collect::<Vec<_>>())
    }

    fn load(folder: &Path, device: &Device) -> Result<SequenceClassifier> {
        Ok(SequenceClassifier::load(folder, device)?.0)
    }
}

/// The number of a text or a pair.
pub(crate) struct Regression;

impl Learner for Regression {
    type Model = SequenceClassifier;
    type Row = Labelled<f32>;

    fn n_read(_: &Self::Row) -> usize {
        1
    }

    fn n_outputs(&self, model: &SequenceClassifier) -> usize {
        model.classifier.weight.dims()[0]
    }

    fn loss(&mut self, model: &SequenceClassifier, rows: &[&Self::Row], dropout: Option<Key>) -> (Tensor<1>, f64) {
        let scores: Vec<f32> = rows.iter().map(|row| row.label).collect();
        (regression::loss(model, &packed(rows), &scores, dropout), rows.len() as f64)
    }

    fn evaluate(&self, model: &SequenceClassifier, rows: &[Self::Row], seed: u64) -> Evaluation {
        evaluate::regression(model, rows, seed)
    }

    fn observe(&self, model: &SequenceClassifier, rows: &[&Self::Row]) -> Vec<Observation> {
        let of =
            |(score, row): (f32, &&Self::Row)| Observation { loss: f64::from(score - row.label).powi(2), n_items: 1, answers: Vec::new() };
        floats(model.forward(&packed(rows), None)).into_iter().zip(rows).map(of).collect()
    }

    fn load(folder: &Path, device: &Device) -> Result<SequenceClassifier> {
        Ok(SequenceClassifier::load(folder, device)?.0)
    }
}

/// The tag of each word.
pub(crate) struct TokenClassification(pub Regularization);

impl Learner for TokenClassification {
    type Model = TokenClassifier;
    type Row = Tagged;

    fn n_read(row: &Tagged) -> usize {
        row.supervised().count()
    }

    fn n_outputs(&self, model: &TokenClassifier) -> usize {
        model.config().label_names().len()
    }

    fn loss(&mut self, model: &TokenClassifier, rows: &[&Tagged], dropout: Option<Key>) -> (Tensor<1>, f64) {
        let (batch, words) = words::pack(&rows.repeat(self.0.n_passes()));
        (token_classification::loss(model, &batch, &words, self.0, dropout), (words.targets.len() / self.0.n_passes()) as f64)
    }

    fn evaluate(&self, model: &TokenClassifier, rows: &[Tagged], seed: u64) -> Evaluation {
        evaluate::token_classifier(model, rows, &model.config().label_names(), seed)
    }

    fn observe(&self, model: &TokenClassifier, rows: &[&Tagged]) -> Vec<Observation> {
        let (batch, words) = words::pack(rows);
        let of_words = observed::classes(model.forward(&batch, &words.rows, None), &words.targets);
        observed::joined(of_words, rows.iter().map(|row| row.supervised().count()))
    }

    fn load(folder: &Path, device: &Device) -> Result<TokenClassifier> {
        Ok(TokenClassifier::load(folder, device)?.0)
    }
}

/// The next token, with a share of the loss on all tokens alike.
pub(crate) struct NextToken(pub f64);

impl Learner for NextToken {
    type Model = LanguageModel;
    type Row = Example;

    fn n_read(row: &Example) -> usize {
        row.n_supervised()
    }

    fn example(row: &Example) -> Option<&Example> {
        Some(row)
    }

    fn n_outputs(&self, model: &LanguageModel) -> usize {
        model.config().vocab_size
    }

    fn loss(&mut self, model: &LanguageModel, rows: &[&Example], dropout: Option<Key>) -> (Tensor<1>, f64) {
        let (batch, supervised) = pack(rows);
        (next_token::loss(model, &batch, &supervised, self.0, dropout), supervised.targets.len() as f64)
    }

    fn evaluate(&self, model: &LanguageModel, rows: &[Example], seed: u64) -> Evaluation {
        evaluate::language_model(model, rows, seed)
    }

    fn observe(&self, model: &LanguageModel, rows: &[&Example]) -> Vec<Observation> {
        let (batch, supervised) = pack(rows);
        observed::tokens(model, &batch, &supervised)
    }

    fn load(folder: &Path, device: &Device) -> Result<LanguageModel> {
        Ok(LanguageModel::load(folder, device)?.0)
    }
}

/// Which of two completions is better.
pub(crate) struct Preference<'a>(pub &'a PreferenceConfig);

impl Learner for Preference<'_> {
    type Model = LanguageModel;
    type Row = Pair;

    fn n_read(row: &Pair) -> usize {
        row.chosen.n_supervised() + row.rejected.n_supervised()
    }

    fn example(row: &Pair) -> Option<&Example> {
        Some(&row.chosen)
    }

    fn n_outputs(&self, model: &LanguageModel) -> usize {
        model.config().vocab_size
    }

    fn loss(&mut self, model: &LanguageModel, rows: &[&Pair], dropout: Option<Key>) -> (Tensor<1>, f64) {
        (preference::loss(model, rows, self.0, dropout), rows.len() as f64)
    }

    fn evaluate(&self, model: &LanguageModel, rows: &[Pair], seed: u64) -> Evaluation {
        evaluate::preference(model, rows, self.0, seed)
    }

    fn observe(&self, model: &LanguageModel, rows: &[&Pair]) -> Vec<Observation> {
        let pairs: Vec<Pair> = rows.iter().map(|&pair| pair.clone()).collect();
        let gained = margins(model, &pairs).into_iter().zip(rows).map(|(margin, pair)| self.0.beta * (margin - pair.reference_margin));
        // Of two answers, the chosen completion and the rejected one, the first is right.
        let of = |gain: f64| {
            let (answer, loss) = Answer::new(&[gain as f32, 0.0], 0);
            Observation { loss, n_items: 1, answers: vec![answer] }
        };
        gained.map(of).collect()
    }

    fn load(folder: &Path, device: &Device) -> Result<LanguageModel> {
        Ok(LanguageModel::load(folder, device)?.0)
    }
}
