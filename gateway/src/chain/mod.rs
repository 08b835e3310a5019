//! The index of blocks.
//!
//! [`Chain`] takes blocks, in order, from whoever executes them, and keeps them on disk so that
//! blocks, transactions, receipts and logs are found without reading the chain. Everything in it
//! can be built again from the blocks, so nothing is synced before anyone is answered: after a
//! loss of power the latest blocks may be missing, and are appended again.
//!
//! Readers take a [`View`], which is the chain up to one block whatever happens meanwhile.

mod cursor;
mod error;
mod head;
mod limits;
mod logs;
mod open;
mod past;
mod postings;
mod records;
mod view;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode, Readable as _};
use parsec_ethereum::Block;
use tokio::sync::broadcast;

pub use cursor::Search;
pub use error::ChainError;
pub use head::Head;
pub use limits::CHANGES_BEHIND_MAX;
pub use logs::{FoundLog, LogFilter};
pub use past::Past;
pub use postings::{Place, Term};
pub use view::{Placed, View};

use limits::TAIL_ENTRIES_MAX;
use postings::Tail;
use records::{Kind, key};
use view::Tables;
use write::{check_extends, remove_postings, write_block};

/// The number of the latest block.
const HEAD_KEY: &[u8] = b"head";
/// The last block whose postings are stored; those after it are in the tail.
const POSTED_KEY: &[u8] = b"posted";

/// A change of the chain.
#[derive(Clone)]
pub enum Change {
    /// Blocks were appended: those from `first` to the head of `now`.
    Appended {
        /// The first of them.
        first: u64,
        /// The chain with them.
        now: Arc<Past>,
    },
    /// Blocks were taken back: those after the head of `now`.
    Rewound {
        /// The chain before that, where the blocks can still be read.
        before: Arc<Past>,
        /// The chain without them.
        now: Arc<Past>,
    },
}

/// The index of blocks, in a directory.
pub struct Chain {
    database: Database,
    meta: Keyspace,
    /// Held by whoever writes; the last block whose postings are stored, if any are.
    posted: Mutex<Option<u64>>,
    current: RwLock<Arc<View>>,
    changes: broadcast::Sender<Change>,
}

impl Chain {
    /// Opens the index in a directory, which is created if it is absent, of the chain that begins
    /// with `genesis`.
    ///
    /// # Errors
    /// [`ChainError::Foreign`] if it is the index of another chain, or of another version of
    /// Parsec; [`ChainError::Malformed`] if the genesis is no block; [`ChainError::Damaged`] and
    /// [`ChainError::Engine`] if the index can't be read.
    pub fn open(directory: impl AsRef<Path>, genesis: &Block) -> Result<Self, ChainError> {
        let directory = directory.as_ref().to_owned();
        let (database, meta, tables) = open::tables(directory.as_ref())?;
        let head = match open::number(&tables, &meta, HEAD_KEY)? {
            Some(head) => head,
            None => open::write_genesis(&database, &tables, &meta, genesis)?,
        };
        let posted = open::number(&tables, &meta, POSTED_KEY)?;
        let view = open::view(&database, &tables, head, posted)?;
        open::check_genesis(&view, genesis)?;
        let (changes, _) = broadcast::channel(CHANGES_BEHIND_MAX);
        let (posted, current) = (Mutex::new(posted), RwLock::new(Arc::new(view)));
        Ok(Self { database, meta, posted, current, changes })
    }

    /// The chain as it is now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The latest block.
    #[must_use]
    pub fn head(&self) -> Arc<Head> {
        Arc::clone(&self.view().head)
    }

    /// Tells of changes from now on, in their order.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Appends the next block.
    ///
    /// # Errors
    /// [`ChainError::Gap`], [`ChainError::Fork`] or [`ChainError::Malformed`] if it is not that;
    /// [`ChainError::Engine`] if it can't be written.
    pub fn append(&self, block: &Block) -> Result<(), ChainError> {
        self.append_all(std::slice::from_ref(block))
    }

    /// Appends the next blocks, all of them or none.
    ///
    /// # Errors
    /// See [`Self::append`].
    pub fn append_all(&self, blocks: &[Block]) -> Result<(), ChainError> {
        let Some(first) = blocks.first() else { return Ok(()) };
        let mut posted = self.writing();
        let view = self.view();
        let mut batch = self.batch();
        let mut tail = view.tail.clone();
        let mut posted_through = *posted;
        if tail.len() > TAIL_ENTRIES_MAX {
            self.post(&view)?;
            batch.insert(&self.meta, POSTED_KEY, view.head.number.to_be_bytes());
            posted_through = Some(view.head.number);
            tail = Tail::default();
        }
        let mut head = Arc::clone(&view.head);
        for block in blocks {
            let next = Head::of(block)?;
            check_extends(&head, &next)?;
            tail.push(write_block(&mut batch, &view.tables, &next, block)?);
            head = Arc::new(next);
        }
        batch.insert(&self.meta, HEAD_KEY, head.number.to_be_bytes());
        batch.commit().map_err(|error| view.tables.engine_error(error))?;
        *posted = posted_through;
        let view = self.show(&view.tables, tail, head);
        self.tell(Change::Appended { first: first.number, now: view.past() });
        Ok(())
    }

    /// Takes back all blocks after that one.
    ///
    /// # Errors
    /// [`ChainError::Ahead`] if there is no such block; [`ChainError::Engine`] and
    /// [`ChainError::Damaged`] if the blocks can't be read or removed.
    pub fn rewind(&self, to: u64) -> Result<(), ChainError> {
        let mut posted = self.writing();
        let dropped = self.view();
        if to == dropped.head.number {
            return Ok(());
        }
        let head = dropped
            .header(to)?
            .ok_or(ChainError::Ahead { number: to, head: dropped.head.number })?;
        let mut batch = self.batch();
        self.remove_blocks(&mut batch, &dropped, to)?;
        if let Some(through) = posted.filter(|through| *through > to) {
            remove_postings(&mut batch, &dropped, to, through)?;
            batch.insert(&self.meta, POSTED_KEY, to.to_be_bytes());
        }
        batch.insert(&self.meta, HEAD_KEY, to.to_be_bytes());
        batch.commit().map_err(|error| dropped.tables.engine_error(error))?;
        *posted = posted.map(|through| through.min(to));
        let view = self.show(&dropped.tables, dropped.tail.rewound(to), head);
        self.tell(Change::Rewound { before: dropped.past(), now: view.past() });
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, Option<u64>> {
        // What a panic left undone was not committed either.
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::Buffer))
    }

    /// Stores the postings of the tail.
    fn post(&self, view: &View) -> Result<(), ChainError> {
        let engine_error = |error| view.tables.engine_error(error);
        // ORDER: the blocks are durable before their postings are: postings of blocks that are
        // lost would overlap those of the blocks that come in their place.
        self.database.persist(PersistMode::SyncData).map_err(engine_error)?;
        let mut ingestion = view.tables.postings.start_ingestion().map_err(engine_error)?;
        for (key, value) in view.tail.records() {
            ingestion.write(key, value).map_err(engine_error)?;
        }
        ingestion.finish().map_err(engine_error)
    }

    fn remove_blocks(
        &self,
        batch: &mut OwnedWriteBatch,
        view: &View,
        to: u64,
    ) -> Result<(), ChainError> {
        let range = key(to + 1, Kind::Head, 0)..=key(u64::MAX, Kind::Chunk, u32::MAX);
        for record in view.snapshot.range(&view.tables.blocks, range) {
            let key = record.key().map_err(|error| view.tables.engine_error(error))?;
            batch.remove(&view.tables.blocks, key);
        }
        Ok(())
    }

    /// Shows readers what was committed.
    fn show(&self, tables: &Tables, tail: Tail, head: Arc<Head>) -> Arc<View> {
        let snapshot = self.database.snapshot();
        let view = Arc::new(View { tables: tables.clone(), snapshot, tail, head });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&view);
        view
    }

    fn tell(&self, change: Change) {
        // Nobody may be listening.
        drop(self.changes.send(change));
    }
}
