//! The dedup window: which ids a lane has seen lately (law 7).
//!
//! Every id that the log carries is noted in pack order, whatever the verdict; an item is a duplicate when its id was last
//! noted within the window of log time and among the last `max_ids` notes. Both bounds evict from the old end, note by
//! note, so that the suffix of the log back to the oldest live note determines the window exactly: [`Window::begins`]
//! names it, and noting that suffix again rebuilds it.
//!
//! Memory: 16 bytes a note in a ring, and 8 bytes a slot in an index that holds ring positions instead of ids.

use std::collections::VecDeque;

use crate::{
    bugs::{self, Bug},
    item::{Seq, Stamp},
    worker::index::Index,
};

/// Ids whose slots are brought near together. Few in tests: there a pack of a few ids takes several rounds.
const TOGETHER: usize = if cfg!(test) { 3 } else { 64 };

/// Where a window begins: note the log from `from` on, the stamp before it being `stamp`, and it is the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begins {
    /// The pack that holds the oldest live note.
    pub from: Seq,
    /// The stamp of the pack before it.
    pub stamp: Stamp,
}

/// The notes of one pack.
#[derive(Clone, Copy, Debug)]
struct Span {
    seq: Seq,
    /// How old it is: its own stamp, and every leap since.
    stamp: Stamp,
    before: Stamp,
    /// Absolute position one past its last note.
    end: u64,
}

/// The ids that a lane remembers.
pub struct Window {
    window_us: i64,
    max_ids: usize,
    /// Ring positions (their low 32 bits) of the last note of each id.
    last: Index,
    notes: VecDeque<[u8; 16]>,
    /// Absolute position of the oldest note.
    first: u64,
    packs: VecDeque<Span>,
}

/// Ids are BLAKE3 output or random: any eight bytes of them are a hash.
fn hash(id: &[u8; 16]) -> u64 {
    u64::from_le_bytes(id[..8].try_into().expect("eight bytes"))
}

impl Window {
    /// An empty window. `max_ids` is at least 1 and at most 2^31.
    pub fn new(window_us: i64, max_ids: u64) -> Self {
        let max_ids = usize::try_from(max_ids.clamp(1, 1 << 31)).expect("at most 2^31");
        Self { window_us, max_ids, last: Index::new(), notes: VecDeque::new(), first: 0, packs: VecDeque::new() }
    }

    /// Begins a pack: forgets what is too old at `stamp`. `before` is the stamp of the pack before it.
    pub fn begin(&mut self, seq: Seq, stamp: Stamp, before: Stamp) {
        let oldest = stamp.0.saturating_sub(self.window_us);
        while let Some(pack) = self.packs.front().filter(|pack| pack.stamp.0 < oldest).copied() {
            while self.first < pack.end {
                self.forget_oldest();
            }
            if self.packs.front().is_some_and(|front| front.seq == pack.seq) {
                self.packs.pop_front();
            }
        }
        let end = self.end();
        self.packs.push_back(Span { seq, stamp, before, end });
    }

    /// The stamps go on `by_us` further than time has: what is held stays as old as it is.
    pub fn leap(&mut self, by_us: i64) {
        self.packs.iter_mut().for_each(|pack| pack.stamp.0 = pack.stamp.0.saturating_add(by_us));
    }

    /// Notes an id of the pack that was begun last; answers whether it is a duplicate.
    pub fn note(&mut self, id: &[u8; 16]) -> bool {
        let position = self.end();
        let low = self.first as u32;
        let is_same = |at: u32| self.notes[at.wrapping_sub(low) as usize] == *id;
        if bugs::on(Bug::DedupByFirstSeen) && self.last.find(hash(id), is_same).is_some() {
            return true;
        }
        let seen = self.last.set(hash(id), position as u32, is_same);
        self.notes.push_back(*id);
        if let Some(pack) = self.packs.back_mut() {
            pack.end = position + 1;
        }
        if self.notes.len() > self.max_ids {
            self.forget_oldest();
        }
        seen
    }

    /// Notes ids one after another, like [`Window::note`], and tells each verdict.
    pub fn note_all(&mut self, ids: &[[u8; 16]], mut tell: impl FnMut(bool)) {
        for ids in ids.chunks(TOGETHER) {
            // Nearly every id misses the cache, and so does the one that it drives out.
            let leaving = (self.notes.len() + ids.len()).saturating_sub(self.max_ids).min(self.notes.len());
            let leaving = self.notes.range(..leaving);
            let touched = ids.iter().chain(leaving).map(|id| self.last.touch(hash(id)));
            std::hint::black_box(touched.fold(0, |all, slot| all ^ slot));
            for id in ids {
                tell(self.note(id));
            }
        }
    }

    /// Where the window begins; `None` when it is empty.
    pub fn begins(&self) -> Option<Begins> {
        // Packs whose notes are gone stay in front until the next one is forgotten: skip them.
        let pack = self.packs.iter().find(|pack| pack.end > self.first)?;
        Some(Begins { from: pack.seq, stamp: pack.before })
    }

    /// How many notes are held.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// The stamp of the oldest live note when `max_ids` is what binds: the window is shorter than configured.
    pub fn bound_at(&self) -> Option<Stamp> {
        (self.notes.len() == self.max_ids)
            .then(|| self.packs.iter().find(|pack| pack.end > self.first))?
            .map(|pack| pack.stamp)
    }

    /// The configured window, in microseconds.
    pub fn configured_us(&self) -> i64 {
        self.window_us
    }

    fn end(&self) -> u64 {
        self.first + self.notes.len() as u64
    }

    fn forget_oldest(&mut self) {
        let Some(id) = self.notes.front().copied() else { return };
        // Only if this note is its id's last one; otherwise the id was seen again and lives on.
        self.last.remove(hash(&id), self.first as u32);
        self.notes.pop_front();
        self.first += 1;
        while self.packs.len() > 1 && self.packs.front().is_some_and(|pack| pack.end <= self.first) {
            self.packs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> [u8; 16] {
        let mut id = [0; 16];
        // Few distinct hashes, so that probing is exercised too.
        id[0] = n % 3;
        id[15] = n;
        id
    }

    #[test]
    fn a_leap_of_the_stamps_makes_nothing_older_and_the_window_is_rebuilt_from_where_it_began() {
        let mut window = Window::new(10, 100);
        window.begin(Seq(4), Stamp(100), Stamp(99));
        assert!(!window.note(&id(1)));
        window.leap(1_000);
        window.begin(Seq(5), Stamp(1_105), Stamp(1_104));
        assert!(window.note(&id(1)), "five have passed, whatever the stamps say");
        window.begin(Seq(6), Stamp(1_111), Stamp(1_105));
        assert_eq!(window.begins(), Some(Begins { from: Seq(5), stamp: Stamp(1_104) }), "eleven have");
        window.begin(Seq(7), Stamp(1_116), Stamp(1_111));
        assert!(!window.note(&id(1)));
    }

    /// Remembers everything and applies the definition literally.
    #[derive(Default)]
    struct Naive {
        notes: Vec<([u8; 16], Stamp, Seq, Stamp)>,
    }

    impl Naive {
        fn live(&self, now: Stamp, window: i64, max: usize) -> &[([u8; 16], Stamp, Seq, Stamp)] {
            let by_count = self.notes.len().saturating_sub(max);
            let by_time = self.notes.iter().position(|note| note.1.0 >= now.0 - window).unwrap_or(self.notes.len());
            &self.notes[by_count.max(by_time)..]
        }
    }

    type Log = Vec<(i64, Vec<u8>)>;

    fn logs() -> impl Strategy<Value = Log> {
        proptest::collection::vec((1..40i64, proptest::collection::vec(0..12u8, 0..8)), 1..40)
    }

    proptest! {
        #[test]
        fn verdicts_equal_the_definition(log in logs(), max in 1..20usize, window in 0..100i64) {
            let (mut tested, mut naive) = (Window::new(window, max as u64), Naive::default());
            let mut stamp = Stamp(0);
            for (seq, (step, ids)) in log.into_iter().enumerate() {
                let (before, seq) = (stamp, Seq(seq as u64));
                stamp.0 += step;
                tested.begin(seq, stamp, before);
                for n in ids {
                    let expected = naive.live(stamp, window, max).iter().any(|note| note.0 == id(n));
                    prop_assert_eq!(tested.note(&id(n)), expected);
                    naive.notes.push((id(n), stamp, seq, before));
                    prop_assert!(tested.len() <= max);
                }
                let begins = naive.live(stamp, window, max).first().map(|note| Begins { from: note.2, stamp: note.3 });
                prop_assert_eq!(tested.begins(), begins);
            }
        }

        #[test]
        fn a_window_rebuilt_from_where_it_begins_gives_the_same_verdicts(log in logs(), cut in 0..40usize, max in 1..20usize, window in 0..100i64) {
            let cut = cut.min(log.len());
            let mut stamps = vec![Stamp(0)];
            for (step, _) in &log {
                stamps.push(Stamp(stamps[stamps.len() - 1].0 + step));
            }
            let run = |window: &mut Window, packs: std::ops::Range<usize>| -> Vec<bool> {
                let mut verdicts = Vec::new();
                for at in packs {
                    window.begin(Seq(at as u64), stamps[at + 1], stamps[at]);
                    let ids: Vec<_> = log[at].1.iter().map(|n| id(*n)).collect();
                    window.note_all(&ids, |seen| verdicts.push(seen));
                }
                verdicts
            };
            let mut original = Window::new(window, max as u64);
            run(&mut original, 0..cut);
            let mut rebuilt = Window::new(window, max as u64);
            if let Some(begins) = original.begins() {
                prop_assert_eq!(begins.stamp, stamps[begins.from.0 as usize]);
                run(&mut rebuilt, begins.from.0 as usize..cut);
            }
            prop_assert_eq!(run(&mut original, cut..log.len()), run(&mut rebuilt, cut..log.len()));
            prop_assert_eq!(original.len(), rebuilt.len());
        }
    }

    #[test]
    fn an_id_seen_again_is_remembered_from_then_on() {
        let mut window = Window::new(10, 100);
        window.begin(Seq(0), Stamp(0), Stamp(-1));
        assert!(!window.note(&id(1)));
        window.begin(Seq(1), Stamp(8), Stamp(0));
        assert!(window.note(&id(1)), "last seen 8 ago");
        window.begin(Seq(2), Stamp(16), Stamp(8));
        assert!(window.note(&id(1)), "first seen 16 ago, last seen 8 ago");
        window.begin(Seq(3), Stamp(27), Stamp(16));
        assert!(!window.note(&id(1)), "last seen 11 ago");
    }
}
