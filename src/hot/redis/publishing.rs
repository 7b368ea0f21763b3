//! Publishing: a lane's bases, and how far its publishes are through.

use std::sync::PoisonError;

use redis::Value;

use super::{
    Redis,
    entry::{Entry, base as read_base},
    fault::Failure,
    loading::a_word,
    names::{Command, slot},
    node::bytes_of,
    reading::fields,
    scripts::Which,
};
use crate::{
    hot::{Base, Error, HotKey, Published},
    item::Seq,
};

/// Entries of one call of the script: nobody else is served meanwhile.
const CALL: usize = 16;
/// One call: its slot, and its entries with their keys.
type Call<'a> = (u16, Vec<(Vec<u8>, &'a Base)>);

/// So far above what is published packs may well be that ingest has just shown; a claim that is not is overtaken soon.
const FAR: u64 = 10_000;
/// Entries of a lane that are doubted at a time.
const MOST_DOUBTFUL: usize = 1_000;

/// Entries that are on their way at a time.
const ON_THE_WAY: usize = 2048;

impl Redis {
    pub(super) async fn publish_bases(&self, lane: &str, seq: Seq, bases: &[Base]) -> Result<Published, Error> {
        self.tell_from(lane).await?;
        let mut published = Published::default();
        let mut failed = None;
        for bases in bases.chunks(ON_THE_WAY) {
            let mut calls: Vec<Call<'_>> = Vec::new();
            let mut named: Vec<_> = bases
                .iter()
                .map(|base| {
                    let name = self.names.entry(&base.key);
                    // One server serves every slot; of a cluster's slots each is a call of its own.
                    (if self.servers.is_single() { 0 } else { slot(&name) }, name, base)
                })
                .collect();
            named.sort_by_key(|(slot, ..)| *slot);
            for (slot, name, base) in named {
                match calls.last_mut().filter(|(last, entries)| *last == slot && entries.len() < CALL) {
                    Some((_, entries)) => entries.push((name, base)),
                    None => calls.push((slot, vec![(name, base)])),
                }
            }
            let commands = calls.iter().map(|(slot, entries)| {
                let mut cmd = Which::Publish.call(entries.len());
                for (name, _) in entries {
                    cmd.arg(name);
                }
                cmd.arg(lane).arg(seq.0);
                for (_, base) in entries {
                    cmd.arg(base.total).arg(self.ttl_ms());
                }
                Command { slot: *slot, cmd }
            });
            let answers = self.servers.run(commands.collect()).await;
            for ((_, entries), answer) in calls.iter().zip(answers) {
                match answer {
                    Ok((Value::Array(wrote), link)) => {
                        link.wrote();
                        for (wrote, (_, base)) in wrote.iter().zip(entries) {
                            self.count(lane, seq, base, wrote, &link.run, &mut published);
                        }
                    }
                    Ok(_) => {}
                    Err(failure) => failed = Some(failure),
                }
            }
        }
        failed.map_or(Ok(published), |failure| Err(failure.into()))
    }

    /// Counts what the script answered for one entry; its fields as they were tell whether it had told the truth.
    fn count(&self, lane: &str, seq: Seq, base: &Base, wrote: &Value, run: &str, published: &mut Published) {
        if *wrote == Value::Int(0) {
            return;
        }
        if let Some((_, at)) = bytes_of(wrote).and_then(read_base) {
            self.doubt(lane, seq, base, at);
            return;
        }
        published.written += 1;
        let Some(entry) = Entry::read(fields(wrote)) else {
            // Somebody has written into it what is not ours: nobody can read it as long as that is there.
            self.doubt(lane, seq, base, u64::MAX);
            return;
        };
        self.doubt(lane, seq, base, entry.highest(lane.as_bytes()));
        let lost = self.marks.lost().iter().any(|(lost, end)| lost == lane && entry.covered(lane.as_bytes()) < *end);
        let claimed = !lost && entry.is_full(run, self.marks.generation().as_deref());
        let differs = entry.differs(lane.as_bytes(), seq.next().0, base.total, self.marks.reached(lane));
        published.drifted += usize::from(claimed && differs);
    }

    /// Remembers an entry that claims to know packs of the lane far above this seq.
    fn doubt(&self, lane: &str, seq: Seq, base: &Base, at: u64) {
        if at > seq.0.saturating_add(FAR) {
            let mut doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
            let of_lane = doubtful.entry(lane.to_owned()).or_default();
            if of_lane.len() < MOST_DOUBTFUL {
                of_lane.push((base.key.clone(), Seq(at)));
            }
        }
    }

    pub(super) fn take_doubtful(&self, lane: &str) -> Vec<(HotKey, Seq)> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).remove(lane).unwrap_or_default()
    }

    pub(super) async fn delete(&self, keys: &[HotKey]) -> Result<(), Error> {
        let commands = keys.iter().map(|key| Command::on("DEL", &self.names.entry(key), 0)).collect();
        for answer in self.servers.run(commands).await {
            let (_, link) = answer?;
            link.wrote();
        }
        Ok(())
    }

    pub(super) async fn note_published(&self, lane: &str, seq: Seq) -> Result<(), Error> {
        self.tell_from(lane).await?;
        let end = seq.next().0;
        let mut cmd = Which::Published.call(2);
        cmd.arg(self.names.published(lane)).arg(&self.names.marks).arg(lane).arg(end).arg(self.marks_ttl_ms());
        let (_, link) = self.one(Command { slot: slot(&self.names.marks), cmd }).await?;
        link.wrote();
        self.marks.published(lane, end);
        Ok(())
    }

    /// Before its first publish of a lane, says from where on this process publishes it. What was published before it by
    /// nobody is lost with whoever owed it, and entries that are full may lack it.
    async fn tell_from(&self, lane: &str) -> Result<(), Failure> {
        let Some(from) = self.marks.begun(lane) else { return Ok(()) };
        let mut cmd = Which::From.call(2);
        cmd.arg(self.names.published(lane)).arg(&self.names.marks).arg(from).arg(a_word());
        let (raised, _) = self.one(Command { slot: slot(&self.names.marks), cmd }).await?;
        if raised == Value::Int(1) {
            tracing::info!(lane, from, "publishes before this were lost, entries are loaded again");
            self.meters.generations.increment(1);
        }
        self.marks.begin_told(lane, from);
        Ok(())
    }
}
