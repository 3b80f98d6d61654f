//! How texts become tokens, against transformers: pairs, their truncation, and words with their tags.

use crate::support::fixture;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::columns::ColumnsConfig;
use kiln_data::examples::{Counts, Limit, Overlong};
use kiln_data::rows::{Row, Table};
use kiln_data::tags;
use kiln_data::words::sentence_table;
use serde_json::Value;

/// The tokenizer, and the rows of a list of cases.
fn cases(list: &str) -> (Tokenizer, Table) {
    let folder = fixture("text_inputs");
    let path = folder.join("cases.json");
    let cases: Value = kiln_core::files::read_json(&path).expect("cases");
    let fields = |case: &Value| case.as_object().expect("an object").clone().into_iter().collect();
    let rows = cases[list].as_array().expect("a list").iter().enumerate();
    let rows: Vec<Row> = rows.map(|(index, case)| Row { line: index + 1, fields: fields(case) }).collect();
    let columns = rows[0].fields.keys().cloned().collect();
    (Tokenizer::from_folder(&folder).expect("a tokenizer"), Table { path, columns, rows })
}

fn ids(row: &Row, column: &str) -> Vec<u32> {
    row.fields[column].as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

#[test]
fn the_longer_text_of_a_pair_is_cut_first() {
    let (tokenizer, table) = cases("pairs");
    for row in &table.rows {
        let [first, second] = ["text", "text_b"].map(|column| table.text(row, column).expect("a text").to_owned());
        let encoded = tokenizer.encode_pairs(vec![(first, Some(second))]).expect("a pair").remove(0);
        let max_tokens = table.number(row, "max_tokens").expect("a number") as usize;
        let limit = Limit::new(max_tokens, Overlong::Truncate, &tokenizer).expect("a limit");
        let mut counts = Counts::default();
        let is_cut = encoded.ids.len() > max_tokens;
        let cut = limit.apply_pair(encoded, &table, row, &mut counts).expect("a pair").expect("a pair that is kept");
        assert_eq!((cut.ids, cut.token_types), (ids(row, "input_ids"), ids(row, "token_type_ids")), "{:?}", row.fields);
        assert_eq!((counts.n_rows, counts.n_truncated), (1, usize::from(is_cut)));
    }
    assert!(table.rows.len() >= 20);
}

#[test]
fn the_first_token_of_a_word_has_its_tag() {
    let (tokenizer, table) = cases("sentences");
    let columns = ColumnsConfig::default();
    let labels = tags::labels(&table, columns.tagged()).expect("labels");
    let limit = Limit::new(64, Overlong::Refuse, &tokenizer).expect("a limit");
    let (sentences, _) = sentence_table(&table, &columns, &labels, &tokenizer, limit).expect("sentences");
    for (row, sentence) in table.rows.iter().zip(&sentences) {
        assert_eq!(sentence.ids, ids(row, "input_ids"));
        let mut found = vec![Value::Null; sentence.ids.len()];
        for (token, tag) in sentence.supervised() {
            found[token] = labels.names()[tag as usize].clone().into();
        }
        assert_eq!(found, *row.fields["labels"].as_array().expect("a list"), "{:?}", row.fields);
        assert_eq!(sentence.tags.len(), table.texts(row, "tokens").expect("words").len(), "every word keeps its tag");
    }
    // A cut takes the words at the end, whose tags still count.
    let limit = Limit::new(6, Overlong::Truncate, &tokenizer).expect("a limit");
    let (cut, _) = sentence_table(&table, &columns, &labels, &tokenizer, limit).expect("sentences");
    assert_eq!(cut[0].firsts, [Some(1), Some(3), Some(4), None, None]);
    assert_eq!((cut[0].ids.len(), cut[0].tags.len()), (6, 5));
}
