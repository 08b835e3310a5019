//! What an append writes and a rewind removes.

use fjall::{OwnedWriteBatch, Readable as _};
use parsec_ethereum::Block;
use parsec_protocol::codec;

use super::error::ChainError;
use super::head::Head;
use super::postings::{Piece, Place, decode, encode, record_key};
use super::records::{self, HeadRecord, Kind, key};
use super::view::{Tables, View};
use crate::Transaction;

/// Makes sure that a block is the next one.
pub(super) fn check_extends(head: &Head, next: &Head) -> Result<(), ChainError> {
    if head.number.checked_add(1) != Some(next.number) {
        return Err(ChainError::Gap { number: next.number, head: head.number });
    }
    match next.header.parent_hash == head.hash {
        true => Ok(()),
        false => Err(ChainError::Fork {
            number: next.number,
            parent: next.header.parent_hash,
            head: head.hash,
        }),
    }
}

/// The decoded transactions of a block.
pub(super) fn decode_all(block: &Block) -> Result<Vec<Transaction>, ChainError> {
    block.transactions.iter().map(|tx| records::decode(block.number, &tx.raw)).collect()
}

/// Writes the records of a block. Returns its postings, which go elsewhere.
pub(super) fn write_block(
    batch: &mut OwnedWriteBatch,
    tables: &Tables,
    head: &Head,
    block: &Block,
) -> Result<Piece, ChainError> {
    let decoded = decode_all(block)?;
    let number = block.number;
    let mut insert = |kind, index, value: &[u8]| {
        batch.insert(&tables.blocks, key(number, kind, index), value);
    };
    insert(Kind::Head, 0, &codec::encode(&HeadRecord::new(head)));
    if !block.transactions.is_empty() {
        let hashes = block.transactions.iter().flat_map(|tx| tx.receipt.id.0);
        insert(Kind::Hashes, 0, &hashes.collect::<Vec<u8>>());
        insert(Kind::Fees, 0, &codec::encode(&records::fees(head, &decoded, block)));
    }
    for (first, chunk) in records::chunks(block) {
        insert(Kind::Chunk, first, &codec::encode(&chunk));
    }
    Ok(Piece::of(block, &decoded, tables.seed))
}

/// Removes the stored postings of the blocks after `to`, up to `through`.
pub(super) fn remove_postings(
    batch: &mut OwnedWriteBatch,
    view: &View,
    to: u64,
    through: u64,
) -> Result<(), ChainError> {
    let mut fingerprints = Vec::new();
    for number in to + 1..=through {
        let Some(block) = view.block(number)? else { break };
        let piece = Piece::of(&block, &decode_all(&block)?, view.tables.seed);
        fingerprints.extend(piece.fingerprints());
        fingerprints.sort_unstable();
        fingerprints.dedup();
    }
    for fingerprint in fingerprints {
        trim(batch, view, fingerprint, to)?;
    }
    Ok(())
}

/// Removes the stored places of a fingerprint after block `to`.
fn trim(
    batch: &mut OwnedWriteBatch,
    view: &View,
    fingerprint: u64,
    to: u64,
) -> Result<(), ChainError> {
    let tables = &view.tables;
    let range =
        record_key(fingerprint, Place::start(0))..=record_key(fingerprint, Place::end(u64::MAX));
    for record in view.snapshot.range(&tables.postings, range).rev() {
        let (key, value) = record.into_inner().map_err(|error| tables.engine_error(error))?;
        let mut places =
            decode(&key, &value).ok_or_else(|| tables.damaged("a record of postings"))?;
        let all = places.len();
        places.retain(|place| place.number <= to);
        match places.len() {
            0 => batch.remove(&tables.postings, key),
            kept if kept < all => batch.insert(&tables.postings, key, encode(&places)),
            // Nothing before this record is later than it.
            _ => break,
        }
    }
    Ok(())
}
