//! The runner: every user command and every developer command is `cargo xtask COMMAND`.

mod demo;
mod develop;
mod evaluate;
mod generate;
mod settings;
mod sft;

use clap::{Args, Parser, Subcommand};
use kiln_core::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Fine-tunes language models.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a small world, train a tokenizer and base models in it, fine-tune them, and show before, after and control
    Demo(demo::DemoArgs),
    /// Supervised fine-tuning: classification, prompts and completions, plain text
    Sft(MethodArgs),
    /// Accuracy of a classifier or perplexity of a decoder on a file of rows
    Eval(MethodArgs),
    /// Continue a prompt
    Generate(MethodArgs),
    /// Formatting, lints and documentation of the workspace
    Check,
    /// All tests of the workspace
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// What every method takes.
#[derive(Args, Debug)]
struct MethodArgs {
    /// Settings, in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, over those of the file: --set update.learning_rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    device: String,
    /// Seed of everything random, over that of the settings
    #[arg(long)]
    seed: Option<u64>,
    /// Folder for what the run leaves [default: the next free runs/METHOD-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Sft(args) => sft::run(&args),
        Command::Eval(args) => evaluate::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Check => return develop::check(),
        Command::Test { rest } => return develop::test(&rest),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            exit_code(&error)
        }
    }
}

/// 2 for what the user can mend in the input, 1 for training that failed, 130 for an interrupt.
fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::Diverged { .. } => 1,
        Error::Interrupted { .. } => 130,
        _ => 2,
    })
}

/// The folder the user named, or the next free `runs/METHOD-N`.
fn out_folder(named: Option<&PathBuf>, method: &str) -> Result<PathBuf> {
    if let Some(folder) = named {
        return Ok(folder.clone());
    }
    let free = (1..).map(|number| PathBuf::from(format!("runs/{method}-{number}"))).find(|folder| !folder.exists());
    free.ok_or_else(|| Error::config("--out", "no free folder under runs"))
}
