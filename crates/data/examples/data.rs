//! From a file of rows to batches: reads a table, holds rows out, numbers the labels, tokenises, and packs them into batches.
//!
//! `cargo run --example data`

use kiln_core::packed::Packed;
use kiln_core::tokenizer::Tokenizer;
use kiln_data::labels::Labels;
use kiln_data::pack::by_tokens;
use kiln_data::rows::{Table, write_jsonl};
use kiln_data::source::{DataConfig, Draw, TextColumns};
use kiln_data::world::World;

fn main() -> kiln_core::Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("topics.jsonl");
    write_jsonl(&path, &World::new(0).topic_rows(400))?;

    let data = DataConfig { train: path.into(), held_out_share: 0.2, ..DataConfig::default() };
    let sample = data.sample(&[], Draw::new(0, TextColumns::one("text")))?;
    let (train, held_out) = (&sample.train[0], &sample.held_out[0]);
    train.require_named(&[("columns.text", "text"), ("columns.label", "label")])?;
    let labels = Labels::of_column(train, "label")?;
    println!("columns {:?}, labels {:?}", train.columns, labels.names());
    println!("{} rows to train on, {} held out", train.rows.len(), held_out.rows.len());

    let texts =
        |table: &Table| table.rows.iter().map(|row| table.text(row, "text").map(str::to_owned)).collect::<kiln_core::Result<Vec<_>>>();
    let train = texts(train)?;
    let tokenizer = Tokenizer::train(train.iter().map(String::as_str), 512)?;
    let rows = tokenizer.encode_all(train)?;
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let batches = by_tokens((0..rows.len()).collect(), &lengths, 512, None, 0, 0);
    println!("{} batches of at most 512 tokens", batches.len());
    let batch = Packed::new(batches[0].iter().map(|&row| rows[row].as_slice()));
    println!("the first has {} rows end to end, {} tokens, no padding", batch.segments.len(), batch.ids.len());
    println!("its first row: {:?}", tokenizer.decode(&rows[batches[0][0]])?);
    Ok(())
}
