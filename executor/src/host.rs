//! The executor of a host: its parts, their start and their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parsec_executor_core::{Destination, Partition, Routes, Traffic};
use parsec_protocol::message::PartitionStatus;
use parsec_protocol::transport::{PeerInbox, PeerNetwork};
use parsec_protocol::{NodeId, PartitionId, Push, Receipt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::config::{ExecutorConfig, Stop};
use crate::driver::{Driver, Inboxes};
use crate::monitor::lock;
use crate::outgoing::Outgoing;
use crate::send::{self, Parcel};
use crate::shard::{Event, Shard};
use crate::{commit, queries, worker};

/// Stack of a thread that executes transactions, bytes: contracts may call 1,024 deep.
const WORKER_STACK_BYTES: usize = 64 * 1024 * 1024;

/// What the threads and tasks of an executor share.
pub(crate) struct Host {
    pub(crate) sequencer: NodeId,
    pub(crate) routes: Arc<Routes>,
    pub(crate) shards: BTreeMap<PartitionId, Arc<Shard>>,
    /// What waits to be sent to the sequencer and to each peer.
    pub(crate) outgoing: BTreeMap<NodeId, Arc<Outgoing<Parcel>>>,
    pub(crate) workers_per_partition: usize,
    pub(crate) network: PeerNetwork,
    /// A partition has applied an epoch, or synced one, or has room for another, or for pushes.
    pub(crate) attention: Notify,
    closing: AtomicBool,
    stop: watch::Sender<Option<Stop>>,
}

impl Host {
    /// Sends what a worker of `from` made on its way.
    pub(crate) fn route(
        &self,
        from: PartitionId,
        pushes: &mut Vec<Push>,
        receipts: &mut Vec<Arc<Receipt>>,
    ) {
        if !receipts.is_empty() {
            let strays = receipts.iter().filter(|receipt| !receipt.outcome.is_final()).count();
            metrics::counter!("parsec_executor_transactions_total")
                .increment(receipts.len() as u64);
            metrics::counter!("parsec_executor_strays_total").increment(strays as u64);
            if let Some(outgoing) = self.outgoing.get(&self.sequencer) {
                outgoing.extend(receipts.drain(..).map(|receipt| Parcel::Receipt(from, receipt)));
            }
        }
        let routed = self.routes.group(pushes, |destination, group| match destination {
            Destination::Here(partition) => {
                if let Some(shard) = self.shards.get(&partition) {
                    shard.inbox.deliver(Event::Pushes(group));
                }
            }
            Destination::Peer(node) => {
                if let Some(outgoing) = self.outgoing.get(&node) {
                    outgoing.extend(group.into_iter().map(Parcel::Push));
                }
            }
        });
        if let Err(unheld) = routed {
            self.stop(Stop(unheld.to_string()));
        }
    }

    /// Stops the executor before it answers anyone.
    pub(crate) fn stop(&self, stop: Stop) {
        tracing::error!(node = %self.routes.node(), reason = %stop, "the executor stops");
        self.stop.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert(stop);
            first
        });
        self.close();
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.shards.values().for_each(|shard| shard.close());
        self.outgoing.values().for_each(|outgoing| outgoing.close());
    }

    /// Whether this host tells nobody anything any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// How far the partitions of this host are.
    pub(crate) fn statuses(&self) -> Vec<PartitionStatus> {
        self.shards.values().map(|shard| shard.status()).collect()
    }
}

/// The executor of a host, running.
pub struct Executor {
    host: Arc<Host>,
    threads: Vec<JoinHandle<()>>,
    syncer: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Executor {
    /// Starts the executor of a host. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Stop`] if a thread can't be started.
    pub fn start(
        config: ExecutorConfig,
        network: PeerNetwork,
        inbox: PeerInbox,
    ) -> Result<Self, Stop> {
        let ExecutorConfig { runtimes, sync_interval, .. } = config;
        let host = Arc::new(build(
            config.map,
            config.stores,
            Parts {
                node: config.node,
                sequencer: config.sequencer,
                hosts: config.hosts,
                workers_per_partition: config.workers_per_partition.max(1),
                network,
            },
        ));
        let mut threads = Vec::new();
        for shard in host.shards.values() {
            for number in 0..host.workers_per_partition {
                let (host_, shard_, sessions) = (host.clone(), shard.clone(), runtimes.sessions());
                let name = format!("worker-{}-{number}", shard.id);
                threads.push(spawn(&host, name, move || worker::work(&host_, &shard_, sessions))?);
            }
            let (host_, shard_) = (host.clone(), shard.clone());
            let name = format!("commit-{}", shard.id);
            threads.push(spawn(&host, name, move || commit::commit(&host_, &shard_))?);
        }
        let host_ = host.clone();
        let syncer = spawn(&host, "sync".into(), move || commit::sync(&host_, sync_interval))?;
        let tasks = start_tasks(&host, inbox);
        Ok(Self { host, threads, syncer, tasks })
    }

    /// Returns when the executor stops of itself, with the reason.
    pub async fn stopped(&self) -> Stop {
        let mut stop = self.host.stop.subscribe();
        match stop.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| Stop("stopped".into())),
            Err(_) => Stop("its threads ended".into()),
        }
    }

    /// How far the partitions of this host are.
    #[must_use]
    pub fn progress(&self) -> Vec<PartitionStatus> {
        self.host.statuses()
    }

    /// What the partitions of this host have had to do since it started.
    #[must_use]
    pub fn traffic(&self) -> Vec<(PartitionId, Traffic)> {
        let shards = self.host.shards.values();
        shards.map(|shard| (shard.id, lock(&shard.core).traffic())).collect()
    }

    /// Ends all threads and tasks, and syncs the stores. What is not finished is done again at
    /// the next start.
    ///
    /// # Errors
    /// Why the executor had stopped of itself, if it had.
    pub async fn shutdown(mut self) -> Result<(), Stop> {
        self.host.close();
        self.tasks.shutdown().await;
        let Self { host, threads, syncer, .. } = self;
        let end = move || {
            // ORDER: the last sync comes when nothing is written any more.
            let joined = threads.into_iter().map(JoinHandle::join).all(|end| end.is_ok());
            syncer.thread().unpark();
            joined && syncer.join().is_ok()
        };
        let joined = tokio::task::spawn_blocking(end).await.unwrap_or(false);
        let reason = host.stop.borrow().clone();
        match reason {
            Some(stop) => Err(stop),
            None if !joined => Err(Stop("a thread of the executor panicked".into())),
            None => Ok(()),
        }
    }
}

struct Parts {
    node: NodeId,
    sequencer: NodeId,
    hosts: BTreeMap<PartitionId, NodeId>,
    workers_per_partition: usize,
    network: PeerNetwork,
}

fn build(
    map: Arc<parsec_protocol::PartitionMap>,
    stores: Vec<(PartitionId, Arc<dyn parsec_storage::Store>)>,
    parts: Parts,
) -> Host {
    let shard = |(id, store): (PartitionId, Arc<dyn parsec_storage::Store>)| {
        let core = Partition::new(id, map.clone(), store.applied().epoch);
        (id, Arc::new(Shard::new(id, core, store)))
    };
    let routes = Routes::new(parts.node, &parts.hosts);
    let others = routes.peers().into_iter().chain([parts.sequencer]);
    Host {
        sequencer: parts.sequencer,
        outgoing: others.map(|node| (node, Arc::new(Outgoing::new()))).collect(),
        routes: Arc::new(routes),
        shards: stores.into_iter().map(shard).collect(),
        workers_per_partition: parts.workers_per_partition,
        network: parts.network,
        attention: Notify::new(),
        closing: AtomicBool::new(false),
        stop: watch::Sender::new(None),
    }
}

/// Starts a thread whose error, or panic, stops the executor.
fn spawn(
    host: &Arc<Host>,
    name: String,
    body: impl FnOnce() -> Result<(), Stop> + Send + 'static,
) -> Result<JoinHandle<()>, Stop> {
    let host = host.clone();
    let what = name.clone();
    let guarded = move || {
        // A panic is a defect of Parsec. The state of this host can't be trusted after it.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(stop)) => host.stop(stop),
            Err(_) => host.stop(Stop(format!("the thread {what} panicked; see standard error"))),
        }
    };
    std::thread::Builder::new()
        .name(name.clone())
        .stack_size(WORKER_STACK_BYTES)
        .spawn(guarded)
        .map_err(|error| Stop(format!("the thread {name} could not be started: {error}")))
}

fn start_tasks(host: &Arc<Host>, inbox: PeerInbox) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let PeerInbox { links, order, exchange, query } = inbox;
    let driver = Driver::run(host.clone(), Inboxes { links, order, exchange });
    tasks.spawn(guarded(host.clone(), "driver", driver));
    tasks.spawn(guarded(host.clone(), "query", queries::answer(host.clone(), query)));
    for (node, outgoing) in &host.outgoing {
        let (host_, node, outgoing) = (host.clone(), *node, outgoing.clone());
        let sender = async move { send::send_all(&outgoing, &host_.network, node).await };
        tasks.spawn(guarded(host.clone(), "sender", sender));
    }
    tasks
}

/// Runs a task whose panic stops the executor.
async fn guarded(
    host: Arc<Host>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    if let Some(stop) = panic_of(name, task).await {
        host.stop(stop);
    }
}

/// Runs a task; why it stops everything, if it panicked.
async fn panic_of(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> Option<Stop> {
    // In a set of its own, so that it ends when this is dropped.
    let mut only = JoinSet::new();
    only.spawn(task);
    match only.join_next().await {
        Some(Err(error)) if error.is_panic() => {
            Some(Stop(format!("the task {name} panicked; see standard error")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_a_reason_to_stop() {
        assert_eq!(panic_of("calm", async {}).await, None);
        let stop = panic_of("wild", async { panic!("as it should") }).await;
        assert!(stop.is_some_and(|stop| stop.0.contains("wild")));
    }
}
