//! Blocks of other chains: decoded, executed as Ethereum does it, and held against their headers.
//!
//! A [`Verifier`] has the state of a chain and takes its blocks, in order. What a header says it
//! checks twice: against the block before it and the rules, before anything is executed
//! (`header`), and against what the execution came to: gas, receipts, logs, requests, and the root
//! of the state. Transactions go through the same session as those of a cluster; system calls, too.
//!
//! All of it is pure: blocks are given as their RLP, the genesis as its JSON.
//!
//! Not there: proofs of work and signatures of blocks (only their difficulty is checked), the
//! irregular change of state of the DAO fork, and rules that revm does not have: Constantinople
//! without its fix, and forks that are not final.

mod body;
mod error;
mod execute;
mod genesis;
mod header;
mod ommers;
mod spec;
mod system;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::Encodable as _;
use bytes::Bytes;
use parsec_ethereum::Block;
use parsec_protocol::{EpochNumber, Key, Value};

pub use error::{Reason, RefusedBlock};
pub use genesis::{Genesis, GenesisError};
pub use spec::ChainSpec;

use self::body::Body;
use self::execute::Run;
use super::keys;
use super::overlay::Changes;
use super::params::{GenesisAccount, genesis as entries};
use super::session::EvmSession;
use super::trie::StateTrie;

/// How many of the last blocks have a hash that transactions may ask for.
const HASHES: usize = 256;
/// How many generations back the parent of an ommer may be.
const OMMER_GENERATIONS: usize = 7;

/// Takes the blocks of a chain, in order.
///
/// **Invariant.** A block that is refused leaves no trace.
pub struct Verifier {
    spec: ChainSpec,
    session: EvmSession,
    state: BTreeMap<Key, Value>,
    trie: StateTrie,
    /// Whether roots of the state are computed.
    checks_roots: bool,
    head: Header,
    hash: B256,
    /// The difficulty of all blocks.
    total_difficulty: U256,
    /// Hashes of the last blocks by number, the head's last.
    hashes: VecDeque<(u64, B256)>,
    /// The last blocks, the head last, for ommers.
    recent: VecDeque<Generation>,
}

/// A block as its ommers' validity needs it.
#[derive(Debug, Clone)]
struct Generation {
    hash: B256,
    header: Header,
    ommers: Vec<B256>,
}

/// A block that holds what its header says.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The block as it is served: its own header, and what became of its transactions.
    pub block: Block,
    /// The parameters that its transactions were executed with.
    pub params: Value,
    /// What changed before its transactions: system calls.
    pub opening: Changes,
    /// What its transactions changed.
    pub executed: Changes,
    /// What changed after them: requests, withdrawals, rewards.
    pub closing: Changes,
}

impl Verified {
    /// All that the block changed.
    #[must_use]
    pub fn changes(self) -> Changes {
        let mut changes = self.opening;
        changes.extend(self.executed);
        changes.extend(self.closing);
        changes
    }
}

impl Verifier {
    /// A chain before its first block, with the header of its genesis.
    ///
    /// With `checks_roots` off, roots of the state are taken as headers say, and so are the
    /// receipts of blocks before Byzantium, which hold such roots: the cost of a root grows with
    /// the number of accounts.
    ///
    /// # Errors
    /// [`RefusedBlock`] if the header names another state than that of the accounts, or rules that
    /// are not known.
    pub fn new(
        mut spec: ChainSpec,
        accounts: &BTreeMap<Address, GenesisAccount>,
        header: Header,
        checks_roots: bool,
    ) -> Result<Self, RefusedBlock> {
        let hash = keccak256(alloy_rlp::encode(&header));
        let refuse = |reason| RefusedBlock { number: header.number, hash, reason };
        if spec.terminal_difficulty.is_some_and(|end| end.is_zero()) {
            spec.merge_at(header.number);
        }
        let params = spec.params(header.gas_limit);
        let state: BTreeMap<Key, Value> = entries(&params, accounts).into_iter().collect();
        let trie = StateTrie::of(&state).map_err(|error| refuse(error.into()))?;
        let mut verifier = Self {
            session: EvmSession::new(spec.chain_id),
            spec,
            state,
            trie,
            checks_roots,
            total_difficulty: header.difficulty,
            hashes: VecDeque::new(),
            recent: VecDeque::new(),
            hash,
            head: header.clone(),
        };
        if checks_roots {
            let found = verifier.trie.root();
            error::same_result("state root", header.state_root, found).map_err(refuse)?;
        }
        verifier.extend(header, hash, Vec::new());
        Ok(verifier)
    }

    /// The state after the latest block.
    #[must_use]
    pub fn state(&self) -> &BTreeMap<Key, Value> {
        &self.state
    }

    /// The trie of that state.
    pub fn trie(&mut self) -> &mut StateTrie {
        &mut self.trie
    }

    /// The header of the latest block.
    #[must_use]
    pub fn head(&self) -> &Header {
        &self.head
    }

    /// The difficulty of all blocks so far.
    #[must_use]
    pub fn total_difficulty(&self) -> U256 {
        self.total_difficulty
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> B256 {
        self.hash
    }

    /// The rules of the chain, as far as they are known by now.
    #[must_use]
    pub fn spec(&self) -> &ChainSpec {
        &self.spec
    }

    /// Takes the next block, given as its RLP.
    ///
    /// # Errors
    /// [`RefusedBlock`] says which block is wrong, in what, and what would be right.
    pub fn take(&mut self, raw: &[u8]) -> Result<Verified, RefusedBlock> {
        let body = Body::decode(raw).map_err(|reason| RefusedBlock {
            number: self.head.number + 1,
            hash: body::hash_of(raw),
            reason,
        })?;
        let (number, hash) = (body.header.number, body.hash);
        self.verify(body).map_err(|reason| RefusedBlock { number, hash, reason })
    }

    fn verify(&mut self, body: Body) -> Result<Verified, Reason> {
        error::same_header("parent hash", self.hash, body.header.parent_hash)?;
        error::same_header("number", self.head.number + 1, body.header.number)?;
        let merges = self.spec.terminal_difficulty.is_some_and(|end| self.total_difficulty >= end);
        let mut spec = self.spec.clone();
        if merges {
            spec.merge_at(body.header.number);
        }
        let fork = spec.fork_at(body.header.number, body.header.timestamp);
        let parent = self.recent.back().ok_or_else(|| Reason::Broken("no parent".to_owned()))?;
        header::check(&body.header, &parent.header, !parent.ommers.is_empty(), &spec)?;
        body.check(&fork)?;
        ommers::check(&body, &self.recent, &spec)?;
        let run = Run {
            session: &mut self.session,
            state: &self.state,
            trie: self.checks_roots.then_some(&mut self.trie),
            spec: &spec,
            fork,
            params: execute::params(&spec, &fork, &body.header, &self.hashes),
            header: &body.header,
            changes: Changes::new(),
        };
        let mut verified = match run.block(&body) {
            Ok(verified) => verified,
            Err(reason) => {
                self.restore()?;
                return Err(reason);
            }
        };
        if merges {
            let params = spec.params(body.header.gas_limit).encode();
            verified.opening.insert(keys::params(), Some(params));
        }
        self.spec = spec;
        for (key, value) in verified.clone().changes() {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        self.total_difficulty += body.header.difficulty;
        let ommers = body.ommers.iter().map(|ommer| keccak256(&ommer.raw)).collect();
        self.extend(body.header, body.hash, ommers);
        Ok(verified)
    }

    /// Takes back what a refused block did to the trie.
    fn restore(&mut self) -> Result<(), Reason> {
        if self.checks_roots {
            self.trie = StateTrie::of(&self.state)?;
        }
        Ok(())
    }

    fn extend(&mut self, header: Header, hash: B256, ommers: Vec<B256>) {
        self.hashes.push_back((header.number, hash));
        if self.hashes.len() > HASHES {
            self.hashes.pop_front();
        }
        self.recent.push_back(Generation { hash, header: header.clone(), ommers });
        if self.recent.len() > OMMER_GENERATIONS {
            self.recent.pop_front();
        }
        (self.head, self.hash) = (header, hash);
    }

    /// The genesis as a block.
    #[must_use]
    pub fn genesis_block(header: &Header) -> Block {
        let mut raw = Vec::with_capacity(header.length());
        header.encode(&mut raw);
        Block {
            number: header.number,
            epoch: EpochNumber(header.number),
            hash: keccak256(&raw).0,
            header: raw.into(),
            transactions: Vec::new(),
            ommers: Vec::new(),
            withdrawals: header.withdrawals_root.map(|_| Vec::new()),
        }
    }
}

/// The header of a block that is given as its RLP.
///
/// # Errors
/// [`Reason::Malformed`] if it is none.
pub fn header_of(block: &[u8]) -> Result<Header, Reason> {
    Body::decode(block).map(|body| body.header)
}

/// The blocks of a file that holds one after the other, each as its RLP.
///
/// # Errors
/// [`Reason::Malformed`] if something in it is no list.
pub fn split(mut file: &[u8]) -> Result<Vec<Bytes>, Reason> {
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let (block, rest) = body::item(file)?;
        blocks.push(Bytes::copy_from_slice(block));
        file = rest;
    }
    Ok(blocks)
}
