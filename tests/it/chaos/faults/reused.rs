//! Faults that have a test of their own among the others, which need no cluster: it is run, by its name, and is the row.

use std::{process::Command, time::Instant};

use super::super::{cluster::Cluster, pace::Pace, row::Row};

/// Disk full, and the tails of files torn and garbled, under the embedded log and store.
pub fn embedded(_: &Cluster, _: &Pace) -> Result<Vec<Row>, String> {
    rows(&[
        ("disk full", "e2e::trouble::a_full_disk_is_answered_503_and_recovers_by_itself_when_there_is_room"),
        ("log's tail torn", "embedded_log::a_torn_tail_is_cut_at_the_last_whole_record_and_appends_go_on"),
        ("log garbled", "embedded_log::damage_amid_the_journal_is_an_error_and_nothing_vanishes"),
        ("store's tail torn", "embedded_store::a_torn_journal_keeps_what_the_checkpoint_covers"),
        ("store garbled", "embedded_store::damaged_files_are_an_error_with_a_remedy_and_never_a_panic_or_fewer_rows"),
    ])
}

/// The topic is another than it was.
pub fn topic(_: &Cluster, _: &Pace) -> Result<Vec<Row>, String> {
    rows(&[
        (
            "topic recreated",
            "e2e::servers::topic::a_topic_that_was_made_anew_halts_its_lanes_and_ends_intake_and_both_say_what_to_do",
        ),
        (
            "partitions added",
            "e2e::servers::topic::partitions_that_were_added_stop_nothing_until_somebody_uses_them_without_an_epoch",
        ),
    ])
}

fn rows(tests: &[(&str, &str)]) -> Result<Vec<Row>, String> {
    std::thread::scope(|scope| {
        let running: Vec<_> = tests.iter().map(|(fault, test)| scope.spawn(|| row(fault, test))).collect();
        running.into_iter().map(|one| one.join().expect("it does not panic")).collect()
    })
}

/// What the test counts it counts by itself: there are no figures.
fn row(fault: &str, test: &str) -> Result<Row, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let began = Instant::now();
    let ran = Command::new(program)
        .args([test, "--exact", "--nocapture"])
        .env_remove("TALLYMARK_CHAOS_MINUTES")
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let mut row = Row::failed(fault, String::new());
    row.problems.clear();
    row.notes.push(format!("{test}: {:.1} s", began.elapsed().as_secs_f64()));
    if !ran.status.success() || !said.contains("1 passed") {
        let (said, complained) = (said.trim_end(), String::from_utf8_lossy(&ran.stderr));
        row.problems.push(format!("{}: {said}\n{complained}", ran.status));
    }
    Ok(row)
}
