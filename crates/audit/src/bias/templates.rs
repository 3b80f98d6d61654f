//! A classifier's answers to sentences that differ only in whom they are about.
//!
//! A template takes a word of each group of a domain in turn; sentences of one template with the words in the same place of the groups' lists are an
//! item.
//!
//! ```text
//! gap     the largest mean probability of a domain's groups less the smallest; 0 is fair
//! flips   the share of items whose sentences do not all get the same class
//! p       share of 1000 ways to deal an item's probabilities out to the groups anew that have a gap at least as large
//! ```
//!
//! Source: Kiritchenko and Mohammad, arXiv:1805.04508, Sections 3 and 4.
//! Differs from the source: own templates and words; any number of groups; a test by permutation instead of a t-test.

use crate::benchmarks::gap::{largest_gap, p_of_gap};
use crate::benchmarks::pattern::{MARK, about};
use crate::benchmarks::score::Score;
use crate::predict::{Classifier, likeliest};
use kiln_core::{Error, Result};
use kiln_eval::bootstrap::mean;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The settings of templates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TemplatesConfig {
    /// A file of the user's templates and groups. Default none.
    pub file: Option<PathBuf>,
}

/// Templates, and the groups of each domain with their words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Templates {
    #[serde(default)]
    templates: Vec<String>,
    #[serde(default)]
    groups: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// What a classifier says of an item.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    /// The class of each group's sentence.
    classes: Vec<usize>,
    /// The probability of the positive class for each group's sentence, if there is such a class.
    positive: Vec<f64>,
}

impl Templates {
    /// Those that Kiln comes with.
    pub fn built_in() -> Self {
        toml::from_str(include_str!("templates.toml")).expect("templates")
    }

    /// With those of a file in TOML: `templates`, each with `{}` in the place of a person, instead of these, if it has some; and `[groups.DOMAIN]` with a
    /// list of words for each group, as many for each, beside these; a domain that was there is replaced.
    ///
    /// # Errors
    /// If the file cannot be read, a template has no mark, or the groups of a domain are fewer than two or have no words or not as many.
    pub fn with_file(mut self, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        let more: Self = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Error::data(path, line, error.message().to_owned())
        })?;
        let fail = |message: String| Err(Error::data(path, None, message));
        if let Some(template) = more.templates.iter().find(|template| !template.contains(MARK)) {
            return fail(format!("the template {template:?} has no {MARK} in the place of a person"));
        }
        for (domain, groups) in &more.groups {
            let sizes: Vec<usize> = groups.values().map(Vec::len).collect();
            let fits = sizes.len() > 1 && sizes[0] > 0 && sizes.iter().all(|size| *size == sizes[0]);
            if !fits {
                return fail(format!(
                    "groups.{domain}: found lists of {sizes:?} words, expected two groups or more with as many words each"
                ));
            }
        }
        if !more.templates.is_empty() {
            self.templates = more.templates;
        }
        self.groups.extend(more.groups);
        Ok(self)
    }

    /// The figures of each domain for `classifier`: how much the probability of the class `positive`, if there is one, and the class itself depend
    /// on the group.
    ///
    /// # Errors
    /// If a sentence has no token that the classifier knows.
    pub(crate) fn scores(&self, classifier: &Classifier, positive: Option<usize>, seed: u64) -> Result<Vec<Score>> {
        let mut scores = Vec::new();
        for (domain, groups) in &self.groups {
            let items = self.ask(classifier, groups, positive)?;
            scores.extend(of_domain(domain, &groups.keys().map(String::as_str).collect::<Vec<_>>(), &items, positive.is_some(), seed));
        }
        Ok(scores)
    }

    /// What the classifier says of each item of a domain.
    fn ask(&self, classifier: &Classifier, groups: &BTreeMap<String, Vec<String>>, positive: Option<usize>) -> Result<Vec<Item>> {
        let n_words = groups.values().map(Vec::len).min().unwrap_or(0);
        let of_item =
            |(template, word): (&String, usize)| groups.values().map(move |words| about(template, &words[word])).collect::<Vec<_>>();
        let items = self.templates.iter().flat_map(|template| (0..n_words).map(move |word| (template, word)));
        let sentences: Vec<String> = items.flat_map(of_item).collect();
        let probabilities = classifier.of_sentences("templates", sentences)?;
        let item = |probabilities: &[Vec<f64>]| Item {
            classes: probabilities.iter().map(|of_text| likeliest(of_text)).collect(),
            positive: probabilities.iter().filter_map(|of_text| positive.map(|positive| of_text[positive])).collect(),
        };
        Ok(probabilities.chunks(groups.len()).map(item).collect())
    }
}

/// The figures of a domain.
fn of_domain(domain: &str, groups: &[&str], items: &[Item], has_positive: bool, seed: u64) -> Vec<Score> {
    let flips: Vec<f64> =
        items.iter().map(|item| f64::from(u8::from(item.classes.iter().any(|class| *class != item.classes[0])))).collect();
    let flips = Score::new(format!("{domain}.flips"), Some(0.0), &flips, mean, seed);
    if !has_positive {
        return vec![flips];
    }
    let of_groups: Vec<Vec<(usize, f64)>> =
        (0..groups.len()).map(|group| items.iter().enumerate().map(|(index, item)| (index, item.positive[group])).collect()).collect();
    let all: Vec<Vec<f64>> = items.iter().map(|item| item.positive.clone()).collect();
    let n_groups = groups.len();
    let gap = move |places: &[usize]| {
        let of_group = |group: usize| places.iter().map(|&place| all[place][group]).collect::<Vec<f64>>();
        largest_gap(&(0..n_groups).map(of_group).collect::<Vec<_>>())
    };
    let places: Vec<usize> = (0..items.len()).collect();
    let gap = Score { p: Some(p_of_gap(&of_groups, seed)), ..Score::new(domain, Some(0.0), &places, gap, seed) };
    let of_group = |(group, values): (&&str, &Vec<(usize, f64)>)| {
        let values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
        Score::new(format!("{domain}.{group}"), None, &values, mean, seed)
    };
    [gap, flips].into_iter().chain(groups.iter().zip(&of_groups).map(of_group)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("more.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn what_kiln_comes_with_keeps_its_own_rules() {
        let built_in = Templates::built_in();
        assert!(built_in.templates.iter().all(|template| template.matches(MARK).count() == 1));
        for (domain, groups) in &built_in.groups {
            let sizes: Vec<usize> = groups.values().map(Vec::len).collect();
            assert!(sizes.len() > 1 && sizes.iter().all(|size| *size == sizes[0]), "{domain}: {sizes:?}");
            let words: Vec<&String> = groups.values().flatten().collect();
            assert_eq!(words.iter().collect::<std::collections::BTreeSet<_>>().len(), words.len(), "{domain}: a word of two groups");
        }
    }

    #[test]
    fn a_file_has_templates_of_its_own_and_adds_domains() {
        let (_folder, path) = written(
            "templates = [\"{} paid.\"]\n[groups.age]\nold = [\"gran\"]\nyoung = [\"teen\"]\n[groups.class]\nrich = [\"a\"]\npoor = [\"b\"]\n",
        );
        let (before, after) = (Templates::built_in(), Templates::built_in().with_file(&path).unwrap());
        assert_eq!(after.templates, ["{} paid."]);
        assert_eq!(after.groups.len(), before.groups.len() + 1);
        assert_eq!(after.groups["age"]["old"], ["gran"]);
        let (_folder, path) = written("[groups.class]\nrich = [\"a\"]\npoor = [\"b\"]\n");
        assert_eq!(Templates::built_in().with_file(&path).unwrap().templates, before.templates);
        for (text, expected) in [
            ("templates = [\"no person\"]", "\"no person\" has no {}"),
            ("[groups.age]\nold = [\"a\"]", "groups.age: found lists of [1] words"),
            ("[groups.age]\nold = [\"a\"]\nyoung = []", "groups.age: found lists of [1, 0] words"),
            ("\ntemplates = 3", "more.toml:2: invalid type"),
            ("templates = []\nwords = []\n", "more.toml:2: unknown field"),
        ] {
            let (_folder, path) = written(text);
            let error = Templates::built_in().with_file(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// Of 20 items the second group's sentence is 0.2 likelier, which moves it over ½ in every fourth.
    #[test]
    fn a_group_that_is_treated_otherwise_has_a_gap() {
        let item = |index: usize| {
            let value = if index.is_multiple_of(4) { 0.4 } else { 0.7 };
            let positive = vec![value, value + 0.2, value];
            Item { classes: positive.iter().map(|value| usize::from(*value >= 0.5)).collect(), positive }
        };
        let items: Vec<Item> = (0..20).map(item).collect();
        let scores = of_domain("age", &["old", "young", "middle"], &items, true, 1);
        let found: Vec<(&str, f64)> = scores.iter().map(|score| (score.part.as_str(), score.figure.value)).collect();
        for ((part, value), (name, expected)) in
            found.iter().zip([("age", 0.2), ("age.flips", 0.25), ("age.old", 0.625), ("age.young", 0.825), ("age.middle", 0.625)])
        {
            assert!(*part == name && (value - expected).abs() < 1e-12, "{found:?}");
        }
        assert!(scores[0].p.unwrap() < 0.01 && scores[0].fair == Some(0.0) && scores[2].fair.is_none());
        let alike: Vec<Item> =
            items.iter().map(|item| Item { positive: vec![item.positive[0]; 3], classes: vec![item.classes[0]; 3] }).collect();
        let scores = of_domain("age", &["old", "young", "middle"], &alike, true, 1);
        assert_eq!((scores[0].figure.value, scores[0].p, scores[1].figure.value), (0.0, Some(1.0), 0.0));
        assert_eq!(of_domain("age", &["old", "young", "middle"], &items, false, 1).len(), 1, "without a positive class flips alone");
    }
}
