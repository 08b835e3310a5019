//! Running tests of blocks.

use std::collections::BTreeMap;

use parsec_protocol::RuntimeId;
use parsec_protocol::transaction::Entry;
use parsec_protocol::{Key, Transaction, Value, limits};
use parsec_runtimes::Runtime as _;
use parsec_runtimes::evm::trie::StateTrie;
use parsec_runtimes::evm::verify::Verified;
use parsec_runtimes::evm::{Changes, keys};
use serde_json::Value as Json;

use super::branches::Branches;
use super::case::{BlockCase, Test};
use super::refusals::fits;
use crate::statetest::{Chain, Draw, Failure, Verdict, entry, guarded};

/// Most transactions of a block that are executed as a cluster does, too.
const TRANSACTIONS_MAX: usize = 512;

/// Runs tests, one after another.
#[derive(Default)]
pub struct Runner {
    chains: BTreeMap<u64, Chain>,
    blocks: u64,
}

/// Why a test does not pass.
enum Stop {
    Failed(Failure),
    Skipped(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Runner {
    /// A runner for one thread.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn run_test(&mut self, json: Json) -> Verdict {
        let mut skipped = None;
        let result = guarded(|| match self.check(json) {
            Ok(strays) => Ok(strays),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Skipped(why)) => {
                skipped = Some(why);
                Ok(0)
            }
        });
        match (result, skipped) {
            (Err(failure), _) => Verdict::Failed(failure),
            (Ok(_), Some(why)) => Verdict::Skipped(why),
            (Ok(strays), None) => Verdict::Passed { strays },
        }
    }

    /// Runs a test. Returns how often its transactions strayed.
    fn check(&mut self, json: Json) -> Result<u32, Stop> {
        let test: Test =
            serde_json::from_value(json).map_err(|error| format!("it can't be read: {error}"))?;
        let Some(spec) = test.spec()? else {
            let why = format!("the rules of {} are not there", test.network());
            return Err(Stop::Skipped(why));
        };
        let mut branches = Branches::new(&test, spec)?;
        let mut strays = 0;
        for (index, block) in test.blocks.iter().enumerate() {
            let taken = self.block(&mut branches, block);
            strays += taken.map_err(|failure| format!("block {index}: {failure}"))?;
        }
        branches.end(&test)?;
        Ok(strays)
    }

    /// Gives a block to the verifier. Returns how often its transactions strayed.
    fn block(&mut self, branches: &mut Branches, block: &BlockCase) -> Result<u32, Failure> {
        branches.turn_to_parent_of(&block.rlp)?;
        let verifier = &mut branches.verifier;
        let before = verifier.state().clone();
        match (verifier.take(&block.rlp), block.exception()) {
            (Ok(verified), None) => {
                branches.remember(&block.rlp);
                let chain_id = branches.spec.chain_id;
                self.execute_again(chain_id, before, verified)
            }
            (Ok(_), Some(exception)) => Err(format!("it was taken, and should be {exception}")),
            (Err(refused), Some(exception)) if fits(exception, &refused.reason) => Ok(0),
            (Err(refused), Some(exception)) => Err(format!("{refused}, and should be {exception}")),
            (Err(refused), None) => Err(refused.to_string()),
        }
    }

    /// Executes the transactions of a block as a cluster does. Returns how often they strayed.
    fn execute_again(
        &mut self,
        chain_id: u64,
        mut state: BTreeMap<Key, Value>,
        verified: Verified,
    ) -> Result<u32, Failure> {
        self.blocks += 1;
        let transactions = &verified.block.transactions;
        let fit = transactions.iter().all(|tx| tx.raw.len() <= limits::PAYLOAD_BYTES_MAX);
        if transactions.is_empty() || transactions.len() > TRANSACTIONS_MAX || !fit {
            return Ok(0);
        }
        let chain = self.chains.entry(chain_id).or_insert_with(|| Chain::new(chain_id));
        apply(&mut state, verified.opening);
        state.insert(keys::params(), verified.params);
        let entries: Vec<Entry> =
            transactions.iter().map(|tx| admit(chain, &tx.raw)).collect::<Result<_, _>>()?;
        let genesis = state.clone().into_iter().collect();
        let Some(executed) = chain.execute_all(genesis, entries, Draw(self.blocks))? else {
            // One of them touches more keys than a footprint holds.
            return Ok(0);
        };
        for (index, (found, tx)) in executed.receipts.iter().zip(transactions).enumerate() {
            let same = (&found.outcome, found.work, &found.output, &found.events)
                == (&tx.receipt.outcome, tx.receipt.work, &tx.receipt.output, &tx.receipt.events);
            if !same {
                return Err(format!("in a cluster, transaction {index} comes to {found:?}"));
            }
        }
        apply(&mut state, verified.executed);
        match root(&executed.state)? == root(&state)? {
            true => Ok(executed.strays),
            false => Err("in a cluster, the state is another".to_owned()),
        }
    }
}

fn apply(state: &mut BTreeMap<Key, Value>, changes: Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

fn root(state: &BTreeMap<Key, Value>) -> Result<alloy_primitives::B256, Failure> {
    StateTrie::of(state).map(|mut trie| trie.root()).map_err(|error| error.to_string())
}

fn admit(chain: &Chain, raw: &bytes::Bytes) -> Result<Entry, Failure> {
    let admitted = chain.evm.admit(&Transaction::new(RuntimeId::EVM, raw.clone()));
    let admitted = admitted.map_err(|rejection| format!("a cluster refuses it: {rejection}"))?;
    Ok(entry(admitted.id, admitted.sender, raw.clone()))
}
