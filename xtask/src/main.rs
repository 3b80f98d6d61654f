//! The runner: every user command and every developer command is `cargo xtask COMMAND`.

mod audit;
mod bench;
mod config;
mod continual;
mod contrastive;
mod demo;
mod develop;
mod evaluate;
mod fine_tune_folds;
mod generate;
mod inspect;
mod multitask;
mod plan;
mod resume;
mod rl;
mod runs;
mod settings;
mod sft;
mod tokenizer;
mod verify;
mod verify_run;

use clap::{Args, Parser, Subcommand};
use kiln_core::{Error, Result, files};
use kiln_kernels::host::keep_freed_memory;
use std::path::{Path, PathBuf};
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
    /// Policy gradients from rewards: sampled completions, rewarded
    Rl(MethodArgs),
    /// Masked language modelling and embedding tuning, on texts and pairs without labels
    Contrastive(MethodArgs),
    /// Adapt a language model to the texts of a domain within a budget of forgetting
    Adapt(MethodArgs),
    /// The same for a stream of domains
    Continual(MethodArgs),
    /// Join checkpoints of one model: WiSE-FT, TIES; or put adapters into their base
    Merge(MethodArgs),
    /// Vectors of the texts in a file
    Embed(MethodArgs),
    /// The texts of a file that are nearest to a query
    Search(MethodArgs),
    /// Several tasks on one trunk, a head for each
    Multitask(MethodArgs),
    /// What all heads of a model of several tasks say of the rows of a file
    Predict(MethodArgs),
    /// One task of a model of several as a model folder of its own
    Export(MethodArgs),
    /// Go on with a run that was interrupted or killed
    Resume(resume::ResumeArgs),
    /// List runs with their states and figures, or set some side by side
    Runs(runs::RunsArgs),
    /// Make steps of a run once more: are the losses and weights the same to the last bit?
    VerifyRun(verify_run::VerifyRunArgs),
    /// How good a classifier, tagger, decoder or sentence encoder is on a file of rows
    Eval(MethodArgs),
    /// Continue a prompt, or each prompt of a file
    Generate(MethodArgs),
    /// Train a tokenizer on texts
    Tokenizer(MethodArgs),
    /// Give a model's tokenizer more tokens, and the model embeddings for them
    AddTokens(MethodArgs),
    /// What a run would do and take, and what is wrong with its rows and settings, without training
    Plan(plan::PlanArgs),
    /// The settings of a method with their defaults and what they mean, in TOML
    Config(config::ConfigArgs),
    /// Whether checkpoints compute what another implementation computed from them
    Verify(verify::VerifyArgs),
    /// What is wrong with data, whether a classifier treats groups of people alike, and whether a run overfits
    Audit(audit::AuditArgs),
    /// What a model is, what it needs, and what a training would train
    Inspect(inspect::InspectArgs),
    /// Time the work of the common methods, against the Python peers and against the machine
    Bench(Box<bench::BenchArgs>),
    /// Formatting, lints and documentation of the workspace
    Check,
    /// All tests of the workspace
    Test {
        /// With many more kills in the tests of runs that go on, which takes minutes
        #[arg(long)]
        long: bool,
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
    /// Train where a finding of the pre-flight would stop the run
    #[arg(long)]
    force: bool,
    /// Folder for what the run leaves [default: the next free runs/METHOD-N]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = Cli::parse();
    // On a thread of the pool: work that another thread asks of the pool begins and ends with a switch between the two.
    rayon::scope(|_| run(cli))
}

fn run(cli: Cli) -> ExitCode {
    let outcome = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Sft(args) => sft::run(&args),
        Command::Rl(args) => rl::run(&args),
        Command::Contrastive(args) => contrastive::run(&args),
        Command::Adapt(args) => continual::adapt(&args),
        Command::Continual(args) => continual::run(&args),
        Command::Merge(args) => continual::merge(&args),
        Command::Embed(args) => contrastive::embed(&args),
        Command::Search(args) => contrastive::search(&args),
        Command::Multitask(args) => multitask::run(&args),
        Command::Predict(args) => multitask::predict(&args),
        Command::Export(args) => multitask::export(&args),
        Command::Resume(args) => resume::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::VerifyRun(args) => verify_run::run(&args),
        Command::Eval(args) => evaluate::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Tokenizer(args) => tokenizer::train(&args),
        Command::AddTokens(args) => tokenizer::add(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Check => return develop::check(),
        Command::Test { long, rest } => return develop::test(long, &rest),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            exit_code(&error)
        }
    }
}

/// 2 for what the user can mend in the input, 1 for training that failed or did not keep its promise, 130 for an interrupt.
fn exit_code(error: &Error) -> ExitCode {
    ExitCode::from(match error {
        Error::Diverged { .. } | Error::Unmet { .. } => 1,
        Error::Interrupted { .. } => 130,
        _ => 2,
    })
}

/// The file for the results in `folder`.
///
/// # Errors
/// If a run already keeps its own there, or it cannot be written.
fn results_file(folder: &Path) -> Result<PathBuf> {
    match ["results.json", "metrics.jsonl"].into_iter().find(|file| folder.join(file).exists()) {
        Some(file) => Err(Error::config("--out", format!("{} already holds {file}: choose another --out", folder.display()))),
        None => files::check_writable("--out", folder).map(|()| folder.join("results.json")),
    }
}

/// The folder the user named, or the next free `runs/METHOD-N`.
fn out_folder(named: Option<&PathBuf>, method: &str) -> Result<PathBuf> {
    if let Some(folder) = named {
        return Ok(folder.clone());
    }
    let free = (1..).map(|number| PathBuf::from(format!("runs/{method}-{number}"))).find(|folder| !folder.exists());
    free.ok_or_else(|| Error::config("--out", "no free folder under runs"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_continual::config::ContinualConfig;
    use kiln_continual::merge::MergeConfig;
    use kiln_contrastive::config::ContrastiveConfig;
    use kiln_contrastive::embed::{EmbedConfig, SearchConfig};
    use kiln_multitask::checkpoint::ExportConfig;
    use kiln_multitask::config::MultitaskConfig;
    use kiln_multitask::predict::PredictConfig;
    use kiln_rl::config::RlConfig;
    use kiln_rl::reward::RewardConfig;
    use kiln_sft::config::{EvalConfig, SftConfig};

    /// The blocks of README.md in `language`.
    fn blocks(language: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let rest = text.split(&format!("```{language}\n")).skip(1).map(str::to_owned).collect::<Vec<_>>();
        rest.iter().filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
    }

    /// The commands in the `sh` blocks, continued lines joined.
    fn commands() -> Vec<String> {
        let lines = blocks("sh").into_iter().flat_map(|block| block.replace("\\\n", " ").lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.starts_with("cargo xtask ")).collect()
    }

    /// The words of a line as a shell splits them, up to a comment.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in line.chars() {
            match (quote, c) {
                (None, '#') if word.is_empty() => break,
                (None, '\'' | '"') => quote = Some(c),
                (None, ' ') if !word.is_empty() => words.push(std::mem::take(&mut word)),
                (None, ' ') => {}
                (Some(open), _) if open == c => quote = None,
                _ => word.push(c),
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        words
    }

    #[test]
    fn the_commands_of_the_readme_are_understood() {
        let commands = commands();
        assert!(!commands.is_empty());
        for line in commands {
            // clap wants the program's name first.
            let cli = Cli::try_parse_from(&words(&line)[1..]).unwrap_or_else(|error| panic!("{line}\n{error}"));
            let settings = match &cli.command {
                Command::Sft(args) => settings::read::<SftConfig>(args).map(|_| ()),
                Command::Rl(args) => settings::read::<RlConfig>(args).map(|_| ()),
                Command::Contrastive(args) => settings::read::<ContrastiveConfig>(args).map(|_| ()),
                Command::Adapt(args) | Command::Continual(args) => settings::read::<ContinualConfig>(args).map(|_| ()),
                Command::Merge(args) => settings::read::<MergeConfig>(args).map(|_| ()),
                Command::Embed(args) => settings::read::<EmbedConfig>(args).map(|_| ()),
                Command::Search(args) => settings::read::<SearchConfig>(args).map(|_| ()),
                Command::Multitask(args) => settings::read::<MultitaskConfig>(args).map(|_| ()),
                Command::Predict(args) => settings::read::<PredictConfig>(args).map(|_| ()),
                Command::Export(args) => settings::read::<ExportConfig>(args).map(|_| ()),
                Command::Eval(args) => {
                    let encoder = |_| settings::read::<kiln_contrastive::config::EvalConfig>(args).map(|_| ());
                    settings::read::<EvalConfig>(args).map(|_| ()).or_else(encoder)
                }
                Command::Generate(args) => settings::read::<generate::GenerateConfig>(args).map(|_| ()),
                Command::Tokenizer(args) => settings::read::<tokenizer::TokenizerConfig>(args).map(|_| ()),
                Command::AddTokens(args) => settings::read::<tokenizer::AddTokensConfig>(args).map(|_| ()),
                Command::Audit(args) => args.settings(),
                Command::Demo(_)
                | Command::Bench(_)
                | Command::Config(_)
                | Command::Plan(_)
                | Command::Verify(_)
                | Command::Inspect(_)
                | Command::Resume(_)
                | Command::Runs(_)
                | Command::VerifyRun(_)
                | Command::Check
                | Command::Test { .. } => Ok(()),
            };
            settings.unwrap_or_else(|error| panic!("{line}\n{error}"));
        }
    }

    #[test]
    fn the_settings_of_the_readme_are_the_defaults() {
        let [sft, contrastive, continual, merge, multitask, rl] = blocks("toml").try_into().expect("a block of settings for each method");
        let mut config: SftConfig = toml::from_str(&sft).unwrap_or_else(|error| panic!("{error}"));
        let default = SftConfig::default();
        assert_eq!(config.adapter.take(), Some(kiln_core::adapter::LoraConfig::default()));
        // What has no default is filled in with an example.
        config.model.clone_from(&default.model);
        config.data = kiln_data::source::DataConfig { held_out_share: config.data.held_out_share, ..default.data.clone() };
        config.columns.names.clear();
        assert_eq!(config, default);

        let mut config: ContrastiveConfig = toml::from_str(&contrastive).unwrap_or_else(|error| panic!("{error}"));
        let default = ContrastiveConfig::default();
        assert_eq!(config.adapter.take(), Some(kiln_core::adapter::LoraConfig::default()));
        config.model.clone_from(&default.model);
        config.data = kiln_data::source::DataConfig { held_out_share: config.data.held_out_share, ..default.data.clone() };
        config.columns.names.clear();
        assert_eq!(config, default);

        let mut config: ContinualConfig = toml::from_str(&continual).unwrap_or_else(|error| panic!("{error}"));
        let default = ContinualConfig::default();
        assert_eq!(config.adapter.take(), Some(kiln_core::adapter::LoraConfig::default()));
        config.model.clone_from(&default.model);
        config.data = kiln_data::source::DataConfig { held_out_share: config.data.held_out_share, ..default.data.clone() };
        config.columns.names.clear();
        assert_eq!(config, default);

        let config: MergeConfig = toml::from_str(&merge).unwrap_or_else(|error| panic!("{error}"));
        let MergeConfig { base, models, output, .. } = config.clone();
        assert_eq!(config, MergeConfig { base, models, output, ..MergeConfig::default() });

        let mut config: MultitaskConfig = toml::from_str(&multitask).unwrap_or_else(|error| panic!("{error}"));
        let mut task = config.tasks.remove("similarity").expect("a task");
        task.data.train = kiln_data::source::Sources::default();
        assert_eq!(task, kiln_multitask::config::TaskConfig::default());
        config.model.clear();
        assert_eq!(config, MultitaskConfig::default());

        let mut config: RlConfig = toml::from_str(&rl).unwrap_or_else(|error| panic!("{error}"));
        let default = RlConfig::default();
        let reward = config.rewards.remove(0);
        assert_eq!(reward, RewardConfig { column: reward.column.clone(), ..RewardConfig::default() });
        config.model.clone_from(&default.model);
        config.data = kiln_data::source::DataConfig { held_out_share: config.data.held_out_share, ..default.data.clone() };
        config.columns.names.clear();
        assert_eq!(config, default);
    }
}
