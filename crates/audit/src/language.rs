//! Rows in another language than the rest: by the script of their letters, and by the commonest words of eight languages.
//!
//! It is simple on purpose and says nothing where it does not know: a text of few words, or in a language of the same script that is not listed,
//! passes. A row is flagged if most of its letters are of another script than those of [`MOST`] of the rows; or if at least [`FEWEST_WORDS`] of
//! its words, and [`LEAST_SHARE`] of them, are common words of one language, and at most a third as many are of the language that most rows are
//! in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The share of rows that have to agree on a script.
pub const MOST: f64 = 0.9;
/// Common words that a verdict takes.
pub const FEWEST_WORDS: usize = 3;
/// The share of a text's words that have to be common ones.
pub const LEAST_SHARE: f64 = 0.2;

/// The commonest words of languages in Latin script: articles, pronouns, prepositions, conjunctions and auxiliaries.
const COMMON: [(&str, &str); 8] = [
    (
        "English",
        "the of and to in is that it was for on are as with his they be at this have from or had by but not what all were we when your can there an which their if do will would who has been you i my so about how more",
    ),
    (
        "German",
        "der die das und ist in den von zu mit sich des auf für nicht ein eine einen einem einer es im dem auch als an nach wie wir bei oder aus aber werden wird sind hat haben war ich sie er zum zur dass noch nur über kann um diese dieser",
    ),
    (
        "French",
        "le la les de des du et est un une en que qui dans pour pas sur au aux avec ce cette ces il elle ils nous vous je ne se son sa ses par plus mais ou où sont été être a ont fait comme tout leur",
    ),
    (
        "Spanish",
        "el la los las de del y en que es un una por con no para su sus al lo como más pero se le ya o este esta son fue ha muy sin sobre también hay era cuando donde quien desde todo nos me",
    ),
    (
        "Italian",
        "il lo la gli le di del della dei delle e è che un una per con non in da dal nel nella sono ha si come più ma anche questo questa alla al ai suo sua o se mi ci era essere hanno molto tutti quando",
    ),
    (
        "Portuguese",
        "o a os as de do da dos das e é que um uma em no na nos nas por para com não se mais como mas ao foi ele ela seu sua ou quando muito já está também só pelo pela até isso são tem",
    ),
    (
        "Dutch",
        "de het een en van in is dat op te zijn met voor niet aan er om ook als bij maar door of uit naar heeft hij zij ze wij je ik was worden wordt nog dan kan over deze dit hebben geen wel",
    ),
    (
        "Swedish",
        "och att det i en är på som för med av till den har inte de ett om var jag men sig så han från vi hade kan när eller nu där ska skulle vid mot då ut hon man efter alla detta",
    ),
];

/// Which languages have a common word.
static LANGUAGES: LazyLock<BTreeMap<&str, Vec<usize>>> = LazyLock::new(|| {
    let mut languages: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (language, (_, words)) in COMMON.iter().enumerate() {
        words.split(' ').for_each(|word| languages.entry(word).or_default().push(language));
    }
    languages
});

/// A family of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Hebrew,
    Arabic,
    Devanagari,
    Thai,
    Korean,
    /// Japanese writes Chinese characters too.
    ChineseOrJapanese,
    Other,
}

impl Script {
    /// The blocks of Unicode.
    fn of(c: char) -> Option<Self> {
        if !c.is_alphabetic() {
            return None;
        }
        Some(match c {
            '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Self::Latin,
            '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Self::Greek,
            '\u{400}'..='\u{52f}' => Self::Cyrillic,
            '\u{590}'..='\u{5ff}' => Self::Hebrew,
            '\u{600}'..='\u{77f}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' => Self::Arabic,
            '\u{900}'..='\u{97f}' => Self::Devanagari,
            '\u{e00}'..='\u{e7f}' => Self::Thai,
            '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7af}' => Self::Korean,
            '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{20000}'..='\u{2ffff}' => Self::ChineseOrJapanese,
            _ => Self::Other,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Latin => "Latin script",
            Self::Greek => "Greek script",
            Self::Cyrillic => "Cyrillic script",
            Self::Hebrew => "Hebrew script",
            Self::Arabic => "Arabic script",
            Self::Devanagari => "Devanagari script",
            Self::Thai => "Thai script",
            Self::Korean => "Korean script",
            Self::ChineseOrJapanese => "Chinese or Japanese script",
            Self::Other => "another script",
        }
    }
}

/// What is known of a text.
struct Signs {
    /// The script of most of its letters.
    script: Option<Script>,
    /// Common words of each language in it.
    common: [usize; COMMON.len()],
    n_words: usize,
}

fn signs(text: &str) -> Signs {
    let mut scripts: BTreeMap<Script, usize> = BTreeMap::new();
    text.chars().filter_map(Script::of).for_each(|script| *scripts.entry(script).or_default() += 1);
    let n_letters: usize = scripts.values().sum();
    let script = scripts.into_iter().find(|(_, count)| 2 * count > n_letters && n_letters >= 4).map(|(script, _)| script);
    let (mut common, mut n_words) = ([0; COMMON.len()], 0);
    if script == Some(Script::Latin) {
        let lower = text.to_lowercase();
        for word in lower.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
            n_words += 1;
            LANGUAGES.get(word).into_iter().flatten().for_each(|&language| common[language] += 1);
        }
    }
    Signs { script, common, n_words }
}

/// The language a text seems to be in: of the most common words, if there are enough of them.
fn language(signs: &Signs) -> Option<usize> {
    let most = *signs.common.iter().max()?;
    let enough = most >= FEWEST_WORDS && most as f64 >= LEAST_SHARE * signs.n_words as f64;
    enough.then(|| signs.common.iter().position(|&count| count == most)).flatten()
}

/// The rows in another language or script than the rest, with what theirs seems to be.
pub fn foreign<S: AsRef<str>>(texts: &[S]) -> Vec<(usize, &'static str)> {
    let all: Vec<Signs> = texts.iter().map(|text| signs(text.as_ref())).collect();
    let usual_script = commonest(all.iter().filter_map(|signs| signs.script), MOST);
    let usual = commonest(all.iter().filter_map(language), 0.5);
    let verdict = |signs: &Signs| match (signs.script, usual_script) {
        (Some(script), Some(usual)) if script != usual => Some(script.name()),
        _ => {
            let (found, usual) = (language(signs)?, usual?);
            (signs.common[found] >= 3 * signs.common[usual].max(1)).then(|| COMMON[found].0)
        }
    };
    all.iter().enumerate().filter_map(|(row, signs)| Some((row, verdict(signs)?))).collect()
}

/// What more than `share` of the items are.
fn commonest<T: Ord + Copy>(items: impl Iterator<Item = T>, share: f64) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    let n: usize = counts.values().sum();
    counts.into_iter().find(|(_, count)| *count as f64 > share * n as f64).map(|(item, _)| item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_the_rest_is_found() {
        let mut texts = vec!["the harbour is quiet in the morning and the boats are out", "what would you have of it", "ships"];
        texts.extend(["we were there when it was cold"; 20]);
        assert!(foreign(&texts).is_empty());
        texts.push("der Hafen ist am Morgen ruhig und die Boote sind nicht mehr da");
        texts.push("le port est calme et les bateaux sont dans la baie");
        texts.push("привет, как дела");
        texts.push("Das Auto");
        texts.push("El barco está en el puerto y no hay nadie por la mañana");
        let found: Vec<&str> = foreign(&texts).into_iter().map(|(_, what)| what).collect();
        assert_eq!(found, ["German", "French", "Cyrillic script", "Spanish"]);
    }

    #[test]
    fn a_file_of_two_languages_has_no_foreign_one() {
        let texts: Vec<&str> = ["the harbour is quiet and it is cold", "der Hafen ist ruhig und es ist kalt"].repeat(10);
        assert!(foreign(&texts).is_empty());
        assert!(foreign(&["", "123", "..."]).is_empty());
    }
}
