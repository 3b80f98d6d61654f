//! Sentences with tagged names.

use super::TaggedSentence;
use super::grammar::sentence;
use crate::random::SplitMix64;

/// A sentence whose names the grammar puts in brackets, as in `[PER Mira Hale] moved .`, taken apart into tokens and tags.
pub(crate) fn tagged_sentence(random: &mut SplitMix64) -> TaggedSentence {
    let text = sentence("entity.sentence", &[], random);
    let (mut tokens, mut tags) = (Vec::new(), Vec::new());
    let mut entity = None;
    let mut place = 'B';
    for word in text.split(' ') {
        if let Some(kind) = word.strip_prefix('[') {
            entity = Some(kind);
            place = 'B';
            continue;
        }
        tags.push(entity.map_or("O".to_owned(), |kind| format!("{place}-{kind}")));
        place = 'I';
        if word.ends_with(']') {
            entity = None;
        }
        tokens.push(word.trim_end_matches(']').to_owned());
    }
    TaggedSentence { tokens, tags }
}
