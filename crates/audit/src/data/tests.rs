//! Planted faults are found, and a clean file has none.

use super::*;
use kiln_core::device;
use std::fmt::Write;

const PLACES: [&str; 10] = ["harbour", "market", "station", "garden", "bridge", "museum", "theatre", "library", "bakery", "island"];
const THINGS: [&str; 10] = ["boats", "flowers", "trains", "letters", "lamps", "pictures", "songs", "books", "loaves", "gulls"];
const WAYS: [&str; 10] =
    ["slowly", "at noon", "in silence", "all year", "by hand", "on Mondays", "without end", "in the rain", "together", "again"];

/// 300 rows that no two of are nearly the same, their labels drawn at random.
fn clean_rows() -> Vec<(String, &'static str)> {
    let key = kiln_kernels::random::Key::new(77);
    let row = |i: usize| {
        let word = |list: [&'static str; 10], stream: u64| list[key.fold(stream).below(i as u64, 10) as usize];
        let number = 1000 + 37 * i;
        let text = format!("the {} of the {} has {number} {} {}", word(PLACES, 1), word(PLACES, 2), word(THINGS, 3), word(WAYS, 4));
        (text + &" indeed".repeat(i % 4), if key.uniform(i as u64) < 0.5 { "old" } else { "new" })
    };
    (0..300).map(row).collect()
}

fn audited(rows: &[(String, &str)], held_out: &[&str]) -> (DataAudit, DataAuditConfig, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.tsv");
    let mut text = String::from("text\tlabel\n");
    rows.iter().for_each(|(row, label)| writeln!(text, "{row}\t{label}").unwrap());
    std::fs::write(&path, text).unwrap();
    let mut config = DataAuditConfig { data: path, near: 0.85, ..DataAuditConfig::default() };
    if !held_out.is_empty() {
        let path = folder.path().join("held_out.txt");
        std::fs::write(&path, held_out.join("\n")).unwrap();
        config.held_out = Some(path);
        config.columns.names.clear();
    }
    (audit(&config, None, &device::by_name("flex").unwrap()).unwrap(), config, folder)
}

fn lines(audit: &DataAudit, check: Check) -> Vec<usize> {
    audit.of(check).filter_map(|finding| finding.line).collect()
}

#[test]
fn a_clean_file_raises_no_alarm() {
    let (audit, _, _folder) = audited(&clean_rows(), &["nothing of this kind is said here", "or here"]);
    assert!(audit.findings.is_empty(), "{:?}", audit.findings);
    assert_eq!(audit.n_held_out, 2);
    assert!(audit.checked.contains(&Check::Leakage) && !audit.checked.contains(&Check::LabelErrors));
    assert!(audit.measured().iter().all(|measured| measured.value == 0.0));
}

#[test]
fn each_planted_fault_is_found_and_cleaned_away() {
    let mut rows = clean_rows();
    rows[4].0 = " ".into();
    rows[9].0 = "itâ€™s the harbour that has 5 boats".into();
    rows[14].0 = rows[2].0.to_uppercase();
    rows[14].1 = rows[2].1;
    rows[19].0 = format!("{} too", rows[3].0);
    rows[24].0 = "write to ann.lee@example.org about the boats of the harbour".into();
    rows[29].0 = "der Hafen ist ruhig und die Boote sind nicht mehr in dem Wasser".into();
    rows[34].0 = rows[5].0.clone();
    rows[34].1 = if rows[5].1 == "old" { "new" } else { "old" };
    for (index, (text, _)) in rows.iter_mut().enumerate().filter(|(index, (_, label))| *label == "new" && index % 3 == 0 && *index > 40) {
        *text = format!("{text} kiosk{}", if index > 100 { "" } else { "!" });
    }
    let held_out = rows[7].0.clone();
    let (audit, config, folder) = audited(&rows, &["something else", &held_out]);
    // The header is line 1.
    assert_eq!(lines(&audit, Check::Empty), [6]);
    assert_eq!(lines(&audit, Check::Garbled), [11]);
    assert_eq!(lines(&audit, Check::Duplicates), [16, 36]);
    assert_eq!(lines(&audit, Check::NearDuplicates), [21]);
    assert_eq!(lines(&audit, Check::PersonalData), [26]);
    assert_eq!(lines(&audit, Check::Language), [31]);
    assert_eq!(lines(&audit, Check::Leakage), [9]);
    assert_eq!(lines(&audit, Check::Conflicts), [7, 36]);
    let shortcuts: Vec<&Finding> = audit.of(Check::Shortcuts).collect();
    assert!(shortcuts.len() == 1 && shortcuts[0].reason.contains("with \"kiosk\""), "{shortcuts:?}");

    let cleaned = folder.path().join("clean.jsonl");
    let removed = clean(&audit, &config, &cleaned).unwrap();
    let gone: Vec<usize> = removed.iter().filter(|row| row.what == "removed").map(|row| row.line).collect();
    assert_eq!(gone, [6, 7, 9, 11, 16, 36]);
    assert_eq!(removed.iter().find(|row| row.what == "redacted").unwrap().line, 26);
    let table = Table::read(&cleaned, &[]).unwrap();
    assert_eq!((table.rows.len(), table.columns.as_slice()), (294, &["text".to_owned(), "label".into()][..]));
    assert!(table.rows.iter().any(|row| row.fields["text"] == "write to [EMAIL] about the boats of the harbour"));
    assert!(clean(&audit, &config, &config.data).unwrap_err().to_string().contains("is the file that is read"));

    let n_findings = audit.findings.len();
    let file = AuditedFile { name: "rows.tsv".into(), config, audit };
    write(&[file], Some(&removed), &folder.path().join("out")).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join("out").join(name)).unwrap();
    for name in ["results.json", "findings.jsonl", "removed.jsonl", "report.html", "config.toml"] {
        assert!(!read(name).contains("ann.lee"), "{name} repeats personal data");
    }
    assert!(read("report.html").contains("<td>near-duplicates</td>"));
    assert_eq!(read("findings.jsonl").lines().count(), n_findings);
}

#[test]
fn a_sorted_file_and_a_rare_class_are_told() {
    let mut rows = clean_rows();
    rows.sort_by_key(|(_, label)| *label);
    rows.truncate(299);
    rows.push((rows[0].0.clone() + " for once", "rare"));
    let (audit, ..) = audited(&rows, &[]);
    assert_eq!(audit.of(Check::Order).count(), 2);
    let reasons: Vec<&str> = audit.of(Check::RareClasses).map(|finding| finding.reason.as_str()).collect();
    assert_eq!(reasons, ["\"rare\" has 1 of 300 rows"]);
}

#[test]
fn numbers_and_keys_are_no_classes() {
    let mut rows = clean_rows();
    let numbers: Vec<String> = (0..300).map(|i| format!("{}.5", i % 7)).collect();
    rows.iter_mut().zip(&numbers).for_each(|((text, _), number)| text.push_str(number));
    let rows: Vec<(String, &str)> = rows.into_iter().zip(&numbers).map(|((text, _), number)| (text, number.as_str())).collect();
    let (audit, ..) = audited(&rows, &[]);
    assert!(!audit.checked.contains(&Check::Shortcuts));
}
