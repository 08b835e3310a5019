//! Reading the chain as it was at one moment.

use std::path::PathBuf;
use std::sync::Arc;

use alloy_primitives::B256;
use fjall::{Keyspace, Readable as _, Snapshot};
use parsec_ethereum::{Block, BlockTransaction};
use parsec_protocol::codec;
use rkyv::rancor::Error;

use super::cursor::Search;
use super::error::ChainError;
use super::head::Head;
use super::postings::{Place, Tail, Term};
use super::records::{ArchivedChunk, Chunk, FeeRecord, HeadRecord, Kind, key};

/// What all views of a chain share.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) directory: PathBuf,
    pub(super) blocks: Keyspace,
    pub(super) postings: Keyspace,
    pub(super) seed: u64,
}

impl Tables {
    pub(super) fn engine_error(&self, error: fjall::Error) -> ChainError {
        ChainError::Engine { path: self.directory.clone(), source: Arc::new(error) }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> ChainError {
        ChainError::Damaged { path: self.directory.clone(), what: what.into() }
    }
}

/// The chain up to a block. It does not change while blocks are appended or taken back.
pub struct View {
    pub(super) tables: Tables,
    pub(super) snapshot: Snapshot,
    pub(super) tail: Tail,
    pub(super) head: Arc<Head>,
}

/// A transaction with what of its block concerns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Where it is.
    pub place: Place,
    /// The transaction and what became of it.
    pub transaction: BlockTransaction,
    /// The gas that the block's transactions before it used.
    pub gas_before: u64,
    /// How many log entries they wrote.
    pub logs_before: u64,
}

impl View {
    /// The latest block.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// A block without its transactions; none if it is after the latest.
    ///
    /// # Errors
    /// [`ChainError::Engine`] and [`ChainError::Damaged`], as for all that reads.
    pub fn header(&self, number: u64) -> Result<Option<Arc<Head>>, ChainError> {
        if number == self.head.number {
            return Ok(Some(Arc::clone(&self.head)));
        }
        read_head(&self.tables, &self.snapshot, number)
    }

    /// The number of the block with that hash.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn number_of(&self, hash: B256) -> Result<Option<u64>, ChainError> {
        if hash == self.head.hash {
            return Ok(Some(self.head.number));
        }
        let is_it = |place: Place| {
            Ok(self.header(place.number)?.filter(|head| head.hash == hash).map(|head| head.number))
        };
        self.first_of(Term::Block(hash), is_it)
    }

    /// The hashes of a block's transactions.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn hashes(&self, number: u64) -> Result<Vec<B256>, ChainError> {
        let bytes = self.record(number, Kind::Hashes, 0)?.unwrap_or_default();
        Ok(bytes.chunks_exact(32).map(B256::from_slice).collect())
    }

    /// What the transactions of a block paid above the base fee for each unit of gas, cheapest
    /// first, and the gas that was bought at that price.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn fees(&self, number: u64) -> Result<Vec<(u128, u64)>, ChainError> {
        match self.record(number, Kind::Fees, 0)? {
            Some(bytes) => Ok(self.decode::<FeeRecord>(&bytes, "fees")?.paid),
            None => Ok(Vec::new()),
        }
    }

    /// The transactions of a block, in order; none if there is no such block.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn transactions(&self, number: u64) -> Result<Option<Vec<Placed>>, ChainError> {
        let Some(head) = self.header(number)? else { return Ok(None) };
        let mut all = Vec::new();
        let range = key(number, Kind::Chunk, 0)..=key(number, Kind::Chunk, u32::MAX);
        for record in self.snapshot.range(&self.tables.blocks, range) {
            let bytes = record.value().map_err(|error| self.tables.engine_error(error))?;
            let chunk: Chunk = self.decode(&bytes, "transactions")?;
            let (mut gas, mut logs) = (chunk.gas_before, chunk.logs_before);
            for transaction in chunk.transactions {
                let index = u32::try_from(all.len()).unwrap_or(u32::MAX);
                let used = (transaction.receipt.work, events(&transaction));
                let place = Place { number, index };
                all.push(Placed { place, transaction, gas_before: gas, logs_before: logs });
                (gas, logs) = (gas + used.0, logs + used.1);
            }
        }
        match all.len() == usize::try_from(head.transactions).unwrap_or(usize::MAX) {
            true => Ok(Some(all)),
            false => Err(self.tables.damaged(format!("transactions of block {number}"))),
        }
    }

    /// A block; none if it is after the latest.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        let Some(head) = self.header(number)? else { return Ok(None) };
        let placed = self.transactions(number)?.unwrap_or_default();
        Ok(Some(Block {
            number,
            epoch: head.epoch,
            hash: head.hash.0,
            header: head.raw.clone(),
            transactions: placed.into_iter().map(|placed| placed.transaction).collect(),
            ommers: head.ommers.clone(),
            withdrawals: head.withdrawals.clone(),
        }))
    }

    /// The transaction at a place, read without the rest of its block.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn placed(&self, place: Place) -> Result<Option<Placed>, ChainError> {
        let range = key(place.number, Kind::Chunk, 0)..=key(place.number, Kind::Chunk, place.index);
        let Some(record) = self.snapshot.range(&self.tables.blocks, range).next_back() else {
            return Ok(None);
        };
        let (found, bytes) =
            record.into_inner().map_err(|error| self.tables.engine_error(error))?;
        let first =
            found.get(9..13).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let offset = first.and_then(|first| usize::try_from(place.index.checked_sub(first)?).ok());
        let offset = offset.ok_or_else(|| self.tables.damaged("the key of transactions"))?;
        let chunk = rkyv::access::<ArchivedChunk, Error>(&bytes)
            .map_err(|error| self.tables.damaged(format!("transactions: {error}")))?;
        let Some(transaction) = chunk.transactions.get(offset) else { return Ok(None) };
        let before = chunk.transactions.iter().take(offset);
        let (mut gas_before, mut logs_before) =
            (chunk.gas_before.to_native(), chunk.logs_before.to_native());
        for earlier in before {
            gas_before += earlier.receipt.work.to_native();
            logs_before += u64::try_from(earlier.receipt.events.len()).unwrap_or(u64::MAX);
        }
        let transaction = rkyv::deserialize::<BlockTransaction, Error>(transaction)
            .map_err(|error| self.tables.damaged(format!("a transaction: {error}")))?;
        Ok(Some(Placed { place, transaction, gas_before, logs_before }))
    }

    /// The transaction with that hash.
    ///
    /// # Errors
    /// See [`Self::header`].
    pub fn transaction(&self, hash: B256) -> Result<Option<Placed>, ChainError> {
        let is_it = |place: Place| {
            Ok(self.placed(place)?.filter(|placed| placed.transaction.hash() == hash))
        };
        self.first_of(Term::Transaction(hash), is_it)
    }

    /// The first candidate of a term that really is what was looked for.
    fn first_of<T>(
        &self,
        term: Term,
        is_it: impl Fn(Place) -> Result<Option<T>, ChainError>,
    ) -> Result<Option<T>, ChainError> {
        let mut search = Search::new(self, [vec![term]]);
        let mut from = Some(Place::start(0));
        while let Some(start) = from
            && let Some(place) = search.first_from(start)?
        {
            if let Some(found) = is_it(place)? {
                return Ok(Some(found));
            }
            from = place.next();
        }
        Ok(None)
    }

    fn record(
        &self,
        number: u64,
        kind: Kind,
        index: u32,
    ) -> Result<Option<fjall::Slice>, ChainError> {
        let record = self.snapshot.get(&self.tables.blocks, key(number, kind, index));
        record.map_err(|error| self.tables.engine_error(error))
    }

    fn decode<T>(&self, bytes: &[u8], what: &str) -> Result<T, ChainError>
    where
        T: rkyv::Archive + codec::Wire,
        T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, Error>>
            + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<Error>>,
    {
        codec::decode(bytes).map_err(|error| self.tables.damaged(format!("{what}: {error}")))
    }
}

/// A stored block without its transactions.
pub(super) fn read_head(
    tables: &Tables,
    snapshot: &Snapshot,
    number: u64,
) -> Result<Option<Arc<Head>>, ChainError> {
    let record = snapshot.get(&tables.blocks, key(number, Kind::Head, 0));
    let Some(bytes) = record.map_err(|error| tables.engine_error(error))? else {
        return Ok(None);
    };
    let head = codec::decode::<HeadRecord>(&bytes)
        .map_err(|error| error.to_string())
        .and_then(|record| record.into_head(number))
        .map_err(|what| tables.damaged(format!("header of block {number}: {what}")))?;
    Ok(Some(Arc::new(head)))
}

/// How many log entries a transaction wrote.
fn events(transaction: &BlockTransaction) -> u64 {
    u64::try_from(transaction.receipt.events.len()).unwrap_or(u64::MAX)
}
