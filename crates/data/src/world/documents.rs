//! Documents in the styles of the sample world.

use super::Domain;
use super::classification::TOPICS;
use super::facts::Person;
use super::grammar::{expand, sentence};
use crate::random::SplitMix64;

/// Two to six sentences of `domain`.
pub(crate) fn text(people: &[Person], domain: Domain, random: &mut SplitMix64) -> String {
    let n_sentences = 2 + random.below(5);
    let sentences: Vec<String> = match domain {
        Domain::Everyday => everyday(people, n_sentences, random),
        Domain::Kitchen => entries("kitchen.first", "kitchen.step", n_sentences, random),
        Domain::ShipsLog => entries("ship.first", "ship.entry", n_sentences, random),
    };
    sentences.join(" ")
}

/// A person's day, on one topic.
fn everyday(people: &[Person], n_sentences: usize, random: &mut SplitMix64) -> Vec<String> {
    let person = random.pick(people);
    let friends: Vec<&Person> = people.iter().filter(|other| other.name != person.name).collect();
    let friend = random.pick(&friends).name;
    let topic = random.pick(&TOPICS);
    let bound = person.bound();
    (0..n_sentences)
        .map(|i| {
            let rule = match i {
                0 => "everyday.first",
                _ if i + 1 == n_sentences => "everyday.last",
                _ => "everyday.next",
            };
            let clause = expand(&format!("{{{topic}.clause}}"), &[], random);
            let bound: Vec<_> = bound.iter().copied().chain([("friend", friend), ("topic", clause.as_str())]).collect();
            sentence(rule, &bound, random)
        })
        .collect()
}

/// One opening entry and different further ones.
fn entries(first: &str, next: &str, n_sentences: usize, random: &mut SplitMix64) -> Vec<String> {
    let mut sentences = vec![sentence(first, &[], random)];
    while sentences.len() < n_sentences {
        let entry = sentence(next, &[], random);
        if !sentences.contains(&entry) {
            sentences.push(entry);
        }
    }
    sentences
}
