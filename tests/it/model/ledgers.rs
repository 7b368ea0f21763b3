//! What the store keeps of dead letters, on replicas like every row; and of halts and remedies, which are few and written
//! seldom: those are simply there, as long as the servers answer.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tallymark::{
    item::{Coordinates, Lane, Seq, Stamp},
    store::{Error, HaltRow, LetterRow, Letters, Remedies, RemedyRow, Replayed},
};

use super::{
    replicas::{Key, Put, Value},
    store::{Client, away},
};

/// Halts by lane, and remedies, oldest first.
#[derive(Default)]
pub struct Desk {
    halts: BTreeMap<Lane, HaltRow>,
    remedies: Vec<RemedyRow>,
}

impl Desk {
    /// An operator's remedy is there.
    pub fn record(&mut self, remedy: RemedyRow) {
        self.remedies.push(remedy);
    }
}

#[async_trait]
impl Letters for Client {
    async fn write_letter(&self, _: &str, at: Coordinates, stamp: Stamp) -> Result<(), Error> {
        self.write(vec![Put { key: Key::Letter(at), stamp, value: Value::Letter }]).await
    }

    async fn write_replayed(&self, _: &str, at: Coordinates, by: Replayed) -> Result<(), Error> {
        self.write(vec![Put { key: Key::Replayed(at), stamp: by.stamp, value: Value::Replayed(by) }]).await
    }

    async fn letters(&self, _: &str, lane: Lane, from: Seq, to: Seq, limit: usize) -> Result<Vec<LetterRow>, Error> {
        let within = move |at: &Coordinates| (at.lane == lane && (from..=to).contains(&at.seq)).then_some(true);
        let begin = Coordinates { lane, seq: from };
        let letters = self.read(Key::Letter(begin), move |key| match key {
            Key::Letter(at) => within(at),
            _ => None,
        });
        let replayed = self.read(Key::Replayed(begin), move |key| match key {
            Key::Replayed(at) => within(at),
            _ => None,
        });
        let mut rows: BTreeMap<Seq, Option<Replayed>> = BTreeMap::new();
        for (key, _, value) in letters.await?.into_iter().chain(replayed.await?) {
            match (key, value) {
                (Key::Letter(at), _) => drop(rows.entry(at.seq).or_default()),
                (Key::Replayed(at), Value::Replayed(by)) => drop(rows.insert(at.seq, Some(by))),
                _ => {}
            }
        }
        Ok(rows.into_iter().map(|(seq, replayed)| LetterRow { seq, replayed }).take(limit).collect())
    }
}

impl Client {
    async fn at_desk<T: Send + 'static>(&self, work: impl FnOnce(&mut Desk) -> T + Send + 'static) -> Result<T, Error> {
        let servers = self.servers.clone();
        self.send(async move {
            servers.sim.dawdle(servers.trouble().slow_ms).await;
            let answering = servers.nodes().iter().filter(|node| node.answers()).count();
            if answering < 2 {
                return Err(away("no quorum"));
            }
            Ok(work(&mut servers.desk.lock().unwrap()))
        })
        .await
    }
}

#[async_trait]
impl Remedies for Client {
    async fn halts(&self, _: &str) -> Result<Vec<HaltRow>, Error> {
        self.at_desk(|desk| desk.halts.values().cloned().collect()).await
    }

    async fn write_halt(&self, _: &str, halt: &HaltRow) -> Result<(), Error> {
        let halt = halt.clone();
        self.at_desk(move |desk| drop(desk.halts.insert(halt.lane, halt))).await
    }

    async fn clear_halt(&self, _: &str, lane: Lane) -> Result<(), Error> {
        self.at_desk(move |desk| drop(desk.halts.remove(&lane))).await
    }

    async fn remedies(&self, _: &str) -> Result<Vec<RemedyRow>, Error> {
        self.at_desk(|desk| desk.remedies.clone()).await
    }

    async fn record_remedy(&self, _: &str, remedy: &RemedyRow) -> Result<(), Error> {
        let remedy = remedy.clone();
        self.at_desk(move |desk| desk.record(remedy)).await
    }
}
