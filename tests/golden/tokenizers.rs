//! Tokenizers against transformers.

use crate::support::{fixture, shared};
use kiln_core::tokenizer::Tokenizer;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Case>,
    real: Vec<Real>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

/// What GPT-2's own vocabulary makes of the first lines of a file.
#[derive(Deserialize)]
struct Real {
    file: String,
    lines: usize,
    n_ids: usize,
    digest: String,
}

fn golden(folder: &Path) -> Golden {
    let text = std::fs::read_to_string(folder.join("golden.json")).expect("the reference values");
    serde_json::from_str(&text).expect("the reference values")
}

#[test]
fn gpt2_from_vocab_and_merges() {
    let folder = fixture("gpt2_tokenizer");
    let tokenizer = Tokenizer::from_folder(&folder).expect("the tokenizer loads");
    for Case { text, ids, decoded } in golden(&folder).texts {
        assert_eq!(tokenizer.encode(&text).expect("ids"), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).expect("a text"), decoded, "{text:?}");
    }
}

/// A model saved beside such a tokenizer gets a `tokenizer.json` that says the same.
#[test]
fn gpt2_saved_and_read_back() {
    let (folder, copy) = (fixture("gpt2_tokenizer"), tempfile::tempdir().expect("a folder"));
    Tokenizer::from_folder(&folder).expect("the tokenizer loads").save(copy.path()).expect("saved");
    for name in ["vocab.json", "merges.txt"] {
        std::fs::remove_file(copy.path().join(name)).expect("copied with it");
    }
    let tokenizer = Tokenizer::from_folder(copy.path()).expect("the copy loads");
    for Case { text, ids, .. } in golden(&folder).texts {
        assert_eq!(tokenizer.encode(&text).expect("ids"), ids, "{text:?}");
    }
}

#[derive(Deserialize)]
struct Kinds {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Deserialize)]
struct Kind {
    texts: Vec<Case>,
    pair: Pair,
    n_tokens: usize,
}

#[derive(Deserialize)]
struct Pair {
    texts: [String; 2],
    ids: Vec<u32>,
    types: Vec<u32>,
}

/// Byte-level BPE with a pattern of its own, BPE with bytes for what it does not know, WordPiece and Unigram, each with added tokens.
#[test]
fn tokenizer_json_of_every_kind() {
    let folder = fixture("tokenizers_of_every_kind");
    let text = std::fs::read_to_string(folder.join("golden.json")).expect("the reference values");
    let Kinds { kinds } = serde_json::from_str(&text).expect("the reference values");
    assert_eq!(kinds.len(), 4);
    for (name, Kind { texts, pair, n_tokens }) in kinds {
        let model = tempfile::tempdir().expect("a folder");
        std::fs::copy(folder.join(format!("{name}.json")), model.path().join("tokenizer.json")).expect("copied");
        let tokenizer = Tokenizer::from_folder(model.path()).expect("the tokenizer loads");
        assert_eq!(tokenizer.vocab_size(), n_tokens, "{name}");
        for Case { text, ids, decoded } in texts {
            assert_eq!(tokenizer.encode(&text).expect("ids"), ids, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids).expect("a text"), decoded, "{name}: {text:?}");
        }
        let [first, second] = pair.texts;
        let encoded = tokenizer.encode_pairs(vec![(first, Some(second))]).expect("a pair").remove(0);
        assert_eq!((encoded.ids, encoded.token_types), (pair.ids, pair.types), "{name}");
    }
}

/// FNV-1a over the ids of all rows, each followed by 2³² - 1.
fn digest(rows: &[Vec<u32>]) -> String {
    let ids = rows.iter().flat_map(|row| row.iter().chain([&u32::MAX]));
    let state = ids
        .flat_map(|id| id.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{state:016x}")
}

#[test]
fn gpt2_on_real_texts() {
    let Some(data) = shared("data") else { return };
    let tokenizer = Tokenizer::from_folder(&data.join("gpt2_bpe")).expect("the tokenizer loads");
    for Real { file, lines, n_ids, digest: expected } in golden(&fixture("gpt2_tokenizer")).real {
        let text = std::fs::read_to_string(data.join(&file)).expect("a text");
        let texts: Vec<String> = text.split('\n').filter(|line| !line.trim().is_empty()).take(lines).map(str::to_owned).collect();
        let rows = tokenizer.encode_all(texts).expect("ids");
        assert_eq!(rows.len(), lines, "{file}: lines");
        assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), n_ids, "{file}: number of ids");
        assert_eq!(digest(&rows), expected, "{file}: ids");
    }
}
