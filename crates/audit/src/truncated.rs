//! Texts that were cut off: many rows of one length, the greatest, that stop in the middle.
//!
//! Lengths of texts thin out towards the longest. Where at least [`FEWEST`] rows have exactly the greatest length, and as many as have any of
//! the [`BELOW`] lengths under it, something cut them there. Lengths are counted in characters and in words.

/// Rows of the greatest length from which on it is a cut.
pub const FEWEST: usize = 5;
/// Lengths under the greatest that are compared with it.
pub const BELOW: usize = 10;

/// Where texts were cut, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The length.
    pub length: usize,
    /// Of what: "characters" or "words".
    pub unit: &'static str,
    /// The texts of that length that do not end as a text does.
    pub rows: Vec<usize>,
}

/// Where the texts were cut off, if they were.
pub fn truncated<S: AsRef<str>>(texts: &[S]) -> Option<Cut> {
    let of = |unit, length: fn(&str) -> usize, is_open: fn(char) -> bool| {
        let lengths: Vec<usize> = texts.iter().map(|text| length(text.as_ref())).collect();
        let greatest = *lengths.iter().max()?;
        let n_greatest = lengths.iter().filter(|length| **length == greatest).count();
        let n_below = lengths.iter().filter(|&&length| length < greatest && length + BELOW >= greatest).count();
        // Texts that are all of one length, such as codes, were made so.
        if greatest <= BELOW || n_greatest < FEWEST || n_greatest < n_below || 2 * n_greatest > texts.len() {
            return None;
        }
        let ends_open = |&row: &usize| lengths[row] == greatest && texts[row].as_ref().trim_end().chars().next_back().is_some_and(is_open);
        let rows: Vec<usize> = (0..texts.len()).filter(ends_open).collect();
        (!rows.is_empty()).then_some(Cut { length: greatest, unit, rows })
    };
    let characters = of("characters", |text| text.chars().count(), char::is_alphanumeric);
    characters.or_else(|| of("words", |text| text.split_whitespace().count(), |c| c.is_alphanumeric() || c == ','))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_kernels::random::Key;

    fn texts(n: u64) -> Vec<String> {
        let key = Key::new(3);
        let words = ["the", "water", "is", "quite", "cold", "tonight", "near", "harbour"];
        let word = |row: u64, place| words[key.fold(row).below(place, 8) as usize];
        (0..n).map(|row| (0..5 + key.below(row, 60)).map(|place| word(row, place)).collect::<Vec<_>>().join(" ") + ".").collect()
    }

    #[test]
    fn whole_texts_are_no_cut_and_cut_ones_are() {
        let whole = texts(400);
        assert_eq!(truncated(&whole), None);
        let by_characters: Vec<String> = whole.iter().map(|text| text.chars().take(200).collect()).collect();
        let found = truncated(&by_characters).unwrap();
        assert_eq!((found.length, found.unit), (200, "characters"));
        let is_cut = |row: &usize| whole[*row].len() > 200 && by_characters[*row].trim_end().ends_with(char::is_alphanumeric);
        assert_eq!(found.rows, (0..400).filter(is_cut).collect::<Vec<_>>());
        let by_words: Vec<String> = whole.iter().map(|text| text.split(' ').take(40).collect::<Vec<_>>().join(" ")).collect();
        let found = truncated(&by_words).unwrap();
        assert_eq!((found.length, found.unit), (40, "words"));
    }

    #[test]
    fn texts_of_one_length_were_made_so() {
        assert_eq!(truncated(&["abcdefghijkl"; 30]), None);
        assert_eq!(truncated::<&str>(&[]), None);
    }
}
