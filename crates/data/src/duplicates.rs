//! Texts that are there more than once: the same ones, and nearly the same ones.
//!
//! Two texts are the same if their letters and digits are: case, punctuation and white space do not count. How alike two others are is the
//! share that their sets of shingles A and B, all runs of 5 bytes, have in common:
//!
//! ```text
//! resemblance = |A ∩ B| / |A ∪ B|
//! ```
//!
//! Pairs that may be alike are found in time linear in the number of texts: of each text a sketch of 64 smallest hashes is kept, and
//! only texts that agree in a whole band of it are compared. What is reported was compared shingle by shingle; of pairs with a resemblance
//! of 0.8 the bands miss 2 in 10 000. Nothing depends on chance or on the number of threads.
//!
//! Sources: resemblance: Broder, "On the resemblance and containment of documents", 1997; one permutation: Li, Owen and Zhang,
//! arXiv:1208.1259; empty bins: Shrivastava and Li, arXiv:1406.4784; bands: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
//! Section 3.4.

use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// Bytes of a shingle: a word of English and the space behind it.
const SHINGLE_BYTES: usize = 5;
/// Smallest hashes in a sketch.
const N_BINS: usize = 64;
/// Hashes in a band. 16 bands of 4: of pairs with a resemblance of 0.5 every third is missed, of 0.8 next to none.
const BAND: usize = 4;
/// Shorter texts are compared whole only: of so few shingles one word is most of them.
pub const SHORTEST_BYTES: usize = 24;
/// How much less alike the sketches of two texts may be than the texts: three standard deviations of a share of [`N_BINS`].
const SKETCH_ERROR: f64 = 0.16;
/// Texts per unit of parallel work.
const CHUNK: usize = 256;

/// Texts as they are compared.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// Letters and digits in lower case, words between single spaces.
    normal: Vec<String>,
}

/// A text that resembles another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alike {
    /// The place of the other text.
    pub index: usize,
    /// The share of shingles that both have, of all that either has.
    pub resemblance: f64,
}

/// The letters and digits of a text in lower case, words between single spaces.
pub fn normalised(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut is_between = false;
    for c in text.chars() {
        if !c.is_alphanumeric() {
            is_between = true;
            continue;
        }
        if is_between && !normal.is_empty() {
            normal.push(' ');
        }
        is_between = false;
        if c.is_ascii() { normal.push(c.to_ascii_lowercase()) } else { normal.extend(c.to_lowercase()) }
    }
    // Of signs alone, such as a row of dashes, they are all there is.
    if normal.is_empty() { text.trim().to_owned() } else { normal }
}

/// Words that a line of running text must have for its repetition to mean something: names of speakers and headings repeat.
const LINE_WORDS: usize = 8;

/// Whether a line of running text is compared with others.
pub fn is_compared_line(line: &str) -> bool {
    line.split_whitespace().nth(LINE_WORDS - 1).is_some()
}

/// A hash of a text as it is compared: the same of texts that are the same. `None` if nothing is left of it.
pub fn hash(text: &str) -> Option<u64> {
    let normal = normalised(text);
    let words = normal.as_bytes().chunks(8).map(|word| word.iter().rev().fold(0, |run, &byte| run << 8 | u64::from(byte)));
    (!normal.is_empty()).then(|| words.fold(normal.len() as u64, |hash, word| mixed(hash.rotate_left(23) ^ mixed(word))))
}

impl Texts {
    /// These texts.
    pub fn new<S: AsRef<str> + Sync>(texts: &[S]) -> Self {
        Self { normal: texts.par_iter().with_min_len(CHUNK).map(|text| normalised(text.as_ref())).collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.normal.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.normal.is_empty()
    }

    /// Whether nothing is left of the text at `index`.
    pub fn is_blank(&self, index: usize) -> bool {
        self.normal[index].is_empty()
    }

    /// For each text the place of the first that is the same: its own if none before it is.
    pub fn first_same(&self) -> Vec<usize> {
        let mut firsts: HashMap<&str, usize> = HashMap::with_capacity(self.len());
        self.normal.iter().enumerate().map(|(index, text)| *firsts.entry(text).or_insert(index)).collect()
    }

    /// Bytes of the text at `index`.
    pub fn n_bytes(&self, index: usize) -> usize {
        self.normal[index].len()
    }

    /// For each text, of those in `candidates` and in `others`, one of the candidates before it that it resembles by at least `least`, if one
    /// was found. Texts that are the same as one before them, or shorter than [`SHORTEST_BYTES`], resemble nothing here.
    pub fn alike(&self, candidates: Range<usize>, others: Range<usize>, least: f64) -> Vec<Option<Alike>> {
        let same = self.first_same();
        let is_compared = |&index: &usize| {
            (candidates.contains(&index) || others.contains(&index)) && same[index] == index && self.normal[index].len() >= SHORTEST_BYTES
        };
        let compared: Vec<u32> = (0..self.len()).filter(is_compared).map(|index| index as u32).collect();
        let sketches: Vec<Sketch> =
            compared.par_iter().with_min_len(CHUNK).map(|&index| sketch(self.normal[index as usize].as_bytes())).collect();
        let pairs = pairs(&compared, &sketches, &candidates);
        let mut found = vec![None; self.len()];
        // Those of one text are side by side.
        let groups: Vec<&[(u32, u32)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        let best = |group: &&[(u32, u32)]| {
            let of = group[0].0 as usize;
            let mut likely: Vec<(f64, u32)> = group
                .iter()
                .map(|&(_, other)| (agreement(&sketches[of], &sketches[other as usize]), other))
                .filter(|(agreement, _)| *agreement >= least - SKETCH_ERROR)
                .collect();
            likely.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let own = shingles(self.normal[compared[of] as usize].as_bytes());
            let alike = likely.iter().take(MOST_COMPARED).find_map(|&(_, other)| {
                let index = compared[other as usize] as usize;
                let resemblance = resemblance(&own, &shingles(self.normal[index].as_bytes()));
                (resemblance >= least).then_some(Alike { index, resemblance })
            });
            (compared[of] as usize, alike)
        };
        let all: Vec<(usize, Option<Alike>)> = groups.par_iter().with_min_len(CHUNK / 8).map(best).collect();
        all.into_iter().for_each(|(index, alike)| found[index] = alike);
        found
    }
}

/// Texts that a text is compared with shingle by shingle, the likeliest first.
const MOST_COMPARED: usize = 4;
/// Texts of a band that a text is paired with: the first, which are the same for all, so that what is alike is found together.
const MOST_OF_BAND: usize = 2;

type Sketch = [u32; N_BINS];

/// A hash of each run of bytes. What is too short for one run is one.
fn hashes(text: &[u8]) -> impl Iterator<Item = u64> {
    let run = |bytes: &[u8]| bytes.iter().rev().fold(0, |run, &byte| run << 8 | u64::from(byte));
    let n_runs = text.len().saturating_sub(SHINGLE_BYTES - 1).max(1);
    let mut rolling = run(&text[..text.len().min(SHINGLE_BYTES)]);
    (0..n_runs).map(move |start| {
        if start > 0 {
            rolling = rolling >> 8 | u64::from(text[start + SHINGLE_BYTES - 1]) << (8 * (SHINGLE_BYTES - 1));
        }
        mixed(rolling)
    })
}

/// Spreads the bits of a run over a whole number.
fn mixed(run: u64) -> u64 {
    let x = (run ^ run >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 32).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 29
}

/// The smallest hash of each bin; a bin that no hash fell into takes that of the next one, changed by how far that is.
fn sketch(text: &[u8]) -> Sketch {
    let mut smallest = [u32::MAX; N_BINS];
    let mut filled = [false; N_BINS];
    for hash in hashes(text) {
        let bin = (hash >> 32) as usize % N_BINS;
        smallest[bin] = smallest[bin].min(hash as u32);
        filled[bin] = true;
    }
    std::array::from_fn(|bin| {
        let distance = (0..N_BINS).find(|distance| filled[(bin + distance) % N_BINS]).expect("a text has a shingle");
        smallest[(bin + distance) % N_BINS].wrapping_add((distance as u32).wrapping_mul(0x9E37_79B9))
    })
}

/// The share of bins in which two sketches agree, an estimate of the resemblance.
fn agreement(a: &Sketch, b: &Sketch) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / N_BINS as f64
}

/// Places in `compared`, the later text's first, of texts that agree in a band, each pair once, in order.
fn pairs(compared: &[u32], sketches: &[Sketch], candidates: &Range<usize>) -> Vec<(u32, u32)> {
    let keys = |(place, sketch): (usize, &Sketch)| -> [(u64, u32); N_BINS / BAND] {
        std::array::from_fn(|band| {
            let values = &sketch[band * BAND..(band + 1) * BAND];
            (values.iter().fold(band as u64 + 1, |key, &value| mixed(key.rotate_left(23) ^ u64::from(value))), place as u32)
        })
    };
    let mut buckets: Vec<(u64, u32)> = sketches.par_iter().with_min_len(CHUNK).enumerate().flat_map_iter(keys).collect();
    buckets.par_sort_unstable();
    let mut pairs = Vec::new();
    for bucket in buckets.chunk_by(|a, b| a.0 == b.0).filter(|bucket| bucket.len() > 1) {
        let mut others: Vec<u32> = Vec::with_capacity(MOST_OF_BAND + 1);
        for &(_, place) in bucket {
            pairs.extend(others.iter().map(|&other| (place, other)));
            if candidates.contains(&(compared[place as usize] as usize)) {
                // The first ones, and the one just before.
                others.truncate(MOST_OF_BAND);
                others.push(place);
            }
        }
    }
    pairs.par_sort_unstable();
    pairs.dedup();
    pairs
}

/// The set of shingles, in order.
fn shingles(text: &[u8]) -> Vec<u64> {
    let mut shingles: Vec<u64> = hashes(text).collect();
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// The share of shingles that both sets have, of all that either has.
fn resemblance(a: &[u64], b: &[u64]) -> f64 {
    let (mut rest, mut both) = (b, 0);
    for shingle in a {
        let skipped = rest.iter().take_while(|other| *other < shingle).count();
        rest = &rest[skipped..];
        if rest.first() == Some(shingle) {
            both += 1;
        }
    }
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Instant;

    #[test]
    fn case_signs_and_spaces_do_not_count() {
        assert_eq!(normalised("  The sea, it's COLD!\n"), "the sea it s cold");
        assert_eq!(normalised("Ça VA"), "ça va");
        assert_eq!([normalised(" -- "), normalised(" \n")], ["--", ""]);
        let texts = Texts::new(&["The sea.", "the sun", "the  sea", "THE SUN!", "the sea"]);
        assert_eq!(texts.first_same(), [0, 1, 0, 1, 0]);
        assert!(Texts::new(&["a", " "]).is_blank(1));
    }

    /// abcdef has abcde and bcdef; bcdefg has bcdef and cdefg: one of three.
    #[test]
    fn resemblance_by_hand() {
        let of = |text: &str| shingles(text.as_bytes());
        assert_eq!(resemblance(&of("abcdef"), &of("bcdefg")), 1.0 / 3.0);
        assert_eq!(resemblance(&of("abcdef"), &of("abcdef")), 1.0);
        assert_eq!(resemblance(&of("abcdef"), &of("xyz")), 0.0);
        // A run that comes twice counts once.
        assert_eq!(of("aaaaaaaaaa").len(), 1);
    }

    fn words(random: &mut SplitMix64, n: usize) -> Vec<String> {
        (0..n).map(|_| format!("{:x}", random.below(1 << 24))).collect()
    }

    #[test]
    fn a_changed_word_is_found_and_other_texts_are_not() {
        let mut random = SplitMix64::new(3);
        let originals: Vec<Vec<String>> = (0..2000).map(|_| words(&mut random, 24)).collect();
        let mut texts: Vec<String> = originals.iter().map(|words| words.join(" ")).collect();
        for words in originals.iter().step_by(10) {
            let mut words = words.clone();
            words[random.below(24)] = "other".into();
            texts.push(words.join(" "));
        }
        let found = Texts::new(&texts).alike(0..2000, 2000..2200, 0.8);
        assert!(found[..2000].iter().all(Option::is_none));
        for (copy, alike) in found[2000..].iter().enumerate() {
            let alike = alike.expect("a copy is found");
            assert_eq!(alike.index, copy * 10);
            assert!((0.8..1.0).contains(&alike.resemblance), "{alike:?}");
        }
        // Copies alone have nothing to be like.
        assert!(Texts::new(&texts[2000..]).alike(0..200, 0..0, 0.8).iter().all(Option::is_none));
    }

    #[test]
    fn only_candidates_count_and_short_texts_are_compared_whole() {
        let long = [
            "the ice on the northern sea is thick",
            "the ice on the northern sea is thick now",
            "the ice on the northern sea is thick, too",
        ];
        let texts = Texts::new(&long);
        assert_eq!(
            texts.alike(0..3, 0..0, 0.6).iter().map(|alike| alike.map(|alike| alike.index)).collect::<Vec<_>>(),
            [None, Some(0), Some(0)]
        );
        assert_eq!(
            texts.alike(1..2, 0..3, 0.6).iter().map(|alike| alike.map(|alike| alike.index)).collect::<Vec<_>>(),
            [None, None, Some(1)]
        );
        assert!(Texts::new(&["it was good", "it was goods"]).alike(0..2, 0..0, 0.1)[1].is_none());
    }

    proptest! {
        /// The share of agreeing bins estimates the resemblance.
        #[test]
        fn sketches_estimate_the_resemblance(seed: u64, changed in 0_usize..40) {
            let mut random = SplitMix64::new(seed);
            let first = words(&mut random, 80);
            let second: Vec<String> = first.iter().enumerate().map(|(i, word)| if i < changed { "zz".to_owned() + word } else { word.clone() }).collect();
            let [first, second] = [first, second].map(|words| words.join(" "));
            let exact = resemblance(&shingles(first.as_bytes()), &shingles(second.as_bytes()));
            let estimate = agreement(&sketch(first.as_bytes()), &sketch(second.as_bytes()));
            // Four standard deviations.
            prop_assert!((exact - estimate).abs() < 0.25, "{} {}", exact, estimate);
        }

        /// Sets, computed the plain way.
        #[test]
        fn resemblance_is_that_of_the_sets(a in "[ab ]{5,40}", b in "[ab ]{5,40}") {
            let set = |text: &str| text.as_bytes().windows(SHINGLE_BYTES).map(<[u8]>::to_vec).collect::<BTreeSet<_>>();
            let expected = set(&a).intersection(&set(&b)).count() as f64 / set(&a).union(&set(&b)).count() as f64;
            prop_assert_eq!(resemblance(&shingles(a.as_bytes()), &shingles(b.as_bytes())), expected);
        }
    }

    /// A hundred thousand rows, and rows that are all alike, in seconds.
    #[test]
    fn time_is_linear() {
        let mut random = SplitMix64::new(9);
        let texts: Vec<String> = (0..100_000).map(|_| words(&mut random, 20).join(" ")).collect();
        let start = Instant::now();
        let found = Texts::new(&texts).alike(0..texts.len(), 0..0, 0.8);
        let apart = start.elapsed().as_secs_f64();
        assert!(found.iter().all(Option::is_none));
        let alike: Vec<String> = (0..100_000).map(|row| format!("{} {row}", texts[0])).collect();
        let start = Instant::now();
        let found = Texts::new(&alike).alike(0..alike.len(), 0..0, 0.8);
        let together = start.elapsed().as_secs_f64();
        assert!(found.iter().filter(|alike| alike.is_some()).count() > 99_990);
        println!("{apart:.2} s apart, {together:.2} s together");
        assert!(apart < 20.0 && together < 20.0, "{apart:.1} s, {together:.1} s");
    }
}
