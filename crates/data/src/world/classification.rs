//! Texts with a topic and opinions with a sentiment.

use super::LabelledText;
use super::grammar::{expand, sentence};
use crate::random::SplitMix64;

/// The labels of [`topic_rows`](super::World::topic_rows).
pub const TOPICS: [&str; 6] = ["animals", "cooking", "machines", "money", "sports", "weather"];

/// The labels of [`sentiment_rows`](super::World::sentiment_rows).
pub const SENTIMENTS: [&str; 2] = ["negative", "positive"];

/// A text on one topic: on nothing else (two in five), with another one in between, or with as much of another one in a
/// subordinate clause.
pub(crate) fn topic(random: &mut SplitMix64) -> LabelledText {
    let label = random.below(TOPICS.len());
    let other = (label + 1 + random.below(TOPICS.len() - 1)) % TOPICS.len();
    let rule = match random.below(100) {
        0..40 => "topic.plain",
        40..65 => "topic.mixed",
        _ => "topic.main",
    };
    let clause = |topic: usize, random: &mut SplitMix64| expand(&format!("{{{}.clause}}", TOPICS[topic]), &[], random);
    LabelledText { text: compose(rule, label, other, clause, random), label: TOPICS[label].to_owned() }
}

/// An opinion. A third of the clauses are negated; in a third of the texts a clause of the other sentiment is outweighed.
pub(crate) fn sentiment(random: &mut SplitMix64) -> LabelledText {
    let label = random.below(SENTIMENTS.len());
    let rule = if random.chance(33) { "sentiment.contrast" } else { "sentiment.plain" };
    let clause = |sentiment: usize, random: &mut SplitMix64| {
        let form = if random.chance(33) { "negated" } else { "clause" };
        expand(&format!("{{{}.{form}}}", ["bad", "good"][sentiment]), &[], random)
    };
    LabelledText { text: compose(rule, label, 1 - label, clause, random), label: SENTIMENTS[label].to_owned() }
}

/// A text of `rule` from two different clauses of `label` and one of the class `other`.
fn compose(rule: &str, label: usize, other: usize, clause: impl Fn(usize, &mut SplitMix64) -> String, random: &mut SplitMix64) -> String {
    let (main, other) = (clause(label, random), clause(other, random));
    let mut more = clause(label, random);
    while more == main {
        more = clause(label, random);
    }
    sentence(rule, &[("main", &main), ("more", &more), ("other", &other)], random)
}
