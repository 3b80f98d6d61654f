//! Attention against its definition, against plain Burn, and against itself packed, cached and on several threads.

use super::*;
use crate::testing::{assert_kernel, devices, numbers};

const CAUSAL: AttentionShape =
    AttentionShape { heads: 2, kv_heads: 2, head_dim: 8, causal: true, window: None, scale: 0.35, softcap: None };

fn shapes() -> Vec<AttentionShape> {
    vec![
        AttentionShape { causal: false, ..CAUSAL },
        CAUSAL,
        AttentionShape { window: Some(5), ..CAUSAL },
        AttentionShape { causal: false, window: Some(7), ..CAUSAL },
        AttentionShape { heads: 6, kv_heads: 2, ..CAUSAL },
        AttentionShape { heads: 3, kv_heads: 1, head_dim: 5, causal: false, ..CAUSAL },
        AttentionShape { softcap: Some(0.7), scale: 2.0, ..CAUSAL },
    ]
}

fn matrix(rows: usize, width: usize, seed: u64, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers(rows * width, seed), [rows, width]), device)
}

/// Queries, keys and values of some tokens.
fn qkv(n_tokens: usize, shape: &AttentionShape, device: &Device) -> [Tensor<2>; 3] {
    let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    [matrix(n_tokens, width, 1, device), matrix(n_tokens, kv_width, 2, device), matrix(n_tokens, kv_width, 3, device)]
}

fn rows(x: &Tensor<2>, range: Range<usize>) -> Tensor<2> {
    let [_, width] = x.dims();
    x.clone().slice([range, 0..width])
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.inner().into_data().try_to_vec().unwrap()
}

fn assert_near(got: Tensor<2>, expected: Tensor<2>, tolerance: f32) {
    for (got, expected) in values(got).into_iter().zip(values(expected)) {
        assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected}");
    }
}

fn assert_matches_plain(lengths: &[usize], shape: &AttentionShape, dropout: Option<(f32, Key)>) {
    assert_newest_match_plain(lengths, lengths, shape, dropout);
}

/// Of sequences with so many tokens, the newest ask.
fn assert_newest_match_plain(newest: &[usize], lengths: &[usize], shape: &AttentionShape, dropout: Option<(f32, Key)>) {
    let [queries, keys] = [newest, lengths].map(|lengths| Segments::from_lengths(lengths.iter().copied()));
    let mask = dropout.map(|(probability, key)| Mask::new(probability, key));
    let (width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let tokens = keys.n_tokens();
    assert_kernel(
        [[queries.n_tokens(), width], [tokens, kv_width], [tokens, kv_width]],
        2e-5,
        |[q, k, v]| attention_of_newest(q, k, v, [&queries, &keys], shape, dropout),
        |[q, k, v]| plain(q, k, v, &spans(&queries, &keys), shape, mask),
    );
}

#[test]
fn every_kind_matches_plain_burn() {
    for shape in shapes() {
        assert_matches_plain(&[9, 1, 0, 20], &shape, None);
    }
}

#[test]
fn the_newest_tokens_match_plain_burn() {
    for shape in shapes() {
        assert_newest_match_plain(&[9, 1, 0, 3, 0], &[9, 20, 4, 7, 0], &shape, None);
    }
    // Several chunks of keys; several of queries too, and none in their first.
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 4, ..CAUSAL };
    for (causal, window) in [(true, None), (true, Some(150)), (false, Some(301)), (false, None)] {
        let shape = AttentionShape { causal, window, ..shape.clone() };
        assert_newest_match_plain(&[5, 131], &[270, 140], &shape, causal.then(|| (0.2, Key::new(3))));
    }
}

/// Two blocks and a rest.
const TWO_BLOCKS_AND_MORE: usize = 133;

#[test]
fn sequences_longer_than_a_block_match_plain_burn() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 4, ..CAUSAL };
    for (causal, window) in [(true, None), (true, Some(40)), (false, Some(50)), (false, None)] {
        assert_matches_plain(&[3, TWO_BLOCKS_AND_MORE, 0], &AttentionShape { causal, window, ..shape.clone() }, None);
    }
}

#[test]
fn a_sequence_of_one_token_returns_its_value() {
    let shape = AttentionShape { heads: 4, ..CAUSAL };
    assert_matches_plain(&[1], &shape, None);
    let [q, k, v] = qkv(1, &shape, &devices()[0]);
    let per_head: Vec<f32> = values(v.clone()).chunks(8).flat_map(|head| [head, head].concat()).collect();
    assert_eq!(values(attention(q, k, v, &Segments::from_lengths([1]), &shape, None)), per_head);
}

/// Several chunks of keys and queries in both passes, whose sums of the softmax are rescaled on the way.
#[test]
fn sequences_of_several_chunks_match_plain_burn() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 3, ..CAUSAL };
    for (causal, window, softcap) in [(true, None, None), (true, Some(150), Some(0.9)), (false, Some(301), None), (false, None, Some(0.5))]
    {
        let shape = AttentionShape { causal, window, softcap, scale: 3.0, ..shape.clone() };
        assert_matches_plain(&[2, 270], &shape, (!causal).then(|| (0.2, Key::new(3))));
    }
}

/// Softmax does not change when every score of a row does, however large they become.
#[test]
fn huge_scores_are_shifted_away() {
    let shape = AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, scale: 1.0, causal: false, ..CAUSAL };
    let segments = Segments::from_lengths([300]);
    let device = &devices()[0];
    let noise = numbers(300, 1);
    // The first component adds the same to every score of a query; powers of two keep the sums exact enough to compare.
    let run = |shift: f32| {
        let q: Vec<f32> = (0..300).flat_map(|_| [shift, 1.0]).collect();
        let k: Vec<f32> = noise.iter().flat_map(|x| [1.0, (x * 64.0).round() / 8.0]).collect();
        let [q, k] = [q, k].map(|x| Tensor::from_data(TensorData::new(x, [300, 2]), device));
        values(attention(q, k, matrix(300, 2, 2, device), &segments, &shape, None))
    };
    let expected = run(0.0);
    for shift in [-1_048_576.0, 1_048_576.0] {
        run(shift).iter().zip(&expected).for_each(|(got, expected)| approx::assert_abs_diff_eq!(got, expected, epsilon = 1e-6));
    }
}

#[test]
fn dropout_matches_plain_burn_with_the_same_mask() {
    let key = Key::new(4);
    assert_matches_plain(&[9, 1, 20], &AttentionShape { heads: 4, ..CAUSAL }, Some((0.3, key)));
    let windowed = AttentionShape { window: Some(30), softcap: Some(0.8), ..CAUSAL };
    assert_matches_plain(&[100], &windowed, Some((0.3, key)));
}

/// The definition, one pair of tokens at a time: an independent reference for the plain path's masks and heads.
#[test]
fn plain_burn_matches_the_definition() {
    let device = &devices()[0];
    for shape in shapes() {
        let (segments, dim) = (Segments::from_lengths([4, 11]), shape.head_dim);
        let [q, k, v] = qkv(15, &shape, device);
        let out = values(plain(q.clone(), k.clone(), v.clone(), &spans(&segments, &segments), &shape, None));
        let (q, k, v) = (values(q), values(k), values(v));
        for (token, head) in (0..15).flat_map(|token| (0..shape.heads).map(move |head| (token, head))) {
            let kv_head = head / (shape.heads / shape.kv_heads);
            let (start, end) = if token < 4 { (0, 4) } else { (4, 15) };
            let seen: Vec<usize> = (start..end)
                .filter(|&key| !shape.causal || key <= token)
                .filter(|&key| match shape.window {
                    Some(window) if shape.causal => key + window > token,
                    Some(window) => key.abs_diff(token) <= window / 2,
                    None => true,
                })
                .collect();
            let row = |x: &[f32], token: usize, head: usize, heads: usize| x[(token * heads + head) * dim..][..dim].to_vec();
            let query = row(&q, token, head, shape.heads);
            let weights: Vec<f32> = seen
                .iter()
                .map(|&key| query.iter().zip(row(&k, key, kv_head, shape.kv_heads)).map(|(q, k)| q * k).sum::<f32>() * shape.scale)
                .map(|score| shape.softcap.map_or(score, |cap| cap * (score / cap).tanh()).exp())
                .collect();
            let total: f32 = weights.iter().sum();
            for c in 0..dim {
                let expected: f32 = seen.iter().zip(&weights).map(|(&key, w)| w / total * row(&v, key, kv_head, shape.kv_heads)[c]).sum();
                approx::assert_abs_diff_eq!(out[(token * shape.heads + head) * dim + c], expected, epsilon = 2e-6);
            }
        }
    }
}

/// What packing changes: nothing, to the last bit.
#[test]
fn a_packed_sequence_is_computed_as_if_alone() {
    let lengths = [23, 1, 0, 130, 7];
    let segments = Segments::from_lengths(lengths);
    for device in devices() {
        for shape in shapes() {
            let [q, k, v] = qkv(segments.n_tokens(), &shape, &device);
            let packed = attention(q.clone(), k.clone(), v.clone(), &segments, &shape, None);
            for (range, length) in segments.ranges().zip(lengths).filter(|(_, length)| *length > 0) {
                let [q, k, v] = [&q, &k, &v].map(|x| rows(x, range.clone()));
                let alone = attention(q, k, v, &Segments::from_lengths([length]), &shape, None);
                assert_eq!(values(alone), values(rows(&packed, range)));
            }
        }
    }
}

#[test]
fn cached_attention_is_the_end_of_full_attention() {
    for (lengths, new) in [([23, 9, 130], [1, 9, 17]), ([23, 3, 600], [1, 3, 2])] {
        assert_cached(lengths, new);
    }
}

fn assert_cached(lengths: [usize; 3], new: [usize; 3]) {
    let segments = Segments::from_lengths(lengths);
    let queries = Segments::from_lengths(new);
    let spans: Vec<(usize, usize)> = segments.ranges().map(|range| (range.start, range.len())).collect();
    for device in devices() {
        for shape in shapes().into_iter().filter(|shape| shape.causal) {
            let [q, k, v] = qkv(segments.n_tokens(), &shape, &device);
            let newest = |x: &Tensor<2>| {
                let ends = segments.ranges().zip(new).map(|(range, new)| rows(x, range.end - new..range.end));
                Tensor::cat(ends.collect(), 0)
            };
            let full = newest(&attention(q.clone(), k.clone(), v.clone(), &segments, &shape, None));
            let cached = cached_attention(newest(&q), k.clone(), v.clone(), &queries, &spans, &shape);
            assert_near(cached, full.clone(), 2e-6);
            let key_spans = queries.ranges().zip(segments.ranges()).map(|(queries, keys)| Span { queries, keys });
            assert_near(plain(newest(&q), k, v, &key_spans.collect::<Vec<_>>(), &shape, None), full, 2e-6);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let segments = Segments::from_lengths([23, 700, 1, 64, 65]);
    let causal = AttentionShape { heads: 6, kv_heads: 2, head_dim: 16, ..CAUSAL };
    for shape in [causal.clone(), AttentionShape { window: Some(200), ..causal.clone() }, AttentionShape { causal: false, ..causal }] {
        assert_threads_agree(&segments, &shape);
    }
}

fn assert_threads_agree(segments: &Segments, shape: &AttentionShape) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let [q, k, v] = qkv(segments.n_tokens(), shape, &Device::flex().autodiff()).map(Tensor::require_grad);
            let out = attention(q.clone(), k.clone(), v.clone(), segments, shape, Some((0.1, Key::new(1))));
            let gradients = (out.clone() * out.clone()).sum().backward();
            let gradients = [&q, &k, &v].map(|x| values(x.grad(&gradients).unwrap()));
            let [q, k, v] = qkv(segments.n_tokens(), shape, &Device::flex());
            let spans: Vec<(usize, usize)> = segments.ranges().map(|range| (range.start, range.len())).collect();
            let newest = Segments::from_lengths(spans.iter().map(|_| 1));
            let cached = cached_attention(rows(&q, 0..spans.len()), k, v, &newest, &spans, shape);
            (values(out), gradients, values(cached))
        })
    };
    let single = run(1);
    assert!(single.0.iter().all(|x| x.is_finite()));
    for threads in [2, 4] {
        assert!(run(threads) == single, "{threads} threads compute other bytes than one");
    }
}

#[test]
fn no_tokens_are_a_batch_too() {
    let [q, k, v] = qkv(0, &CAUSAL, &devices()[0]);
    assert_eq!(attention(q, k, v, &Segments::from_lengths([0, 0]), &CAUSAL, None).dims(), [0, 16]);
}
