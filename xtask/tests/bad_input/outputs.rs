//! What shall be written stands in the way of something, or cannot be: nothing is computed, and nothing is lost.

use crate::support::{Place, SENTENCES, arguments, files, models};
use serde_json::json;
use std::fs;

/// A place with an encoder in `model` and its texts in `texts.jsonl`.
fn with_encoder() -> Place {
    let place = Place::new();
    let model = place.copy("encoder");
    fs::write(model.join("modules.json"), "[]").expect("written");
    place.file("texts.jsonl", SENTENCES.map(|text| format!("{}\n", json!({"text": text}))).concat());
    place
}

#[test]
fn vectors_replace_no_file() {
    let place = with_encoder();
    place.file("vectors.npy", "kept");
    let before = files(&place.path(""));
    let embed = |output: &str, words: &[&str]| {
        place.refused(&arguments("embed", &place.path("encoder"), &["data=texts.jsonl", &format!("output={output}")]), words);
    };
    embed("vectors.npy", &["output", "vectors.npy is there already", "choose another"]);
    embed("texts.jsonl", &["output", "texts.jsonl is there already"]);
    embed("texts.tsv/vectors.npy", &["output", "texts.tsv is a file, not a folder"]);
    embed("new/folder/vectors.txt", &["output", "found .txt"]);
    assert_eq!(files(&place.path("")), before);
}

#[test]
fn results_are_not_written_into_a_file() {
    let place = with_encoder();
    place.file("out", "kept");
    let [decoder, encoder] = [models().join("decoder"), place.path("encoder")];
    for arguments in [
        arguments("eval", &decoder, &["data=pairs.jsonl"]),
        arguments("eval", &encoder, &["data=texts.jsonl"]),
        arguments("search", &encoder, &["data=texts.jsonl", "query=sea"]),
        arguments("embed", &encoder, &["data=texts.jsonl", "output=vectors.npy"]),
        arguments("sft", &decoder, &["data.train=pairs.jsonl"]),
        arguments("adapt", &decoder, &["data.train=lines.txt", "block_tokens=8"]),
    ] {
        place.refused(&arguments, &["--out", "out is a file, not a folder", "choose another"]);
    }
    let folder = decoder.display();
    for (output, words) in [("lines.txt", "lines.txt is a file"), ("lines.txt/merged", "lines.txt is a file")] {
        let sets = [format!("base={folder}"), format!("models=[\"{folder}\"]"), format!("output={output}")];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        fs::remove_file(place.path("out")).unwrap_or_default();
        place.refused(&std::iter::once("merge").chain(sets).collect::<Vec<_>>(), &["output", words]);
    }
    assert!(!place.path("vectors.npy").exists());
}

#[test]
fn a_search_that_finds_nothing() {
    let place = with_encoder();
    let encoder = place.path("encoder");
    place.refused(&arguments("search", &encoder, &["data=texts.jsonl", "query=sea", "n=0"]), &["n", "found 0, expected at least 1"]);

    // Judged queries, each folder with one thing wrong.
    let good = [
        ("corpus.jsonl", "{\"_id\": \"d\", \"text\": \"ice on the sea\"}\n"),
        ("queries.jsonl", "{\"_id\": \"q\", \"text\": \"the sea\"}\n"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq\td\t1\n"),
    ];
    fs::create_dir_all(place.path("judged/qrels")).expect("a folder");
    for (name, content, words) in [
        ("corpus.jsonl", None, ["corpus.jsonl", "no such file"]),
        ("queries.jsonl", None, ["queries.jsonl", "no such file"]),
        ("qrels/test.tsv", None, ["test.tsv", "no such file"]),
        ("queries.jsonl", Some(""), ["queries.jsonl", "no rows"]),
        ("corpus.jsonl", Some("{\"_id\": \"d\", \"text\": \"\"}\n"), ["corpus.jsonl:1", "empty"]),
        ("qrels/test.tsv", Some("query-id\tcorpus-id\tscore\n"), ["test.tsv", "no rows"]),
        ("qrels/test.tsv", Some("query-id\tcorpus-id\nq\td\n"), ["test.tsv", "no column \"score\""]),
        ("qrels/test.tsv", Some("query-id\tcorpus-id\tscore\nq\td\tnan\n"), ["test.tsv:2", "\"nan\", expected a number"]),
        ("qrels/test.tsv", Some("query-id\tcorpus-id\tscore\nq\td\t0\n"), ["test.tsv", "every score is 0"]),
        ("qrels/test.tsv", Some("query-id\tcorpus-id\tscore\nq\te\t1\n"), ["test.tsv:2", "\"e\" is not in"]),
    ] {
        good.iter().for_each(|(name, content)| place.file(&format!("judged/{name}"), content));
        match content {
            Some(content) => place.file(&format!("judged/{name}"), content),
            None => fs::remove_file(place.path("judged").join(name)).expect("removed"),
        }
        place.refused(&arguments("eval", &encoder, &["data=judged"]), &words);
        let train = ["data.train=pairs.jsonl", "data.held_out=judged", "columns.anchor=prompt", "columns.positive=completion"];
        place.refused(&arguments("contrastive", &encoder, &train), &words);
    }
}

#[test]
fn models_without_weights() {
    let place = with_encoder();
    let [decoder, encoder] = ["decoder", "encoder"].map(|name| place.copy(name));
    for folder in [&decoder, &encoder] {
        fs::remove_file(folder.join("model.safetensors")).expect("removed");
    }
    fs::write(encoder.join("modules.json"), "[]").expect("written");
    for arguments in [
        arguments("adapt", &decoder, &["data.train=lines.txt", "block_tokens=8"]),
        arguments("continual", &decoder, &["domains=[{train=\"lines.txt\"}]", "block_tokens=8"]),
        arguments("eval", &decoder, &["data=pairs.jsonl"]),
        arguments("eval", &encoder, &["data=texts.jsonl"]),
        arguments("contrastive", &encoder, &["data.train=texts.jsonl", "objective=mlm"]),
        arguments("embed", &encoder, &["data=texts.jsonl", "output=vectors.npy"]),
        arguments("search", &encoder, &["data=texts.jsonl", "query=sea"]),
    ] {
        place.refused(&arguments, &["model.safetensors", "No such file"]);
    }
    assert!(!place.path("vectors.npy").exists());
}

#[test]
fn scores_and_texts_that_are_none() {
    let place = with_encoder();
    let encoder = place.path("encoder");
    for score in ["nan", "inf", "", "high"] {
        place.file("scored.tsv", format!("score\tanchor\tpositive\n1\tice\tsnow\n{score}\tsea\tsun\n"));
        let cosent = ["objective=cosent", "data.train=scored.tsv"];
        place.refused(&arguments("contrastive", &encoder, &cosent), &["scored.tsv:3", "\"score\" is", "expected a number"]);
        place.refused(&arguments("eval", &encoder, &["data=scored.tsv"]), &["scored.tsv:3", "expected a number"]);
    }
    place.file("empty.txt", "");
    for arguments in [
        arguments("embed", &encoder, &["data=empty.txt", "output=vectors.npy"]),
        arguments("search", &encoder, &["data=empty.txt", "query=sea"]),
        arguments("contrastive", &encoder, &["data.train=empty.txt", "objective=mlm"]),
        arguments("adapt", &models().join("decoder"), &["data.train=empty.txt"]),
        arguments("adapt", &models().join("decoder"), &["data.train=lines.txt", "general.train=empty.txt"]),
        arguments("continual", &models().join("decoder"), &["domains=[{train=\"lines.txt\"}, {train=\"empty.txt\"}]", "block_tokens=8"]),
    ] {
        place.refused(&arguments, &["empty.txt", "no rows"]);
    }
}
