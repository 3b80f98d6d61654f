//! The context-free grammar that all texts of the sample world come from.

use crate::random::SplitMix64;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Every rule of `grammar.txt`: its name and its alternatives.
static RULES: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let mut rules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in include_str!("grammar.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut alternatives = line;
        if let Some((name, first)) = line.split_once(" = ") {
            current = name;
            alternatives = first;
        }
        rules.entry(current).or_default().extend(alternatives.split('|').map(str::trim).filter(|text| !text.is_empty()));
    }
    rules
});

/// The alternatives of a rule.
pub(crate) fn alternatives(rule: &str) -> &'static [&'static str] {
    RULES.get(rule).unwrap_or_else(|| panic!("the grammar has no rule {rule:?}"))
}

/// A text of `rule`, as a sentence.
pub(crate) fn sentence(rule: &str, bound: &[(&str, &str)], random: &mut SplitMix64) -> String {
    polish(&expand(&format!("{{{rule}}}"), bound, random))
}

/// Replaces every `{name}` in `text` by what it is bound to, or else by a random alternative of the rule of that name, until
/// none is left.
pub(crate) fn expand(text: &str, bound: &[(&str, &str)], random: &mut SplitMix64) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').expect("the grammar closes its braces");
        expanded.push_str(before);
        match bound.iter().find(|(slot, _)| *slot == name) {
            Some((_, value)) => expanded.push_str(value),
            None => {
                let alternative = *random.pick(alternatives(name));
                expanded.push_str(&expand(alternative, bound, random));
            }
        }
        rest = after;
    }
    expanded + rest
}

/// Capital letters where sentences begin, and "an" before a vowel.
pub(crate) fn polish(text: &str) -> String {
    let mut polished = String::with_capacity(text.len() + 4);
    let mut begins = true;
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        if !polished.is_empty() {
            polished.push(' ');
        }
        let needs_an = word == "a" && words.peek().is_some_and(|next| next.starts_with(['a', 'e', 'i', 'o', 'u']));
        let word = if needs_an { "an" } else { word };
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if begins => polished.extend(first.to_uppercase().chain(letters)),
            _ => polished.push_str(word),
        }
        begins = word.ends_with(['.', '?']);
    }
    polished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_of_the_grammar_is_a_rule_or_bound() {
        let bound = ["main", "more", "other", "topic", "pronoun", "friend", "a", "b", "c"];
        let concepts = ["agent", "verb", "adjective", "object", "where", "time"];
        for (rule, alternatives) in RULES.iter() {
            assert!(!alternatives.is_empty(), "{rule}");
            for slot in alternatives.iter().flat_map(|text| text.split('{').skip(1)) {
                let slot = slot.split_once('}').unwrap().0;
                assert!(RULES.contains_key(slot) || bound.contains(&slot) || concepts.contains(&slot), "{slot} in {rule}");
            }
        }
    }

    #[test]
    fn sentences_are_polished() {
        assert_eq!(polish("a owl slept. was it a cat? an old one."), "An owl slept. Was it a cat? An old one.");
        assert_eq!(expand("{x} and {x}, {y}", &[("x", "one"), ("y", "two")], &mut SplitMix64::new(0)), "one and one, two");
    }
}
