//! Events in the machine.

use super::*;
use crate::pack::Event;

#[test]
fn an_event_counts_once_and_keeps_its_properties() {
    let script = Script { packs: vec![], window_us: 1_000_000, max_ids: 10 };
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    let mut world = World::default();
    let event = Event {
        namespace: "default".into(),
        name: "signup".into(),
        subject: "user-1".into(),
        time_ms: 5,
        id: "e1".into(),
        properties: Bytes::from_static(br#"{"a": 1}"#),
    };
    for seq in 0..2 {
        let mut pack = pack::decode(1, encode(seq, 1, &[])).unwrap();
        pack.events = vec![event.clone()];
        let record = Record {
            seq: Seq(seq),
            append_ms: 1,
            leader_epoch: None,
            format: 1,
            payload: pack.encode_record(),
            damage: None,
        };
        world.apply(&mut machine, &record, 100);
    }
    let events = machine.take().1;
    assert_eq!(events.len(), 1);
    assert_eq!(&events[0].properties[..], br#"{"a": 1}"#);
    assert_eq!(events.iter().map(|event| &*event.id).collect::<HashSet<_>>(), HashSet::from(["e1"]));
}
