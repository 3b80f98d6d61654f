//! A search to be judged: queries, documents, and which answer which, in the layout of BEIR.
//!
//! ```text
//! corpus.jsonl      {"_id": "d1", "title": "...", "text": "..."}     the title may be missing
//! queries.jsonl     {"_id": "q1", "text": "..."}
//! qrels/test.tsv    query-id, corpus-id, score                        with a header; a score of 0 is not relevant
//! ```
//!
//! Source: Thakur et al., arXiv:2104.08663.

use crate::rows::Table;
use kiln_core::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Queries, documents and judgements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// The texts to search.
    pub documents: Vec<String>,
    /// The texts to search for; only those with a judgement.
    pub queries: Vec<String>,
    /// For each query the documents judged, by their place, and how relevant each is.
    pub judgements: Vec<Vec<(usize, u32)>>,
}

impl Collection {
    /// Reads a folder with `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`.
    ///
    /// # Errors
    /// If a file is missing or damaged, an id is there twice, a judgement names what is not there, or nothing is judged relevant.
    pub fn read(folder: &Path) -> Result<Self> {
        let corpus = Table::read(&folder.join("corpus.jsonl"), &[])?;
        let has_titles = corpus.columns.iter().any(|column| column == "title");
        let (document_places, documents) = texts(&corpus, |row| {
            let text = corpus.text(row, "text")?;
            let title = if has_titles && row.fields.contains_key("title") { corpus.text(row, "title")? } else { "" };
            Ok(format!("{title} {text}").trim().to_owned())
        })?;
        let queries = Table::read(&folder.join("queries.jsonl"), &[])?;
        let (query_places, texts) = texts(&queries, |row| queries.text(row, "text").map(str::to_owned))?;
        let judged = Table::read(&folder.join("qrels/test.tsv"), &[])?;
        judged.require(&["query-id", "corpus-id", "score"])?;
        let mut judgements: BTreeMap<usize, Vec<(usize, u32)>> = BTreeMap::new();
        for row in &judged.rows {
            let place = |column: &str, places: &BTreeMap<String, usize>, file: &Table| {
                let id = judged.label(row, column)?;
                let missing =
                    || judged.error(row, format!("{column} {id:?} is not in {}: correct it or leave it out", file.path.display()));
                places.get(&id).copied().ok_or_else(missing)
            };
            let (query, document) = (place("query-id", &query_places, &queries)?, place("corpus-id", &document_places, &corpus)?);
            let of_query = judgements.entry(query).or_default();
            if of_query.iter().any(|(other, _)| *other == document) {
                return Err(judged.error(row, "this query and document are judged twice: leave one out"));
            }
            of_query.push((document, judged.number(row, "score")?.round().max(0.0) as u32));
        }
        if judgements.values().flatten().all(|(_, relevance)| *relevance == 0) {
            return Err(Error::data(&judged.path, None, "every score is 0: no query has a document to find"));
        }
        let queries = judgements.keys().map(|&query| texts[query].clone()).collect();
        Ok(Self { documents, queries, judgements: judgements.into_values().collect() })
    }
}

/// The places of the ids in a table, and the texts.
fn texts(table: &Table, text: impl Fn(&crate::rows::Row) -> Result<String>) -> Result<(BTreeMap<String, usize>, Vec<String>)> {
    table.require(&["_id", "text"])?;
    let mut places = BTreeMap::new();
    let mut texts: Vec<String> = Vec::with_capacity(table.rows.len());
    for row in &table.rows {
        let id = table.label(row, "_id")?;
        if places.insert(id.clone(), texts.len()).is_some() {
            return Err(table.error(row, format!("the id {id:?} is there twice: rename one")));
        }
        let text = text(row)?;
        if text.is_empty() {
            return Err(Error::data(&table.path, Some(row.line), "the text is empty: nothing to compare"));
        }
        texts.push(text);
    }
    Ok((places, texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(judgements: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("qrels")).unwrap();
        write("corpus.jsonl", "{\"_id\": \"a\", \"title\": \"Sea\", \"text\": \"cold\"}\n{\"_id\": 7, \"text\": \"warm\"}\n");
        write(
            "queries.jsonl",
            "{\"_id\": \"q2\", \"text\": \"two\"}\n{\"_id\": \"q1\", \"text\": \"one\"}\n{\"_id\": \"q0\", \"text\": \"none\"}\n",
        );
        write("qrels/test.tsv", &format!("query-id\tcorpus-id\tscore\n{judgements}"));
        folder
    }

    #[test]
    fn titles_join_texts_and_queries_without_a_judgement_are_left_out() {
        let collection = Collection::read(folder("q1\t7\t2\nq1\ta\t0\nq2\ta\t1\n").path()).unwrap();
        assert_eq!(collection.documents, ["Sea cold", "warm"]);
        assert_eq!(collection.queries, ["two", "one"]);
        assert_eq!(collection.judgements, [vec![(0, 1)], vec![(1, 2), (0, 0)]]);
    }

    #[test]
    fn judgements_without_anything_relevant_are_refused() {
        let error = Collection::read(folder("q1\ta\t0\nq2\t7\t0\n").path()).unwrap_err().to_string();
        assert!(error.contains("test.tsv: every score is 0"), "{error}");
    }

    #[test]
    fn judgements_of_what_is_not_there_name_their_line() {
        for (judgements, words) in
            [("q1\ta\t1\nq1\tb\t1\n", ["test.tsv:3", "corpus-id \"b\" is not in"]), ("q1\ta\t1\nq1\ta\t1\n", ["test.tsv:3", "twice"])]
        {
            let error = Collection::read(folder(judgements).path()).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
