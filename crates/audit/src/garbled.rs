//! Rows whose text is damaged: empty, decoded wrongly, full of control characters, or stuck on one character or word.

use serde::Serialize;

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// Nothing but white space.
    Empty,
    /// UTF-8 that was read as Latin-1 or Windows-1252 (`cafÃ©`), or the sign for what could not be read.
    Mojibake,
    /// A control character other than tab and line ends.
    Control,
    /// One character at least [`MOST_CHARACTERS`] times in a row, or one word [`MOST_WORDS`] times.
    Repeated,
}

impl Damage {
    /// What it is, for people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Mojibake => "decoded wrongly",
            Self::Control => "control characters",
            Self::Repeated => "repeats itself",
        }
    }
}

/// So many of one character in a row are a fault. Lines of dots, dashes and the like are not counted, nor digits.
pub const MOST_CHARACTERS: usize = 10;
/// So many of one word in a row are.
pub const MOST_WORDS: usize = 6;

/// What is wrong with `text`, if anything; of several faults the first in the order of [`Damage`].
pub fn damage(text: &str) -> Option<Damage> {
    if text.trim().is_empty() {
        return Some(Damage::Empty);
    }
    if is_mojibake(text) {
        return Some(Damage::Mojibake);
    }
    if text.chars().any(|c| c.is_control() && !"\t\n\r\u{85}".contains(c)) {
        return Some(Damage::Control);
    }
    let characters = longest_run(text.chars(), |c| c.is_alphabetic() || "!?&%$§".contains(*c));
    let words = longest_run(text.split_whitespace(), |word| word.chars().any(char::is_alphabetic));
    (characters >= MOST_CHARACTERS || words >= MOST_WORDS).then_some(Damage::Repeated)
}

/// How often an item that `counts` comes in a row, at most.
fn longest_run<T: PartialEq>(items: impl Iterator<Item = T>, counts: impl Fn(&T) -> bool) -> usize {
    let (mut longest, mut run, mut last) = (0, 0, None);
    for item in items {
        run = if last.as_ref() == Some(&item) { run + 1 } else { 1 };
        if run > longest && counts(&item) {
            longest = run;
        }
        last = Some(item);
    }
    longest
}

/// Whether a first byte of a UTF-8 sequence and one that goes on stand side by side as two characters, or a replacement character does.
fn is_mojibake(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let is_first = |c| matches!(c, '\u{c2}'..='\u{c5}' | '\u{d0}' | '\u{d1}' | '\u{e2}');
    // 0x80 to 0xbf as Latin-1 has them, and 0x80 to 0x9f as Windows-1252 does.
    let goes_on = |c| matches!(c, '\u{80}'..='\u{bf}') || "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ".contains(c);
    let pairs = text.chars().zip(text.chars().skip(1));
    text.contains('\u{fffd}') || pairs.into_iter().any(|(first, second)| is_first(first) && goes_on(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of UTF-8 read as Latin-1.
    fn as_latin_1(text: &str) -> String {
        text.bytes().map(char::from).collect()
    }

    #[test]
    fn each_fault_is_found() {
        for (text, expected) in [
            ("", Damage::Empty),
            (" \n\t", Damage::Empty),
            ("itâ€™s fine", Damage::Mojibake),
            ("lost \u{fffd}", Damage::Mojibake),
            ("a\u{0}b", Damage::Control),
            ("soooooooooo good", Damage::Repeated),
            ("no no no no no no", Damage::Repeated),
        ] {
            assert_eq!(damage(text), Some(expected), "{text:?}");
        }
        for text in ["café über straße ñandú", "привет", "Łódź", "naïve — “so”", "日本"] {
            assert_eq!(damage(text), None, "{text}");
        }
        for text in ["café über", "ñandú", "— dash", "привет", "Łódź"] {
            assert_eq!(damage(&as_latin_1(text)), Some(Damage::Mojibake), "{text}");
        }
    }

    #[test]
    fn sound_texts_are_left_alone() {
        for text in
            ["x", "1000000000000", "----------------", "wait.......... what", "line\r\nline\t.", "very very very good", "= = = = = = = ="]
        {
            assert_eq!(damage(text), None, "{text:?}");
        }
    }
}
