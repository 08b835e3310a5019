//! Headers of blocks, with what is known of a block besides its transactions.

use alloy_consensus::Header;
use alloy_primitives::B256;
use bytes::Bytes;
use parsec_ethereum::Block;
use parsec_protocol::EpochNumber;

use super::error::ChainError;

/// A block without its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: B256,
    /// Its header.
    pub header: Header,
    /// The RLP of its header.
    pub raw: Bytes,
    /// The epoch after which the state is the block's.
    pub epoch: EpochNumber,
    /// The length of the whole block's RLP, bytes.
    pub size: u64,
    /// How many transactions it has.
    pub transactions: u32,
    /// The RLP of the headers of its ommers.
    pub ommers: Vec<Bytes>,
    /// The RLP of its withdrawals.
    pub withdrawals: Option<Vec<Bytes>>,
}

impl Head {
    /// The head of a block.
    ///
    /// # Errors
    /// [`ChainError::Malformed`] if its header is none, or that of another number.
    pub(crate) fn of(block: &Block) -> Result<Self, ChainError> {
        let malformed = |reason: String| ChainError::Malformed { number: block.number, reason };
        let header = block.decode_header().map_err(|error| malformed(error.to_string()))?;
        if header.number != block.number {
            return Err(malformed(format!("it has the header of block {}", header.number)));
        }
        let transactions = u32::try_from(block.transactions.len())
            .map_err(|_| malformed("it has too many transactions".into()))?;
        Ok(Self {
            number: block.number,
            hash: B256::new(block.hash),
            header,
            raw: block.header.clone(),
            epoch: block.epoch,
            size: size(block),
            transactions,
            ommers: block.ommers.clone(),
            withdrawals: block.withdrawals.clone(),
        })
    }
}

/// The length of the block's RLP: a list of header, transactions, ommers, withdrawals.
fn size(block: &Block) -> u64 {
    let list = |payload: usize| alloy_rlp::length_of_length(payload) + payload;
    // A typed transaction is a string in the list, a legacy one a list of its own.
    let transaction = |raw: &Bytes| match raw.first() {
        Some(0xc0..) => raw.len(),
        _ => list(raw.len()),
    };
    let items = |items: &[Bytes]| list(items.iter().map(Bytes::len).sum());
    let transactions = block.transactions.iter().map(|tx| transaction(&tx.raw)).sum();
    let withdrawals = block.withdrawals.as_ref().map_or(0, |all| items(all));
    let payload = block.header.len() + list(transactions) + items(&block.ommers) + withdrawals;
    u64::try_from(list(payload)).unwrap_or(u64::MAX)
}
