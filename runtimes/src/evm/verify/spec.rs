//! The rules of a chain of others, and when they begin.

use alloy_eips::eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS;
use alloy_primitives::{Address, U256};
use revm::primitives::hardfork::SpecId;

use crate::evm::forks::{self, Fork, ForkAt, ForkBegin};
use crate::evm::params::ChainParams;

/// The rules of a chain, and when they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSpec {
    /// The chain id.
    pub chain_id: u64,
    /// The rules of its genesis.
    pub first: Fork,
    /// Later rules, in the order in which they begin: those that begin by number before those that
    /// do by time. A fork's parameters of blobs may be others than mainnet's.
    pub later: Vec<(ForkAt, Fork)>,
    /// The difficulty of all blocks from which on the Merge begins, where it has not yet.
    pub terminal_difficulty: Option<U256>,
    /// From which block on by how many blocks the growth of the difficulty is held back, in order.
    pub delays: Vec<(u64, u64)>,
    /// The contract whose log entries are deposits (EIP-6110).
    pub deposit_contract: Address,
    /// The numbers and the times at which anything of the rules changes, ascending, each once: what
    /// the rules are known by among nodes (EIP-2124).
    pub points: (Vec<u64>, Vec<u64>),
}

impl ChainSpec {
    /// A chain that has one fork's rules for ever.
    #[must_use]
    pub fn new(chain_id: u64, fork: Fork) -> Self {
        Self {
            chain_id,
            first: fork,
            later: Vec::new(),
            terminal_difficulty: None,
            delays: Vec::new(),
            deposit_contract: MAINNET_DEPOSIT_CONTRACT_ADDRESS,
            points: Default::default(),
        }
    }

    /// The rules of the block with that number and time, seconds since 1970.
    #[must_use]
    pub fn fork_at(&self, number: u64, timestamp: u64) -> Fork {
        *forks::begun(&self.later, number, timestamp).unwrap_or(&self.first)
    }

    /// The parameters of the chain that stand in its state: what questions about it are answered
    /// by.
    #[must_use]
    pub fn params(&self, gas_limit: u64) -> ChainParams {
        let later = self.later.iter();
        let begin = |(at, fork): &(ForkAt, Fork)| ForkBegin { fork: fork.name().into(), at: *at };
        ChainParams {
            fork: self.first.name().to_owned(),
            forks: later.map(begin).collect(),
            gas_limit,
            ..ChainParams::new(self.chain_id)
        }
    }

    /// Lets the Merge begin with that block.
    pub(super) fn merge_at(&mut self, number: u64) {
        self.terminal_difficulty = None;
        let Some(merge) = Fork::named("Merge").filter(|merge| self.first < *merge) else { return };
        if number == 0 {
            self.first = merge;
            return;
        }
        let by_number = |(at, _): &(ForkAt, Fork)| matches!(at, ForkAt::Block(_));
        let place = self.later.iter().position(|later| !by_number(later));
        self.later.insert(place.unwrap_or(self.later.len()), (ForkAt::Block(number), merge));
    }

    /// What a block without ommers earns, wei; nothing from the Merge on.
    pub(super) fn reward(fork: &Fork) -> U256 {
        let ether = match fork.spec {
            spec if spec.is_enabled_in(SpecId::MERGE) => 0,
            spec if spec.is_enabled_in(SpecId::PETERSBURG) => 2,
            spec if spec.is_enabled_in(SpecId::BYZANTIUM) => 3,
            _ => 5,
        };
        U256::from(ether) * U256::from(1_000_000_000_000_000_000_u64)
    }

    /// By how many blocks the growth of the difficulty is held back at a block.
    pub(super) fn delay_at(&self, number: u64) -> u64 {
        let begun = self.delays.iter().filter(|(from, _)| *from <= number);
        begun.map(|(_, delay)| *delay).max().unwrap_or(0)
    }
}
