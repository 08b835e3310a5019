//! Blocks, as a gateway is told of them.

use alloy_consensus::Header;
use alloy_primitives::{Address, B256};
use alloy_rlp::Decodable;
use bytes::Bytes;
use parsec_protocol::{EpochNumber, Malformed, Outcome, Receipt, Wire};
use rkyv::{Archive, Deserialize, Serialize};

/// An Ethereum block: an epoch that holds Ethereum transactions, with what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Block {
    /// Its number, from 0 (the genesis) without gaps.
    pub number: u64,
    /// The epoch after which the state is the block's.
    pub epoch: EpochNumber,
    /// The Keccak-256 hash of `header`.
    pub hash: [u8; 32],
    /// The RLP of its header.
    pub header: Bytes,
    /// The transactions that are in it, in order.
    pub transactions: Vec<BlockTransaction>,
    /// The RLP of the headers of its ommers: none but in blocks of other chains.
    pub ommers: Vec<Bytes>,
    /// The RLP of each withdrawal, from Shanghai on: none but in blocks of other chains.
    pub withdrawals: Option<Vec<Bytes>>,
}

/// A transaction of a block, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BlockTransaction {
    /// Its raw bytes (EIP-2718), without blobs.
    pub raw: Bytes,
    /// Who sent it.
    pub sender: [u8; 20],
    /// What became of it: committed or reverted. Its id is the transaction's hash.
    pub receipt: Receipt,
    /// The root of the state after it, in blocks of other chains from before Byzantium: their
    /// receipts have it in the place of whether the transaction succeeded.
    pub state_root: Option<[u8; 32]>,
}

impl Block {
    /// Its decoded header.
    ///
    /// # Errors
    /// [`Malformed::Archive`] if it is not the RLP of a header and nothing else.
    pub fn decode_header(&self) -> Result<Header, Malformed> {
        let malformed = |reason: String| Malformed::Archive { reason };
        let mut rest = &self.header[..];
        let header = Header::decode(&mut rest).map_err(|error| malformed(error.to_string()))?;
        match rest.len() {
            0 => Ok(header),
            more => Err(malformed(format!("{more} bytes follow the header"))),
        }
    }
}

impl BlockTransaction {
    /// The Keccak-256 hash of its raw bytes.
    #[must_use]
    pub fn hash(&self) -> B256 {
        B256::new(self.receipt.id.0)
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> Address {
        Address::new(self.sender)
    }

    /// Whether it took effect.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.receipt.outcome == Outcome::Committed
    }
}

impl Wire for Block {
    fn check(&self) -> Result<(), Malformed> {
        let header = self.decode_header()?;
        match header.number == self.number {
            true => Ok(()),
            false => Err(Malformed::Archive {
                reason: format!("block {} has the header of {}", self.number, header.number),
            }),
        }
    }
}
