//! The sequencer: admits transactions, finds their footprints, orders them, and sends the order to
//! the executors.
//!
//! ```text
//!  clients ─▶ admission ─▶ discovery ─▶ driver ─▶ log ─▶ driver ─▶ dispatch ─▶ executors
//!                │             │          │ ▲                │                     │
//!             id index      snapshot      │ └── receipts ◀───┼─────────────────────┘
//!                ▲           reads        ▼                  ▼
//!                │                     replies            id index
//! ```
//!
//! What is hard about it, the order itself, is pure and stands in `parsec-sequencer-core`; the
//! driver here carries its inputs and outputs. Everything else works beside the driver and talks
//! to it through bounded channels.
//!
//! This crate must not know how a runtime works inside.

mod admission;
mod ahead;
mod asking;
mod cache;
mod chronicle;
mod clients;
mod clock;
mod discovery;
mod dispatch;
mod driver;
mod genesis;
mod hosts;
mod index;
mod indexer;
pub mod limits;
mod log;
mod outbox;
mod queries;
mod receive;
mod rediscovery;
mod restore;
mod stop;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use ahash::AHashMap;
use parsec_protocol::message::ClusterId;
use parsec_protocol::transport::{ClientListener, PeerInbox, PeerNetwork};
use parsec_protocol::{EpochNumber, LaneId, NodeId, PartitionId, PartitionMap};
use parsec_runtimes::Runtimes;
use parsec_runtimes::evm::keys;
use parsec_runtimes::system::Load;
use parsec_sequencer_core::{Cutter, HomeChooser, Identity, LaneOptions, Layout};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admission::Admission;
use crate::asking::Asking;
use crate::cache::ReplicatedCache;
use crate::chronicle::{Blocks, Job, Recent, Sealer, Summarizer, press_all};
use crate::clients::Service;
use crate::discovery::Discovery;
use crate::dispatch::{Dispatcher, HostSender};
use crate::driver::{Driver, Input, Marks, Outlets, View};
use crate::hosts::Hosts;
use crate::index::IdIndex;
use crate::indexer::Indexer;
use crate::queries::Queries;
use crate::receive::Receiver;
use crate::rediscovery::Rediscoverer;
use crate::restore::{Restored, restore};
use crate::stop::{Stop, StopOnPanic};
use crate::workers::Workers;

pub use chronicle::BlocksError;
pub use index::IndexError;
pub use parsec_sequencer_core::LayoutError;
pub use restore::RestoreError;
pub use stop::StopReason;

/// Everything that a sequencer has to be told.
#[derive(Debug, Clone)]
pub struct SequencerConfig {
    /// The lane that it closes batches of.
    pub lane: LaneId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Where the partitions' keys are.
    pub map: PartitionMap,
    /// The executors, each with the partitions that it holds. Not the sequencer's own node.
    pub hosts: Vec<(NodeId, Vec<PartitionId>)>,
    /// Where it keeps its log and its index of ids; created if absent.
    pub directory: PathBuf,
    /// What is ordered before anything else.
    pub genesis: Vec<Load>,
    /// Most transactions that a connection may have without a receipt: what the client listener
    /// welcomes clients with. See [`limits::CONNECTION_IN_FLIGHT_MAX`].
    pub in_flight_max: u32,
    /// How much the lane takes.
    pub lane_options: LaneOptions,
    /// The chain id of the chain whose blocks it seals and shows to clients; none: it seals none.
    pub chain: Option<u64>,
    /// Threads that admit transactions and try them to find footprints; 0 for one for each
    /// processor.
    pub workers: usize,
}

impl SequencerConfig {
    /// The usual configuration.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        map: PartitionMap,
        hosts: Vec<(NodeId, Vec<PartitionId>)>,
        directory: PathBuf,
    ) -> Self {
        Self {
            lane: LaneId(0),
            cluster,
            map,
            directory,
            genesis: Vec::new(),
            in_flight_max: limits::CONNECTION_IN_FLIGHT_MAX,
            lane_options: LaneOptions::for_hosts(hosts.len()),
            hosts,
            chain: None,
            workers: 0,
        }
    }

    /// Where the log is, which is also a recording.
    #[must_use]
    pub fn log_directory(&self) -> PathBuf {
        log_directory(&self.directory)
    }
}

/// Where the sequencer that keeps its data in `directory` has its log.
#[must_use]
pub fn log_directory(directory: &Path) -> PathBuf {
    directory.join("log")
}

/// Why a sequencer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The hosts that were configured can't work.
    #[error(transparent)]
    Hosts(#[from] LayoutError),
    /// The node is configured to be a host, too.
    #[error("{0} is the sequencer's own node and can't hold partitions: run an executor apart")]
    OwnHost(NodeId),
    /// The log or the index can't be used.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The sealed blocks can't be used.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// Threads can't be started.
    #[error("the sequencer's threads can't be started: {0}")]
    Threads(String),
}

/// A running sequencer. Dropping it stops it as a crash would.
pub struct Sequencer {
    stop: Stop,
    view: Arc<View>,
    tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Sequencer {
    /// Starts a sequencer, going on where its log ends. Must be called within a tokio runtime.
    ///
    /// Clients are served as soon as the genesis is ordered; executors may come up later.
    ///
    /// # Errors
    /// [`StartError::Hosts`] and [`StartError::OwnHost`] if the configuration can't work,
    /// [`StartError::Restore`] if the log or the index can't be used, [`StartError::Threads`].
    pub async fn start(
        mut config: SequencerConfig,
        runtimes: Runtimes,
        network: PeerNetwork,
        inbox: PeerInbox,
        clients: ClientListener,
    ) -> Result<Self, StartError> {
        config.lane_options.summary_key = config.chain.map(|_| keys::block_hashes());
        if let Some((own, _)) = config.hosts.iter().find(|(host, _)| *host == network.node()) {
            return Err(StartError::OwnHost(*own));
        }
        let layout = Arc::new(Layout::new(&config.hosts, &config.map)?);
        let workers = Workers::new(config.workers);
        let workers = workers.map_err(|error| StartError::Threads(error.to_string()))?;
        let restored = restore_apart(&config).await?;
        let blocks = open_blocks(&config)?;
        let parts = Parts::new(config, runtimes, network, layout, workers, &restored, blocks);
        parts.start(restored, inbox, clients)
    }

    /// The last epoch that is ordered and durable.
    #[must_use]
    pub fn ordered(&self) -> EpochNumber {
        self.view.ordered()
    }

    /// Returns when it stops, with the reason.
    pub async fn stopped(&self) -> StopReason {
        self.stop.stopped().await
    }

    /// Stops in order: everything that clients were told is durable; what is in flight goes on
    /// after the next start.
    ///
    /// # Errors
    /// Why it had stopped before, if that was a failure.
    pub async fn shutdown(mut self) -> Result<(), StopReason> {
        self.stop.stop(StopReason::Asked);
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                self.stop.fail(error);
            }
        }
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !joined.await.unwrap_or(false) {
            return Err(StopReason::Failed("one of its threads panicked".to_owned()));
        }
        match self.stop.stopped().await {
            StopReason::Asked => Ok(()),
            failed @ StopReason::Failed(_) => Err(failed),
        }
    }
}

impl Drop for Sequencer {
    fn drop(&mut self) {
        self.stop.stop(StopReason::Asked);
    }
}

async fn restore_apart(config: &SequencerConfig) -> Result<Restored, StartError> {
    let (log, ids) = (config.log_directory(), config.directory.join("ids"));
    let cluster = config.cluster;
    let identity = Identity {
        lane: config.lane,
        options: config.lane_options.clone(),
        homes: HomeChooser::new(config.map.clone()),
    };
    match tokio::task::spawn_blocking(move || restore(&log, &ids, cluster, identity)).await {
        Ok(restored) => Ok(restored?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The sealed blocks, if blocks are sealed.
fn open_blocks(config: &SequencerConfig) -> Result<Option<Arc<Blocks>>, StartError> {
    if config.chain.is_none() {
        return Ok(None);
    }
    let blocks = Blocks::open(&config.directory.join("blocks"), config.cluster)?;
    Ok(Some(Arc::new(blocks)))
}

/// What the parts of a sequencer share.
struct Parts {
    config: SequencerConfig,
    runtimes: Runtimes,
    network: PeerNetwork,
    hosts: Arc<Hosts>,
    workers: Workers,
    view: Arc<View>,
    queries: Queries,
    cache: Arc<ReplicatedCache>,
    discovery: Discovery,
    /// The sealed blocks, and the epochs that will be, if blocks are sealed.
    blocks: Option<Arc<Blocks>>,
    recent: Arc<Recent>,
    stop: Stop,
}

impl Parts {
    fn new(
        config: SequencerConfig,
        runtimes: Runtimes,
        network: PeerNetwork,
        layout: Arc<Layout>,
        workers: Workers,
        restored: &Restored,
        blocks: Option<Arc<Blocks>>,
    ) -> Self {
        let latest = restored.end.last_epoch.clone();
        let mark = restored.indexing.mark();
        let view = View::new(latest, mark.settled, mark.transactions);
        let hosts = Arc::new(Hosts::new(layout, view.ordered()));
        let queries = Queries::new(network.clone(), hosts.clone(), config.map.clone());
        let cache = Arc::new(ReplicatedCache::default());
        let discovery = Discovery::new(
            runtimes.clone(),
            workers.clone(),
            queries.clone(),
            cache.clone(),
            view.latest.subscribe(),
        );
        let view = Arc::new(view);
        let stop = Stop::new();
        let recent = Arc::default();
        Self {
            config,
            runtimes,
            network,
            hosts,
            workers,
            view,
            queries,
            cache,
            discovery,
            blocks,
            recent,
            stop,
        }
    }

    fn start(
        self,
        restored: Restored,
        inbox: PeerInbox,
        clients: ClientListener,
    ) -> Result<Sequencer, StartError> {
        let Restored { orderer, writer, index, indexing, .. } = restored;
        let index = Arc::new(index);
        let (inputs, driver_inputs) = mpsc::channel(limits::INPUTS_MAX);
        let (log, log_commands) = mpsc::channel(limits::LOG_COMMANDS_MAX);
        let (dispatch, ordered) = mpsc::channel(limits::DISPATCHES_MAX);
        let (to_index, indexables) = mpsc::channel(limits::INDEX_EPOCHS_MAX);
        let (summarize, to_summarize) = mpsc::channel(limits::SUMMARIES_MAX);
        let (rediscover, strays) = mpsc::channel(limits::REDISCOVERY_UNIT_MAX);
        let durable = watch::Sender::new(self.view.ordered());
        let indexed = watch::Sender::new(indexing.told());
        let marks = Marks {
            durable: durable.subscribe(),
            applied: self.hosts.applied_by_all(),
            indexed: indexed.subscribe(),
        };
        let driver = Driver {
            orderer,
            view: self.view.clone(),
            outlets: Outlets { log, dispatch, rediscover, summarize },
            connections: AHashMap::new(),
            strays: VecDeque::new(),
            dispatched: VecDeque::new(),
            replies: BTreeMap::new(),
            stop: self.stop.clone(),
        };
        let mut tasks = JoinSet::new();
        spawn(&mut tasks, &self.stop, driver.run(driver_inputs, marks));
        self.spawn_senders(&mut tasks);
        self.spawn_receivers(&mut tasks, inbox, &inputs);
        let (view, stop) = (self.view.clone(), self.stop.clone());
        let indexer = Indexer {
            index: index.clone(),
            indexing,
            view: view.clone(),
            indexed,
            stop: stop.clone(),
        };
        spawn(&mut tasks, &stop, indexer.run(indexables));
        spawn(&mut tasks, &stop, self.rediscoverer(&inputs).run(strays));
        let mut threads = Vec::new();
        let (press, jobs) = mpsc::channel(1);
        if let (Some(sealer), Some(blocks)) = (self.sealer(press), &self.blocks) {
            spawn(&mut tasks, &stop, sealer.run());
            let kept = blocks.clone();
            threads.push(thread("parsec-seal", &stop, move || press_all(&kept, jobs))?);
            let (blocks, inputs, stop_) = (blocks.clone(), inputs.clone(), stop.clone());
            let summarizer = Summarizer { blocks, inputs, stop: stop_ };
            spawn(&mut tasks, &stop, summarizer.run(to_summarize));
        }

        let log_stop = stop.clone();
        let log_thread = thread("parsec-log", &stop, move || {
            log::write_log(writer, log_commands, &durable, &log_stop);
        })?;
        let dispatcher = Dispatcher {
            cutter: self.cutter(),
            hosts: self.hosts.clone(),
            cache: self.cache.clone(),
            counters: self.discovery.counters(),
            recent: self.recent(),
        };
        let cut_thread = thread("parsec-dispatch", &stop, move || {
            dispatcher.cut_all(ordered, &to_index);
        })?;
        spawn(&mut tasks, &stop, self.serve(index, inputs, clients));
        threads.extend([log_thread, cut_thread]);
        Ok(Sequencer { stop, view, tasks, threads })
    }

    fn cutter(&self) -> Cutter {
        let layout = self.hosts.layout().clone();
        Cutter::new(self.config.lane, self.config.map.clone(), layout)
    }

    fn rediscoverer(&self, inputs: &mpsc::Sender<Input>) -> Rediscoverer {
        Rediscoverer {
            discovery: self.discovery.clone(),
            cache: self.cache.clone(),
            applied_by_all: self.hosts.applied_by_all(),
            inputs: inputs.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Where epochs and receipts are kept for the chronicle, if blocks are sealed.
    fn recent(&self) -> Option<Arc<Recent>> {
        self.blocks.is_some().then(|| self.recent.clone())
    }

    fn sealer(&self, press: mpsc::Sender<Job>) -> Option<Sealer> {
        let config = &self.config;
        Some(Sealer {
            chain_id: config.chain?,
            blocks: self.blocks.clone()?,
            recent: self.recent.clone(),
            log: config.log_directory(),
            partitions: config.map.partitions().collect(),
            queries: self.queries.clone(),
            applied: self.hosts.applied_by_all(),
            genesis: config.genesis.iter().map(|load| load.id).collect(),
            press,
            stop: self.stop.clone(),
        })
    }

    fn spawn_senders(&self, tasks: &mut JoinSet<()>) {
        for (place, (host, _)) in self.hosts.iter().enumerate() {
            let sender = HostSender {
                host,
                place,
                network: self.network.clone(),
                hosts: self.hosts.clone(),
                cutter: self.cutter(),
                log: self.config.log_directory(),
                stop: self.stop.clone(),
            };
            spawn_until_stop(tasks, &self.stop, sender.run());
        }
    }

    fn spawn_receivers(
        &self,
        tasks: &mut JoinSet<()>,
        inbox: PeerInbox,
        inputs: &mpsc::Sender<Input>,
    ) {
        let PeerInbox { links, order, exchange, query } = inbox;
        let receiver = Receiver {
            network: self.network.clone(),
            hosts: self.hosts.clone(),
            queries: self.queries.clone(),
            view: self.view.clone(),
            inputs: inputs.clone(),
            recent: self.recent(),
            stop: self.stop.clone(),
        };
        spawn_until_stop(tasks, &self.stop, receiver.run(links, order));
        spawn_until_stop(tasks, &self.stop, receive::ignore(exchange));
        let queries = self.queries.clone();
        spawn_until_stop(tasks, &self.stop, async move { queries.serve(query).await });
    }

    /// Orders the genesis, then serves clients.
    async fn serve(
        mut self,
        index: Arc<IdIndex>,
        inputs: mpsc::Sender<Input>,
        clients: ClientListener,
    ) {
        let loads = std::mem::take(&mut self.config.genesis);
        let ordering = genesis::order(loads, &index, &inputs, &self.view);
        let least = match self.stop.unless(ordering).await {
            Some(Ok(Some(least))) => least,
            Some(Err(error)) => return self.stop.fail(error),
            Some(Ok(None)) | None => return,
        };
        let asking = Asking::new(self.runtimes.clone(), self.queries.clone(), self.blocks.clone());
        let admission = Admission {
            runtimes: self.runtimes,
            workers: self.workers,
            index,
            queries: self.queries.clone(),
            discovery: self.discovery,
            applied_by_all: self.hosts.applied_by_all(),
            least,
        };
        let service = Service {
            admission,
            queries: self.queries,
            inputs,
            asking,
            blocks: self.blocks,
            view: self.view,
            partitions_total: self.config.map.len(),
            in_flight_max: self.config.in_flight_max,
            told: Arc::default(),
            admission_room: clients::admission_room(),
            connections: AtomicU64::new(0),
            stop: self.stop,
        };
        clients::accept_all(Arc::new(service), clients).await;
    }
}

/// Starts a task; if it panics, everything stops.
fn spawn(tasks: &mut JoinSet<()>, stop: &Stop, work: impl Future<Output = ()> + Send + 'static) {
    let guard = StopOnPanic(stop.clone());
    tasks.spawn(async move {
        let _guard = guard;
        work.await;
    });
}

/// Starts a task that ends when everything is to stop.
fn spawn_until_stop(
    tasks: &mut JoinSet<()>,
    stop: &Stop,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let until = stop.clone();
    spawn(tasks, stop, async move {
        until.unless(work).await;
    });
}

/// Starts a thread; if it panics, everything stops.
fn thread(
    name: &str,
    stop: &Stop,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let guard = StopOnPanic(stop.clone());
    let guarded = move || {
        let _guard = guard;
        work();
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(guarded).map_err(|error| StartError::Threads(error.to_string()))
}
