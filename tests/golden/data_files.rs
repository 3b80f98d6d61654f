//! Data files that others wrote: pyarrow's Parquet, and with `KILN_SHARED` real data sets in every format.

use crate::support::{fixture, shared};
use kiln_data::rows::Table;
use serde_json::Value;

fn read(path: &std::path::Path) -> Table {
    Table::read(path, &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn parquet_holds_the_rows_that_pyarrow_wrote() {
    let folder = fixture("parquet_files");
    let expected = read(&folder.join("rows.jsonl"));
    for kind in ["plain", "snappy", "gzip", "zstd", "delta"] {
        let found = read(&folder.join(format!("{kind}.parquet")));
        assert_eq!(found.columns, expected.columns, "{kind}");
        assert_eq!(found.rows.len(), expected.rows.len(), "{kind}");
        for (found, expected) in found.rows.iter().zip(&expected.rows) {
            assert_eq!(found.line, expected.line, "{kind}");
            for (column, value) in &expected.fields {
                assert_eq!(&found.fields[column], value, "{kind}, row {}, column {column}", expected.line);
            }
        }
    }
}

/// Real files: rows, columns, and as many bytes in a column as Python counts.
#[test]
fn real_files_of_every_format_are_read() {
    let Some(data) = shared("data") else { return };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (file, columns, n_rows, column, n_bytes) in [
        ("gsm8k/train.jsonl", &["question", "answer"][..], 7473, "answer", 2_150_033),
        ("svamp_mawps/SVAMP.json", &["ID", "Body", "Question", "Equation", "Answer", "Type"], 1000, "Body", 113_404),
        ("mt_bench/dummy_conversation.json", &["id", "conversations"], 500, "conversations", 135_273),
        ("medquad/medquad.jsonl.gz", &["id", "source", "focus", "qtype", "question", "answer"], 4819, "answer", 8_026_560),
        ("banking77/train.csv", &["text", "category"], 10_003, "text", 594_992),
        ("wnut17/wnut17train.conll", &["tokens", "tags"], 3394, "tokens", 464_349),
        ("wikitext2/test.txt", &["text"], 2891, "text", 1_250_624),
    ] {
        let table = read(&data.join(file));
        assert_eq!(
            (table.columns.as_slice(), table.rows.len()),
            (&columns.iter().map(|&c| c.to_owned()).collect::<Vec<_>>()[..], n_rows),
            "{file}"
        );
        let found: usize = table.rows.iter().map(|row| text(&row.fields[column]).len()).sum();
        assert_eq!(found, n_bytes, "{file}");
    }
}
