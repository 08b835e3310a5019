//! A cluster in one process: a sequencer and executor hosts, over real QUIC on loopback or linked by
//! memory.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parsec_client::{Client, ClientConfig};
use parsec_executor::{Executor, ExecutorConfig, Traffic};
use parsec_protocol::message::ClusterId;
use parsec_protocol::transport::tls::{NodeIdentity, development_authority, development_identity};
use parsec_protocol::transport::{Neighbourhood, PeerAddress, PeerListener, PeerOptions};
use parsec_protocol::{EpochNumber, NodeId, PartitionId, PartitionMap};
use parsec_runtimes::Runtimes;
use parsec_sequencer::Sequencer;
use parsec_storage::store::{MemoryStore, Store, StoreOptions, WriteBehindStore};

use crate::config::Layout;
use crate::failure::{Context, Failure, failed};
use crate::genesis::Genesis;
use crate::node::{SequencerParts, start_sequencer};

/// How often stores are synced.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(4);

/// How long an executor that starts again waits for its address: sockets close in the background.
const REBIND_PATIENCE: Duration = Duration::from_secs(5);

/// Opens the store of a partition.
pub type OpenStore = Arc<dyn Fn(PartitionId) -> Arc<dyn Store> + Send + Sync>;

/// What an embedded cluster is to be like.
#[derive(Clone)]
pub struct ClusterOptions {
    /// Where it keeps its data.
    pub data: PathBuf,
    /// Executor hosts.
    pub hosts: u16,
    /// Partitions on each of them.
    pub partitions_per_host: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: usize,
    /// Whether partitions are kept in memory only. The log is on disk all the same.
    pub in_memory: bool,
    /// Whether the nodes are linked by memory; else by QUIC, as if each were a process.
    pub linked_by_memory: bool,
    /// Where partitions are kept instead of either, for tests of what no disk does when asked to.
    pub stores: Option<OpenStore>,
    /// Where the sequencer listens for clients.
    pub clients: SocketAddr,
    /// The chain id that Ethereum transactions are signed for.
    pub chain_id: u64,
    /// The state to start from.
    pub genesis: Genesis,
    /// The name in the log, if it is not the one of the genesis: to go on from a log of another
    /// cluster, whose first transactions are then the genesis.
    pub log_id: Option<[u8; 32]>,
    /// What executes transactions.
    pub runtimes: Runtimes,
}

impl ClusterOptions {
    /// Two hosts with two partitions each, one worker each, an empty state, any free port.
    #[must_use]
    pub fn new(data: PathBuf) -> Self {
        let chain_id = crate::DEFAULT_CHAIN_ID;
        Self {
            data,
            hosts: 2,
            partitions_per_host: 2,
            workers_per_partition: 1,
            in_memory: false,
            linked_by_memory: false,
            stores: None,
            clients: (Ipv4Addr::LOCALHOST, 0).into(),
            chain_id,
            genesis: Genesis::empty(chain_id),
            log_id: None,
            runtimes: Runtimes::standard(chain_id),
        }
    }

    /// Where the log is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        log_directory(&self.data.join("sequencer"))
    }

    /// The certificate by which clients know the cluster.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.data.join("certs/ca/ca.pem")
    }
}

/// Where a sequencer that keeps its data in `data` has its log.
#[must_use]
pub fn log_directory(data: &Path) -> PathBuf {
    data.join("log")
}

/// A cluster in one process. Dropping it without [`Cluster::stop`] is like a crash.
pub struct Cluster {
    options: ClusterOptions,
    layout: Layout,
    id: ClusterId,
    neighbours: Option<Neighbourhood>,
    sequencer: Sequencer,
    executors: BTreeMap<NodeId, Executor>,
    client_config: ClientConfig,
    address: SocketAddr,
}

impl Cluster {
    /// Starts a cluster; goes on from what its directory holds. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// What is wrong with the directory, or can't be listened on.
    pub async fn start(options: &ClusterOptions) -> Result<Self, Failure> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let nodes = (0..=options.hosts).map(NodeId);
        let neighbours = options.linked_by_memory.then(|| Neighbourhood::new(nodes.clone()));
        let listeners = nodes
            .map(|node| bind(options, node, any, neighbours.as_ref()))
            .collect::<Result<Vec<_>, Failure>>()?;
        let layout = layout(options, &listeners)?;
        let cluster = options.genesis.cluster_id(options.chain_id, &layout.map);

        let mut listeners = listeners.into_iter();
        let (identity, listener) = listeners.next().ok_or_else(|| failed("no node 0"))?;
        let peers = listener.start(cluster, &layout.addresses).map_err(failed)?;
        let parts = SequencerParts {
            data: options.data.join("sequencer"),
            clients: options.clients,
            chain_id: options.chain_id,
            genesis: &options.genesis,
            runtimes: options.runtimes.clone(),
            identity,
            cluster,
            log: match options.log_id {
                Some(id) => ClusterId(id),
                None => options.genesis.log_id(options.chain_id),
            },
        };
        let (sequencer, address) = start_sequencer(parts, &layout, peers).await?;

        let mut executors = BTreeMap::new();
        for ((_, listener), node) in listeners.zip((1..).map(NodeId)) {
            let executor = start_executor(options, cluster, &layout, node, listener).await?;
            executors.insert(node, executor);
        }
        let trust = development_authority(&certificates(options)).and_then(|ca| ca.trust());
        let client_config = ClientConfig::new(vec![address], trust.map_err(failed)?);
        let options = options.clone();
        Ok(Self {
            options,
            layout,
            id: cluster,
            neighbours,
            sequencer,
            executors,
            client_config,
            address,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How clients reach the cluster.
    #[must_use]
    pub fn client_config(&self) -> &ClientConfig {
        &self.client_config
    }

    /// A new client of the cluster.
    ///
    /// # Errors
    /// If the sequencer does not answer.
    pub async fn client(&self) -> Result<Client, Failure> {
        Client::connect(self.client_config.clone()).await.context("can't connect to the cluster")
    }

    /// Waits until every partition has applied `epoch`.
    pub async fn applied(&self, epoch: EpochNumber) {
        let all = || {
            let progress = self.executors.values().flat_map(Executor::progress);
            progress.into_iter().all(|status| status.applied >= epoch)
        };
        while !all() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What each partition has had to do since the cluster started, in their order.
    #[must_use]
    pub fn traffic(&self) -> BTreeMap<PartitionId, Traffic> {
        self.executors.values().flat_map(Executor::traffic).collect()
    }

    /// Returns when a part of the cluster has stopped of itself, with the reason.
    pub async fn failed(&self) -> Failure {
        let executors = self.executors.values().map(|executor| Box::pin(executor.stopped()));
        let executors = first(executors.collect());
        tokio::select! {
            reason = self.sequencer.stopped() => failed(format!("the sequencer stopped: {reason}")),
            stop = executors => failed(format!("an executor stopped: {stop}")),
        }
    }

    /// Ends the executor of a host, if it has not stopped of itself, and starts it again over its
    /// stores. All else runs on.
    ///
    /// # Errors
    /// If the cluster has no such executor, or it can't be started; the cluster then lacks it.
    pub async fn restart_executor(&mut self, node: NodeId) -> Result<(), Failure> {
        let executor = self.executors.remove(&node);
        let executor = executor.ok_or_else(|| failed(format!("no executor is {node}")))?;
        if let Err(stop) = executor.shutdown().await {
            tracing::warn!(%node, reason = %stop, "the executor had stopped");
        }
        let address = self.layout.addresses.iter().find(|peer| peer.node == node);
        let address = address.ok_or_else(|| failed(format!("{node} has no address")))?.address;
        let neighbours = self.neighbours.as_ref();
        let listener = bind_again(&self.options, node, address, neighbours).await?;
        let executor = start_executor(&self.options, self.id, &self.layout, node, listener).await?;
        self.executors.insert(node, executor);
        Ok(())
    }

    /// Stops the cluster in order: what was acknowledged is on disk.
    ///
    /// # Errors
    /// Why a part of it had stopped before.
    pub async fn stop(self) -> Result<(), Failure> {
        self.sequencer.shutdown().await.map_err(failed)?;
        for executor in self.executors.into_values() {
            executor.shutdown().await.map_err(failed)?;
        }
        Ok(())
    }
}

/// The first of some futures to end.
pub(crate) async fn first<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(value) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(value);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn certificates(options: &ClusterOptions) -> PathBuf {
    options.data.join("certs")
}

fn bind(
    options: &ClusterOptions,
    node: NodeId,
    address: SocketAddr,
    neighbours: Option<&Neighbourhood>,
) -> Result<(Arc<NodeIdentity>, PeerListener), Failure> {
    let identity = development_identity(&certificates(options), node).map_err(failed)?;
    let identity = Arc::new(identity);
    let listener = PeerListener::bind(address, identity.clone(), PeerOptions::default());
    let listener = listener.map_err(failed)?;
    Ok((
        identity,
        match neighbours {
            Some(neighbours) => listener.among(neighbours.clone()),
            None => listener,
        },
    ))
}

/// Takes an address again that was in use a moment ago.
async fn bind_again(
    options: &ClusterOptions,
    node: NodeId,
    address: SocketAddr,
    neighbours: Option<&Neighbourhood>,
) -> Result<PeerListener, Failure> {
    let deadline = tokio::time::Instant::now() + REBIND_PATIENCE;
    loop {
        match bind(options, node, address, neighbours) {
            Ok((_, listener)) => return Ok(listener),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn start_executor(
    options: &ClusterOptions,
    cluster: ClusterId,
    layout: &Layout,
    node: NodeId,
    listener: PeerListener,
) -> Result<Executor, Failure> {
    let (network, inbox) = listener.start(cluster, &layout.addresses).map_err(failed)?;
    let config = ExecutorConfig {
        node,
        sequencer: layout.sequencer,
        map: layout.map.clone(),
        hosts: layout.hosts.clone(),
        stores: stores(options, cluster, layout, node).await?,
        workers_per_partition: options.workers_per_partition,
        sync_interval: SYNC_INTERVAL,
        runtimes: options.runtimes.clone(),
    };
    Executor::start(config, network, inbox).map_err(failed)
}

fn layout(
    options: &ClusterOptions,
    listeners: &[(Arc<NodeIdentity>, PeerListener)],
) -> Result<Layout, Failure> {
    let count = options.hosts.checked_mul(options.partitions_per_host);
    let count = count.ok_or_else(|| failed("too many partitions"))?;
    let map = PartitionMap::even(count).map_err(failed)?;
    let node = |partition: PartitionId| NodeId(1 + partition.0 / options.partitions_per_host);
    let hosts: BTreeMap<_, _> =
        map.partitions().map(|partition| (partition, node(partition))).collect();
    let addresses = listeners.iter().map(|(identity, listener)| PeerAddress {
        node: identity.node(),
        address: listener.local_address(),
    });
    Ok(Layout { sequencer: NodeId(0), addresses: addresses.collect(), hosts, map: Arc::new(map) })
}

async fn stores(
    options: &ClusterOptions,
    cluster: ClusterId,
    layout: &Layout,
    node: NodeId,
) -> Result<Vec<(PartitionId, Arc<dyn Store>)>, Failure> {
    let mine = layout.hosts.iter().filter(|(_, host)| **host == node).map(|(id, _)| *id);
    if let Some(open) = &options.stores {
        return Ok(mine.map(|id| (id, open(id))).collect());
    }
    if options.in_memory {
        return Ok(mine.map(|id| (id, Arc::new(MemoryStore::new()) as Arc<dyn Store>)).collect());
    }
    let home = options.data.join(format!("host-{}", node.0));
    open_stores(&home, cluster, mine.collect()).await
}

/// Opens the stores of a host's partitions below `home`.
///
/// # Errors
/// What is wrong with one of them, and what to do.
pub async fn open_stores(
    home: &Path,
    cluster: ClusterId,
    partitions: Vec<PartitionId>,
) -> Result<Vec<(PartitionId, Arc<dyn Store>)>, Failure> {
    let home = home.to_owned();
    // Opening reads journals: on a thread that may wait for the disk.
    let open = move || {
        let open_one = |partition: PartitionId| {
            let directory = home.join(format!("partition-{}", partition.0));
            let store = WriteBehindStore::open(StoreOptions::new(directory, cluster.0, partition))
                .context(format!("can't open the store of {partition}"))?;
            Ok((partition, Arc::new(store) as Arc<dyn Store>))
        };
        partitions.into_iter().map(open_one).collect::<Result<Vec<_>, Failure>>()
    };
    tokio::task::spawn_blocking(open).await.map_err(failed)?
}
