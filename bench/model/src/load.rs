//! What is sent: real transactions, admitted, with the state that they meet.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_bench::twin::Twin;
use parsec_bench::workload::{FootprintFrom, LoadTransaction, WorkloadSpec};
use parsec_protocol::message::ClientMessage;
use parsec_protocol::{Key, Transaction, Value, codec};
use parsec_runtimes::Runtimes;
use parsec_sequencer_core::Candidate;
use rayon::prelude::*;

/// Transactions of a workload, and the state that they meet.
pub struct Load {
    /// What executes them.
    pub runtimes: Runtimes,
    /// The state after the workload's setup.
    pub state: Arc<BTreeMap<Key, Value>>,
    /// What the workload is called.
    pub name: String,
    pub(crate) items: Vec<Item>,
}

/// One transaction.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Transactions of one sender have to keep their order.
    pub(crate) sender: Option<u32>,
    pub(crate) candidate: Candidate,
    /// What it takes in a submission, bytes.
    pub(crate) bytes: usize,
}

/// Why a workload can't be modelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the workload can't be modelled: {0}")]
pub struct Unloadable(String);

impl Load {
    /// Sets a workload up and builds its first `count` transactions, on all cores.
    ///
    /// Footprints are exact, wherever the workload says that they come from: those that a cluster
    /// discovers differ from them only while it has not seen any such transaction.
    ///
    /// # Errors
    /// [`Unloadable`].
    pub fn build(spec: &WorkloadSpec, count: usize) -> Result<Self, Unloadable> {
        let failed = |error: &dyn std::fmt::Display| Unloadable(error.to_string());
        let travels = spec.footprint == Some(FootprintFrom::Declared);
        let declared = WorkloadSpec { footprint: Some(FootprintFrom::Declared), ..spec.clone() };
        let mut workload = match declared.open() {
            Ok(workload) => workload,
            Err(_) => spec.open().map_err(|error| failed(&error))?,
        };
        let mut twin = Twin::new(spec.chain_id);
        twin.set_up(&*workload).map_err(|error| failed(&error))?;
        let built = workload.build(count, &|_| {});
        let items = built.into_par_iter().map(|load| item(&twin, load, travels));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let state = Arc::new(twin.into_state());
        let runtimes = Runtimes::standard(spec.chain_id);
        Ok(Self { runtimes, state, name: workload.name(), items })
    }

    /// The first `count` transactions of it.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let items = self.items[..count.min(self.items.len())].to_vec();
        let (runtimes, state, name) =
            (self.runtimes.clone(), self.state.clone(), self.name.clone());
        Self { runtimes, state, name, items }
    }

    /// How many transactions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Admits a transaction. `travels` says whether the client sends its footprint along.
fn item(twin: &Twin, load: LoadTransaction, travels: bool) -> Result<Item, Unloadable> {
    let LoadTransaction { sender, mut transaction } = load;
    let (entry, footprint) =
        twin.admit(&transaction).map_err(|error| Unloadable(error.to_string()))?;
    let footprint = footprint.ok_or_else(|| {
        Unloadable("its footprints depend on transactions before them".to_owned())
    })?;
    let candidate = Candidate {
        id: entry.id,
        runtime: entry.runtime,
        sender: entry.sender,
        payload: entry.payload,
        footprint,
        expires: entry.expires,
        renews: transaction.renews,
    };
    if !travels {
        transaction.footprint = None;
    }
    let submission = |transactions: Vec<Transaction>| {
        codec::encode(&ClientMessage::Submit { request: 0, transactions }).len()
    };
    let bytes = submission(vec![transaction]) - submission(Vec::new());
    Ok(Item { sender, candidate, bytes })
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (keys, items) = (self.state.len(), self.items.len());
        f.debug_struct("Load").field("keys", &keys).field("items", &items).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use parsec_bench::workload::WorkloadName;

    use super::*;

    #[test]
    fn transactions_are_admitted_with_their_footprints_and_known_in_size() {
        let spec = WorkloadSpec::new(WorkloadName::Erc20, 7, 0xcbdc);
        let spec = WorkloadSpec { accounts: Some(20), ..spec };
        let load = Load::build(&spec, 30).unwrap();
        assert_eq!(load.len(), 30);
        for item in &load.items {
            // The record of the sender, two slots, and the token's code at least.
            assert!(item.candidate.footprint.accesses().len() >= 4);
            assert!((150..400).contains(&item.bytes), "{}", item.bytes);
        }
        let spec = WorkloadSpec { footprint: Some(FootprintFrom::Declared), ..spec };
        let longer = Load::build(&spec, 30).unwrap();
        assert!(longer.items[0].bytes > load.items[0].bytes + 100);
        assert_eq!(longer.items[0].candidate, load.items[0].candidate);
    }
}
