//! Groups that are treated unlike are told from groups that are not.

use super::*;
use crate::limits;
use kiln_core::device;
use kiln_kernels::random::Key;
use std::fmt::Write;

/// Rows with predictions: right in 9 of 10, but for one group of one site, whose positive rows are missed.
fn predictions(folder: &std::path::Path) -> BiasAuditConfig {
    let key = Key::new(3);
    let mut text = String::from("label,prediction,gender,site\n");
    for row in 0..400 {
        let (gender, site) = (["f", "m"][row % 2], ["north", "south"][row / 2 % 2]);
        let label = key.uniform(row as u64) < 0.5;
        let is_right = key.fold(1).uniform(row as u64) < if gender == "f" && site == "south" && label { 0.3 } else { 0.9 };
        writeln!(text, "{},{},{gender},{site}", u8::from(label), u8::from(label == is_right)).unwrap();
    }
    text.push_str("1,1,x,north\n");
    let path = folder.join("predictions.csv");
    std::fs::write(&path, text).unwrap();
    BiasAuditConfig { data: path, groups: vec!["gender".into(), "site".into()], ..BiasAuditConfig::default() }
}

#[test]
fn the_worst_treated_are_where_two_groups_meet() {
    let folder = tempfile::tempdir().unwrap();
    let config = predictions(folder.path());
    let audit = audit(&config, &device::by_name("flex").unwrap()).unwrap();
    let names: Vec<&str> = audit.groupings.iter().map(|grouping| grouping.by.as_str()).collect();
    assert_eq!(names, ["gender", "site", "gender × site"]);
    assert!(audit.groupings.iter().all(|grouping| grouping.positive == "1"));
    let rows: Vec<(&str, usize, bool)> =
        audit.groupings[0].groups.iter().map(|group| (group.group.as_str(), group.rows, group.compared)).collect();
    assert_eq!(rows, [("f", 200, true), ("m", 200, true), ("x", 1, false)], "a single row is not compared");
    let opportunity: Vec<f64> = audit.groupings.iter().map(|grouping| grouping.gaps[1].difference.value).collect();
    assert!(opportunity[2] > 0.5 && opportunity[2] > opportunity[0] && audit.groupings[2].gaps[1].p < 0.01, "{opportunity:?}");
    assert!(audit.swap.is_none());

    let fail_if = |limit: &str| limits::check(&[limit.to_owned()], &audit.measured());
    fail_if("equal_opportunity=0.9").unwrap();
    assert!(matches!(fail_if("equal_opportunity=0.5"), Err(Error::Unmet { .. })));
    fail_if("gender.equal_opportunity=0.5").unwrap();

    write(&audit, &config, &folder.path().join("out")).unwrap();
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("<td>f × south</td>") && page.contains("equalized_odds"), "{page}");
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = predictions(folder.path());
    let refused = |change: fn(&mut BiasAuditConfig)| {
        let mut config = config.clone();
        change(&mut config);
        audit(&config, &device::by_name("flex").unwrap()).unwrap_err().to_string()
    };
    assert!(refused(|config| config.groups.clear()).contains("groups: missing"));
    assert!(refused(|config| config.groups = vec!["gendre".into()]).contains("did you mean groups=\"gender\"?"));
    assert!(refused(|config| config.positive = Some("yes".into())).contains("no class \"yes\"; there are 0, 1"));
    assert!(refused(|config| config.prediction = "said".into()).contains("no column \"said\""));
}
