//! The cluster and its random schedule.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_executor_core::{EpochContext, Routes};
use parsec_protocol::transaction::Batch;
use parsec_protocol::transport::Channel;
use parsec_protocol::{NodeId, PartitionId, PartitionMap};

use crate::network::{LinkNews, Network};
use crate::node::{Dice, Node};
use crate::sequencer::Sequencer;
use crate::store::Store;

const SEQUENCER: NodeId = NodeId(0);
/// Steps with faults, and steps in which all must be done after them.
const FAULTY_STEPS: u64 = 4_000;
const STEPS_MAX: u64 = 1_000_000;

/// How often what fails, out of 10,000 steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) links: u32,
    pub(crate) hosts: u32,
    pub(crate) sequencer: u32,
}

/// How many hosts, and partitions on each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) hosts: u16,
    pub(crate) partitions_per_host: u16,
}

pub(crate) struct Cluster {
    pub(crate) map: Arc<PartitionMap>,
    pub(crate) sequencer: Sequencer,
    routes: BTreeMap<NodeId, Arc<Routes>>,
    nodes: BTreeMap<NodeId, Node>,
    network: Network,
    faults: Faults,
    seed: u64,
}

impl Cluster {
    pub(crate) fn new(
        epochs: Vec<(Arc<EpochContext>, Batch)>,
        layout: Layout,
        faults: Faults,
        seed: u64,
    ) -> Self {
        let map = Arc::new(PartitionMap::even(layout.hosts * layout.partitions_per_host).unwrap());
        let holder = |id: PartitionId| (id, NodeId(1 + id.0 % layout.hosts));
        let hosts: BTreeMap<_, _> = map.partitions().map(holder).collect();
        let node_ids: Vec<_> = (1..=layout.hosts).map(NodeId).collect();
        let routes: BTreeMap<_, _> =
            node_ids.iter().map(|node| (*node, Arc::new(Routes::new(*node, &hosts)))).collect();
        let node = |node: &NodeId| {
            let own = hosts.iter().filter(|(_, holder)| *holder == node);
            let stores = own.map(|(id, _)| (*id, Store::default())).collect();
            (*node, Node::start(routes[node].clone(), SEQUENCER, &map, stores))
        };
        Self {
            nodes: node_ids.iter().map(node).collect(),
            network: Network::new([SEQUENCER].into_iter().chain(node_ids).collect()),
            sequencer: Sequencer::new(epochs, map.clone(), hosts),
            map,
            routes,
            faults,
            seed,
        }
    }

    pub(crate) fn stores(&self) -> impl Iterator<Item = (PartitionId, &Store)> {
        self.nodes.values().flat_map(|node| node.stores.iter().map(|(id, store)| (*id, store)))
    }

    /// Runs until everything is done.
    pub(crate) fn run(&mut self) {
        for step in 0.. {
            assert!(step < STEPS_MAX, "no progress: something is lost or deadlocked");
            if step < FAULTY_STEPS {
                self.fail();
            } else if self.is_done() {
                return;
            }
            self.step();
        }
    }

    fn is_done(&self) -> bool {
        let last = self.sequencer.last();
        self.sequencer.has_all_receipts() && self.nodes.values().all(|node| node.is_done(last))
    }

    fn roll(&mut self) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 20) as usize
    }

    fn happens(&mut self, odds: u32) -> bool {
        self.roll() % 10_000 < odds as usize
    }

    fn fail(&mut self) {
        if self.happens(self.faults.links) {
            let pick = self.roll();
            self.network.disconnect(pick);
        }
        if self.happens(self.faults.hosts) {
            let at = self.roll() % self.nodes.len();
            let id = *self.nodes.keys().nth(at).unwrap();
            let pick = self.roll();
            let stores = self.nodes.get_mut(&id).unwrap().lose_power(pick);
            self.network.restart(id);
            let node = Node::start(self.routes[&id].clone(), SEQUENCER, &self.map, stores);
            self.nodes.insert(id, node);
            self.send(id);
        }
        if self.happens(self.faults.sequencer) {
            self.network.restart(SEQUENCER);
            self.sequencer.restart();
        }
    }

    fn step(&mut self) {
        let (what, pick) = (self.roll(), self.roll());
        match what % 16 {
            0 => drop(self.network.connect(pick)),
            1 => self.tell_of_link(pick),
            2..=5 => self.arrive(pick),
            6 => self.dispatch(pick),
            _ => {
                let count = self.nodes.len();
                let (id, node) = self.nodes.iter_mut().nth(pick % count).unwrap();
                let id = *id;
                node.step(Dice { what: what >> 8, pick: pick >> 8 });
                self.send(id);
            }
        }
    }

    fn tell_of_link(&mut self, pick: usize) {
        let Some((node, peer, news)) = self.network.next_news(pick) else { return };
        if let Some(host) = self.nodes.get_mut(&node) {
            host.on_link(peer, news);
            return self.send(node);
        }
        match news {
            LinkNews::Up { session } => {
                let message = self.sequencer.on_link_up(peer, session);
                self.network.send(SEQUENCER, peer, session, Channel::Order, message);
            }
            LinkNews::Down { .. } => self.sequencer.on_link_down(peer),
        }
    }

    fn arrive(&mut self, pick: usize) {
        let nodes = &self.nodes;
        let accepts = |to: NodeId, channel: Channel| {
            channel != Channel::Order || nodes.get(&to).is_none_or(Node::accepts_orders)
        };
        let Some(arrival) = self.network.next_arrival(pick, accepts) else { return };
        match self.nodes.get_mut(&arrival.to) {
            Some(node) => node.on_message(arrival.from, arrival.session, arrival.message),
            None => self.sequencer.on_message(arrival.from, arrival.message),
        }
        self.send(arrival.to);
    }

    fn dispatch(&mut self, pick: usize) {
        if pick.is_multiple_of(8) {
            self.sequencer.order();
        }
        let host = NodeId(1 + ((pick >> 8) % self.nodes.len()) as u16);
        if let Some((session, messages)) = self.sequencer.dispatch(host) {
            for message in messages {
                self.network.send(SEQUENCER, host, session, Channel::Order, message);
            }
        }
    }

    fn send(&mut self, from: NodeId) {
        let Some(node) = self.nodes.get_mut(&from) else { return };
        for sending in std::mem::take(&mut node.sendings) {
            let (to, session) = (sending.to, sending.session);
            self.network.send(node.id, to, session, sending.channel, sending.message);
        }
    }
}
