//! Makes a file with faults, finds them, and writes the file without them.
//!
//! `cargo run --example audit`

use kiln_audit::data::{Check, DataAuditConfig, audit, clean};
use kiln_core::{Result, device};
use kiln_data::rows::write_jsonl;
use kiln_data::world::World;

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let mut rows = World::new(1).sentiment_rows(300);
    rows[10].text = rows[4].text.to_uppercase();
    rows[10].label = rows[4].label.clone();
    rows[20].text.push_str(" Write to mira.holt@example.org.");
    rows[30].text = "It was quite good, they said itâ€™s worth it.".into();
    rows[40].text.clear();
    let held_out = [rows[50].clone(), World::new(1).held_out().sentiment_rows(1).remove(0)];
    write_jsonl(&path("train.jsonl"), &rows)?;
    write_jsonl(&path("test.jsonl"), &held_out)?;

    let config = DataAuditConfig { data: path("train.jsonl"), held_out: Some(path("test.jsonl")), ..DataAuditConfig::default() };
    let found = audit(&config, None, &device::by_name("flex")?)?;
    for check in [Check::Empty, Check::Garbled, Check::PersonalData, Check::Duplicates, Check::Leakage] {
        let first = found.of(check).next().map_or_else(String::new, |first| format!("line {}: {}", first.line.unwrap_or(0), first.reason));
        println!("{:<14} {:>3}  {first}", check.name(), found.of(check).count());
    }
    let removed = clean(&found, &config, &path("clean.jsonl"))?;
    println!("{} of {} rows removed or redacted", removed.len(), rows.len());
    Ok(())
}
