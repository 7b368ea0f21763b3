//! What a running lane halts for: it stores what came before, shows the reason, and the other lanes go on.

use tallymark::{
    item::{PackId, Seq, TopicId},
    log::Log as _,
    pack::FORMAT,
    worker::board::State,
};

use super::{
    fixture::{World, epoch, sums},
    packs::{SHARDS, pack, series_of},
};

const SERIES: &str = "visits k=a";

#[tokio::test]
async fn a_halted_lane_has_stored_what_came_before_the_others_go_on_and_a_restart_halts_again() {
    let world = World::new(2).await;
    let (here, there) = (&series_of(0, 2, 1)[0], &series_of(1, 2, 1)[0]);
    let running = world.start();
    world.append(0, pack().add(here, 1)).await;
    world.log.append(0, FORMAT + 1, pack().encode()).await.unwrap();
    world.append(0, pack().add(here, 1)).await;
    running.halted(0).await;
    assert_eq!((running.lane(0).next, running.lane(0).stored), (Seq(1), Seq(1)));
    world.append(1, pack().add(there, 1)).await;
    running.stored(1, 1).await;
    assert_eq!(running.lane(1).state, State::Running);
    running.stop().await;
    assert_eq!(world.totals().await, sums([(here.as_str(), 1), (there.as_str(), 1)]));

    let running = world.start();
    running.halted(0).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(here.as_str(), 1), (there.as_str(), 1)]));
}

#[tokio::test]
async fn a_newer_format_halts_the_lane_until_its_worker_is_upgraded() {
    let world = World::new(1).await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    world.log.append(0, FORMAT + 1, pack().add(SERIES, 1).encode()).await.unwrap();
    let reason = running.halted(0).await;
    assert!(reason.contains("pack 1: format version 2 is newer than this program"), "{reason}");
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 1)]));
}

#[tokio::test]
async fn counts_that_no_epoch_has_halt_the_lane_and_once_it_is_begun_a_restart_goes_on() {
    let world = World::new(1).await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    world.append(0, pack().add(SERIES, 10).counts(1, 2 * SHARDS)).await;
    let reason = running.halted(0).await;
    assert!(reason.contains("pack 1 was routed for 1 partitions and 8 shards") && reason.contains("begin"), "{reason}");
    running.stop().await;

    let begun = epoch(world.lane(0).topic_id, 1, 2 * SHARDS);
    world.begin(&begun).await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 2)).await;
    running.stored(0, 3).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 3)]), "packs of both layouts may interleave");
    assert_eq!(world.rows_of(begun.epoch, 2 * SHARDS).await[SERIES].total, 10);
}

#[tokio::test]
async fn an_epoch_that_is_begun_before_its_first_pack_needs_no_restart_and_the_window_runs_on() {
    let world = World::new(1).await;
    let running = world.start();
    world.append(0, pack().once(SERIES, 1, "id")).await;
    running.stored(0, 1).await;
    let begun = epoch(world.lane(0).topic_id, 1, 2 * SHARDS);
    world.begin(&begun).await;
    world.append(0, pack().once(SERIES, 10, "id").once(SERIES, 5, "other").counts(1, 2 * SHARDS)).await;
    running.stored(0, 2).await;
    running.stop().await;
    assert_eq!(world.rows_of(begun.epoch, 2 * SHARDS).await[SERIES].total, 5, "what the old layout saw is a duplicate");
}

#[tokio::test]
async fn a_claim_that_the_log_contradicts_halts_the_lane_and_one_that_holds_does_not() {
    let world = World::new(1).await;
    let topic = world.lane(0).topic_id;
    let running = world.start();
    let first = pack().add(SERIES, 1);
    world.append(0, first.clone()).await;
    world.append(0, pack().add(SERIES, 1).claims(topic, 0, first.id())).await;
    let elsewhere = pack().add(SERIES, 1).claims(TopicId([1; 16]), 0, PackId([1; 16]));
    world.append(0, elsewhere).await;
    running.stored(0, 3).await;
    let lost = PackId([1; 16]);
    world.append(0, pack().add(SERIES, 1).claims(topic, 1, lost)).await;
    let reason = running.halted(0).await;
    assert!(reason.contains(&format!("pack 3 says that {lost:?} was acknowledged at 1")), "{reason}");
    assert!(reason.contains("the log has lost an acknowledged pack"), "{reason}");
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 3)]));
}

#[tokio::test]
async fn a_claim_is_held_against_packs_from_before_the_restart_too() {
    let world = World::new(1).await;
    let topic = world.lane(0).topic_id;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    running.checkpointed(0, 1).await;
    running.stop().await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1).claims(topic, 0, PackId([1; 16]))).await;
    let reason = running.halted(0).await;
    assert!(reason.contains("was acknowledged at 0"), "{reason}");
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 1)]));
}
