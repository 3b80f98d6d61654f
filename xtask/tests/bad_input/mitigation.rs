//! Settings of mitigation that do not fit the rows or each other.

use crate::support::{Place, models};
use std::fs;

const CLASSIFICATION: &str = "task=classification";
const GROUPS: &str = "mitigation.groups=[\"who\"]";

/// Rows of two groups.
fn people(place: &Place) {
    let row = |index: usize| {
        format!("{}\tthe {} is here\t{}\n", ["f", "m"][index / 2 % 2], ["sea", "sun"][index % 2], ["cold", "warm"][index % 2])
    };
    place.file("people.tsv", format!("who\ttext\tlabel\n{}", (0..24).map(row).collect::<String>()));
}

#[test]
fn settings_that_do_not_fit() {
    let place = Place::new();
    people(&place);
    let encoder = models().join("encoder");
    let refused = |sets: &[&str], words: &[&str]| {
        place.sft_refused(&encoder, &[&[CLASSIFICATION, "data.train=people.tsv", "force=true"], sets].concat(), words);
    };
    for method in ["reweighing", "resampling", "group-dro"] {
        refused(&[&format!("mitigation.method={method}")], &["mitigation.groups: missing, but method is set", method, "[\"gender\"]"]);
    }
    refused(&["mitigation.method=reweigh"], &["mitigation.method=reweigh", "unknown variant `reweigh`"]);
    refused(&["mitigation.method={name=\"reweighing\",step_size=0.1}"], &["unknown field `step_size` of \"reweighing\""]);
    refused(&["mitigation.thresholds=equal-opportunity"], &["mitigation.groups: missing, but thresholds is set"]);
    refused(&[GROUPS, "mitigation.thresholds=equal-opportunity"], &["mitigation.thresholds", "validation.share"]);
    refused(&["mitigation.groups=[\"whoo\"]"], &["people.tsv", "no column \"whoo\"", "did you mean mitigation.groups=\"who\"?"]);
    refused(&[GROUPS, "mitigation.positive=hot"], &["mitigation.positive", "no class \"hot\"; there are cold, warm"]);
    refused(
        &[GROUPS, "mitigation.method={name=\"group-dro\",step_size=0.0}"],
        &["mitigation.method.step_size", "found 0, expected more than 0"],
    );
    refused(&[GROUPS, "mitigation.method=group-dro", "micro_batch_tokens=8"], &["mitigation.method", "leave micro_batch_tokens out"]);
    refused(&["mitigation.method=counterfactual"], &["mitigation.method", "no word to exchange", "mitigation.method.swaps"]);
    refused(&["mitigation.method={name=\"counterfactual\",swaps=\"none.txt\"}"], &["none.txt"]);
    refused(
        &[GROUPS, "mitigation.control=nowhere/model"],
        &["mitigation.control", "nowhere/config.toml", "name the folder model of a run"],
    );
    place.sft_refused(&encoder, &["task=regression", "data.train=people.tsv", GROUPS], &["mitigation", "set task=classification"]);
}

#[test]
fn groups_that_do_not_fit() {
    let place = Place::new();
    people(&place);
    let encoder = models().join("encoder");
    place.file("alone.tsv", "who\ttext\tlabel\nf\tthe sea\tcold\nf\tthe sun\twarm\nf\tsnow\tcold\n");
    place.sft_refused(&encoder, &[CLASSIFICATION, "data.train=alone.tsv", GROUPS], &["alone.tsv", "\"who\" holds only the group \"f\""]);
    place.file("gap.tsv", "who\ttext\tlabel\nf\tthe sea\tcold\n\tthe sun\twarm\nm\tsnow\tcold\n");
    place.sft_refused(&encoder, &[CLASSIFICATION, "data.train=gap.tsv", GROUPS], &["gap.tsv:3", "\"who\" is empty"]);
    place.file("unsaid.tsv", "text\tlabel\nthe sea\tcold\nthe sun\twarm\n");
    let sets = [CLASSIFICATION, "data.train=people.tsv", "data.held_out=unsaid.tsv", GROUPS];
    place.sft_refused(&encoder, &sets, &["unsaid.tsv", "no column \"who\"", "mitigation.groups"]);
    place.file("three.tsv", "who\ttext\tlabel\nf\tthe sea\ta\nm\tthe sun\tb\nf\tsnow\tc\nm\tice\ta\n");
    let sets = [CLASSIFICATION, "data.train=three.tsv", GROUPS, "validation.share=0.5", "mitigation.thresholds=demographic-parity"];
    place.sft_refused(&encoder, &sets, &["mitigation.thresholds", "are for two classes, and there are 3"]);
}

/// A control that was trained on other rows says nothing of the mitigation.
#[test]
fn controls_of_other_rows() {
    let place = Place::new();
    people(&place);
    place.trained("encoder", &[CLASSIFICATION, "data.train=people.tsv", "force=true"]);
    fs::rename(place.path("out"), place.path("control")).expect("renamed");
    let encoder = models().join("encoder");
    let sets = [CLASSIFICATION, "data.train=people.tsv", "seed=7", GROUPS, "mitigation.control=control/model"];
    place.sft_refused(&encoder, &sets, &["mitigation.control", "has another seed than this run"]);
    // What stands beside a model is read, too.
    place.file("control/model/thresholds.json", "{\"columns\": [\"who\"]}");
    let model = format!("model={}", place.path("control/model").display());
    place.refused(&["eval", "--set", &model, "--set", "data=people.tsv"], &["thresholds.json", "missing field `positive`"]);
}
