//! Transactions, as clients submit them and as a lane orders them.

use std::sync::{Arc, LazyLock};

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use bytes::Bytes;
use rkyv::with::{Map, Unshare};
use rkyv::{Archive, Deserialize, Serialize};

use crate::codec::{self, Malformed, Wire};
use crate::epoch::EpochNumber;
use crate::footprint::Footprint;
use crate::limits::{BATCH_TRANSACTIONS_MAX, PAYLOAD_BYTES_MAX, SENDER_BYTES_MAX};
use crate::placement::PartitionId;
use crate::short::Exact;

/// The id of a transaction, by which it takes effect at most once. Chosen by its runtime from all
/// that decides its meaning: the Keccak-256 hash of a signed Ethereum transaction, for example.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct TxId(pub [u8; 32]);

impl std::fmt::Debug for TxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Display for TxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// Which runtime executes a transaction.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct RuntimeId(pub u8);

impl RuntimeId {
    /// What operators do to the whole cluster: loading a genesis. Refused from clients.
    pub const SYSTEM: Self = Self(0);
    /// Programs of a few strong operations.
    pub const NATIVE: Self = Self(1);
    /// Ethereum transactions.
    pub const EVM: Self = Self(2);
    /// Lua contracts.
    pub const LUA: Self = Self(3);
    /// Stored procedures in Rust.
    pub const PROCEDURES: Self = Self(4);
}

/// A transaction as a client submits it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Transaction {
    /// Which runtime executes it.
    pub runtime: RuntimeId,
    /// What the runtime is to do, in the runtime's own encoding.
    #[rkyv(with = Exact)]
    pub payload: Bytes,
    /// Makes two transactions with the same payload different ones, for runtimes whose payloads
    /// don't do so themselves. Part of the id there; must be zero for signed Ethereum
    /// transactions, whose nonce serves for it.
    pub salt: u128,
    /// The keys it may touch, if the client knows them.
    pub footprint: Option<Footprint>,
    /// The last epoch in which it may run; after it, it has no effect.
    pub expires: Option<EpochNumber>,
    /// Whether it is ordered anew if it was ordered before and was
    /// [`Invalid`](crate::Outcome::Invalid) there. Otherwise its receipt of that time comes back,
    /// as that of any other transaction that is known.
    pub renews: bool,
}

/// Derived once: deriving it takes as long as hashing a short payload.
static CONTENT_ID: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context("parsec 2026 transaction id"));

impl Transaction {
    /// A transaction without salt, footprint or expiry, that does not renew.
    #[must_use]
    pub fn new(runtime: RuntimeId, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self { runtime, payload, salt: 0, footprint: None, expires: None, renews: false }
    }

    /// The id for runtimes that have no convention of their own: BLAKE3 of runtime, salt and
    /// payload. Footprint and expiry are no part of it.
    #[must_use]
    pub fn content_id(&self) -> TxId {
        let mut hasher = blake3::Hasher::new_from_context_key(&CONTENT_ID);
        hasher.update(&[self.runtime.0]).update(&self.salt.to_be_bytes()).update(&self.payload);
        TxId(hasher.finalize().into())
    }

    /// Checks lengths and the footprint's invariants.
    ///
    /// Not part of [`Wire::check`] of a submission: there, one bad transaction is refused alone.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn check(&self) -> Result<(), Malformed> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Malformed::PayloadLength { bytes: self.payload.len() });
        }
        self.footprint.as_ref().map_or(Ok(()), Footprint::check)
    }
}

/// A transaction as a lane orders it: authenticated, with a footprint.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: TxId,
    /// Which runtime executes it.
    pub runtime: RuntimeId,
    /// How often it has strayed before; the first attempt is 0.
    pub attempt: u8,
    /// Where it runs, under the partition map that its batch names.
    pub home: PartitionId,
    /// Who sent it, as authenticated at admission (an Ethereum address); empty if nobody.
    #[rkyv(with = Exact)]
    pub sender: Bytes,
    /// What the runtime is to do.
    #[rkyv(with = Exact)]
    pub payload: Bytes,
    /// The keys it may touch.
    pub footprint: Footprint,
    /// The last epoch in which it may run.
    pub expires: Option<EpochNumber>,
}

impl Entry {
    /// Roughly how many bytes it takes, for limits on memory and on batches.
    #[must_use]
    pub fn size(&self) -> usize {
        128 + self.payload.len() + self.footprint.size()
    }

    pub(crate) fn check(&self) -> Result<(), Malformed> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Malformed::PayloadLength { bytes: self.payload.len() });
        }
        if self.sender.len() > SENDER_BYTES_MAX {
            return Err(Malformed::SenderLength { bytes: self.sender.len() });
        }
        self.footprint.check()
    }
}

/// A sequencer lane: one stream of batches.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct LaneId(pub u16);

/// A batch of transactions, as a lane closes it and makes it durable.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Batch {
    /// The lane it is from.
    pub lane: LaneId,
    /// Its number in the lane, from 1 without gaps.
    pub sequence: u64,
    /// The partition map under which homes were chosen.
    pub map_version: u64,
    /// The transactions, in order. Shared with what is made of them for the partitions.
    #[rkyv(with = Map<Unshare>)]
    pub entries: Vec<Arc<Entry>>,
}

impl Batch {
    /// The reference by which the ledger orders a batch whose encoding is `encoded`.
    #[must_use]
    pub fn reference(&self, encoded: &[u8]) -> BatchRef {
        BatchRef {
            lane: self.lane,
            sequence: self.sequence,
            digest: codec::digest(encoded),
            transactions: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
            runtimes: self.entries.iter().fold(0, |set, entry| set | runtime_bit(entry.runtime)),
        }
    }
}

impl Wire for Batch {
    fn check(&self) -> Result<(), Malformed> {
        if self.entries.len() > BATCH_TRANSACTIONS_MAX {
            return Err(Malformed::BatchLength { transactions: self.entries.len() });
        }
        self.entries.iter().try_for_each(|entry| entry.check())
    }
}

/// The bit of `runtime` in [`BatchRef::runtimes`].
fn runtime_bit(runtime: RuntimeId) -> u32 {
    1u32.checked_shl(u32::from(runtime.0)).unwrap_or(0)
}

/// What the ledger orders of a batch: not its payloads.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BatchRef {
    /// The lane it is from.
    pub lane: LaneId,
    /// Its number in the lane.
    pub sequence: u64,
    /// BLAKE3 of its encoding.
    pub digest: [u8; 32],
    /// How many transactions it holds.
    pub transactions: u32,
    /// Which runtimes it calls: bit `n` for [`RuntimeId`] `n`.
    pub runtimes: u32,
}

impl BatchRef {
    /// Whether the batch holds a transaction for `runtime`.
    #[must_use]
    pub fn calls(&self, runtime: RuntimeId) -> bool {
        self.runtimes & runtime_bit(runtime) != 0
    }
}
