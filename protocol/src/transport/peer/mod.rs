//! The network of a cluster's hosts.
//!
//! ```text
//!                     one link per pair of nodes, dialled by the lower id
//!
//!  send(to, Order, m) ─▶ queue ─▶ writer ═══ stream Order ═══▶ reader ─▶ inbox.order
//!  send(to, Exchange…) ▶ queue ─▶ writer ═══ stream Exchange ═▶ reader ─▶ inbox.exchange
//!  send(to, Query, m) ─▶ queue ─▶ writer ═══ stream Query ════▶ reader ─▶ inbox.query
//!                                                                         inbox.links: Up, Down
//! ```
//!
//! **A link** is one QUIC connection, or, between nodes of one process, memory
//! ([`Neighbourhood`]): then a message is handed over as it is, without any of the queues, streams
//! and windows above. A connection is up when the dialler's [`PeerHello`] was answered with
//! one that agrees in version and cluster, and both sides' certificates name the node that the
//! hello names. Each time it comes up it is a new *session*, with a number that is unique in this
//! process. The dialler tries for ever, waiting longer and longer up to a limit; a newer link from
//! the same node replaces the older one.
//!
//! **Order.** Messages of one channel and session arrive in the order in which they were sent, and
//! none is left out before the last that arrives. What was sent but not yet received when a link
//! goes down is lost: upper layers go on from positions that they confirm to each other. Between
//! channels there is no order.
//!
//! **Invariant:** what an inbox hands out of a session comes after [`LinkEvent::Up`] was received
//! from [`PeerInbox::links`], and before its [`LinkEvent::Down`] was. So links must be received
//! for messages to flow. A session goes down before the next one with the same node comes up.
//!
//! **Back-pressure.** What is not received from an inbox is not read from the stream; then QUIC's
//! flow control holds the sender back, its queue fills, and [`PeerNetwork::send`] waits. Channels
//! don't hold each other up. Queues and inboxes are bounded in bytes and in messages.

mod handshake;
mod inbox;
mod memory;
mod session;
mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use quinn::{Endpoint, VarInt};
use tokio::sync::{mpsc, watch};

pub use inbox::{Inbox, LinkEvent, Links, PeerInbox, Received};
pub use memory::Neighbourhood;

use self::inbox::Sinks;
use self::session::{Carrier, Session};
use super::endpoint::{self, LINGER, LinkSettings};
use super::error::{CloseCode, LinkError, SendError, TransportError};
use super::tls::NodeIdentity;
use crate::message::{ClusterId, PeerHello, PeerMessage, short};
use crate::placement::NodeId;

/// One of the streams between two nodes, in each direction. They don't hold each other up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// What the sequencer sends, and the progress and receipts that answer it.
    Order,
    /// What executors push to one another.
    Exchange,
    /// Questions and answers.
    Query,
}

impl Channel {
    /// All of them, in the order of their indexes.
    pub const ALL: [Self; 3] = [Self::Order, Self::Exchange, Self::Query];

    fn index(self) -> usize {
        usize::from(self.tag())
    }

    /// The first byte of a stream, which says what it carries.
    fn tag(self) -> u8 {
        match self {
            Self::Order => 0,
            Self::Exchange => 1,
            Self::Query => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Exchange => "exchange",
            Self::Query => "query",
        }
    }
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress {
    /// The node.
    pub node: NodeId,
    /// The address of its endpoint for peers.
    pub address: SocketAddr,
}

/// Limits and times of the network between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerOptions {
    /// Largest UDP payload to send, bytes; 1,200 to 6,500. By default 6,500 on loopback, and
    /// elsewhere what path MTU discovery finds, up to 1,452.
    pub udp_payload_bytes: Option<u16>,
    /// A link on which nothing arrives for so long is down.
    pub idle_timeout: Duration,
    /// How often an idle link is used, to keep it up. Less than half of `idle_timeout`.
    pub keep_alive: Duration,
    /// How long a handshake may take, from the first packet to the answered hello.
    pub handshake_timeout: Duration,
    /// The first pause before dialling again; each following one is twice as long.
    pub backoff_min: Duration,
    /// The longest pause before dialling again.
    pub backoff_max: Duration,
    /// What the other side may send on one stream ahead of what is received, bytes.
    pub stream_window_bytes: u32,
    /// What may wait to be sent, per node and channel, bytes.
    pub queue_bytes: u32,
    /// What may wait to be sent, per node and channel, messages.
    pub queue_messages: usize,
    /// What may wait to be received, per channel, bytes. One longer message may wait alone.
    pub inbox_bytes: u32,
    /// What may wait to be received, per channel, messages.
    pub inbox_messages: usize,
    /// Most connections that wait to be accepted or are in the handshake; others are refused.
    pub incoming_max: usize,
    /// What the system is asked to buffer for the socket, each way, bytes.
    pub socket_buffer_bytes: usize,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            udp_payload_bytes: None,
            idle_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            stream_window_bytes: 4 * 1_024 * 1_024,
            queue_bytes: 16 * 1_024 * 1_024,
            queue_messages: 4_096,
            inbox_bytes: 32 * 1_024 * 1_024,
            inbox_messages: 4_096,
            incoming_max: 256,
            socket_buffer_bytes: 4 * 1_024 * 1_024,
        }
    }
}

impl PeerOptions {
    fn check(&self) -> Result<(), TransportError> {
        let wrong = |detail: &str| Err(TransportError::Config { detail: detail.to_owned() });
        if self.keep_alive * 2 > self.idle_timeout {
            return wrong("keep_alive must be less than half of idle_timeout");
        }
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            return wrong("backoff_min must be more than zero and at most backoff_max");
        }
        let sizes = [self.stream_window_bytes, self.queue_bytes, self.inbox_bytes];
        if sizes.contains(&0) || self.queue_messages == 0 || self.inbox_messages == 0 {
            return wrong("windows, queues and inboxes need room for one byte and one message");
        }
        if self.incoming_max == 0 || self.handshake_timeout.is_zero() {
            return wrong("incoming_max and handshake_timeout must be more than zero");
        }
        Ok(())
    }

    fn link(&self) -> LinkSettings {
        LinkSettings {
            udp_payload_bytes: self.udp_payload_bytes,
            idle_timeout: self.idle_timeout,
            keep_alive: Some(self.keep_alive),
            stream_window_bytes: self.stream_window_bytes,
            bidirectional_streams: 1,
            unidirectional_streams: 3,
        }
    }
}

/// What a node needs to join the network of its cluster.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// The address to listen on; port 0 for any that is free.
    pub listen: SocketAddr,
    /// All nodes of the cluster. This one may be among them.
    pub peers: Vec<PeerAddress>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Who this node is.
    pub identity: Arc<NodeIdentity>,
    /// The nodes that run in this process, this one among them, if there are others.
    pub neighbours: Option<Neighbourhood>,
    /// Limits and times.
    pub options: PeerOptions,
}

/// Starts the network of a node. Must be called within a tokio runtime.
///
/// # Errors
/// [`TransportError::Bind`] if the address can't be listened on, and [`TransportError::Config`]
/// if the options or the addresses make no sense.
pub fn start_peers(config: PeerConfig) -> Result<(PeerNetwork, PeerInbox), TransportError> {
    let PeerConfig { listen, peers, cluster, identity, neighbours, options } = config;
    let listener = PeerListener::bind(listen, identity, options)?;
    PeerListener { neighbours, ..listener }.start(cluster, &peers)
}

/// An endpoint that listens, but does not take part yet: for clusters whose nodes learn their
/// addresses only when they are bound.
#[derive(Debug)]
pub struct PeerListener {
    endpoint: Endpoint,
    local_address: SocketAddr,
    identity: Arc<NodeIdentity>,
    neighbours: Option<Neighbourhood>,
    options: PeerOptions,
}

impl PeerListener {
    /// Listens on `address`; port 0 for any that is free. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`start_peers`].
    pub fn bind(
        address: SocketAddr,
        identity: Arc<NodeIdentity>,
        options: PeerOptions,
    ) -> Result<Self, TransportError> {
        options.check()?;
        let server = endpoint::server(identity.peer_server(), options.incoming_max);
        let reset_key = Some(identity.reset_key());
        let endpoint =
            endpoint::open(address, Some(server), reset_key, options.socket_buffer_bytes)?;
        let local_address =
            endpoint.local_addr().map_err(|source| TransportError::Bind { address, source })?;
        Ok(Self { endpoint, local_address, identity, neighbours: None, options })
    }

    /// Links the node by memory with the others of these, which run in this process.
    #[must_use]
    pub fn among(self, neighbours: Neighbourhood) -> Self {
        Self { neighbours: Some(neighbours), ..self }
    }

    /// The address, with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Joins the network of `cluster`, whose nodes are `peers`. This node may be among them.
    ///
    /// # Errors
    /// [`TransportError::Config`] if a node has two addresses, or those of this process have
    /// different clusters.
    pub fn start(
        self,
        cluster: ClusterId,
        peers: &[PeerAddress],
    ) -> Result<(PeerNetwork, PeerInbox), TransportError> {
        let node = self.identity.node();
        let mut table = BTreeMap::new();
        let mut accepted = Vec::new();
        for PeerAddress { node: peer, address } in peers.iter().copied() {
            if peer == node {
                continue;
            }
            let (links, established) = mpsc::channel(1);
            if table.insert(peer, Peer { address, links, current: RwLock::default() }).is_some() {
                let detail = format!("{peer} has two addresses");
                return Err(TransportError::Config { detail });
            }
            accepted.push((peer, established));
        }
        let (closing, _) = watch::channel(false);
        let (sinks, inbox) = inbox::channels(&self.options);
        let shared = Arc::new(Shared {
            node,
            cluster,
            identity: self.identity,
            neighbours: self.neighbours,
            options: self.options,
            endpoint: self.endpoint,
            local_address: self.local_address,
            peers: table,
            sinks,
            sessions: AtomicU64::new(1),
            closing,
        });
        if let Some(neighbours) = &shared.neighbours {
            neighbours.enter(&shared)?;
        }
        for (peer, established) in accepted {
            tokio::spawn(supervisor::run(shared.clone(), peer, established));
        }
        tokio::spawn(handshake::accept_all(shared.clone()));
        Ok((PeerNetwork { running: Arc::new(Running(shared)) }, inbox))
    }
}

/// What all tasks of one node's network have in common.
struct Shared {
    node: NodeId,
    cluster: ClusterId,
    identity: Arc<NodeIdentity>,
    neighbours: Option<Neighbourhood>,
    options: PeerOptions,
    endpoint: Endpoint,
    local_address: SocketAddr,
    peers: BTreeMap<NodeId, Peer>,
    sinks: Sinks,
    sessions: AtomicU64,
    closing: watch::Sender<bool>,
}

struct Peer {
    address: SocketAddr,
    /// To the task that keeps the link to this node, when the node has dialled.
    links: mpsc::Sender<Carrier>,
    /// The session that is up.
    current: RwLock<Option<Arc<Session>>>,
}

impl Peer {
    fn session(&self) -> Option<Arc<Session>> {
        self.current.read().expect("nobody panics while holding this lock").clone()
    }

    fn set_session(&self, session: Option<Arc<Session>>) {
        *self.current.write().expect("nobody panics while holding this lock") = session;
    }
}

impl Shared {
    fn hello(&self) -> PeerHello {
        PeerHello {
            version: crate::limits::PROTOCOL_VERSION,
            cluster: self.cluster,
            node: self.node,
        }
    }

    fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns when the network is to stop.
    async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as `self`, so that this ends only by the value.
        if closing.wait_for(|closing| *closing).await.is_err() {
            tracing::debug!("the network's owner is gone");
        }
    }

    fn stop(&self, reason: &str) {
        self.closing.send_replace(true);
        let reason = short(reason);
        self.endpoint.close(VarInt::from_u32(CloseCode::Shutdown.number()), reason.as_bytes());
    }
}

/// Stops the network when its last handle is dropped.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop("the node has left");
    }
}

/// A handle to send messages to other nodes. Cloning is cheap; the network stops when the last
/// clone is dropped.
#[derive(Clone)]
pub struct PeerNetwork {
    running: Arc<Running>,
}

impl std::fmt::Debug for PeerNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = self.shared();
        f.debug_struct("PeerNetwork")
            .field("node", &shared.node)
            .field("local_address", &shared.local_address)
            .finish_non_exhaustive()
    }
}

impl PeerNetwork {
    fn shared(&self) -> &Shared {
        &self.running.0
    }

    /// Queues a message for `to`, on whichever session is up; waits while the queue is full. On a
    /// link by memory the queue is the inbox of `to`, and waits until that knows of the link.
    ///
    /// `Ok` says that it is queued. It may still be lost with the link.
    ///
    /// # Errors
    /// [`SendError::UnknownNode`], [`SendError::Down`], also when the link goes down while this
    /// waits, and [`SendError::TooLong`], but for links by memory.
    pub async fn send(
        &self,
        to: NodeId,
        channel: Channel,
        message: &PeerMessage,
    ) -> Result<(), SendError> {
        self.current(to)?.send(channel, message).await
    }

    /// Like [`send`](Self::send), but only on that session: what was meant for the state of an
    /// earlier link must not get in between what a newer one begins with.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::Down`] also if another session is up.
    pub async fn send_on(
        &self,
        to: NodeId,
        session: u64,
        channel: Channel,
        message: &PeerMessage,
    ) -> Result<(), SendError> {
        let current = self.current(to)?;
        if current.number() != session {
            return Err(SendError::Down(to));
        }
        current.send(channel, message).await
    }

    fn current(&self, to: NodeId) -> Result<Arc<Session>, SendError> {
        let peer = self.shared().peers.get(&to).ok_or(SendError::UnknownNode(to))?;
        peer.session().ok_or(SendError::Down(to))
    }

    /// Whether the link to `node` is up.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.current(node).is_ok()
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared().node
    }

    /// All other nodes, in order, whether their links are up or not.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.shared().peers.keys().copied()
    }

    /// The address that this node listens on.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.shared().local_address
    }

    /// Closes all links, telling the others why, and waits (a second at most) until they know.
    /// What is queued is lost.
    pub async fn close(&self, reason: &str) {
        let shared = self.shared();
        shared.stop(reason);
        if tokio::time::timeout(LINGER, shared.endpoint.wait_idle()).await.is_err() {
            tracing::debug!(node = %shared.node, "not every peer has heard the farewell");
        }
    }
}

/// Why the network of this node ends its links.
fn shutdown() -> LinkError {
    LinkError::closed(CloseCode::Shutdown, "the network of this node stops")
}
