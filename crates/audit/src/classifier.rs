//! Probabilities of the labels of a file's own rows, of each by a classifier that was not trained on it.
//!
//! The rows are cut into folds, classes alike; of each fold a logistic regression trained on the others says how likely each class is. It reads the
//! embedding of a text and which words are in it, the words weighted as in information retrieval:
//!
//! ```text
//! weight of a word in a text  (1 + ln(times it comes there))·(1 + ln((1 + n) / (1 + rows it is in))), each text's weights of length 1
//! loss                        Σ cross-entropy + |W|² / (2·C), C = [`STRENGTH`]
//! ```
//!
//! The encoder stays as it is, so five classifiers take a few seconds. Embeddings of sentences know topics; words make up for what they do not
//! know. It is minimised by limited-memory BFGS.
//!
//! Source: Nocedal and Wright, "Numerical Optimization" (2006), Algorithms 7.4 and 3.1; weights: Salton and Buckley (1988).

use crate::balance;
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::linear::linear;
use kiln_kernels::random::Key;
use rayon::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// How little weights are held back: the inverse of the strength of the penalty on their squares.
pub const STRENGTH: f64 = 10.0;
/// Words in fewer rows are left out: they cannot be learnt from one fold for another.
const FEWEST_ROWS: usize = 2;
/// Updates at most.
const MOST_UPDATES: usize = 100;
/// Training ends where an update lowers the loss by less than this share of it.
const TOLERANCE: f64 = 1e-5;
/// Updates that the curvature is known from.
const MEMORY: usize = 10;
/// Rows, or words, per unit of parallel work.
const CHUNK: usize = 256;

/// What is known of each row: its embedding and its words.
#[derive(Debug)]
pub struct Features {
    vectors: Vec<Vec<f32>>,
    /// Words by number, with their weights.
    words: Vec<Vec<(u32, f32)>>,
    n_words: usize,
}

impl Features {
    /// The features of `texts` with the embeddings `vectors`; without any, of the words alone.
    ///
    /// # Panics
    /// If there are embeddings, but not one for each text.
    pub fn new<S: AsRef<str>>(texts: &[S], vectors: Vec<Vec<f32>>) -> Self {
        let vectors = if vectors.is_empty() { vec![Vec::new(); texts.len()] } else { vectors };
        assert_eq!(vectors.len(), texts.len(), "an embedding for each text");
        let counted: Vec<BTreeMap<String, f64>> = texts.iter().map(|text| counted(text.as_ref())).collect();
        let mut n_rows: BTreeMap<&str, usize> = BTreeMap::new();
        counted.iter().flat_map(BTreeMap::keys).for_each(|word| *n_rows.entry(word).or_default() += 1);
        n_rows.retain(|_, count| *count >= FEWEST_ROWS);
        let numbers: BTreeMap<&str, (u32, f64)> = n_rows
            .iter()
            .enumerate()
            .map(|(number, (word, &count))| (*word, (number as u32, 1.0 + ((1.0 + texts.len() as f64) / (1.0 + count as f64)).ln())))
            .collect();
        let weighted = |counts: &BTreeMap<String, f64>| {
            let weights =
                counts.iter().filter_map(|(word, times)| numbers.get(word.as_str()).map(|(n, rarity)| (*n, (1.0 + times.ln()) * rarity)));
            let weights: Vec<(u32, f64)> = weights.collect();
            let length = weights.iter().map(|(_, weight)| weight * weight).sum::<f64>().sqrt();
            weights.into_iter().map(|(word, weight)| (word, (weight / length) as f32)).collect()
        };
        Self { vectors, words: counted.iter().map(weighted).collect(), n_words: numbers.len() }
    }

    fn width(&self) -> usize {
        self.vectors.first().map_or(0, Vec::len)
    }
}

/// How often each word comes in a text.
fn counted(text: &str) -> BTreeMap<String, f64> {
    let lower = text.to_lowercase();
    let mut counts = BTreeMap::new();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.for_each(|word| *counts.entry(word.to_owned()).or_insert(0.0) += 1.0);
    counts
}

/// The fold of each row: `n_folds` of them with every class spread evenly, drawn by `seed`.
pub fn folds(labels: &[usize], n_folds: usize, seed: u64) -> Vec<usize> {
    let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); balance::counts(labels).len()];
    labels.iter().enumerate().for_each(|(row, &label)| of_class[label].push(row));
    let mut folds = vec![0; labels.len()];
    let mut next = 0;
    for (class, rows) in of_class.iter().enumerate() {
        for place in Key::new(seed).fold(class as u64).permutation(rows.len()) {
            folds[rows[place]] = next % n_folds;
            next += 1;
        }
    }
    folds
}

/// The probabilities of each row's classes, `[rows, classes]` in row-major order, by classifiers that were trained on the other folds.
///
/// # Panics
/// If there are not as many labels as rows.
pub fn out_of_sample(features: &Features, labels: &[usize], n_classes: usize, n_folds: usize, seed: u64, device: &Device) -> Vec<f32> {
    assert_eq!(labels.len(), features.words.len(), "a label for each row");
    let folds = folds(labels, n_folds, seed);
    let mut probabilities = vec![0.0; labels.len() * n_classes];
    for fold in 0..n_folds {
        let (held_out, train): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|&row| folds[row] == fold);
        if held_out.is_empty() || train.is_empty() {
            continue;
        }
        let train_labels: Vec<usize> = train.iter().map(|&row| labels[row]).collect();
        let weights = fit(&Part::new(features, &train, device), &train_labels, n_classes, device);
        let found = Part::new(features, &held_out, device).probabilities(&weights, n_classes, device);
        for (&row, found) in held_out.iter().zip(found.chunks_exact(n_classes)) {
            probabilities[row * n_classes..][..n_classes].copy_from_slice(found);
        }
    }
    probabilities
}

/// Some of the rows, laid out for training.
struct Part<'a> {
    words: Vec<&'a [(u32, f32)]>,
    /// The rows of each word, with its weight in them.
    rows_of_word: Vec<Vec<(u32, f32)>>,
    width: usize,
    /// `[rows, width]`, and its transpose; none without embeddings.
    vectors: Option<[Tensor<2>; 2]>,
}

impl<'a> Part<'a> {
    fn new(features: &'a Features, rows: &[usize], device: &Device) -> Self {
        let width = features.width();
        let words: Vec<&[(u32, f32)]> = rows.iter().map(|&row| features.words[row].as_slice()).collect();
        let mut rows_of_word = vec![Vec::new(); features.n_words];
        for (place, words) in words.iter().enumerate() {
            words.iter().for_each(|&(word, weight)| rows_of_word[word as usize].push((place as u32, weight)));
        }
        let vectors = (width > 0).then(|| {
            let dense: Vec<f32> = rows.iter().flat_map(|&row| features.vectors[row].iter().copied()).collect();
            let vectors = matrix(dense, [rows.len(), width], device);
            [vectors.clone(), matrix(floats(vectors.transpose()), [width, rows.len()], device)]
        });
        Self { words, rows_of_word, width, vectors }
    }

    /// Of `[classes, width]` weights of the embedding, `[words, classes]` of the words and `[classes]` biases.
    fn n_weights(&self, n_classes: usize) -> usize {
        n_classes * (self.width + self.rows_of_word.len() + 1)
    }

    /// `[rows, classes]`.
    fn probabilities(&self, weights: &[f64], n_classes: usize, device: &Device) -> Vec<f32> {
        let (of_vectors, rest) = weights.split_at(n_classes * self.width);
        let (of_words, biases) = rest.split_at(n_classes * self.rows_of_word.len());
        let mut scores = match &self.vectors {
            Some([vectors, _]) => {
                let narrow = of_vectors.iter().map(|&weight| weight as f32).collect();
                floats(linear(vectors.clone(), matrix(narrow, [n_classes, self.width], device), None))
            }
            None => vec![0.0; self.words.len() * n_classes],
        };
        scores.par_chunks_mut(n_classes).zip(&self.words).with_min_len(CHUNK).for_each(|(scores, words)| {
            scores.iter_mut().zip(biases).for_each(|(score, bias)| *score += *bias as f32);
            for &(word, weight) in *words {
                let of_word = &of_words[word as usize * n_classes..][..n_classes];
                scores.iter_mut().zip(of_word).for_each(|(score, of_word)| *score += weight * *of_word as f32);
            }
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
            let sum: f32 = scores.iter().sum();
            scores.iter_mut().for_each(|score| *score /= sum);
        });
        scores
    }

    /// The loss at `weights` and its gradient, both over the number of rows. Biases are not held back.
    fn loss(&self, weights: &[f64], labels: &[usize], n_classes: usize, device: &Device) -> (f64, Vec<f64>) {
        let n_rows = labels.len() as f64;
        let mut residuals = self.probabilities(weights, n_classes, device);
        let mut loss = 0.0;
        for (residuals, &label) in residuals.chunks_exact_mut(n_classes).zip(labels) {
            loss -= f64::from(residuals[label].max(f32::MIN_POSITIVE)).ln();
            residuals[label] -= 1.0;
        }
        let n_held_back = weights.len() - n_classes;
        loss += weights[..n_held_back].iter().map(|weight| weight * weight).sum::<f64>() / (2.0 * STRENGTH);
        let mut gradient = Vec::with_capacity(weights.len());
        if let Some([_, transposed]) = &self.vectors {
            let residuals = matrix(residuals.clone(), [labels.len(), n_classes], device).transpose();
            gradient.extend(floats(linear(residuals, transposed.clone(), None)).into_iter().map(f64::from));
        }
        let of_word = |rows: &Vec<(u32, f32)>| {
            let mut sums = vec![0.0; n_classes];
            for &(row, weight) in rows {
                let residuals = &residuals[row as usize * n_classes..][..n_classes];
                sums.iter_mut().zip(residuals).for_each(|(sum, &residual)| *sum += f64::from(weight * residual));
            }
            sums
        };
        let of_words: Vec<Vec<f64>> = self.rows_of_word.par_iter().with_min_len(CHUNK / 8).map(of_word).collect();
        gradient.extend(of_words.into_iter().flatten());
        let mut of_biases = vec![0.0; n_classes];
        for residuals in residuals.chunks_exact(n_classes) {
            of_biases.iter_mut().zip(residuals).for_each(|(sum, &residual)| *sum += f64::from(residual));
        }
        gradient.extend(of_biases);
        gradient[..n_held_back].iter_mut().zip(weights).for_each(|(slope, weight)| *slope += weight / STRENGTH);
        gradient.iter_mut().for_each(|slope| *slope /= n_rows);
        (loss / n_rows, gradient)
    }
}

fn matrix(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("values are f32")
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The weights that minimise the loss.
fn fit(part: &Part, labels: &[usize], n_classes: usize, device: &Device) -> Vec<f64> {
    let mut weights = vec![0.0; part.n_weights(n_classes)];
    let (mut loss, mut gradient) = part.loss(&weights, labels, n_classes, device);
    // Steps and what they changed the gradient by.
    let mut history: VecDeque<(Vec<f64>, Vec<f64>)> = VecDeque::new();
    for _ in 0..MOST_UPDATES {
        let direction = direction(&gradient, &history);
        let slope = dot(&gradient, &direction);
        let mut size = 1.0;
        let (next, next_loss, next_gradient) = loop {
            let next: Vec<f64> = weights.iter().zip(&direction).map(|(weight, step)| weight + size * step).collect();
            let (next_loss, next_gradient) = part.loss(&next, labels, n_classes, device);
            // Enough of what the slope promised, or a step too small to matter.
            if next_loss <= loss + 1e-4 * size * slope || size < 1e-6 {
                break (next, next_loss, next_gradient);
            }
            size /= 2.0;
        };
        if next_loss >= loss {
            break;
        }
        let step: Vec<f64> = next.iter().zip(&weights).map(|(next, weight)| next - weight).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(next, gradient)| next - gradient).collect();
        if dot(&step, &change) > 0.0 {
            history.push_back((step, change));
            if history.len() > MEMORY {
                history.pop_front();
            }
        }
        let gain = loss - next_loss;
        (weights, loss, gradient) = (next, next_loss, next_gradient);
        if gain < TOLERANCE * loss {
            break;
        }
    }
    weights
}

/// The step that the curvature seen so far suggests, by the two loops over what is remembered.
fn direction(gradient: &[f64], history: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|slope| -slope).collect();
    let mut shares = Vec::with_capacity(history.len());
    for (step, change) in history.iter().rev() {
        let share = dot(step, &direction) / dot(step, change);
        direction.iter_mut().zip(change).for_each(|(value, change)| *value -= share * change);
        shares.push(share);
    }
    // Without a past the steepest descent, of length 1.
    let scale = history
        .back()
        .map_or_else(|| 1.0 / dot(gradient, gradient).sqrt().max(1e-12), |(step, change)| dot(step, change) / dot(change, change));
    direction.iter_mut().for_each(|value| *value *= scale);
    for ((step, change), share) in history.iter().zip(shares.into_iter().rev()) {
        let back = dot(change, &direction) / dot(step, change);
        direction.iter_mut().zip(step).for_each(|(value, step)| *value += (share - back) * step);
    }
    direction
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_core::device;

    fn rows() -> (Vec<String>, Vec<Vec<f32>>, Vec<usize>) {
        let key = Key::new(12);
        let n = 300_u64;
        let labels: Vec<usize> = (0..n).map(|row| key.below(row, 3) as usize).collect();
        let words = ["red", "green", "blue", "of", "and", "the"];
        let text = |row: u64| format!("{} {}", words[labels[row as usize]], words[3 + key.fold(1).below(row, 3) as usize]);
        // Embeddings that say little.
        let value = |row: u64, i: u64| key.fold(2 + row).normal(i) * 0.3 + f32::from(u8::from(i as usize == labels[row as usize])) * 0.2;
        let vector = |row: u64| (0..8).map(|i| value(row, i)).collect();
        ((0..n).map(text).collect(), (0..n).map(vector).collect(), labels)
    }

    fn accuracy(probabilities: &[f32], labels: &[usize]) -> f64 {
        let right = probabilities.chunks_exact(3).zip(labels).filter(|(p, label)| p.iter().all(|other| *other <= p[**label])).count();
        right as f64 / labels.len() as f64
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let device = device::by_name("flex").unwrap();
        let (texts, vectors, labels) = rows();
        let features = Features::new(&texts[..40], vectors[..40].to_vec());
        let part = Part::new(&features, &(0..40).collect::<Vec<_>>(), &device);
        let weights: Vec<f64> = (0..part.n_weights(3)).map(|i| f64::from(Key::new(5).normal(i as u64)) * 0.5).collect();
        let (_, gradient) = part.loss(&weights, &labels[..40], 3, &device);
        // One weight of each kind, and a bias; the loss is computed from f32.
        for place in [4, 30, weights.len() - 1] {
            let at = |shift: f64| {
                let mut moved = weights.clone();
                moved[place] += shift;
                part.loss(&moved, &labels[..40], 3, &device).0
            };
            let slope = (at(0.02) - at(-0.02)) / 0.04;
            assert!((slope - gradient[place]).abs() < 1e-4, "{place}: {slope} {}", gradient[place]);
        }
    }

    #[test]
    fn the_loss_ends_at_a_minimum() {
        let device = device::by_name("flex").unwrap();
        let (texts, vectors, labels) = rows();
        let features = Features::new(&texts, vectors);
        let part = Part::new(&features, &(0..300).collect::<Vec<_>>(), &device);
        let start = part.loss(&vec![0.0; part.n_weights(3)], &labels, 3, &device);
        let (loss, gradient) = part.loss(&fit(&part, &labels, 3, &device), &labels, 3, &device);
        assert!((start.0 - 3f64.ln()).abs() < 1e-6, "{}", start.0);
        assert!(loss < 0.3 * start.0 && dot(&gradient, &gradient) < 1e-4 * dot(&start.1, &start.1), "{loss}");
    }

    #[test]
    fn words_and_embeddings_each_tell() {
        let device = device::by_name("flex").unwrap();
        let (texts, vectors, labels) = rows();
        let of = |features: &Features| accuracy(&out_of_sample(features, &labels, 3, 5, 1, &device), &labels);
        let blank = vec![String::new(); texts.len()];
        let (both, words, embeddings) =
            (of(&Features::new(&texts, vectors.clone())), of(&Features::new(&texts, Vec::new())), of(&Features::new(&blank, vectors)));
        assert!(both > 0.99 && words > 0.99 && (0.4..0.9).contains(&embeddings), "{both} {words} {embeddings}");
    }

    #[test]
    fn a_row_is_not_judged_by_a_classifier_that_knows_it() {
        // Labels drawn at random cannot be told from rows not seen, however well they can be learnt by heart.
        let device = device::by_name("flex").unwrap();
        let labels: Vec<usize> = (0..200).map(|row| Key::new(3).below(row, 3) as usize).collect();
        let vectors: Vec<Vec<f32>> = (0..200).map(|row| (0..60).map(|i| Key::new(6).fold(row).normal(i)).collect()).collect();
        let features = Features::new(&vec![String::new(); 200], vectors);
        let found = accuracy(&out_of_sample(&features, &labels, 3, 5, 1, &device), &labels);
        assert!((0.2..0.47).contains(&found), "{found}");
    }

    #[test]
    fn folds_are_even_in_every_class() {
        let labels: Vec<usize> = (0..103).map(|row| usize::from(row % 4 == 0)).collect();
        let folds = folds(&labels, 5, 7);
        for class in 0..2 {
            let counts: Vec<usize> =
                (0..5).map(|fold| (0..103).filter(|&row| labels[row] == class && folds[row] == fold).count()).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        assert_eq!(folds, super::folds(&labels, 5, 7));
        assert_ne!(folds, super::folds(&labels, 5, 8));
    }
}
