//! Going on from a chain of others: its genesis, and its blocks.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip7840::BlobParams;
use alloy_primitives::{Address, B256, U256};
use bytes::Bytes;
use parsec_ethereum::{Account, Block, Proof};
use parsec_runtimes::evm::fees::Parent;
use parsec_runtimes::evm::keys;
use parsec_runtimes::evm::trie::{StateProof, StateTrie};
use parsec_runtimes::evm::verify::{ChainSpec, RefusedBlock, Verified, Verifier};
use revm::primitives::KECCAK_EMPTY;

use super::{DevChain, Mark, Output};
use crate::config::DevConfig;

/// Why a chain's blocks can't be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum ImportError {
    #[error("blocks can only be imported on the genesis of their chain")]
    NoGenesis,
    #[error("the chain has blocks of its own already")]
    Begun,
    #[error(transparent)]
    Refused(#[from] RefusedBlock),
}

/// Lets what a chain is started with be what the genesis of another chain says.
pub(super) fn follow_genesis(config: &mut DevConfig) {
    let Some(genesis) = &config.genesis else { return };
    config.chain_id = genesis.spec.chain_id;
    config.gas_limit = genesis.header.gas_limit;
    config.timestamp = Some(genesis.header.timestamp);
    config.accounts.clear();
}

impl DevChain {
    /// Makes the block of an imported genesis the first, if there is one.
    pub(super) fn take_genesis(&mut self) -> bool {
        let Some(genesis) = &self.config.genesis else { return false };
        let header = genesis.header.clone();
        let block = Arc::new(Verifier::genesis_block(&header));
        self.mark(&header, &block, 0);
        self.outputs.push(Output::Block(block));
        true
    }

    fn mark(&mut self, header: &Header, block: &Block, version: u64) {
        self.marks.push(Mark {
            hash: B256::new(block.hash),
            version,
            timestamp: header.timestamp,
            fees: Parent::from(header),
            state_root: header.state_root,
        });
    }

    /// Lets the rules of the next block be those of the imported chain at that time, which stay.
    pub(super) fn follow_spec(&mut self, now: u64) {
        if let Some(spec) = &self.spec {
            self.fork = spec.fork_at(self.marks.len() as u64, now);
        }
    }

    /// What verifies the blocks of the chain whose genesis this one began with. With `checks_roots`
    /// off, the roots of states are taken as the headers say.
    ///
    /// # Errors
    /// [`ImportError::NoGenesis`] if it began with none; [`ImportError::Refused`] if that is wrong.
    pub fn verifier(&self, checks_roots: bool) -> Result<Verifier, ImportError> {
        let genesis = self.config.genesis.as_ref().ok_or(ImportError::NoGenesis)?;
        let (spec, header) = (genesis.spec.clone(), genesis.header.clone());
        Ok(Verifier::new(spec, &genesis.accounts, header, checks_roots)?)
    }

    /// Takes the next blocks of the chain whose genesis this one began with, each as its RLP, in
    /// order. What comes after a block that is refused is not looked at.
    ///
    /// # Errors
    /// [`ImportError::Begun`] if the chain did anything but import since its genesis;
    /// [`ImportError::Refused`] says which block is, and why: the chain then ends before it.
    pub fn import(
        &mut self,
        now: u64,
        verifier: &mut Verifier,
        blocks: &[Bytes],
    ) -> Result<(), ImportError> {
        if self.latest_hash() != verifier.hash() || self.states.latest() != self.latest() {
            return Err(ImportError::Begun);
        }
        let result = blocks.iter().try_for_each(|raw| {
            let verified = verifier.take(raw)?;
            self.adopt(verifier, verified);
            Ok(())
        });
        self.gas_limit = self.last().fees.gas_limit;
        self.follow_spec(now);
        self.forget();
        self.revision += 1;
        result
    }

    /// Makes a block the latest that was verified on the latest.
    fn adopt(&mut self, verifier: &Verifier, verified: Verified) {
        let block = Arc::new(verified.block.clone());
        let mut changes = verified.changes();
        if let Some(params) = changes.get_mut(&keys::params()) {
            self.spec = Some(verifier.spec().clone());
            *params = Some(self.params(None).encode());
        }
        let version = self.states.commit(changes);
        self.mark(verifier.head(), &block, version);
        self.imported = block.number;
        self.outputs.push(Output::Block(block));
    }

    /// The rules of the chain: those of the one that was imported, or one fork's for ever.
    #[must_use]
    pub fn spec(&self) -> ChainSpec {
        self.spec.clone().unwrap_or_else(|| ChainSpec::new(self.chain_id(), self.fork))
    }

    /// What blobs cost in the block with that number and time, where the rules have them.
    #[must_use]
    pub fn blobs_at(&self, number: u64, timestamp: u64) -> Option<BlobParams> {
        let fork = match &self.spec {
            Some(spec) if number <= self.latest() => spec.fork_at(number, timestamp),
            _ => self.fork,
        };
        fork.blobs
    }

    /// Whether a block called system contracts as Ethereum's blocks do: it was imported.
    #[must_use]
    pub fn calls_system(&self, block: u64) -> bool {
        (1..=self.imported).contains(&block)
    }

    /// Proves what stood at an address after a block; nothing if its state is not kept, or was
    /// changed since without a block.
    #[must_use]
    pub fn prove(&self, block: u64, address: &Address, slots: &[U256]) -> Option<Proof> {
        Some(proof(self.trie(block)?.prove(address, slots)))
    }

    /// The trie of the state after a block; nothing if that is not kept, or is not the one that the
    /// block's header names the root of any more.
    #[must_use]
    pub fn trie(&self, block: u64) -> Option<StateTrie> {
        let mark = self.marks.get(usize::try_from(block).ok()?)?;
        if mark.version < self.states.oldest() {
            return None;
        }
        let mut trie = self.states.trie_at(mark.version);
        (trie.root() == mark.state_root).then_some(trie)
    }
}

fn proof(proof: StateProof) -> Proof {
    let StateProof { account, nodes, slots } = proof;
    let code_hash = Some(account.code_hash).filter(|hash| *hash != KECCAK_EMPTY);
    Proof {
        account: Account { balance: account.balance, nonce: account.nonce, code_hash },
        storage_root: account.storage_root,
        nodes,
        words: slots.into_iter().map(|slot| (slot.word, slot.nodes)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use parsec_runtimes::evm::verify::{Genesis, split};

    use super::*;
    use crate::config::Mining;

    const NOW: u64 = 1_700_000_000;

    /// The genesis and the blocks of the execution APIs' chain, if they are on this machine: they
    /// are not part of the project.
    fn data() -> Option<(Genesis, Vec<Bytes>)> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/execution-apis/tests");
        if !path.exists() {
            eprintln!("skipped: the tests of the execution APIs are not on this machine");
            return None;
        }
        let file = |name: &str| std::fs::read(path.join(name)).unwrap();
        let genesis = Genesis::read(&file("genesis.json")).unwrap();
        Some((genesis, split(&file("chain.rlp")).unwrap()))
    }

    fn chain(genesis: Genesis) -> DevChain {
        let genesis = Some(Box::new(genesis));
        DevChain::new(DevConfig { genesis, ..DevConfig::default() }, NOW).unwrap()
    }

    #[test]
    fn blocks_of_others_are_gone_on_from() {
        let Some((genesis, blocks)) = data() else { return };
        let mut chain = chain(genesis);
        let mut verifier = chain.verifier(true).unwrap();
        // In two parts, as long files are.
        chain.import(NOW, &mut verifier, &blocks[..30]).unwrap();
        chain.import(NOW, &mut verifier, &blocks[30..]).unwrap();
        assert_eq!((chain.latest(), chain.fork().name()), (54, "BPO2"));
        let mut again = chain.verifier(true).unwrap();
        assert_eq!(chain.import(NOW, &mut again, &blocks), Err(ImportError::Begun));
        let (head, limit) = (chain.latest_hash(), chain.gas_limit());
        let block = chain.mine(NOW).unwrap();
        let header = block.decode_header().unwrap();
        assert_eq!((header.number, header.parent_hash), (55, head));
        // What the chain's rules make of its head.
        assert_eq!((header.base_fee_per_gas, header.gas_limit), (Some(23_985_819), limit));
        assert!(chain.calls_system(54) && !chain.calls_system(55));
        assert!(chain.trie(54).is_some() && chain.trie(55).is_some());
        let outputs = chain.take_outputs();
        assert_eq!(outputs.len(), 56);
        chain.reset();
        assert_eq!((chain.latest(), chain.chain_id()), (0, 3_503_995_874_084_926));
        assert!(chain.mine(NOW).is_ok());
    }

    #[test]
    fn what_is_proven_is_what_the_header_names() {
        let Some((genesis, blocks)) = data() else { return };
        let mut chain = chain(genesis);
        let mut verifier = chain.verifier(false).unwrap();
        chain.import(NOW, &mut verifier, &blocks).unwrap();
        let address = Address::repeat_byte(0xaa);
        let proof = chain.prove(54, &address, &[U256::ZERO]).unwrap();
        assert_eq!((proof.account, proof.words.len()), (Account::default(), 1));
        assert!(chain.prove(0, &address, &[]).is_some());
        chain.set_balance(&address, U256::ONE);
        assert!(chain.prove(54, &address, &[]).is_none());
        assert!(chain.prove(53, &address, &[]).is_some());
    }

    #[test]
    fn the_import_ends_before_a_block_that_is_refused() {
        let Some((genesis, mut blocks)) = data() else { return };
        let mut raw = blocks[20].to_vec();
        let last = raw.len() - 1;
        raw[last] ^= 1;
        blocks[20] = raw.into();
        let mut chain = chain(genesis);
        let mut verifier = chain.verifier(true).unwrap();
        let imported = chain.import(NOW, &mut verifier, &blocks);
        let Err(ImportError::Refused(refused)) = imported else { panic!("a block is wrong") };
        assert_eq!((refused.number, chain.latest()), (21, 20));
        assert_eq!(chain.fork().spec, chain.spec().fork_at(21, NOW).spec);
        let config = DevConfig { mining: Mining::Manual, ..DevConfig::default() };
        let own = DevChain::new(config, NOW).unwrap();
        assert_eq!(own.verifier(true).err(), Some(ImportError::NoGenesis));
    }
}
