//! Frozen records, and that packs say what was put into them.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use tallymark::{
    ingest::{Batch, Builder, Framing, Head, Kind, Limits, Options, Parser},
    item::{Grains, IdScope, ItemId, PackId, Seq, TopicId},
    pack::{self, Claim, Control, Coordinates, Correction, Entry, Erasure, Event, Increment, Observations},
};

const VERSION_1: &[u8] = include_bytes!("../../fixtures/pack-v1.bin");

#[test]
fn the_frozen_record_of_version_1_is_read_field_by_field_and_written_the_same() {
    let pack = pack::decode(1, Bytes::from_static(VERSION_1)).unwrap();
    assert_eq!(pack.version, 1);
    assert_eq!(pack.pack_id(), PackId([0xaa; 16]));
    assert_eq!(pack.ingest, [0xbb; 16].as_slice());
    assert_eq!(pack.receive_ms, 1_769_860_800_123);
    assert_eq!((pack.partitions, pack.shards), (8, 256));
    assert!(pack.urgent && pack.canary);
    assert_eq!(pack.traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let claims: Vec<_> = pack.claims.iter().map(Claim::parts).collect();
    let topic = TopicId([0xcc; 16]);
    assert_eq!(claims, [(topic, Seq(41), PackId([0xdd; 16])), (topic, Seq(0), PackId([0xee; 16]))]);

    let increments = pack.increments.as_ref().unwrap();
    let hour_and_day = Grains::HOUR.with(Grains::DAY);
    let dictionary = [
        Entry { key: b"default\0page_views\0path=/docs", grains: hour_and_day },
        Entry { key: b"shop\0orders\0", grains: hour_and_day.with(Grains::MINUTE) },
        Entry { key: "default\0page_views\0city=Zürich,path=/a\\,b".as_bytes(), grains: Grains(0) },
    ];
    assert_eq!(increments.dictionary().collect::<Vec<_>>(), dictionary);
    let id = |from: u8| Some(ItemId(std::array::from_fn(|at| from + u8::try_from(at).unwrap())));
    let items = [
        Increment { series: 0, amount: 1, time_ms: 0, id: id(0) },
        Increment { series: 1, amount: i64::MIN, time_ms: -1500, id: id(0x40) },
        Increment { series: 0, amount: i64::MAX, time_ms: 86_400_000, id: None },
        Increment { series: 2, amount: 0, time_ms: 7, id: None },
    ];
    assert_eq!(increments.iter().collect::<Vec<_>>(), items);

    let events = [
        Event {
            namespace: "default".into(),
            name: "signup".into(),
            subject: "user-17".into(),
            time_ms: 1_769_860_800_000,
            id: "evt_42".into(),
            properties: Bytes::from_static(b"{\"plan\": \"pro\",\t\"n\":1.0}"),
        },
        Event {
            namespace: "shop".into(),
            name: "été".into(),
            subject: String::new(),
            time_ms: -1,
            id: "0123456789abcdef0123456789abcdef".into(),
            properties: Bytes::new(),
        },
    ];
    assert_eq!(pack.events, events);
    let orders = Bytes::from_static(b"shop\0orders\0");
    let observations = Observations {
        key_lengths: vec![12],
        keys: orders,
        grains: vec![2],
        series: vec![0, 0],
        starts_ms: vec![1_769_860_800_000; 2],
        values: vec![10, 25],
        times: vec![-1, 0],
    };
    assert_eq!(pack.observations, Some(observations));
    let correction = Correction {
        key: Bytes::from_static(b"default\0page_views\0path=/docs"),
        grain_ms: 3_600_000,
        bucket_ms: 1_769_860_800_000,
        amount: Bytes::from_static(&[0xff, 0x38]),
        ..Correction::default()
    };
    assert_eq!(pack.corrections, [correction]);
    let erasure = Erasure {
        namespace: "shop".into(),
        counter: "orders".into(),
        tags: "country=fr".into(),
        subject: "user-17".into(),
    };
    assert_eq!(pack.erasures, [erasure]);
    let replayed = Coordinates { topic_id: Bytes::from_static(&[0xcc; 16]), partition: 3, seq: 1 << 40 };
    assert_eq!(pack.replayed, Some(replayed));
    assert_eq!(pack.control, Some(Control { dedup_window_ms: 600_000, dedup_max_ids: 1_000_000 }));

    assert_eq!(pack.encode_record(), VERSION_1);
    assert_eq!(pack::decode(2, Bytes::from_static(VERSION_1)), Err(pack::Error::Newer(2)));
    for cut in 0..VERSION_1.len() {
        // Cut short it is another pack or none, but never a panic.
        let _ = pack::decode(1, Bytes::from_static(&VERSION_1[..cut]));
    }
}

#[derive(Clone, Debug)]
struct Sent {
    counter: String,
    tags: Vec<(String, String)>,
    amount: i64,
    time: i64,
    id: Option<String>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let tags = proptest::collection::btree_map("[a-c]", "[a,=\\\\é\" ]{0,3}", 0..3);
    let amount = prop_oneof![-5i64..5, Just(i64::MAX), Just(i64::MIN), any::<i64>()];
    let time = prop_oneof![0i64..10_000_000, -62_167_219_200_000i64..1_700_000_000_000];
    ("[ab]", tags, amount, time, proptest::option::of("[a-c]{1,2}")).prop_map(|(counter, tags, amount, time, id)| {
        Sent { counter, tags: tags.into_iter().collect(), amount, time, id }
    })
}

fn key_of(sent: &Sent) -> Vec<u8> {
    let mut key = Vec::new();
    tallymark::item::write_series_key(&mut key, "ns", &sent.counter, &sent.tags);
    key
}

fn packed(items: &[Sent], grains: &[&str]) -> (pack::Pack, Vec<tallymark::hot::Delta>) {
    let json = items.iter().map(|sent| {
        let tags: serde_json::Map<_, _> = sent.tags.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut item = json!({"counter": sent.counter, "tags": tags, "amount": sent.amount, "time": sent.time});
        if let Some(id) = &sent.id {
            item["id"] = json!(id);
        }
        item
    });
    let body = json!(json.collect::<Vec<_>>()).to_string();
    let options = Options { grains: grains.iter().map(|grain| (*grain).to_owned()).collect(), ..Options::default() };
    let limits = Limits::new(&options).unwrap();
    let parser = Parser {
        limits: &limits,
        namespace: "ns",
        now_ms: 1_769_860_800_000,
        idempotency_key: None,
        partial: false,
        shards: 256,
        partitions: 1,
    };
    let mut batch = Batch::default();
    parser.parse(Kind::Increment, Framing::Json, &body, &mut batch).unwrap();
    assert_eq!((batch.len(), batch.errors()), (items.len(), &[][..]));
    let mut builder = Builder::new(limits.grains, true);
    builder.add_all(&batch, true);
    let head = Head {
        format: 1,
        id: PackId([1; 16]),
        ingest: [2; 16],
        receive_ms: 1_769_860_800_123,
        partitions: 1,
        shards: 256,
        urgent: false,
        traceparent: String::new(),
        claims: Vec::new(),
    };
    let closed = builder.close(head);
    let pack = pack::decode(1, closed.payload.clone()).unwrap();
    assert_eq!(pack.encode_record(), closed.payload, "what the format's own encoder writes");
    (pack, closed.deltas())
}

proptest! {
    #[test]
    fn a_pack_says_what_was_put_into_it(items in proptest::collection::vec(sent(), 1..40), grain in 0usize..4) {
        let grains = [&[][..], &["minute"], &["hour", "day"], &["day"]][grain];
        let width = [None, Some(60_000), Some(3_600_000), Some(86_400_000)][grain];
        let bucket = |time: i64| width.map_or(0, |width: i64| time.div_euclid(width));
        let (pack, deltas) = packed(&items, grains);
        let increments = pack.increments.as_ref().unwrap();
        let keys: Vec<_> = increments.dictionary().map(|entry| entry.key.to_vec()).collect();

        let mut with_id: Vec<_> = items.iter().filter_map(|sent| {
            let key = key_of(sent);
            let id = IdScope::series(&key).id(sent.id.as_ref()?.as_bytes());
            Some((key, sent.amount, sent.time, id))
        }).collect();
        let mut found: Vec<_> = increments.iter().filter_map(|item| {
            Some((keys[item.series as usize].clone(), item.amount, item.time_ms + pack.receive_ms, item.id?))
        }).collect();
        with_id.sort();
        found.sort();
        prop_assert_eq!(found, with_id);

        let mut sums: HashMap<(Vec<u8>, i64), i128> = HashMap::new();
        for sent in items.iter().filter(|sent| sent.id.is_none()) {
            *sums.entry((key_of(sent), bucket(sent.time))).or_default() += i128::from(sent.amount);
        }
        let mut merged: HashMap<(Vec<u8>, i64), i128> = HashMap::new();
        for item in increments.iter().filter(|item| item.id.is_none()) {
            let name = (keys[item.series as usize].clone(), bucket(item.time_ms + pack.receive_ms));
            *merged.entry(name).or_default() += i128::from(item.amount);
        }
        prop_assert_eq!(merged, sums);

        let mut totals: HashMap<Vec<u8>, i128> = HashMap::new();
        for sent in &items {
            *totals.entry(key_of(sent)).or_default() += i128::from(sent.amount);
        }
        let shown = deltas.iter().filter(|delta| delta.key.kind == tallymark::hot::HotKind::Series);
        let shown: HashMap<_, _> = shown.map(|delta| (delta.key.key.to_vec(), delta.amount)).collect();
        prop_assert_eq!(shown, totals);
    }
}
