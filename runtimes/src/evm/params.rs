//! The parameters of the chain, and the state that it starts from.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use parsec_protocol::limits::VALUE_BYTES_MAX;
use parsec_protocol::{EpochRecord, Key, Malformed, Value, Wire, codec};
use revm::context::{BlockEnv, CfgEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::interpreter::instructions::{GasTable, gas_table_spec};
use revm::primitives::hardfork::SpecId;
use rkyv::{Archive, Deserialize, Serialize};

use super::fees::DynamicFee;
use super::forks::{self, Fork, ForkAt, ForkBegin};
use super::keys::{self, AccountRecord, CodeRecord};

/// Most memory that the frames of one transaction may take together, bytes. A part of the
/// protocol: a transaction that would exceed it runs out of memory on every host.
pub const MEMORY_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// Gas limit of a block where no parameters say otherwise. Contracts can see it; epochs are not
/// bound by it, single transactions are.
pub const DEFAULT_GAS_LIMIT: u64 = 30_000_000;

/// Most hashes of earlier blocks that parameters may give.
const BLOCK_HASHES_MAX: usize = 256;

/// What all transactions of a chain see alike. Stands at [`keys::params`], from genesis on.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChainParams {
    /// The chain id that transactions are signed for.
    pub chain_id: u64,
    /// The rules that the chain begins with, by the name of the fork that introduced them
    /// ([`Fork::named`]).
    pub fork: String,
    /// The forks that come later, in order.
    pub forks: Vec<ForkBegin>,
    /// The address to which fees go.
    pub coinbase: [u8; 20],
    /// Most gas that one transaction may ask for, and what GASLIMIT says.
    pub gas_limit: u64,
    /// What of the price per gas is burnt, wei.
    pub base_fee: u64,
    /// How the base fee follows demand, if it is not always the same. Only where each block is
    /// given: a cluster orders epochs before it knows what gas those before them use.
    pub dynamic_fee: Option<DynamicFee>,
    /// The block that transactions are to run in, if it is not the epoch: for blocks recorded
    /// on another chain.
    pub block: Option<BlockOverride>,
    /// What is permitted that Ethereum does not.
    pub permits: Permits,
}

/// What a chain for development permits that Ethereum does not. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Permits {
    /// Longest code of a contract, bytes, where it is not the fork's (EIP-170), and at most as long
    /// as a value; that which creates it may be twice as long (EIP-3860).
    pub code_bytes_max: Option<u64>,
    /// Most gas that a transaction may ask for, where it is not the fork's.
    pub transaction_gas_max: Option<u64>,
    /// Whether accounts that have code send transactions (against EIP-3607): they are
    /// impersonated.
    pub contracts_send: bool,
}

/// What a transaction sees of its block, instead of what the epoch's record says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BlockOverride {
    /// Its number.
    pub number: u64,
    /// Its time, seconds since 1970.
    pub timestamp: u64,
    /// Its difficulty, big-endian; zero from the Merge on.
    pub difficulty: [u8; 32],
    /// Its randomness, from the Merge on.
    pub prevrandao: Option<[u8; 32]>,
    /// What decides the price of blobs, from Cancun on.
    pub blobs: Option<BlobGas>,
    /// The hashes of earlier blocks, by number.
    pub hashes: Vec<(u64, [u8; 32])>,
}

/// What decides the price of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct BlobGas {
    /// The blob gas in excess of the target before this block.
    pub excess: u64,
    /// How slowly the price reacts to it; a constant of the fork.
    pub update_fraction: u64,
}

impl ChainParams {
    /// The parameters of a chain with that id: the rules of Osaka, a limit of
    /// [`DEFAULT_GAS_LIMIT`], no base fee, and fees to the zero address.
    #[must_use]
    pub fn new(chain_id: u64) -> Self {
        Self {
            chain_id,
            fork: Fork::latest().name().to_owned(),
            forks: Vec::new(),
            coinbase: [0; 20],
            gas_limit: DEFAULT_GAS_LIMIT,
            base_fee: 0,
            dynamic_fee: None,
            block: None,
            permits: Permits::default(),
        }
    }

    /// The rules of the block with that number and time, seconds since 1970. Sessions
    /// pick theirs by the same schedule.
    ///
    /// # Errors
    /// [`Malformed`] if the parameters would not pass [`Wire::check`].
    pub fn fork_at(&self, number: u64, timestamp: u64) -> Result<Fork, Malformed> {
        let (first, later) = self.schedule()?;
        Ok(*forks::begun(&later, number, timestamp).unwrap_or(&first))
    }

    fn schedule(&self) -> Result<(Fork, Vec<(ForkAt, Fork)>), Malformed> {
        forks::schedule(&self.fork, &self.forks).map_err(|reason| Malformed::Archive { reason })
    }

    /// The value that says so.
    #[must_use]
    pub fn encode(&self) -> Value {
        Value::copy_from_slice(&codec::encode(self))
    }

    /// What the value says.
    ///
    /// # Errors
    /// [`Malformed`] if it is not the encoding of parameters, or they name no fork.
    pub fn decode(value: &[u8]) -> Result<Self, Malformed> {
        codec::decode(value)
    }
}

impl Wire for ChainParams {
    fn check(&self) -> Result<(), Malformed> {
        let archive = |reason: String| Err(Malformed::Archive { reason });
        self.schedule()?;
        let Some(block) = &self.block else {
            return match self.dynamic_fee {
                None => Ok(()),
                Some(_) => archive(
                    "the base fee of a cluster can't follow demand: epochs are ordered before it \
                     is known what gas those before them use"
                        .to_owned(),
                ),
            };
        };
        let fork = self.fork_at(block.number, block.timestamp)?;
        if block.hashes.len() > BLOCK_HASHES_MAX {
            return archive(format!("more than {BLOCK_HASHES_MAX} block hashes"));
        }
        if fork.spec.is_enabled_in(SpecId::MERGE) && block.prevrandao.is_none() {
            return archive(format!("a block of {} needs randomness", fork.name()));
        }
        match block.blobs {
            None if fork.spec.is_enabled_in(SpecId::CANCUN) => {
                archive(format!("a block of {} needs blob gas", fork.name()))
            }
            Some(BlobGas { update_fraction: 0, .. }) => archive("blob fraction zero".to_owned()),
            _ => Ok(()),
        }
    }
}

/// An account of the state that a chain starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GenesisAccount {
    /// What it owns, wei.
    pub balance: U256,
    /// Its nonce.
    pub nonce: u64,
    /// Its code; empty if it is no contract.
    pub code: Bytes,
    /// Its storage. Words of zero are left out.
    pub storage: BTreeMap<U256, U256>,
}

/// The entries of a state with these parameters and accounts, sorted by key.
#[must_use]
pub fn genesis(
    params: &ChainParams,
    accounts: &BTreeMap<Address, GenesisAccount>,
) -> Vec<(Key, Value)> {
    let mut entries = BTreeMap::from([(keys::params(), params.encode())]);
    for (address, account) in accounts {
        let record = AccountRecord { balance: account.balance, nonce: account.nonce };
        entries.insert(keys::account(address), record.encode());
        if !account.code.is_empty() {
            let hash = keccak256(&account.code);
            let record = CodeRecord { hash: Some(hash), incarnation: 0 };
            let record = record.encode().expect("a record with a hash is not the default");
            entries.insert(keys::code_record(address), record);
            entries.insert(keys::code(&hash), account.code.0.clone().into());
        }
        for (slot, word) in &account.storage {
            if let Some(word) = keys::encode_word(*word) {
                entries.insert(keys::storage(address, 0, *slot), word);
            }
        }
    }
    entries.into_iter().collect()
}

/// The rules of one fork, made ready to execute with.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) cfg: CfgEnv,
    pub(super) gas: GasTable,
}

impl Rules {
    fn new(fork: &Fork, params: &ChainParams) -> Self {
        let mut cfg = CfgEnv::new_with_spec(fork.spec).with_chain_id(params.chain_id);
        cfg.memory_limit = MEMORY_BYTES_MAX;
        cfg.max_blobs_per_tx = fork.blobs.map(|blobs| blobs.max_blobs_per_tx);
        permit(&mut cfg, &params.permits);
        Self { cfg, gas: gas_table_spec(fork.spec) }
    }
}

/// Parameters made ready to execute with.
#[derive(Debug)]
pub(super) struct Prepared {
    first: Rules,
    /// Mostly empty.
    later: Vec<(ForkAt, Rules)>,
    /// What of the block does not depend on the epoch: all of it, if it is given.
    block: BlockEnv,
    given: Option<BlockOverride>,
}

impl Prepared {
    /// Makes parameters ready. They must have passed [`ChainParams::check`].
    pub(super) fn new(params: ChainParams) -> Result<Self, Malformed> {
        let (first, later) = params.schedule()?;
        let rules = |fork: &Fork| Rules::new(fork, &params);
        Ok(Self {
            first: rules(&first),
            later: later.iter().map(|(at, fork)| (*at, rules(fork))).collect(),
            block: block(&params),
            given: params.block,
        })
    }

    /// The rules of a block.
    pub(super) fn rules(&self, block: &BlockEnv) -> &Rules {
        if self.later.is_empty() {
            return &self.first;
        }
        let (number, timestamp) = (block.number.saturating_to(), block.timestamp.saturating_to());
        forks::begun(&self.later, number, timestamp).unwrap_or(&self.first)
    }

    /// What a transaction of that epoch sees of its block.
    pub(super) fn block(&self, epoch: &EpochRecord, entropy: &[u8; 32]) -> BlockEnv {
        let mut block = self.block.clone();
        if self.given.is_none() {
            block.number = U256::from(epoch.block);
            block.timestamp = U256::from(epoch.timestamp_ms / 1_000);
            block.prevrandao = Some(B256::new(*entropy));
        }
        block
    }

    /// Whether the parameters say which block transactions run in, with the hashes before it.
    pub(super) fn has_given_block(&self) -> bool {
        self.given.is_some()
    }

    /// The hash of an earlier block, where they say it.
    pub(super) fn block_hash(&self, number: u64) -> Option<B256> {
        let hashes = &self.given.as_ref()?.hashes;
        hashes.iter().find(|(known, _)| *known == number).map(|(_, hash)| B256::new(*hash))
    }
}

/// Takes back what the fork forbids and the chain permits.
fn permit(cfg: &mut CfgEnv, permits: &Permits) {
    if let Some(bytes) = permits.code_bytes_max {
        // What is longer than a value can't be stored.
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(VALUE_BYTES_MAX);
        cfg.limit_contract_code_size = Some(bytes);
        cfg.limit_contract_initcode_size = Some(bytes.saturating_mul(2));
    }
    if let Some(gas) = permits.transaction_gas_max {
        cfg.tx_gas_limit_cap = Some(gas);
    }
    cfg.disable_eip3607 = permits.contracts_send;
}

/// What parameters say of the block.
fn block(params: &ChainParams) -> BlockEnv {
    let env = BlockEnv {
        beneficiary: Address::new(params.coinbase),
        gas_limit: params.gas_limit,
        basefee: params.base_fee,
        ..BlockEnv::default()
    };
    let Some(block) = &params.block else {
        return env;
    };
    BlockEnv {
        number: U256::from(block.number),
        timestamp: U256::from(block.timestamp),
        difficulty: U256::from_be_bytes(block.difficulty),
        prevrandao: block.prevrandao.map(B256::new),
        blob_excess_gas_and_price: block
            .blobs
            .map(|gas| BlobExcessGasAndPrice::new(gas.excess, gas.update_fraction)),
        ..env
    }
}

/// Whether an account with that code hash has code.
pub(super) fn has_code(hash: &B256) -> bool {
    *hash != KECCAK256_EMPTY && *hash != B256::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_back() {
        let mut params = ChainParams::new(7);
        assert_eq!(ChainParams::decode(&params.encode()), Ok(params.clone()));
        params.block = Some(BlockOverride {
            number: 3,
            prevrandao: Some([1; 32]),
            blobs: Some(BlobGas { excess: 1, update_fraction: 2 }),
            hashes: vec![(2, [9; 32])],
            ..BlockOverride::default()
        });
        params.dynamic_fee = Some(DynamicFee::MAINNET);
        params.fork = "London".to_owned();
        params.forks = vec![
            ForkBegin { fork: "Merge".to_owned(), at: ForkAt::Block(9) },
            ForkBegin { fork: "BPO1".to_owned(), at: ForkAt::Time(1_000) },
        ];
        assert_eq!(ChainParams::decode(&params.encode()), Ok(params));
    }

    #[test]
    fn a_base_fee_that_follows_demand_needs_blocks_that_are_given() {
        let dynamic_fee = Some(DynamicFee::MAINNET);
        let params = ChainParams { dynamic_fee, ..ChainParams::new(1) };
        assert!(params.check().unwrap_err().to_string().contains("can't follow demand"));
        let blobs = Some(BlobGas { excess: 0, update_fraction: 1 });
        let block = Some(BlockOverride { prevrandao: Some([0; 32]), blobs, ..Default::default() });
        assert_eq!(ChainParams { block, ..params }.check(), Ok(()));
    }

    #[test]
    fn the_fork_of_a_block_is_that_of_its_number_and_time() {
        let begin = ForkBegin { fork: "Cancun".to_owned(), at: ForkAt::Time(1_000) };
        let params =
            ChainParams { fork: "London".to_owned(), forks: vec![begin], ..ChainParams::new(1) };
        assert_eq!(params.fork_at(5, 999).unwrap().spec, SpecId::LONDON);
        assert_eq!(params.fork_at(5, 1_000).unwrap().spec, SpecId::CANCUN);
        // What a given block needs is what its own fork needs.
        let with = |timestamp| ChainParams {
            block: Some(BlockOverride { timestamp, ..BlockOverride::default() }),
            ..params.clone()
        };
        assert_eq!(with(999).check(), Ok(()));
        assert!(with(1_000).check().is_err());
        let prepared = Prepared::new(ChainParams { block: None, ..params }).unwrap();
        for (timestamp, max) in [(999, None), (1_000, Some(6))] {
            let block = BlockEnv { timestamp: U256::from(timestamp), ..BlockEnv::default() };
            assert_eq!(prepared.rules(&block).cfg.max_blobs_per_tx, max);
        }
    }

    #[test]
    fn every_fork_is_known_by_its_name_but_the_unfinished_one() {
        for fork in ["Frontier", "Homestead", "EIP150", "Spurious", "Byzantium", "Osaka"] {
            let params = ChainParams { fork: fork.to_owned(), ..ChainParams::new(1) };
            assert_eq!(params.check(), Ok(()), "{fork}");
        }
        for fork in ["", "Amsterdam", "Latest"] {
            let params = ChainParams { fork: fork.to_owned(), ..ChainParams::new(1) };
            assert!(params.check().is_err(), "{fork}");
        }
    }

    #[test]
    fn a_block_must_have_what_its_fork_needs() {
        let with = |fork: &str, prevrandao, blobs| ChainParams {
            fork: fork.to_owned(),
            block: Some(BlockOverride { prevrandao, blobs, ..BlockOverride::default() }),
            ..ChainParams::new(1)
        };
        let blobs = |update_fraction| Some(BlobGas { excess: 0, update_fraction });
        assert!(with("London", None, None).check().is_ok());
        assert!(with("Merge", None, None).check().is_err());
        assert!(with("Shanghai", Some([0; 32]), None).check().is_ok());
        assert!(with("Cancun", Some([0; 32]), None).check().is_err());
        assert!(with("Cancun", Some([0; 32]), blobs(0)).check().is_err());
        assert!(with("Cancun", Some([0; 32]), blobs(1)).check().is_ok());
    }

    #[test]
    fn a_genesis_leaves_out_what_is_zero() {
        let account = GenesisAccount {
            balance: U256::from(5),
            storage: BTreeMap::from([(U256::ZERO, U256::ZERO), (U256::ONE, U256::ONE)]),
            ..GenesisAccount::default()
        };
        let accounts = BTreeMap::from([(Address::ZERO, account)]);
        let entries = genesis(&ChainParams::new(1), &accounts);
        assert_eq!(entries.len(), 3);
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
    }
}
