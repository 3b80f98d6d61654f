//! A look at the rows of a run: as they stand in their files, and at what became of them.

use super::rows::{self, Fields};
use super::{Finding, settings, tokens};
use kiln_core::Result;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::examples::{Counts, Example};
use kiln_data::rows::{Format, Table};
use kiln_data::source::{DataConfig, Draw, Sample};
use kiln_data::store::Store;

/// The rows of a run.
pub struct Look<'a> {
    /// Where they are.
    pub data: &'a DataConfig,
    /// The names of the columns of files without a header.
    pub names: &'a [String],
    /// Says which rows do not train, and what makes the text of a row.
    pub draw: Draw<'a>,
    /// The column of a row's class, if it has one.
    pub class: Option<&'a str>,
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What became of the rows of each training file.
    pub files: &'a [Counts],
}

/// Rows of a file that are looked at for the stop token.
const MOST_ROWS: usize = 1 << 16;

impl Look<'_> {
    /// What is wrong with the rows of all files and with what became of them.
    ///
    /// # Errors
    /// If a file or a class cannot be read.
    pub fn findings(&self) -> Result<Vec<Finding>> {
        let Sample { train, held_out, validation } = self.data.sample(self.names, self.draw)?;
        let &Self { draw, class, .. } = self;
        let fields = move |table: &Table| Fields { texts: draw.texts.of(table), class };
        let mut findings = rows::check(&train, &held_out, &fields)?;
        if !validation.is_empty() {
            findings.extend(rows::leaked_validation(&train, &validation, &fields));
        }
        let tables: Vec<&Table> = train.iter().chain(&held_out).chain(&validation).collect();
        findings.extend(tokens::special(&tables, &fields, self.tokenizer)?);
        let n_held_out = held_out.iter().map(|table| table.rows.len()).sum();
        findings.extend(if held_out.is_empty() { None } else { settings::held_out(n_held_out) });
        findings.extend(self.data.train.iter().zip(self.files).filter_map(|(source, counts)| tokens::cut(&source.path, counts)));
        Ok(findings)
    }

    /// Files in whose rows nothing that is learnt ends a generation; `example` is a row as a decoder learns to continue it.
    ///
    /// # Errors
    /// If a row cannot be read.
    pub fn without_end<R: Clone>(
        &self,
        train: &Store<R>,
        end_ids: &[u32],
        example: impl Fn(&R) -> Option<&Example>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        // Running text has no ends.
        let has_ends = |path| Format::of(path) != Some(Format::Text);
        for (source, indices) in self.data.train.iter().zip(train.files()).filter(|(source, _)| has_ends(&source.path)) {
            let rows = train.pick(&indices.take(MOST_ROWS).collect::<Vec<_>>())?;
            findings.extend(tokens::stop(&source.path, rows.iter().filter_map(|row| example(row)), end_ids));
        }
        Ok(findings)
    }
}
