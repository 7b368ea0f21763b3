//! Reading entries: plain reads in one pipeline, decided here.

use std::collections::HashMap;

use redis::Value;

use super::{
    Redis,
    entry::{Entry, base},
    fault::{Failure, Fault},
    marks::Said,
    names::Command,
    node::bytes_of,
    servers::Answer,
};
use crate::{
    hot::{Error, HotKey, HotKind, View},
    item::Seq,
};

/// The fields of a hash as `HGETALL` answers them.
pub(super) fn fields(value: &Value) -> impl Iterator<Item = (&[u8], &[u8])> {
    let flat = match value {
        Value::Array(flat) => &flat[..],
        _ => &[],
    };
    flat.chunks_exact(2).filter_map(|pair| Some((bytes_of(&pair[0])?, bytes_of(&pair[1])?)))
}

/// An entry that is full, and what it may lack.
struct Seen {
    total: i128,
    stale: bool,
    /// Lanes whose publishes must reach these ends before it lacks nothing.
    until: Vec<(String, u64)>,
}

impl Redis {
    pub(super) async fn views(&self, keys: &[HotKey]) -> Result<Vec<View>, Error> {
        self.tell_lost().await;
        let mut commands = Vec::with_capacity(1 + keys.len());
        commands.push(self.ask_marks());
        let mut probes = Vec::new();
        for key in keys {
            let command = Command::on("HGETALL", &self.names.entry(key), 0);
            // What is read from a server that takes no writes may lack them. Its life is prolonged, to see.
            if !self.servers.writes(command.slot) {
                let mut probe = Command::on("PEXPIRE", &self.names.entry(key), 16);
                probe.cmd.arg(self.ttl_ms());
                probes.push(probe);
            }
            commands.push(command);
        }
        let slots: Vec<u16> = commands.iter().skip(1).map(|command| command.slot).collect();
        let probed: Vec<u16> = probes.iter().map(|probe| probe.slot).collect();
        commands.extend(probes);
        let mut answers = self.servers.run(commands).await.into_iter();
        let (marks, link) = answers.next().unwrap_or_else(|| Err(Failure::new(Fault::Away, "no answer")))?;
        let said = Said::read(&marks, &link.run);
        // What this process adds must not wait until it has met the marks by itself: loads go by them.
        if self.marks.behind(&said.extent).is_some() {
            self.fetch(&said.extent).await?;
        }
        let entries: Vec<Answer> = answers.by_ref().take(keys.len()).collect();
        let mut closed = Vec::new();
        for (slot, answer) in probed.into_iter().zip(answers) {
            match answer {
                Ok((_, link)) => link.wrote(),
                Err(_) => closed.push(slot),
            }
        }
        if let Some(failure) = all_failed(&entries) {
            return Err(failure.clone().into());
        }
        let mut lost = said.lost.clone();
        lost.extend(self.marks.lost());
        let seen: Vec<Option<Seen>> = entries
            .iter()
            .zip(&slots)
            .map(|(answer, slot)| {
                let (value, link) = answer.as_ref().ok()?;
                let entry = Entry::read(fields(value))?;
                if !entry.is_full(&link.run, said.extent.generation.as_deref()) {
                    return None;
                }
                let waits = entry.waits().map(|(lane, end)| (String::from_utf8_lossy(lane).into_owned(), end));
                let lacks = lost.iter().filter(|(lane, end)| entry.covered(lane.as_bytes()) < *end).cloned();
                let until = waits.chain(lacks).collect();
                let stale = entry.lacks() || closed.contains(slot);
                Some(Seen { total: entry.total(), stale, until })
            })
            .collect();
        self.learn_published(&seen).await?;
        let view = |seen: Option<Seen>| match seen {
            None => View::Miss,
            Some(Seen { total, stale, until }) => {
                let waits = until.iter().any(|(lane, end)| self.marks.reached(lane) < *end);
                View::Full { total, stale: stale || waits }
            }
        };
        Ok(seen.into_iter().map(view).collect())
    }

    /// Asks how far the lanes that somebody waits for are published, unless it is known that they are far enough.
    async fn learn_published(&self, seen: &[Option<Seen>]) -> Result<(), Error> {
        let mut wanted: HashMap<&str, u64> = HashMap::new();
        for (lane, end) in seen.iter().flatten().flat_map(|seen| &seen.until) {
            let most = wanted.entry(lane).or_default();
            *most = end.max(most).to_owned();
        }
        wanted.retain(|lane, end| self.marks.reached(lane) < *end);
        let lanes: Vec<&str> = wanted.into_keys().collect();
        let ask = |lane: &&str| Command::on("GET", self.names.published(lane).as_bytes(), 0);
        for (lane, answer) in lanes.iter().zip(self.servers.run(lanes.iter().map(ask).collect()).await) {
            let (value, _) = answer?;
            if let Some(end) = bytes_of(&value).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()) {
                self.marks.published(lane, end);
            }
        }
        Ok(())
    }

    /// The lane's base in each of these entries, as it stands there: whether the entry counts is another question.
    pub(super) async fn bases_of(&self, lane: &str, keys: &[HotKey]) -> Result<Vec<Option<(i128, Seq)>>, Error> {
        let field = format!("b:{lane}");
        let ask = |key: &HotKey| {
            let mut command = Command::on("HGET", &self.names.entry(key), 1);
            command.cmd.arg(&field);
            command
        };
        let answers = self.servers.run(keys.iter().map(ask).collect()).await;
        let read = |answer: Answer| {
            let (value, _) = answer?;
            Ok(bytes_of(&value).and_then(base).map(|(total, seq)| (total, Seq(seq))))
        };
        answers.into_iter().map(read).collect()
    }

    /// A series that was not announced has no entry that counts: whoever loads it will announce it, and read what is stored
    /// by now. So it needs no asking.
    pub(super) async fn which_are_known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error> {
        let (said, link) = self.one(self.ask_marks()).await?;
        let extent = Said::read(&said, &link.run).extent;
        self.fetch(&extent).await?;
        let (_, announced) = self.marks.announced(keys.iter());
        let asked: Vec<usize> =
            (0..keys.len()).filter(|at| announced[*at] || keys[*at].kind == HotKind::Counter).collect();
        let commands = asked.iter().map(|at| Command::on("EXISTS", &self.names.entry(&keys[*at]), 0)).collect();
        let mut known = vec![false; keys.len()];
        for (at, answer) in asked.into_iter().zip(self.servers.run(commands).await) {
            known[at] = answer?.0 == Value::Int(1);
        }
        Ok(known)
    }
}

/// The failure of a server that gave no answer at all.
fn all_failed(answers: &[Answer]) -> Option<&Failure> {
    let mut failures = answers.iter().map(|answer| answer.as_ref().err());
    failures.clone().all(|failure| failure.is_some()).then(|| failures.next().flatten()).flatten()
}
