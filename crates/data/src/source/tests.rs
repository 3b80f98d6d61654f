//! Several files, their weights, and files that are too large for memory.

use super::*;
use crate::examples::{Limit, Overlong};
use crate::labels::Labels;
use crate::sequences::Labelled;
use crate::source::open::Files;
use kiln_core::tokenizer::Tokenizer;
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    data: DataConfig,
}

fn config(sources: &[(&Path, f64)], held_out: Option<PathBuf>) -> DataConfig {
    let train = sources.iter().map(|&(path, weight)| Source { path: path.to_owned(), weight }).collect();
    DataConfig { train, held_out, held_out_share: 0.2, validation: None }
}

#[test]
fn sources_are_a_path_or_a_list() {
    let read = |text: &str| toml::from_str::<Settings>(text).map(|settings| settings.data.train);
    assert_eq!(read("[data]\ntrain = \"a.jsonl\"").unwrap(), "a.jsonl".into());
    let list = read("[data]\ntrain = [\"a.jsonl\", {path = \"b.csv\", weight = 0.5}]").unwrap();
    let weights: Vec<_> = list.iter().map(|source| (source.path.to_str().unwrap(), source.weight)).collect();
    assert_eq!(weights, [("a.jsonl", 1.0), ("b.csv", 0.5)]);
    for data in [
        config(&[], None),
        config(&[(Path::new("a"), 1.0)], None),
        config(&[(Path::new("a"), 2.0), (Path::new("b"), 1.0)], Some("c".into())),
    ] {
        let text = toml::to_string(&Settings { data }).unwrap();
        assert_eq!(toml::to_string(&toml::from_str::<Settings>(&text).unwrap()).unwrap(), text);
    }
    for (text, words) in [
        ("train = []", "an empty list, expected a path or several"),
        ("train = 3", "expected a path, or a list of paths and of tables with a path and a weight"),
        ("train = [{path = \"a\", wieght = 1.0}]", "unknown field `wieght`"),
    ] {
        let error = read(&format!("[data]\n{text}")).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let refusal = |weight| config(&[(Path::new("a"), 1.0), (Path::new("b"), weight)], None).validate().unwrap_err().to_string();
    assert_eq!(refusal(0.0), "data.train[1].weight: found 0, expected more than 0");
    assert_eq!(refusal(f64::NAN), "data.train[1].weight: found NaN, expected more than 0");
}

/// A file of `n` rows, each with one of three labels.
fn write(folder: &Path, name: &str, n: usize) -> PathBuf {
    let path = folder.join(name);
    // Two of five rows have one text, but for what does not count.
    let text = |row: usize| if row.is_multiple_of(5) { format!("{name}: The Sea {}!", row + 1) } else { format!("{name} the sea {row}") };
    let rows: Vec<_> = (0..n).map(|row| json!({"text": text(row), "label": row % 3})).collect();
    crate::rows::write_jsonl(&path, &rows).unwrap();
    path
}

fn tokenizer() -> Tokenizer {
    Tokenizer::train(["the sea number 0 1 2 3 4 5 6 7 8 9"].into_iter(), 300).unwrap()
}

/// The rows of files, a large one if it has more than `most_bytes`; their labels; and how often they were read.
fn rows(data: &DataConfig, most_bytes: usize, draw: Draw<'_>, n_reads: &mut usize) -> (Rows<Labelled<u32>>, Labels) {
    let tokenizer = tokenizer();
    let files = Files::open_within(data, &[], draw, most_bytes, data.held_out.is_none()).unwrap();
    let labels = Labels::of_files(&files, "label").unwrap();
    let rows = files
        .rows(LIMIT, &|| Ok(json!("test")), |table| {
            *n_reads += 1;
            let columns = crate::columns::ColumnsConfig::default();
            crate::sequences::class_table(table, &columns, &labels, &tokenizer, LIMIT)
        })
        .unwrap();
    (rows, labels)
}

/// One test, because the cache's place is the process's.
#[test]
fn large_files_are_the_same_rows_from_disk_and_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    // No other test of this crate reads it.
    crate::store::cache::TEST_FOLDER.set(cache.clone()).unwrap();
    let (train, more) = (write(folder.path(), "a.jsonl", 700), write(folder.path(), "b.jsonl", 300));
    let [held_out, validation] = ["c.jsonl", "d.jsonl"].map(|name| write(folder.path(), name, 90));
    let tokenizer = tokenizer();
    let share = |validation_share| Draw { seed: 3, validation_share, texts: TextColumns::one("text") };
    for (held_out, validation, draw, n_validation) in [
        (None, None, share(0.0), 0),
        (None, None, share(0.25), 140 + 60),
        (Some(held_out.clone()), None, share(0.1), 70 + 30),
        (Some(held_out), Some(validation), share(0.0), 90),
    ] {
        let data = DataConfig { validation, ..config(&[(&train, 1.0), (&more, 0.5)], held_out) };
        let mut n_reads = 0;
        let (memory, labels) = rows(&data, usize::MAX, draw, &mut n_reads);
        n_reads = 0;
        let (disk, same_labels) = rows(&data, 2000, draw, &mut n_reads);
        assert_eq!((disk.validation.len(), &disk.validation), (n_validation, &memory.validation));
        // Of a text that is there twice both rows are on one side.
        let in_words = |row: &Labelled<u32>| crate::duplicates::normalised(&tokenizer.decode(&row.ids).unwrap());
        let sides = [
            memory.train.each(in_words).unwrap(),
            memory.validation.iter().map(in_words).collect(),
            memory.held_out.iter().map(in_words).collect(),
        ];
        let sides = sides.map(std::collections::BTreeSet::from_iter);
        assert!(sides[0].is_disjoint(&sides[1]) && sides[0].is_disjoint(&sides[2]) && sides[1].is_disjoint(&sides[2]));
        assert!(n_reads > 10, "read in {n_reads} parts");
        assert_eq!(same_labels, labels);
        assert_eq!((disk.counts, disk.held_out.clone(), disk.train.lengths()), (memory.counts, memory.held_out, memory.train.lengths()));
        for index in 0..memory.train.len() {
            assert_eq!(disk.train.get(index).unwrap(), memory.train.get(index).unwrap());
        }
        assert!(matches!(memory.train.get(0).unwrap(), Cow::Borrowed(_)) && matches!(disk.train.get(0).unwrap(), Cow::Owned(_)));
        assert_eq!(disk.train.order(5, 2), memory.train.order(5, 2));
        n_reads = 0;
        let (again, _) = rows(&data, 2000, draw, &mut n_reads);
        assert_eq!((n_reads, again.counts), (0, disk.counts), "kept");
        // A file that changed is another one, a damaged entry is made anew.
        for entry in std::fs::read_dir(&cache).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // Another file, for the old one is still read from.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
        let (anew, _) = rows(&data, 2000, draw, &mut n_reads);
        assert!(n_reads > 10);
        assert_eq!(anew.train.each(Clone::clone).unwrap(), disk.train.each(Clone::clone).unwrap());
    }
    check_large_running_text(folder.path());
    let before = std::fs::read_dir(&cache).unwrap().count();
    write(folder.path(), "a.jsonl", 701);
    let (changed, _) = rows(&config(&[(&train, 1.0)], None), 2000, share(0.0), &mut 0);
    assert_eq!(changed.counts[0].n_rows + changed.counts[1].n_rows, 701);
    assert!(std::fs::read_dir(&cache).unwrap().count() > before);
}

/// A file of 400 lines.
fn lines(folder: &Path) -> DataConfig {
    let path = folder.join("a.txt");
    std::fs::write(&path, (0..400).map(|line| format!("line {line}\n")).collect::<String>()).unwrap();
    DataConfig { held_out: Some(path.clone()), ..config(&[(&path, 1.0)], None) }
}

/// Blocks of four lines, each with the numbers of these.
fn fours(table: &Table) -> Result<(Vec<Labelled<u32>>, Counts)> {
    let block =
        |rows: &[crate::rows::Row]| Labelled { ids: rows.iter().map(|row| row.line as u32).collect(), token_types: Vec::new(), label: 0 };
    Ok((table.rows.chunks(4).map(block).collect(), Counts { n_rows: table.rows.len(), ..Counts::default() }))
}

const LIMIT: Limit = Limit { max_tokens: 100, overlong: Overlong::Refuse, n_end_tokens: 0 };
const QUARTER: Draw<'_> = Draw { seed: 3, validation_share: 0.25, texts: TextColumns::Named(["text", "", ""]) };

#[test]
fn of_running_text_whole_blocks_validate() {
    let folder = tempfile::tempdir().unwrap();
    let data = lines(folder.path());
    let training = data.open(&[], QUARTER).unwrap().read_train(LIMIT, &|| Ok(json!("lines")), fours).unwrap();
    assert_eq!((training.rows.len(), training.validation.len(), training.files[0].n_rows), (75, 25, 400));
    let is_whole = |block: &Labelled<u32>| block.ids.len() == 4 && block.ids.windows(2).all(|lines| lines[1] == lines[0] + 1);
    assert!(training.rows.each(is_whole).unwrap().into_iter().all(|is| is) && training.validation.iter().all(is_whole));
}

/// The same of a large file, whose parts are divided one by one.
fn check_large_running_text(folder: &Path) {
    let data = lines(folder);
    let rows = Files::open_within(&data, &[], QUARTER, 1000, false).unwrap().rows(LIMIT, &|| Ok(json!("blocks")), fours).unwrap();
    let validation: Vec<u32> = rows.validation.iter().flat_map(|row| row.ids.clone()).collect();
    let mut all = [rows.train.each(|row| row.ids.clone()).unwrap().concat(), validation.clone()].concat();
    all.sort_unstable();
    assert_eq!((all, rows.counts[0].n_rows), ((1..=400).collect::<Vec<u32>>(), 400), "every line is on one side and counts once");
    assert!(validation.len().abs_diff(100) <= 20, "{}", validation.len());
}

#[test]
fn weights_say_how_often_an_epoch_sees_a_row() {
    let row = |n_tokens: usize| Labelled { ids: vec![0; n_tokens], token_types: vec![0; n_tokens], label: 0u32 };
    let mut store = Store::default();
    store.push_rows(vec![row(1); 10], 2.0);
    store.push_rows(vec![row(2); 9], 1.0 / 3.0);
    store.push_rows(vec![row(3); 4], 1.5);
    assert_eq!(store.lengths(), [[1; 10].as_slice(), &[2; 9], &[3; 4]].concat());
    let times = |epochs: std::ops::Range<u64>| {
        let mut times = BTreeMap::new();
        epochs.flat_map(|epoch| store.order(7, epoch)).for_each(|row| *times.entry(row).or_insert(0) += 1);
        (0..store.len()).map(|row| times.get(&row).copied().unwrap_or(0)).collect::<Vec<usize>>()
    };
    for first in [0, 3, 600] {
        let one = times(first..first + 1);
        assert!(one[..10].iter().all(|&n| n == 2));
        assert_eq!((one[10..19].iter().sum::<usize>(), one[19..].iter().sum::<usize>()), (3, 6));
        // Three epochs of a third see each row once, two of one and a half three times.
        assert!(times(first..first + 3)[10..19].iter().all(|&n| n == 1));
        assert!(times(first..first + 2)[19..].iter().all(|&n| n == 3));
    }
    assert_eq!(store.order(7, 4), store.order(7, 4));
    assert_ne!(store.order(7, 4), store.order(8, 4));
    let mut plain = Store::default();
    plain.push_rows(vec![row(1); 30], 1.0);
    plain.push_rows(vec![row(1); 12], 1.0);
    assert_eq!(plain.order(7, 4), crate::split::order(42, 11), "as one file");
}
