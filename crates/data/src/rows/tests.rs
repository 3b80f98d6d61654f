//! Rows in every format, and what is refused.

use super::*;
use serde_json::json;
use std::io::Write as _;

fn read_as(name: &str, content: impl AsRef<[u8]>, columns: &[&str]) -> Result<Table> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    Table::read(&path, &columns.iter().map(|&column| column.to_owned()).collect::<Vec<_>>())
}

fn read(name: &str, content: &str) -> Table {
    read_as(name, content, &[]).unwrap()
}

/// The error without the folder.
fn refusal(name: &str, content: impl AsRef<[u8]>) -> String {
    let error = read_as(name, content, &[]).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error[error.find(name).unwrap()..].to_owned()
}

fn lines_and_texts(table: &Table) -> Vec<(usize, &str)> {
    table.rows.iter().map(|row| (row.line, table.text(row, "text").unwrap())).collect()
}

#[test]
fn the_same_rows_in_every_format() {
    let texts = ["it's a \"fine\" day", "größer, ok"];
    let jsonl = r#"{"text":"it's a \"fine\" day","label":1}
{"text":"größer, ok","label":0}"#;
    let csv = "text,label\n\"it's a \"\"fine\"\" day\",1\n\"größer, ok\",0\n";
    let tsv = "text\tlabel\nit's a \"fine\" day\t1\ngrößer, ok\t0\n";
    for (name, content) in [("a.jsonl", jsonl), ("a.json", jsonl), ("a.csv", csv), ("a.tsv", tsv)] {
        for content in [content.to_owned(), format!("\u{feff}{content}"), content.replace('\n', "\r\n")] {
            let table = read(name, &content);
            assert_eq!(table.columns, ["text", "label"]);
            let first_line = if name.contains("json") { 1 } else { 2 };
            assert_eq!(lines_and_texts(&table), [(first_line, texts[0]), (first_line + 1, texts[1])], "{name}");
            assert_eq!(table.label(&table.rows[0], "label").unwrap(), "1");
            assert_eq!(table.number(&table.rows[1], "label").unwrap(), 0.0);
        }
    }
}

#[test]
fn an_array_of_objects_is_read_with_the_line_of_each() {
    let json = "[\n  {\"text\": \"one\"},\n\n  {\n    \"text\": \"two\\n\",\n \"n\": [1]}, {\"text\": \"three\"}\n]\n";
    for content in [json.to_owned(), format!("\u{feff}{json}"), format!(" \r\n{}", json.replace('\n', "\r\n"))] {
        let table = read("a.json", &content);
        let first = if content.starts_with(' ') { 1 } else { 0 };
        assert_eq!(lines_and_texts(&table), [(2 + first, "one"), (4 + first, "two\n"), (6 + first, "three")]);
        assert_eq!(table.columns, ["text", "n"]);
    }
}

fn compressed(content: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn compressed_files_hold_what_they_compress() {
    let (first, second) = ("{\"text\": \"one\"}\n".repeat(5000), "{\"text\": \"two\"}\n".repeat(5000));
    let two_members = [compressed(&first), compressed(&second)].concat();
    let [mut plain, packed] = [read_as("a.jsonl", first + &second, &[]), read_as("a.jsonl.gz", &two_members, &[])].map(Result::unwrap);
    plain.path.clone_from(&packed.path);
    assert_eq!(packed, plain);
    assert!(read_as("a.txt.gz", compressed("one\ntwo"), &[]).unwrap().is_running_text());
    let table = read_as("A.CSV.GZ", compressed("one,1\n"), &["text", "n"]).unwrap();
    assert_eq!(lines_and_texts(&table), [(1, "one")]);
    assert_eq!(refusal("a.jsonl.gz", "{\"text\": 1}"), "a.jsonl.gz: cannot be unpacked: invalid gzip header");
    let cut = &two_members[..two_members.len() - 30];
    assert_eq!(refusal("a.jsonl.gz", cut), "a.jsonl.gz: cannot be unpacked: incomplete deflate stream");
    assert_eq!(refusal("a.gz", compressed("x")), refusal("a.gz", ""));
}

#[test]
fn parts_are_the_whole_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Value> = (0..100).map(|row| json!({"text": format!("row {row}"), "n": row})).collect();
    let csv: String = rows.iter().map(|row| format!("{},{}\n", row["text"].as_str().unwrap(), row["n"])).collect();
    let jsonl: String = rows.iter().map(|row| format!("{row}\n")).collect();
    for (name, content) in [
        ("a.jsonl", jsonl),
        ("a.json", Value::from(rows).to_string()),
        ("a.csv", format!("text,n\n{csv}")),
        ("a.txt", csv.clone()),
        ("a.conll", csv.replace("row ", "row\tB-").replace('\n', "\n\n")),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let whole = Table::read(&path, &[]).unwrap();
        let mut joined = Table { rows: Vec::new(), ..whole.clone() };
        let mut n_parts = 0;
        let mut join = |part: Table| {
            assert!((1..30).contains(&part.rows.len()), "{} rows", part.rows.len());
            assert_eq!(part.columns, whole.columns);
            joined.rows.extend(part.rows);
            n_parts += 1;
            Ok(())
        };
        each_part(&path, &[], 200, &mut join).unwrap();
        assert_eq!(joined, whole, "{name}");
        assert!(n_parts > 3, "{name} came in {n_parts} parts");
    }
}

#[test]
fn lines_are_counted_past_blank_ones_and_through_quoted_ones() {
    for end in ["\n", "\r\n"] {
        let csv = ["text,n", "", "one,1", "", "", "\"two", "and a half\",2", "three,3", "five,5"].join(end);
        let table = read("a.csv", &csv);
        let half = format!("two{end}and a half");
        assert_eq!(lines_and_texts(&table), [(3, "one"), (6, &half), (8, "three"), (9, "five")]);
    }
    assert_eq!(lines_and_texts(&read("a.txt", "\u{feff}one\n\n  \n four\r\n")), [(1, "one"), (4, " four")]);
    let long = "x".repeat(100_000);
    assert_eq!(lines_and_texts(&read("a.tsv", &format!("text\n{long}\nshort\n"))), [(2, long.as_str()), (3, "short")]);
}

#[test]
fn a_headerless_file_takes_the_names_given() {
    let table = read_as("a.tsv", "\"quotes\" mean nothing\t0\n\"nothing\t1\n", &["text", "label"]).unwrap();
    assert_eq!(lines_and_texts(&table), [(1, "\"quotes\" mean nothing"), (2, "\"nothing")]);
    let error = read_as("a.jsonl", "{}", &["text"]).unwrap_err().to_string();
    assert!(error.ends_with("columns can only be named for a .csv or .tsv file, not for a.jsonl: leave them out"), "{error}");
}

#[test]
fn bad_files_are_refused_in_one_line() {
    let missing = Table::read(Path::new("no/such.csv"), &[]).unwrap_err().to_string();
    assert_eq!(missing, "no/such.csv: there is no such file: check the path");
    let no_rows = "the file holds no rows: write at least one, or check the path";
    assert_eq!(refusal("a.jsonl", ""), format!("a.jsonl: {no_rows}"));
    assert_eq!(refusal("a.csv", "text,label\n"), format!("a.csv: {no_rows}"));
    assert_eq!(refusal("a.txt", "\n \n"), format!("a.txt: {no_rows}"));
    let known = ".jsonl, .json, .csv, .tsv, .parquet, .txt or .conll, perhaps with .gz behind";
    assert_eq!(refusal("a.xlsx", "x"), format!(r#"a.xlsx: unknown extension "xlsx": expected {known}"#));
    assert!(refusal("a.parquet", "x").starts_with("a.parquet: cannot be read as Parquet: "));
    assert_eq!(refusal("a.parquet.gz", "x"), "a.parquet.gz: a .parquet file compresses its own columns: unpack it");
    let latin1 = b"text\nfine\ncaf\xe9\n";
    for name in ["a.txt", "a.csv", "a.tsv"] {
        assert_eq!(refusal(name, latin1), format!("{name}:3: not UTF-8 (byte 0xe9): save the file in UTF-8"));
    }
    let json = refusal("a.jsonl", "{\"text\": \"a\"}\n\n{\"text\": oops}\n");
    assert_eq!(json, "a.jsonl:3: not valid JSON at column 10: expected value; expected one object per line");
    assert_eq!(refusal("a.jsonl", "[1, 2]"), r#"a.jsonl:1: expected a JSON object such as {"text": "..."}, found an array of 2"#);
    assert_eq!(refusal("a.json", "[\n1, 2]"), r#"a.json:2: expected a JSON object such as {"text": "..."}, found 1"#);
    let array = refusal("a.json", "[{\"text\": \"a\"},\n {\"text\": oops}]");
    assert_eq!(array, "a.json:2: not valid JSON at column 11: expected value; expected an array of objects");
    assert!(refusal("a.json", "[{}, {}").starts_with("a.json:1: not valid JSON at column 7: EOF while parsing a list"));
    assert!(refusal("a.json", "[{}] {}").contains("trailing characters"));
    assert_eq!(refusal("a.json", "[]"), format!("a.json: {no_rows}"));
    let one = "an object over several lines: expected one object per line, or in a .json file an array of objects";
    assert_eq!(refusal("a.json", "{\n  \"train\": []\n}"), format!("a.json:1: {one}"));
    let too_many = r#"found 3 fields, expected 2 ("text", "label")"#;
    let csv = refusal("a.csv", "text,label\na,0\n\nb,c,1\n");
    assert_eq!(csv, format!("a.csv:4: {too_many}: put quotes around a field with a comma in it"));
    assert_eq!(refusal("a.tsv", "text\tlabel\r\nb\tc\t1\r\n"), format!("a.tsv:2: {too_many}: a field cannot hold a tab"));
    let quote = refusal("a.csv", "text,label\na,0\n\"b,1\nc,0\n");
    assert_eq!(quote, "a.csv:3: a quote opened here is not closed: close it, or write \"\" for a quote inside one");
    assert_eq!(refusal("a.csv", "text,text\na,b\n"), r#"a.csv:1: the header names the column "text" twice: rename one"#);
}

#[test]
fn bad_fields_are_refused_in_one_line() {
    let mut table = read("a.jsonl", r#"{"text": "a", "label": 3}"#);
    table.path = "a.jsonl".into();
    let row = |fields: Value| Row { line: 5, fields: serde_json::from_value(fields).unwrap() };
    let message = |result: Result<String>| result.unwrap_err().to_string();
    let text = |fields, column| message(table.text(&row(fields), column).map(str::to_owned));
    assert_eq!(text(json!({}), "premise"), r#"a.jsonl: no column "premise"; the file has "text", "label""#);
    let lacking = r#"a.jsonl:5: the row has no "text", only "label": add it or leave the row out"#;
    assert_eq!(text(json!({"label": 1}), "text"), lacking);
    assert_eq!(text(json!({"text": null}), "text"), r#"a.jsonl:5: "text" is null: give it a value or leave the row out"#);
    assert_eq!(text(json!({"text": 3.5}), "text"), r#"a.jsonl:5: "text" is 3.5, expected text"#);
    let label = |value: Value| message(table.label(&row(json!({"label": value})), "label"));
    assert_eq!(label(json!([1, 2])), r#"a.jsonl:5: "label" is an array of 2, expected a label"#);
    assert_eq!(label(json!("")), r#"a.jsonl:5: "label" is empty, expected a label"#);
    let number = |value: Value| message(table.number(&row(json!({"label": value})), "label").map(|n| n.to_string()));
    assert_eq!(number(json!("high")), r#"a.jsonl:5: "label" is "high", expected a number"#);
    assert_eq!(number(json!("x".repeat(99))), format!(r#"a.jsonl:5: "label" is "{}"..., expected a number"#, "x".repeat(40)));
    assert_eq!(number(json!("inf")), r#"a.jsonl:5: "label" is "inf", expected a number"#);
}

#[test]
fn a_missing_column_names_its_setting() {
    let mut table = read("a.jsonl", r#"{"text": "", "label": 0}"#);
    table.path = "a.jsonl".into();
    let refusal = |table: &Table, columns: &[(&str, &str)]| table.require_named(columns).unwrap_err().to_string();
    let text = ("columns.text", "text");
    assert_eq!(
        refusal(&table, &[text, ("columns.label", "lable")]),
        r#"a.jsonl: no column "lable"; the file has "text", "label": did you mean columns.label="label"?"#
    );
    // Near to the text, which is spoken for.
    assert_eq!(
        refusal(&table, &[text, ("columns.text_b", "text_b")]),
        r#"a.jsonl: no column "text_b"; the file has "text", "label": name the right one with columns.text_b"#
    );
    table.path = "a.tsv".into();
    let advice = "name the right one with columns.anchor, or all of them with columns.names if the first row is no header";
    assert!(refusal(&table, &[("columns.anchor", "anchor")]).ends_with(advice));
    assert!(!refusal(&table, &[text, ("columns.anchor", "anchor")]).contains("header"), "the first row was one");
    table.require_named(&[text]).unwrap();
}

#[test]
fn numbers_booleans_and_texts_are_labels() {
    let table = read("a.jsonl", r#"{"label": 0}"#);
    let label = |value: Value| table.label(&Row { line: 1, fields: [("label".to_owned(), value)].into() }, "label").unwrap();
    let labels = [json!(1), json!(1.0), json!("1"), json!(-2), json!(0.5), json!(true), json!("ham")].map(label);
    assert_eq!(labels, ["1", "1", "1", "-2", "0.5", "true", "ham"]);
}

#[test]
fn columns_are_those_of_all_rows_and_lists_are_read() {
    let table = read("a.jsonl", "{\"tokens\":[\"Mira\",\"sat\"]}\n{\"tags\":[\"O\"],\"tokens\":[]}");
    assert_eq!(table.columns, ["tokens", "tags"]);
    assert_eq!(table.texts(&table.rows[0], "tokens").unwrap(), ["Mira", "sat"]);
    assert!(table.texts(&table.rows[0], "tags").unwrap_err().to_string().contains("the row has no \"tags\""));
    table.require(&["tags", "tokens"]).unwrap();
}

#[test]
fn what_is_written_is_read_and_replaces_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/rows.jsonl");
    for texts in [vec!["old"], vec!["two\nlines", "\"größer\""]] {
        let rows: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
        write_jsonl(&path, &rows).unwrap();
        let table = Table::read(&path, &[]).unwrap();
        assert!(lines_and_texts(&table).into_iter().map(|(_, text)| text).eq(texts));
    }
    assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn tagged_sentences_are_read_from_columns() {
    let tagged = |content: &str| {
        let table = read("a.conll", content);
        assert_eq!(table.columns, ["tokens", "tags"]);
        let row = |row| (table.texts(row, "tokens").unwrap().join(" "), table.texts(row, "tags").unwrap().join(" "));
        table.rows.iter().map(|each| (each.line, row(each))).collect::<Vec<_>>()
    };
    let pair = |line, tokens: &str, tags: &str| (line, (tokens.to_owned(), tags.to_owned()));
    let expected = [pair(2, "Mira Hale sat", "B-PER I-PER O"), pair(7, "So", "O")];
    assert_eq!(tagged("\nMira\tB-PER\nHale\tI-PER\nsat\tO\n\n\t\nSo\tO\n"), expected);
    assert_eq!(tagged("\nMira B-PER\r\nHale I-PER\r\nsat O\r\n\r\n\r\nSo O"), expected);
    // Four columns, as in CoNLL-2003, and a line that only separates documents.
    assert_eq!(tagged("-DOCSTART- -X- -X- O\n\nMira NNP B-NP B-PER\n"), [pair(3, "Mira", "B-PER")]);
    // A tab makes a space part of the token.
    assert_eq!(tagged("3 000\tO\n"), [pair(1, "3 000", "O")]);
    let message = "expected a token and its tag, with a tab or spaces between";
    assert_eq!(refusal("a.conll", "Mira\tB-PER\nHale\n"), format!("a.conll:2: found \"Hale\", {message}"));
    assert_eq!(refusal("a.conll", "\tO\n"), format!("a.conll:1: found \"\\tO\", {message}"));
}
