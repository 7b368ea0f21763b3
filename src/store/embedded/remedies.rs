//! Halts and remedies: a few rows for each topic, in one table, as JSON behind a version: people may want to read them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    item::{Lane, Seq, TopicId},
    store::{Columns, Error, HaltRow, Remedies, Remedy, RemedyRow},
};

use super::{
    Embedded, Engine,
    fault::Fault,
    keys::{self, Note},
    tables::{self, Table, Tables, lock},
    values::Damaged,
};

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Halt {
    kind: String,
    reason: String,
    command: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
    partitions: Option<u32>,
    shards: Option<u32>,
    worker: String,
    since_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    topic_id: [u8; 16],
    #[serde(flatten)]
    what: Columns,
    who: String,
    why: String,
    says: String,
}

fn value(row: &impl Serialize) -> Vec<u8> {
    let mut value = vec![VERSION];
    serde_json::to_writer(&mut value, row).expect("strings and numbers serialize");
    value
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, Damaged> {
    match value.split_first() {
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|_| Damaged("a halt or a remedy is not what this program wrote"))
        }
        _ => Err(Damaged("a halt or a remedy is of a version that this program does not know")),
    }
}

fn rows<T>(
    tables: &Tables,
    topic: &str,
    note: Note,
    row: impl Fn(&[u8], &[u8]) -> Result<T, Damaged>,
) -> Result<Vec<T>, Fault> {
    let prefix = keys::notes_of(topic, note);
    let mut rows = Vec::new();
    for found in tables.keyspace(Table::Remedies).prefix(&prefix) {
        let (key, value) = tables::row(found)?;
        rows.push(row(&key[prefix.len()..], &value)?);
    }
    Ok(rows)
}

#[async_trait]
impl Remedies for Embedded {
    async fn halts(&self, topic: &str) -> Result<Vec<HaltRow>, Error> {
        self.engine.glance(|tables| {
            let rows = rows(tables, topic, Note::Halt, |key, value| {
                let lane = keys::read_noted_lane(key)?;
                let Some(row) = read::<Option<Halt>>(value)? else { return Ok(None) };
                let Halt { kind, reason, command, from, to, partitions, shards, worker, since_ms } = row;
                let (from, to) = (from.map(Seq), to.map(Seq));
                Ok(Some(HaltRow { lane, kind, reason, command, from, to, partitions, shards, worker, since_ms }))
            })?;
            Ok(rows.into_iter().flatten().collect())
        })
    }

    async fn write_halt(&self, topic: &str, halt: &HaltRow) -> Result<(), Error> {
        let row = Halt {
            kind: halt.kind.clone(),
            reason: halt.reason.clone(),
            command: halt.command.clone(),
            from: halt.from.map(|seq| seq.0),
            to: halt.to.map(|seq| seq.0),
            partitions: halt.partitions,
            shards: halt.shards,
            worker: halt.worker.clone(),
            since_ms: halt.since_ms,
        };
        let (key, value) = (keys::halt(topic, halt.lane), value(&row));
        let work = move |engine: &Engine| engine.write(|tables| tables.put(Table::Remedies, key, value));
        self.blocking(&self.writers, work).await
    }

    async fn clear_halt(&self, topic: &str, lane: Lane) -> Result<(), Error> {
        let key = keys::halt(topic, lane);
        // Written over: nothing of this store removes single rows.
        let none = value(&None::<Halt>);
        let work = move |engine: &Engine| engine.write(|tables| tables.put(Table::Remedies, key, none));
        self.blocking(&self.writers, work).await
    }

    async fn remedies(&self, topic: &str) -> Result<Vec<RemedyRow>, Error> {
        self.engine.glance(|tables| {
            rows(tables, topic, Note::Remedy, |key, value| {
                let ((at_ms, id), row) = (keys::read_noted_remedy(key)?, read::<Record>(value)?);
                // One that this version does not know might be a loss that lanes must know of: nothing is guessed.
                let what = Remedy::from_columns(&row.what)
                    .ok_or(Damaged("a remedy is of a kind that this program does not know"))?;
                let Record { topic_id, who, why, says, .. } = row;
                Ok(RemedyRow { at_ms, id, topic_id: TopicId(topic_id), what, who, why, says })
            })
        })
    }

    async fn record_remedy(&self, topic: &str, remedy: &RemedyRow) -> Result<(), Error> {
        let record = Record {
            topic_id: remedy.topic_id.0,
            what: remedy.what.columns(),
            who: remedy.who.clone(),
            why: remedy.why.clone(),
            says: remedy.says.clone(),
        };
        let (key, value) = (keys::remedy(topic, remedy.at_ms, remedy.id), value(&record));
        let work = move |engine: &Engine| {
            let _turn = lock(&engine.lanes);
            engine.write(|tables| {
                if tables.get(Table::Remedies, &key)?.is_none() {
                    tables.put(Table::Remedies, key, value)?;
                }
                // Lanes compute with it from now on: it must outlive what they write.
                tables.sync()
            })
        };
        self.blocking(&self.writers, work).await
    }
}
