//! The toolbox of every training loop: [`updater::Updater`] accumulates, clips, schedules and steps; [`run::Run`] keeps the folder, the
//! metrics, the checkpoints and the progress display; [`evaluate`] has what evaluations share, [`effort::Effort`] what a run took. Nothing here calls a loop back.
//!
//! `cargo run --example train` is a whole loop (`crates/train/examples/train.rs`).

pub mod card;
pub mod checkpoint;
pub mod effort;
pub mod evaluate;
pub mod groups;
pub mod guard;
pub mod manifest;
pub mod mixout;
pub mod named;
pub mod optimizer;
pub mod plot;
pub mod preflight;
mod progress;
pub mod report;
pub mod run;
pub mod schedule;
pub mod thresholds;
pub mod updater;
pub mod validation;
