//! Epochs: the units of order and durability.

use rkyv::{Archive, Deserialize, Serialize};

use crate::codec::{self, Malformed, Wire};
use crate::limits::{BATCH_TRANSACTIONS_MAX, EPOCH_BATCHES_MAX};
use crate::transaction::BatchRef;

/// The number of an epoch, from 1 without gaps. Zero stands for the state before the first.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Archive,
    Serialize,
    Deserialize,
)]
#[rkyv(derive(Debug))]
pub struct EpochNumber(pub u64);

impl EpochNumber {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for EpochNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// The place of a transaction in the agreed order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct Position {
    /// The epoch.
    pub epoch: EpochNumber,
    /// Its place in the epoch: through the batches in their order, from 0.
    pub index: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.epoch, self.index)
    }
}

/// An epoch as the ledger agreed on it. It is all the context that an execution sees.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number.
    pub number: EpochNumber,
    /// When the ledger closed it: milliseconds since 1970, never decreasing.
    pub timestamp_ms: u64,
    /// The number of the Ethereum block that this epoch is: how many epochs up to and with this
    /// one hold an EVM transaction.
    pub block: u64,
    /// The digest of the epoch before it.
    pub parent: [u8; 32],
    /// Its batches, in order.
    pub batches: Vec<BatchRef>,
}

impl EpochRecord {
    /// BLAKE3 of its encoding: the name that chains epochs, and the entropy that executions see.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        codec::digest(&codec::encode(self))
    }

    /// How many transactions it holds.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.transactions)).sum()
    }
}

impl Wire for EpochRecord {
    fn check(&self) -> Result<(), Malformed> {
        if self.batches.len() > EPOCH_BATCHES_MAX {
            return Err(Malformed::EpochLength { batches: self.batches.len() });
        }
        let count = |batch: &BatchRef| usize::try_from(batch.transactions).unwrap_or(usize::MAX);
        match self.batches.iter().map(count).find(|count| *count > BATCH_TRANSACTIONS_MAX) {
            Some(transactions) => Err(Malformed::BatchLength { transactions }),
            None => Ok(()),
        }
    }
}
