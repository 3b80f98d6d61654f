//! Training without labels in the demo.

use super::{Demo, HELD_OUT_ROWS, Line, with_control};
use kiln_contrastive::config::Objective;
use kiln_contrastive::train::{Summary, train};
use kiln_core::Result;
use kiln_data::world::Paraphrase;
use std::path::Path;

const PARAPHRASES: usize = 4000;

impl Demo {
    /// Which sentence says the same, by embeddings.
    pub(super) fn embeddings(&self, encoder: &Path) -> Result<Line> {
        let rows = self.world.paraphrase_rows(PARAPHRASES);
        let dealt = self.deal(&rows, |row: &mut Paraphrase, other| row.positive.clone_from(&other.positive));
        self.write_rows("paraphrases", &rows, &dealt, &self.world.held_out().paraphrase_rows(HELD_OUT_ROWS))?;
        let runs = with_control("paraphrases", "contrastive-mnrl", |rows, out| {
            let mut config = self.contrastive(encoder, rows, "paraphrases");
            config.objective = Objective::Mnrl;
            config.epochs = 2;
            config.update.learning_rate = 1e-3;
            config.update.warmup_share = 0.1;
            train(&config, &self.device, &self.path(out))
        })?;
        Ok(line("contrastive mnrl", "contrastive-mnrl", &runs))
    }
}

/// The line of a run and its control.
pub(super) fn line(name: &'static str, run: &'static str, [summary, control]: &[Summary; 2]) -> Line {
    let figures = [&summary.before, &summary.after, &control.after].map(|evaluation| &evaluation.figures[0]);
    Line::new(name, run, summary.effort.train_seconds, figures)
}
