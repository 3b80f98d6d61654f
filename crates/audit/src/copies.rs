//! Rows that are there more than once, that are held out too, or that are labelled two ways. Texts are compared as [`kiln_data::duplicates`]
//! compares them: by letters and digits, and by the share of runs of five bytes that both have.

use kiln_data::duplicates::Texts;

/// From this resemblance on two texts are nearly the same.
pub const NEAR: f64 = 0.8;

/// A row and the one that it repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Copy {
    /// The row.
    pub row: usize,
    /// The row it is like: an earlier one of the file, or one held out.
    pub of: usize,
    /// How alike they are: 1 if they are the same.
    pub resemblance: f64,
}

/// The copies in a file, and those of its rows that are held out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copies {
    /// Rows that are the same as an earlier one.
    pub exact: Vec<Copy>,
    /// Rows that nearly are, with at least the resemblance asked for.
    pub near: Vec<Copy>,
    /// Rows that are the same as one held out, or nearly. `of` counts held-out rows.
    pub leaked: Vec<Copy>,
}

/// The copies among `texts`, and those of `held_out` ones. Texts that resemble each other by `near` are nearly the same; blank texts are none.
pub fn find<S: AsRef<str> + Sync>(texts: &[S], held_out: &[S], near: f64) -> Copies {
    let n_held_out = held_out.len();
    // Held-out texts first: what is alike is looked for among the texts before.
    let all: Vec<&str> = held_out.iter().chain(texts).map(AsRef::as_ref).collect();
    let mut copies = Copies::default();
    if n_held_out > 0 {
        let compared = Texts::new(&all);
        let (same, alike) = (compared.first_same(), compared.alike(0..n_held_out, n_held_out..all.len(), near));
        let leak = |text: usize| {
            let exact = Some((same[text], 1.0)).filter(|(of, _)| *of < n_held_out);
            // A text that is there twice is as much like a held-out one as the first of its kind.
            let nearly = alike[same[text]].map(|alike| (alike.index, alike.resemblance)).filter(|(of, _)| *of < n_held_out);
            exact.or(nearly)
        };
        for row in (0..texts.len()).filter(|row| !compared.is_blank(n_held_out + row)) {
            copies.leaked.extend(leak(n_held_out + row).map(|(of, resemblance)| Copy { row, of, resemblance }));
        }
    }
    let compared = Texts::new(texts);
    let (same, alike) = (compared.first_same(), compared.alike(0..texts.len(), 0..texts.len(), near));
    for row in (0..texts.len()).filter(|&row| !compared.is_blank(row)) {
        if same[row] < row {
            copies.exact.push(Copy { row, of: same[row], resemblance: 1.0 });
        } else if let Some(alike) = alike[row] {
            copies.near.push(Copy { row, of: alike.index, resemblance: alike.resemblance });
        }
    }
    copies
}

/// The rows whose text stands there with another label too, group by group in the order of their first rows.
///
/// # Panics
/// If there are not as many labels as texts.
pub fn conflicts<S: AsRef<str> + Sync>(texts: &[S], labels: &[usize]) -> Vec<Vec<usize>> {
    assert_eq!(texts.len(), labels.len(), "a label for each text");
    let compared = Texts::new(texts);
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); texts.len()];
    for (row, first) in compared.first_same().into_iter().enumerate().filter(|&(row, _)| !compared.is_blank(row)) {
        groups[first].push(row);
    }
    groups.retain(|rows| rows.iter().any(|&row| labels[row] != labels[rows[0]]));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 8] = [
        "the harbour is quiet in the early morning",
        "nobody would have thought of such a thing",
        "The harbour is quiet, in the early morning!",
        "",
        "nobody would have thought of such things",
        " ",
        "boats come in with the tide at noon",
        "nobody would have thought of such a thing",
    ];

    #[test]
    fn copies_are_told_apart() {
        let held_out =
            ["something else is written here", "BOATS come in with the tide at noon", "the harbour is quiet in the early mornings"];
        let found = find(&TEXTS, &held_out, 0.7);
        let pairs = |copies: &[Copy]| copies.iter().map(|copy| (copy.row, copy.of)).collect::<Vec<_>>();
        assert_eq!(pairs(&found.exact), [(2, 0), (7, 1)]);
        assert_eq!(pairs(&found.near), [(4, 1)]);
        assert_eq!(pairs(&found.leaked), [(0, 2), (2, 2), (6, 1)], "the copy of a leaked row leaks too");
    }

    #[test]
    fn one_text_with_two_labels_is_a_conflict() {
        assert!(conflicts(&TEXTS, &[0; 8]).is_empty());
        assert_eq!(conflicts(&TEXTS, &[0, 1, 0, 1, 0, 0, 1, 0]), [[1, 7]]);
    }
}
