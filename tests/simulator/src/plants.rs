//! The bugs that can be planted, and within how many seeds each must be found.

use parsec_protocol::plant::Bug;

/// A bug that can be planted into the production code.
#[derive(Debug, Clone, Copy)]
pub struct Plant {
    /// The bug.
    pub bug: Bug,
    /// By what it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Within how many seeds it must be found, whichever they are.
    pub seeds: u64,
}

const fn plant(bug: Bug, name: &'static str, seeds: u64, what: &'static str) -> Plant {
    Plant { bug, name, what, seeds }
}

/// All of them.
pub const PLANTS: &[Plant] = &[
    plant(Bug::SkippedEdge, "skipped-edge", 10, "a writer does not wait for the writer before it"),
    plant(
        Bug::ReadersHoldNobody,
        "readers-hold-nobody",
        20,
        "a writer does not wait for the readers before it",
    ),
    plant(
        Bug::LostOutboxEntry,
        "lost-outbox-entry",
        150,
        "the last push of an epoch is not kept for a peer that may need it again",
    ),
    plant(
        Bug::ToldBeforeSync,
        "told-before-sync",
        150,
        "an epoch is told to executors before the log is synced",
    ),
    plant(
        Bug::StaleRemoteRead,
        "stale-remote-read",
        20,
        "a participant pushes values before it holds their keys",
    ),
    plant(
        Bug::AppliedTwice,
        "applied-twice",
        150,
        "after a restart the last applied epoch is taken in again",
    ),
    plant(
        Bug::ForgottenTooEarly,
        "forgotten-too-early",
        1_000,
        "what is owed is forgotten when the peer has applied it, not when it is durable there",
    ),
    plant(
        Bug::AdditionInWrongEpoch,
        "addition-in-wrong-epoch",
        50,
        "an addition that comes late does not correct what later epochs found",
    ),
    plant(
        Bug::StrayKeepsEffects,
        "stray-keeps-effects",
        50,
        "what a stray had changed at its home stays",
    ),
    plant(
        Bug::IndexLosesIds,
        "index-loses-ids",
        150,
        "the last id of each write is left out of the index",
    ),
    plant(
        Bug::ResumesOneLate,
        "resumes-one-late",
        100,
        "a peer that comes back is served from one epoch too late",
    ),
    plant(
        Bug::TornEndTakenAsWhole,
        "torn-end-taken-as-whole",
        1_000,
        "the log takes a record with a whole header for whole",
    ),
    plant(
        Bug::ReceiptsNotResent,
        "receipts-not-resent",
        100,
        "receipts are not sent again when the link to the sequencer is back",
    ),
    plant(
        Bug::FloorNotChecked,
        "floor-not-checked",
        1_000,
        "a store that has lost what was durable opens without a word",
    ),
    plant(
        Bug::ForwardedPastAWriter,
        "forwarded-past-a-writer",
        150,
        "a home goes on with a value that was changed elsewhere in between",
    ),
];

/// The bug of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Plant> {
    PLANTS.iter().find(|plant| plant.name == name)
}
