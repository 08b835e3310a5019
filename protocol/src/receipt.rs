//! Receipts: what became of a transaction.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

use rkyv::{Archive, Deserialize, Serialize};
use smallvec::SmallVec;

use crate::codec::{self, Malformed};
use crate::epoch::Position;
use crate::footprint::Mode;
use crate::key::Key;
use crate::short::ShortBytes;
use crate::transaction::TxId;

/// Why a transaction was refused at admission, or had no effect.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
#[rkyv(derive(Debug))]
#[non_exhaustive]
pub enum ErrorCode {
    /// The payload is not in its runtime's encoding.
    Malformed,
    /// No runtime has that number.
    UnknownRuntime,
    /// A limit of [`limits`](crate::limits) is exceeded.
    TooLarge,
    /// The declared footprint is out of order or too long.
    BadFootprint,
    /// The signature is missing, invalid or malleable.
    BadSignature,
    /// It is signed for another chain.
    WrongChain,
    /// A kind of transaction, or an instruction, that is not supported.
    Unsupported,
    /// Only operators may do that.
    NotPermitted,
    /// The cluster has as much to do as it accepts; try again later.
    Busy,
    /// It was not ordered before its last epoch had passed.
    Expired,
    /// Its footprint could not be found because the state could not be read; try again later.
    Unavailable,
    /// It kept touching other keys than it was ordered with; try again, or declare a footprint.
    StrayedTooOften,
    /// Its nonce has been used.
    NonceTooLow,
    /// Its nonce is ahead of the account's.
    NonceTooHigh,
    /// The account can't pay for it.
    InsufficientFunds,
    /// It offers less per unit of gas than the base fee.
    Underpriced,
    /// It used up its gas or instructions, or offers less gas than it costs in any case.
    OutOfWork,
    /// It used up the memory it may have.
    OutOfMemory,
    /// It did something that ends it: an invalid instruction, a stack overflow, a collision.
    Halted,
    /// The contract that it calls does not exist.
    UnknownContract,
    /// What it would create exists already.
    AlreadyExists,
    /// The contract or procedure itself said no.
    Refused,
    /// A number is too large or too small to be stored.
    Overflow,
    /// The state of that time is not kept any more.
    NotKept,
}

impl ErrorCode {
    /// What to do about it, in one sentence.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Malformed => "check the payload's encoding",
            Self::UnknownRuntime => "use runtime 1 (native), 2 (evm), 3 (lua) or 4 (procedures)",
            Self::TooLarge => "split the transaction; limits are in the client's welcome message",
            Self::BadFootprint => "sort the keys, name each once, or leave the footprint out",
            Self::BadSignature => "sign the transaction again with the sender's key",
            Self::WrongChain => "sign it for the chain id that `parsec status` shows",
            Self::Unsupported => "use a supported kind of transaction",
            Self::NotPermitted => "ask an operator of the cluster",
            Self::Busy | Self::Unavailable => "wait a little and submit it again",
            Self::Expired => "submit it again with a later last epoch",
            Self::StrayedTooOften => "submit it again when there is less contention",
            Self::NonceTooLow => "use the account's next nonce",
            Self::NonceTooHigh => "submit the account's earlier transactions first",
            Self::InsufficientFunds => "fund the account",
            Self::Underpriced => "offer more for each unit of gas",
            Self::OutOfWork => "raise the gas or instruction limit, or do less",
            Self::OutOfMemory => "use less memory",
            Self::Halted => "the contract is at fault; see the output",
            Self::UnknownContract => "deploy the contract first, or check its name",
            Self::AlreadyExists => "use what is there, or another name",
            Self::Refused => "see the output for the contract's reason",
            Self::Overflow => "use a smaller amount",
            Self::NotKept => "ask about a later state",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?} ({})", self.advice())
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect.
    Committed,
    /// It ran and gave up: its effects are undone, except that an Ethereum transaction has paid
    /// for its gas and used its nonce.
    Reverted(ErrorCode),
    /// It could not run: it has no effect at all.
    Invalid(ErrorCode),
    /// It touched a key outside its footprint: it has no effect and is ordered again. Clients
    /// don't see this outcome.
    Strayed {
        /// The key outside the footprint.
        key: Key,
        /// How it was to be touched.
        mode: Mode,
    },
}

impl Outcome {
    /// Whether this is the transaction's last word.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Strayed { .. })
    }
}

/// The topics of an [`Event`]: within itself as many as an Ethereum log may have.
pub type Topics = SmallVec<[[u8; 32]; 4]>;

/// Something that a contract announced (a log entry, to Ethereum).
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Event {
    /// Who announced it: a contract's address or name.
    pub source: ShortBytes,
    /// Topics to find it by.
    pub topics: Topics,
    /// Its content.
    pub data: ShortBytes,
}

/// What became of a transaction, where in the order, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Receipt {
    /// The transaction.
    pub id: TxId,
    /// Where it stands in the order.
    pub position: Position,
    /// How often it had strayed before.
    pub attempt: u8,
    /// What became of it.
    pub outcome: Outcome,
    /// The work it took, in its runtime's unit: gas, or instructions.
    pub work: u64,
    /// Return data, revert data, the address of a created contract, or the text of an error.
    pub output: ShortBytes,
    /// What it announced; empty unless it committed.
    pub events: Vec<Event>,
}

impl Receipt {
    /// BLAKE3 of its encoding, for the digest of receipts.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        codec::with_encoded(self, codec::digest)
    }

    /// Checks the invariants of a receipt that was decoded.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        match &self.outcome {
            Outcome::Strayed { key, .. } => key.check(),
            _ => Ok(()),
        }
    }

    /// Roughly how many bytes it takes, for limits on messages.
    #[must_use]
    pub fn size(&self) -> usize {
        let event =
            |event: &Event| 64 + event.source.len() + 32 * event.topics.len() + event.data.len();
        96 + self.output.len() + self.events.iter().map(event).sum::<usize>()
    }

    /// Whether the transaction took effect.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.outcome == Outcome::Committed
    }
}
