//! Running state tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use parsec_protocol::transaction::Entry;
use parsec_protocol::{
    ErrorCode, Footprint, Key, Outcome, PartitionId, RuntimeId, Transaction, TxId, Value,
};
use parsec_runtimes::Runtime as _;
use parsec_runtimes::evm::{Fork, genesis};
use serde_json::Value as Json;

use super::case::{self, Post, Test};
use super::order::{Chain, Draw};
use super::{Failure, Verdict, build, guarded, state};

/// A fork of which a part (EIP-1283) was taken back by the next one, at the same block.
pub(crate) const UNBORN: &str = "Constantinople";
/// Most differences of a state that a failure tells.
const DIFFERENCES_MAX: usize = 4;

/// Runs tests, one after another.
#[derive(Default)]
pub struct Runner {
    chains: BTreeMap<u64, Chain>,
    cases: u64,
}

impl Runner {
    /// A runner for one thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Why a case does not pass.
enum Stop {
    Failed(Failure),
    Skipped(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs every case of a test.
pub(super) fn run_test(runner: &mut Runner, json: Json, count: &mut dyn FnMut(&str, Verdict)) {
    let forks: Vec<String> =
        json["post"].as_object().into_iter().flatten().map(|f| f.0.clone()).collect();
    let test: Test = match serde_json::from_value(json) {
        Ok(test) => test,
        // Newer forks may have tests that look otherwise.
        Err(_) if forks.iter().all(|fork| Fork::named(fork).is_none()) => {
            return forks.iter().for_each(|fork| count(fork, unknown(fork)));
        }
        Err(error) => return count("", Verdict::Failed(format!("it can't be read: {error}"))),
    };
    for (fork, cases) in &test.post {
        for (index, post) in cases.iter().enumerate() {
            let verdict = match Fork::named(fork) {
                _ if fork == UNBORN => Verdict::Skipped(format!(
                    "{UNBORN} without its fix never began on mainnet, and is not supported"
                )),
                None => unknown(fork),
                Some(rules) => run_case(runner, &test, (fork, rules), post),
            };
            count(&format!("{fork}/{index}"), verdict);
        }
    }
}

fn unknown(fork: &str) -> Verdict {
    Verdict::Skipped(format!("the fork {fork} is not known"))
}

fn run_case(runner: &mut Runner, test: &Test, fork: (&str, Fork), post: &Post) -> Verdict {
    let mut stop = None;
    let result = guarded(|| match check(runner, test, fork, post) {
        Ok(strays) => Ok(strays),
        Err(Stop::Failed(failure)) => Err(failure),
        Err(Stop::Skipped(why)) => {
            stop = Some(why);
            Ok(0)
        }
    });
    match (result, stop) {
        (Err(failure), _) => Verdict::Failed(failure),
        (Ok(_), Some(why)) => Verdict::Skipped(why),
        (Ok(strays), None) => Verdict::Passed { strays },
    }
}

/// Runs a case. Returns how often it strayed.
fn check(
    runner: &mut Runner,
    test: &Test,
    (name, fork): (&str, Fork),
    post: &Post,
) -> Result<u32, Stop> {
    let params = test.params(name, &fork)?;
    runner.cases += 1;
    let dice = Draw(runner.cases);
    let chain = runner.chains.entry(params.chain_id).or_insert_with(|| Chain::new(params.chain_id));
    let genesis = genesis(&params, &case::accounts(&test.pre)?);
    let admitted = admit(chain, test, post, params.chain_id);
    let (state, events, refused, strays) = match admitted {
        Err(why) => (genesis.into_iter().collect(), Vec::new(), Some(why), 0),
        Ok(mut entry) => {
            entry.footprint = discover(chain, &entry, &genesis)?;
            let executed = chain.execute(genesis, entry, dice)?;
            let receipt = executed.receipt;
            let refused = match receipt.outcome {
                Outcome::Invalid(code) => {
                    Some(format!("{code:?}: {}", String::from_utf8_lossy(&receipt.output)))
                }
                _ => None,
            };
            (executed.state, receipt.events, refused, executed.strays)
        }
    };
    compare(post, &state, &refused)?;
    let logs = state::logs_hash(&events);
    if logs != post.logs {
        return Err(format!("the hash of the logs is {logs}, not {}", post.logs).into());
    }
    Ok(strays)
}

/// A transaction as the sequencer orders it, without its footprint.
pub(crate) fn entry(id: TxId, sender: Bytes, payload: Bytes) -> Entry {
    Entry {
        id,
        runtime: RuntimeId::EVM,
        attempt: 0,
        home: PartitionId(0),
        sender,
        payload,
        footprint: Footprint::default(),
        expires: None,
    }
}

/// The transaction as the sequencer admits it, without its footprint.
fn admit(chain: &Chain, test: &Test, post: &Post, chain_id: u64) -> Result<Entry, Failure> {
    let raw = match &post.txbytes {
        Some(raw) => raw.0.clone(),
        None => match build::build(&test.transaction, post.indexes, chain_id)? {
            Ok(raw) => raw,
            Err((raw, sender)) => {
                let id = TxId(alloy_primitives::keccak256(&raw).0);
                return Ok(entry(id, Bytes::copy_from_slice(sender.as_slice()), raw));
            }
        },
    };
    let admitted = chain.evm.admit(&Transaction::new(RuntimeId::EVM, raw.clone()));
    let admitted = admitted.map_err(|rejection| rejection.to_string())?;
    Ok(entry(admitted.id, admitted.sender, raw))
}

fn discover(chain: &Chain, entry: &Entry, genesis: &[(Key, Value)]) -> Result<Footprint, Stop> {
    let state: BTreeMap<Key, Value> = genesis.iter().cloned().collect();
    chain.discover(entry, &state).map_err(|refusal| match refusal.code {
        ErrorCode::TooLarge => Stop::Skipped(refusal.detail),
        _ => Stop::Failed(refusal.detail),
    })
}

/// Compares what came out with what should have.
fn compare(
    post: &Post,
    state: &BTreeMap<Key, Value>,
    refused: &Option<String>,
) -> Result<(), Failure> {
    let exception = post.exception.as_ref().filter(|exception| !exception.is_null());
    match (exception, refused) {
        (Some(exception), None) => return Err(format!("it was valid, and should be {exception}")),
        // Before tests told exceptions, a state that does not change was all they said.
        (None, Some(why)) if post.txbytes.is_some() => {
            return Err(format!("it was refused: {why}"));
        }
        _ => {}
    }
    let accounts = state::accounts(state)?;
    let root = state::root(&accounts);
    if root == post.hash {
        return Ok(());
    }
    let mut why = format!("the state root is {root}, not {}", post.hash);
    if let Some(refused) = refused {
        why = format!("{why}; it was refused: {refused}");
    }
    if let Some(expected) = &post.state {
        let all = state::differences(&accounts, &case::accounts(expected)?);
        let shown = all.iter().take(DIFFERENCES_MAX).map(String::as_str);
        why = format!("{why}; {}", shown.collect::<Vec<_>>().join("; "));
    }
    Err(why)
}
