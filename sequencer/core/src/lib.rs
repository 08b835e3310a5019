//! The order of transactions, as state machines: the [`Lane`] that closes batches, the [`Ledger`]
//! that orders them into epochs, and the [`Orderer`] that wires the two together.
//!
//! Everything here is pure: an input goes in (a submission, a receipt, "the disk has it"), outputs
//! come out of [`Orderer::poll_output`], and time is an argument. The shell around it carries the
//! outputs out; a simulator drives the very same code.
//!
//! ```text
//!  submit ─▶ queue ─▶ batch ─▶ ledger ─▶ epoch ─▶ Append, Sync ─▶ on_durable ─▶ Dispatch
//!              ▲                                                                   │
//!              └── on_discovered ◀── Rediscover ◀── strayed ── on_receipt ◀────────┘
//!                                                      └── final ─▶ Reply
//! ```
//!
//! **Invariant:** a transaction id is ordered again only after its receipt said that it strayed.
//!
//! **Invariant:** nothing is dispatched before the log has made its epoch durable.
//!
//! **Invariant:** each token that was accepted is answered once.
//!
//! This crate must not know what a payload means, where the log lies, or who carries messages.

pub mod dispatch;
pub mod durability;
pub mod followers;
pub mod home;
pub mod indexing;
pub mod lane;
pub mod layout;
pub mod ledger;
pub mod limits;
pub mod options;
pub mod orderer;
pub mod restore;
mod window;

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{
    Access, Batch, BatchRef, Entry, EpochNumber, EpochRecord, ErrorCode, Footprint, LaneId,
    Outcome, PartitionId, Position, Receipt, RuntimeId, TxId,
};

pub use dispatch::{CutEpoch, Cutter, RingLimits};
pub use durability::Durability;
pub use followers::{AheadOfLog, Followers, Step};
pub use home::HomeChooser;
pub use indexing::{IndexWrite, Indexing, Mark};
pub use lane::{Accepted, Lane, Lookup, Refused};
pub use layout::{Held, Layout, LayoutError};
pub use ledger::{Ledger, LedgerOutput, SingleLedger};
pub use options::LaneOptions;
pub use orderer::{Offer, Orderer, Submitted};
pub use restore::{Identity, LogExtent, RestoreError, Restored, Restorer};

/// A moment: microseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment `micros` microseconds later.
    #[must_use]
    pub fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// The moment in whole milliseconds.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000
    }
}

/// Whom to answer. The core hands it back as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The connection.
    pub connection: u64,
    /// The number of the submission on the connection.
    pub request: u64,
    /// The transaction's index in the submission.
    pub index: u32,
}

/// An admitted transaction, to be ordered: its home is not chosen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: TxId,
    /// Which runtime executes it.
    pub runtime: RuntimeId,
    /// Who sent it, as authenticated.
    pub sender: Bytes,
    /// What the runtime is to do.
    pub payload: Bytes,
    /// The keys it may touch.
    pub footprint: Footprint,
    /// The last epoch in which it may run.
    pub expires: Option<EpochNumber>,
    /// Whether it is ordered anew if it was ordered before and had no effect at all.
    pub renews: bool,
}

impl Candidate {
    /// The entry of a first attempt. Its home is chosen when its batch is closed.
    fn into_entry(self) -> Entry {
        Entry {
            id: self.id,
            runtime: self.runtime,
            attempt: 0,
            home: PartitionId(0),
            sender: self.sender,
            payload: self.payload,
            footprint: self.footprint,
            expires: self.expires,
        }
    }
}

/// What is to be done. The order among outputs matters only where the variants say so.
#[derive(Debug)]
pub enum Output {
    /// Write a batch to the log.
    ///
    /// ORDER: `Append`, `AppendEpoch` and `Sync` go to the log in the order they come out. A batch
    /// must lie before the epoch that orders it.
    Append {
        /// The batch.
        batch: Arc<Batch>,
        /// The reference by which it is ordered.
        reference: BatchRef,
        /// Its encoding.
        encoded: Vec<u8>,
    },
    /// Write an epoch to the log.
    AppendEpoch(EpochRecord),
    /// Make the log durable through all that was appended, then call [`Orderer::on_durable`].
    Sync,
    /// Send an epoch to the executors. Epochs come out in order.
    Dispatch {
        /// The epoch.
        record: EpochRecord,
        /// The batches of this lane that it orders, in its order.
        batches: Vec<Arc<Batch>>,
    },
    /// Answer a client.
    Reply {
        /// Whom.
        token: Token,
        /// With what.
        receipt: Arc<Receipt>,
    },
    /// Find the footprints of these transactions anew, then call [`Orderer::on_discovered`] for each.
    /// If there are several, nothing else is ordered meanwhile, and they will be ordered as they stand
    /// here: each is best tried after what those before it would do.
    Rediscover(Vec<Rediscovery>),
    /// Find out what all epochs through this one came to, then call [`Orderer::on_summary`]. Only
    /// asked if there is a [`LaneOptions::summary_key`].
    Summarize {
        /// The last epoch, which is finished.
        through: EpochNumber,
    },
}

/// A transaction that strayed and needs a wider footprint.
///
/// It was accepted: if the state can't be read, try again until it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rediscovery {
    /// The transaction as it was ordered last, with the footprint that was too narrow.
    pub entry: Entry,
    /// What it touched outside.
    pub stray: Access,
    /// The number of the next attempt, to be handed back.
    pub attempt: u8,
    /// The trial must see the state after this epoch, or a later one.
    pub least: EpochNumber,
}

/// What a recorded receipt means for the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It is finished; this is what the client is told.
    Final(Arc<Receipt>),
    /// It is to be ordered again.
    Again(Access),
}

/// What a recorded receipt means.
///
/// A transaction that strays even in its last attempt is finished: the client is told
/// [`ErrorCode::StrayedTooOften`], while the receipt that is recorded stays a stray. It depends on
/// the recorded receipt alone, so that the answer is the same whenever it is asked for.
#[must_use]
pub fn word(mut receipt: Arc<Receipt>) -> Word {
    match &receipt.outcome {
        Outcome::Strayed { key, mode } if receipt.attempt < STRAY_ATTEMPTS_MAX => {
            Word::Again(Access { key: key.clone(), mode: *mode })
        }
        Outcome::Strayed { .. } => {
            let outcome = Outcome::Invalid(ErrorCode::StrayedTooOften);
            Arc::make_mut(&mut receipt).outcome = outcome;
            Word::Final(receipt)
        }
        _ => Word::Final(receipt),
    }
}

/// Whether a final receipt says that the transaction had no effect at all, so that it may be ordered
/// anew.
#[must_use]
pub fn is_void(receipt: &Receipt) -> bool {
    matches!(receipt.outcome, Outcome::Invalid(_))
}

/// Where a transaction was ordered, and where its receipt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its place in the order.
    pub position: Position,
    /// The partition where it ran.
    pub home: PartitionId,
}

/// The entries of a lane's batches with the positions that `record`, which orders them, gives them.
///
/// # Panics
/// If there are not as many batches as the record has of the lane.
pub fn positions<'a>(
    lane: LaneId,
    record: &EpochRecord,
    batches: &'a [Arc<Batch>],
) -> impl Iterator<Item = (Position, &'a Entry)> + use<'a> {
    let epoch = record.number;
    let firsts = window::firsts(lane, record);
    assert_eq!(firsts.len(), batches.len(), "every batch of the lane is at hand");
    firsts.into_iter().zip(batches).flat_map(move |(first, batch)| {
        let entries = batch.entries.iter().map(|entry| &**entry);
        (first..).map(move |index| Position { epoch, index }).zip(entries)
    })
}
