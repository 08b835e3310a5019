//! The serial oracle's word on a log.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_cli::cluster::ClusterOptions;
use parsec_oracle::{Oracle, OutcomeCounts};
use parsec_protocol::message::ClusterStatus;
use parsec_protocol::{EpochNumber, Key, Receipt, RuntimeId, TxId, Value};
use parsec_sequencer_core::{Word, word};
use parsec_storage::{Digest, LogReader};

/// What a client saw in a snapshot read.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The epoch after which it is said to hold.
    pub epoch: EpochNumber,
    /// What was read.
    pub values: Vec<(Key, Option<Value>)>,
}

/// A log, replayed on one thread.
pub struct Replayed {
    /// The oracle after the last epoch.
    pub oracle: Oracle,
    /// Every receipt, strays included, in order; those of the genesis are left out.
    pub receipts: Vec<Receipt>,
    /// How often each outcome came about, genesis included.
    pub outcomes: OutcomeCounts,
    last: BTreeMap<TxId, Receipt>,
}

impl Replayed {
    /// Replays the log of a cluster.
    ///
    /// # Panics
    /// If it is no order, or a transaction has its last word twice.
    #[must_use]
    pub fn of(options: &ClusterOptions) -> Self {
        Self::checking(options, &[])
    }

    /// Replays the log of a cluster, and checks that each sighting is the state after its epoch.
    ///
    /// # Panics
    /// If one is not, if the log is no order, or if a transaction has its last word twice.
    #[must_use]
    pub fn checking(options: &ClusterOptions, sightings: &[Sighting]) -> Self {
        Self::by(Oracle::new(&options.runtimes).watching_ids(), options, sightings)
    }

    /// Replays the log of a cluster whose clients renew their transactions.
    ///
    /// # Panics
    /// If it is no order, or a transaction takes effect twice.
    #[must_use]
    pub fn with_renewals(options: &ClusterOptions) -> Self {
        Self::by(Oracle::new(&options.runtimes).watching_renewed_ids(), options, &[])
    }

    fn by(mut oracle: Oracle, options: &ClusterOptions, sightings: &[Sighting]) -> Self {
        let (mut receipts, mut last) = (Vec::new(), BTreeMap::new());
        let mut outcomes = OutcomeCounts::default();
        for epoch in LogReader::open(&options.log()).unwrap().epochs() {
            let (record, batches) = epoch.unwrap();
            let runtimes = batches.iter().flat_map(|batch| &batch.entries).map(|e| e.runtime);
            let runtimes: Vec<_> = runtimes.collect();
            let applied = oracle.apply(&record, &batches).unwrap();
            for (receipt, runtime) in applied.into_iter().zip(runtimes) {
                outcomes.count(&receipt.outcome);
                if runtime != RuntimeId::SYSTEM {
                    last.insert(receipt.id, receipt.clone());
                    receipts.push(receipt);
                }
            }
            for sighting in sightings.iter().filter(|each| each.epoch == record.number) {
                for (key, value) in &sighting.values {
                    assert_eq!(value.as_ref(), oracle.get(key), "{key} after {}", record.number);
                }
            }
        }
        let end = oracle.applied();
        assert!(sightings.iter().all(|each| each.epoch <= end), "an epoch that is not in the log");
        Self { oracle, receipts, outcomes, last }
    }

    /// What a client must have been told of a transaction; `None` if it was never ordered.
    ///
    /// # Panics
    /// If it strayed and was not ordered again.
    #[must_use]
    pub fn told(&self, id: &TxId) -> Option<Receipt> {
        let receipt = self.last.get(id)?.clone();
        match word(receipt.into()) {
            Word::Final(receipt) => Some(Arc::unwrap_or_clone(receipt)),
            Word::Again(stray) => panic!("{id} strayed at {stray:?} and is not ordered again"),
        }
    }

    /// How many transactions were ordered.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.last.len()
    }

    /// Checks that a cluster at rest holds what the oracle does.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_agrees(&self, status: &ClusterStatus) {
        let (state, receipts) = sum_of(status);
        assert_eq!(status.ordered, self.oracle.applied(), "{status:?}");
        assert_eq!(status.transactions, self.outcomes.total(), "{status:?}");
        let executed: u64 = status.partitions.iter().map(|partition| partition.executed).sum();
        assert_eq!(executed, self.outcomes.total(), "{status:?}");
        assert_eq!(receipts, self.oracle.receipts_digest(), "the receipts differ");
        assert_eq!(state, self.oracle.state_digest(), "the states differ");
    }
}

/// The digests of the state and of the receipts of a whole cluster.
#[must_use]
pub fn sum_of(status: &ClusterStatus) -> (Digest, Digest) {
    let partitions = &status.partitions;
    let state = partitions.iter().map(|partition| Digest(partition.state)).sum();
    let receipts = partitions.iter().map(|partition| Digest(partition.receipts)).sum();
    (state, receipts)
}
