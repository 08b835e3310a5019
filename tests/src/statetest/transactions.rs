//! Transaction tests: raw transactions, and what each fork says of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, keccak256};
use bytes::Bytes as Raw;
use parsec_protocol::{
    EpochNumber, EpochRecord, ErrorCode, Key, Outcome, RuntimeId, Transaction, Value,
};
use parsec_runtimes::evm::{BlockOverride, ChainParams, EvmRuntime, Fork, genesis, payload};
use parsec_runtimes::{Call, Done, Recorder, Runtime as _, Runtimes};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Failure, Verdict, build, guarded};

/// The chain that all of them are for.
const CHAIN_ID: u64 = 1;

#[derive(Debug, Deserialize)]
struct Test {
    txbytes: Bytes,
    result: BTreeMap<String, Expected>,
}

/// What a fork says of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    #[serde(default)]
    hash: Option<B256>,
    #[serde(default)]
    sender: Option<Address>,
    #[serde(default)]
    intrinsic_gas: Option<String>,
    #[serde(default)]
    exception: Option<String>,
}

/// Runs a test in every fork.
pub(super) fn run_test(json: &Json, count: &mut dyn FnMut(&str, Verdict)) {
    let test = match Test::deserialize(json) {
        Ok(test) => test,
        Err(error) => return count("", Verdict::Failed(format!("it can't be read: {error}"))),
    };
    for (name, expected) in &test.result {
        let verdict = match Fork::named(name) {
            None => Verdict::Skipped(format!("the fork {name} is not known")),
            Some(fork) => match guarded(|| check(&test.txbytes.0, &fork, expected)) {
                Ok(()) => Verdict::Passed { strays: 0 },
                Err(failure) => Verdict::Failed(failure),
            },
        };
        count(name, verdict);
    }
}

fn check(raw: &Raw, fork: &Fork, expected: &Expected) -> Result<(), Failure> {
    let sender = match (admit(raw, fork), &expected.exception) {
        (Err(_), Some(_)) => return Ok(()),
        (Err(why), None) => return Err(format!("it was refused: {why}")),
        (Ok(_), Some(exception)) => return Err(format!("it was valid, and should be {exception}")),
        (Ok(sender), None) => sender,
    };
    let hash = keccak256(raw);
    if expected.hash.is_some_and(|expected| expected != hash) {
        return Err(format!("its hash is {hash}"));
    }
    if expected.sender.is_some_and(|expected| expected != sender) {
        return Err(format!("its sender is {sender}"));
    }
    let Some(gas) = &expected.intrinsic_gas else { return Ok(()) };
    let gas: alloy_primitives::U256 = gas.parse().map_err(|error| format!("{gas}: {error}"))?;
    check_intrinsic_gas(raw, &sender, fork, gas.saturating_to())
}

/// Makes sure that it needs that much gas, and no more, to be valid.
fn check_intrinsic_gas(
    raw: &Raw,
    sender: &Address,
    fork: &Fork,
    gas: u64,
) -> Result<(), Failure> {
    let starved = |gas_limit| {
        let signed = payload::decode(raw).map_err(|rejection| rejection.to_string())?;
        let done = run(&build::with_gas_limit(signed, gas_limit), sender, fork)?;
        Ok::<_, Failure>(done.outcome == Outcome::Invalid(ErrorCode::OutOfWork))
    };
    if starved(gas)? {
        return Err(format!("its intrinsic gas is more than {gas}"));
    }
    match gas.checked_sub(1) {
        Some(less) if !starved(less)? => Err(format!("its intrinsic gas is less than {gas}")),
        _ => Ok(()),
    }
}

/// Who sent it, if it is valid in some state.
fn admit(raw: &Raw, fork: &Fork) -> Result<Address, Failure> {
    let transaction = Transaction::new(RuntimeId::EVM, raw.clone());
    let admitted = EvmRuntime::for_import(CHAIN_ID).admit(&transaction);
    let admitted = admitted.map_err(|rejection| rejection.to_string())?;
    // Only Frontier has signatures with any s (EIP-2).
    if *fork > Fork::named("Frontier").ok_or("no Frontier")? {
        let strict = EvmRuntime::new(CHAIN_ID).admit(&transaction);
        if let Err(rejection) = strict
            && rejection.code == ErrorCode::BadSignature
        {
            return Err(rejection.to_string());
        }
    }
    let sender = Address::try_from(&admitted.sender[..]).map_err(|error| error.to_string())?;
    let done = run(raw, &sender, fork)?;
    match done.outcome {
        Outcome::Invalid(code) => {
            Err(format!("{code:?}: {}", String::from_utf8_lossy(&done.output)))
        }
        _ => Ok(sender),
    }
}

/// Tries a transaction over an empty state, whatever its nonce and its sender's funds.
fn run(raw: &Raw, sender: &Address, fork: &Fork) -> Result<Done, Failure> {
    let params = ChainParams {
        fork: fork.name().to_owned(),
        gas_limit: u64::MAX,
        block: Some(BlockOverride {
            prevrandao: Some([0; 32]),
            blobs: fork.blobs.map(|blobs| parsec_runtimes::evm::BlobGas {
                excess: 0,
                update_fraction: blobs.update_fraction.try_into().unwrap_or(u64::MAX),
            }),
            ..BlockOverride::default()
        }),
        ..ChainParams::new(CHAIN_ID)
    };
    let state: BTreeMap<Key, Value> = genesis(&params, &BTreeMap::new()).into_iter().collect();
    let source = |key: &Key| Some(state.get(key).cloned());
    let epoch = EpochRecord {
        number: EpochNumber(1),
        timestamp_ms: 0,
        block: 1,
        parent: [0; 32],
        batches: Vec::new(),
    };
    let id = parsec_protocol::TxId(keccak256(raw).0);
    let call = Call {
        id: &id,
        sender: sender.as_slice(),
        payload: raw,
        epoch: &epoch,
        entropy: &[0; 32],
        trial: true,
    };
    let runtimes = Runtimes::new(vec![Arc::new(EvmRuntime::for_import(CHAIN_ID))]);
    let source = Source(&source);
    let mut recorder = Recorder::new(&source);
    let done = runtimes.sessions().execute(RuntimeId::EVM, &call, &mut recorder);
    done.map_err(|interrupt| format!("{interrupt:?}"))
}

/// A state in which every value is at hand.
struct Source<'a>(&'a dyn Fn(&Key) -> Option<Option<Value>>);

impl parsec_runtimes::access::Source for Source<'_> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        (self.0)(key)
    }
}
