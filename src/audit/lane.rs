//! One lane's audit: its checkpoint, its rows, its log, and a second look at whatever differs.
//!
//! The order is what makes it sound. The checkpoint is read before the rows, so that everything up to it must be in them; the
//! rows before the log's end, so that the log has every pack that a row can name; the log up to the highest seq that any of
//! them names. Rows that differ are read again, and the log on to where they are by then.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Deps, Error, From, Options,
    book::{Book, Extent, Row, Seen, Verdict},
    epoch_of,
    events::Events,
    key_of,
    recount::Recount,
    repair,
    report::{Counts, Drift, Kind, LaneReport, Repair, Sum},
};
use crate::{
    hot::{HotKey, HotKind},
    item::{Coordinates, Lane, Seq},
    log::Bounds,
    store::{Checkpoint, EpochRow, RowName, ShardKey, Slice},
    worker::accepted::Accepted,
};

/// Bytes of the log read at a time.
const READ_BYTES: usize = 4 << 20;
/// Rows read at a time.
const PAGE: usize = 2_000;
/// Entries of the hot view asked for at a time.
const HOT_CHUNK: usize = 500;
/// How often a row that differs is looked at before it is called moving.
const LOOKS: usize = 6;

/// One lane's audit.
pub(super) struct Pass<'a> {
    pub(super) deps: &'a Deps,
    pub(super) options: &'a Options,
    pub(super) epochs: &'a [EpochRow],
    /// Every shard of the store that has rows.
    pub(super) shards: &'a [ShardKey],
    pub(super) partition: u32,
}

/// What was found.
pub(super) struct Found {
    pub(super) report: LaneReport,
    pub(super) drifts: Vec<Drift>,
    pub(super) repairs: Vec<Repair>,
    pub(super) notes: Vec<String>,
}

type Place = (ShardKey, RowName);

impl Pass<'_> {
    pub(super) async fn run(&self, mut progress: impl FnMut(u64, u64) + Send) -> Result<Found, Error> {
        let lane = Lane { topic_id: self.deps.log.topology().topic_id, partition: self.partition };
        let checkpoint = self.checkpoint(lane).await?;
        let bounds = self.deps.log.bounds(self.partition).await?;
        let remedies = self.deps.store.remedies(&self.deps.log.topology().topic).await?;
        let accepted = Accepted::of(lane, &remedies);
        // What was given up may be in rows all the same: of what lies below an accepted gap's end no total can be told.
        let given_up = accepted.gaps().iter().map(|gap| gap.to).max().unwrap_or(bounds.start);
        let bounds = Bounds { start: bounds.start.max(given_up).min(bounds.end), end: bounds.end };
        let (begin, not_before) = self.begin(bounds).await?;
        let at = checkpoint.as_ref().map(|checkpoint| checkpoint.seq);
        let whole = begin == Seq(0) && not_before == Seq(0);
        let letters = self.letters(lane, begin).await?;
        let mut recount = Recount::new(lane, begin, not_before, self.epochs, &letters, &accepted, self.options.naive);
        let before = checkpoint.as_ref().and_then(|checkpoint| checkpoint.counted.since.0.checked_sub(1)).map(Seq);
        at.into_iter().chain(before).for_each(|seq| recount.mark(seq));
        // The checkpoint says that these are stored, every one.
        recount.keep_events_to(at.filter(|_| self.options.events));
        let mut events = Events::default();

        let mut book = Book::new(Extent { from: begin.max(not_before), whole, checkpoint: at });
        let mut highest = self.read_rows(&mut book).await?;
        highest = highest.max(at).max(self.read_hot(lane, &mut book).await?);
        // Whatever a row can name is in the log by now; a seq beyond its end is nobody's.
        let end = self.deps.log.bounds(self.partition).await?.end;
        let target = highest.map_or(begin, Seq::next).min(end);
        self.read_log(&mut recount, &mut book, &mut events, target, &mut progress).await?;
        book.set_from(recount.from().unwrap_or(target));

        let confirmed = self.confirm(&mut recount, &mut book, &mut events, &mut progress).await?;
        let hot = self.confirm_hot(lane, &mut book, &recount).await?;
        if !confirmed.is_empty() || !hot.is_empty() {
            // A correction may be on its way already, and one that is made now must know every pack.
            let end = self.deps.log.bounds(self.partition).await?.end;
            self.read_log(&mut recount, &mut book, &mut events, end, &mut progress).await?;
        }
        // A second checkpoint lets the log between the two be checked where nothing older is known.
        let later = if whole { None } else { self.checkpoint(lane).await? };
        if let Some(later) = later.as_ref().filter(|later| Some(later.seq) > at) {
            recount.mark(later.seq);
            self.read_log(&mut recount, &mut book, &mut events, later.seq.next(), &mut progress).await?;
        }
        events.look(&*self.deps.store, self.partition, self.options.worst).await?;
        let mut found = self.conclude(&recount, &book, checkpoint.as_ref(), later.as_ref(), &confirmed, &hot).await?;
        self.add_events(&mut found, events);
        Ok(found)
    }

    async fn checkpoint(&self, lane: Lane) -> Result<Option<Checkpoint>, Error> {
        let rows = self.deps.store.lanes(&self.deps.log.topology().topic).await?;
        Ok(rows.into_iter().find(|row| row.lane == lane).and_then(|row| row.checkpoint))
    }

    /// The records from `begin` on that are dead letters for good.
    async fn letters(&self, lane: Lane, begin: Seq) -> Result<Vec<Seq>, Error> {
        let (mut letters, mut from) = (Vec::new(), begin);
        loop {
            let topic = &self.deps.log.topology().topic;
            let page = self.deps.store.letters(topic, lane, from, Seq(u64::MAX), PAGE).await?;
            letters.extend(page.iter().map(|row| row.seq));
            match page.last().filter(|_| page.len() == PAGE) {
                Some(last) => from = last.seq.next(),
                None => return Ok(letters),
            }
        }
    }

    /// Tells the recount what the store knows of a dead letter that was replayed.
    async fn tell_replayed(&self, recount: &mut Recount, at: Coordinates) -> Result<(), Error> {
        let topology = self.deps.log.topology();
        let rows = self.deps.store.letters(&topology.topic, at.lane, at.seq, at.seq, 1).await?;
        let by = rows.iter().find(|row| row.seq == at.seq).and_then(|row| row.replayed);
        recount.tell_replayed(Lane { topic_id: topology.topic_id, partition: self.partition }, at, by);
        Ok(())
    }

    /// Where to begin to read, and from where on items may count.
    async fn begin(&self, bounds: Bounds) -> Result<(Seq, Seq), Error> {
        let not_before = match self.options.from {
            None => return Ok((bounds.start, bounds.start)),
            Some(From::Seq(seq)) => Seq(seq).clamp(bounds.start, bounds.end),
            Some(From::Time(time_ms)) => self.at_time(bounds, time_ms).await?,
        };
        if not_before == bounds.start {
            return Ok((bounds.start, bounds.start));
        }
        // Far enough ahead of it for the dedup window to be full.
        let window_ms = self.epochs.first().map_or(0, |epoch| epoch.dedup_window_us / 1000 + 1);
        let first = self.deps.log.read(self.partition, not_before, 1).await?;
        let begin = match first.first() {
            Some(record) => {
                // And one before it, whose stamp is then past the window.
                let first = self.at_time(bounds, record.append_ms.saturating_sub(window_ms)).await?;
                Seq(first.0.saturating_sub(1)).max(bounds.start)
            }
            None => bounds.start,
        };
        Ok((begin.min(not_before), not_before))
    }

    /// The first record that was appended at this time or later.
    async fn at_time(&self, bounds: Bounds, time_ms: i64) -> Result<Seq, Error> {
        let (mut low, mut high) = (bounds.start.0, bounds.end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.deps.log.read(self.partition, Seq(middle), 1).await?;
            match record.first() {
                Some(record) if record.append_ms < time_ms => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(Seq(low))
    }

    fn is_ours(&self, key: &ShardKey) -> bool {
        epoch_of(self.epochs, key.epoch).is_some_and(|epoch| key.shard.partition(epoch.partitions) == self.partition)
    }

    /// Reads every row of the lane that the store can list. Answers the highest seq that they name.
    async fn read_rows(&self, book: &mut Book) -> Result<Option<Seq>, Error> {
        let mut highest = None;
        for key in self.shards.iter().filter(|key| self.is_ours(key)) {
            highest = highest.max(self.read_shard(book, key).await?);
        }
        Ok(highest)
    }

    async fn read_shard(&self, book: &mut Book, key: &ShardKey) -> Result<Option<Seq>, Error> {
        let mut slice = Slice { limit: PAGE, ..Slice::default() };
        let mut highest = None;
        loop {
            let rows = self.deps.store.totals(key, &slice).await?;
            for row in &rows {
                highest = highest.max(Some(row.seq));
                book.see(key, row);
            }
            if book.len() > self.options.max_rows {
                return Err(Error::TooManyRows { partition: self.partition, max_rows: self.options.max_rows });
            }
            if rows.len() < slice.limit {
                return Ok(highest);
            }
            slice.after = rows.last().map(|row| row.name.clone());
        }
    }

    /// Reads the hot view's bases of the rows. What it does not answer for is not compared.
    async fn read_hot(&self, lane: Lane, book: &mut Book) -> Result<Option<Seq>, Error> {
        if !self.deps.hot.describe().1 {
            return Ok(None);
        }
        let places: Vec<Place> = book.rows().map(|(key, name, _)| (key.clone(), name.clone())).collect();
        let mut highest = None;
        for (place, (total, seq)) in self.bases(lane, &places).await {
            highest = highest.max(Some(seq));
            book.see_hot(&place.0, &place.1, total, seq);
        }
        Ok(highest)
    }

    async fn bases(&self, lane: Lane, places: &[Place]) -> Vec<(Place, (i128, Seq))> {
        let mut found = Vec::new();
        for places in places.chunks(HOT_CHUNK) {
            let keys: Vec<HotKey> = places.iter().map(hot_key).collect();
            let Ok(bases) = self.deps.hot.bases(lane, &keys).await else { continue };
            found.extend(places.iter().zip(bases).filter_map(|(place, base)| Some((place.clone(), base?))));
        }
        found
    }

    async fn read_log(
        &self,
        recount: &mut Recount,
        book: &mut Book,
        events: &mut Events,
        target: Seq,
        progress: &mut (impl FnMut(u64, u64) + Send),
    ) -> Result<(), Error> {
        let first = recount.next();
        while recount.next() < target {
            let records = self.deps.log.read(self.partition, recount.next(), READ_BYTES).await?;
            if records.is_empty() {
                return Err(Error::Short { partition: self.partition, at: recount.next() });
            }
            for record in records.iter().take_while(|record| record.seq < target) {
                while let Some(at) = recount.add(record, book)? {
                    self.tell_replayed(recount, at).await?;
                }
                if recount.rows().max(book.len()) > self.options.max_rows {
                    return Err(Error::TooManyRows { partition: self.partition, max_rows: self.options.max_rows });
                }
            }
            events.add(&*self.deps.store, self.partition, self.options.worst, recount.take_events()).await?;
            progress(recount.next().0 - first.0, target.0 - first.0);
            // The lanes of this process come in between.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Looks at the rows that differ again, and reads the log on to where they are by then. What is the same at two looks, or
    /// wrong at two of its seqs, is wrong.
    async fn confirm(
        &self,
        recount: &mut Recount,
        book: &mut Book,
        events: &mut Events,
        progress: &mut (impl FnMut(u64, u64) + Send),
    ) -> Result<BTreeSet<Place>, Error> {
        let mut confirmed = BTreeSet::new();
        let mut suspects: BTreeSet<Place> = book.suspects(recount.next()).into_iter().collect();
        for look in 0..LOOKS {
            if suspects.is_empty() {
                return Ok(confirmed);
            }
            let mut by_shard: BTreeMap<&ShardKey, Vec<RowName>> = BTreeMap::new();
            for (key, name) in &suspects {
                by_shard.entry(key).or_default().push(name.clone());
            }
            let (mut target, mut changed) = (recount.next(), BTreeSet::new());
            for (key, names) in by_shard {
                for names in names.chunks(PAGE) {
                    let rows = self.deps.store.totals_named(key, names).await?;
                    for (name, row) in names.iter().zip(rows) {
                        let place = (key.clone(), name.clone());
                        match book.look_again(key, name, row.as_ref().map(Seen::from)) {
                            None => drop(confirmed.insert(place)),
                            Some(seq) => {
                                target = target.max(seq.next());
                                changed.insert(place);
                            }
                        }
                    }
                }
            }
            let end = self.deps.log.bounds(self.partition).await?.end;
            self.read_log(recount, book, events, target.min(end), progress).await?;
            changed.retain(|(key, name)| match book.judge(key, name, recount.next()) {
                Verdict::Drift(..) if look > 0 => {
                    confirmed.insert((key.clone(), name.clone()));
                    false
                }
                Verdict::Drift(..) => true,
                _ => book.is_moving(key, name),
            });
            suspects = changed;
        }
        for (key, name) in suspects {
            book.set_moving(&key, &name);
        }
        Ok(confirmed)
    }

    /// The entries of the hot view that differ, and still do.
    async fn confirm_hot(&self, lane: Lane, book: &mut Book, recount: &Recount) -> Result<HashSet<Place>, Error> {
        let is_drift = |row: &Row| matches!(row.judge_hot(recount.next()), Some(Verdict::Drift(..)));
        let suspects: HashMap<Place, Option<(i128, Seq)>> = book
            .rows()
            .filter(|(_, _, row)| is_drift(row))
            .map(|(key, name, row)| ((key.clone(), name.clone()), row.hot()))
            .collect();
        let places: Vec<Place> = suspects.keys().cloned().collect();
        let now = self.bases(lane, &places).await;
        Ok(now.into_iter().filter(|(place, base)| suspects[place] == Some(*base)).map(|(place, _)| place).collect())
    }

    /// Adds what was found of the events.
    fn add_events(&self, found: &mut Found, events: Events) {
        let wrong = events.wrong();
        if self.options.repair && wrong > 0 {
            found.notes.push(format!(
                "lane {}: {wrong} events cannot be repaired: a correction is of a total. Sent again when dedup.window has passed, \
                 they are stored again",
                self.partition
            ));
        }
        let counts = &mut found.report.counts;
        counts.events += events.fine;
        counts.lost += events.lost;
        counts.stale += events.stale;
        counts.foreign += events.foreign;
        found.drifts.extend(events.drifts);
    }

    async fn conclude(
        &self,
        recount: &Recount,
        book: &Book,
        checkpoint: Option<&Checkpoint>,
        later: Option<&Checkpoint>,
        confirmed: &BTreeSet<Place>,
        hot: &HashSet<Place>,
    ) -> Result<Found, Error> {
        let extent = book.extent();
        let (mut counts, mut drifts, mut wrong) = (Counts::default(), Vec::new(), Vec::new());
        let mut notes = Vec::new();
        let mut unknown = 0;
        for (key, name, row) in book.rows() {
            let place = (key.clone(), name.clone());
            let verdict = row.judge(&extent, recount.next());
            let mut found = Vec::new();
            match verdict {
                Verdict::Drift(kind, expected) if confirmed.contains(&place) => {
                    let count = match kind {
                        Kind::Lost => &mut counts.lost,
                        Kind::Doubled => &mut counts.doubled,
                        Kind::Stale => &mut counts.stale,
                        Kind::Foreign | Kind::Hot => &mut counts.foreign,
                    };
                    *count += 1;
                    let seen = row.seen();
                    found.push((kind, seen.map(|seen| seen.seq), seen.map(|seen| seen.total), expected));
                }
                // It came into being, or was written, while the others were read.
                Verdict::Drift(..) => counts.moved += 1,
                Verdict::Unchecked if row.is_moving() => counts.moved += 1,
                Verdict::Unchecked => counts.unchecked += 1,
                Verdict::Fine if row.seen().is_some() => counts.fine += 1,
                Verdict::Fine => {}
            }
            match row.judge_hot(recount.next()) {
                Some(Verdict::Drift(kind, expected)) if hot.contains(&place) => {
                    counts.hot += 1;
                    let base = row.hot();
                    found.push((kind, base.map(|(_, seq)| seq), base.map(|(total, _)| total), expected));
                }
                Some(Verdict::Fine) => counts.hot_fine += 1,
                _ => {}
            }
            let pending = row.is_pending();
            if !found.is_empty() {
                counts.pending += u64::from(pending);
                match row.truth() {
                    Some(truth) if !pending => wrong.push((place, truth)),
                    None => unknown += 1,
                    Some(_) => {}
                }
            }
            drifts.extend(found.into_iter().map(|(kind, seq, found, expected)| Drift {
                kind,
                partition: self.partition,
                namespace: key.namespace.to_string(),
                counter: Some(name.counter.to_string()),
                tags: (key.shard.0 >= 0).then(|| name.tags.to_string()),
                shard: Some(key.shard.0),
                event: None,
                seq: seq.map(|seq| seq.0),
                found,
                expected,
                pending,
            }));
        }
        let mut repairs = Vec::new();
        if self.options.repair {
            if unknown > 0 {
                notes.push(format!(
                    "lane {}: {unknown} rows cannot be repaired: what they were before the log begins is not known",
                    self.partition
                ));
            }
            wrong.sort();
            repairs = repair::append(&*self.deps.log, self.partition, self.epochs, recount.next(), &wrong).await?;
        }
        let from = recount.from().unwrap_or(recount.next());
        let counted = recount.counted();
        let control = match (checkpoint, later) {
            (Some(earlier), Some(later)) if later.seq > earlier.seq => recount.control(Some(earlier), later),
            (Some(checkpoint), _) => recount.control(None, checkpoint),
            _ => None,
        };
        // Rows beyond the checkpoint are taken back to it, which needs the log from there on.
        let sum = checkpoint.filter(|checkpoint| {
            checkpoint.counted.since == Seq(0) && from <= checkpoint.seq.next() && counts.moved == 0
        });
        let sum = sum.map(|checkpoint| Sum { rows: book.sum_at_checkpoint(), checkpoint: checkpoint.counted.amount });
        let report = LaneReport {
            partition: self.partition,
            from: from.0,
            to: recount.next().0,
            whole: extent.whole,
            items: counted.items,
            duplicates: counted.duplicates,
            counts,
            control,
            sum,
            naive: recount.naive_agrees(book, self.epochs),
        };
        Ok(Found { report, drifts, repairs, notes })
    }
}

fn hot_key((key, name): &Place) -> HotKey {
    let kind = if key.shard.0 < 0 { HotKind::Counter } else { HotKind::Series };
    HotKey { kind, key: key_of(key, name).into() }
}
