//! WEAT and SEAT: whether two sets of words or sentences lie nearer to one set of attributes than to another in a model's space.
//!
//! ```text
//! s(w) = mean over a of A of cos(w, a) - mean over b of B of cos(w, b)
//! d    = (mean over x of X of s(x) - mean over y of Y of s(y)) / (standard deviation of s over X and Y)
//! p    = share of the ways to deal X and Y out anew, in sets of the same size, whose Σ over X of s is at least as large
//! ```
//!
//! The deviation divides by one less than the number of words. d is between -2 and 2; 0 is fair. Of more than 100 000 ways as many are drawn, and the
//! one that is there counts as one of them. The interval of d is over X and Y, each drawn from by itself.
//!
//! Source: Caliskan, Bryson and Narayanan, arXiv:1608.07187, for words; May et al., arXiv:1903.10561, for sentences; the files are `*.jsonl` of
//! W4ngatang/sent-bias, each with the sets `targ1`, `targ2`, `attr1` and `attr2`. A text's vector is pooled as the model's folder says.

use super::score::Score;
use super::subject::{Subject, cosine};
use kiln_core::files::read_json;
use kiln_core::{Error, Result};
use kiln_eval::bootstrap::mean;
use kiln_eval::figure::Figure;
use kiln_kernels::random::Key;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Its name.
pub const NAME: &str = "weat";

/// Ways to deal out anew that are tried at most.
const MOST_PERMUTATIONS: u64 = 100_000;

/// Two sets of targets and two of attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The name of its file.
    pub name: String,
    /// X, Y, A and B.
    pub sets: [Vec<String>; 4],
}

#[derive(Deserialize)]
struct File {
    targ1: Set,
    targ2: Set,
    attr1: Set,
    attr2: Set,
}

#[derive(Deserialize)]
struct Set {
    examples: Vec<String>,
}

/// The tests of a file, or of all `.jsonl` files of a folder by name.
///
/// # Errors
/// If a file cannot be read, or a set is too small.
pub fn read(path: &Path) -> Result<Vec<Test>> {
    files(path, "jsonl")?.iter().map(|path| read_one(path)).collect()
}

/// The file, or the folder's files with this extension by name.
pub(super) fn files(path: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let entries = entries.map_err(|source| Error::io(path, source))?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    if files.is_empty() { Err(Error::data(path, None, format!("no .{extension} file in the folder"))) } else { Ok(files) }
}

fn read_one(path: &Path) -> Result<Test> {
    let file: File = read_json(path)?;
    let sets = [file.targ1, file.targ2, file.attr1, file.attr2].map(|set| set.examples);
    for (set, (name, fewest)) in sets.iter().zip([("targ1", 2), ("targ2", 2), ("attr1", 1), ("attr2", 1)]) {
        if set.len() < fewest {
            return Err(Error::data(path, None, format!("{name} has {} examples, expected at least {fewest}", set.len())));
        }
    }
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Test { name, sets })
}

/// How much nearer each target is to the first attributes than to the second.
#[derive(Clone, Debug, PartialEq)]
pub struct Associations {
    /// Of X.
    pub first: Vec<f64>,
    /// Of Y.
    pub second: Vec<f64>,
}

/// The associations of the test's targets by the model's vectors.
///
/// # Errors
/// If a text cannot be tokenised.
pub fn associations(test: &Test, subject: &Subject) -> Result<Associations> {
    let vectors = subject.embed(test.sets.concat())?;
    let [n_x, n_y, n_a, _] = test.sets.each_ref().map(Vec::len);
    let (targets, attributes) = vectors.split_at(n_x + n_y);
    let (a, b) = attributes.split_at(n_a);
    let near = |w: &Vec<f32>, set: &[Vec<f32>]| mean(&set.iter().map(|other| cosine(w, other)).collect::<Vec<_>>());
    let s: Vec<f64> = targets.iter().map(|w| near(w, a) - near(w, b)).collect();
    Ok(Associations { first: s[..n_x].to_vec(), second: s[n_x..].to_vec() })
}

/// The effect size d.
pub fn effect_size(first: &[f64], second: &[f64]) -> f64 {
    let all = [first, second].concat();
    let centre = mean(&all);
    let variance = all.iter().map(|s| (s - centre).powi(2)).sum::<f64>() / (all.len() - 1) as f64;
    (mean(first) - mean(second)) / variance.sqrt()
}

impl Associations {
    /// The share of ways to deal the targets out anew that associate the first set at least as much.
    pub fn p(&self, seed: u64) -> f64 {
        let all = [self.first.as_slice(), &self.second].concat();
        let (n, size) = (all.len(), self.first.len());
        let found: f64 = self.first.iter().sum();
        // Sums of the same numbers in another order may differ in their last bits.
        let least = found - 1e-12 * all.iter().map(|s| s.abs()).sum::<f64>();
        let sum = |places: &[usize]| places.iter().map(|&place| all[place]).sum::<f64>();
        if n_choices(n, size).is_some_and(|ways| ways <= MOST_PERMUTATIONS) {
            let (mut n_ways, mut n_as_large) = (0, 0);
            each_choice(n, size, &mut |places| {
                n_ways += 1;
                n_as_large += u64::from(sum(places) >= least);
            });
            return n_as_large as f64 / n_ways as f64;
        }
        let key = Key::new(seed);
        let drawn = (1..MOST_PERMUTATIONS).filter(|&draw| sum(&key.fold(draw).permutation(n)[..size]) >= least).count();
        (1 + drawn) as f64 / MOST_PERMUTATIONS as f64
    }
}

/// n over k, if it is not too large.
fn n_choices(n: usize, k: usize) -> Option<u64> {
    (0..k as u64).try_fold(1_u64, |ways, step| Some(ways.checked_mul(n as u64 - step)? / (step + 1)))
}

/// Calls `visit` with every choice of `k` of the numbers below `n`, in order.
fn each_choice(n: usize, k: usize, visit: &mut dyn FnMut(&[usize])) {
    let mut places: Vec<usize> = (0..k).collect();
    loop {
        visit(&places);
        let Some(index) = (0..k).rev().find(|&index| places[index] < n - k + index) else { return };
        places[index] += 1;
        (index + 1..k).for_each(|later| places[later] = places[later - 1] + 1);
    }
}

/// The effect size and p of each test.
pub fn scores(tests: &[Test], associations: &[Associations], seed: u64) -> Vec<Score> {
    let of_test = |(test, found): (&Test, &Associations)| {
        let (first, second) = (found.first.clone(), found.second.clone());
        let sizes = vec![first.len(), second.len()];
        let score = move |places: &[usize]| {
            let (of_first, of_second) = places.split_at(first.len());
            let drawn = |places: &[usize], from: &[f64]| places.iter().map(|&place| from[place]).collect::<Vec<_>>();
            effect_size(&drawn(of_first, &first), &drawn(of_second, &second))
        };
        let figure = Figure::of_strata("score", sizes, score, seed);
        Score { part: test.name.clone(), fair: Some(0.0), n: found.first.len() + found.second.len(), p: Some(found.p(seed)), figure }
    };
    tests.iter().zip(associations).map(of_test).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effect_size_and_p_by_hand() {
        // Means 3 and 0, of all 1.5; the deviations from that are 0.5, 2.5, -0.5 and -2.5.
        let (first, second) = ([2.0, 4.0], [1.0, -1.0]);
        let deviation = ((0.5_f64.powi(2) + 2.5_f64.powi(2) + 0.5_f64.powi(2) + 2.5_f64.powi(2)) / 3.0).sqrt();
        assert!((effect_size(&first, &second) - 3.0 / deviation).abs() < 1e-12);
        let found = Associations { first: first.into(), second: second.into() };
        // Of the six ways only the one that is there has a sum of 6.
        assert_eq!(found.p(1), 1.0 / 6.0);
        let mirrored = Associations { first: second.into(), second: first.into() };
        assert_eq!((effect_size(&second, &first), mirrored.p(1)), (-effect_size(&first, &second), 1.0));
    }

    #[test]
    fn drawn_ways_agree_with_all_ways() {
        let key = Key::new(2);
        let draw = |stream: u64, n: u64, shift: f32| (0..n).map(|i| f64::from(key.fold(stream).uniform(i) + shift)).collect::<Vec<_>>();
        // 184 756 ways, more than are tried.
        let many = Associations { first: draw(0, 10, 0.15), second: draw(1, 10, 0.0) };
        let all = [many.first.clone(), many.second.clone()].concat();
        let (mut n_ways, mut n_as_large) = (0, 0);
        each_choice(20, 10, &mut |places| {
            n_ways += 1;
            n_as_large += u64::from(places.iter().map(|&place| all[place]).sum::<f64>() >= many.first.iter().sum::<f64>() - 1e-12);
        });
        assert_eq!(Some(n_ways), n_choices(20, 10));
        let exact = n_as_large as f64 / n_ways as f64;
        assert!(exact > 0.01 && (many.p(3) - exact).abs() < 0.005, "{} {exact}", many.p(3));
    }
}
