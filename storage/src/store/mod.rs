//! The store of one partition: its state, its receipts and what it owes to other partitions.
//!
//! **Invariant:** an epoch is visible whole or not at all, in reads and after a crash.
//!
//! **Invariant:** [`Applied`] describes exactly the state and the receipts that are visible.

mod behind;
mod disk;
mod floor;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod memory;
mod outbox;
mod packed;
mod snapshots;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use ahash::RandomState;
use parsec_protocol::{EpochNumber, Key, Malformed, PartitionId, Position, Push, Receipt, Value};

pub use behind::WriteBehindStore;
pub use disk::{FjallStore, StoreOptions};
pub use floor::Floor;
pub use memory::MemoryStore;

use crate::digest::Digest;

/// One key that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// Its value before.
    pub old: Option<Value>,
    /// Its value after; `None` removes it.
    pub new: Option<Value>,
    /// Whether this partition counts the key in the state digest. It does so for the keys of its
    /// slots, not for its copies of replicated keys that lie in another's slots.
    pub counted: bool,
}

/// All that an epoch, or a run of consecutive ones, does to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochCommit {
    /// The first epoch of the run. Equal to `epoch` for one alone. The state after those in
    /// between cannot be read later.
    pub first: EpochNumber,
    /// The last epoch of the run.
    pub epoch: EpochNumber,
    /// The keys that changed, each once.
    pub writes: Vec<Write>,
    /// The receipts of transactions that ran here, one for each.
    pub receipts: Vec<Arc<Receipt>>,
    /// What is owed to other partitions until they have passed these epochs.
    pub outbox: Vec<Push>,
    /// How many transactions ran here.
    pub executed: u64,
    /// How many of them had more than one participant.
    pub multi_partition: u64,
}

impl EpochCommit {
    /// The commit of an epoch that does nothing yet.
    #[must_use]
    pub fn new(epoch: EpochNumber) -> Self {
        Self {
            first: epoch,
            epoch,
            writes: Vec::new(),
            receipts: Vec::new(),
            outbox: Vec::new(),
            executed: 0,
            multi_partition: 0,
        }
    }

    /// Whether nothing is to be stored: [`Store::advance`] does then, too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.receipts.is_empty() && self.outbox.is_empty()
    }

    /// Sorts receipts, checks the commit's invariants, and computes what is applied after it.
    fn prepare(&mut self, applied: &Applied) -> Result<Applied, StoreError> {
        self.check(applied)?;
        Ok(self.after(applied))
    }

    /// Sorts receipts, and checks the commit's invariants. Returns the [`rank`] of each write.
    fn check(&mut self, applied: &Applied) -> Result<Ranks, StoreError> {
        if self.first <= applied.epoch || self.epoch < self.first {
            return Err(StoreError::OutOfOrder { epoch: self.first, applied: applied.epoch });
        }
        let epochs = self.first..=self.epoch;
        let positions = self.receipts.iter().map(|receipt| receipt.position);
        let pushed = self.outbox.iter().map(|push| push.position);
        if let Some(position) = positions.chain(pushed).find(|at| !epochs.contains(&at.epoch)) {
            return Err(StoreError::Misplaced { position });
        }
        self.receipts.sort_unstable_by_key(|receipt| receipt.position);
        let mut pairs = self.receipts.windows(2);
        if let Some(pair) = pairs.find(|pair| pair[0].position == pair[1].position) {
            return Err(StoreError::Misplaced { position: pair[1].position });
        }
        let ranks = Ranks::of(self.writes.iter().map(|write| &write.key));
        let key = |place: u32| &self.writes[place as usize].key;
        match ranks.first_repeated(key) {
            Some(place) => Err(StoreError::WrittenTwice { key: key(place).clone() }),
            None => Ok(ranks),
        }
    }

    /// What is applied after this commit.
    fn after(&self, applied: &Applied) -> Applied {
        let mut state = applied.state;
        let counted = self.writes.iter().filter(|write| write.counted);
        state.update_all(counted.map(|write| (&write.key, write.old.as_ref(), write.new.as_ref())));
        let mut receipts = applied.receipts;
        for receipt in &self.receipts {
            receipts.add(Digest(receipt.digest()));
        }
        Applied {
            epoch: self.epoch,
            state,
            receipts,
            executed: applied.executed + self.executed,
            multi_partition: applied.multi_partition + self.multi_partition,
        }
    }
}

/// By what a key is looked for in memory: a hash, because keys themselves, which often begin alike,
/// take longer to compare. It differs between processes.
fn rank(key: &Key) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(key)
}

/// The [`rank`]s of a list of keys.
struct Ranks {
    /// In the order of the list.
    ranks: Vec<u64>,
    /// In their own order, each with its place in the list.
    sorted: Vec<(u64, u32)>,
}

impl Ranks {
    fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Self {
        let ranks: Vec<u64> = keys.map(rank).collect();
        let mut sorted: Vec<_> = ranks.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        Self { ranks, sorted }
    }

    /// The places of the keys that have that rank.
    fn places(&self, rank: u64) -> impl Iterator<Item = u32> {
        let before = self.sorted.partition_point(|(other, _)| *other < rank);
        let from_there = self.sorted[before..].iter();
        from_there.take_while(move |(other, _)| *other == rank).map(|(_, place)| *place)
    }

    /// The place of a key that is in the list a second time.
    fn first_repeated<'a>(&self, key: impl Fn(u32) -> &'a Key) -> Option<u32> {
        let alike = self.sorted.chunk_by(|(one, _), (other, _)| one == other);
        alike.filter(|alike| alike.len() > 1).find_map(|alike| {
            let repeats = |index: usize, place| {
                alike[..index].iter().any(|(_, earlier)| key(*earlier) == key(place))
            };
            let mut places = alike.iter().map(|(_, place)| *place).enumerate();
            places.find_map(|(index, place)| repeats(index, place).then_some(place))
        })
    }
}

/// How far a partition is, and what its state and its receipts add up to there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last epoch that is applied; zero before the first.
    pub epoch: EpochNumber,
    /// The digest of the counted state.
    pub state: Digest,
    /// The digest of all receipts.
    pub receipts: Digest,
    /// How many transactions ran here, ever.
    pub executed: u64,
    /// How many of them had more than one participant.
    pub multi_partition: u64,
}

impl Applied {
    /// Compares with what a scan found.
    fn confirm(self, state: Digest, receipts: Digest) -> Result<Self, StoreError> {
        let compare = |what, found, expected| match found == expected {
            true => Ok(()),
            false => Err(StoreError::DigestMismatch { what, found, expected }),
        };
        compare("its values", state, self.state)?;
        compare("its receipts", receipts, self.receipts)?;
        Ok(self)
    }

    /// Length of the encoding, bytes.
    const BYTES: usize = 88;

    /// The encoding: the fields in order, numbers big-endian.
    fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.epoch.0.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.state.0);
        bytes[40..72].copy_from_slice(&self.receipts.0);
        bytes[72..80].copy_from_slice(&self.executed.to_be_bytes());
        bytes[80..].copy_from_slice(&self.multi_partition.to_be_bytes());
        bytes
    }

    /// Decodes what [`encode`](Self::encode) wrote; `None` if the length is another.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (state, rest) = rest.split_first_chunk()?;
        let (receipts, rest) = rest.split_first_chunk()?;
        let (executed, rest) = rest.split_first_chunk()?;
        Some(Self {
            epoch: EpochNumber(u64::from_be_bytes(*epoch)),
            state: Digest(*state),
            receipts: Digest(*receipts),
            executed: u64::from_be_bytes(*executed),
            multi_partition: u64::from_be_bytes(*rest.as_array()?),
        })
    }
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with state {} and receipts {}", self.epoch, self.state, self.receipts)
    }
}

/// The store of one partition.
///
/// A write that the disk refused is final: the store refuses all later ones
/// ([`StoreError::Poisoned`]), because nobody knows what the disk holds. Whoever runs it must stop
/// before answering anyone, and open it again.
pub trait Store: Send + Sync {
    /// The value of a key after the last commit.
    ///
    /// # Errors
    /// [`StoreError::Engine`] if it can't be read.
    fn get(&self, key: &Key) -> Result<Option<Value>, StoreError>;

    /// Applies an epoch, or a run of them, atomically. Epochs between the last applied one and
    /// `commit.first` count as applied too: they did not concern this partition.
    ///
    /// Not durable before the next [`sync`](Self::sync): a crash may take it back.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`], [`StoreError::Misplaced`] and [`StoreError::WrittenTwice`] if
    /// the commit is not sound: nothing is written then. [`StoreError::Engine`] if it can't be
    /// written, and [`StoreError::Poisoned`] after that.
    fn commit(&self, commit: EpochCommit) -> Result<(), StoreError>;

    /// Counts all epochs up to `epoch` as applied, because they did not concern this partition.
    /// Writes nothing. Does nothing if the store is further already.
    fn advance(&self, epoch: EpochNumber);

    /// The values of `keys` after `epoch`, in their order.
    ///
    /// # Errors
    /// [`StoreError::NotYet`] if `epoch` is not applied, [`StoreError::SnapshotGone`] if its
    /// snapshot is not kept (any more), and [`StoreError::Engine`] if it can't be read.
    fn read_at(&self, epoch: EpochNumber, keys: &[Key]) -> Result<Vec<Option<Value>>, StoreError>;

    /// How far the store is. Cheap.
    fn applied(&self) -> Applied;

    /// The digest of the counted state after `epoch`, however long ago that was. Within a run of
    /// epochs that was committed as one, it is the digest before the run.
    ///
    /// # Errors
    /// [`StoreError::NotYet`] if `epoch` is not applied, [`StoreError::Engine`] or
    /// [`StoreError::Damaged`] if it can't be read.
    fn state_digest(&self, epoch: EpochNumber) -> Result<Digest, StoreError>;

    /// Makes durable what is applied, and returns up to which epoch. Cheap if nothing is new.
    ///
    /// # Errors
    /// [`StoreError::Engine`] or [`StoreError::File`] if the disk refuses, and
    /// [`StoreError::Poisoned`] after that.
    fn sync(&self) -> Result<EpochNumber, StoreError>;

    /// The receipts of `from` and the epochs after it that have any, in order. Whole epochs, until
    /// there are at least `limit` receipts.
    ///
    /// # Errors
    /// [`StoreError::Engine`] or [`StoreError::Undecodable`] if they can't be read.
    fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Result<Vec<(EpochNumber, Vec<Receipt>)>, StoreError>;

    /// The receipt of the transaction at a position, if it ran here.
    ///
    /// # Errors
    /// [`StoreError::Engine`] or [`StoreError::Undecodable`] if it can't be read.
    fn receipt(&self, position: Position) -> Result<Option<Receipt>, StoreError>;

    /// What is owed to `to` for epochs after `after`: by epoch, in the order it was committed.
    /// Whole epochs, until there are at least `limit` pushes; ask again after the last one's.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Damaged`] or [`StoreError::Undecodable`] if it can't be read.
    fn outbox(
        &self,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    ) -> Result<Vec<Push>, StoreError>;

    /// Forgets what was owed to `to` for epochs through `through`: it has them durably applied, and
    /// will not ask for them again. When the store is opened anew, it may know them again.
    ///
    /// # Errors
    /// [`StoreError::File`] if the disk refuses, and [`StoreError::Poisoned`] after that.
    fn prune_outbox(&self, to: PartitionId, through: EpochNumber) -> Result<(), StoreError>;

    /// Reads everything and checks it against the digests of [`applied`](Self::applied);
    /// `counted` says which keys this partition counts. Returns what was checked. Takes long.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] if the store is damaged, or `counted` is not what it was
    /// when the keys were written; [`StoreError::Engine`] if it can't be read.
    fn verify(&self, counted: &dyn Fn(&Key) -> bool) -> Result<Applied, StoreError>;
}

/// Why a store can't do what it should.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum StoreError {
    #[error(
        "the storage engine failed at {}: {source}. If starting the node again does not help, move \
         the store and its floor file away: the node rebuilds it from the log",
        path.display()
    )]
    Engine { path: PathBuf, source: Arc<fjall::Error> },
    #[error("{} can't be read or written: {source}", path.display())]
    File { path: PathBuf, source: Arc<std::io::Error> },
    #[error(
        "an earlier write to the store failed, so nobody knows what the disk holds: \
         see the log for the first error, repair the disk, and start the node again"
    )]
    Poisoned,
    #[error(
        "another process uses the store {}: stop it, or give this node another directory",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "{} is not this partition's store: {found}. Point the node at its own directory",
        path.display()
    )]
    Foreign { path: PathBuf, found: String },
    #[error(
        "the store {} is at {found}, but had reached {floor}: it lost synced data, or an old copy \
         was put in its place. Move it and its floor file away and start the node again; \
         it rebuilds the store from the log",
        path.display()
    )]
    BelowFloor { path: PathBuf, found: Box<Applied>, floor: Box<Applied> },
    #[error(
        "{} is damaged: {what}. Move the store and its floor file away and start the node again; \
         it rebuilds the store from the log",
        path.display()
    )]
    Damaged { path: PathBuf, what: &'static str },
    #[error(
        "the store does not add up: {what} are {found} when read, but should be {expected}. \
         Move the store and its floor file away; the node rebuilds it from the log"
    )]
    DigestMismatch { what: &'static str, found: Digest, expected: Digest },
    #[error("a stored record does not decode: {0}")]
    Undecodable(Malformed),
    #[error("epoch {epoch} can't be applied after {applied}")]
    OutOfOrder { epoch: EpochNumber, applied: EpochNumber },
    #[error("{position} is outside the commit's epochs, or has two receipts")]
    Misplaced { position: Position },
    #[error("a commit writes {key} twice")]
    WrittenTwice { key: Key },
    #[error("a commit takes {key} to have had another value than it has")]
    WrongOldValue { key: Key },
    #[error("{epoch} is not applied yet; {applied} is")]
    NotYet { epoch: EpochNumber, applied: EpochNumber },
    #[error("the snapshot of {epoch} is not kept; read at {oldest} or later")]
    SnapshotGone { epoch: EpochNumber, oldest: EpochNumber },
}
