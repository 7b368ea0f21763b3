//! The hot view's laws (H1 to H4), for every backend that holds anything; and what the one that holds nothing answers.

use std::sync::{Arc, Mutex, Weak};

use tallymark::{
    hot::{
        Base, Delta, HotKey, HotKind, HotView, LoadedBase, Options, Published, Shared, Token, View, memory::Memory,
        none::Disabled, redis::Redis,
    },
    item::{Lane, Seq, TopicId},
    units::{Size, Span},
    url::HotUrl,
};

use crate::stack;

mod properties;

/// A backend of the port, as the suite needs it.
pub trait Backend {
    /// An empty view.
    fn open(options: &Options) -> Shared;

    /// Makes the view lose an entry, as it may at any time (H2).
    async fn forget(view: &Shared, key: &HotKey);
}

/// The in-process backend: an entry is lost when enough others crowd it out.
pub struct InProcess;

impl Backend for InProcess {
    fn open(options: &Options) -> Shared {
        Arc::new(Memory::new(&Options { memory: Size::kib(16), ..options.clone() }))
    }

    async fn forget(view: &Shared, key: &HotKey) {
        for filler in 0..10_000 {
            if view.known(std::slice::from_ref(key)).await.unwrap() == [false] {
                return;
            }
            let filler = Delta { key: counter(&format!("filler{filler}")), amount: 1 };
            view.add(lane(900), Seq(0), vec![filler]).await.unwrap();
        }
        panic!("the entry survives 10,000 others within 16 KiB");
    }
}

/// The backend in Redis, on the stack's server: every view has a prefix of its own.
pub struct InRedis;

/// The views that are open, so that one that is only known as a view can be found again.
static OPENED: Mutex<Vec<Weak<Redis>>> = Mutex::new(Vec::new());

impl Backend for InRedis {
    fn open(options: &Options) -> Shared {
        let url = format!("redis://{}", stack::redis());
        let Ok(HotUrl::Redis { tls, cluster, servers }) = url.parse() else { panic!("{url}") };
        let prefix = format!("contract{:016x}", rand::random::<u64>());
        // The suite is about what the view says, not about how fast a busy machine is.
        let (timeout, ttl) = (Span::from_secs(5), Span::from_secs(60));
        let view = Redis::open(tls, cluster, &servers, &Options { prefix, ttl, timeout, ..options.clone() }).unwrap();
        let view = Arc::new(view);
        OPENED.lock().unwrap().push(Arc::downgrade(&view));
        view
    }

    async fn forget(view: &Shared, key: &HotKey) {
        let same = |opened: &Arc<Redis>| std::ptr::addr_eq(Arc::as_ptr(opened), Arc::as_ptr(view));
        let opened = OPENED.lock().unwrap().iter().filter_map(Weak::upgrade).find(same).expect("it was opened here");
        let client = ::redis::Client::open(format!("redis://{}", stack::redis())).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let _: () = ::redis::cmd("DEL").arg(opened.key_of(key)).query_async(&mut connection).await.unwrap();
    }
}

fn lane(partition: u32) -> Lane {
    Lane { topic_id: TopicId([5; 16]), partition }
}

fn counter(name: &str) -> HotKey {
    HotKey { kind: HotKind::Counter, key: format!("default\0{name}\0").into_bytes().into() }
}

async fn add(view: &Shared, key: &HotKey, partition: u32, seq: u64, amount: i128) {
    view.add(lane(partition), Seq(seq), vec![Delta { key: key.clone(), amount }]).await.unwrap();
}

async fn publish(view: &Shared, key: &HotKey, partition: u32, seq: u64, total: i128) -> Published {
    view.publish(lane(partition), Seq(seq), &[Base { key: key.clone(), total }]).await.unwrap()
}

async fn read(view: &Shared, key: &HotKey) -> View {
    view.read(std::slice::from_ref(key)).await.unwrap().remove(0)
}

fn base(partition: u32, base: Option<(i128, u64)>) -> LoadedBase {
    LoadedBase { lane: lane(partition), base: base.map(|(total, seq)| (total, Seq(seq))) }
}

/// A whole load of lane 0 that waits for nothing.
async fn load(view: &Shared, key: &HotKey, loaded: Option<(i128, u64)>) {
    let token = view.begin_load(key).await.unwrap();
    assert!(view.finish_load(key, token, &[base(0, loaded)], &[]).await.unwrap());
}

const fn fresh(total: i128) -> View {
    View::Full { total, stale: false }
}

const fn stale(total: i128) -> View {
    View::Full { total, stale: true }
}

async fn what_is_pending_shows_only_once_every_base_is_loaded<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    assert_eq!(read(&view, &key).await, View::Miss);
    add(&view, &key, 0, 3, 5).await;
    assert_eq!(read(&view, &key).await, View::Miss);
    publish(&view, &key, 0, 3, 12).await;
    assert_eq!(read(&view, &key).await, View::Miss);
    add(&view, &key, 0, 4, 1).await;
    load(&view, &key, Some((7, 2))).await;
    assert_eq!(read(&view, &key).await, fresh(13));
    add(&view, &key, 0, 5, -3).await;
    assert_eq!(read(&view, &key).await, fresh(10));
}

async fn the_same_delta_counts_once_in_whatever_order<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    load(&view, &key, None).await;
    for seq in [7, 5, 6, 5, 7, 6, 7] {
        add(&view, &key, 0, seq, 1 << seq).await;
    }
    assert_eq!(read(&view, &key).await, fresh(0b1110_0000));
}

async fn a_base_only_rises_and_what_it_covers_is_ignored<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    load(&view, &key, None).await;
    for seq in 0..5 {
        add(&view, &key, 0, seq, 1).await;
    }
    // The truth has it that dedup dropped one of seqs 0 to 2.
    publish(&view, &key, 0, 2, 2).await;
    assert_eq!(read(&view, &key).await, fresh(4));
    for (seq, late) in [(2, 2), (1, 100), (0, 100)] {
        publish(&view, &key, 0, seq, late).await;
        add(&view, &key, 0, seq, 1).await;
        assert_eq!(read(&view, &key).await, fresh(4));
    }
    publish(&view, &key, 0, 9, 50).await;
    assert_eq!(read(&view, &key).await, fresh(50));
}

async fn lanes_add_up_and_do_not_touch_each_other<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    let token = view.begin_load(&key).await.unwrap();
    add(&view, &key, 2, 1, 1000).await;
    let bases = [base(0, Some((1, 10))), base(1, Some((20, 0))), base(2, None)];
    assert!(view.finish_load(&key, token, &bases, &[]).await.unwrap());
    add(&view, &key, 1, 3, 300).await;
    add(&view, &key, 0, 11, 4).await;
    assert_eq!(read(&view, &key).await, fresh(1325));
    publish(&view, &key, 1, 3, 320).await;
    publish(&view, &key, 7, 0, 10_000).await;
    assert_eq!(read(&view, &key).await, fresh(11_325));
}

async fn a_load_counts_only_while_its_token_is_there<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    let older = view.begin_load(&key).await.unwrap();
    let newer = view.begin_load(&key).await.unwrap();
    assert_ne!(older, newer);
    let bases = [base(0, Some((1, 1)))];
    assert!(!view.finish_load(&key, older, &bases, &[]).await.unwrap());
    assert!(!view.finish_load(&key, Token(0), &bases, &[]).await.unwrap());
    assert_eq!(read(&view, &key).await, View::Miss);
    assert!(view.finish_load(&key, newer, &bases, &[]).await.unwrap());
    assert_eq!(read(&view, &key).await, fresh(1));
    assert!(!view.finish_load(&key, newer, &[base(0, Some((2, 2)))], &[]).await.unwrap());
    assert_eq!(read(&view, &key).await, fresh(1));
    let stranger = counter("b");
    assert!(!view.finish_load(&stranger, newer, &bases, &[]).await.unwrap());
    assert_eq!(view.known(&[stranger]).await.unwrap(), [false]);
}

async fn of_a_loaded_and_a_published_base_the_higher_wins<B: Backend>() {
    let view = B::open(&Options::default());
    for (name, loaded, expected) in [("a", (10, 4), 99), ("b", (10, 6), 10)] {
        let key = counter(name);
        let token = view.begin_load(&key).await.unwrap();
        assert_eq!(publish(&view, &key, 0, 5, 99).await.written, 1);
        assert!(view.finish_load(&key, token, &[base(0, Some(loaded))], &[]).await.unwrap());
        assert_eq!(read(&view, &key).await, fresh(expected), "{name}");
    }
    let key = counter("c");
    let token = view.begin_load(&key).await.unwrap();
    publish(&view, &key, 0, 5, 99).await;
    assert!(view.finish_load(&key, token, &[base(0, None)], &[]).await.unwrap());
    assert_eq!(read(&view, &key).await, fresh(99));
}

async fn a_lost_entry_is_a_miss_and_what_comes_later_does_not_make_it_full<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    load(&view, &key, Some((5, 5))).await;
    add(&view, &key, 0, 6, 1).await;
    B::forget(&view, &key).await;
    assert_eq!(read(&view, &key).await, View::Miss);
    assert_eq!(publish(&view, &key, 0, 6, 6).await, Published::default());
    assert_eq!(view.known(std::slice::from_ref(&key)).await.unwrap(), [false]);
    add(&view, &key, 0, 7, 1).await;
    publish(&view, &key, 0, 7, 7).await;
    assert_eq!(read(&view, &key).await, View::Miss);
    let token = view.begin_load(&key).await.unwrap();
    B::forget(&view, &key).await;
    add(&view, &key, 0, 8, 1).await;
    assert!(!view.finish_load(&key, token, &[base(0, Some((7, 7)))], &[]).await.unwrap());
    assert_eq!(read(&view, &key).await, View::Miss);
}

async fn an_entry_is_stale_until_every_lanes_publishes_pass_its_end<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    let token = view.begin_load(&key).await.unwrap();
    let (bases, ends) = ([base(0, Some((1, 1))), base(1, None)], [(lane(0), Seq(4)), (lane(1), Seq(2))]);
    assert!(view.finish_load(&key, token, &bases, &ends).await.unwrap());
    assert_eq!(read(&view, &key).await, stale(1));
    publish(&view, &key, 0, 3, 8).await;
    assert_eq!(read(&view, &key).await, stale(8));
    view.published(lane(0), Seq(3)).await.unwrap();
    assert_eq!(read(&view, &key).await, stale(8));
    view.published(lane(1), Seq(0)).await.unwrap();
    assert_eq!(read(&view, &key).await, stale(8));
    view.published(lane(1), Seq(1)).await.unwrap();
    assert_eq!(read(&view, &key).await, fresh(8));
    // Another load, whose ends are through already; and a late notice takes nothing back.
    view.published(lane(0), Seq(0)).await.unwrap();
    let token = view.begin_load(&key).await.unwrap();
    assert_eq!(read(&view, &key).await, fresh(8));
    assert!(view.finish_load(&key, token, &bases, &ends).await.unwrap());
    assert_eq!(read(&view, &key).await, fresh(8));
}

async fn past_the_bound_deltas_are_left_out_until_the_base_passes_them<B: Backend>() {
    let options = Options { max_pending: 3, ..Options::default() };
    let (view, key) = (B::open(&options), counter("a"));
    load(&view, &key, None).await;
    for seq in 0..5 {
        add(&view, &key, 0, seq, 1).await;
    }
    assert_eq!(read(&view, &key).await, stale(3));
    // What is pending already needs no room.
    add(&view, &key, 0, 1, 1).await;
    assert_eq!(read(&view, &key).await, stale(3));
    assert_eq!(publish(&view, &key, 0, 3, 4).await.drifted, 0, "a view that says stale does not drift");
    assert_eq!(read(&view, &key).await, stale(4));
    add(&view, &key, 0, 5, 1).await;
    assert_eq!(read(&view, &key).await, stale(5));
    publish(&view, &key, 0, 4, 5).await;
    assert_eq!(read(&view, &key).await, fresh(6));
}

async fn a_publish_writes_what_exists_and_counts_what_differed<B: Backend>() {
    let (view, full, partial, absent) = (B::open(&Options::default()), counter("a"), counter("b"), counter("c"));
    load(&view, &full, Some((10, 0))).await;
    add(&view, &full, 0, 1, 5).await;
    add(&view, &full, 0, 2, 7).await;
    add(&view, &partial, 0, 1, 5).await;
    let keys = [full.clone(), partial.clone(), absent.clone()];
    assert_eq!(view.known(&keys).await.unwrap(), [true, true, false]);
    let bases = |total| keys.clone().map(|key| Base { key, total });
    let first = view.publish(lane(0), Seq(1), &bases(15)).await.unwrap();
    assert_eq!(first, Published { written: 2, drifted: 0 });
    let second = view.publish(lane(0), Seq(2), &bases(15)).await.unwrap();
    assert_eq!(second, Published { written: 2, drifted: 1 }, "dedup dropped seq 2");
    let again = view.publish(lane(0), Seq(2), &bases(15)).await.unwrap();
    assert_eq!(again, Published::default());
    assert_eq!(view.read(&keys).await.unwrap(), [fresh(15), View::Miss, View::Miss]);
}

async fn a_counters_total_is_another_entry_than_its_untagged_series<B: Backend>() {
    let (view, counter) = (B::open(&Options::default()), counter("a"));
    let series = HotKey { kind: HotKind::Series, key: counter.key.clone() };
    load(&view, &series, Some((1, 0))).await;
    load(&view, &counter, Some((2, 0))).await;
    add(&view, &counter, 0, 1, 40).await;
    assert_eq!(view.read(&[counter, series]).await.unwrap(), [fresh(42), fresh(1)]);
}

async fn sums_are_128_bits_wide_and_signed<B: Backend>() {
    let (view, key) = (B::open(&Options::default()), counter("a"));
    load(&view, &key, Some((i128::from(i64::MAX) * 1000, 0))).await;
    add(&view, &key, 0, 1, i128::from(i64::MIN)).await;
    add(&view, &key, 0, 2, -1).await;
    assert_eq!(read(&view, &key).await, fresh(i128::from(i64::MAX) * 999 - 2));
}

macro_rules! suite {
    ($backend:ident as $module:ident: $($law:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $law() {
                    super::$law::<super::$backend>().await;
                }
            )*
        }
    };
}

suite! { InProcess as memory:
    what_is_pending_shows_only_once_every_base_is_loaded
    the_same_delta_counts_once_in_whatever_order
    a_base_only_rises_and_what_it_covers_is_ignored
    lanes_add_up_and_do_not_touch_each_other
    a_load_counts_only_while_its_token_is_there
    of_a_loaded_and_a_published_base_the_higher_wins
    a_lost_entry_is_a_miss_and_what_comes_later_does_not_make_it_full
    an_entry_is_stale_until_every_lanes_publishes_pass_its_end
    past_the_bound_deltas_are_left_out_until_the_base_passes_them
    a_publish_writes_what_exists_and_counts_what_differed
    a_counters_total_is_another_entry_than_its_untagged_series
    sums_are_128_bits_wide_and_signed
}

suite! { InRedis as redis:
    what_is_pending_shows_only_once_every_base_is_loaded
    the_same_delta_counts_once_in_whatever_order
    a_base_only_rises_and_what_it_covers_is_ignored
    lanes_add_up_and_do_not_touch_each_other
    a_load_counts_only_while_its_token_is_there
    of_a_loaded_and_a_published_base_the_higher_wins
    a_lost_entry_is_a_miss_and_what_comes_later_does_not_make_it_full
    an_entry_is_stale_until_every_lanes_publishes_pass_its_end
    past_the_bound_deltas_are_left_out_until_the_base_passes_them
    a_publish_writes_what_exists_and_counts_what_differed
    a_counters_total_is_another_entry_than_its_untagged_series
    sums_are_128_bits_wide_and_signed
}

#[tokio::test]
async fn the_memory_bound_holds_whatever_comes_and_what_is_used_stays() {
    let bound = 4 << 20;
    let view = Memory::new(&Options { memory: Size(bound), ..Options::default() });
    let used = counter("used");
    for round in 0..40_u64 {
        let deltas = (0..5_000).map(|at| Delta { key: counter(&format!("crowd{round}/{at}")), amount: 1 });
        view.add(lane(0), Seq(round), deltas.collect()).await.unwrap();
        let one = Delta { key: used.clone(), amount: 1 };
        view.add(lane(0), Seq(round), vec![one]).await.unwrap();
        assert!(view.bytes() as u64 <= bound, "{} bytes", view.bytes());
    }
    assert!(view.bytes() as u64 > bound / 2, "{} bytes", view.bytes());
    let token = view.begin_load(&used).await.unwrap();
    assert!(view.finish_load(&used, token, &[], &[]).await.unwrap());
    assert_eq!(view.read(&[used]).await.unwrap(), [fresh(40)]);
}

#[tokio::test]
async fn a_series_enters_the_in_process_view_when_it_is_read_and_misses_nothing_from_then_on() {
    let view: Shared = Arc::new(Memory::new(&Options::default()));
    let series = HotKey { kind: HotKind::Series, ..counter("a") };
    add(&view, &series, 0, 0, 5).await;
    assert_eq!(view.known(std::slice::from_ref(&series)).await.unwrap(), [false]);
    let token = view.begin_load(&series).await.unwrap();
    add(&view, &series, 0, 1, 7).await;
    let loaded = LoadedBase { lane: lane(0), base: Some((5, Seq(0))) };
    assert!(view.finish_load(&series, token, &[loaded], &[]).await.unwrap());
    assert_eq!(read(&view, &series).await, fresh(12));
}

#[tokio::test]
async fn the_view_that_holds_nothing_misses_and_says_so() {
    let (view, key): (Shared, _) = (Arc::new(Disabled), counter("a"));
    assert_eq!(view.describe(), ("none", false));
    add(&view, &key, 0, 0, 1).await;
    assert_eq!(publish(&view, &key, 0, 0, 1).await, Published::default());
    let token = view.begin_load(&key).await.unwrap();
    assert!(!view.finish_load(&key, token, &[base(0, None)], &[]).await.unwrap());
    view.published(lane(0), Seq(0)).await.unwrap();
    assert_eq!(view.known(&[key.clone(), key.clone()]).await.unwrap(), [false, false]);
    assert_eq!(view.read(&[key.clone(), key]).await.unwrap(), [View::Miss, View::Miss]);
}
