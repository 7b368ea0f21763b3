//! Deliberate bugs: each a mistake that somebody could make, at the place where a law is kept. The model switches them on
//! one at a time and has to find them, which shows that it could find others (`docs/testing.md`).
//!
//! They exist in a build with the Cargo feature `bugs` alone, which is for tests. Without it [`on`] is a constant `false`,
//! and nothing is left of them.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The checkpoint's delay counts from when a flush begins: it may be written before what it stands for (law 5).
    CheckpointBeforeFlush,
    /// A pack's stamp is the worker's clock (laws 2 and 3).
    StampFromWallClock,
    /// A row carries the seq and the stamp of its flush's last pack: batch boundaries decide what is written (law 2).
    FoldByBatch,
    /// A row whose base covers a replayed pack is not written again (law 4).
    BaseNotRewritten,
    /// A base is read from one replica. The port promises a quorum, so the mistake is the model's store's (law 4, S3).
    BaseAtOne,
    /// A duplicate does not renew its id: the window counts from when it was first seen (law 7).
    DedupByFirstSeen,
    /// The window is rebuilt from one pack too late (law 7).
    WindowOneShort,
    /// Sums are kept within 64 bits at each delta (law 2).
    OverflowPerDelta,
    /// A row touched since the checkpoint may be evicted (law 4).
    TouchedEvicted,
    /// A pack whose items of a row add up to nothing does not touch it (law 3).
    NetZeroNotRewritten,
    /// The hot view adds a pack's delta as often as it is told (law 8, H1).
    PendingNotBySeq,
    /// A load counts though its entry is another by now (law 8, H3).
    LoadWithoutToken,
    /// A lane resumes after the checkpoint's record instead of at it (laws 6 and 7).
    ResumeAfterCheckpoint,
    /// A lane that is revoked moves its checkpoint before it has flushed (law 5).
    CommitBeforeDrain,
    /// Nobody looks at claims (law 6).
    ClaimsUnchecked,
    /// A server of the store that has started again is taken for the same (law 5).
    RestartsUnseen,
    /// A pack that was appended twice is applied twice (law 7).
    PackNotNoted,
    /// A lane passes a dead letter that the dead-letter log has not kept (law 6).
    LetterNotAwaited,
    /// A dead letter that is replayed again counts again (law 7).
    ReplayCountsAgain,
    /// The leap of the stamps over an accepted gap ages the dedup window (law 7).
    GapAgesWindow,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::CheckpointBeforeFlush,
        Self::StampFromWallClock,
        Self::FoldByBatch,
        Self::BaseNotRewritten,
        Self::BaseAtOne,
        Self::DedupByFirstSeen,
        Self::WindowOneShort,
        Self::OverflowPerDelta,
        Self::TouchedEvicted,
        Self::NetZeroNotRewritten,
        Self::PendingNotBySeq,
        Self::LoadWithoutToken,
        Self::ResumeAfterCheckpoint,
        Self::CommitBeforeDrain,
        Self::ClaimsUnchecked,
        Self::RestartsUnseen,
        Self::PackNotNoted,
        Self::LetterNotAwaited,
        Self::ReplayCountsAgain,
        Self::GapAgesWindow,
    ];
}

/// Whether a mistake is made.
#[cfg(not(feature = "bugs"))]
#[inline(always)]
pub const fn on(_: Bug) -> bool {
    false
}

/// The worker's clock, for [`Bug::StampFromWallClock`].
#[cfg(not(feature = "bugs"))]
pub const fn worker_ms() -> i64 {
    0
}

#[cfg(feature = "bugs")]
pub use switched::{on, switch, worker_ms};

#[cfg(feature = "bugs")]
mod switched {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::Bug;

    thread_local! {
        static ON: Cell<Option<(Bug, Instant)>> = const { Cell::new(None) };
    }

    /// Whether a mistake is made on this thread.
    pub fn on(bug: Bug) -> bool {
        ON.get().is_some_and(|(on, _)| on == bug)
    }

    /// From now on this thread makes this mistake and no other.
    pub fn switch(bug: Option<Bug>) {
        ON.set(bug.map(|bug| (bug, Instant::now())));
    }

    /// The time that a worker would read, when the mistake was switched on as a world began.
    pub fn worker_ms() -> i64 {
        let since = ON.get().map_or(0, |(_, at)| at.elapsed().as_millis());
        1_800_000_000_000 + i64::try_from(since).unwrap_or(0)
    }
}
