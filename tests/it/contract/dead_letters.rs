//! The laws of the dead-letter log port (`src/log/dead.rs`, D1 to D4), the same for every backend.
//!
//! A dead-letter log is its log's: it is opened with it, in the same [`Site`].

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;
use tallymark::{
    item::{Coordinates, Lane, Seq, TopicId},
    log::{Class, DeadLetter, Found, Log, Options},
};

use super::log::{Site, payload};

fn letter(partition: u32, seq: u64) -> DeadLetter {
    let lane = Lane { topic_id: TopicId([9; 16]), partition };
    DeadLetter {
        at: Coordinates { lane, seq: Seq(seq) },
        append_ms: 1_700_000_000_000 + seq as i64,
        format: 1,
        class: Class::Malformed,
        reason: format!("it is the letter {seq}"),
        payload: payload(seq),
    }
}

async fn bury(log: &dyn Log, letter: &DeadLetter) {
    log.dead_letters().expect("it has a dead-letter log").bury(letter).await.unwrap();
}

/// Everything that is there, read in pages of so many bytes.
async fn found(log: &dyn Log, max_bytes: usize) -> Vec<Found> {
    let letters = log.dead_letters().expect("it has a dead-letter log");
    let (mut all, mut after) = (Vec::<Found>::new(), None);
    loop {
        let page = letters.read_letters(after.as_ref(), max_bytes).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(last.place.clone());
        all.extend(page);
    }
}

/// The first of each coordinates.
fn firsts(found: &[Found]) -> Vec<DeadLetter> {
    let mut seen = BTreeSet::new();
    let letters = found.iter().map(|found| found.letter.clone().unwrap());
    letters.filter(|letter| seen.insert(letter.at)).collect()
}

async fn firsts_in_order(log: &dyn Log) -> Vec<DeadLetter> {
    let mut letters = firsts(&found(log, 1 << 20).await);
    letters.sort_by_key(|letter| letter.at);
    letters
}

async fn a_letter_comes_back_whole_and_is_there_when_the_log_is_opened_again(site: &dyn Site) {
    let mut expected = Vec::new();
    for life in 0..2 {
        let log = site.open(Options::default()).await;
        assert_eq!(firsts_in_order(&*log).await, expected, "life {life}");
        for seq in 0..5 {
            let letter = letter(life, seq);
            bury(&*log, &letter).await;
            expected.push(letter);
            assert_eq!(firsts_in_order(&*log).await, expected, "readable when acknowledged");
        }
    }
    let log = site.open(Options::default()).await;
    let now = tallymark::clock::now_ms();
    assert!(found(&*log, 1 << 20).await.iter().all(|found| (now - found.buried_ms).abs() < 120_000));
}

async fn burying_the_same_coordinates_again_keeps_the_first(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    let first = letter(0, 3);
    bury(&*log, &first).await;
    bury(&*log, &letter(0, 4)).await;
    bury(&*log, &DeadLetter { reason: "said again".to_owned(), payload: Bytes::new(), ..first.clone() }).await;
    bury(&*log, &first).await;
    assert_eq!(firsts_in_order(&*log).await, [first, letter(0, 4)]);
}

async fn pages_bring_each_place_once_and_go_on_from_any_place(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    join_all((0..12).map(|seq| {
        let log = log.clone();
        async move { bury(&*log, &letter(seq as u32 % 3, seq)).await }
    }))
    .await;
    let whole = found(&*log, 1 << 20).await;
    assert_eq!(firsts(&whole).len(), 12);
    for max_bytes in [1, 300, 100_000] {
        assert_eq!(found(&*log, max_bytes).await, whole, "pages of {max_bytes}");
    }
    let letters = log.dead_letters().unwrap();
    for (at, found) in whole.iter().enumerate() {
        let rest = letters.read_letters(Some(&found.place), 1 << 20).await.unwrap();
        assert_eq!(rest.first(), whole.get(at + 1), "after {at}");
    }
}

async fn a_log_that_buried_nothing_has_nothing(site: &dyn Site) {
    let log: Arc<dyn Log> = site.open(Options::default()).await;
    assert_eq!(found(&*log, 1000).await, []);
    log.append(0, 1, payload(1)).await.unwrap();
    assert_eq!(found(&*log, 1000).await, [], "the log's own records are none");
}

async fn a_letter_as_large_as_the_largest_pack_is_taken(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    let letter = DeadLetter { payload: vec![7; 4 << 20].into(), ..letter(0, 0) };
    if log.append(0, 1, letter.payload.clone()).await.is_ok() {
        bury(&*log, &letter).await;
        assert_eq!(firsts_in_order(&*log).await, [letter]);
    }
    let smaller = DeadLetter { payload: vec![7; 1 << 20].into(), ..self::letter(0, 1) };
    bury(&*log, &smaller).await;
    assert!(firsts_in_order(&*log).await.contains(&smaller));
}

macro_rules! suite {
    ($backend:ident, $site:expr; $($law:ident,)*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $law() {
                    super::$law(&$site).await;
                }
            )*
        }
    };
    ($backend:ident, $site:expr) => {
        suite!($backend, $site;
            a_letter_comes_back_whole_and_is_there_when_the_log_is_opened_again,
            burying_the_same_coordinates_again_keeps_the_first,
            pages_bring_each_place_once_and_go_on_from_any_place,
            a_log_that_buried_nothing_has_nothing,
            a_letter_as_large_as_the_largest_pack_is_taken,
        );
    };
}

suite!(embedded, crate::contract::log::embedded::Folder(tempfile::tempdir().unwrap()));
suite!(kafka, crate::kafka::support::Topic::new());
