//! Rewards that compare a completion with a column of its row.

use super::{Completion, Reward};
use kiln_core::{Error, Result};
use regex::Regex;
use serde_json::Value;

/// What is right, as a text: numbers and booleans are spelt out.
fn expected(place: &str, completion: &Completion<'_>, column: &str) -> Result<String> {
    match completion.prompt.fields.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        found => {
            let found = found.map_or("nothing".to_owned(), Value::to_string);
            Err(Error::config(
                format!("{place}.column"),
                format!("line {}: found {found} in {column:?}, expected a text or a number", completion.prompt.line),
            ))
        }
    }
}

fn each(completions: &[Completion<'_>], is_right: impl Fn(&Completion<'_>) -> Result<bool>) -> Result<Vec<f64>> {
    completions.iter().map(|completion| Ok(f64::from(u8::from(is_right(completion)?)))).collect()
}

/// 1 for the text in the column.
pub(super) struct Exact {
    pub(super) place: String,
    pub(super) column: String,
}

impl Reward for Exact {
    fn name(&self) -> String {
        "exact".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        each(completions, |completion| Ok(completion.text.trim() == expected(&self.place, completion, &self.column)?.trim()))
    }
}

/// 1 where the pattern finds what is in the column.
pub(super) struct Pattern {
    place: String,
    pattern: Regex,
    column: Option<String>,
}

impl Pattern {
    pub(super) fn new(place: &str, pattern: &str, column: &str) -> Result<Self> {
        let pattern = Regex::new(pattern).map_err(|error| {
            let message = error.to_string();
            let message = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Error::config(format!("{place}.pattern"), format!("{pattern:?} is no regular expression: {message}"))
        })?;
        Ok(Self { place: place.to_owned(), pattern, column: (!column.is_empty()).then(|| column.to_owned()) })
    }
}

impl Reward for Pattern {
    fn name(&self) -> String {
        "regex".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        each(completions, |completion| {
            let Some(captures) = self.pattern.captures_iter(completion.text).last() else { return Ok(false) };
            let Some(column) = &self.column else { return Ok(true) };
            let found = captures.get(1).or(captures.get(0)).map_or("", |part| part.as_str());
            Ok(found.trim() == expected(&self.place, completion, column)?.trim())
        })
    }
}

/// 1 for the number in the column.
pub(super) struct Numeric {
    place: String,
    column: String,
    tolerance: f64,
    number: Regex,
}

impl Numeric {
    pub(super) fn new(place: &str, column: &str, tolerance: f64) -> Self {
        let number = Regex::new(r"-?\d+(?:,\d{3})*(?:\.\d+)?").expect("the pattern is fixed");
        Self { place: place.to_owned(), column: column.to_owned(), tolerance, number }
    }

    /// The last number of a text; a comma may group its digits by three.
    fn last_number(&self, text: &str) -> Option<f64> {
        self.number.find_iter(text).last()?.as_str().replace(',', "").parse().ok()
    }
}

impl Reward for Numeric {
    fn name(&self) -> String {
        "numeric".into()
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<f64>> {
        each(completions, |completion| {
            let text = expected(&self.place, completion, &self.column)?;
            let expected = self.last_number(&text).ok_or_else(|| {
                let message = format!("line {}: found {text:?} in {:?}, expected a number", completion.prompt.line, self.column);
                Error::config(format!("{}.column", self.place), message)
            })?;
            Ok(self.last_number(completion.text).is_some_and(|found| (found - expected).abs() <= self.tolerance))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{completion, prompt};
    use super::*;
    use serde_json::json;

    fn scores(reward: &mut dyn Reward, texts: &[&str], fields: Value) -> Vec<f64> {
        let prompt = prompt(fields);
        reward.score(&texts.iter().map(|text| completion(&prompt, text)).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn exact_looks_past_white_space_only() {
        let texts = [" 12", "12\n", "12.", "The 12"];
        assert_eq!(
            scores(&mut Exact { place: "rewards[0]".into(), column: "answer".into() }, &texts, json!({"answer": 12})),
            [1.0, 1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn a_pattern_finds_the_last_answer() {
        let mut group = Pattern::new("rewards[0]", r"#### (\w+)", "answer").unwrap();
        assert_eq!(scores(&mut group, &["#### no #### yes", "#### yes #### no", "yes"], json!({"answer": "yes"})), [1.0, 0.0, 0.0]);
        let mut whole = Pattern::new("rewards[0]", r"\d+", "answer").unwrap();
        assert_eq!(scores(&mut whole, &["1 then 2", "2 then 1"], json!({"answer": "2"})), [1.0, 0.0]);
        let mut any = Pattern::new("rewards[0]", r"(?s)^<think>.*</think>", "").unwrap();
        assert_eq!(scores(&mut any, &["<think>\n</think>", "think"], json!({})), [1.0, 0.0]);
        let error = Pattern::new("rewards[0]", "(", "").err().unwrap().to_string();
        assert!(error.starts_with("rewards[0].pattern: \"(\" is no regular expression: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let mut numeric = Numeric::new("rewards[0]", "answer", 1e-6);
        let texts = ["3 + 4 = 1,234", "it is $1234.00.", "1234 or 5", "-1234", "none"];
        assert_eq!(scores(&mut numeric, &texts, json!({"answer": "a long way #### 1,234"})), [1.0, 1.0, 0.0, 0.0, 0.0]);
        let prompt = prompt(json!({"answer": "none"}));
        let error = numeric.score(&[completion(&prompt, "1")]).unwrap_err().to_string();
        assert_eq!(error, "rewards[0].column: line 3: found \"none\" in \"answer\", expected a number");
    }
}
