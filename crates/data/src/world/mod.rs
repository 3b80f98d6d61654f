//! The built-in sample world: a little English of its own, made from a seed.
//!
//! A grammar over a closed vocabulary gives labelled texts, tagged sentences, paraphrases, questions and documents in any
//! number, so that every method can be tried, tested and measured without downloading anything. Twelve people with a home, a
//! job, a favourite dish and an animal live in it, the same ones in questions and documents.
//!
//! Every row is made from (seed, part, kind, index) alone: the first ten of a hundred rows are the ten rows. Whether a text, an
//! arithmetic pair or a question belongs to the training part or to the held-out one is decided by a hash of itself, so that
//! nothing is ever in both.
//!
//! ```
//! use kiln_data::world::World;
//!
//! let world = World::new(42);
//! let train = world.topic_rows(100);
//! let test = world.held_out().topic_rows(20);
//! assert!(test.iter().all(|row| !train.contains(row)));
//! ```

mod classification;
mod documents;
mod entities;
mod facts;
mod grammar;
mod paraphrase;
mod questions;
mod sums;

pub use crate::rows::write_jsonl;
pub use classification::{SENTIMENTS, TOPICS};

use crate::random::SplitMix64;
use facts::Person;
use serde::{Deserialize, Serialize};

/// One in this many texts is held out.
const HELD_OUT_EVERY: u64 = 5;

/// A sample world: its people, and one of its two parts.
#[derive(Clone, Debug)]
pub struct World {
    seed: u64,
    is_held_out: bool,
    people: Vec<Person>,
}

/// A style of document, with words and manners of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// Little stories of people, places and small events.
    Everyday,
    /// A cook's notes: short orders and trade words.
    Kitchen,
    /// The log of a sailing ship.
    ShipsLog,
}

impl Domain {
    /// Every domain.
    pub const ALL: [Self; 3] = [Self::Everyday, Self::Kitchen, Self::ShipsLog];
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Two to six sentences.
    pub text: String,
}

/// A text with its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledText {
    /// One to three sentences.
    pub text: String,
    /// One of [`TOPICS`] or [`SENTIMENTS`].
    pub label: String,
}

/// A sentence with the names in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedSentence {
    /// The words and punctuation marks.
    pub tokens: Vec<String>,
    /// For every token `B-` or `I-` and `PER`, `LOC` or `ORG`, at the beginning of a name or inside it; `O` outside.
    pub tags: Vec<String>,
}

/// Two sentences that mean the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paraphrase {
    /// One wording.
    pub anchor: String,
    /// Another one.
    pub positive: String,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question.
    pub prompt: String,
    /// The steps to the answer, if any, and the answer in a sentence.
    pub completion: String,
    /// The number or word that was asked for, as it stands at the end of the completion, or in it.
    pub answer: String,
}

/// What rows are made of; a number of its own for each keeps their random numbers apart.
#[derive(Clone, Copy)]
enum Kind {
    Documents(Domain),
    Topics,
    Sentiments,
    Entities,
    Paraphrases,
    Questions,
    Sums(u32),
}

impl World {
    /// The training part of the world of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, is_held_out: false, people: facts::people(seed) }
    }

    /// The held-out part of the same world: the same people and facts, other rows.
    pub fn held_out(&self) -> Self {
        Self { is_held_out: true, ..self.clone() }
    }

    /// `n` texts of `domain`.
    pub fn documents(&self, domain: Domain, n: usize) -> Vec<Document> {
        self.rows(Kind::Documents(domain), n, |random| {
            let text = documents::text(&self.people, domain, random);
            self.has(&text).then_some(Document { text })
        })
    }

    /// `n` texts on one of [`TOPICS`] each. Many mention another topic in passing, and some only the main clause decides.
    pub fn topic_rows(&self, n: usize) -> Vec<LabelledText> {
        self.rows(Kind::Topics, n, |random| {
            let row = classification::topic(random);
            self.has(&row.text).then_some(row)
        })
    }

    /// `n` opinions, one of [`SENTIMENTS`] each. Words alone do not decide: they are negated, or outweighed by another clause.
    pub fn sentiment_rows(&self, n: usize) -> Vec<LabelledText> {
        self.rows(Kind::Sentiments, n, |random| {
            let row = classification::sentiment(random);
            self.has(&row.text).then_some(row)
        })
    }

    /// `n` sentences with people, places and organisations, whose names partly coincide.
    pub fn entity_rows(&self, n: usize) -> Vec<TaggedSentence> {
        self.rows(Kind::Entities, n, |random| {
            let row = entities::tagged_sentence(random);
            self.has(&row.tokens.join(" ")).then_some(row)
        })
    }

    /// `n` pairs of sentences with other words in another order for the same event. No event is in both parts.
    pub fn paraphrase_rows(&self, n: usize) -> Vec<Paraphrase> {
        self.rows(Kind::Paraphrases, n, |random| {
            let (row, event) = paraphrase::pair(random);
            self.has(&event).then_some(row)
        })
    }

    /// `n` questions, half of them on sums and differences and half on the people. No sum or difference is in both parts, not
    /// even as a step; no question on people is, but every fact is asked for in the training part.
    pub fn question_rows(&self, n: usize) -> Vec<Question> {
        self.rows(Kind::Questions, n, |random| {
            let (row, keys) = questions::question(&self.people, random);
            keys.iter().all(|key| self.has(key)).then_some(row)
        })
    }

    /// `n` sums of two numbers of at most `n_digits` digits, completed digit by digit. No two numbers are in both parts.
    pub fn sum_rows(&self, n_digits: u32, n: usize) -> Vec<Question> {
        self.rows(Kind::Sums(n_digits), n, |random| {
            let (row, key) = sums::sum(n_digits, random);
            self.has(&key).then_some(row)
        })
    }

    /// Rows of a kind, each the first one made from its index that belongs to this part.
    fn rows<T>(&self, kind: Kind, n: usize, make: impl Fn(&mut SplitMix64) -> Option<T>) -> Vec<T> {
        let kind = match kind {
            Kind::Documents(domain) => domain as u64,
            Kind::Topics => 3,
            Kind::Sentiments => 4,
            Kind::Entities => 5,
            Kind::Paraphrases => 6,
            Kind::Questions => 7,
            Kind::Sums(n_digits) => 8 + u64::from(n_digits),
        };
        let row = |index| {
            let mut random = SplitMix64::keyed(&[self.seed, u64::from(self.is_held_out), kind, index]);
            std::iter::repeat_with(|| make(&mut random)).flatten().next().expect("an endless iterator")
        };
        (0..n as u64).map(row).collect()
    }

    /// Whether what `key` names belongs to this part.
    fn has(&self, key: &str) -> bool {
        let bytes = key.bytes().map(u64::from);
        let hash = SplitMix64::keyed(&std::iter::once(self.seed).chain(bytes).collect::<Vec<_>>()).next();
        hash.is_multiple_of(HELD_OUT_EVERY) == self.is_held_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn words(text: &str) -> impl Iterator<Item = String> {
        text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
    }

    /// All rows of both parts, each kind as JSON texts.
    fn parts(world: &World, n: usize) -> Vec<(Vec<String>, Vec<String>)> {
        fn json<T: Serialize>(rows: Vec<T>) -> Vec<String> {
            rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect()
        }
        let of = |world: &World| {
            let documents = Domain::ALL.map(|domain| json(world.documents(domain, n)));
            let rows = [json(world.topic_rows(n)), json(world.sentiment_rows(n)), json(world.entity_rows(n))];
            let pairs = [json(world.paraphrase_rows(n)), json(world.question_rows(n)), json(world.sum_rows(3, n))];
            documents.into_iter().chain(rows).chain(pairs).collect::<Vec<_>>()
        };
        of(world).into_iter().zip(of(&world.held_out())).collect()
    }

    #[test]
    fn the_seed_decides_and_rows_do_not_depend_on_how_many() {
        let (few, many, other) = (parts(&World::new(1), 20), parts(&World::new(1), 50), parts(&World::new(2), 20));
        for ((few, many), other) in few.iter().zip(&many).zip(&other) {
            assert_eq!(few.0, many.0[..20]);
            assert_eq!(few.1, many.1[..20]);
            assert_ne!(few.0, other.0);
        }
    }

    #[test]
    fn no_row_is_in_both_parts_and_most_are_distinct() {
        for (train, held_out) in parts(&World::new(42), 1000) {
            let (train, held_out) = (BTreeSet::from_iter(train), BTreeSet::from_iter(held_out));
            assert!(train.is_disjoint(&held_out));
            assert!(train.len() > 700, "{} of 1000 are distinct, such as {:?}", train.len(), train.first());
        }
    }

    #[test]
    fn the_vocabulary_is_closed_and_has_a_few_hundred_words() {
        let mut vocabulary = BTreeSet::new();
        let world = World::new(42);
        Domain::ALL.iter().for_each(|&domain| world.documents(domain, 1000).iter().for_each(|row| vocabulary.extend(words(&row.text))));
        world.topic_rows(2000).iter().for_each(|row| vocabulary.extend(words(&row.text)));
        world.sentiment_rows(1000).iter().for_each(|row| vocabulary.extend(words(&row.text)));
        world.entity_rows(1000).iter().for_each(|row| vocabulary.extend(words(&row.tokens.join(" "))));
        world.paraphrase_rows(1000).iter().for_each(|row| vocabulary.extend(words(&row.anchor)));
        world.question_rows(4000).iter().for_each(|row| vocabulary.extend(words(&row.prompt).chain(words(&row.completion))));
        assert!((600..1000).contains(&vocabulary.len()), "{} words", vocabulary.len());
        let held_out = world.held_out();
        for row in held_out.topic_rows(500).into_iter().chain(held_out.sentiment_rows(500)) {
            assert!(words(&row.text).all(|word| vocabulary.contains(&word)), "{}", row.text);
        }
    }

    #[test]
    fn documents_have_two_to_six_sentences_and_a_vocabulary_of_their_domain() {
        let vocabularies = Domain::ALL.map(|domain| {
            let documents = World::new(3).documents(domain, 500);
            for Document { text } in &documents {
                let n_sentences = text.matches('.').count();
                assert!((2..=6).contains(&n_sentences) && text.ends_with('.'), "{text}");
                assert!(!text.contains(['{', '|', '[', '/']) && !text.contains("  "), "{text}");
            }
            documents.iter().flat_map(|row| words(&row.text)).collect::<BTreeSet<_>>()
        });
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let shared = vocabularies[one].intersection(&vocabularies[other]).count();
            let smaller = vocabularies[one].len().min(vocabularies[other].len());
            assert!(2 * shared < smaller, "{shared} words of {smaller} are in both");
        }
    }

    #[test]
    fn labels_are_balanced_and_no_word_gives_them_away() {
        let world = World::new(7);
        for (rows, labels) in [(world.topic_rows(3000), &TOPICS[..]), (world.sentiment_rows(3000), &SENTIMENTS)] {
            for label in labels {
                let share = rows.iter().filter(|row| row.label == *label).count() as f64 / 3000.0;
                assert!((share * labels.len() as f64 - 1.0).abs() < 0.15, "{share} are {label}");
            }
            let mut labels_with: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
            for row in &rows {
                for word in words(&row.text).collect::<BTreeSet<_>>() {
                    *labels_with.entry(word).or_default().entry(&row.label).or_default() += 1;
                }
            }
            for (word, counts) in labels_with {
                let (n, most) = (counts.values().sum::<usize>(), *counts.values().max().unwrap());
                assert!(n < 40 || most < n, "all {n} texts with {word:?} have the same label");
            }
        }
    }

    #[test]
    fn tags_are_well_formed() {
        let mut kinds = BTreeMap::new();
        for TaggedSentence { tokens, tags } in World::new(7).entity_rows(1000) {
            assert_eq!(tokens.len(), tags.len());
            for (i, tag) in tags.iter().enumerate() {
                *kinds.entry(tag.clone()).or_insert(0) += 1;
                if let Some(kind) = tag.strip_prefix("I-") {
                    assert!(tags[i - 1].ends_with(kind), "{tokens:?} {tags:?}");
                }
                assert!(tag == "O" || tokens[i].starts_with(char::is_alphanumeric), "{tokens:?} {tags:?}");
                assert!(!tokens[i].is_empty() && !tokens[i].contains(['[', ']', ' ']), "{tokens:?}");
            }
        }
        assert_eq!(kinds.keys().collect::<Vec<_>>(), ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"]);
        assert!(kinds.values().all(|&n| n > 50), "{kinds:?}");
    }

    #[test]
    fn paraphrases_share_few_words() {
        let rows = World::new(7).paraphrase_rows(500);
        let shares = rows.iter().map(|row| {
            let (anchor, positive) = (BTreeSet::from_iter(words(&row.anchor)), BTreeSet::from_iter(words(&row.positive)));
            assert_ne!(row.anchor, row.positive);
            anchor.intersection(&positive).count() as f64 / anchor.union(&positive).count() as f64
        });
        let mean = shares.sum::<f64>() / 500.0;
        assert!((0.2..0.45).contains(&mean), "{mean} of the words are common");
    }

    #[test]
    fn answers_are_right_and_end_the_completion() {
        for Question { prompt, completion, answer } in World::new(7).question_rows(2000) {
            let mut result = None;
            for step in completion.split_inclusive('.') {
                let step: Vec<&str> = step.trim().trim_end_matches('.').split(' ').collect();
                let [a, operation @ ("plus" | "minus"), b, "is", stated] = step[..] else { continue };
                let (a, b): (i64, i64) = (a.parse().unwrap(), b.parse().unwrap());
                assert!(result.is_none_or(|result| result == a), "{completion}");
                result = Some(if operation == "plus" { a + b } else { a - b });
                assert_eq!(result, stated.parse().ok(), "{completion}");
            }
            match result {
                Some(result) => assert_eq!(result.to_string(), answer, "{prompt}"),
                None => assert!(completion.contains(&answer) && !prompt.contains(&answer), "{prompt} {completion} {answer}"),
            }
        }
    }

    #[test]
    fn no_calculation_of_the_held_out_part_is_in_the_training_part() {
        let steps = |world: &World| {
            let step = |text: &str| match text.trim().split(' ').collect::<Vec<_>>()[..] {
                [a, "plus", b, ..] => {
                    Some((a.parse::<u32>().unwrap().max(b.parse().unwrap()), a.parse::<u32>().unwrap().min(b.parse().unwrap()), '+'))
                }
                [a, "minus", b, ..] => Some((a.parse().unwrap(), b.parse().unwrap(), '-')),
                _ => None,
            };
            world
                .question_rows(4000)
                .iter()
                .flat_map(|row| row.completion.split('.').filter_map(step).collect::<Vec<_>>())
                .collect::<BTreeSet<_>>()
        };
        let (train, held_out) = (steps(&World::new(7)), steps(&World::new(7).held_out()));
        assert!(train.is_disjoint(&held_out));
        assert!(train.len() > 300 && held_out.len() > 60, "{} and {}", train.len(), held_out.len());
    }

    #[test]
    fn every_fact_is_asked_for_in_the_training_part_and_never_contradicted() {
        for seed in [7, 8, 9] {
            let world = World::new(seed);
            let asked: BTreeSet<String> = world.question_rows(6000).into_iter().map(|row| row.completion).collect();
            for person in &world.people {
                let Person { name, town, job, dish, pet, .. } = person;
                let article = if job.starts_with('e') { "an" } else { "a" };
                let pet_article = if pet.starts_with('o') { "an" } else { "a" };
                let facts = [format!("{name} lives in {town}."), format!("{name} is {article} {job}."), format!("{name} likes {dish}.")];
                for fact in facts.into_iter().chain([format!("{name} keeps {pet_article} {pet}.")]) {
                    assert!(asked.contains(&fact), "{fact}");
                }
                assert_eq!(asked.iter().filter(|text| text.starts_with(name)).count(), 4, "{name}");
            }
        }
    }
}
