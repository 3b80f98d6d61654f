//! Other rows to train a run's configuration on: a part of its own, for a learning curve, and its own with labels that mean nothing, as a control.
//!
//! The tags of a sentence depend on each other, and an entity has to begin before it goes on. So they are dealt out sentence by sentence, each getting
//! those of another with as many words: what tags look like stays, how many there are of each kind too, and only which words they belong to is lost.
//! A sentence with a length of its own keeps its entities, but they change places with the words between them.

use kiln_core::{Error, Result};
use kiln_data::conversations::messages;
use kiln_data::rows::{Row, Table};
use kiln_data::split::order;
use kiln_kernels::random::Key;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The streams of randomness that shuffle labels, and entities within a sentence.
const SHUFFLE: u64 = 1;
const WITHIN: u64 = 2;

/// How the labels of rows are made to mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle<'a> {
    /// A column is dealt out among the rows at random.
    Deal(&'a str),
    /// Two columns change places in a random half of the rows.
    Swap([&'a str; 2]),
    /// The lists of tags in a column are dealt out among the sentences of one length.
    Tags(&'a str),
    /// What the assistant says in the conversations of a column is dealt out among all its turns.
    Turns(&'a str),
}

/// A `share` of the rows, which `seed` draws so that a smaller share is a part of a larger one; of running text the first lines. Of each label that
/// `labels` finds a row is always there, and so are two rows.
///
/// # Errors
/// Those of `labels`.
pub fn subset(table: &Table, share: f64, labels: impl Fn(&Row) -> Result<Vec<String>>, seed: u64) -> Result<Table> {
    let n = table.rows.len();
    let mut places = if table.is_running_text() { (0..n).collect() } else { order(n, seed) };
    let mut known = BTreeSet::new();
    let mut is_first = vec![false; n];
    for &place in &places {
        let n_known = known.len();
        known.extend(labels(&table.rows[place])?);
        is_first[place] = known.len() > n_known;
    }
    places.sort_by_key(|&place| !is_first[place]);
    let n_first = is_first.iter().filter(|&&is_first| is_first).count();
    let n_kept = ((n as f64 * share).round() as usize).max(2).max(n_first);
    places.truncate(n_kept);
    places.sort_unstable();
    Ok(Table { rows: places.into_iter().map(|place| table.rows[place].clone()).collect(), ..table.clone() })
}

/// The same rows with labels that mean nothing, by `seed`.
///
/// # Errors
/// If there is no such column, or what is in it is no list of tags or no conversation.
pub fn shuffled(table: &Table, shuffle: Shuffle<'_>, seed: u64) -> Result<Table> {
    let key = Key::new(seed).fold(SHUFFLE);
    let mut dealt = table.clone();
    match shuffle {
        Shuffle::Deal(column) => {
            table.require(&[column])?;
            for (row, other) in dealt.rows.iter_mut().zip(key.permutation(table.rows.len())) {
                match table.rows[other].fields.get(column) {
                    Some(value) => row.fields.insert(column.to_owned(), value.clone()),
                    None => row.fields.remove(column),
                };
            }
        }
        Shuffle::Swap([one, other]) => {
            table.require(&[one, other])?;
            for (index, row) in dealt.rows.iter_mut().enumerate().filter(|(index, _)| key.below(*index as u64, 2) == 1) {
                let was: &Row = &table.rows[index];
                for (column, from) in [(one, other), (other, one)] {
                    row.fields.insert(column.to_owned(), table.field(was, from)?.clone());
                }
            }
        }
        Shuffle::Tags(column) => {
            let tags = table.rows.iter().map(|row| table.texts(row, column)).collect::<Result<Vec<_>>>()?;
            for (row, tags) in dealt.rows.iter_mut().zip(dealt_tags(&tags, key)) {
                row.fields.insert(column.to_owned(), tags.into());
            }
        }
        Shuffle::Turns(column) => {
            let mut conversations = table.rows.iter().map(|row| messages(table, row, column)).collect::<Result<Vec<_>>>()?;
            let is_said = |message: &&mut Value| message["role"] == "assistant";
            let said: Vec<Value> = conversations.iter_mut().flatten().filter(is_said).map(|message| message["content"].clone()).collect();
            let turns = conversations.iter_mut().flatten().filter(is_said);
            turns.zip(key.permutation(said.len())).for_each(|(turn, other)| turn["content"] = said[other].clone());
            for (row, messages) in dealt.rows.iter_mut().zip(conversations) {
                row.fields.insert(column.to_owned(), messages.into());
            }
        }
    }
    Ok(dealt)
}

/// The tags of each sentence dealt out among those of one length, none of which keeps its own if there are others. The entities of one that is alone
/// change places.
fn dealt_tags<'a>(tags: &[Vec<&'a str>], key: Key) -> Vec<Vec<&'a str>> {
    let mut of_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in key.permutation(tags.len()) {
        of_length.entry(tags[place].len()).or_default().push(place);
    }
    let mut dealt = vec![Vec::new(); tags.len()];
    for places in of_length.values() {
        if let [alone] = places[..] {
            let begins = |place: usize| !tags[alone][place].starts_with("I-");
            let starts: Vec<usize> = (0..tags[alone].len()).filter(|&place| begins(place)).collect();
            let end = |index: usize| starts.get(index + 1).copied().unwrap_or(tags[alone].len());
            let order = key.fold(WITHIN).fold(alone as u64).permutation(starts.len());
            dealt[alone] = order.into_iter().flat_map(|index| tags[alone][starts[index]..end(index)].iter().copied()).collect();
        } else {
            // In a random order each gets those of the next.
            for (&place, &next) in places.iter().zip(places.iter().cycle().skip(1)) {
                dealt[place].clone_from(&tags[next]);
            }
        }
    }
    dealt
}

/// Writes the rows of `tables`, one after the other, as a file of `folder` called `name`: running text as lines, others as JSON lines.
///
/// # Errors
/// If it cannot be written.
///
/// # Panics
/// Without a table.
pub fn write(tables: &[Table], folder: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    let mut all = tables[0].clone();
    for table in &tables[1..] {
        all.rows.extend_from_slice(&table.rows);
        let new = table.columns.iter().filter(|column| !all.columns.contains(column)).cloned().collect::<Vec<_>>();
        all.columns.extend(new);
    }
    let extension = if tables.iter().all(Table::is_running_text) { "txt" } else { "jsonl" };
    let path = folder.join(format!("{name}.{extension}"));
    all.write(&path, false)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, content: &str) -> (tempfile::TempDir, Table) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let table = Table::read(&path, &[]).unwrap();
        (folder, table)
    }

    /// The label of a row of `table`.
    fn of_label(table: &Table) -> impl Fn(&Row) -> Result<Vec<String>> {
        |row| Ok(vec![table.label(row, "label")?])
    }

    fn numbered() -> (tempfile::TempDir, Table) {
        let line = |row: usize| format!("{{\"text\":\"t{row}\",\"label\":{}}}\n", if row < 2 { 9 } else { row % 3 });
        table("rows.jsonl", &(0..60).map(line).collect::<String>())
    }

    #[test]
    fn a_part_is_within_a_larger_part_and_has_all_classes() {
        let (_folder, table) = numbered();
        let texts = |share| -> BTreeSet<String> {
            let part = subset(&table, share, of_label(&table), 4).unwrap();
            part.rows.iter().map(|row| part.text(row, "text").unwrap().to_owned()).collect()
        };
        let [eighth, half] = [0.125, 0.5].map(texts);
        assert_eq!((eighth.len(), half.len()), (8, 30));
        assert!(eighth.is_subset(&half));
        let part = subset(&table, 0.01, of_label(&table), 4).unwrap();
        assert_eq!(part.rows.iter().map(|row| part.label(row, "label").unwrap()).collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(subset(&table, 0.01, |_| Ok(Vec::new()), 4).unwrap().rows.len(), 2);
    }

    #[test]
    fn labels_are_dealt_out_and_nothing_else_changes() {
        let (folder, table) = numbered();
        let dealt = shuffled(&table, Shuffle::Deal("label"), 4).unwrap();
        let column = |table: &Table, name: &str| table.rows.iter().map(|row| table.label(row, name).unwrap()).collect::<Vec<_>>();
        assert_eq!(column(&table, "text"), column(&dealt, "text"));
        let (mut before, mut after) = (column(&table, "label"), column(&dealt, "label"));
        assert_ne!(before, after);
        before.sort();
        after.sort();
        assert_eq!(before, after);
        assert!(shuffled(&table, Shuffle::Deal("class"), 4).is_err());
        // As a file they are the same rows.
        let path = write(std::slice::from_ref(&dealt), &folder.path().join("inside"), "dealt").unwrap();
        let again = Table::read(&path, &[]).unwrap();
        assert_eq!(
            again.rows.iter().map(|row| &row.fields).collect::<Vec<_>>(),
            dealt.rows.iter().map(|row| &row.fields).collect::<Vec<_>>()
        );
    }

    #[test]
    fn half_of_the_pairs_are_the_wrong_way_round() {
        let line = |row: usize| format!("{{\"prompt\":\"p\",\"chosen\":\"good {row}\",\"rejected\":\"bad {row}\"}}\n");
        let (_folder, table) = table("pairs.jsonl", &(0..200).map(line).collect::<String>());
        let swapped = shuffled(&table, Shuffle::Swap(["chosen", "rejected"]), 4).unwrap();
        let is_wrong = |row: &Row| swapped.text(row, "chosen").unwrap().starts_with("bad");
        let n_wrong = swapped.rows.iter().filter(|row| is_wrong(row)).count();
        assert!((70..130).contains(&n_wrong), "{n_wrong}");
        assert!(swapped.rows.iter().all(|row| is_wrong(row) == swapped.text(row, "rejected").unwrap().starts_with("good")));
    }

    #[test]
    fn tags_go_to_sentences_of_as_many_words() {
        let sentence = |tags: &[&str]| format!("{{\"tokens\":{:?},\"tags\":{tags:?}}}\n", vec!["w"; tags.len()]);
        let pairs = [["B-A", "O"], ["O", "B-A"], ["B-A", "I-A"]];
        let alone = ["O", "B-A", "I-A", "I-A", "O", "O", "B-B", "O", "O"];
        let mut text: String = pairs.iter().map(|tags| sentence(tags)).collect();
        text += &sentence(&alone);
        let (_folder, table) = table("names.jsonl", &text);
        for seed in 0..20 {
            let dealt = shuffled(&table, Shuffle::Tags("tags"), seed).unwrap();
            let tags: Vec<Vec<&str>> =
                dealt.rows.iter().map(|row| kiln_data::tags::tagged(&dealt, row, ["tokens", "tags"]).unwrap().1).collect();
            let mut of_pairs = tags[..3].to_vec();
            assert!(of_pairs.iter().zip(&pairs).all(|(new, old)| new != old), "each gets those of another: {tags:?}");
            of_pairs.sort_unstable();
            assert_eq!(of_pairs, [["B-A", "I-A"], ["B-A", "O"], ["O", "B-A"]]);
            let mut kinds = tags[3].clone();
            kinds.sort_unstable();
            assert_eq!(kinds, ["B-A", "B-B", "I-A", "I-A", "O", "O", "O", "O", "O"], "entities stay whole: {:?}", tags[3]);
        }
        let moved = (0..20).filter(|&seed| shuffled(&table, Shuffle::Tags("tags"), seed).unwrap().rows[3] != table.rows[3]).count();
        assert!(moved > 10, "{moved} of 20");
        assert!(shuffled(&table, Shuffle::Tags("words"), 1).is_err());
    }

    #[test]
    fn what_assistants_say_is_dealt_out_and_who_speaks_stays() {
        let said = |who: &str, what: String| format!("{{\"from\":{who:?},\"value\":{what:?}}}");
        let chat = |row: usize| {
            let turns = (0..1 + row % 2)
                .map(|turn| format!("{},{}", said("human", format!("q{row}.{turn}")), said("gpt", format!("a{row}.{turn}"))));
            format!("{{\"conversations\":[{}]}}\n", turns.collect::<Vec<_>>().join(","))
        };
        let (_folder, table) = table("chats.jsonl", &(0..40).map(chat).collect::<String>());
        let dealt = shuffled(&table, Shuffle::Turns("conversations"), 4).unwrap();
        let of_role = |table: &Table, role: &str| {
            let all = table.rows.iter().flat_map(|row| messages(table, row, "conversations").unwrap());
            all.filter(|message| message["role"] == role).map(|message| message["content"].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of_role(&table, "user"), of_role(&dealt, "user"));
        let (mut before, mut after) = (of_role(&table, "assistant"), of_role(&dealt, "assistant"));
        assert!(before.iter().zip(&after).filter(|(before, after)| before == after).count() < 6);
        before.sort();
        after.sort();
        assert_eq!(before, after);
    }

    #[test]
    fn of_running_text_the_first_lines_are_taken() {
        let (folder, table) = table("lines.txt", "one\ntwo\nthree\nfour\n");
        let part = subset(&table, 0.5, |_| Ok(Vec::new()), 4).unwrap();
        let path = write(&[part], folder.path(), "part").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }
}
