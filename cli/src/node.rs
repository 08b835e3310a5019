//! Starting nodes: sequencers and executors, one of them in a process or several.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parsec_executor::{Executor, ExecutorConfig};
use parsec_protocol::limits::PROTOCOL_VERSION;
use parsec_protocol::message::{ClusterId, Welcome};
use parsec_protocol::transport::tls::NodeIdentity;
use parsec_protocol::transport::{
    ClientListener, ClientListenerOptions, Neighbourhood, PeerConfig, PeerInbox, PeerNetwork,
    PeerOptions, start_peers,
};
use parsec_protocol::{NodeId, PartitionId};
use parsec_runtimes::Runtimes;
use parsec_runtimes::system::load_transactions;
use parsec_sequencer::{Sequencer, SequencerConfig};

use crate::cluster::{SYNC_INTERVAL, first, open_stores};
use crate::config::{Layout, NodeConfig, RoleName};
use crate::failure::{Context, Failure, failed};
use crate::genesis::Genesis;

/// A node that runs. Dropping it without [`Node::shutdown`] is like a crash.
pub enum Node {
    /// A sequencer, and where clients connect.
    Sequencer(Box<Sequencer>, SocketAddr),
    /// An executor.
    Executor(Executor),
}

impl Node {
    /// Stops it in order: what was acknowledged is on disk.
    ///
    /// # Errors
    /// Why it had stopped before.
    pub async fn shutdown(self) -> Result<(), Failure> {
        match self {
            Self::Sequencer(sequencer, _) => sequencer.shutdown().await.map_err(failed),
            Self::Executor(executor) => executor.shutdown().await.map_err(failed),
        }
    }

    async fn stopped(&self) -> Failure {
        match self {
            Self::Sequencer(sequencer, _) => failed(sequencer.stopped().await),
            Self::Executor(executor) => failed(executor.stopped().await),
        }
    }
}

/// Runs the nodes that these files configure, linked by memory if there are several, in their
/// order.
///
/// # Errors
/// What is wrong with their files, with running them together, or can't be listened on.
pub async fn run(configs: &[NodeConfig]) -> Result<Vec<Node>, Failure> {
    let ids: BTreeSet<_> = configs.iter().map(|config| NodeId(config.node)).collect();
    if ids.len() < configs.len() {
        return Err(failed("two of the files are for the same node"));
    }
    let neighbours = (configs.len() > 1).then(|| Neighbourhood::new(ids));
    let mut nodes = Vec::new();
    for config in configs {
        let node = match config.role {
            RoleName::Sequencer => {
                let (sequencer, clients) = run_sequencer(config, neighbours.clone()).await?;
                Node::Sequencer(Box::new(sequencer), clients)
            }
            RoleName::Executor => Node::Executor(run_executor(config, neighbours.clone()).await?),
        };
        nodes.push(node);
    }
    Ok(nodes)
}

/// Returns when one of some nodes has stopped of itself, with the reason.
pub async fn stopped(nodes: &[Node]) -> Failure {
    first(nodes.iter().map(|node| Box::pin(node.stopped())).collect()).await
}

/// What a sequencer is made of, beside the layout of its cluster and its links to other nodes.
pub(crate) struct SequencerParts<'a> {
    pub(crate) data: PathBuf,
    pub(crate) clients: SocketAddr,
    pub(crate) chain_id: u64,
    pub(crate) genesis: &'a Genesis,
    pub(crate) runtimes: Runtimes,
    pub(crate) identity: Arc<NodeIdentity>,
    /// The name in handshakes.
    pub(crate) cluster: ClusterId,
    /// The name in the log.
    pub(crate) log: ClusterId,
}

/// Starts a sequencer; returns it with the address where clients connect.
pub(crate) async fn start_sequencer(
    parts: SequencerParts<'_>,
    layout: &Layout,
    (network, inbox): (PeerNetwork, PeerInbox),
) -> Result<(Sequencer, SocketAddr), Failure> {
    let hosts = layout.hosts_with_partitions();
    let mut config = SequencerConfig::new(parts.log, (*layout.map).clone(), hosts, parts.data);
    config.genesis = load_transactions(parts.genesis.entries.clone()).context("genesis")?;
    config.chain = Some(parts.chain_id);
    let welcome = Welcome {
        version: PROTOCOL_VERSION,
        cluster: parts.cluster,
        chain_id: parts.chain_id,
        in_flight_max: config.in_flight_max,
    };
    let options = ClientListenerOptions::default();
    let clients =
        ClientListener::bind(parts.clients, &parts.identity, welcome, options).map_err(failed)?;
    let address = clients.local_address();
    let sequencer = Sequencer::start(config, parts.runtimes, network, inbox, clients).await;
    Ok((sequencer.context("the sequencer can't start")?, address))
}

/// Runs the sequencer that a file configures; returns it with the address where clients connect.
async fn run_sequencer(
    config: &NodeConfig,
    neighbours: Option<Neighbourhood>,
) -> Result<(Sequencer, SocketAddr), Failure> {
    let layout = config.layout().map_err(failed)?;
    let genesis = Genesis::load(config.genesis.as_deref(), config.chain_id)?;
    let identity = Arc::new(config.identity()?);
    let cluster = genesis.cluster_id(config.chain_id, &layout.map);
    let clients = config.clients.ok_or_else(|| failed("a sequencer needs clients"))?;
    let peers = join(config, &layout, cluster, identity.clone(), neighbours)?;
    let parts = SequencerParts {
        data: config.data.clone(),
        clients,
        chain_id: config.chain_id,
        runtimes: Runtimes::standard(config.chain_id),
        identity,
        cluster,
        log: genesis.log_id(config.chain_id),
        genesis: &genesis,
    };
    start_sequencer(parts, &layout, peers).await
}

/// Runs the executor that a file configures.
async fn run_executor(
    config: &NodeConfig,
    neighbours: Option<Neighbourhood>,
) -> Result<Executor, Failure> {
    let layout = config.layout().map_err(failed)?;
    let genesis = Genesis::load(config.genesis.as_deref(), config.chain_id)?;
    let identity = Arc::new(config.identity()?);
    let cluster = genesis.cluster_id(config.chain_id, &layout.map);
    let node = NodeId(config.node);
    let mine: Vec<PartitionId> =
        layout.hosts.iter().filter(|(_, host)| **host == node).map(|(id, _)| *id).collect();
    let stores = open_stores(&config.data, cluster, mine).await?;
    let (network, inbox) = join(config, &layout, cluster, identity, neighbours)?;
    let executor = ExecutorConfig {
        node,
        sequencer: layout.sequencer,
        map: layout.map,
        hosts: layout.hosts,
        stores,
        workers_per_partition: config.workers_per_partition,
        sync_interval: SYNC_INTERVAL,
        runtimes: Runtimes::standard(config.chain_id),
    };
    Executor::start(executor, network, inbox).map_err(failed)
}

fn join(
    config: &NodeConfig,
    layout: &Layout,
    cluster: ClusterId,
    identity: Arc<NodeIdentity>,
    neighbours: Option<Neighbourhood>,
) -> Result<(PeerNetwork, PeerInbox), Failure> {
    let own = layout.addresses.iter().find(|peer| peer.node == NodeId(config.node));
    let own = own.ok_or_else(|| failed("this node is not among the nodes"))?;
    let peers = PeerConfig {
        listen: own.address,
        peers: layout.addresses.clone(),
        cluster,
        identity,
        neighbours,
        options: PeerOptions::default(),
    };
    start_peers(peers).map_err(failed)
}
