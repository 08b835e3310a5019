//! Runs Ethereum's state tests (those that give `txbytes`) against the Ethereum runtime.
//!
//! `cargo run -p parsec-runtimes --example evm_state_tests -- DIRECTORY...`
//!
//! Each case is admitted, its footprint found by a trial, and executed within that footprint; the
//! state root and the hash of the logs must be those of the case.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloy_consensus::TrieAccount;
use alloy_consensus::proofs::{state_root_unhashed, storage_root_unhashed};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    EpochNumber, EpochRecord, Key, Outcome, PartitionId, Receipt, RuntimeId, Transaction, Value,
};
use parsec_runtimes::access::Source;
use parsec_runtimes::evm::keys::{self, AccountRecord, CodeRecord};
use parsec_runtimes::evm::{
    BlobGas, BlockOverride, ChainParams, EvmRuntime, GenesisAccount, block, genesis,
};
use parsec_runtimes::{Call, Execution, Recorder, Runtime, Runtimes, Sessions};
use serde_json::Value as Json;

type Fallible<T> = Result<T, Box<dyn Error>>;

const ENTROPY: [u8; 32] = [0; 32];

struct Snapshot(BTreeMap<Key, Value>);

impl Source for Snapshot {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        Some(self.0.get(key).cloned())
    }
}

fn main() -> Fallible<()> {
    let runtime = EvmRuntime::for_import(1);
    let mut sessions = Runtimes::new(vec![Arc::new(runtime.clone())]).sessions();
    let (mut passed, mut failed) = (0, 0);
    for directory in std::env::args().skip(1) {
        for file in files(Path::new(&directory))? {
            let tests: BTreeMap<String, Json> = serde_json::from_slice(&std::fs::read(&file)?)?;
            for (name, test) in &tests {
                for (fork, cases) in test["post"].as_object().into_iter().flatten() {
                    for (index, case) in cases.as_array().into_iter().flatten().enumerate() {
                        match run_case(&runtime, &mut sessions, test, fork, case) {
                            Ok(()) => passed += 1,
                            Err(error) => {
                                failed += 1;
                                println!("{} {name} {fork}/{index}: {error}", file.display());
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err("some cases failed".into()) }
}

fn files(directory: &Path) -> Fallible<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn run_case(
    runtime: &EvmRuntime,
    sessions: &mut Sessions,
    test: &Json,
    fork: &str,
    case: &Json,
) -> Fallible<()> {
    let params = params(test, fork)?;
    let accounts = accounts(&test["pre"])?;
    let mut state = Snapshot(genesis(&params, &accounts).into_iter().collect());
    let raw: Bytes = text(&case["txbytes"])?.parse()?;
    let result = execute(runtime, sessions, &mut state, raw.0)?;
    let refused = result.as_ref().is_none_or(|r| matches!(r.outcome, Outcome::Invalid(_)));
    let expected = case.get("expectException").is_some_and(|e| !e.is_null());
    if refused != expected {
        return Err(format!("expected to be refused: {expected}, but {result:?}").into());
    }
    let root = state_root(&state)?;
    if root != text(&case["hash"])?.parse::<B256>()? {
        return Err(format!("state root {root}; {result:?}").into());
    }
    let logs: Vec<_> = result.iter().flat_map(|r| &r.events).map(block::log).collect();
    let logs = keccak256(alloy_rlp::encode(&logs));
    if logs != text(&case["logs"])?.parse::<B256>()? {
        return Err("other logs".into());
    }
    Ok(())
}

/// Executes a transaction as sequencer and executor would; none if it is not admitted.
fn execute(
    runtime: &EvmRuntime,
    sessions: &mut Sessions,
    state: &mut Snapshot,
    raw: Value,
) -> Fallible<Option<Receipt>> {
    let Ok(admitted) = runtime.admit(&Transaction::new(RuntimeId::EVM, raw.clone())) else {
        return Ok(None);
    };
    let epoch = EpochRecord {
        number: EpochNumber(1),
        timestamp_ms: 0,
        block: 1,
        parent: [0; 32],
        batches: Vec::new(),
    };
    let mut recorder = Recorder::new(state);
    let call = Call {
        id: &admitted.id,
        sender: &admitted.sender,
        payload: &raw,
        epoch: &epoch,
        entropy: &ENTROPY,
        trial: true,
    };
    let trial = sessions.execute(RuntimeId::EVM, &call, &mut recorder);
    trial.map_err(|interrupt| format!("{interrupt:?}"))?;
    let footprint = recorder.finish()?.footprint;
    let entry = Entry {
        id: admitted.id,
        runtime: RuntimeId::EVM,
        attempt: 0,
        home: PartitionId(0),
        sender: admitted.sender,
        payload: raw,
        footprint,
        expires: None,
    };
    let accesses = entry.footprint.accesses().iter();
    let values: Vec<_> = accesses.map(|access| state.0.get(&access.key).cloned()).collect();
    let execution = Execution::run(sessions, &entry, &epoch, &ENTROPY, 0, &values)?;
    if let Outcome::Strayed { key, mode } = &execution.receipt.outcome {
        return Err(format!("strayed to {key} {mode:?}").into());
    }
    for (access, change) in entry.footprint.accesses().iter().zip(&execution.changes) {
        match change.apply(state.0.get(&access.key)) {
            Some(value) => state.0.insert(access.key.clone(), value),
            None => state.0.remove(&access.key),
        };
    }
    Ok(Some(execution.receipt))
}

fn text(json: &Json) -> Fallible<&str> {
    json.as_str().ok_or_else(|| format!("{json} is no string").into())
}

fn number(json: &Json) -> Fallible<U256> {
    Ok(text(json)?.parse()?)
}

fn quantity(json: &Json) -> Fallible<u64> {
    Ok(u64::try_from(number(json)?)?)
}

fn params(test: &Json, fork: &str) -> Fallible<ChainParams> {
    let env = &test["env"];
    let name = match fork {
        "Constantinople" | "ConstantinopleFix" => "Petersburg",
        "Paris" => "Merge",
        "EIP150" => "Tangerine",
        "EIP158" => "Spurious",
        name => name,
    };
    let merged = matches!(name, "Merge" | "Shanghai" | "Cancun" | "Prague" | "Osaka");
    let current = quantity(&env["currentNumber"])?;
    let update_fraction = match (name, &test["config"]["blobSchedule"][fork]) {
        (_, Json::Object(schedule)) => quantity(&schedule["baseFeeUpdateFraction"])?,
        ("Cancun", _) => 3_338_477,
        _ => 5_007_716,
    };
    let hash = |n: u64| (n, keccak256(n.to_string()).0);
    let prevrandao =
        if env["currentRandom"].is_null() { U256::ZERO } else { number(&env["currentRandom"])? };
    let excess = match &env["currentExcessBlobGas"] {
        Json::Null => 0,
        excess => quantity(excess)?,
    };
    Ok(ChainParams {
        chain_id: 1,
        fork: name.to_owned(),
        coinbase: text(&env["currentCoinbase"])?.parse::<Address>()?.into_array(),
        gas_limit: quantity(&env["currentGasLimit"])?,
        base_fee: match &env["currentBaseFee"] {
            Json::Null => 0,
            fee => quantity(fee)?,
        },
        block: Some(BlockOverride {
            number: current,
            timestamp: quantity(&env["currentTimestamp"])?,
            difficulty: number(&env["currentDifficulty"])?.to_be_bytes(),
            prevrandao: merged.then(|| prevrandao.to_be_bytes()),
            blobs: matches!(name, "Cancun" | "Prague" | "Osaka")
                .then_some(BlobGas { excess, update_fraction }),
            hashes: (current.saturating_sub(256)..current).map(hash).collect(),
        }),
    })
}

fn accounts(pre: &Json) -> Fallible<BTreeMap<Address, GenesisAccount>> {
    let mut accounts = BTreeMap::new();
    for (address, account) in pre.as_object().into_iter().flatten() {
        let mut storage = BTreeMap::new();
        for (slot, word) in account["storage"].as_object().into_iter().flatten() {
            storage.insert(slot.parse()?, number(word)?);
        }
        let account = GenesisAccount {
            balance: number(&account["balance"])?,
            nonce: quantity(&account["nonce"])?,
            code: text(&account["code"])?.parse()?,
            storage,
        };
        accounts.insert(address.parse()?, account);
    }
    Ok(accounts)
}

/// The root of Ethereum's trie of a state.
fn state_root(state: &Snapshot) -> Fallible<B256> {
    let address = |key: &Key| {
        let known = [keys::account(&Address::ZERO), keys::code_record(&Address::ZERO)];
        let same = known.iter().any(|known| known.namespace() == key.namespace());
        same.then(|| Address::from_slice(key.bytes()))
    };
    let addresses: BTreeSet<Address> = state.0.keys().filter_map(address).collect();
    let mut accounts = Vec::new();
    for address in addresses {
        let code = CodeRecord::decode(state.0.get(&keys::code_record(&address)))?;
        let record = state.0.get(&keys::account(&address));
        if record.is_none() && code.hash.is_none() {
            continue;
        }
        let record = record.map(|value| AccountRecord::decode(value)).transpose()?;
        let record = record.unwrap_or_default();
        let prefix = keys::storage(&address, code.incarnation, U256::ZERO);
        let last = keys::storage(&address, code.incarnation, U256::MAX);
        let mut words = Vec::new();
        for (key, value) in state.0.range(prefix..=last) {
            let slot = B256::from_slice(&key.bytes()[28..]);
            words.push((slot, keys::decode_word(Some(value))?));
        }
        accounts.push((
            address,
            TrieAccount {
                nonce: record.nonce,
                balance: record.balance,
                storage_root: storage_root_unhashed(words),
                code_hash: code.hash.unwrap_or(KECCAK256_EMPTY),
            },
        ));
    }
    Ok(state_root_unhashed(accounts))
}
