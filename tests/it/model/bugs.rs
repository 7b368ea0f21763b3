//! The proof can fail: each deliberate bug of `src/bugs.rs` is found by some seed, and the same seed without it keeps the
//! laws. `docs/testing.md` has this table too; a test holds them together.

use tallymark::bugs::Bug;

use super::explore::{SEEDS, first_failing, outcome, variable};

/// The lowest seed that finds each bug: `tests/model --bugs` prints this.
const FOUND: &[(Bug, u64)] = &[
    (Bug::CheckpointBeforeFlush, 106),
    (Bug::StampFromWallClock, 0),
    (Bug::FoldByBatch, 0),
    (Bug::BaseNotRewritten, 56),
    (Bug::BaseAtOne, 2),
    (Bug::DedupByFirstSeen, 57),
    (Bug::WindowOneShort, 2),
    (Bug::OverflowPerDelta, 3),
    (Bug::TouchedEvicted, 156),
    (Bug::NetZeroNotRewritten, 0),
    (Bug::PendingNotBySeq, 1),
    (Bug::LoadWithoutToken, 2),
    (Bug::ResumeAfterCheckpoint, 10),
    (Bug::CommitBeforeDrain, 2),
    (Bug::ClaimsUnchecked, 33),
    (Bug::RestartsUnseen, 11),
    (Bug::PackNotNoted, 0),
    (Bug::LetterNotAwaited, 17),
    (Bug::ReplayCountsAgain, 23),
    (Bug::GapAgesWindow, 60),
];

#[test]
fn every_deliberate_bug_is_found_again_by_its_seed_which_is_clean_without_it() {
    let named: Vec<Bug> = FOUND.iter().map(|(bug, _)| *bug).collect();
    assert_eq!(named, Bug::ALL, "each bug has its seed");
    let docs = include_str!("../../../docs/testing.md");
    for (bug, seed) in FOUND {
        assert!(docs.contains(&format!("| `{bug:?}` | {seed} |")), "docs/testing.md names {bug:?} with seed {seed}");
        assert!(outcome(*seed, false, Some(*bug)).violation.is_some(), "seed {seed} does not find {bug:?}");
        assert_eq!(outcome(*seed, false, None).violation, None, "seed {seed} without {bug:?}");
    }
}

#[test]
fn every_deliberate_bug_is_found_by_some_seed() {
    let count = variable("SEEDS").unwrap_or(SEEDS);
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match first_failing(0, count, |seed| outcome(seed, false, Some(*bug)).violation) {
            Some((seed, what)) => {
                println!("    (Bug::{bug:?}, {seed}), // {}", what.chars().take(110).collect::<String>())
            }
            None => missed.push(*bug),
        }
    }
    assert_eq!(missed, [], "not found within {count} seeds");
}
