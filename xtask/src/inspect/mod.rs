//! `cargo xtask inspect`: what a checkpoint is, and what a model sees of a file of rows.

mod data;
mod model;

use clap::{Args, Subcommand};
use kiln_core::Result;

/// What to look at.
#[derive(Args, Debug)]
pub struct InspectArgs {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// The family, size, memory and trainable parameters of a model folder
    Model(model::ModelArgs),
    /// The first rows of a file as a model sees them, which tokens train, how long rows are, and what is wrong with them
    Data(data::DataArgs),
}

/// Prints what there is to know.
///
/// # Errors
/// If the model, the file or a setting is bad.
pub fn run(args: &InspectArgs) -> Result<()> {
    match &args.subject {
        Subject::Model(args) => model::run(args),
        Subject::Data(args) => data::run(args),
    }
}

/// A number with its digits in threes.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([grouped(7), grouped(1234), grouped(134_515_008)], ["7", "1 234", "134 515 008"]);
    }
}
