//! What audits of a run's fit say of runs of which it is known: canaries are exposed with the number of epochs and less so with regularisation, rows
//! learnt by heart give themselves away, and shuffled labels are learnt by heart or not at all.

use crate::support::{Place, flex};
use kiln_audit::fit::control::shuffled_control;
use kiln_audit::fit::{FitAudit, FitAuditConfig, audit};
use kiln_audit::run::FinishedRun;
use kiln_continual::config::ContinualConfig;
use kiln_data::world::{Domain, write_jsonl};
use kiln_sft::config::{SftConfig, Task};
use kiln_sft::observe::observe;
use kiln_train::schedule::Schedule;
use kiln_train::validation::ValidationConfig;

/// Trains, and looks at what came of it.
fn audited(place: &Place, config: &SftConfig, out: &str) -> FitAudit {
    place.train(config, out);
    let run = FinishedRun::read(&place.path(out)).expect("a run");
    let observed = observe(&run.folder, 40, &flex()).expect("its rows");
    let settings = FitAuditConfig { prefix_tokens: 8, suffix_tokens: 8, alternatives: 100, ..FitAuditConfig::default() };
    audit(&settings, &run, &config.model, &[(String::new(), observed)], &flex()).expect("an audit")
}

#[test]
fn canaries_are_exposed_by_epochs_and_hidden_by_regularisation() {
    let place = Place::new();
    place.questions(40, 40);
    let mut config = place.config(Task::NextToken, "decoder", "questions", "questions");
    (config.batch_rows, config.update.learning_rate, config.update.schedule) = (8, 3e-3, Schedule::Constant);
    (config.canaries.count, config.canaries.repetitions) = (8, 4);
    let table = |name: &str, config: &SftConfig| {
        let audit = audited(&place, config, name);
        let canaries = audit.canaries.as_ref().expect("canaries");
        let (exposure, extracted) = (canaries.exposure.value, canaries.extracted.value);
        let loss = audit.rows[0].loss[1].value;
        println!("{name:<16} exposure {exposure:>5.1}, extracted {extracted:.2}, held-out loss {loss:.3}");
        // Before training a canary is one of many: 1.44 on average, with a standard error of 0.5.
        let before = exposure - canaries.rise.value;
        assert!((0.2..3.5).contains(&before), "{before}");
        exposure
    };
    let of_epochs = [2, 5, 14].map(|epochs| table(&format!("epochs-{epochs}"), &SftConfig { epochs, ..config.clone() }));
    assert!(of_epochs[0] < of_epochs[1] && of_epochs[1] + 5.0 < of_epochs[2], "{of_epochs:?}");
    config.epochs = 14;
    let with = |change: &dyn Fn(&mut SftConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        changed
    };
    // Not label smoothing: here it raises the exposure, from 24 to 29 bits at 0.5.
    for (name, changed) in [
        ("repetitions", with(&|config| config.canaries.repetitions = 1)),
        ("weight-decay", with(&|config| config.update.weight_decay = 5.0)),
    ] {
        let exposure = table(name, &changed);
        assert!(exposure + 2.0 < of_epochs[2], "{name}: {exposure} of {}", of_epochs[2]);
    }
}

#[test]
fn rows_learnt_by_heart_give_themselves_away() {
    let place = Place::new();
    place.topics(60, 60);
    let mut config = place.config(Task::Classification, "encoder", "topics-control", "topics");
    (config.batch_rows, config.update.learning_rate, config.update.schedule) = (10, 2e-3, Schedule::Constant);
    let once = audited(&place, &config, "once");
    config.epochs = 20;
    config.validation = ValidationConfig { share: 0.3, keep_best: false, ..ValidationConfig::default() };
    let often = audited(&place, &config, "often");
    let [once_rows, often_rows] = [&once, &often].map(|audit| &audit.rows[0]);
    println!("AUC {:?} {:?}, {} {}", once_rows.membership.auc, often_rows.membership.auc, once.verdict(), often.verdict());
    assert!(once_rows.membership.auc.value < 0.65 && often_rows.membership.auc.value > once_rows.membership.auc.value + 0.2);
    assert!(often_rows.membership_rise.interval.low > 0.0, "{:?}", often_rows.membership_rise);
    assert!(often_rows.gap_rise.interval.low > 0.5 && often.verdict().starts_with("overfits"), "{}", often.verdict());
    let drift = often_rows.calibration.as_ref().expect("probabilities");
    assert!(drift.rise[0].interval.low > 0.0, "labels that mean nothing make a model too sure: {:?}", drift.rise);
    assert!(often.canaries.is_none() && often_rows.verbatim.is_none());
}

#[test]
fn a_domain_learnt_by_heart_gives_itself_and_its_canaries_away() {
    let place = Place::new();
    let documents = place.world.documents(Domain::ALL[0], 80);
    for (name, rows) in [("documents", &documents[..40]), ("documents-held-out", &documents[40..])] {
        write_jsonl(&place.path(&format!("{name}.jsonl")), rows).expect("rows");
    }
    let data = place.config(Task::NextToken, "decoder", "documents", "documents").data;
    let mut config = ContinualConfig { model: place.path("decoder"), data, batch_rows: 8, seed: 5, ..ContinualConfig::default() };
    (config.update.learning_rate, config.update.schedule) = (3e-3, Schedule::Constant);
    (config.canaries.count, config.canaries.repetitions) = (8, 4);
    let exposed = |name: &str, config: &ContinualConfig| {
        kiln_continual::train::train(config, &flex(), &place.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let run = FinishedRun::read(&place.path(name)).expect("a run");
        let observed = kiln_continual::observe::observe(&run.folder, 40, &flex()).expect("its rows");
        assert_eq!(observed[0].1.train.n_rows, 40, "canaries are no rows");
        let settings = FitAuditConfig { prefix_tokens: 8, suffix_tokens: 8, alternatives: 100, ..FitAuditConfig::default() };
        let audit = audit(&settings, &run, &config.model, &observed, &flex()).expect("an audit");
        let (exposure, rows) = (audit.canaries.as_ref().expect("canaries").exposure.value, &audit.rows[0]);
        let [auc, verbatim] = [rows.membership.auc.value, rows.verbatim.as_ref().expect("long rows").extractable.value];
        println!("{name:<10} exposure {exposure:>5.1}, AUC {auc:.2}, verbatim {verbatim:.2}, gap {:?}", rows.gap);
        [exposure, auc, verbatim]
    };
    let [few, many] = [2, 14].map(|epochs| exposed(&format!("epochs-{epochs}"), &ContinualConfig { epochs, ..config.clone() }));
    config.epochs = 14;
    config.l2_sp.strength = 0.3;
    let held = exposed("l2-sp", &config);
    assert!(many[0] > few[0] + 5.0, "canaries are exposed: {few:?} {many:?}");
    assert!(many[1] > few[1] + 0.1 && many[2] > few[2] + 0.2, "rows give themselves away: {few:?} {many:?}");
    assert!(held[0] < many[0] - 3.0 && held[1] < many[1], "L2-SP hides both: {many:?} {held:?}");
}

#[test]
fn verbatim_continuation_is_of_rows_that_were_trained_on() {
    let place = Place::new();
    let documents = place.world.documents(Domain::ALL[0], 32);
    for (name, rows) in [("documents", &documents[..16]), ("documents-held-out", &documents[16..])] {
        write_jsonl(&place.path(&format!("{name}.jsonl")), rows).expect("rows");
    }
    let mut config = place.config(Task::NextToken, "decoder", "documents", "documents");
    (config.batch_rows, config.update.learning_rate, config.epochs) = (4, 4e-3, 30);
    config.update.schedule = Schedule::Constant;
    let rows = audited(&place, &config, "run").rows.remove(0);
    let (train, held_out) = (rows.verbatim.expect("long rows"), rows.verbatim_held_out.expect("long rows"));
    println!("extractable {:?} of {}, held out {:?} of {}", train.extractable, train.n_rows, held_out.extractable, held_out.n_rows);
    println!("matched {:?}, held out {:?}", train.matched, held_out.matched);
    assert!(train.extractable.value > held_out.extractable.value + 0.3, "{} {}", train.extractable.value, held_out.extractable.value);
    assert!(train.matched.value > held_out.matched.value + 0.3, "{} {}", train.matched.value, held_out.matched.value);
}

#[test]
fn shuffled_labels_are_learnt_by_heart_or_not_at_all() {
    let place = Place::new();
    place.topics(120, 60);
    let falls = |epochs: usize| {
        let observed = ["topics", "topics-control"].map(|rows| {
            let mut config = place.config(Task::Classification, "encoder", rows, "topics");
            (config.batch_rows, config.update.learning_rate, config.epochs) = (10, 2e-3, epochs);
            config.update.schedule = Schedule::Constant;
            let out = format!("{rows}-{epochs}");
            place.train(&config, &out);
            observe(&place.path(&out), 1000, &flex()).expect("rows").train
        });
        let [right, shuffled] = observed.each_ref().map(|side| [&side.before[..], &side.after]);
        let control = shuffled_control(right, shuffled, 1);
        println!("{epochs} epochs: falls by {:.3} and {:.3}: {:?}", control.fall.value, control.shuffled_fall.value, control.memorised);
        control.memorised
    };
    let [few, many] = [3, 40].map(falls);
    assert!(few.value < 0.3, "{few:?}");
    assert!(many.value > few.value + 0.3 && many.interval.low > few.interval.high, "{many:?}");
}
