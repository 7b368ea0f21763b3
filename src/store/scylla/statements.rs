//! Everything that is ever asked of the servers, prepared once.
//!
//! Each statement names its whole partition, so the driver sends it to a replica. Each write carries its timestamp. Bounds
//! on clustering columns are tuples throughout: neither server mixes them with single columns.

use futures_util::future::try_join_all;
use scylla::{
    client::session::Session,
    frame::response::result::{ColumnType, NativeType},
    statement::{Statement, prepared::PreparedStatement},
};

use crate::{retry::Kind, store::Error, url::Servers};

use super::{connect, fault};

/// Rows that one answer brings at most; a read of more goes on from there.
const PAGE_ROWS: i32 = 2_000;

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $cql:expr,)*) => {
        /// The prepared statements.
        pub struct Statements {
            $($(#[$doc])* pub $name: PreparedStatement,)*
        }

        impl Statements {
            async fn all(session: &Session, keyspace: &str) -> Result<Self, scylla::errors::PrepareError> {
                let texts = [$($cql.replace("{ks}", keyspace)),*];
                let mut prepared = try_join_all(texts.into_iter().map(|text| async move {
                    let mut statement = Statement::new(text);
                    statement.set_page_size(PAGE_ROWS);
                    statement.set_is_idempotent(true);
                    session.prepare(statement).await
                })).await?.into_iter();
                Ok(Self { $($name: prepared.next().expect("as many as were asked for"),)* })
            }
        }
    };
}

statements! {
    insert_total: "INSERT INTO {ks}.counter_totals (namespace, shard, epoch, counter, series, total, seq) \
                   VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    slice: "SELECT counter, series, total, seq, WRITETIME(total) FROM {ks}.counter_totals \
            WHERE namespace = ? AND shard = ? AND epoch = ? LIMIT ?",
    slice_after: "SELECT counter, series, total, seq, WRITETIME(total) FROM {ks}.counter_totals \
                  WHERE namespace = ? AND shard = ? AND epoch = ? AND (counter, series) > (?, ?) LIMIT ?",
    slice_of: "SELECT counter, series, total, seq, WRITETIME(total) FROM {ks}.counter_totals \
               WHERE namespace = ? AND shard = ? AND epoch = ? AND counter = ? LIMIT ?",
    slice_of_after: "SELECT counter, series, total, seq, WRITETIME(total) FROM {ks}.counter_totals \
                     WHERE namespace = ? AND shard = ? AND epoch = ? AND counter = ? AND series > ? LIMIT ?",
    shards: "SELECT DISTINCT namespace, shard, epoch FROM {ks}.counter_totals",
    named: "SELECT counter, series, total, seq, WRITETIME(total) FROM {ks}.counter_totals \
            WHERE namespace = ? AND shard = ? AND epoch = ? AND (counter, series) IN ?",
    insert_event: "INSERT INTO {ks}.events (namespace, name, hour, shard, time, id, subject, properties, received) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    insert_event_by_subject: "INSERT INTO {ks}.events_by_subject \
                              (namespace, subject, month, time, id, name, properties, received) \
                              VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    insert_hour: "INSERT INTO {ks}.event_hours (namespace, name, hour) VALUES (?, ?, ?) USING TIMESTAMP ?",
    insert_month: "INSERT INTO {ks}.event_months (namespace, month) VALUES (?, ?) USING TIMESTAMP ?",
    hours: "SELECT hour FROM {ks}.event_hours WHERE namespace = ? AND name = ? AND hour >= ? AND hour <= ?",
    months: "SELECT month FROM {ks}.event_months WHERE namespace = ? AND month >= ? AND month <= ?",
    events: "SELECT time, id, subject, properties, received, WRITETIME(received) FROM {ks}.events \
             WHERE namespace = ? AND name = ? AND hour = ? AND shard = ? \
             AND (time, id) >= (?, ?) AND (time, id) < (?, ?) LIMIT ?",
    events_by_subject: "SELECT time, id, name, properties, received, WRITETIME(received) FROM {ks}.events_by_subject \
                        WHERE namespace = ? AND subject = ? AND month = ? \
                        AND (time, id) >= (?, ?) AND (time, id) < (?, ?) LIMIT ?",
    lanes: "SELECT topic_id, partition, seq, leader_epoch, pack, stamp, dedup_from, dedup_stamp, unmet_base, stored, WRITETIME(stored), \
            counted_since, counted_items, counted_duplicates, counted_amount FROM {ks}.checkpoints WHERE topic = ?",
    insert_checkpoint: "INSERT INTO {ks}.checkpoints (topic, topic_id, partition, \
                        seq, leader_epoch, pack, stamp, dedup_from, dedup_stamp, unmet_base, \
                        counted_since, counted_items, counted_duplicates, counted_amount) \
                        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    insert_stored: "INSERT INTO {ks}.checkpoints (topic, topic_id, partition, stored) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    epochs: "SELECT epoch, topic_id, cluster_id, partitions, shards, dedup_window, dedup_max_ids, created \
             FROM {ks}.epochs WHERE topic = ?",
    epoch: "SELECT created FROM {ks}.epochs WHERE topic = ? AND epoch = ?",
    insert_epoch: "INSERT INTO {ks}.epochs (topic, epoch, topic_id, cluster_id, partitions, shards, \
                   dedup_window, dedup_max_ids, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    insert_letter: "INSERT INTO {ks}.replayed (topic, topic_id, partition, seq) VALUES (?, ?, ?, ?) USING TIMESTAMP ?",
    insert_replayed: "INSERT INTO {ks}.replayed (topic, topic_id, partition, seq, by_topic_id, by_seq) \
                      VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
    letters: "SELECT seq, by_topic_id, by_seq, WRITETIME(by_seq) FROM {ks}.replayed \
              WHERE topic = ? AND topic_id = ? AND partition = ? AND seq >= ? AND seq <= ? LIMIT ?",
    halts: "SELECT topic_id, partition, kind, reason, command, from_seq, to_seq, partitions, shards, worker, since \
            FROM {ks}.halts WHERE topic = ?",
    insert_halt: "INSERT INTO {ks}.halts (topic, topic_id, partition, kind, reason, command, from_seq, to_seq, partitions, \
                  shards, worker, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    delete_halt: "DELETE FROM {ks}.halts WHERE topic = ? AND topic_id = ? AND partition = ?",
    remedies: "SELECT at, id, topic_id, kind, partition, from_seq, to_seq, floor, partitions, shards, who, why, says \
               FROM {ks}.remedies WHERE topic = ?",
    insert_remedy: "INSERT INTO {ks}.remedies (topic, at, id, topic_id, kind, partition, from_seq, to_seq, floor, partitions, \
                    shards, who, why, says) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
}

/// What `totals` writes, without the driver's look at each value.
const TOTAL: [NativeType; 8] = {
    use NativeType as T;
    [T::Text, T::Int, T::Blob, T::Text, T::Text, T::Varint, T::BigInt, T::BigInt]
};

impl Statements {
    /// Prepares them all.
    pub async fn prepare(session: &Session, servers: &Servers) -> Result<Self, Error> {
        let other = |why: &str| {
            let (keyspace, url) = (&servers.path, connect::url(servers));
            let message = format!(
                "the tables of keyspace `{keyspace}` are not this program's ({why}): compare them with `tallymark schema print --store {url}`"
            );
            Error::new(Kind::Fatal, message)
        };
        let statements = Self::all(session, &connect::keyspace(servers))
            .await
            .map_err(|error| fault::unprepared(&error).unwrap_or_else(|| other(&fault::refusal(&error))))?;
        let columns = statements.insert_total.get_variable_col_specs();
        let types = columns.iter().map(|column| column.typ());
        if !types.eq(&TOTAL.map(ColumnType::Native)) {
            return Err(other("counter_totals has columns of other types"));
        }
        Ok(statements)
    }

    /// A statement whose answers have so many rows at most.
    pub fn paged(statement: &PreparedStatement, rows: i32) -> PreparedStatement {
        let mut statement = statement.clone();
        statement.set_page_size(rows.max(1));
        statement
    }
}
