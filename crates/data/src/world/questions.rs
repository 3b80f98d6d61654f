//! Questions on numbers and on the people of the sample world.

use super::Question;
use super::facts::Person;
use super::grammar::{alternatives, sentence};
use crate::random::SplitMix64;

/// The largest number a sum starts from or adds.
const LARGEST: usize = 20;

/// A question, and the keys of all that must belong to the same part as the question.
pub(crate) fn question(people: &[Person], random: &mut SplitMix64) -> (Question, Vec<String>) {
    let person = random.pick(people);
    if random.chance(50) { on_person(person, random) } else { on_numbers(person, random) }
}

fn on_person(person: &Person, random: &mut SplitMix64) -> (Question, Vec<String>) {
    let (fact, value) = *random.pick(&[("town", person.town), ("job", person.job), ("dish", person.dish), ("pet", person.pet)]);
    let bound = person.bound();
    let prompt = sentence(&format!("ask.{fact}"), &bound, random);
    let completion = sentence(&format!("answer.{fact}"), &bound, random);
    // A question that gives the name asks for the value, one that gives the value asks for the name.
    let answer = if prompt.contains(person.name) { value } else { person.name };
    let keys = vec![prompt.clone()];
    (Question { prompt, completion, answer: answer.to_owned() }, keys)
}

fn on_numbers(person: &Person, random: &mut SplitMix64) -> (Question, Vec<String>) {
    let rule = *random.pick(&["ask.plus", "ask.minus", "ask.gain", "ask.loss", "ask.both"]);
    let (mut a, b) = (1 + random.below(LARGEST), 1 + random.below(LARGEST));
    let steps = match rule {
        "ask.minus" | "ask.loss" => {
            a += b;
            vec![Step::minus(a, b)]
        }
        "ask.both" => vec![Step::plus(a, b), Step::minus(a + b, 1 + random.below(a + b))],
        _ => vec![Step::plus(a, b)],
    };
    let last = &steps[steps.len() - 1];
    let result = last.result.to_string();
    let (a, b, c) = (a.to_string(), b.to_string(), last.b.to_string());
    let things = *random.pick(alternatives("things"));
    let prompt = sentence(rule, &[("name", person.name), ("things", things), ("a", &a), ("b", &b), ("c", &c)], random);
    let completion = steps.iter().map(Step::text).collect::<Vec<_>>().join(" ");
    (Question { prompt, completion, answer: result }, steps.iter().map(Step::key).collect())
}

/// One step of a calculation.
struct Step {
    a: usize,
    operation: &'static str,
    b: usize,
    result: usize,
}

impl Step {
    fn plus(a: usize, b: usize) -> Self {
        Self { a, operation: "plus", b, result: a + b }
    }

    fn minus(a: usize, b: usize) -> Self {
        Self { a, operation: "minus", b, result: a - b }
    }

    fn text(&self) -> String {
        let Self { a, operation, b, result } = self;
        format!("{a} {operation} {b} is {result}.")
    }

    /// The same for 7 plus 5 and 5 plus 7.
    fn key(&self) -> String {
        let (a, b) = if self.operation == "plus" { (self.a.max(self.b), self.a.min(self.b)) } else { (self.a, self.b) };
        format!("{a} {} {b}", self.operation)
    }
}
