//! The chain of a test, with blocks beside it: before the Merge, the chain with the greatest
//! difficulty counts, whatever came first.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U256};
use bytes::Bytes;
use parsec_runtimes::evm::verify::{ChainSpec, Verifier, header_of};

use super::case::Test;
use crate::statetest::{Failure, accounts, differences, loaded_accounts};

/// Most differences of a state that a failure tells.
const DIFFERENCES_MAX: usize = 4;

/// The blocks that were taken so far, and a verifier that stands at one of them.
pub(super) struct Branches {
    pub(super) spec: ChainSpec,
    pub(super) verifier: Verifier,
    genesis: Bytes,
    pre: BTreeMap<alloy_primitives::Address, parsec_runtimes::evm::GenesisAccount>,
    /// Each block by its hash, with the hash of its parent.
    taken: BTreeMap<B256, (B256, Bytes)>,
    /// The block that counts, and the difficulty of the chain up to it.
    head: (B256, U256),
}

impl Branches {
    pub(super) fn new(test: &Test, spec: ChainSpec) -> Result<Self, Failure> {
        let (genesis, pre) = (test.genesis.0.clone(), accounts(&test.pre)?);
        let verifier = start(&genesis, &pre, &spec)?;
        let head = (verifier.hash(), verifier.total_difficulty());
        Ok(Self { spec, verifier, genesis, pre, taken: BTreeMap::new(), head })
    }

    /// Lets the verifier stand at the parent of a block, if that is known.
    pub(super) fn turn_to_parent_of(&mut self, raw: &[u8]) -> Result<(), Failure> {
        match header_of(raw) {
            Ok(header) => self.turn_to(header.parent_hash),
            // It will be refused wherever it is.
            Err(_) => Ok(()),
        }
    }

    fn turn_to(&mut self, hash: B256) -> Result<(), Failure> {
        if hash == self.verifier.hash() {
            return Ok(());
        }
        let mut way = Vec::new();
        let mut at = hash;
        while let Some((parent, raw)) = self.taken.get(&at) {
            way.push(raw.clone());
            at = *parent;
        }
        let start = start(&self.genesis, &self.pre, &self.spec)?;
        if at != start.hash() {
            return Ok(());
        }
        self.verifier = start;
        for raw in way.iter().rev() {
            self.verifier.take(raw).map_err(|refused| refused.to_string())?;
        }
        Ok(())
    }

    /// Remembers a block that the verifier has just taken.
    pub(super) fn remember(&mut self, raw: &Bytes) {
        let (header, hash) = (self.verifier.head(), self.verifier.hash());
        self.taken.insert(hash, (header.parent_hash, raw.clone()));
        let total = self.verifier.total_difficulty();
        // From the Merge on, whoever gives blocks says which of them counts.
        if total > self.head.1 || header.difficulty.is_zero() {
            self.head = (hash, total);
        }
    }

    /// Makes sure that the chain came to what the test says.
    pub(super) fn end(&mut self, test: &Test) -> Result<(), Failure> {
        self.turn_to(self.head.0)?;
        let verifier = &mut self.verifier;
        if verifier.hash() != test.last {
            return Err(format!("the last block is {}, not {}", verifier.hash(), test.last));
        }
        if let Some(expected) = &test.post_state {
            let found = loaded_accounts(verifier.state())?;
            let all = differences(&found, &accounts(expected)?);
            if !all.is_empty() {
                let shown = all.iter().take(DIFFERENCES_MAX).map(String::as_str);
                return Err(shown.collect::<Vec<_>>().join("; "));
            }
        }
        match test.post_state_hash {
            Some(expected) if verifier.trie().root() != expected => {
                Err(format!("the state root is {}, not {expected}", verifier.trie().root()))
            }
            _ => Ok(()),
        }
    }
}

fn start(
    genesis: &[u8],
    pre: &BTreeMap<alloy_primitives::Address, parsec_runtimes::evm::GenesisAccount>,
    spec: &ChainSpec,
) -> Result<Verifier, Failure> {
    let header = header_of(genesis).map_err(|reason| reason.to_string())?;
    Verifier::new(spec.clone(), pre, header, true).map_err(|refused| refused.to_string())
}
