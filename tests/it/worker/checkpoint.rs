//! The checkpoint: when it moves, what it says, and what a second service makes of it.

use std::{sync::Arc, time::Duration};

use tallymark::{
    item::{Seq, Stamp},
    store::Events as _,
    units::Span,
};

use super::{
    fixture::{NEVER, World, embedded, epoch, sums},
    log::Scripted,
    packs::{SHARDS, pack, series_of, shard},
    store::Op,
};
use crate::support::until;

#[tokio::test]
async fn the_checkpoint_trails_what_is_stored_by_its_delay_and_names_the_pack_and_the_window() {
    let mut world = World::new(1).await;
    world.options.checkpoint_delay = Span::from_millis(300);
    let running = world.start();
    let last = pack().add("visits k=a", 1);
    world.append(0, pack().add("visits k=a", 1)).await;
    world.append(0, last.clone()).await;
    running.checkpointed(0, 2).await;
    let checkpoint = world.store.known("test.packs").await.remove(0).checkpoint.unwrap();
    assert_eq!((checkpoint.lane, checkpoint.seq, checkpoint.pack), (world.lane(0), Seq(1), last.id()));
    assert_eq!(checkpoint.stamp, world.rows().await["visits k=a"].stamp);
    assert_eq!((checkpoint.dedup_from, checkpoint.dedup_stamp, checkpoint.unmet_base), (Seq(0), Stamp(0), None));
    running.stop().await;
    let stored = world.store.done(Op::Stored).pop().unwrap().at;
    let written = world.store.done(Op::Checkpoint).pop().unwrap().at;
    // Counted in whole milliseconds.
    assert!(written - stored >= Duration::from_millis(298), "{:?}", written - stored);
}

#[tokio::test]
async fn the_log_is_told_the_checkpoint_and_what_the_window_still_needs() {
    let world = World::new(1).await;
    // Two notes a pack, the pack's own and its item's: the last two packs are remembered.
    let small = tallymark::store::EpochRow { dedup_max_ids: 4, ..epoch(world.lane(0).topic_id, 1, SHARDS) };
    let world = World { store: Arc::default(), ..world };
    world.begin(&small).await;
    let running = world.start();
    let mut stamp = Stamp(0);
    for n in 0..5 {
        world.append(0, pack().once("visits k=a", 1, &n.to_string())).await;
        running.checkpointed(0, n + 1).await;
        if n == 2 {
            stamp = world.rows().await["visits k=a"].stamp;
        }
    }
    running.stop().await;
    assert_eq!(world.log.progress_told().last(), Some(&(0, Seq(4), Seq(3))));
    let checkpoint = world.store.known("test.packs").await.remove(0).checkpoint.unwrap();
    assert_eq!((checkpoint.dedup_from, checkpoint.dedup_stamp), (Seq(3), stamp), "the stamp before the window");

    // Rebuilt from there, it knows the last two and no other.
    let running = world.start();
    let again = (1..5).fold(pack(), |draft, n| draft.once("visits k=a", 10, &n.to_string()));
    world.append(0, again).await;
    running.stored(0, 6).await;
    running.stop().await;
    // The pack itself takes one place: of 3 and 4 the window holds both ids until 1 and 2 are noted, which drive them out.
    let expected = {
        let mut window: Vec<String> = ["p3", "3", "p4", "4"].map(str::to_owned).to_vec();
        let mut note = |id: &str| {
            let seen = window.iter().any(|noted| noted == id);
            window.push(id.to_owned());
            window.remove(0);
            seen
        };
        note("p5");
        5 + (1..5).filter(|n| !note(&n.to_string())).count() as i128 * 10
    };
    assert_eq!(world.totals().await, sums([("visits k=a", expected)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_service_resumes_from_the_checkpoint_and_drops_what_the_first_has_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut world = World::over(embedded(&path)).await;
    let running = world.start();
    for n in 0..4 {
        let draft = pack().once("visits k=a", 1, &n.to_string()).add("visits k=b", 1);
        world.append(0, draft.event("signup", "", &n.to_string(), 5)).await;
    }
    running.checkpointed(0, 4).await;
    running.stop().await;

    // From here on the checkpoint stays behind.
    world.options.checkpoint_delay = NEVER;
    let running = world.start();
    for n in 4..8 {
        world.append(0, pack().once("visits k=a", 1, &n.to_string())).await;
    }
    running.stored(0, 8).await;
    running.stop().await;
    let before = world.rows().await;
    assert_eq!(world.store.known("test.packs").await[0].checkpoint.as_ref().map(|mark| mark.seq), Some(Seq(3)));

    // A third one, on the log as it is on the disk.
    let World { log, .. } = world;
    drop(log);
    let log = Arc::new(Scripted::over(embedded(&path)));
    let world = World { log, ..world };
    let running = world.start();
    running.applied(0, 8).await;
    assert_eq!(running.lane(0).items, 4, "it replays what is past the checkpoint");
    running.stop().await;
    assert_eq!(world.rows().await, before, "with the same totals, seqs and stamps");

    let running = world.start();
    let again = (0..10).fold(pack(), |draft, n| draft.once("visits k=a", 1, &n.to_string()));
    world.append(0, again.event("signup", "", "2", 5).event("signup", "", "new", 5)).await;
    running.stored(0, 9).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([("visits k=a", 10), ("visits k=b", 4)]), "8 and 9 are new");
    let by = tallymark::store::EventsBy::Name("signup".into());
    let namespace = Default::default();
    let page = tallymark::store::EventsPage { namespace, by, from_ms: 0, to_ms: i64::MAX, before: None, limit: 100 };
    assert_eq!(world.store.events(&page).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_flush_is_made_whole_by_replay() {
    let mut world = World::new(1).await;
    world.options.checkpoint_delay = NEVER;
    let series = series_of(0, 1, 40);
    let halves = series.iter().map(|series| (series, shard(series).0 < 2)).collect::<Vec<_>>();
    let running = world.start();
    // Half of the shards take their rows, the others do not, and then the process is gone.
    world.store.fail(super::store::Fault::Away, usize::MAX, |op, key| {
        op == Op::Rows && key.is_some_and(|key| key.shard.0 >= 2)
    });
    for (series, _) in &halves {
        world.append(0, pack().once(series, 1, "id").add(series, 1)).await;
    }
    until("half of it is written", || world.store.done(Op::Rows).len() >= 2).await;
    running.crash().await;
    world.store.recover();
    let running = world.start();
    for series in &series {
        world.append(0, pack().once(series, 1, "id")).await;
    }
    running.stored(0, 80).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums(series.iter().map(|series| (series.as_str(), 2))));
}
