//! Learning new domains in the demo, without forgetting the old one.

use super::{Demo, HELD_OUT_ROWS, Line};
use kiln_continual::config::{ContinualConfig, DomainConfig};
use kiln_continual::train::{Summary, train};
use kiln_core::Result;
use kiln_data::source::DataConfig;
use kiln_data::world::{Document, Domain, World};
use std::path::Path;

/// The domains in their order, and what their files are called.
const STREAM: [(Domain, &str); 2] = [(Domain::Kitchen, "kitchen"), (Domain::ShipsLog, "ships-log")];
const DOCUMENTS_PER_DOMAIN: usize = 1500;
/// How much the perplexity of general text may rise.
const BUDGET: f64 = 0.05;

impl Demo {
    /// A decoder that knows everyday stories learns a cook's notes and then a ship's log: what it learns of the last, against a control on as
    /// many words dealt out at random; and what it forgets of everyday stories, against training that does nothing about it.
    pub(super) fn continual(&self, decoder: &Path) -> Result<[Line; 2]> {
        for (domain, name) in STREAM {
            let documents = |world: &World, n| world.documents(domain, n);
            let rows: Vec<Document> = documents(&self.world, DOCUMENTS_PER_DOMAIN);
            self.write_rows(name, &rows, &self.deal_words(&rows), &documents(&self.world.held_out(), HELD_OUT_ROWS / 2))?;
        }
        let run = |suffix: &str, out: &'static str, remember: bool| {
            eprintln!("{out}");
            // The rows of a small grammar repeat, which the pre-flight would stop at.
            let mut config = ContinualConfig { model: decoder.to_owned(), seed: self.seed, force: true, ..ContinualConfig::default() };
            let held_out = |name: &str| Some(self.rows(&format!("{name}-held-out")));
            config.general =
                Some(DataConfig { train: self.rows("documents").into(), held_out: held_out("documents"), ..DataConfig::default() });
            let domain = |(_, name): &(Domain, &str)| DomainConfig {
                name: (*name).into(),
                train: self.rows(&format!("{name}{suffix}")).into(),
                held_out: held_out(name),
                ..DomainConfig::default()
            };
            config.domains = STREAM.iter().map(domain).collect();
            config.update.learning_rate = 1e-3;
            config.update.warmup_share = 0.1;
            if remember {
                config.replay.share = 0.3;
                config.budget = Some(BUDGET);
            }
            train(&config, &self.device, &self.path(out))
        };
        let naive = run("", "continual-naive", false)?;
        let summary = run("", "continual", true)?;
        let control = run("-control", "continual-control", true)?;
        let line = |name, metric, column: usize, control: &Summary| {
            let at = |summary: &Summary, last: bool| {
                let stages = &summary.matrix.stages;
                let stage = if last { stages.last() } else { stages.first() };
                stage.expect("the stream has its stages").perplexities[column].clone()
            };
            Line {
                name,
                metric,
                higher_is_better: false,
                before: at(&summary, false).value,
                after: at(&summary, true).value,
                control: at(control, true).value,
                interval: at(&summary, true).interval,
                seconds: summary.effort.train_seconds,
                run: "continual",
            }
        };
        Ok([line("continual, ship's log", "perplexity", STREAM.len(), &control), line("continual, everyday", "perplexity", 0, &naive)])
    }
}
