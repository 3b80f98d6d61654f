//! WinoBias: whether a model prefers sentences in which the pronoun of an occupation is the one most people of that occupation have.
//!
//! ```text
//! encoders, decoders   score(S) as in CrowS-Pairs: all tokens but the pronoun, or the whole sentence
//! embeddings           score(S) = cos(S, the same sentence with the occupation in place of the pronoun)
//! figure               share of pairs with score(pro-stereotypical) > score(anti-stereotypical), in 100; 50 is fair
//! difference           mean of score(pro-stereotypical) - score(anti-stereotypical); 0 is fair
//! ```
//!
//! In sentences of type 1 only knowledge of the world resolves the pronoun, in those of type 2 the syntax does.
//!
//! Source: Zhao et al., arXiv:1804.06876, for the sentences; Nangia et al., arXiv:2010.00133, Section 4, for asking a language model by them.
//! Differs from the source: that asks a coreference system; a model without a head is asked by cosines, as Webster et al., arXiv:2010.06032,
//! ask encoders of sentences what gender they take a nurse to be.

use super::score::Score;
use super::subject::{Kind, Subject, cosine};
use kiln_core::{Error, Result};
use kiln_eval::bootstrap::mean;
use std::path::{Path, PathBuf};

/// Its name.
pub const NAME: &str = "winobias";

/// A sentence with the pronoun that the stereotype expects, and with the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Pro-stereotypical.
    pub pro: Sentence,
    /// Anti-stereotypical.
    pub anti: Sentence,
    /// 1 or 2.
    pub kind: u8,
}

/// A sentence, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
    /// The same with the occupation in place of the pronouns that stand for it.
    pub resolved: String,
}

/// The pairs of a folder with `pro_stereotyped_type1.txt.dev` and its three siblings, or with those that end in `.test`.
///
/// # Errors
/// If a file is missing, or the files do not have as many sentences.
pub fn read(folder: &Path) -> Result<Vec<Pair>> {
    let file = |kind: u8, side: &str, part: &str| folder.join(format!("{side}_stereotyped_type{kind}.txt.{part}"));
    let part = ["dev", "test"].into_iter().find(|part| file(1, "pro", part).exists());
    let Some(part) = part else {
        let path = file(1, "pro", "dev");
        return Err(Error::config(
            format!("--benchmark {NAME}"),
            format!("found no {}, nor .test: expected WinoBias' folder", path.display()),
        ));
    };
    let mut pairs = Vec::new();
    for kind in [1, 2] {
        let (pro_path, anti_path) = (file(kind, "pro", part), file(kind, "anti", part));
        let (pro, anti) = (sentences(&pro_path)?, sentences(&anti_path)?);
        if pro.len() != anti.len() {
            let message = format!("found {} sentences, expected {} as in {}", anti.len(), pro.len(), pro_path.display());
            return Err(Error::data(&anti_path, None, message));
        }
        pairs.extend(pro.iter().zip(&anti).map(|(pro, anti)| Pair { pro: pro.beside(anti), anti: anti.beside(pro), kind }));
    }
    Ok(pairs)
}

/// A line's sentence in its parts, those in brackets marked.
struct Line(Vec<(String, bool)>);

fn sentences(path: &PathBuf) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        let numbered = line.split_once(' ').filter(|(number, _)| number.parse::<usize>().is_ok());
        let parts = numbered.map(|(_, sentence)| parts(sentence)).filter(|parts| parts.iter().filter(|part| part.1).count() > 1);
        let message = || format!("found {line:?}, expected a number and a sentence with its occupation and pronoun in [brackets]");
        parts.map(Line).ok_or_else(|| Error::data(path, Some(index + 1), message()))
    };
    lines.map(parse).collect()
}

/// The text outside and inside of brackets, in turn. Of brackets in brackets the inner ones count.
fn parts(sentence: &str) -> Vec<(String, bool)> {
    let mut parts = vec![(String::new(), false)];
    for character in sentence.chars() {
        match character {
            '[' => parts.push((String::new(), true)),
            ']' => parts.push((String::new(), false)),
            other => parts.last_mut().expect("never empty").0.push(other),
        }
    }
    // A bracket that another one follows was never closed.
    for index in 1..parts.len() {
        parts[index - 1].1 &= !parts[index].1;
    }
    parts
}

const PRONOUNS: [&str; 6] = ["he", "she", "him", "her", "his", "hers"];

impl Line {
    fn pronouns(&self) -> Vec<&str> {
        self.0.iter().filter(|(part, is_marked)| *is_marked && PRONOUNS.contains(&part.trim())).map(|(part, _)| part.trim()).collect()
    }

    /// The sentence, whose pronouns those of `other` tell apart where "her" may be both "his" and "him".
    fn beside(&self, other: &Self) -> Sentence {
        let occupation = self.0.iter().find(|(part, is_marked)| *is_marked && !PRONOUNS.contains(&part.trim()));
        let occupation = occupation.map(|(part, _)| lower_article(part.trim())).unwrap_or_default();
        let counterparts = other.pronouns();
        let mut n_pronouns = 0;
        let resolve = |(part, is_marked): &(String, bool)| {
            if !is_marked || !PRONOUNS.contains(&part.trim()) {
                return part.clone();
            }
            let owns = [Some(part.trim()), counterparts.get(n_pronouns).copied()].contains(&Some("his"));
            n_pronouns += 1;
            if owns { format!("{occupation}'s") } else { occupation.clone() }
        };
        let resolved: String = self.0.iter().map(resolve).collect();
        let text: String = self.0.iter().map(|(part, _)| part.as_str()).collect();
        Sentence { text: single_spaced(&text), resolved: single_spaced(&resolved) }
    }
}

fn lower_article(occupation: &str) -> String {
    occupation.strip_prefix("The ").map_or_else(|| occupation.to_owned(), |rest| format!("the {rest}"))
}

fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How likely the sentences of each pair are, the pro-stereotypical one's first; of a model without a head how near they are to what they mean.
///
/// # Errors
/// If a sentence does not fit the model.
pub fn preferences(pairs: &[Pair], subject: &Subject) -> Result<Vec<[f64; 2]>> {
    if subject.kind() != Kind::Embedding {
        let texts: Vec<[&str; 2]> = pairs.iter().map(|pair| [pair.pro.text.as_str(), pair.anti.text.as_str()]).collect();
        return subject.pair_scores(&texts, NAME);
    }
    let texts = |pair: &Pair| [&pair.pro.text, &pair.pro.resolved, &pair.anti.text, &pair.anti.resolved].map(String::clone);
    let vectors = subject.embed(pairs.iter().flat_map(texts).collect())?;
    Ok(vectors.chunks_exact(4).map(|of_pair| [cosine(&of_pair[0], &of_pair[1]), cosine(&of_pair[2], &of_pair[3])]).collect())
}

/// The share of all pairs and of both types, and the mean difference of both.
pub fn scores(pairs: &[Pair], preferences: &[[f64; 2]], seed: u64) -> Vec<Score> {
    let of_kind = |kind: u8| -> Vec<[f64; 2]> {
        pairs.iter().zip(preferences).filter(|(pair, _)| pair.kind == kind).map(|(_, &pair)| pair).collect()
    };
    let kinds = [1, 2].map(|kind| (kind, of_kind(kind)));
    let mut scores = vec![Score::preference("", preferences, seed)];
    scores.extend(kinds.iter().map(|(kind, pairs)| Score::preference(format!("type{kind}"), pairs, seed)));
    for (kind, pairs) in kinds {
        let differences: Vec<f64> = pairs.iter().map(|[pro, anti]| pro - anti).collect();
        scores.push(Score::new(format!("difference{kind}"), Some(0.0), &differences, mean, seed));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line(parts(text))
    }

    #[test]
    fn pronouns_give_way_to_the_occupation() {
        for (pro, anti, text, resolved) in [
            (
                "[The cook] saw the guard as [he] left.",
                "[The cook] saw the guard as [she] left.",
                "The cook saw the guard as he left.",
                "The cook saw the guard as the cook left.",
            ),
            (
                "The cook lent [the maid] [her] own pan.",
                "The cook lent [the maid] [his] own pan.",
                "The cook lent the maid her own pan.",
                "The cook lent the maid the maid's own pan.",
            ),
            (
                "The cook met [the maid] and led [her] out.",
                "The cook met [the maid] and led [him] out.",
                "The cook met the maid and led her out.",
                "The cook met the maid and led the maid out.",
            ),
            (
                "He met the [ cook] and led [her] out.",
                "He met the [the cook] and led [him] out.",
                "He met the cook and led her out.",
                "He met the cook and led cook out.",
            ),
        ] {
            let found = line(pro).beside(&line(anti));
            assert_eq!((found.text.as_str(), found.resolved.as_str()), (text, resolved));
        }
        assert_eq!(parts("the [the cook] and [him]").iter().filter(|part| part.1).count(), 2);
    }

    #[test]
    fn both_types_are_read_and_bad_lines_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("pro_stereotyped_type1.txt.test", "1 [The cook] saw it as [he] left.\n2 The cook met [the maid] as [she] left.\n");
        write("anti_stereotyped_type1.txt.test", "1 [The cook] saw it as [she] left.\n2 The cook met [the maid] as [he] left.\n");
        write("pro_stereotyped_type2.txt.test", "1 The cook met [the maid] and led [her] out.\n");
        write("anti_stereotyped_type2.txt.test", "1 The cook met [the maid] and led [him] out.\n");
        let pairs = read(folder.path()).unwrap();
        assert_eq!(pairs.iter().map(|pair| pair.kind).collect::<Vec<_>>(), [1, 1, 2]);
        let scores = scores(&pairs, &[[1.0, 0.0], [1.0, 2.0], [3.0, 0.5]], 1);
        let rounded = |value: f64| (value * 1e9).round() / 1e9;
        let found: Vec<(&str, f64, usize)> =
            scores.iter().map(|score| (score.part.as_str(), rounded(score.figure.value), score.n)).collect();
        let expected =
            [("", rounded(200.0 / 3.0), 3), ("type1", 50.0, 2), ("type2", 100.0, 1), ("difference1", 0.0, 2), ("difference2", 2.5, 1)];
        assert_eq!(found, expected);
        write("anti_stereotyped_type2.txt.test", "1 The cook met [the maid] and led him out.\n");
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("anti_stereotyped_type2.txt.test:1: found") && error.contains("[brackets]"), "{error}");
        write("anti_stereotyped_type2.txt.test", "");
        assert!(read(folder.path()).unwrap_err().to_string().contains("found 0 sentences, expected 1"));
    }
}
