//! Taking a lane over: each way in which the log can differ from what the store knows halts the lane, with its reason.

use std::sync::Arc;

use tallymark::{
    item::{Epoch, PackId, Seq, Stamp, TopicId},
    log::Log,
    store::{Ledger as _, RowName, TotalRow},
    units::Span,
};

use super::{
    fixture::{NEVER, World, epoch, sums},
    log::Scripted,
    packs::{Draft, SHARDS, pack, shard},
    store::Op,
};
use crate::support::MemoryLog;

const SERIES: &str = "visits k=a";

/// A world whose lane has these packs behind its checkpoint, and has ended.
async fn world_after(drafts: &[Draft]) -> World {
    let world = World::new(1).await;
    let running = world.start();
    for draft in drafts {
        world.append(0, draft.clone()).await;
    }
    running.checkpointed(0, drafts.len() as u64).await;
    running.stop().await;
    world
}

/// The same store beside a log of these packs.
async fn beside(world: World, drafts: &[Draft]) -> World {
    let world = World { log: Arc::new(Scripted::over(MemoryLog::new(1))), ..world };
    for draft in drafts {
        world.append(0, draft.clone()).await;
    }
    world
}

/// Starts it, waits for the halt and checks that nothing was written.
async fn halts(world: &World) -> String {
    let before = world.rows().await;
    let running = world.start();
    let reason = running.halted(0).await;
    running.stop().await;
    assert_eq!(world.rows().await, before, "a halted lane changes nothing");
    reason
}

fn three() -> Vec<Draft> {
    (0..3).map(|n| pack().once(SERIES, 1, &n.to_string())).collect()
}

#[tokio::test]
async fn a_log_that_starts_past_the_checkpoint_halts_the_lane() {
    let world = world_after(&three()).await;
    world.log.set_bounds(5, 8);
    let reason = halts(&world).await;
    assert!(reason.contains("the log starts at 5, the lane goes on at 3: 2 packs are gone"), "{reason}");
}

#[tokio::test]
async fn a_log_that_does_not_start_at_0_halts_a_lane_without_a_checkpoint() {
    let world = World::new(1).await;
    world.log.set_bounds(1, 1);
    let reason = halts(&world).await;
    assert!(reason.contains("the log starts at 1, the lane goes on at 0"), "{reason}");
}

#[tokio::test]
async fn a_log_that_ends_below_the_checkpoint_halts_the_lane() {
    let drafts = three();
    let world = beside(world_after(&drafts).await, &drafts[..1]).await;
    let reason = halts(&world).await;
    assert!(reason.contains("the log ends at 1, but 2 is stored already: the log was cut"), "{reason}");
}

#[tokio::test]
async fn a_log_that_ends_below_what_is_stored_halts_the_lane_though_its_checkpoint_is_there() {
    let drafts = three();
    let mut world = world_after(&drafts[..1]).await;
    world.options.checkpoint_delay = NEVER;
    let running = world.start();
    for draft in &drafts[1..] {
        world.append(0, draft.clone()).await;
    }
    running.stored(0, 3).await;
    running.stop().await;
    let reason = halts(&beside(world, &drafts[..2]).await).await;
    assert!(reason.contains("the log ends at 2, but 2 is stored already"), "{reason}");
}

#[tokio::test]
async fn another_pack_at_the_checkpoint_halts_the_lane() {
    let mut drafts = three();
    let world = world_after(&drafts).await;
    let named = drafts[2].id();
    // It was cut by one, and grew again.
    drafts[2] = pack().add(SERIES, 1);
    drafts.push(pack().add(SERIES, 1));
    let found = drafts[2].id();
    let reason = halts(&beside(world, &drafts).await).await;
    assert!(reason.contains(&format!("the record at 2 is {found:?}, the checkpoint names {named:?}")), "{reason}");
}

#[tokio::test]
async fn a_log_that_retention_has_emptied_is_no_loss() {
    let world = world_after(&three()).await;
    world.log.set_bounds(3, 3);
    let running = world.start();
    running.applied(0, 3).await;
    // The window is gone with the log, as it says: an id of before counts anew.
    world.append(0, pack().once(SERIES, 1, "0")).await;
    running.stored(0, 4).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 4)]));
}

#[tokio::test]
async fn a_recreated_topic_halts_the_lane_until_its_epoch_is_begun_and_then_counts_from_zero() {
    let world = world_after(&three()).await;
    let again = TopicId([9; 16]);
    let log: Arc<dyn Log> = MemoryLog::new(1);
    let old = Epoch::of(world.lane(0).topic_id, 1, SHARDS);
    let world = World { log: Arc::new(Scripted::over(log).recreated(again)), ..world };
    world.append(0, pack().add(SERIES, 10)).await;
    let reason = halts(&world).await;
    assert!(reason.contains("the topic was recreated") && reason.contains(&again.to_string()), "{reason}");

    let begun = tallymark::store::EpochRow { created_ms: 1, ..epoch(again, 1, SHARDS) };
    world.begin(&begun).await;
    let running = world.start();
    running.stored(0, 1).await;
    running.stop().await;
    let total = |rows: std::collections::BTreeMap<String, TotalRow>| rows[SERIES].total;
    assert_eq!(total(world.rows_of(old, SHARDS).await), 3, "the old life's rows are as they were");
    assert_eq!(total(world.rows_of(begun.epoch, SHARDS).await), 10);
}

/// A row that a lane of a longer log has written.
async fn plant(world: &World, seq: u64, stamp: i64) {
    let name = RowName { counter: "visits".into(), tags: "k=a".into() };
    let row = TotalRow { name, total: 100, seq: Seq(seq), stamp: Stamp(stamp) };
    world.store.plant(&world.shard_key(shard(SERIES)), row).await;
}

#[tokio::test]
async fn a_row_of_a_pack_that_the_log_does_not_have_halts_the_lane() {
    let world = World::new(1).await;
    plant(&world, 7, i64::MAX).await;
    for draft in three() {
        world.append(0, draft).await;
    }
    let reason = halts(&world).await;
    assert!(reason.contains("the log ends at 3, but 7 is stored already"), "{reason}");
}

#[tokio::test]
async fn a_row_with_another_stamp_than_the_log_computes_halts_the_lane() {
    let world = World::new(1).await;
    plant(&world, 2, i64::MAX).await;
    for draft in three() {
        world.append(0, draft).await;
    }
    let running = world.start();
    let reason = running.halted(0).await;
    running.stop().await;
    assert!(reason.contains("names the pack at 2 with another stamp"), "{reason}");
    assert_eq!(world.rows().await[SERIES].total, 100, "what it cannot trust it does not touch");
}

#[tokio::test]
async fn what_was_stored_is_held_against_the_log_by_its_stamp_and_stays_said() {
    let world = World::new(1).await;
    for n in 0..7 {
        world.append(0, pack().event("e", "", &n.to_string(), 1)).await;
    }
    let (topic, lane) = (world.log.topology().topic.clone(), world.lane(0));
    world.store.write_stored(&topic, lane, Seq(4), Stamp(i64::MAX)).await.unwrap();
    // No row names a lost pack: the events that were stored are not read again.
    for _ in 0..2 {
        let running = world.start();
        let reason = running.halted(0).await;
        running.stop().await;
        assert!(reason.contains("names the pack at 4 with another stamp"), "{reason}");
        let row = world.store.known(&topic).await.remove(0);
        assert_eq!(row.stored_at(), Some((Seq(4), Stamp(i64::MAX))), "a later stamp has not taken its place");
    }
}

#[tokio::test]
async fn a_claim_that_does_not_hold_below_what_was_stored_is_a_log_that_was_cut_and_not_to_be_accepted() {
    let world = World::new(1).await;
    for n in 0..7 {
        let draft = pack().add(SERIES, 1);
        let lost = (world.lane(0).topic_id, 5, PackId([7; 16]));
        world.append(0, if n == 2 { draft.claims(lost.0, lost.1, lost.2) } else { draft }).await;
    }
    let topic = world.log.topology().topic.clone();
    world.store.write_stored(&topic, world.lane(0), Seq(4), Stamp(1)).await.unwrap();
    let running = world.start();
    let reason = running.halted(0).await;
    running.stop().await;
    assert!(reason.contains("the log has been cut, and has grown again since: pack 2 says"), "{reason}");
    assert!(reason.contains("begin-epoch") && !reason.contains("accept-claim"), "{reason}");

    // The same below a checkpoint, while the window is rebuilt.
    let five: Vec<_> = (0..5).map(|_| pack().add(SERIES, 1)).collect();
    let mut other = five.clone();
    other[2] = pack().claims(world.lane(0).topic_id, 4, PackId([7; 16]));
    let world = beside(world_after(&five).await, &other).await;
    let reason = halts(&world).await;
    assert!(reason.contains("the log has been cut, and has grown again since: pack 2 says"), "{reason}");
}

#[tokio::test]
async fn a_base_that_is_ahead_is_named_by_the_checkpoint_until_the_lane_meets_it() {
    let mut drafts = three();
    // When it is replayed this one is flushed alone.
    drafts[0] = drafts[0].clone().urgent();
    let mut world = World::new(1).await;
    // All is stored, nothing is checkpointed.
    world.options.checkpoint_delay = NEVER;
    let running = world.start();
    for draft in &drafts {
        world.append(0, draft.clone()).await;
    }
    running.stored(0, 3).await;
    running.stop().await;
    // A lane that replays: after its first pack it has met a row that is ahead of it.
    world.options.checkpoint_delay = Span::from_millis(0);
    let running = world.start();
    running.checkpointed(0, 3).await;
    running.stop().await;
    let marks: Vec<_> = world.store.done(Op::Checkpoint).into_iter().filter_map(|call| call.checkpoint).collect();
    for mark in &marks {
        let ahead = Some(Seq(2)).filter(|seq| *seq > mark.seq);
        assert_eq!(mark.unmet_base, ahead, "{mark:?}");
    }
    assert_eq!(world.totals().await, sums([(SERIES, 3)]));
}
