//! The threads that write finished epochs to the stores, and sync them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Label};
use parsec_executor_core::FinishedEpoch;
use parsec_protocol::{EpochNumber, PartitionId};
use parsec_storage::{EpochCommit, Write};

use crate::config::Stop;
use crate::host::Host;
use crate::monitor::lock;
use crate::shard::{Event, Shard};

/// Stores the finished epochs of a partition, in order, until it is closed.
///
/// # Errors
/// Why this host must stop.
pub(crate) fn commit(host: &Host, shard: &Arc<Shard>) -> Result<(), Stop> {
    let shown = Shown::new(shard.id);
    loop {
        let finished = shard.take_finished();
        if finished.is_empty() {
            return Ok(());
        }
        for epoch in finished {
            let number = epoch.epoch;
            store(shard, epoch)?;
            shard.applied.send_replace(number);
            shard.inbox.deliver(Event::Stored(number));
        }
        host.attention.notify_one();
        shown.show(shard);
    }
}

/// What is shown of a partition.
struct Shown {
    in_hand: Gauge,
    ready: Gauge,
    cached: Gauge,
    applied: Gauge,
    homed: Counter,
    participations: Counter,
    pushes_made: Counter,
    pushes_received: Counter,
}

impl Shown {
    fn new(partition: PartitionId) -> Self {
        let labels = [Label::new("partition", partition.to_string())];
        let gauge = |name: &'static str| metrics::gauge!(name, labels.iter());
        let counter = |name: &'static str| metrics::counter!(name, labels.iter());
        Self {
            in_hand: gauge("parsec_executor_transactions_in_hand"),
            ready: gauge("parsec_executor_transactions_ready"),
            cached: gauge("parsec_executor_keys_cached"),
            applied: gauge("parsec_executor_applied_epoch"),
            homed: counter("parsec_executor_homed_total"),
            participations: counter("parsec_executor_participations_total"),
            pushes_made: counter("parsec_executor_pushes_made_total"),
            pushes_received: counter("parsec_executor_pushes_received_total"),
        }
    }

    /// Shows how far a partition is, how much it has in hand, and what it has had to do.
    fn show(&self, shard: &Shard) {
        let (in_hand, ready, cached, traffic) = {
            let core = lock(&shard.core);
            (core.in_hand(), core.ready(), core.cached_keys(), core.traffic())
        };
        let set = |gauge: &Gauge, count: usize| {
            gauge.set(u32::try_from(count).unwrap_or(u32::MAX));
        };
        set(&self.in_hand, in_hand);
        set(&self.ready, ready);
        set(&self.cached, cached);
        set(&self.applied, usize::try_from(shard.applied.borrow().0).unwrap_or(usize::MAX));
        self.homed.absolute(traffic.homed);
        self.participations.absolute(traffic.participations);
        self.pushes_made.absolute(traffic.pushes_sent);
        self.pushes_received.absolute(traffic.pushes_received);
    }
}

fn store(shard: &Shard, epoch: FinishedEpoch) -> Result<(), Stop> {
    let number = epoch.epoch;
    let commit = to_commit(epoch);
    if commit.is_empty() {
        shard.store.advance(number);
        return Ok(());
    }
    shard
        .store
        .commit(commit)
        .map_err(|error| Stop(format!("{} could not store {number}: {error}", shard.id)))
}

/// What a store has to take of an epoch that a partition has finished.
#[must_use]
pub fn to_commit(epoch: FinishedEpoch) -> EpochCommit {
    let writes = epoch.writes.into_iter().map(|write| Write {
        key: write.key,
        old: write.old,
        new: write.new,
        counted: write.counted,
    });
    EpochCommit {
        first: epoch.epoch,
        epoch: epoch.epoch,
        writes: writes.collect(),
        executed: epoch.receipts.len() as u64,
        multi_partition: epoch.multi_partition,
        receipts: epoch.receipts,
        outbox: epoch.outbox,
    }
}

/// Syncs the stores of a host every `interval`, until it is closed, and once more then.
///
/// # Errors
/// Why this host must stop.
pub(crate) fn sync(host: &Host, interval: Duration) -> Result<(), Stop> {
    let mut synced = BTreeMap::new();
    loop {
        let closing = host.is_closing();
        if !closing {
            std::thread::park_timeout(interval);
        }
        let mut grew = false;
        for shard in host.shards.values() {
            grew |= sync_one(shard, &mut synced)?;
        }
        if grew {
            host.attention.notify_one();
        }
        if closing {
            return Ok(());
        }
    }
}

fn sync_one(shard: &Shard, synced: &mut BTreeMap<PartitionId, EpochNumber>) -> Result<bool, Stop> {
    let applied = *shard.applied.borrow();
    if synced.get(&shard.id) == Some(&applied) {
        return Ok(false);
    }
    let durable = shard
        .store
        .sync()
        .map_err(|error| Stop(format!("{} could not sync its store: {error}", shard.id)))?;
    synced.insert(shard.id, applied);
    shard.durable.send_replace(durable);
    Ok(true)
}
