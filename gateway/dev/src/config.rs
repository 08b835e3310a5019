//! What a development chain is started with.

use std::collections::BTreeMap;

use alloy_eips::eip2935;
use alloy_primitives::{Address, Bytes, U256, address, bytes};
use parsec_runtimes::evm::verify::Genesis;
use parsec_runtimes::evm::{Fork, GenesisAccount, Permits};
use revm::primitives::hardfork::SpecId;

use crate::pool::Order;

/// Where the deployer of contracts with addresses that are known before (CREATE2) stands, as on
/// most chains.
pub const CREATE2_DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
const CREATE2_DEPLOYER_CODE: Bytes = bytes!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
);

/// When blocks are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mining {
    /// At once, for each transaction that can be executed.
    #[default]
    Auto,
    /// Every so many milliseconds, with what waits.
    Interval(u64),
    /// Only when it is asked for.
    Manual,
}

/// What a development chain is started with.
#[derive(Debug, Clone)]
pub struct DevConfig {
    /// The chain id.
    pub chain_id: u64,
    /// The rules, by the name of the fork that introduced them.
    pub fork: String,
    /// The gas limit of a block.
    pub gas_limit: u64,
    /// The base fee of the genesis, wei; that of later blocks follows from demand, or is zero if
    /// this is.
    pub base_fee: u64,
    /// Who gets the fees.
    pub coinbase: Address,
    /// The time of the genesis, where it is not now.
    pub timestamp: Option<u64>,
    /// What each account owns from the start.
    pub accounts: BTreeMap<Address, U256>,
    /// When blocks are made.
    pub mining: Mining,
    /// Which transactions come first.
    pub order: Order,
    /// What is permitted that Ethereum does not.
    pub permits: Permits,
    /// Whether every account's transactions are sent without its signature.
    pub impersonates_all: bool,
    /// How many blocks' states are kept. Those that snapshots need are kept as well.
    pub state_window: u64,
    /// The genesis of another chain to begin with. It says what the chain id, the rules, the time,
    /// the first gas limit and base fee are, and who owns something.
    pub genesis: Option<Box<Genesis>>,
}

/// What can't be started with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum ConfigError {
    #[error("no fork is called {name:?}")]
    UnknownFork { name: String },
    #[error("there is no genesis")]
    NoGenesis,
    #[error("the mnemonic is none: {reason}")]
    Mnemonic { reason: String },
}

impl Default for DevConfig {
    fn default() -> Self {
        Self {
            chain_id: 31_337,
            fork: Fork::latest().name().to_owned(),
            gas_limit: 30_000_000,
            base_fee: 1_000_000_000,
            coinbase: Address::ZERO,
            timestamp: None,
            accounts: BTreeMap::new(),
            mining: Mining::Auto,
            order: Order::Fees,
            permits: Permits {
                code_bytes_max: None,
                transaction_gas_max: Some(u64::MAX),
                contracts_send: true,
            },
            impersonates_all: false,
            state_window: 65_536,
            genesis: None,
        }
    }
}

impl DevConfig {
    /// The accounts of the genesis: the funded ones, and the contracts that every chain has.
    pub(crate) fn genesis(&self) -> BTreeMap<Address, GenesisAccount> {
        if let Some(genesis) = &self.genesis {
            return genesis.accounts.clone();
        }
        let funded = |(address, balance): (&Address, &U256)| {
            (*address, GenesisAccount { balance: *balance, ..GenesisAccount::default() })
        };
        let mut accounts: BTreeMap<_, _> = self.accounts.iter().map(funded).collect();
        let mut deploy = |address: Address, code: Bytes| {
            let account = accounts.entry(address).or_default();
            (account.nonce, account.code) = (1, code);
        };
        deploy(CREATE2_DEPLOYER, CREATE2_DEPLOYER_CODE);
        if Fork::named(&self.fork).is_some_and(|fork| fork.spec.is_enabled_in(SpecId::PRAGUE)) {
            deploy(eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone());
        }
        accounts
    }
}
