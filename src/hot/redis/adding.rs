//! Adding a pack's deltas: plain writes in one pipeline, on the way of an acknowledgement.
//!
//! `HSETNX`, and nothing is read but the marks: the same (lane, seq) is written once, and whatever the base covers is ignored
//! by readers and dropped by the next publish. One pack in a few asks how large its entries are, and gives them a time to
//! live; an entry that is too large is bounded by a script, which also says that something was left out.

use std::sync::PoisonError;

use rand::Rng as _;
use redis::Value;

use super::{
    Redis,
    fault::{Failure, Fault},
    marks::{self, Extent, Said},
    names::{Command, lane_name, pending_field, slot},
    scripts::Which,
    servers::Answer,
};
use crate::{
    hot::{Delta, Error, HotKey, HotKind},
    item::{Lane, Seq},
};

/// One pack in so many gives its entries a time to live; a publish does it anyway.
const EXPIRES: u32 = 8;
/// Numbers that are fetched at a time.
const FETCH: u64 = 1000;
/// Times that `add` looks for series which were announced while it wrote.
const ROUNDS: usize = 4;
/// Most entries that are remembered as too large.
const MAX_OVER: usize = 65_536;

/// Notes, unless all is well, that the deltas of a pack may not have arrived: also when the wait for them was given up.
struct Unsure<'a> {
    redis: &'a Redis,
    lane: &'a str,
    end: u64,
    sure: bool,
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if !self.sure {
            self.redis.marks.lose(self.lane, self.end);
            self.redis.meters.unsure.increment(1);
        }
    }
}

/// What a command of the pipeline was for.
#[derive(Clone, Copy)]
enum Asked {
    Set(usize),
    Length(usize),
    Expiry,
}

fn over_hash(key: &HotKey) -> u64 {
    let hash = marks::hash(key);
    if key.kind == HotKind::Counter { !hash } else { hash }
}

impl Redis {
    pub(super) async fn add_pack(&self, lane: Lane, seq: Seq, deltas: &[Delta]) -> Result<(), Error> {
        let lane = lane_name(lane);
        let mut unsure = Unsure { redis: self, lane: &lane, end: seq.next().0, sure: false };
        self.tell_lost().await;
        let mut sent = vec![false; deltas.len()];
        let mut outcome = Ok(());
        let mut seen = None;
        for _ in 0..ROUNDS {
            let (extent, announced) = self.marks.announced(deltas.iter().map(|delta| &delta.key));
            let chosen: Vec<usize> = (0..deltas.len())
                .filter(|at| !sent[*at] && (announced[*at] || deltas[*at].key.kind == HotKind::Counter))
                .collect();
            if chosen.is_empty() && seen.as_ref() == Some(&extent) {
                unsure.sure = true;
                return outcome.map_err(Error::from);
            }
            let (said, written) = self.write(&lane, seq, deltas, &chosen).await?;
            chosen.iter().for_each(|at| sent[*at] = true);
            if let Err(failure) = written {
                outcome = Err(failure);
            }
            if said.extent == extent {
                unsure.sure = true;
                return outcome.map_err(Error::from);
            }
            self.fetch(&said.extent).await?;
            seen = Some(said.extent);
        }
        Err(Failure::new(Fault::Other, "series are announced faster than they can be fetched").into())
    }

    /// Writes the chosen deltas. Answers what the marks said, and whether an entry had to be deleted because memory is full.
    ///
    /// # Errors
    /// Some delta may not have arrived.
    async fn write(
        &self,
        lane: &str,
        seq: Seq,
        deltas: &[Delta],
        chosen: &[usize],
    ) -> Result<(Said, Result<(), Failure>), Failure> {
        let (checks, expires) = {
            let mut random = rand::rng();
            let every = u32::try_from(self.max_pending / 16).unwrap_or(u32::MAX).max(1);
            (random.random_ratio(1, every), random.random_ratio(1, EXPIRES))
        };
        let field = pending_field(lane, seq);
        let mut commands = Vec::with_capacity(1 + chosen.len() * (1 + usize::from(checks) + usize::from(expires)));
        let mut asked = Vec::with_capacity(commands.capacity());
        commands.push(self.ask_marks());
        let ttl_ms = self.ttl_ms();
        let (mut name, mut full) = (Vec::new(), Vec::new());
        for at in chosen {
            let delta = &deltas[*at];
            if self.is_over(&delta.key) {
                full.push(*at);
                continue;
            }
            self.names.write_entry(&mut name, &delta.key);
            let slot = if self.servers.is_single() { 0 } else { slot(&name) };
            let mut set = redis::Cmd::with_capacity(4, name.len() + field.len() + 32);
            set.arg("HSETNX").arg(&name).arg(&field).arg(delta.amount);
            commands.push(Command { slot, cmd: set });
            asked.push(Asked::Set(*at));
            if checks {
                let mut length = redis::Cmd::with_capacity(2, name.len() + 4);
                length.arg("HLEN").arg(&name);
                commands.push(Command { slot, cmd: length });
                asked.push(Asked::Length(*at));
            }
            if expires {
                let mut expire = redis::Cmd::with_capacity(4, name.len() + 24);
                expire.arg("PEXPIRE").arg(&name).arg(ttl_ms).arg("NX");
                commands.push(Command { slot, cmd: expire });
                asked.push(Asked::Expiry);
            }
        }
        let mut answers = self.servers.run(commands).await.into_iter();
        let (marks, link) = answers.next().unwrap_or_else(|| Err(Failure::new(Fault::Away, "no answer")))?;
        let said = Said::read(&marks, &link.run);
        let (mut refused, mut failed, mut large, mut new) = (Vec::new(), None, Vec::new(), false);
        let mut wrote = None;
        for (asked, answer) in asked.into_iter().zip(answers) {
            match (asked, answer) {
                (Asked::Set(_), Ok((value, link))) => {
                    new = value == Value::Int(1);
                    wrote = Some(link);
                }
                (Asked::Set(at), Err(failure)) if failure.fault == Fault::Full => {
                    new = false;
                    refused.push((at, failure));
                }
                (Asked::Length(at), Ok((Value::Int(length), _)))
                    if new && usize::try_from(length).unwrap_or(0) > self.max_pending =>
                {
                    large.push(at);
                }
                (Asked::Length(_) | Asked::Expiry, Ok(_)) => {}
                (_, Err(failure)) => failed = Some(failure),
            }
        }
        if let Some(link) = wrote {
            link.wrote();
        }
        for (delta, was_set) in large.iter().map(|at| (*at, true)).chain(full.into_iter().map(|at| (at, false))) {
            match self.bound(lane, seq, &deltas[delta], was_set).await {
                Ok(()) => {}
                Err(failure) if failure.fault == Fault::Full => refused.push((delta, failure)),
                Err(failure) => failed = Some(failure),
            }
        }
        let mut outcome = Ok(());
        if let Some((_, failure)) = refused.first() {
            outcome = Err(failure.clone());
            self.drop_entries(refused.iter().map(|(at, _)| &deltas[*at].key)).await?;
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok((said, outcome)),
        }
    }

    /// Deletes entries that lack something: that needs no memory, and what is not there says nothing wrong.
    async fn drop_entries<'a>(&self, keys: impl Iterator<Item = &'a HotKey>) -> Result<(), Failure> {
        let commands: Vec<_> = keys.map(|key| Command::on("UNLINK", &self.names.entry(key), 0)).collect();
        self.meters.dropped.increment(commands.len() as u64);
        self.servers.run(commands).await.into_iter().try_for_each(|answer: Answer| answer.map(drop))
    }

    /// Whether the entry held as many deltas as it may when it was last looked at.
    fn is_over(&self, key: &HotKey) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        !over.is_empty() && over.contains_key(&over_hash(key))
    }

    /// Adds a delta to an entry that may be too large, or leaves it out and says so.
    async fn bound(&self, lane: &str, seq: Seq, delta: &Delta, was_set: bool) -> Result<(), Failure> {
        let hash = over_hash(&delta.key);
        // Counting what is in it takes its time: done once in a while only, when it was found too large.
        let skips = |over: &mut u32| {
            let skips = *over > 0;
            *over = over.saturating_sub(1);
            skips
        };
        let leave =
            !was_set && self.over.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&hash).is_some_and(skips);
        let name = self.names.entry(&delta.key);
        let mut cmd = if leave { Which::Leave.call(1) } else { Which::Bound.call(1) };
        cmd.arg(&name).arg(lane).arg(seq.0);
        if !leave {
            cmd.arg(delta.amount).arg(self.max_pending).arg(u8::from(was_set));
        }
        let (answer, link) = self.one(Command { slot: slot(&name), cmd }).await?;
        link.wrote();
        let left_out = answer == Value::Int(1);
        self.meters.left_out.increment(u64::from(left_out));
        if !leave {
            let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
            if left_out {
                if over.len() >= MAX_OVER {
                    over.clear();
                }
                over.insert(hash, u32::try_from(self.max_pending / 16).unwrap_or(u32::MAX));
            } else {
                over.remove(&hash);
            }
        }
        Ok(())
    }

    /// Tells the marks of what may be lost, if they do not know yet. What fails is told the next time.
    pub(super) async fn tell_lost(&self) {
        let untold = self.marks.untold();
        if untold.is_empty() {
            return;
        }
        let mut cmd = Which::Lost.call(1);
        cmd.arg(&self.names.marks);
        for (lane, end) in &untold {
            cmd.arg(lane).arg(end);
        }
        if self.one(Command { slot: slot(&self.names.marks), cmd }).await.is_ok() {
            self.marks.told(&untold);
        }
    }

    /// Fetches the series that these marks announce and that are not known here.
    pub(super) async fn fetch(&self, said: &Extent) -> Result<(), Failure> {
        while let Some((first, last)) = self.marks.behind(said) {
            let last = last.min(first + FETCH - 1);
            let mut ask = Command::on("HMGET", &self.names.marks, 8 * FETCH as usize);
            for number in first..=last {
                ask.cmd.arg(number);
            }
            let (values, _) = self.one(ask).await?;
            self.marks.fetched(said, first, &values);
            if self.marks.behind(said).is_some_and(|(still, _)| still <= first) {
                // They are gone meanwhile: whoever asked asks again.
                return Ok(());
            }
        }
        Ok(())
    }
}
