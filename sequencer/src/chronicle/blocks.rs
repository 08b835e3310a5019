//! The sealed blocks, on disk, by number.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parsec_ethereum::Block;
use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_protocol::message::ClusterId;
use parsec_protocol::{EpochNumber, codec};
use parsec_runtimes::evm::keys::{BLOCK_HASHES_MAX, BlockHashes};
use tokio::sync::watch;

use crate::limits::{BLOCKS_CACHE_BYTES, BLOCKS_MEMTABLE_BYTES};

const CLUSTER_KEY: &[u8] = b"cluster";
const MARK_KEY: &[u8] = b"mark";

/// Why the sealed blocks can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum BlocksError {
    #[error("the blocks in {path} can't be read or written: {source}")]
    Engine { path: PathBuf, source: fjall::Error },
    #[error("the blocks in {path} are in use by another process")]
    Locked { path: PathBuf },
    #[error(
        "the blocks in {path} are damaged ({what}); delete the directory: they are sealed again"
    )]
    Damaged { path: PathBuf, what: &'static str },
    #[error("the blocks in {path} are another cluster's: check the sequencer's directory")]
    Foreign { path: PathBuf },
}

/// The last sealed block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) hash: [u8; 32],
}

/// Encoded blocks, or a piece of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) blocks: Vec<Bytes>,
    /// How long the block is of which this is a piece.
    pub(crate) cut: Option<u64>,
}

/// The sealed blocks.
pub(crate) struct Blocks {
    path: PathBuf,
    database: Database,
    blocks: Keyspace,
    meta: Keyspace,
    head: watch::Sender<Option<Head>>,
    /// The epoch through which all blocks are sealed.
    through: watch::Sender<EpochNumber>,
    /// The hashes of the last blocks.
    hashes: Mutex<BlockHashes>,
    /// How many wait for a block that is not sealed.
    waiting: watch::Sender<usize>,
}

/// Somebody waits for a block, as long as this is there.
pub(crate) struct Wanted<'a>(&'a Blocks);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

impl Blocks {
    /// Opens the blocks of `cluster`, or creates them.
    pub(crate) fn open(path: &Path, cluster: ClusterId) -> Result<Self, BlocksError> {
        let failed = |source| match source {
            fjall::Error::Locked => BlocksError::Locked { path: path.to_owned() },
            source => BlocksError::Engine { path: path.to_owned(), source },
        };
        let database = Database::builder(path)
            .cache_size(BLOCKS_CACHE_BYTES)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let keyspace = |name: &str| database.keyspace(name, keyspace_options).map_err(failed);
        let (blocks, meta) = (keyspace("blocks")?, keyspace("meta")?);
        let head = watch::Sender::new(None);
        let opened = Self {
            path: path.to_owned(),
            database,
            blocks,
            meta,
            head,
            through: watch::Sender::default(),
            hashes: Mutex::default(),
            waiting: watch::Sender::default(),
        };
        opened.claim(cluster)?;
        opened.recall()?;
        Ok(opened)
    }

    fn claim(&self, cluster: ClusterId) -> Result<(), BlocksError> {
        match self.meta.get(CLUSTER_KEY).map_err(|error| self.failed(error))? {
            Some(known) if *known == cluster.0 => Ok(()),
            Some(_) => Err(BlocksError::Foreign { path: self.path.clone() }),
            None => self.meta.insert(CLUSTER_KEY, cluster.0).map_err(|error| self.failed(error)),
        }
    }

    fn failed(&self, source: fjall::Error) -> BlocksError {
        BlocksError::Engine { path: self.path.clone(), source }
    }

    fn damaged(&self, what: &'static str) -> BlocksError {
        BlocksError::Damaged { path: self.path.clone(), what }
    }

    /// Recalls what is kept in memory.
    fn recall(&self) -> Result<(), BlocksError> {
        let mut hashes = BlockHashes::default();
        for guard in self.blocks.iter().rev().take(BLOCK_HASHES_MAX) {
            let block = guard.value().map_err(|error| self.failed(error))?;
            let block: Block = codec::decode(&block).map_err(|_| self.damaged("a block"))?;
            hashes.last = hashes.last.max(block.number);
            hashes.hashes.insert(0, block.hash.into());
        }
        let (number, hash) = (hashes.last, hashes.get(hashes.last));
        self.head.send_replace(hash.map(|hash| Head { number, hash: hash.0 }));
        self.through.send_replace(self.mark()?);
        *self.hashes.lock().unwrap_or_else(PoisonError::into_inner) = hashes;
        Ok(())
    }

    fn mark(&self) -> Result<EpochNumber, BlocksError> {
        match self.meta.get(MARK_KEY).map_err(|error| self.failed(error))? {
            None => Ok(EpochNumber(0)),
            Some(bytes) => match <[u8; 8]>::try_from(&bytes[..]) {
                Ok(bytes) => Ok(EpochNumber(u64::from_be_bytes(bytes))),
                Err(_) => Err(self.damaged("its mark")),
            },
        }
    }

    /// The last sealed block, now and from now on.
    pub(crate) fn head(&self) -> watch::Receiver<Option<Head>> {
        self.head.subscribe()
    }

    /// The epoch through which all blocks are sealed, now and from now on.
    pub(crate) fn through(&self) -> watch::Receiver<EpochNumber> {
        self.through.subscribe()
    }

    /// Has blocks sealed at once, instead of many together, while somebody waits for one.
    pub(crate) fn want(&self) -> Wanted<'_> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        Wanted(self)
    }

    /// How many wait for a block that is not sealed, now and from now on.
    pub(crate) fn wanted(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// The hashes of the last blocks.
    pub(crate) fn hashes(&self) -> BlockHashes {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds the next blocks, and the mark that all epochs through `through` are sealed, in one
    /// piece.
    pub(crate) fn append(&self, blocks: &[Block], through: EpochNumber) -> Result<(), BlocksError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::Buffer));
        for block in blocks {
            let encoded = codec::encode(block);
            batch.insert(&self.blocks, block.number.to_be_bytes(), &encoded[..]);
        }
        batch.insert(&self.meta, MARK_KEY, through.0.to_be_bytes());
        batch.commit().map_err(|error| self.failed(error))?;
        {
            let mut known = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
            for block in blocks {
                known.last = block.number;
                known.hashes.push(block.hash.into());
            }
            let excess = known.hashes.len().saturating_sub(BLOCK_HASHES_MAX);
            known.hashes.drain(..excess);
        }
        if let Some(block) = blocks.last() {
            let head = Head { number: block.number, hash: block.hash };
            self.head.send_replace(Some(head));
        }
        // ORDER: whoever waits for it finds the hashes.
        self.through.send_replace(through);
        Ok(())
    }

    /// The hash of a block.
    pub(crate) fn hash(&self, number: u64) -> Result<Option<[u8; 32]>, BlocksError> {
        let recent = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(number);
        if let Some(hash) = recent {
            return Ok(Some(hash.0));
        }
        let found = self.blocks.get(number.to_be_bytes()).map_err(|error| self.failed(error))?;
        let Some(block) = found else { return Ok(None) };
        let block: Block = codec::decode(&block).map_err(|_| self.damaged("a block"))?;
        Ok(Some(block.hash))
    }

    /// At most `limit` blocks from `from` on, as many as fit into a message; or what of the first
    /// one fits, from the byte `offset` on.
    pub(crate) fn read(&self, from: u64, offset: u64, limit: usize) -> Result<Piece, BlocksError> {
        let mut piece = Piece { blocks: Vec::new(), cut: None };
        let mut bytes = 0;
        for guard in self.blocks.range(from.to_be_bytes()..).take(limit) {
            let block = guard.value().map_err(|error| self.failed(error))?;
            if piece.blocks.is_empty() && (offset > 0 || block.len() > FRAME_BYTES_TARGET) {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(block.len());
                let end = block.len().min(start.saturating_add(FRAME_BYTES_TARGET));
                piece.blocks.push(Bytes::copy_from_slice(&block[start..end]));
                piece.cut = Some(block.len() as u64);
                break;
            }
            bytes += block.len();
            if bytes > FRAME_BYTES_TARGET {
                break;
            }
            piece.blocks.push(Bytes::copy_from_slice(&block));
        }
        Ok(piece)
    }

    /// Makes durable what was sealed, before the process ends in order.
    pub(crate) fn persist(&self) -> Result<(), BlocksError> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.failed(error))
    }
}

/// For few large records that are written in order, read in order, and there when looked for.
fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(BLOCKS_MEMTABLE_BYTES)
        .expect_point_read_hits(true)
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{Outcome, Position, Receipt, ShortBytes, TxId};
    use parsec_runtimes::evm::chronicle::Chronicle;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 32]);

    /// Block 0 with another number, and padding.
    fn block(number: u64, bytes: usize) -> Block {
        let mut block = Chronicle::new(1, None).unwrap().genesis(None, [0; 32]).unwrap();
        let header = alloy_header(number);
        block.number = number;
        block.header = header.into();
        block.transactions.push(parsec_ethereum::BlockTransaction {
            raw: vec![7; bytes].into(),
            sender: [1; 20],
            receipt: Receipt {
                id: TxId([2; 32]),
                position: Position { epoch: EpochNumber(1), index: 0 },
                attempt: 0,
                outcome: Outcome::Committed,
                work: 1,
                output: ShortBytes::new(),
                events: Vec::new(),
            },
            state_root: None,
        });
        block
    }

    fn alloy_header(number: u64) -> Vec<u8> {
        let chronicle = Chronicle::new(1, None).unwrap();
        let parent = parsec_runtimes::evm::chronicle::Parent {
            number: number.wrapping_sub(1),
            hash: Default::default(),
        };
        let record = parsec_protocol::EpochRecord {
            number: EpochNumber(number),
            timestamp_ms: 0,
            block: number,
            parent: [0; 32],
            batches: Vec::new(),
        };
        chronicle.block(&parent, &record, [0; 32], []).unwrap().header.to_vec()
    }

    #[test]
    fn blocks_and_mark_come_back_together() {
        let directory = tempfile::tempdir().unwrap();
        let blocks = Blocks::open(directory.path(), CLUSTER).unwrap();
        assert_eq!((*blocks.head().borrow(), blocks.through().borrow().0), (None, 0));
        let first: Vec<_> = (1..4).map(|number| block(number, 10)).collect();
        blocks.append(&first, EpochNumber(9)).unwrap();
        drop(blocks);
        let blocks = Blocks::open(directory.path(), CLUSTER).unwrap();
        let head = blocks.head().borrow().unwrap();
        assert_eq!((head.number, head.hash), (3, first[2].hash));
        assert_eq!(*blocks.through().borrow(), EpochNumber(9));
        assert_eq!(blocks.hashes().get(1).unwrap().0, first[0].hash);
        assert_eq!(blocks.hash(2).unwrap(), Some(first[1].hash));
        assert_eq!(blocks.hash(4).unwrap(), None);
        let read = blocks.read(2, 0, 10).unwrap();
        let decoded: Vec<Block> =
            read.blocks.iter().map(|block| codec::decode(block).unwrap()).collect();
        assert_eq!(decoded, first[1..]);
        assert_eq!(blocks.read(4, 0, 10).unwrap(), Piece { blocks: Vec::new(), cut: None });
    }

    #[test]
    fn a_long_block_comes_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let blocks = Blocks::open(directory.path(), CLUSTER).unwrap();
        let long = block(2, 2 * FRAME_BYTES_TARGET);
        blocks.append(&[block(1, 10), long.clone()], EpochNumber(2)).unwrap();
        // The short one alone, since the long one does not fit beside it.
        assert_eq!(blocks.read(1, 0, 10).unwrap().blocks.len(), 1);
        let mut encoded = Vec::new();
        loop {
            let piece = blocks.read(2, encoded.len() as u64, 10).unwrap();
            encoded.extend_from_slice(&piece.blocks[0]);
            if encoded.len() as u64 == piece.cut.unwrap() {
                break;
            }
        }
        assert_eq!(codec::decode::<Block>(&encoded).unwrap(), long);
        let beyond = blocks.read(2, u64::MAX, 10).unwrap();
        assert!(beyond.blocks[0].is_empty());
    }

    #[test]
    fn another_clusters_blocks_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Blocks::open(directory.path(), CLUSTER).unwrap());
        let other = Blocks::open(directory.path(), ClusterId([4; 32]));
        assert!(matches!(other, Err(BlocksError::Foreign { .. })));
    }
}
