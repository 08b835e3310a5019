//! What the nodes of a run share: time, chance, the network, and the record of what happens.

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::codec;
use parsec_protocol::message::{ClientMessage, ClusterId, PeerMessage, ServerMessage};
use parsec_protocol::transport::Channel;
use parsec_protocol::{NodeId, PartitionId, PartitionMap};
use parsec_runtimes::Runtimes;
use parsec_sequencer_core::{Layout, Tick};
use parsec_storage::StoreError;
use parsec_storage::log::LogError;

use crate::agenda::{Agenda, Micros};
use crate::client::ClientTimer;
use crate::executor::HostTimer;
use crate::faults::Fault;
use crate::history::History;
use crate::network::{Network, NetworkEvent};
use crate::options::Options;
use crate::random::Random;
use crate::sequencer::SequencerTimer;
use crate::trace::Trace;

/// The sequencer's node.
pub(crate) const SEQUENCER: NodeId = NodeId(0);
/// The first client's id in the network.
const CLIENT_FIRST: u16 = 1_000;

/// The id of a client in the network.
pub(crate) fn client_node(client: u16) -> NodeId {
    NodeId(CLIENT_FIRST + client)
}

/// The client that has an id in the network.
pub(crate) fn client_of(node: NodeId) -> Option<u16> {
    node.0.checked_sub(CLIENT_FIRST)
}

/// Something that is due.
#[derive(Debug)]
pub(crate) enum Event {
    Network(NetworkEvent),
    /// For the sequencer, unless it has restarted since.
    Sequencer(u64, SequencerTimer),
    /// For an executor, unless it has restarted since.
    Host(NodeId, u64, HostTimer),
    Client(u16, ClientTimer),
    Fault(Fault),
    /// A node that has ended starts again.
    Start(NodeId),
    /// Faults end.
    Heal,
    /// Is everything done?
    Inspect,
}

/// Why a node ends of itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Halt {
    #[error("its log: {0}")]
    Log(#[from] LogError),
    #[error("its store: {0}")]
    Store(#[from] StoreError),
    #[error("its index: {0}")]
    Index(std::io::Error),
    /// Nothing that a fault explains.
    #[error("{0}")]
    Defect(String),
}

/// What never changes about a cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) id: ClusterId,
    pub(crate) map: Arc<PartitionMap>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) runtimes: Runtimes,
}

impl Cluster {
    /// The partitions of a host.
    pub(crate) fn held(&self, host: NodeId) -> &[PartitionId] {
        let place = self.layout.place(host);
        place.map_or(&[], |place| &self.layout.hosts()[place].partitions)
    }
}

/// What the nodes of a run share.
pub(crate) struct Surroundings {
    pub(crate) now: Micros,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) history: History,
    pub(crate) trace: Trace,
    pub(crate) options: Options,
    pub(crate) cluster: Cluster,
    /// Faults have ended.
    pub(crate) healed: bool,
    /// How far the sequencer's clock is ahead of time.
    pub(crate) clock_ahead: Micros,
}

/// The time of day when a run begins, microseconds.
const MORNING: Micros = 1_790_000_000_000_000;

impl Surroundings {
    /// The time of day, as the sequencer's clock has it.
    pub(crate) fn clock(&self) -> Tick {
        Tick(MORNING + self.now + self.clock_ahead)
    }

    /// Plans an event.
    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.agenda.plan(self.now + delay, event);
    }

    /// A time of at most `most`.
    pub(crate) fn within(&mut self, most: Micros) -> Micros {
        self.random.between(1, most.max(1))
    }

    /// Notes what happens.
    pub(crate) fn note(&mut self, node: NodeId, what: impl FnOnce() -> String) {
        let Self { trace, now, .. } = self;
        let who = || match client_of(node) {
            Some(client) => format!("c{client}"),
            None => node.to_string(),
        };
        trace.note(*now, who, what);
    }

    /// Sends a message between nodes; whether the session is up as far as the sender knows.
    pub(crate) fn send(
        &mut self,
        from: NodeId,
        to: NodeId,
        session: u64,
        channel: Channel,
        message: &PeerMessage,
    ) -> bool {
        self.note(from, || format!("-> {to} {}", crate::wire::describe(message)));
        let may_repeat = matches!(message, PeerMessage::Pushes(_) | PeerMessage::Receipts { .. });
        let bytes = Bytes::from(codec::encode(message));
        self.carry((from, to), session, channel, bytes, may_repeat)
    }

    /// Sends a message to a client.
    pub(crate) fn answer(&mut self, client: NodeId, session: u64, message: &ServerMessage) -> bool {
        self.note(SEQUENCER, || {
            let to = client_of(client).unwrap_or_default();
            format!("-> c{to} {}", crate::wire::describe_answer(message))
        });
        let bytes = Bytes::from(codec::encode(message));
        self.carry((SEQUENCER, client), session, Channel::Order, bytes, false)
    }

    /// Sends a message from a client.
    pub(crate) fn ask(&mut self, client: NodeId, session: u64, message: &ClientMessage) -> bool {
        self.note(client, || format!("-> {}", crate::wire::describe_request(message)));
        let bytes = Bytes::from(codec::encode(message));
        self.carry((client, SEQUENCER), session, Channel::Order, bytes, false)
    }

    fn carry(
        &mut self,
        way: (NodeId, NodeId),
        session: u64,
        channel: Channel,
        bytes: Bytes,
        may_repeat: bool,
    ) -> bool {
        let Self { network, random, now, .. } = self;
        let sent = network.send(*now, way, session, channel, bytes, may_repeat, random);
        self.plan_network();
        sent
    }

    /// Plans what the network has decided.
    pub(crate) fn plan_network(&mut self) {
        for (delay, event) in self.network.take_planned() {
            self.after(delay, Event::Network(event));
        }
    }
}
