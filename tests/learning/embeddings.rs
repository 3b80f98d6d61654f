//! The sample world without labels: hidden words are predicted, and texts that mean the same are found among others.

use crate::support::{Place, flex};
use kiln_contrastive::config::{ContrastiveConfig, Objective};
use kiln_contrastive::embed::{self, EmbedConfig, SearchConfig};
use kiln_contrastive::train::{Summary, train};
use kiln_core::adapter::LoraConfig;
use kiln_core::checkpoint::Weights;
use kiln_data::examples::Overlong;
use kiln_data::world::{Domain, Paraphrase, World, write_jsonl};
use kiln_kernels::random::Key;
use serde::Serialize;
use serde_json::{Value, json};

/// Writes `pairs.jsonl`, the same with its positives dealt out at random as `pairs-control.jsonl`, and `pairs-held-out.jsonl`.
pub fn pairs(place: &Place, n: usize, n_held_out: usize) {
    let rows = place.world.paraphrase_rows(n);
    write(place, "pairs", &rows);
    write(place, "pairs-control", &dealt(&rows, |row, other| row.positive.clone_from(&other.positive)));
    write(place, "pairs-held-out", &place.world.held_out().paraphrase_rows(n_held_out));
}

/// Writes `NAME.jsonl`.
pub fn write<T: Serialize>(place: &Place, name: &str, rows: &[T]) {
    write_jsonl(&place.path(&format!("{name}.jsonl")), rows).expect("rows");
}

fn dealt<T: Clone>(rows: &[T], give: impl Fn(&mut T, &T)) -> Vec<T> {
    let mut dealt = rows.to_vec();
    dealt.iter_mut().zip(Key::new(11).permutation(rows.len())).for_each(|(row, other)| give(row, &rows[other]));
    dealt
}

/// Settings for the untrained encoder and rows of this name, judged by `HELD-OUT-held-out.jsonl`.
pub fn config(place: &Place, objective: Objective, rows: &str, held_out: &str) -> ContrastiveConfig {
    let mut config = ContrastiveConfig { model: place.path("encoder"), objective, seed: 5, ..ContrastiveConfig::default() };
    config.data.train = place.path(&format!("{rows}.jsonl")).into();
    config.data.held_out = Some(place.path(&format!("{held_out}-held-out.jsonl")));
    config.update.learning_rate = 1e-3;
    // Hidden words are judged on the texts themselves, and rows of a grammar repeat.
    config.force = true;
    config.update.warmup_share = 0.1;
    config
}

/// Trains into the folder `out`, and prints what came of it.
pub fn run(place: &Place, config: &ContrastiveConfig, out: &str) -> Summary {
    let summary = train(config, &flex(), &place.path(out)).unwrap_or_else(|error| panic!("{out}: {error}"));
    let [before, after] = [&summary.before, &summary.after].map(|evaluation| &evaluation.figures[0]);
    println!("{out}: {} {:.4} -> {:.4} in {:.1} s", after.metric, before.value, after.value, summary.effort.train_seconds);
    summary
}

/// The held-out figure after training on `ROWS.jsonl` is better, beyond chance, than before and than after `ROWS-control.jsonl`.
fn assert_learns(place: &Place, config: &ContrastiveConfig, rows: &str) {
    let mut control = config.clone();
    control.data.train = place.path(&format!("{rows}-control.jsonl")).into();
    let control = run(place, &control, &format!("{rows}, control"));
    let summary = run(place, config, rows);
    let after = &summary.after.figures[0];
    for (what, other) in [("before", &summary.before.figures[0]), ("the control", &control.after.figures[0])] {
        let (after_range, other_range) = (after.interval, other.interval);
        let better = if after.higher_is_better { after_range.low > other_range.high } else { after_range.high < other_range.low };
        assert!(better, "{after:?} does not beat {what}: {other:?}");
    }
}

#[test]
fn ranking_finds_paraphrases() {
    let place = Place::new();
    pairs(&place, 1500, 200);
    assert_learns(&place, &config(&place, Objective::Mnrl, "pairs", "pairs"), "pairs");
}

#[test]
fn a_gradient_cache_learns_the_same() {
    let place = Place::new();
    pairs(&place, 320, 100);
    // Parts have dropout of their own.
    let whole = ContrastiveConfig { dropout: false, symmetric: true, ..config(&place, Objective::Mnrl, "pairs", "pairs") };
    let cut = ContrastiveConfig { objective: Objective::CachedMnrl, micro_batch_tokens: 200, ..whole.clone() };
    let (whole, cut) = (run(&place, &whole, "whole"), run(&place, &cut, "cut"));
    assert!(whole.after.figures[0].value > whole.before.figures[0].value);
    let (a, b) = (place.losses("whole"), place.losses("cut"));
    assert!(a.len() == 5 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
    assert!((whole.after.figures[0].value - cut.after.figures[0].value).abs() < 0.01);
}

/// A third of a text's words, in order, finds the text again. SimCSE sharpens what an encoder knows, so it starts from one that has learnt to
/// predict hidden words.
#[test]
fn dropout_alone_teaches_simcse_to_tell_texts_apart() {
    let place = Place::new();
    let texts = |world: &World, n: usize| -> Vec<String> {
        Domain::ALL.map(|domain| world.documents(domain, n)).concat().into_iter().map(|row| row.text).collect()
    };
    let rows: Vec<Value> = texts(&place.world, 400).iter().map(|text| json!({"text": text})).collect();
    write(&place, "texts", &rows);
    write(&place, "texts-held-out", &rows[..100]);
    // Nothing but one text, over and over: there is no other text to tell it from.
    write(&place, "texts-control", &vec![rows[0].clone(); rows.len()]);
    let part = |(index, text): (usize, &String)| {
        let words: Vec<&str> = text.split(' ').collect();
        let key = Key::new(11).fold(index as u64);
        let kept = (0..words.len()).filter(|&word| word == 0 || key.uniform(word as u64) < 0.3).map(|word| words[word]);
        json!({"anchor": kept.collect::<Vec<_>>().join(" "), "positive": text})
    };
    write(&place, "parts-held-out", &texts(&place.world.held_out(), 150).iter().enumerate().map(part).collect::<Vec<_>>());
    let mut mlm = ContrastiveConfig { batch_rows: 32, epochs: 3, ..config(&place, Objective::Mlm, "texts", "texts") };
    mlm.update.learning_rate = 3e-3;
    mlm.overlong = Overlong::Truncate;
    run(&place, &mlm, "mlm");
    let mut config = ContrastiveConfig { epochs: 2, overlong: Overlong::Truncate, ..config(&place, Objective::Simcse, "texts", "parts") };
    config.model = place.path("mlm/model");
    config.update.learning_rate = 2e-3;
    assert_learns(&place, &config, "texts");
}

/// Held-out pairs that mean the same with a score of 1 and pairs that do not with 0.
fn scored(world: &World, n: usize) -> Vec<(Paraphrase, f64)> {
    let rows = world.paraphrase_rows(2 * n);
    let (same, other) = rows.split_at(n);
    let apart = dealt(other, |row, from| row.positive.clone_from(&from.positive));
    same.iter().cloned().map(|row| (row, 1.0)).chain(apart.into_iter().map(|row| (row, 0.0))).collect()
}

#[test]
fn cosent_learns_from_scores() {
    let place = Place::new();
    let line = |(pair, score): &(Paraphrase, f64)| json!({"anchor": pair.anchor, "positive": pair.positive, "score": score});
    let rows: Vec<Value> = scored(&place.world, 750).iter().map(line).collect();
    write(&place, "scored", &rows);
    write(&place, "scored-control", &dealt(&rows, |row, other| row["score"] = other["score"].clone()));
    write(&place, "scored-held-out", &scored(&place.world.held_out(), 150).iter().map(line).collect::<Vec<_>>());
    let config = ContrastiveConfig { batch_rows: 32, epochs: 2, ..config(&place, Objective::Cosent, "scored", "scored") };
    assert_learns(&place, &config, "scored");
}

#[test]
fn triplets_teach_what_is_nearer() {
    let place = Place::new();
    pairs(&place, 10, 200);
    let rows = place.world.paraphrase_rows(1500);
    let line =
        |(row, other): (&Paraphrase, &Paraphrase)| json!({"anchor": row.anchor, "positive": row.positive, "negative": other.positive});
    let triplets: Vec<Value> = rows.iter().zip(rows.iter().cycle().skip(1)).map(line).collect();
    write(&place, "triplets", &triplets);
    write(&place, "triplets-control", &dealt(&triplets, |row, other| row["positive"] = other["positive"].clone()));
    let config = ContrastiveConfig { batch_rows: 32, epochs: 2, ..config(&place, Objective::Triplet, "triplets", "pairs") };
    assert_learns(&place, &config, "triplets");
}

#[test]
fn hidden_words_are_predicted() {
    let place = Place::new();
    let texts = |world: &World, n: usize| Domain::ALL.map(|domain| world.documents(domain, n)).concat();
    let rows = texts(&place.world, 250);
    write(&place, "documents", &rows);
    // The same words in random order: what they are is still to be learnt, what stands beside them no more.
    let mut shuffled = rows.clone();
    for (index, row) in shuffled.iter_mut().enumerate() {
        let words: Vec<&str> = row.text.split(' ').collect();
        let order = Key::new(11).fold(index as u64).permutation(words.len());
        row.text = order.into_iter().map(|index| words[index]).collect::<Vec<_>>().join(" ");
    }
    write(&place, "documents-control", &shuffled);
    write(&place, "documents-held-out", &texts(&place.world.held_out(), 50));
    let mut config = ContrastiveConfig { batch_rows: 16, epochs: 3, ..config(&place, Objective::Mlm, "documents", "documents") };
    config.masking.whole_words = true;
    config.update.learning_rate = 3e-3;
    assert_learns(&place, &config, "documents");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let place = Place::new();
    pairs(&place, 160, 40);
    let texts: Vec<Value> = place.world.documents(Domain::Kitchen, 120).into_iter().map(|row| json!({"text": row.text})).collect();
    write(&place, "texts", &texts);
    write(&place, "texts-held-out", &texts[..20]);
    let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
    for (objective, rows, adapter) in [(Objective::Mlm, "texts", None), (Objective::CachedMnrl, "pairs", Some(lora))] {
        let config = ContrastiveConfig { micro_batch_tokens: 600, adapter, ..config(&place, objective, rows, rows) };
        let weights = |config: &ContrastiveConfig, n_threads: usize, out: &str| {
            let out = format!("{rows}-{out}");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
            pool.install(|| run(&place, config, &out));
            place.weights(&out)
        };
        let first = weights(&config, 2, "2 threads");
        assert!(first == weights(&config, 2, "2 threads again"), "{rows}: the same seed twice");
        assert!(first == weights(&config, 1, "1 thread"), "{rows}: 1 and 2 threads");
        assert!(first == weights(&config, 4, "4 threads"), "{rows}: 4 and 2 threads");
        let other = ContrastiveConfig { seed: 6, ..config.clone() };
        assert!(first != weights(&other, 2, "another seed"), "{rows}: another seed");
    }
}

/// The same search, as pairs in a file and as a folder of judged queries, has the same figures.
#[test]
fn a_folder_of_judged_queries_is_judged_as_pairs_are() {
    let place = Place::new();
    pairs(&place, 64, 60);
    let rows = place.world.held_out().paraphrase_rows(60);
    let texts = |text: fn(&Paraphrase) -> &String| {
        let line = |(id, row)| json!({"_id": format!("{id:02}"), "text": text(row)});
        rows.iter().enumerate().map(line).collect::<Vec<Value>>()
    };
    write(&place, "folder/queries", &texts(|row| &row.anchor));
    write(&place, "folder/corpus", &texts(|row| &row.positive));
    let judgements: String = (0..60).map(|id| format!("{id:02}\t{id:02}\t1\n")).collect();
    std::fs::create_dir(place.path("folder/qrels")).expect("a folder");
    std::fs::write(place.path("folder/qrels/test.tsv"), format!("query-id\tcorpus-id\tscore\n{judgements}")).expect("judgements");
    let mut by_pairs = config(&place, Objective::Mnrl, "pairs", "pairs");
    by_pairs.update.learning_rate = 0.0;
    let mut by_folder = by_pairs.clone();
    by_folder.data.held_out = Some(place.path("folder"));
    let figures = |config: &ContrastiveConfig, out: &str| {
        let summary = run(&place, config, out);
        let of = |figure: &kiln_eval::figure::Figure| (figure.metric, figure.value);
        let figures: Vec<(&str, f64)> = summary.after.figures.iter().map(of).collect();
        assert_eq!(figures, summary.before.figures.iter().map(of).collect::<Vec<_>>(), "a learning rate of 0 changes nothing");
        figures
    };
    let found = figures(&by_folder, "by folder");
    assert_eq!(found, figures(&by_pairs, "by pairs"));
    assert_eq!(found.iter().map(|(metric, _)| *metric).collect::<Vec<_>>(), ["nDCG@10", "MRR@10", "recall@10"]);
    assert!(found.iter().all(|(_, value)| 0.0 < *value && *value < 1.0), "{found:?}");
}

/// Every format holds the same vectors, and a text is nearest to itself.
#[test]
fn vectors_are_written_and_searched() {
    let place = Place::new();
    let texts: Vec<String> = place.world.documents(Domain::Kitchen, 12).into_iter().map(|row| row.text).collect();
    write(&place, "texts", &texts.iter().map(|text| json!({"text": text})).collect::<Vec<_>>());
    let output = |name: &str| {
        let output = place.path(name);
        let config = EmbedConfig { model: place.path("encoder"), data: place.path("texts.jsonl"), output, ..EmbedConfig::default() };
        let (counts, width) = embed::embed(&config, &flex()).expect("vectors");
        assert_eq!((counts.n_rows, width), (12, 64));
        place.path(name)
    };
    let tensors = Weights::open_file(&output("vectors.safetensors")).expect("a safetensors file");
    let vectors = tensors.read("embeddings", &[12, 64]).expect("vectors");
    let bytes: Vec<u8> = vectors.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(std::fs::read(output("vectors.npy")).expect("a file").ends_with(&bytes), "the NumPy file");
    let lines = std::fs::read_to_string(output("vectors.jsonl")).expect("a file");
    for ((line, text), vector) in lines.lines().zip(&texts).zip(vectors.chunks_exact(64)) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["text"], *text);
        let values: Vec<f32> = line["vector"].as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number") as f32).collect();
        assert_eq!(values, vector);
    }
    let (model, data) = (place.path("encoder"), place.path("texts.jsonl"));
    let config = SearchConfig { model, data, query: texts[7].clone(), n: 3, ..SearchConfig::default() };
    let (found, _) = embed::search(&config, &flex()).expect("a search");
    assert_eq!((found.len(), found[0].line, &found[0].text), (3, 8, &texts[7]));
    assert!((found[0].cosine - 1.0).abs() < 1e-5 && found[1].cosine <= found[0].cosine, "{found:?}");
}
