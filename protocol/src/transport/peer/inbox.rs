//! What arrives: events of links, and messages of each channel.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::super::error::LinkError;
use super::{Channel, PeerOptions};
use crate::message::PeerMessage;
use crate::placement::NodeId;

/// Events of links that may wait to be received. When there are more, links wait to come up.
const LINK_EVENTS_MAX: usize = 1_024;

/// Something that happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It came up.
    Up {
        /// With which node.
        node: NodeId,
        /// The number of the session, unique in this process.
        session: u64,
    },
    /// It went down. What was not received until now is lost.
    Down {
        /// With which node.
        node: NodeId,
        /// The session that ended.
        session: u64,
        /// Why.
        reason: LinkError,
    },
    /// It could not come up, for another reason than the last time. Dialling goes on. Left out
    /// when too many events wait.
    Failed {
        /// With which node, as far as known.
        node: Option<NodeId>,
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: LinkError,
    },
}

/// A message from another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The sender, authenticated.
    pub from: NodeId,
    /// The session that it came on.
    pub session: u64,
    /// What it says.
    pub message: PeerMessage,
}

/// Whether the receiver of events knows that a session is up, or that it is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unknown,
    Up,
    Down,
}

/// Keeps messages of a session between its two events, as the receiver sees them.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<watch::Sender<Phase>>);

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Unknown)))
    }

    /// Returns when the receiver knows that the session is up.
    pub(super) async fn opened(&self) {
        let mut phase = self.0.subscribe();
        if phase.wait_for(|phase| *phase != Phase::Unknown).await.is_err() {
            tracing::debug!("a session ended before it was announced");
        }
    }

    fn is_down(&self) -> bool {
        *self.0.borrow() == Phase::Down
    }
}

/// Everything that arrives at a node. The parts can be given to different tasks.
#[derive(Debug)]
pub struct PeerInbox {
    /// Events of links. They must be received for messages to flow.
    pub links: Links,
    /// Messages of [`Channel::Order`].
    pub order: Inbox,
    /// Messages of [`Channel::Exchange`].
    pub exchange: Inbox,
    /// Messages of [`Channel::Query`].
    pub query: Inbox,
}

/// Receives events of links.
#[derive(Debug)]
pub struct Links(mpsc::Receiver<(LinkEvent, Option<Gate>)>);

impl Links {
    /// The next event, or `None` when the network has stopped.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        let (event, gate) = self.0.recv().await?;
        if let Some(Gate(phase)) = gate {
            phase.send_replace(match event {
                LinkEvent::Down { .. } => Phase::Down,
                LinkEvent::Up { .. } | LinkEvent::Failed { .. } => Phase::Up,
            });
        }
        Some(event)
    }
}

/// Receives the messages of one channel, of all nodes.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Item>);

#[derive(Debug)]
pub(super) struct Item {
    received: Received,
    gate: Gate,
    /// Room in the inbox, given back when the item is received or thrown away.
    _room: OwnedSemaphorePermit,
}

impl Inbox {
    /// The next message, or `None` when the network has stopped.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Received> {
        loop {
            let item = self.0.recv().await?;
            if !item.gate.is_down() {
                return Some(item.received);
            }
        }
    }

    /// The next message, if one is there.
    pub fn try_recv(&mut self) -> Option<Received> {
        loop {
            let item = self.0.try_recv().ok()?;
            if !item.gate.is_down() {
                return Some(item.received);
            }
        }
    }
}

/// The other ends of a [`PeerInbox`].
#[derive(Debug, Clone)]
pub(super) struct Sinks {
    links: mpsc::Sender<(LinkEvent, Option<Gate>)>,
    channels: [Sink; 3],
}

/// Where the readers of one channel put what they read.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    bytes_max: u32,
}

impl Sinks {
    /// Announces what happened to a session. Fails when nobody receives any more.
    pub(super) async fn announce(&self, event: LinkEvent, gate: Gate) -> Result<(), LinkError> {
        self.links.send((event, Some(gate))).await.map_err(|_| inbox_dropped())
    }

    /// Announces a failure, if there is room for it.
    pub(super) fn announce_failure(&self, event: LinkEvent) {
        if self.links.try_send((event, None)).is_err() {
            tracing::debug!("a link's failure was not announced: too many events wait");
        }
    }

    pub(super) fn of(&self, channel: Channel) -> &Sink {
        &self.channels[channel.index()]
    }
}

impl Sink {
    /// Waits for room for `bytes`, then for one message, and puts it there.
    pub(super) async fn put(
        &self,
        received: Received,
        bytes: usize,
        gate: &Gate,
    ) -> Result<(), LinkError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        let room = self.room.clone().acquire_many_owned(bytes).await;
        let room = room.map_err(|_| inbox_dropped())?;
        let item = Item { received, gate: gate.clone(), _room: room };
        self.items.send(item).await.map_err(|_| inbox_dropped())
    }
}

fn inbox_dropped() -> LinkError {
    use super::super::error::CloseCode;
    LinkError::closed(CloseCode::Shutdown, "nobody receives at this node any more")
}

pub(super) fn channels(options: &PeerOptions) -> (Sinks, PeerInbox) {
    let (links_sender, links) = mpsc::channel(LINK_EVENTS_MAX);
    let channel = || {
        let (items, receiver) = mpsc::channel(options.inbox_messages);
        let bytes_max = options.inbox_bytes;
        let room = usize::try_from(bytes_max).unwrap_or(Semaphore::MAX_PERMITS);
        (Sink { items, room: Arc::new(Semaphore::new(room)), bytes_max }, Inbox(receiver))
    };
    let [(to_order, order), (to_exchange, exchange), (to_query, query)] =
        [channel(), channel(), channel()];
    let sinks = Sinks { links: links_sender, channels: [to_order, to_exchange, to_query] };
    (sinks, PeerInbox { links: Links(links), order, exchange, query })
}
