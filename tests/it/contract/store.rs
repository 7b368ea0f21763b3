//! The store's laws, as `src/store.rs` states them, for every backend of the port.
//!
//! A law gets a [`Bed`]: a store and names that no other law or case uses, so that one store can serve them all and a
//! backend that is slow to start is started once a law. Another backend is a constructor and a line in [`backends!`].

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures_util::future::join_all;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tallymark::{
    item::{Epoch, Lane, Namespace, PackId, Seq, Shard, Stamp, TopicId},
    store::{
        Checkpoint, Counted, EpochRow, EventsBy, EventsPage, LaneRow, Options, RowName, ShardKey, Slice, Store,
        TotalRow, embedded::Embedded, memory::Memory,
    },
};

use self::events::{
    an_older_event_has_no_effect_by_name_or_by_subject, event, events_of_two_names_may_share_subject_time_and_id,
    pages_of_events_come_newest_first,
};
use self::letters::{
    a_dead_letter_stays_one_and_its_replay_outlives_every_later_word,
    dead_letters_of_a_lane_come_in_order_of_seq_and_by_range,
};
use self::remedies::{
    a_halt_is_what_was_noted_last_until_it_is_cleared, remedies_come_oldest_first_and_stay_as_they_were_recorded,
};
use crate::support_scylla;

mod events;
mod letters;
mod remedies;

/// A store, and names of its own for whoever asks.
struct Bed {
    store: Arc<dyn Store>,
    prefix: String,
    names: AtomicU32,
    _dir: Option<tempfile::TempDir>,
}

impl Bed {
    fn new(store: Arc<dyn Store>, dir: Option<tempfile::TempDir>) -> Self {
        Self { store, prefix: "n".to_owned(), names: AtomicU32::new(0), _dir: dir }
    }

    fn embedded() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::new(Arc::new(Embedded::open(dir.path(), &Options::default()).unwrap()), Some(dir))
    }

    fn memory() -> Self {
        Self::new(Arc::new(Memory::new()), None)
    }

    /// One connection and one keyspace for all laws, and for later runs: names have a random part.
    fn scylla() -> Self {
        let prefix = format!("n{:08x}-", rand::random::<u32>());
        Self { prefix, ..Self::new(support_scylla::shared(), None) }
    }

    fn fresh(&self) -> u32 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    fn namespace(&self) -> Namespace {
        Namespace::parse(&format!("{}{}", self.prefix, self.fresh())).unwrap()
    }

    fn shard(&self) -> ShardKey {
        ShardKey { namespace: self.namespace(), shard: Shard(7), epoch: Epoch([1; 8]) }
    }

    fn topic(&self) -> String {
        format!("{}topic.{}", self.prefix, self.fresh())
    }

    async fn all(&self, key: &ShardKey) -> Vec<TotalRow> {
        self.store.totals(key, &Slice { limit: usize::MAX, ..Slice::default() }).await.unwrap()
    }
}

macro_rules! backends {
    ($($law:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(&super::Bed::embedded()).await;
            })*
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(&super::Bed::memory()).await;
            })*
        }
        mod scylla {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                super::$law(&super::Bed::scylla()).await;
            })*
        }
    };
}

backends! {
    an_older_write_has_no_effect_and_a_newer_one_replaces,
    writes_in_any_order_and_number_end_in_the_newest_rows,
    writers_side_by_side_leave_the_newest_rows,
    slices_come_in_order_of_counter_and_tags_and_page_through_a_shard,
    named_rows_come_in_the_order_asked_for,
    totals_of_any_size_come_back,
    shards_epochs_and_namespaces_do_not_mix,
    pages_of_events_come_newest_first,
    an_older_event_has_no_effect_by_name_or_by_subject,
    events_of_two_names_may_share_subject_time_and_id,
    checkpoint_and_stored_move_by_their_own_stamps_and_never_back,
    lanes_of_other_topics_and_other_lives_are_their_own,
    epochs_come_oldest_first_and_stay_as_they_began,
    every_shard_that_has_rows_is_listed_once,
    a_dead_letter_stays_one_and_its_replay_outlives_every_later_word,
    dead_letters_of_a_lane_come_in_order_of_seq_and_by_range,
    nothing_asked_for_is_nothing_answered,
    a_halt_is_what_was_noted_last_until_it_is_cleared,
    remedies_come_oldest_first_and_stay_as_they_were_recorded,
    generations_stay_as_they_are_while_no_server_starts_again,
}

/// Runs a property over futures, on the runtime that the law runs on.
fn property<S: Strategy, F: Future<Output = Result<(), TestCaseError>>>(
    cases: u32,
    strategy: S,
    case: impl Fn(S::Value) -> F,
) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let run = |value| tokio::runtime::Handle::current().block_on(case(value));
    tokio::task::block_in_place(|| TestRunner::new(config).run(&strategy, run)).unwrap();
}

fn name(counter: &str, tags: &str) -> RowName {
    RowName { counter: counter.into(), tags: tags.into() }
}

fn total(name: &RowName, total: i128, stamp: i64) -> TotalRow {
    TotalRow { name: name.clone(), total, seq: Seq(stamp.unsigned_abs()), stamp: Stamp(stamp) }
}

/// S2: an equal stamp always carries the same row, so a row's content is a function of its name and stamp.
fn row_at(name: &RowName, stamp: i64) -> TotalRow {
    total(name, i128::from(stamp % 5) - 2 + name.tags.len() as i128, stamp)
}

async fn an_older_write_has_no_effect_and_a_newer_one_replaces(bed: &Bed) {
    let (key, name) = (bed.shard(), name("views", "path=/"));
    let write = async |total: TotalRow| {
        bed.store.write_totals(&key, &[total]).await.unwrap();
        bed.all(&key).await
    };
    let is = std::slice::from_ref;
    let first = total(&name, 5, 100);
    assert_eq!(write(first.clone()).await, is(&first));
    assert_eq!(write(total(&name, 1_000, 99)).await, is(&first), "older");
    assert_eq!(write(total(&name, 1_000, i64::MIN)).await, is(&first), "oldest");
    assert_eq!(write(first.clone()).await, is(&first), "equal");
    let smaller = total(&name, -3, 101);
    assert_eq!(write(smaller.clone()).await, is(&smaller), "newer, though smaller");
}

async fn writes_in_any_order_and_number_end_in_the_newest_rows(bed: &Bed) {
    let names = ["", "a=1", "a=2", "b=é"].map(|tags| name("c", tags));
    let mutation = prop::collection::btree_map(0..4usize, 1..9i64, 1..4);
    property(64, (prop::collection::vec(mutation, 1..12), any::<bool>()), |(mutations, together)| {
        let names = &names;
        async move {
            let key = bed.shard();
            let mut newest = BTreeMap::new();
            let mut writes = Vec::new();
            for mutation in &mutations {
                let rows: Vec<_> = mutation.iter().map(|(index, stamp)| row_at(&names[*index], *stamp)).collect();
                for row in &rows {
                    let entry = newest.entry(row.name.clone()).or_insert_with(|| row.clone());
                    if row.stamp > entry.stamp {
                        *entry = row.clone();
                    }
                }
                let (store, key) = (bed.store.clone(), key.clone());
                writes.push(async move { store.write_totals(&key, &rows).await.unwrap() });
            }
            if together {
                join_all(writes).await;
            } else {
                for write in writes {
                    write.await;
                }
            }
            prop_assert_eq!(bed.all(&key).await, newest.into_values().collect::<Vec<_>>());
            Ok(())
        }
    });
}

async fn writers_side_by_side_leave_the_newest_rows(bed: &Bed) {
    let key = bed.shard();
    let names: Vec<_> = (0..20).map(|index| name("c", &format!("i={index:02}"))).collect();
    let writer = |seed: i64| {
        let (store, key, names) = (bed.store.clone(), key.clone(), names.clone());
        tokio::spawn(async move {
            for round in 0..50 {
                let stamp = 1 + (round * 37 + seed * 13) % 211;
                let rows: Vec<_> = names.iter().map(|name| row_at(name, stamp)).collect();
                store.write_totals(&key, &rows).await.unwrap();
                let read = store.totals_named(&key, &names[..1]).await.unwrap();
                assert!(
                    read[0].as_ref().unwrap().stamp >= Stamp(stamp),
                    "S3: a read sees the write before it, or newer"
                );
            }
        })
    };
    for done in join_all((0..4).map(writer)).await {
        done.unwrap();
    }
    let stamps = (0..4).flat_map(|seed| (0..50).map(move |round| 1 + (round * 37 + seed * 13) % 211));
    let newest = stamps.max().unwrap();
    let expected: Vec<_> = names.iter().map(|name| row_at(name, newest)).collect();
    assert_eq!(bed.all(&key).await, expected);
}

async fn slices_come_in_order_of_counter_and_tags_and_page_through_a_shard(bed: &Bed) {
    let counter = prop::sample::select(vec!["a", "a.b", "a:", "a_", "aa", "b", "B", "_"]);
    let tags = prop::sample::select(vec!["", "a=", "a=1", "a=1,b=2", "a=2", "a=é", "a=\u{10ffff}", "a= ", "a=~"]);
    let names = prop::collection::btree_set((counter.clone(), tags.clone()), 0..20);
    let strategy = (names, prop::option::of(counter.clone()), prop::option::of((counter, tags)), 1..6usize);
    property(64, strategy, |(names, only, after, limit)| async move {
        let key = bed.shard();
        let rows: Vec<_> = names.iter().map(|(counter, tags)| row_at(&name(counter, tags), 9)).collect();
        for chunk in rows.chunks(7) {
            bed.store.write_totals(&key, chunk).await.unwrap();
        }
        let after = after.map(|(counter, tags)| name(counter, tags));
        let mut expected: Vec<_> = rows
            .iter()
            .filter(|row| only.is_none_or(|only| *row.name.counter == *only))
            .filter(|row| after.as_ref().is_none_or(|after| row.name > *after))
            .cloned()
            .collect();
        expected.sort_by(|a, b| a.name.cmp(&b.name));

        let mut slice = Slice { counter: only.map(Into::into), after, limit };
        let mut read = Vec::new();
        loop {
            let page = bed.store.totals(&key, &slice).await.unwrap();
            prop_assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            slice.after = Some(last.name.clone());
            read.extend(page);
        }
        prop_assert_eq!(read, expected);
        Ok(())
    });
}

async fn named_rows_come_in_the_order_asked_for(bed: &Bed) {
    let key = bed.shard();
    let names: Vec<_> = (0..40).map(|index| name("c", &format!("i={index:02}"))).collect();
    let written: Vec<_> = names.iter().step_by(3).map(|name| row_at(name, 4)).collect();
    bed.store.write_totals(&key, &written).await.unwrap();
    for asked in [vec![names[3].clone(), names[1].clone(), names[0].clone(), names[3].clone()], {
        let mut all = names.clone();
        all.reverse();
        all
    }] {
        let expected: Vec<_> = asked.iter().map(|name| written.iter().find(|row| row.name == *name).cloned()).collect();
        assert_eq!(bed.store.totals_named(&key, &asked).await.unwrap(), expected);
    }
}

async fn totals_of_any_size_come_back(bed: &Bed) {
    let key = bed.shard();
    let edges =
        [0, 1, -1, 127, 128, -128, -129, i128::from(i64::MAX) + 1, i128::from(i64::MIN) - 1, i128::MAX, i128::MIN];
    let rows: Vec<_> = edges
        .iter()
        .enumerate()
        .map(|(index, number)| TotalRow {
            name: name("c", &format!("i={index:02}")),
            total: *number,
            seq: Seq(i64::MAX as u64),
            stamp: Stamp(1 << 50),
        })
        .collect();
    bed.store.write_totals(&key, &rows).await.unwrap();
    assert_eq!(bed.all(&key).await, rows);
}

async fn shards_epochs_and_namespaces_do_not_mix(bed: &Bed) {
    let mut keys = BTreeSet::new();
    let bases = [bed.namespace(), bed.namespace()];
    for namespace in bases {
        // A name that begins as another one does.
        let longer = Namespace::parse(&format!("{namespace}0")).unwrap();
        for namespace in [namespace, longer] {
            for shard in [-2, -1, 0, 1, i32::MAX] {
                for epoch in [[0; 8], [0xff; 8]] {
                    keys.insert(ShardKey { namespace: namespace.clone(), shard: Shard(shard), epoch: Epoch(epoch) });
                }
            }
        }
    }
    let row = |index: usize| total(&name("c", ""), index as i128, 5);
    for (index, key) in keys.iter().enumerate() {
        bed.store.write_totals(key, &[row(index)]).await.unwrap();
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(bed.all(key).await, [row(index)]);
    }
}

fn lane(life: u8, partition: u32) -> Lane {
    Lane { topic_id: TopicId([life; 16]), partition }
}

fn checkpoint(lane: Lane, seq: u64, stamp: i64) -> Checkpoint {
    Checkpoint {
        lane,
        seq: Seq(seq),
        leader_epoch: seq.is_multiple_of(2).then_some(seq as i32),
        pack: PackId([seq as u8; 16]),
        stamp: Stamp(stamp),
        dedup_from: Seq(seq / 2),
        dedup_stamp: Stamp(stamp / 2),
        unmet_base: seq.is_multiple_of(3).then_some(Seq(seq + 5)),
        counted: Counted {
            since: Seq(seq / 5),
            items: u64::MAX - seq,
            duplicates: seq,
            amount: i128::MIN >> (seq * 7 % 128),
        },
    }
}

async fn checkpoint_and_stored_move_by_their_own_stamps_and_never_back(bed: &Bed) {
    let (topic, lane) = (bed.topic(), lane(1, 3));
    let read = async || bed.store.lanes(&topic).await.unwrap();
    // Each is written at a hundred times its seq.
    let expect = |checkpoint: Option<Checkpoint>, stored: Option<u64>| {
        let stored_stamp = stored.map(|seq| Stamp(seq as i64 * 100));
        [LaneRow { lane, checkpoint, stored: stored.map(Seq), stored_stamp }]
    };
    assert_eq!(read().await, []);
    let first = checkpoint(lane, 10, 1_000);
    bed.store.write_checkpoint(&topic, &first).await.unwrap();
    assert_eq!(read().await, expect(Some(first.clone()), None));
    bed.store.write_stored(&topic, lane, Seq(4), Stamp(400)).await.unwrap();
    assert_eq!(read().await, expect(Some(first.clone()), Some(4)), "older than the checkpoint, and its own");
    bed.store.write_stored(&topic, lane, Seq(20), Stamp(2_000)).await.unwrap();
    bed.store.write_stored(&topic, lane, Seq(19), Stamp(1_900)).await.unwrap();
    bed.store.write_checkpoint(&topic, &checkpoint(lane, 9, 900)).await.unwrap();
    assert_eq!(read().await, expect(Some(first.clone()), Some(20)), "older writes have no effect");
    bed.store.write_checkpoint(&topic, &first).await.unwrap();
    let second = checkpoint(lane, 15, 1_500);
    bed.store.write_checkpoint(&topic, &second).await.unwrap();
    assert_eq!(read().await, expect(Some(second), Some(20)));
}

async fn lanes_of_other_topics_and_other_lives_are_their_own(bed: &Bed) {
    let (topic, other) = (bed.topic(), bed.topic());
    let longer = format!("{topic}.x");
    let lanes = [lane(1, 0), lane(1, 1), lane(1, 300), lane(2, 0)];
    for (index, lane) in lanes.iter().enumerate() {
        bed.store.write_checkpoint(&topic, &checkpoint(*lane, index as u64, 5)).await.unwrap();
    }
    bed.store.write_stored(&longer, lanes[0], Seq(77), Stamp(9)).await.unwrap();
    let mut read = bed.store.lanes(&topic).await.unwrap();
    read.sort_by_key(|row| row.lane);
    let expected = lanes.iter().enumerate().map(|(index, lane)| LaneRow {
        lane: *lane,
        checkpoint: Some(checkpoint(*lane, index as u64, 5)),
        ..LaneRow::blank(*lane)
    });
    assert_eq!(read, expected.collect::<Vec<_>>());
    assert_eq!(bed.store.lanes(&other).await.unwrap(), []);
    let one = LaneRow { stored: Some(Seq(77)), stored_stamp: Some(Stamp(9)), ..LaneRow::blank(lanes[0]) };
    assert_eq!(bed.store.lanes(&longer).await.unwrap(), [one]);
}

async fn epochs_come_oldest_first_and_stay_as_they_began(bed: &Bed) {
    let topic = bed.topic();
    let epoch = |name: u8, created_ms: i64| EpochRow {
        epoch: Epoch([name; 8]),
        topic_id: TopicId([9; 16]),
        cluster_id: "a cluster".into(),
        partitions: u32::from(name) + 1,
        shards: 256,
        dedup_window_us: 600_000_000,
        dedup_max_ids: 1_000_000,
        created_ms,
    };
    for (name, created_ms) in [(3, 50), (0xff, 10), (2, 50), (1, 60)] {
        bed.store.begin_epoch(&topic, &epoch(name, created_ms)).await.unwrap();
    }
    bed.store.begin_epoch(&topic, &EpochRow { partitions: 99, ..epoch(3, 1) }).await.unwrap();
    bed.store.begin_epoch(&bed.topic(), &epoch(4, 1)).await.unwrap();
    let expected = [epoch(0xff, 10), epoch(2, 50), epoch(3, 50), epoch(1, 60)];
    assert_eq!(bed.store.epochs(&topic).await.unwrap(), expected);
}

async fn every_shard_that_has_rows_is_listed_once(bed: &Bed) {
    let (first, second) = (bed.shard(), bed.shard());
    for key in [&first, &second] {
        for shard in [-3, -1, 0, 7] {
            let key = ShardKey { shard: Shard(shard), ..key.clone() };
            let rows = [total(&name("c", ""), 1, 5), total(&name("c", "k=v"), 1, 5)];
            bed.store.write_totals(&key, &rows).await.unwrap();
        }
    }
    let listed = bed.store.shards().await.unwrap();
    let mut ours: Vec<_> =
        listed.into_iter().filter(|key| [&first, &second].iter().any(|of| of.namespace == key.namespace)).collect();
    ours.sort();
    let mut expected = Vec::new();
    for key in [&first, &second] {
        expected.extend([-3, -1, 0, 7].map(|shard| ShardKey { shard: Shard(shard), ..key.clone() }));
    }
    expected.sort();
    expected.dedup();
    assert_eq!(ours, expected);
}

async fn nothing_asked_for_is_nothing_answered(bed: &Bed) {
    let key = bed.shard();
    bed.store.write_totals(&key, &[]).await.unwrap();
    bed.store.write_events(&[]).await.unwrap();
    assert_eq!(bed.all(&key).await, []);
    assert_eq!(bed.store.totals(&key, &Slice::default()).await.unwrap(), []);
    assert_eq!(bed.store.totals_named(&key, &[]).await.unwrap(), []);
    assert_eq!(bed.store.lanes(&bed.topic()).await.unwrap(), []);
    assert_eq!(bed.store.epochs(&bed.topic()).await.unwrap(), []);
    bed.store.write_events(&[event(&key.namespace, "login", None, 5, "1", 1)]).await.unwrap();
    let by = || EventsBy::Name("login".into());
    for (from_ms, to_ms, limit, expected) in [(5, 6, 10, 1), (5, 5, 10, 0), (9, 2, 10, 0), (6, 9, 10, 0), (5, 6, 0, 0)]
    {
        let page = EventsPage { namespace: key.namespace.clone(), by: by(), from_ms, to_ms, before: None, limit };
        assert_eq!(bed.store.events(&page).await.unwrap().len(), expected, "[{from_ms}, {to_ms}) limit {limit}");
    }
}

async fn generations_stay_as_they_are_while_no_server_starts_again(bed: &Bed) {
    let asked = async || {
        let told = bed.store.generations().await.into_iter();
        told.map(|(server, told)| (server, told.unwrap())).collect::<Vec<_>>()
    };
    let before = asked().await;
    let (key, name) = (bed.shard(), name("c", ""));
    bed.store.write_totals(&key, &[total(&name, 1, 1)]).await.unwrap();
    assert_eq!(asked().await, before);
}
