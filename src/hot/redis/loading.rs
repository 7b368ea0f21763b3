//! Loading an entry: a token first, so that what is written from now on reaches it, then bases and `full` if it is still there.

use redis::Value;

use super::{
    Redis,
    fault::{Failure, Fault},
    marks::{self, MAX_SERIES, Said},
    names::{Command, lane_name, slot},
    scripts::Which,
};
use crate::{
    hot::{Error, HotKey, HotKind, LoadedBase, Token},
    item::{Lane, Seq},
};

impl Redis {
    pub(super) async fn put_token(&self, key: &HotKey) -> Result<Token, Error> {
        if key.kind == HotKind::Series {
            self.announce(key).await?;
        }
        let generation = match self.marks.generation() {
            Some(generation) => generation,
            None => self.begin_generation().await?,
        };
        let name = self.names.entry(key);
        let token = Token(rand::random_range(1..=u64::MAX));
        // The second time when the server is another one than it was: started anew, or the slot has moved.
        for _ in 0..2 {
            let link = self.servers.link(slot(&name)).await?;
            let mut set = Command::on("HSET", &name, 128);
            // What is loaded holds in the life in which its load began: what was lost since then is not known to be lost.
            set.cmd.arg("t").arg(format!("{}:{}:{generation}", token.0, link.run));
            let mut expire = Command::on("PEXPIRE", &name, 16);
            expire.cmd.arg(self.ttl_ms());
            let mut same = true;
            for answer in self.servers.run(vec![set, expire]).await {
                let (_, used) = answer?;
                used.wrote();
                same &= used.run == link.run;
            }
            if same {
                return Ok(token);
            }
        }
        Err(Failure::new(Fault::Closed, "Redis was started anew meanwhile, or its slots move").into())
    }

    /// Makes sure that whoever adds deltas from now on adds those of this series too.
    async fn announce(&self, key: &HotKey) -> Result<(), Error> {
        // Asked, not remembered: the marks may be others by now, which do not announce it.
        let (said, link) = self.one(self.ask_marks()).await?;
        let extent = Said::read(&said, &link.run).extent;
        self.fetch(&extent).await?;
        let (known, announced) = self.marks.announced(std::iter::once(key));
        if announced == [true] && known == extent {
            return Ok(());
        }
        let mut cmd = Which::Announce.call(1);
        cmd.arg(&self.names.marks).arg(marks::hash(key)).arg(MAX_SERIES).arg(a_word()).arg(self.marks_ttl_ms());
        self.one(Command { slot: slot(&self.names.marks), cmd }).await?;
        let (said, link) = self.one(self.ask_marks()).await?;
        Ok(self.fetch(&Said::read(&said, &link.run).extent).await?)
    }

    /// Gives the marks a generation if they have none.
    async fn begin_generation(&self) -> Result<std::sync::Arc<str>, Error> {
        let mut set = Command::on("HSETNX", &self.names.marks, 32);
        set.cmd.arg("g").arg(a_word());
        let mut expire = Command::on("PEXPIRE", &self.names.marks, 16);
        expire.cmd.arg(self.marks_ttl_ms());
        let mut answers = self.servers.run(vec![set, expire, self.ask_marks()]).await;
        let (said, link) = answers.pop().unwrap_or_else(|| Err(Failure::new(Fault::Away, "no answer")))?;
        answers.into_iter().try_for_each(|answer| answer.map(drop))?;
        let extent = Said::read(&said, &link.run).extent;
        self.fetch(&extent).await?;
        extent.generation.ok_or_else(|| Failure::new(Fault::Closed, "Redis has lost the marks just made").into())
    }

    pub(super) async fn set_full(
        &self,
        key: &HotKey,
        token: Token,
        bases: &[LoadedBase],
        ends: &[(Lane, Seq)],
    ) -> Result<bool, Error> {
        let name = self.names.entry(key);
        let bases: Vec<_> = bases.iter().filter_map(|loaded| Some((lane_name(loaded.lane), loaded.base?))).collect();
        let mut cmd = Which::Finish.call(1);
        cmd.arg(&name).arg(token.0).arg(self.ttl_ms()).arg(bases.len());
        for (lane, (total, seq)) in &bases {
            cmd.arg(lane).arg(*total).arg(seq.0);
        }
        for (lane, end) in ends.iter().filter(|(_, end)| end.0 > 0) {
            cmd.arg(lane_name(*lane)).arg(end.0);
        }
        let (answer, link) = self.one(Command { slot: slot(&name), cmd }).await?;
        link.wrote();
        Ok(answer == Value::Int(1))
    }
}

/// A word that nobody has used.
pub(super) fn a_word() -> String {
    format!("{:016x}", rand::random::<u64>())
}
