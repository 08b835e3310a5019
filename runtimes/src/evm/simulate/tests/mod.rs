//! Answers over a state that is a map.

mod apis;
mod calls;
mod estimates;
mod geth;
mod hostile;
mod mainnet;
mod overrides;
mod simulated;
mod traces;

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_rpc_types_eth::TransactionRequest;
use parsec_ethereum::{Answer, CallResult, Environment, Query, QueryError, Simulation, Task};
use parsec_protocol::{Key, Value};
use revm::bytecode::opcode::*;

use super::{Reader, answer};
use crate::evm::tests::asm::Code;
use crate::evm::{ChainParams, GenesisAccount, genesis};

pub(super) const CHAIN: u64 = 1_234;
/// Somebody who owns a million.
pub(super) const RICH: Address = Address::repeat_byte(0xa1);
/// Somebody who owns nothing.
pub(super) const POOR: Address = Address::repeat_byte(0xa2);
/// Where the contract of a test stands.
pub(super) const CONTRACT: Address = Address::repeat_byte(0xc0);

const MILLION: u64 = 1_000_000;

/// A state of which every value is at hand, that counts how often each is asked for.
#[derive(Default)]
pub(super) struct Map {
    values: BTreeMap<Key, Value>,
    asked: BTreeMap<Key, usize>,
    hashes: BTreeMap<u64, B256>,
}

impl Map {
    pub(super) fn new(params: &ChainParams, accounts: &BTreeMap<Address, GenesisAccount>) -> Self {
        let values = genesis(params, accounts).into_iter().collect();
        Self { values, ..Self::default() }
    }

    /// A state with the rich one, and contracts.
    pub(super) fn with(contracts: &[(Address, Code)]) -> Self {
        let account = |code| GenesisAccount { code, ..GenesisAccount::default() };
        let mut accounts: BTreeMap<_, _> = contracts
            .iter()
            .map(|(address, code)| (*address, account(code.clone().build())))
            .collect();
        let balance = U256::from(MILLION);
        accounts.insert(RICH, GenesisAccount { balance, ..GenesisAccount::default() });
        Self::new(&ChainParams::new(CHAIN), &accounts)
    }

    pub(super) fn answer(&mut self, simulation: Simulation) -> Result<Answer, QueryError> {
        answer(CHAIN, self, &Query::Simulate(Box::new(simulation)))
    }

    pub(super) fn task(&mut self, task: Task) -> Result<Answer, QueryError> {
        self.answer(simulation(task))
    }

    pub(super) fn call(&mut self, request: TransactionRequest) -> Result<CallResult, QueryError> {
        match self.task(Task::Call(Box::new(request)))? {
            Answer::Call(result) => Ok(result),
            answer => panic!("{answer:?}"),
        }
    }
}

impl Reader for Map {
    fn value(&mut self, key: &Key) -> Result<Option<Value>, QueryError> {
        *self.asked.entry(key.clone()).or_default() += 1;
        Ok(self.values.get(key).cloned())
    }

    fn block_hash(&mut self, number: u64) -> Result<Option<B256>, QueryError> {
        Ok(self.hashes.get(&number).copied())
    }
}

pub(super) fn environment() -> Environment {
    Environment {
        number: 100,
        timestamp: 1_700_000_000,
        gas_limit: 30_000_000,
        base_fee: 7,
        coinbase: Address::repeat_byte(0xcb),
        prevrandao: B256::repeat_byte(0x44),
        ..Environment::default()
    }
}

pub(super) fn simulation(task: Task) -> Simulation {
    let environment = environment();
    Simulation { environment, overrides: Default::default(), before: Vec::new(), task }
}

/// A call of the contract by the rich one.
pub(super) fn request() -> TransactionRequest {
    TransactionRequest {
        from: Some(RICH),
        to: Some(TxKind::Call(CONTRACT)),
        ..TransactionRequest::default()
    }
}

/// Code that reverts with the text "no", as Solidity encodes it.
pub(super) fn refuses() -> Code {
    let data = revert_data();
    let copy = Code::new().push(data.len() as u64).push(12).push(0).ops(&[CODECOPY]);
    let code = copy.push(data.len() as u64).push(0).ops(&[REVERT]);
    assert_eq!(code.clone().build().len(), 12);
    code.ops(&data)
}

pub(super) fn revert_data() -> Bytes {
    let words = [U256::from(32), U256::from(2)].map(|word| word.to_be_bytes::<32>()).concat();
    [&[0x08, 0xc3, 0x79, 0xa0][..], &words, b"no", &[0; 30]].concat().into()
}

pub(super) fn word(data: &[u8]) -> U256 {
    U256::from_be_slice(data)
}
