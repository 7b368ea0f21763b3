//! What a lane's figures were lately: enough to say whether it moves, gains on the log, or went backwards.
//!
//! Pure: time is an argument. `at` is monotonic, so that a jump of the wall clock neither stalls a lane nor hides that it
//! is stalled. Bounded: points older than the window go, and there are never more than `MOST_POINTS`.

use std::{collections::VecDeque, time::Duration};

use crate::item::Seq;

/// Rates are taken over this long.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Points kept at most, whatever the interval and the window are.
const MOST_POINTS: usize = 4_096;
/// A lane that trails by what it stores in this many seconds holds level: some trail is what a write-behind lane is for.
const LEVEL_SECONDS: f64 = 5.0;
/// Lag has grown over the window when its last third's mean is so many times its first third's.
const GROWTH: f64 = 1.5;

/// One measurement of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When, since the service began.
    pub at: Duration,
    /// One past the last pack in the log.
    pub end: Seq,
    /// One past the last pack in the store.
    pub next: Seq,
    /// One past the last pack in the store as the store alone says, without what a local lane knows better. `None`
    /// when it could not be asked.
    pub row: Option<Seq>,
    /// Items applied since the lane started in this process; `None` when it does not run here.
    pub items: Option<u64>,
    /// Age of the oldest pack that is not stored.
    pub lag_seconds: Option<f64>,
    /// Whether the lane waits for the store.
    pub paused: bool,
}

impl Point {
    fn lag_packs(&self) -> u64 {
        self.end.0.saturating_sub(self.next.0)
    }
}

/// Something that only ever rises fell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewind {
    /// The log ends before where it ended once.
    End {
        /// Where it ended.
        from: Seq,
        /// Where it ends.
        to: Seq,
    },
    /// The store has less than it had once.
    Stored {
        /// One past what it had.
        from: Seq,
        /// One past what it has.
        to: Seq,
    },
    /// The store has packs that the log does not have.
    Beyond {
        /// One past what the store has.
        next: Seq,
        /// Where the log ends.
        end: Seq,
    },
}

/// The recent past of one lane.
#[derive(Clone, Debug, Default)]
pub struct Track {
    points: VecDeque<(Point, u64)>,
    window: Duration,
    highest_end: Seq,
    highest_row: Seq,
    last_items: Option<u64>,
    moved_at: Duration,
    behind_since: Option<Duration>,
    paused_since: Option<Duration>,
}

impl Track {
    /// An empty past that judges growth over `window`.
    pub fn new(window: Duration) -> Self {
        Self { window, ..Self::default() }
    }

    /// Adds a measurement. Times do not go backwards.
    pub fn push(&mut self, point: Point) {
        let before = self.points.back().map(|(point, _)| *point);
        // Whether a lane moves that runs elsewhere is known from the store alone: while that does not answer, nobody can see it.
        let unseen = point.row.is_none() && point.items.is_none();
        if unseen || before.is_none_or(|before| before.next != point.next) {
            self.moved_at = point.at;
        }
        self.behind_since = (point.lag_packs() > 0).then(|| self.behind_since.unwrap_or(point.at));
        self.paused_since = point.paused.then(|| self.paused_since.unwrap_or(point.at));
        self.highest_end = self.highest_end.max(point.end);
        self.highest_row = self.highest_row.max(point.row.unwrap_or_default());
        // A lane that started again counts from nothing again; what it had applied before stays counted.
        let applied = match (self.last_items, point.items) {
            (Some(last), Some(now)) if now >= last => now - last,
            (Some(_), Some(now)) => now,
            _ => 0,
        };
        self.last_items = point.items;
        let items = self.points.back().map_or(0, |(_, items)| *items).saturating_add(applied);
        self.points.push_back((point, items));
        let keep = self.window.max(RATE_WINDOW);
        while self.points.len() > MOST_POINTS || self.points.front().is_some_and(|(p, _)| p.at + keep < point.at) {
            self.points.pop_front();
        }
    }

    /// How long the lane has had lag and has been seen not to move.
    pub fn idle(&self) -> Duration {
        // A lane with nothing to do does not move: only the time since there is something to do counts.
        match (self.points.back(), self.behind_since) {
            (Some((last, _)), Some(since)) => last.at.saturating_sub(since.max(self.moved_at)),
            _ => Duration::ZERO,
        }
    }

    /// How long the lane has been waiting for the store without a break.
    pub fn paused(&self) -> Duration {
        match (self.points.back(), self.paused_since) {
            (Some((last, _)), Some(since)) => last.at.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    /// Whether log or store is behind where it was; until it has passed that again.
    pub fn rewind(&self) -> Option<Rewind> {
        let (last, _) = self.points.back()?;
        if last.end < last.next {
            Some(Rewind::Beyond { next: last.next, end: last.end })
        } else if last.end < self.highest_end {
            Some(Rewind::End { from: self.highest_end, to: last.end })
        } else {
            let row = last.row.filter(|row| *row < self.highest_row)?;
            Some(Rewind::Stored { from: self.highest_row, to: row })
        }
    }

    /// Items applied per second, when the lane runs here.
    pub fn apply_rate(&self) -> Option<f64> {
        self.last_items?;
        Some(self.rate(|_, items| items))
    }

    /// Estimate of the time until everything that is in the log is stored. 0 without lag; `None` while the lane is
    /// neither gaining on the log nor holding level close behind it.
    pub fn drain_seconds(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let lag = self.points.back()?.0.lag_packs() as f64;
        if lag == 0.0 {
            return Some(0.0);
        }
        let stored = self.rate(|point, _| point.next.0);
        let appended = self.rate(|point, _| point.end.0);
        let gain = stored - appended;
        if gain > stored * 0.05 {
            Some(lag / gain)
        } else {
            (stored > 0.0 && lag <= stored * LEVEL_SECONDS).then(|| lag / stored)
        }
    }

    /// Whether the age of the oldest pack has grown throughout the window, third by third.
    pub fn growing(&self) -> bool {
        let Some(((first, _), (last, _))) = self.points.front().zip(self.points.back()) else { return false };
        let span = last.at.saturating_sub(first.at);
        // The window is covered when less than a tenth of it is missing: the oldest point has just been let go.
        if self.window.is_zero() || span * 10 < self.window * 9 {
            return false;
        }
        let mean = |third: u32| {
            let (from, to) = (first.at + span * third / 3, first.at + span * (third + 1) / 3);
            let seen = self.points.iter().filter(|(point, _)| (from..=to).contains(&point.at));
            let (sum, count) = seen.fold((0.0, 0.0), |(sum, count), (point, _)| {
                point.lag_seconds.map_or((sum, count), |seconds| (sum + seconds, count + 1.0))
            });
            (count > 0.0).then(|| sum / count)
        };
        let (Some(a), Some(b), Some(c)) = (mean(0), mean(1), mean(2)) else { return false };
        a < b && b < c && c >= a * GROWTH
    }

    fn rate(&self, value: impl Fn(&Point, u64) -> u64) -> f64 {
        let Some((last, last_items)) = self.points.back() else { return 0.0 };
        let recent = self.points.iter().find(|(point, _)| point.at + RATE_WINDOW >= last.at);
        let Some((first, first_items)) = recent else { return 0.0 };
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        let change = value(last, *last_items).saturating_sub(value(first, *first_items));
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let change = change as f64;
        if seconds > 0.0 { change / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(second: u64, end: u64, next: u64) -> Point {
        Point {
            at: Duration::from_secs(second),
            end: Seq(end),
            next: Seq(next),
            row: Some(Seq(next)),
            items: Some(next * 100),
            lag_seconds: Some(0.0),
            paused: false,
        }
    }

    fn track(points: impl IntoIterator<Item = Point>) -> Track {
        let mut track = Track::new(Duration::from_secs(60));
        points.into_iter().for_each(|point| track.push(point));
        track
    }

    #[test]
    fn a_lane_is_idle_only_since_it_has_something_to_do() {
        let mut quiet_then_late = track((0..100).map(|s| point(s, 5, 5)));
        assert_eq!(quiet_then_late.idle(), Duration::ZERO);
        (100..104).for_each(|s| quiet_then_late.push(point(s, 6, 5)));
        assert_eq!(quiet_then_late.idle(), Duration::from_secs(3));
        quiet_then_late.push(point(104, 9, 6));
        assert_eq!(quiet_then_late.idle(), Duration::ZERO);
    }

    #[test]
    fn a_lane_that_runs_elsewhere_is_not_idle_for_as_long_as_nobody_can_see_it() {
        let elsewhere = |second, row| Point { items: None, row, ..point(second, 9, 5) };
        let mut unseen = track([elsewhere(0, Some(Seq(5))), elsewhere(20, None)]);
        assert_eq!(unseen.idle(), Duration::ZERO);
        unseen.push(elsewhere(22, Some(Seq(5))));
        assert_eq!(unseen.idle(), Duration::from_secs(2), "since the store was silent last");
        let here = track([point(0, 9, 5), Point { row: None, ..point(20, 9, 5) }]);
        assert_eq!(here.idle(), Duration::from_secs(20), "what it runs itself it sees");
    }

    #[test]
    fn a_rewind_lasts_until_the_old_position_is_passed() {
        let mut back = track([point(0, 10, 8), point(1, 10, 3)]);
        assert_eq!(back.rewind(), Some(Rewind::Stored { from: Seq(8), to: Seq(3) }));
        back.push(point(2, 10, 8));
        assert_eq!(back.rewind(), None);
        assert_eq!(track([point(0, 10, 4), point(1, 6, 4)]).rewind(), Some(Rewind::End { from: Seq(10), to: Seq(6) }));
        assert_eq!(track([point(0, 4, 6)]).rewind(), Some(Rewind::Beyond { next: Seq(6), end: Seq(4) }));
    }

    #[test]
    fn a_lane_that_left_this_process_has_not_gone_backwards() {
        // The board knew of seq 9 before the store's row did; then the lane went to another process.
        let here = Point { row: Some(Seq(7)), ..point(0, 10, 9) };
        assert_eq!(track([here, point(1, 10, 7)]).rewind(), None);
        let unanswered = Point { row: None, ..point(1, 10, 9) };
        assert_eq!(track([here, unanswered]).rewind(), None);
    }

    #[test]
    fn drain_time_is_what_the_gain_on_the_log_needs() {
        let gaining = track((0..=10).map(|s| point(s, 1_000 + s * 10, s * 30)));
        let drain = gaining.drain_seconds().unwrap();
        assert!((drain - 800.0 / 20.0).abs() < 1e-9, "{drain}");
        assert_eq!(track((0..=10).map(|s| point(s, 100, 100))).drain_seconds(), Some(0.0));
        assert_eq!(track((0..=10).map(|s| point(s, 100 + s, 50))).drain_seconds(), None, "nothing is stored");
        assert_eq!(track((0..=10).map(|s| point(s, 1_000 + s * 30, s * 10))).drain_seconds(), None, "it falls behind");
        let level = track((0..=10).map(|s| point(s, 10 + s * 10, s * 10))).drain_seconds().unwrap();
        assert!((level - 1.0).abs() < 1e-9, "{level}");
    }

    #[test]
    fn the_apply_rate_survives_a_restart_of_the_lane() {
        let restarted = [(0, 1_000), (1, 1_100), (2, 50), (3, 150)];
        let points = restarted.map(|(s, items)| Point { items: Some(items), ..point(s, 10, 10) });
        let rate = track(points).apply_rate().unwrap();
        assert!((rate - 250.0 / 3.0).abs() < 1e-9, "{rate}");
        assert_eq!(track([Point { items: None, ..point(0, 1, 1) }]).apply_rate(), None);
    }

    #[test]
    fn growth_is_seen_through_a_saw_tooth_and_level_lag_is_not_growth() {
        let saw = |s: u64, slope: f64| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let lag_seconds = Some((s % 3) as f64 + s as f64 * slope);
            Point { lag_seconds, ..point(s, 10, 5) }
        };
        assert!(track((0..=60).map(|s| saw(s, 0.2))).growing());
        assert!(!track((0..=60).map(|s| saw(s, 0.0))).growing());
        assert!(
            !track((0..=60).map(|s| saw(60 - s, 0.2)).zip(0..).map(|(p, s)| Point { at: Duration::from_secs(s), ..p }))
                .growing()
        );
        assert!(!track((0..30).map(|s| saw(s, 0.2))).growing(), "half a window says nothing");
    }

    proptest! {
        #[test]
        fn whatever_is_measured_the_figures_are_finite_and_memory_is_bounded(
            steps in prop::collection::vec(
                (0_u64..100_000, any::<u32>(), any::<u32>(), any::<Option<u32>>(), any::<Option<u64>>(), any::<bool>()),
                0..200,
            ),
        ) {
            let mut track = Track::new(Duration::from_secs(60));
            let mut at = Duration::ZERO;
            for (step, end, next, row, items, paused) in steps {
                at += Duration::from_millis(step);
                let lag_seconds = row.map(f64::from);
                let row = row.map(|row| Seq(row.into()));
                track.push(Point { at, end: Seq(end.into()), next: Seq(next.into()), row, items, lag_seconds, paused });
                prop_assert!(track.apply_rate().is_none_or(|rate| rate.is_finite() && rate >= 0.0));
                prop_assert!(track.drain_seconds().is_none_or(|drain| drain.is_finite() && drain >= 0.0));
                prop_assert!(track.idle() <= at && track.paused() <= at);
                let _ = (track.growing(), track.rewind());
                prop_assert!(track.points.len() <= MOST_POINTS);
            }
        }
    }
}
