//! Two wordings of one event.

use super::Paraphrase;
use super::grammar::{alternatives, expand, polish};
use crate::random::SplitMix64;

const CONCEPTS: [&str; 6] = ["agent", "verb", "adjective", "object", "where", "time"];

/// A pair, and the event that both wordings tell. They differ in form, and each concept is said in the other's word three
/// times out of four.
pub(crate) fn pair(random: &mut SplitMix64) -> (Paraphrase, String) {
    let mut event = String::new();
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for slot in CONCEPTS {
        let concept = *random.pick(alternatives(&format!("concept.{slot}")));
        event.push_str(concept);
        let (mut a, mut b) = concept.split_once('/').expect("every concept has two forms");
        if random.chance(50) {
            (a, b) = (b, a);
        }
        one.push((slot, a));
        other.push((slot, if random.chance(75) { b } else { a }));
    }
    let forms = alternatives("paraphrase.form");
    let form = random.below(forms.len());
    let other_form = (form + 1 + random.below(forms.len() - 1)) % forms.len();
    let anchor = polish(&expand(forms[form], &one, random));
    let positive = polish(&expand(forms[other_form], &other, random));
    (Paraphrase { anchor, positive }, event)
}
