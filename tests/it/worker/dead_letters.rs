//! Records that no lane can apply: the lane goes on behind them, and nothing of them is lost, whatever fails in between.

use std::sync::Arc;

use tallymark::{
    item::{Coordinates, PackId, Seq, TopicId},
    log::{Class, DeadLetter, Log as _},
    pack::FORMAT,
    store::Letters as _,
    worker::{board::State, poison},
};

use super::{
    fixture::{NEVER, World, sums},
    packs::{pack, series_of},
    store::{ALL, Fault, Op},
};
use crate::support::{MemoryLog, until};

const SERIES: &str = "visits k=a";
const GARBAGE: &[u8] = &[0xff; 40];

async fn world() -> (World, Arc<MemoryLog>) {
    let log = MemoryLog::new(1);
    (World::over(log.clone()).await, log)
}

impl World {
    async fn append_garbage(&self, partition: u32) -> Seq {
        self.log.append(partition, FORMAT, GARBAGE.into()).await.unwrap().seq.unwrap()
    }

    /// A good pack, a record that cannot be read, and a good pack.
    async fn append_around_garbage(&self) {
        self.append(0, pack().add(SERIES, 1)).await;
        self.append_garbage(0).await;
        self.append(0, pack().add(SERIES, 10)).await;
    }

    /// The lane's dead letters as the store knows them, and the packs that have replayed them.
    async fn letters(&self) -> Vec<(u64, Option<u64>)> {
        let lane = self.lane(0);
        let topic = &self.log.topology().topic;
        let rows = self.store.memory().letters(topic, lane, Seq(0), Seq(u64::MAX), 100).await.unwrap();
        rows.iter().map(|row| (row.seq.0, row.replayed.map(|by| by.seq.0))).collect()
    }
}

fn places(letters: &[DeadLetter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.at.seq.0).collect()
}

#[tokio::test]
async fn a_record_that_cannot_be_read_becomes_a_dead_letter_and_its_lane_goes_on() {
    let (world, log) = world().await;
    let running = world.start();
    world.append_around_garbage().await;
    running.stored(0, 3).await;
    assert_eq!(running.lane(0).state, State::Running);
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 11)]));
    let letters = log.letters.all();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.at, Coordinates { lane: world.lane(0), seq: Seq(1) });
    assert_eq!((&letter.payload[..], letter.format, letter.class), (GARBAGE, FORMAT, Class::Malformed));
    assert!(letter.reason.contains("not a pack") && letter.append_ms > 0, "{letter:?}");
    assert_eq!(world.letters().await, [(1, None)]);
}

#[tokio::test]
async fn every_kind_of_poison_goes_with_its_reason_and_the_other_lanes_do_not_mind() {
    let log = MemoryLog::new(2);
    let world = World::over(log.clone()).await;
    let (here, there) = (&series_of(0, 2, 1)[0], &series_of(1, 2, 1)[0]);
    for _ in 0..2 {
        world.append(0, pack().add(here, 1)).await;
    }
    world.append(0, pack().add(there, 1)).await;
    world.append_garbage(0).await;
    log.garble(0, Seq(1), |record| record.damage = Some("its checksum does not match".to_owned()));
    world.append(0, pack().add(here, 1)).await;
    world.append(1, pack().add(there, 1)).await;
    let running = world.start();
    running.stored(0, 5).await;
    running.stored(1, 1).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(here.as_str(), 2), (there.as_str(), 1)]));
    let found: Vec<_> = log.letters.all().into_iter().map(|letter| (letter.at.seq.0, letter.class)).collect();
    assert_eq!(found, [(1, Class::Damaged), (2, Class::Misplaced), (3, Class::Malformed)]);
}

#[tokio::test]
async fn a_checkpoint_at_a_dead_letter_names_it_and_a_restart_goes_on_behind_it_without_writing_it_again() {
    let (world, log) = world().await;
    let running = world.start();
    world.append(0, pack().once(SERIES, 1, "id")).await;
    world.append_garbage(0).await;
    running.checkpointed(0, 2).await;
    running.stop().await;
    let known = world.store.known(&world.log.topology().topic).await;
    assert_eq!(known[0].checkpoint.as_ref().unwrap().pack, poison::name(GARBAGE));

    let running = world.start();
    world.append(0, pack().once(SERIES, 1, "id").add(SERIES, 10)).await;
    running.stored(0, 3).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 11)]), "the window was rebuilt past it");
    assert_eq!(places(&log.letters.all()), [1]);
}

#[tokio::test]
async fn other_bytes_where_the_checkpoint_names_a_dead_letter_halt_the_lane() {
    let (world, log) = world().await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    world.append_garbage(0).await;
    running.checkpointed(0, 2).await;
    running.stop().await;
    log.garble(0, Seq(1), |record| record.payload = vec![0xfe; 40].into());
    let running = world.start();
    let reason = running.halted(0).await;
    assert!(reason.contains("the record at 1 is"), "{reason}");
    running.stop().await;
}

#[tokio::test]
async fn a_crash_before_the_checkpoint_passes_it_writes_it_again_under_the_same_coordinates() {
    let (mut world, log) = world().await;
    world.options.checkpoint_delay = NEVER;
    for life in 1..4 {
        let running = world.start();
        if life == 1 {
            world.append_around_garbage().await;
        }
        running.stored(0, 3).await;
        until("it is buried", || log.letters.all().len() == life).await;
        running.applied(0, 3).await;
        running.crash().await;
        assert_eq!(world.totals().await, sums([(SERIES, 11)]));
    }
    let letters = log.letters.all();
    assert!(letters.iter().all(|letter| *letter == letters[0]), "{letters:?}");
    assert_eq!(world.letters().await, [(1, None)]);
}

#[tokio::test]
async fn while_the_dead_letter_log_is_away_the_lane_waits_stores_what_came_before_and_skips_nothing() {
    let (world, log) = world().await;
    log.letters.set_away(true);
    let running = world.start();
    world.append_around_garbage().await;
    until("the lane is paused", || running.lane(0).state == State::Paused).await;
    let reason = running.lane(0).reason.unwrap();
    assert!(reason.contains("record 1 is a dead letter") && reason.contains("told to be away"), "{reason}");
    running.checkpointed(0, 1).await;
    let tries = log.letters.refused();
    until("it is tried again and again", || log.letters.refused() > tries + 5).await;
    // Ingest goes on.
    world.append(0, pack().add(SERIES, 100)).await;
    let lane = running.lane(0);
    assert_eq!((lane.next, lane.stored, lane.checkpoint, lane.state), (Seq(1), Seq(1), Seq(1), State::Paused));
    assert_eq!(world.totals().await, sums([(SERIES, 1)]));

    log.letters.set_away(false);
    running.stored(0, 4).await;
    assert_eq!(running.lane(0).state, State::Running);
    running.checkpointed(0, 4).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 111)]));
    assert_eq!(places(&log.letters.all()), [1]);
}

#[tokio::test]
async fn a_lane_that_waits_for_the_dead_letter_log_can_be_stopped_and_its_next_owner_buries() {
    let (world, log) = world().await;
    log.letters.set_away(true);
    let running = world.start();
    world.append_around_garbage().await;
    until("the lane is paused", || running.lane(0).state == State::Paused).await;
    running.stop().await;
    assert_eq!(world.store.known(&world.log.topology().topic).await[0].stored, Some(Seq(0)));
    log.letters.set_away(false);
    let running = world.start();
    running.stored(0, 3).await;
    running.stop().await;
    assert_eq!(places(&log.letters.all()), [1]);
    assert_eq!(world.totals().await, sums([(SERIES, 11)]));
}

#[tokio::test]
async fn a_lost_answer_of_the_dead_letter_log_or_of_the_store_buries_again() {
    let (world, log) = world().await;
    log.letters.lose_answers(2);
    world.store.fail(Fault::AnswerLost, 2, |op, _| op == Op::Letter);
    let running = world.start();
    world.append_around_garbage().await;
    running.stored(0, 3).await;
    running.stop().await;
    assert_eq!(places(&log.letters.all()), [1, 1, 1]);
    assert_eq!(world.letters().await, [(1, None)]);
    assert_eq!(world.totals().await, sums([(SERIES, 11)]));
}

#[tokio::test]
async fn the_store_away_at_a_dead_letter_makes_the_lane_wait_and_nothing_is_buried_before_the_verdict() {
    let (world, log) = world().await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    running.stored(0, 1).await;
    world.store.fail_all(Fault::Away, ALL);
    world.append_garbage(0).await;
    world.append(0, pack().add(SERIES, 10)).await;
    until("the verdict is tried", || world.store.failed(Op::Letter) > 3).await;
    assert_eq!((running.lane(0).next, running.lane(0).state), (Seq(1), State::Paused));
    assert_eq!(log.letters.all(), []);
    world.store.recover();
    running.stored(0, 3).await;
    running.stop().await;
    assert_eq!(places(&log.letters.all()), [1]);
    assert_eq!(world.totals().await, sums([(SERIES, 11)]));
}

#[tokio::test]
async fn whatever_is_claimed_of_a_dead_letter_may_be_true_in_this_life_of_the_worker_and_the_next() {
    let (world, _) = world().await;
    let topic = world.lane(0).topic_id;
    let claim = || pack().add(SERIES, 1).claims(topic, 0, PackId([9; 16]));
    let running = world.start();
    world.append_garbage(0).await;
    world.append(0, claim()).await;
    running.checkpointed(0, 2).await;
    running.stop().await;
    let running = world.start();
    world.append(0, claim()).await;
    running.stored(0, 3).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 2)]));
}

#[tokio::test]
async fn a_record_whose_bytes_are_whole_again_stays_a_dead_letter() {
    let (mut world, log) = world().await;
    world.options.checkpoint_delay = NEVER;
    for amount in [1, 10, 100] {
        world.append(0, pack().add(SERIES, amount)).await;
    }
    log.garble(0, Seq(1), |record| record.damage = Some("its block on disk is damaged".to_owned()));
    let running = world.start();
    running.stored(0, 3).await;
    running.crash().await;
    log.garble(0, Seq(1), |record| record.damage = None);
    world.options.checkpoint_delay = tallymark::units::Span::from_millis(0);
    let running = world.start();
    running.checkpointed(0, 3).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 101)]));
    let classes: Vec<_> = log.letters.all().iter().map(|letter| letter.class).collect();
    assert_eq!(classes, [Class::Damaged, Class::Before], "whoever reads takes the first");

    // And below the checkpoint, where the window is rebuilt.
    let running = world.start();
    world.append(0, pack().add(SERIES, 1000)).await;
    running.stored(0, 4).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 1101)]));
}

#[tokio::test]
async fn a_newer_format_halts_and_is_never_a_dead_letter() {
    let (world, log) = world().await;
    let running = world.start();
    world.log.append(0, FORMAT + 1, GARBAGE.into()).await.unwrap();
    running.halted(0).await;
    running.stop().await;
    assert_eq!(log.letters.all(), []);
    assert_eq!(world.letters().await, []);
}

#[tokio::test]
async fn a_storm_of_them_is_buried_whole_and_the_lane_reaches_its_end() {
    let (world, log) = world().await;
    for _ in 0..300 {
        world.append_garbage(0).await;
    }
    world.append(0, pack().add(SERIES, 1)).await;
    let running = world.start();
    running.checkpointed(0, 301).await;
    running.stop().await;
    assert_eq!(places(&log.letters.all()), (0..300).collect::<Vec<_>>());
    assert_eq!(world.totals().await, sums([(SERIES, 1)]));
}

mod replays {
    use super::*;

    impl World {
        fn at(&self, seq: u64) -> Coordinates {
            Coordinates { lane: self.lane(0), seq: Seq(seq) }
        }
    }

    #[tokio::test]
    async fn a_replay_counts_once_however_often_it_is_appended_and_however_late() {
        let (world, _) = world().await;
        let replay = || pack().add(SERIES, 5).replays(world.at(0));
        let running = world.start();
        world.append_garbage(0).await;
        world.append(0, replay()).await;
        world.append(0, replay()).await;
        running.checkpointed(0, 3).await;
        world.append(0, replay()).await;
        running.checkpointed(0, 4).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 5)]));
        assert_eq!(world.letters().await, [(0, Some(1))]);

        // The window knows none of them: it is what the store keeps that counts.
        let running = world.start();
        world.append(0, replay()).await;
        world.append(0, pack().add(SERIES, 1)).await;
        running.stored(0, 6).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 6)]));
        assert_eq!(world.letters().await, [(0, Some(1))]);
    }

    #[tokio::test]
    async fn a_crash_at_any_time_applies_the_same_replay_again_and_no_later_one() {
        let (mut world, _) = world().await;
        world.options.checkpoint_delay = NEVER;
        world.append_garbage(0).await;
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        for life in 0..3 {
            let running = world.start();
            world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
            running.stored(0, 4 + life).await;
            running.crash().await;
            assert_eq!(world.totals().await, sums([(SERIES, 5)]));
            assert_eq!(world.letters().await, [(0, Some(1))]);
        }
    }

    #[tokio::test]
    async fn a_crash_between_its_rows_and_its_mark_neither_loses_nor_doubles_it() {
        // Which of the two writes of a flush arrives before the crash.
        for away in [Op::Replayed, Op::Rows] {
            let (world, _) = world().await;
            world.append_garbage(0).await;
            world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
            world.store.fail(Fault::Away, usize::MAX, move |op, _| op == away);
            let running = world.start();
            until("the flush is half done", || {
                let other = if away == Op::Rows { Op::Replayed } else { Op::Rows };
                world.store.failed(away) > 0 && !world.store.done(other).is_empty()
            })
            .await;
            running.crash().await;
            world.store.recover();
            world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
            let running = world.start();
            running.checkpointed(0, 3).await;
            running.stop().await;
            assert_eq!(world.totals().await, sums([(SERIES, 5)]), "{away:?}");
            assert_eq!(world.letters().await, [(0, Some(1))], "{away:?}");
        }
    }

    #[tokio::test]
    async fn the_checkpoint_does_not_pass_a_replay_that_the_store_does_not_know() {
        let (world, _) = world().await;
        let running = world.start();
        world.append_garbage(0).await;
        running.checkpointed(0, 1).await;
        world.store.fail(Fault::Away, usize::MAX, |op, _| op == Op::Replayed);
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        until("it is tried again and again", || world.store.failed(Op::Replayed) > 5).await;
        assert_eq!((running.lane(0).stored, running.lane(0).checkpoint), (Seq(1), Seq(1)));
        world.store.recover();
        running.checkpointed(0, 2).await;
        running.stop().await;
    }

    #[tokio::test]
    async fn items_of_a_replay_are_held_against_the_window_like_any_others() {
        let (world, _) = world().await;
        let running = world.start();
        world.append(0, pack().once(SERIES, 1, "seen")).await;
        world.append_garbage(0).await;
        world.append(0, pack().once(SERIES, 1, "seen").once(SERIES, 10, "new").replays(world.at(1))).await;
        // The second replay is dropped, and what it carries is still noted.
        world.append(0, pack().once(SERIES, 100, "late").replays(world.at(1))).await;
        world.append(0, pack().once(SERIES, 100, "late").once(SERIES, 10, "new")).await;
        running.stored(0, 5).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 11)]));
    }

    #[tokio::test]
    async fn a_dead_letter_of_a_former_life_of_the_topic_is_replayed_once_too() {
        let (world, _) = world().await;
        let former =
            Coordinates { lane: tallymark::item::Lane { topic_id: TopicId([1; 16]), partition: 0 }, seq: Seq(900) };
        let topic = world.log.topology().topic.clone();
        let known = async || world.store.memory().letters(&topic, former.lane, Seq(0), Seq(u64::MAX), 9).await.unwrap();
        let running = world.start();
        world.append(0, pack().add(SERIES, 5).replays(former)).await;
        running.checkpointed(0, 1).await;
        running.stop().await;
        let by = known().await[0].replayed.unwrap();
        assert_eq!((by.topic_id, by.seq), (world.lane(0).topic_id, Seq(0)));
        let running = world.start();
        world.append(0, pack().add(SERIES, 5).replays(former)).await;
        running.stored(0, 2).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 5)]));
        assert_eq!(known().await[0].replayed, Some(by));
    }

    #[tokio::test]
    async fn one_that_an_earlier_life_of_the_topic_has_applied_is_not_applied_again() {
        let (world, _) = world().await;
        let lane = tallymark::item::Lane { topic_id: TopicId([1; 16]), partition: 0 };
        let former = Coordinates { lane, seq: Seq(900) };
        // Its clock was ahead of ours.
        let by = tallymark::store::Replayed {
            topic_id: lane.topic_id,
            seq: Seq(950),
            stamp: tallymark::item::Stamp(i64::MAX / 2),
        };
        world.store.memory().write_replayed(&world.log.topology().topic, former, by).await.unwrap();
        let running = world.start();
        world.append(0, pack().add(SERIES, 5).replays(former)).await;
        world.append(0, pack().add(SERIES, 1)).await;
        running.stored(0, 2).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 1)]));
    }

    #[tokio::test]
    async fn a_replay_that_is_damaged_itself_is_a_dead_letter_and_what_both_carry_counts_once() {
        let (world, log) = world().await;
        world.append_garbage(0).await;
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        log.garble(0, Seq(1), |record| record.damage = Some("damaged".to_owned()));
        // The replay of the replay says what that one replayed.
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        let running = world.start();
        running.stored(0, 4).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 5)]));
        assert_eq!(world.letters().await, [(0, Some(2)), (1, None)]);
    }

    #[tokio::test]
    async fn a_replay_of_what_cannot_have_stood_in_the_lane_is_a_dead_letter() {
        let (world, log) = world().await;
        let running = world.start();
        world.append(0, pack().add(SERIES, 5).replays(world.at(7))).await;
        let mut elsewhere = world.at(0);
        elsewhere.lane.partition = 3;
        world.append(0, pack().add(SERIES, 5).replays(elsewhere)).await;
        running.stored(0, 2).await;
        running.stop().await;
        assert!(log.letters.all().iter().all(|letter| letter.class == Class::Replay));
        assert_eq!(places(&log.letters.all()), [0, 1]);
        assert!(world.totals().await.is_empty());
    }

    #[tokio::test]
    async fn what_the_store_forgets_of_a_replay_is_written_again() {
        let (mut world, _) = world().await;
        world.options.checkpoint_delay = tallymark::units::Span::from_secs(3600);
        let memory = world.store.memory();
        memory.set_server("a", Some(tallymark::store::Generation(1)));
        let before = memory.rows();
        let running = world.start();
        world.append_garbage(0).await;
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        running.stored(0, 2).await;
        memory.forget_since(before);
        memory.set_server("a", Some(tallymark::store::Generation(2)));
        running.crash().await;
        let running = world.start();
        world.append(0, pack().add(SERIES, 5).replays(world.at(0))).await;
        running.stored(0, 3).await;
        running.stop().await;
        assert_eq!(world.totals().await, sums([(SERIES, 5)]));
        assert_eq!(world.letters().await, [(0, Some(1))]);
    }
}
