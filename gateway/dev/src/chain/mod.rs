//! The development chain itself: pure, on one thread, with the time given from outside.

mod block;
mod change;
mod dump;
mod execute;
mod import;
mod reorganize;
mod snapshot;
mod submit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, U256};
use parsec_ethereum::{Account, Block, PoolTransaction};
use parsec_protocol::{Key, Value};
use parsec_runtimes::evm::fees::Parent;
use parsec_runtimes::evm::keys::{self, AccountRecord, CodeRecord};
use parsec_runtimes::evm::verify::ChainSpec;
use parsec_runtimes::evm::{BlockOverride, ChainParams, EvmRuntime, Fork, genesis};
use parsec_runtimes::{Runtimes, Sessions};
use revm::primitives::hardfork::SpecId;

use crate::clock::Clock;
use crate::config::{ConfigError, DevConfig, Mining};
use crate::pool::Pool;
use crate::state::States;

pub use block::BLOCKS_MAX;
pub use dump::Dump;
pub use execute::{Pending, Stop};
pub use import::ImportError;
pub use snapshot::SnapshotId;

/// What a [`DevChain`] tells the outside, in order.
#[derive(Debug, Clone)]
pub enum Output {
    /// A block was made.
    Block(Arc<Block>),
    /// The blocks after this number are gone.
    Rewound(u64),
    /// A transaction was taken into the pool.
    Arrived(Arc<PoolTransaction>),
}

/// What the next block follows from, of each block.
#[derive(Debug, Clone)]
struct Mark {
    hash: B256,
    /// The version of the state after it, with what was changed since without a block.
    version: u64,
    timestamp: u64,
    fees: Parent,
    /// The root of the state that its header names.
    state_root: B256,
}

/// What was set for the next block alone.
#[derive(Debug, Clone, Default)]
struct NextBlock {
    base_fee: Option<u64>,
    prevrandao: Option<B256>,
}

/// A chain for development: Parsec's serial execution, with blocks made at once, and a state that
/// can be changed and taken back at will.
///
/// It knows no clock: whoever calls it says what time it is (`now`, seconds since 1970). What it
/// has to tell leaves through [`DevChain::take_outputs`], and must be taken after every call, in
/// order.
///
/// **Invariants.** Blocks are numbered densely from 0, and each has the version of the state that
/// stood after it. After [`Stop`] the chain is of no use any more.
pub struct DevChain {
    config: DevConfig,
    /// The state that the chain starts from.
    genesis: Vec<(Key, Value)>,
    fork: Fork,
    /// The rules of the chain that was imported.
    spec: Option<ChainSpec>,
    /// The last block that was imported.
    imported: u64,
    /// Never locked, only reached through `&mut`: so that others may read the chain together.
    sessions: Mutex<Sessions>,
    states: States,
    marks: Vec<Mark>,
    clock: Clock,
    pool: Pool,
    mining: Mining,
    coinbase: Address,
    gas_limit: u64,
    next: NextBlock,
    impersonated: BTreeSet<Address>,
    impersonates_all: bool,
    snapshots: BTreeMap<u64, snapshot::Snapshot>,
    next_snapshot: u64,
    outputs: Vec<Output>,
    /// Grows with everything that changes what the chain would answer.
    revision: u64,
}

impl DevChain {
    /// Starts a chain: its genesis is the first output.
    ///
    /// # Errors
    /// [`ConfigError`] says what can't be started with.
    pub fn new(mut config: DevConfig, now: u64) -> Result<Self, ConfigError> {
        let fork = Fork::named(&config.fork)
            .ok_or_else(|| ConfigError::UnknownFork { name: config.fork.clone() })?;
        import::follow_genesis(&mut config);
        let mut chain = Self {
            fork,
            spec: config.genesis.as_ref().map(|genesis| genesis.spec.clone()),
            imported: 0,
            sessions: sessions(config.chain_id),
            genesis: Vec::new(),
            states: States::new(Vec::new()),
            marks: Vec::new(),
            clock: Clock::default(),
            pool: Pool::default(),
            mining: config.mining,
            coinbase: config.coinbase,
            gas_limit: config.gas_limit,
            next: NextBlock::default(),
            impersonated: BTreeSet::new(),
            impersonates_all: config.impersonates_all,
            snapshots: BTreeMap::new(),
            next_snapshot: 0,
            outputs: Vec::new(),
            revision: 0,
            config,
        };
        chain.follow_spec(now);
        chain.genesis = genesis(&chain.params(None), &chain.config.genesis());
        chain.states = States::new(chain.genesis.clone());
        let time = chain.config.timestamp.unwrap_or(now);
        chain.clock.set(now, time);
        chain.seal_genesis(time);
        Ok(chain)
    }

    /// Goes back to the genesis, and forgets all that was done since, whatever it is, but whether
    /// blocks are made at once.
    pub fn reset(&mut self) {
        self.states = States::new(self.genesis.clone());
        self.marks.truncate(1);
        self.marks[0].version = 0;
        self.outputs.push(Output::Rewound(0));
        self.pool.clear();
        self.clock = Clock::default();
        self.coinbase = self.config.coinbase;
        self.gas_limit = self.config.gas_limit;
        self.next = NextBlock::default();
        self.impersonated.clear();
        self.impersonates_all = self.config.impersonates_all;
        self.snapshots.clear();
        self.spec = self.config.genesis.as_ref().map(|genesis| genesis.spec.clone());
        self.imported = 0;
        self.revision += 1;
    }

    /// What the chain was started with.
    #[must_use]
    pub fn config(&self) -> &DevConfig {
        &self.config
    }

    /// What happened since this was asked last.
    #[must_use]
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Grows with everything that changes what the chain would answer.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The number of the latest block.
    #[must_use]
    pub fn latest(&self) -> u64 {
        self.marks.len() as u64 - 1
    }

    /// The hash of the latest block.
    #[must_use]
    pub fn latest_hash(&self) -> B256 {
        self.last().hash
    }

    /// The time of the latest block, seconds since 1970.
    #[must_use]
    pub fn latest_timestamp(&self) -> u64 {
        self.last().timestamp
    }

    /// The time of the genesis, seconds since 1970.
    #[must_use]
    pub fn genesis_timestamp(&self) -> u64 {
        self.marks[0].timestamp
    }

    /// The oldest block whose state is kept.
    #[must_use]
    pub fn oldest_state(&self) -> u64 {
        self.marks.partition_point(|mark| mark.version < self.states.oldest()) as u64
    }

    /// The hash of a block.
    #[must_use]
    pub fn block_hash(&self, number: u64) -> Option<B256> {
        Some(self.marks.get(usize::try_from(number).ok()?)?.hash)
    }

    /// The value of a key after a block, whose state must be kept.
    #[must_use]
    pub fn value_at(&self, key: &Key, block: u64) -> Option<&Value> {
        let mark = self.marks.get(usize::try_from(block).ok()?)?;
        self.states.get_at(key, mark.version)
    }

    /// The chain id.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.config.chain_id
    }

    /// The rules.
    #[must_use]
    pub fn fork(&self) -> &Fork {
        &self.fork
    }

    fn since(&self, fork: SpecId) -> bool {
        self.fork.spec.is_enabled_in(fork)
    }

    /// When blocks are made.
    #[must_use]
    pub fn mining(&self) -> Mining {
        self.mining
    }

    /// Sets when blocks are made.
    pub fn set_mining(&mut self, mining: Mining) {
        self.mining = mining;
    }

    /// The transactions that wait.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// An account in the latest state.
    #[must_use]
    pub fn account(&self, address: &Address) -> Account {
        let code = self.code_record(address);
        let AccountRecord { balance, nonce } = self.record(address);
        Account { balance, nonce, code_hash: code.hash }
    }

    fn record(&self, address: &Address) -> AccountRecord {
        let value = self.states.get(&keys::account(address));
        value.map_or_else(AccountRecord::default, |value| {
            AccountRecord::decode(value).expect("only the runtime and this chain write records")
        })
    }

    fn code_record(&self, address: &Address) -> CodeRecord {
        let value = self.states.get(&keys::code_record(address));
        CodeRecord::decode(value).expect("only the runtime and this chain write code records")
    }

    fn last(&self) -> &Mark {
        self.marks.last().expect("a chain has a genesis from its start on")
    }

    /// The parameters that transactions of a block are executed with.
    fn params(&self, block: Option<BlockOverride>) -> ChainParams {
        let rules = match (&self.spec, &block) {
            // What stands in the state must tell the rules of past blocks, too.
            (Some(spec), None) => spec.params(self.gas_limit),
            _ => {
                let fork = self.fork.name().to_owned();
                ChainParams { fork, ..ChainParams::new(self.config.chain_id) }
            }
        };
        ChainParams {
            chain_id: self.config.chain_id,
            coinbase: self.coinbase.into_array(),
            gas_limit: self.gas_limit,
            base_fee: 0,
            block,
            permits: self.config.permits.clone(),
            ..rules
        }
    }

    /// Sends the transactions of an account without its signature, from now on or no longer.
    pub fn impersonate(&mut self, address: Address, on: bool) {
        match on {
            true => self.impersonated.insert(address),
            false => self.impersonated.remove(&address),
        };
    }

    /// Sends the transactions of every account without its signature, from now on or no longer.
    pub fn impersonate_all(&mut self, on: bool) {
        self.impersonates_all = on;
    }

    /// Whether the account's transactions are sent without its signature.
    #[must_use]
    pub fn is_impersonated(&self, address: &Address) -> bool {
        self.impersonates_all || self.impersonated.contains(address)
    }

    /// The accounts whose transactions are sent without their signatures, in order.
    #[must_use]
    pub fn impersonated(&self) -> Vec<Address> {
        self.impersonated.iter().copied().collect()
    }

    /// The nonce that the next transaction of an account should have, after those that wait.
    #[must_use]
    pub fn next_nonce(&self, sender: &Address) -> u64 {
        self.pool.next_nonce(sender, self.record(sender).nonce)
    }

    /// What an account owns in the latest state, wei.
    #[must_use]
    pub fn balance(&self, address: &Address) -> U256 {
        self.record(address).balance
    }

    /// Jumps forward; returns by how much the chain's time is ahead, seconds.
    pub fn increase_time(&mut self, seconds: u64) -> i64 {
        self.revision += 1;
        self.clock.increase(seconds)
    }

    /// Sets the chain's time; returns by how much it then goes forward, seconds.
    pub fn set_time(&mut self, now: u64, time: u64) -> u64 {
        self.revision += 1;
        self.clock.set(now, time)
    }

    /// Sets the time of the next block.
    ///
    /// # Errors
    /// Says that the time is before that of the latest block.
    pub fn set_next_timestamp(&mut self, time: u64) -> Result<(), String> {
        self.revision += 1;
        let parent = self.last().timestamp;
        self.clock.set_next(time, parent)
    }

    /// Sets what each block comes after the one before it, seconds; returns whether that was set
    /// before.
    pub fn set_timestamp_interval(&mut self, seconds: Option<u64>) -> bool {
        self.revision += 1;
        self.clock.set_interval(seconds)
    }
}

fn sessions(chain_id: u64) -> Mutex<Sessions> {
    let runtime = EvmRuntime::new(chain_id);
    Mutex::new(Runtimes::new(vec![Arc::new(runtime)]).sessions())
}
