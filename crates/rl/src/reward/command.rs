//! The reward of an external program, which reads completions as lines of JSON and writes a number for each.

use super::{Completion, Reward};
use kiln_core::{Error, Result};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A program that lives as long as the run.
pub(super) struct Command {
    place: String,
    timeout: Duration,
    child: Child,
    /// `None` once it is closed.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Reads what the program complains of, and returns the last line.
    complaints: Option<JoinHandle<Option<String>>>,
}

impl Command {
    pub(super) fn start(place: &str, command: &[String], timeout_seconds: f64) -> Result<Self> {
        let mut program = std::process::Command::new(&command[0]);
        program.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In a group of its own: Ctrl-C is for the run, which finishes its step.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut program, 0);
        let mut child = program
            .spawn()
            .map_err(|error| Error::config(format!("{place}.command"), format!("{:?} cannot be started: {error}", command[0])))?;
        let (stdout, stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let complaints = std::thread::spawn(move || last_line(stderr));
        let timeout = Duration::from_secs_f64(timeout_seconds);
        Ok(Self { place: place.to_owned(), timeout, stdin: child.stdin.take(), child, lines, complaints: Some(complaints) })
    }

    fn fail(&self, message: String) -> Error {
        Error::config(format!("{} (command)", self.place), message)
    }

    /// Why no further number comes.
    fn ended(&mut self, n_found: usize, n_expected: usize) -> Error {
        self.stdin = None;
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let complaint = self.complaints.take().and_then(|reader| reader.join().ok().flatten());
        let complaint = complaint.map(|line| format!(": {line}")).unwrap_or_default();
        self.fail(format!("the program ended ({status}) after {n_found} numbers for {n_expected} completions{complaint}"))
    }
}

/// The last line that says anything.
fn last_line(from: impl Read) -> Option<String> {
    BufReader::new(from).lines().map_while(std::io::Result::ok).filter(|line| !line.trim().is_empty()).last()
}

impl Reward for Command {
    fn name(&self) -> String {
        "command".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        let mut lines = Vec::new();
        for Completion { prompt, text, .. } in completions {
            lines.extend(json!({"prompt": prompt.text, "completion": text, "row": prompt.fields}).to_string().into_bytes());
            lines.push(b'\n');
        }
        let Some(mut stdin) = self.stdin.take() else { return Err(self.fail("the program has ended".into())) };
        // Written beside the reading: a program may answer while there is still more to read, and both pipes are short. What it does not
        // read shows as numbers that do not come.
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&lines).and_then(|()| stdin.flush());
            stdin
        });
        let deadline = Instant::now() + self.timeout;
        let mut scores = Vec::with_capacity(completions.len());
        while scores.len() < completions.len() {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.trim().parse::<f64>() {
                    Ok(score) => scores.push(score),
                    Err(_) => return Err(self.fail(format!("wrote {line:?}, expected a number for each completion and nothing else"))),
                },
                Err(RecvTimeoutError::Timeout) => {
                    let (n_found, n_expected, seconds) = (scores.len(), completions.len(), self.timeout.as_secs_f64());
                    return Err(self.fail(format!(
                        "{n_found} numbers for {n_expected} completions after {seconds} s; does it flush each line? Else raise timeout_seconds"
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended(scores.len(), completions.len())),
            }
        }
        self.stdin = writer.join().ok();
        Ok(scores)
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // Its input ends, which ends a program that reads; one that does not is stopped. Neither can fail in a way that matters now.
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::Rewards;
    use super::super::tests::{completion, prompt};
    use super::*;

    fn shell(script: &str, timeout_seconds: f64) -> Command {
        Command::start("rewards[0]", &["sh".into(), "-c".into(), script.into()], timeout_seconds).unwrap()
    }

    fn outcome(mut command: Command, texts: &[&str]) -> std::result::Result<Vec<f64>, String> {
        let prompt = prompt(json!({"answer": 4}));
        let completions: Vec<Completion<'_>> = texts.iter().map(|text| completion(&prompt, text)).collect();
        command.score(&completions).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_answers_again_and_again() {
        // The length of each line tells that the lines are what they should be.
        let mut command = shell("while read -r line; do echo ${#line}; done", 20.0);
        let prompt = prompt(json!({"answer": 4}));
        for texts in [["4", "444"], ["44", ""]] {
            let completions = texts.map(|text| completion(&prompt, text));
            let expected = texts.map(|text| (r#"{"prompt":"2+2=","completion":"","row":{"answer":4}}"#.len() + text.len()) as f64);
            assert_eq!(command.score(&completions).unwrap(), expected);
        }
    }

    #[test]
    fn more_than_a_pipe_holds_goes_through() {
        let text = "x".repeat(100_000);
        assert_eq!(outcome(shell("while read -r line; do echo 1; done", 20.0), &vec![text.as_str(); 20]).unwrap(), [1.0; 20]);
    }

    #[test]
    fn failures_say_what_happened_in_one_line() {
        for (script, timeout, words) in [
            ("read -r line; echo 1; echo 'no such thing' >&2; exit 3", 20.0, ["after 1 numbers for 2 completions", "no such thing"]),
            ("exit 0", 20.0, ["exit status: 0", "after 0 numbers for 2 completions"]),
            ("read -r line; echo 1; sleep 60", 0.3, ["1 numbers for 2 completions after 0.3 s", "timeout_seconds"]),
            ("while read -r line; do echo good; done", 20.0, ["wrote \"good\"", "expected a number"]),
        ] {
            let message = outcome(shell(script, timeout), &["a", "b"]).unwrap_err();
            assert!(message.starts_with("rewards[0] (command): ") && !message.contains('\n'), "{message}");
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
        let missing = Command::start("rewards[0]", &["no-such-program-anywhere".into()], 1.0).err().unwrap().to_string();
        assert!(missing.starts_with("rewards[0].command: \"no-such-program-anywhere\" cannot be started"), "{missing}");
    }

    #[test]
    fn nan_is_refused() {
        let prompt = prompt(json!({}));
        let mut rewards = Rewards::new(vec![(1.0, Box::new(shell("while read -r line; do echo nan; done", 20.0)))]);
        let error = rewards.score(&[completion(&prompt, "a")]).unwrap_err().to_string();
        assert!(error.starts_with("rewards[0] (command): gave NaN"), "{error}");
    }
}
