//! Log-probabilities of tokens under a language model, of many sequences in few passes.

use burn::module::Module as _;
use burn::tensor::Tensor;
use kiln_core::language_model::LanguageModel;
use kiln_core::packed::{Packed, Supervised};
use kiln_kernels::cross_entropy::HeadOptions;
use kiln_kernels::rows::take_rows;
use kiln_kernels::segments::Segments;
use kiln_train::evaluate::{batches, floats};
use std::ops::Range;
use std::sync::Arc;

/// A sequence, and which tokens are predicted from which of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The sequence.
    pub ids: Vec<u32>,
    /// Rows that predict, in rising order.
    pub rows: Vec<u32>,
    /// What each should predict.
    pub targets: Vec<u32>,
}

impl Query {
    /// The tokens at `places` of `ids`, each predicted from the one before it, as decoders do. The first token, which nothing predicts, is not
    /// asked for.
    pub fn next_tokens(ids: &[u32], places: Range<usize>) -> Self {
        let places = places.start.max(1)..places.end;
        Self { ids: ids.to_vec(), rows: places.clone().map(|place| place as u32 - 1).collect(), targets: ids[places].to_vec() }
    }

    /// For each of `places` a copy of `ids` with `hidden` in its place, which the token there is predicted from, as encoders do.
    pub fn hidden_tokens(ids: &[u32], places: impl IntoIterator<Item = usize>, hidden: u32) -> Vec<Self> {
        let copy = |place: usize| {
            let mut copy = ids.to_vec();
            copy[place] = hidden;
            Self { ids: copy, rows: vec![place as u32], targets: vec![ids[place]] }
        };
        places.into_iter().map(copy).collect()
    }
}

/// The log-probability of every target of every query, in nats. Sequences are laid end to end, without padding, as many as fit a pass; only
/// the rows that predict meet the output head.
pub fn log_probabilities(model: &LanguageModel, queries: &[Query]) -> Vec<Vec<f64>> {
    let model = model.clone().valid();
    let of_batch = |batch: Vec<&Query>| {
        let packed = Packed::new(batch.iter().map(|query| query.ids.as_slice()));
        let starts = packed.segments.ranges().map(|range| range.start as u32);
        let rows: Vec<u32> = batch.iter().zip(starts).flat_map(|(query, start)| query.rows.iter().map(move |row| start + row)).collect();
        let targets: Vec<u32> = batch.iter().flat_map(|query| query.targets.iter().copied()).collect();
        if targets.is_empty() {
            return vec![Vec::new(); batch.len()];
        }
        let supervised = Supervised { weights: vec![1.0; rows.len()].into(), rows: rows.into(), targets: targets.into() };
        by_query(&model.log_probabilities(&packed, &supervised, HeadOptions::default(), None), batch.into_iter())
    };
    batches(queries, |query| query.ids.len()).flat_map(of_batch).collect()
}

/// Cuts log-probabilities, `[targets of all queries, 2]` with entropies in the second column, into those of each query.
fn by_query<'a>(columns: &Tensor<2>, queries: impl Iterator<Item = &'a Query>) -> Vec<Vec<f64>> {
    let columns = floats(columns.clone());
    let mut values = columns.iter().step_by(2).map(|&value| f64::from(value));
    queries.map(|query| values.by_ref().take(query.targets.len()).collect()).collect()
}

/// The same of a decoder, for queries of which neighbours begin alike, such as a question with each of its answers: what they share passes
/// once, and each goes on from its keys and values.
pub fn log_probabilities_of_endings(model: &LanguageModel, queries: &[Query]) -> Vec<Vec<f64>> {
    let model = model.clone().valid();
    let of_batch = |batch: Vec<&Alike>| {
        let starts: Vec<&[u32]> = batch.iter().map(|alike| &queries[alike.members.start].ids[..alike.shared]).collect();
        let mut cache = model.trunk.cache(batch.len(), starts.iter().map(|start| start.len()).max().unwrap_or(0), &model.device());
        let segments = Segments::from_lengths(starts.iter().map(|start| start.len()));
        if segments.n_tokens() > 0 {
            model.trunk.forward_cached(&starts.concat().into(), &segments, &mut cache);
        }
        let members: Vec<(usize, usize)> =
            batch.iter().enumerate().flat_map(|(group, alike)| alike.members.clone().map(move |query| (group, query))).collect();
        let (groups, of_group): (Vec<usize>, Vec<&Query>) = members.iter().map(|&(group, query)| (group, &queries[query])).unzip();
        let targets: Arc<[u32]> = of_group.iter().flat_map(|query| query.targets.iter().copied()).collect();
        if targets.is_empty() {
            return vec![Vec::new(); of_group.len()];
        }
        let endings: Vec<&[u32]> = groups.iter().zip(&of_group).map(|(&group, query)| &query.ids[batch[group].shared..]).collect();
        let mut cache = cache.copies(&groups, of_group.iter().map(|query| query.ids.len()).max().unwrap_or(0));
        let segments = Segments::from_lengths(endings.iter().map(|ending| ending.len()));
        let hidden = model.trunk.forward_cached(&endings.concat().into(), &segments, &mut cache);
        let places = groups.iter().zip(&of_group).zip(segments.ranges());
        let rows = places.flat_map(|((&group, query), range)| {
            let before = batch[group].shared;
            query.rows.iter().map(move |&row| (range.start + row as usize - before) as u32)
        });
        let hidden = take_rows(hidden, &rows.collect::<Arc<[u32]>>());
        let columns = model.head.log_probabilities(hidden, &model.trunk.embeddings.token, &targets, HeadOptions::default());
        by_query(&columns, of_group.into_iter())
    };
    batches(&alike(queries), |alike| alike.n_tokens(queries)).flat_map(of_batch).collect()
}

/// Neighbours that share their first tokens.
struct Alike {
    members: Range<usize>,
    /// Tokens that all have, before the first row that predicts of any.
    shared: usize,
}

impl Alike {
    fn n_tokens(&self, queries: &[Query]) -> usize {
        queries[self.members.clone()].iter().map(|query| query.ids.len() - self.shared).sum::<usize>() + self.shared
    }
}

/// Cuts queries into neighbours that share their first tokens: the next one joins where that makes fewer tokens in all.
fn alike(queries: &[Query]) -> Vec<Alike> {
    let mut groups: Vec<Alike> = Vec::new();
    for (index, query) in queries.iter().enumerate() {
        let most = query.rows.first().map_or(0, |&row| row as usize);
        if let Some(Alike { members, shared }) = groups.last_mut() {
            let common = queries[members.start].ids.iter().zip(&query.ids).take_while(|(a, b)| a == b).count();
            let would_share = common.min(most).min(*shared);
            // What the members before would compute once more each, against what this one need not.
            if (members.len() - 1) * (*shared - would_share) < would_share {
                (members.end, *shared) = (index + 1, would_share);
                continue;
            }
        }
        groups.push(Alike { members: index..index + 1, shared: most });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(ids: &[u32], first: usize) -> Query {
        Query::next_tokens(ids, first..ids.len())
    }

    #[test]
    fn neighbours_join_where_they_share_enough() {
        let queries = [
            query(&[1, 2, 3, 4, 5, 9], 5),
            query(&[1, 2, 3, 4, 5, 8, 7], 5),
            query(&[1, 2, 3, 4, 5, 7], 5),
            // Two tokens in common would cost the three before it two each.
            query(&[1, 2, 6, 6, 6, 9], 5),
            query(&[1, 2, 6, 6, 6, 8], 4),
            query(&[3, 3], 1),
        ];
        let found: Vec<(Range<usize>, usize)> = alike(&queries).into_iter().map(|alike| (alike.members, alike.shared)).collect();
        // The row before the first token asked for predicts it, and is no part of what is shared.
        assert_eq!(found, [(0..3, 4), (3..5, 3), (5..6, 0)]);
        assert_eq!(alike(&queries)[0].n_tokens(&queries), 4 + 2 + 3 + 2);
    }
}
