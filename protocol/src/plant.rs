//! Bugs that can be planted into the production code, to prove that the simulator finds them.
//!
//! Without the feature `plant` there are none: [`is`] is a constant `false`, and the compiler
//! removes what depends on it. With it, a bug is planted for one thread.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the simulator's table says what each is")]
pub enum Bug {
    SkippedEdge,
    ReadersHoldNobody,
    LostOutboxEntry,
    ToldBeforeSync,
    StaleRemoteRead,
    AppliedTwice,
    ForgottenTooEarly,
    AdditionInWrongEpoch,
    StrayKeepsEffects,
    IndexLosesIds,
    ResumesOneLate,
    TornEndTakenAsWhole,
    ReceiptsNotResent,
    FloorNotChecked,
    ForwardedPastAWriter,
}

#[cfg(feature = "plant")]
mod planted {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug for this thread, in place of the one before.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// What `work` makes when nothing is planted.
    pub fn without<T>(work: impl FnOnce() -> T) -> T {
        let planted = PLANTED.replace(None);
        let made = work();
        PLANTED.set(planted);
        made
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "plant")]
pub use planted::{is, plant, without};

/// Whether this bug is planted: never, in a build without the feature `plant`.
#[cfg(not(feature = "plant"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}
