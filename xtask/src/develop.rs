//! The developer commands: what a change must pass, cheapest first.

use std::env;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Formatting, lints and documentation of the whole workspace; a warning counts as a failure.
pub fn check() -> ExitCode {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run([cargo(&["fmt", "--all", "--check"]), cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]), doc])
}

/// All tests of the workspace, the long ones in full if so asked, with `extra` arguments for `cargo test`.
pub fn test(long: bool, extra: &[String]) -> ExitCode {
    let mut test = cargo(&["test", "--workspace"]);
    if long {
        test.env("KILN_LONG_TESTS", "1");
    }
    test.args(extra);
    run([test])
}

/// The cargo that started us, so that a pinned toolchain stays pinned.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Runs the commands up to the first that fails, whose exit code it returns, and says how long each took.
fn run(commands: impl IntoIterator<Item = Command>) -> ExitCode {
    let mut summary = String::new();
    let mut exit_code = ExitCode::SUCCESS;
    for mut command in commands {
        let line = line(&command);
        eprintln!("\n$ {line}");
        let start = Instant::now();
        let status = match command.status() {
            Ok(status) => status,
            Err(error) => {
                eprintln!("error: cannot start {}: {error}", command.get_program().display());
                return ExitCode::FAILURE;
            }
        };
        let verdict = if status.success() { "passed" } else { "FAILED" };
        summary += &format!("{verdict} {:7.1} s  {line}\n", start.elapsed().as_secs_f64());
        if !status.success() {
            exit_code = status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from);
            break;
        }
    }
    eprint!("\n{summary}");
    exit_code
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| Some(format!("{}=\"{}\"", name.display(), value?.display())));
    let arguments = command.get_args().map(|argument| argument.display().to_string());
    variables.chain(["cargo".to_owned()]).chain(arguments).collect::<Vec<_>>().join(" ")
}
