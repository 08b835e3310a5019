//! Links between nodes of one process.
//!
//! They are what other links are, sessions and all, but for the network: a message is handed over
//! as it is. Nothing of it is encoded, encrypted or checked, and what it shares stays shared, so
//! that the transactions of a slice are at both nodes the same pieces of memory.
//!
//! A session of such a link has two [`End`]s, one at each node. Either may be dropped at any time;
//! the other is then closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::super::error::{CloseCode, LinkError, TransportError};
use super::inbox::{Gate, Received, Sinks};
use super::session::Carrier;
use super::{Channel, Shared};
use crate::message::PeerMessage;
use crate::placement::NodeId;

/// The nodes of one process, which reach each other without a network.
///
/// Each of them is given a clone of this when it [starts](super::PeerListener::start). It listens
/// for other nodes all the same.
#[derive(Debug, Clone)]
pub struct Neighbourhood(Arc<Neighbours>);

struct Neighbours {
    nodes: BTreeSet<NodeId>,
    /// Those that have started. One that has stopped may be among them still.
    started: Mutex<BTreeMap<NodeId, Weak<Shared>>>,
    /// Changes when another has.
    arrivals: watch::Sender<u64>,
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Neighbours").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Neighbourhood {
    /// A neighbourhood of these nodes, none of which has started yet.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self(Arc::new(Neighbours {
            nodes: nodes.into_iter().collect(),
            started: Mutex::default(),
            arrivals: watch::Sender::new(0),
        }))
    }

    /// Whether a node is one of these.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.0.nodes.contains(&node)
    }

    /// Lets the others know that a node of them has started.
    ///
    /// # Errors
    /// [`TransportError::Config`] if it is none of them, runs already, or is of another cluster
    /// than those that run.
    pub(super) fn enter(&self, shared: &Arc<Shared>) -> Result<(), TransportError> {
        let wrong = |detail| Err(TransportError::Config { detail });
        let node = shared.node;
        if !self.has(node) {
            return wrong(format!("{node} is not one of the nodes of this process"));
        }
        let mut started = self.lock();
        for other in started.values().filter_map(running) {
            if other.node == node {
                return wrong(format!("{node} runs in this process already"));
            }
            if other.cluster != shared.cluster {
                return wrong(format!(
                    "{node} and {} have different genesis or partition maps; \
                     give all nodes the same",
                    other.node
                ));
            }
        }
        started.insert(node, Arc::downgrade(shared));
        drop(started);
        self.0.arrivals.send_modify(|arrivals| *arrivals += 1);
        Ok(())
    }

    /// Waits until `node` runs, and begins a session of `shared`'s node with it.
    pub(super) async fn dial(&self, shared: &Shared, node: NodeId) -> Result<End, LinkError> {
        let mut arrivals = self.0.arrivals.subscribe();
        loop {
            let found = self.lock().get(&node).and_then(running);
            if let Some(other) = found {
                let (here, there) = pair(shared, &other);
                let answering = other.peers.get(&shared.node).map(|peer| peer.links.clone());
                drop(other);
                let Some(answering) = answering else {
                    let detail = format!("{node} has no {} in its configuration", shared.node);
                    return Err(LinkError::closed(CloseCode::UnknownNode, detail));
                };
                if answering.send(Carrier::Memory(there)).await.is_ok() {
                    return Ok(here);
                }
            }
            // The sender lives as long as `self`, so that this ends only by another arrival.
            if arrivals.changed().await.is_err() {
                return Err(super::shutdown());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Weak<Shared>>> {
        // Nothing is left half done while it is locked.
        self.0.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running(shared: &Weak<Shared>) -> Option<Arc<Shared>> {
    shared.upgrade().filter(|shared| !*shared.closing.borrow())
}

/// Both ends of a new session.
fn pair(one: &Shared, other: &Shared) -> (End, End) {
    let closed = Arc::new(watch::Sender::new(None));
    let gates = [Gate::new(), Gate::new()];
    let numbers = [one.next_session(), other.next_session()];
    let end = |shared: &Shared, here: usize, peer: &Shared, there: usize| End {
        number: numbers[here],
        gate: gates[here].clone(),
        from: shared.node,
        to: peer.sinks.clone(),
        their_number: numbers[there],
        their_gate: gates[there].clone(),
        closed: closed.clone(),
    };
    (end(one, 0, other, 1), end(other, 1, one, 0))
}

/// One end of a session between two nodes of this process.
pub(super) struct End {
    /// What this node calls the session.
    number: u64,
    /// Whether this node knows of it.
    gate: Gate,
    from: NodeId,
    /// The inbox of the other node.
    to: Sinks,
    their_number: u64,
    their_gate: Gate,
    /// Why it has ended, if it has. Both ends share it.
    closed: Arc<watch::Sender<Option<LinkError>>>,
}

impl End {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Puts a message into the other node's inbox, as soon as that node knows of the session;
    /// waits while there is no room.
    pub(super) async fn send(
        &self,
        channel: Channel,
        message: &PeerMessage,
    ) -> Result<(), LinkError> {
        let put = async {
            self.their_gate.opened().await;
            let (from, session) = (self.from, self.their_number);
            let received = Received { from, session, message: message.clone() };
            self.to.of(channel).put(received, message.size(), &self.their_gate).await
        };
        tokio::select! {
            biased;
            reason = self.closed() => Err(reason),
            put = put => put,
        }
    }

    /// Returns when the session has ended, with the reason.
    pub(super) async fn closed(&self) -> LinkError {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(super::shutdown),
            Err(_) => super::shutdown(),
        }
    }

    /// Ends the session, if it has not ended.
    pub(super) fn close(&self, reason: LinkError) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close(LinkError::closed(CloseCode::Shutdown, "the node has left"));
    }
}
