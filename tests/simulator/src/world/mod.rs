//! A cluster with its clients and its faults, in one thread and in virtual time.

mod end;
mod nodes;
mod strikes;

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_protocol::message::ClusterId;
use parsec_protocol::{NodeId, PartitionId, PartitionMap};
use parsec_runtimes::{Runtimes, native::NativeRuntime};
use parsec_sequencer_core::Layout;

use crate::agenda::{Agenda, MILLISECOND, Micros};
use crate::client::Client;
use crate::disk::SimDisk;
use crate::executor::Executor;
use crate::faults::{self, Fault};
use crate::history::History;
use crate::network::{Network, NetworkEvent, Seen};
use crate::options::Options;
use crate::random::Random;
use crate::sequencer::Sequencer;
use crate::surroundings::{Cluster, Event, SEQUENCER, Surroundings, client_node, client_of};
use crate::trace::{Trace, TraceLevel};

/// How often it is looked whether everything is done.
const INSPECTION: Micros = 50 * MILLISECOND;
/// Most events of a run: more of them means that something goes round in circles.
const EVENTS_MAX: u64 = 20_000_000;
/// Where stores are.
const STORES: &str = "/store";

/// A node of the cluster: what runs on it, and what outlives that.
struct Node<T> {
    disk: SimDisk,
    /// How often it has started.
    boot: u64,
    running: Option<T>,
}

impl<T> Node<T> {
    fn new(seed: u64, id: NodeId) -> Self {
        let random = Random::new(seed, 100 + u64::from(id.0));
        Self { disk: SimDisk::new(random), boot: 0, running: None }
    }
}

/// What has happened in a run, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were handled.
    pub events: u64,
    /// Virtual time, microseconds.
    pub micros: u64,
    /// Epochs that were ordered.
    pub epochs: u64,
    /// Transactions of clients.
    pub transactions: u64,
    /// Faults that struck.
    pub faults: u64,
    /// How often nodes have started.
    pub starts: u64,
    /// How often damage was found where it was done.
    pub damage_found: u64,
}

/// A cluster with its clients and its faults.
pub(crate) struct World {
    pub(crate) s: Surroundings,
    sequencer: Node<Sequencer>,
    hosts: BTreeMap<NodeId, Node<Executor>>,
    clients: Vec<Client>,
    heal_at: Micros,
    /// How long all clients have had nothing to do but to wait for the end of faults.
    waited: Micros,
    /// All nodes have lost their power once more after everything was done.
    restarted: bool,
    done: bool,
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(seed: u64, level: TraceLevel) -> Self {
        let options = Options::draw(seed);
        let cluster = cluster_of(&options);
        let mut network = Network::new(options.network.clone());
        let nodes: Vec<NodeId> = cluster.layout.hosts().iter().map(|held| held.host).collect();
        for (index, node) in nodes.iter().enumerate() {
            network.link(SEQUENCER, *node);
            nodes[..index].iter().for_each(|other| network.link(*other, *node));
        }
        for client in 0..options.clients {
            network.link(SEQUENCER, client_node(client));
            network.start(client_node(client));
        }
        let clients = options.clients;
        let heal_at = options.faults.until;
        let history = History::new(&cluster.runtimes, cluster.map.clone());
        let s = Surroundings {
            now: 0,
            agenda: Agenda::new(),
            network,
            random: Random::new(seed, 2),
            history,
            trace: Trace::new(level),
            options,
            cluster,
            healed: false,
            clock_ahead: 0,
        };
        let mut world = Self {
            s,
            sequencer: Node::new(seed, SEQUENCER),
            hosts: nodes.iter().map(|id| (*id, Node::new(seed, *id))).collect(),
            clients: Vec::new(),
            heal_at,
            waited: 0,
            restarted: false,
            done: false,
            tally: Tally::default(),
        };
        world.s.trace.note(0, || "run".into(), || format!("{:#?}", world.s.options));
        for node in [SEQUENCER].into_iter().chain(nodes) {
            world.s.after(0, Event::Start(node));
        }
        world.clients = (0..clients).map(|number| Client::new(&mut world.s, number)).collect();
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        let s = &mut self.s;
        s.after(self.heal_at, Event::Heal);
        s.after(INSPECTION, Event::Inspect);
        for (kind, mean) in faults::kinds(&s.options.faults) {
            let delay = faults::pause(&mut s.random, mean);
            s.after(delay, Event::Fault(Fault::Strike(kind)));
        }
        s.plan_network();
    }

    /// Runs until everything is done, or something is wrong.
    pub(crate) fn run(&mut self) {
        while !self.done && self.s.history.violation().is_none() {
            let Some((at, event)) = self.s.agenda.next() else {
                return self.s.history.violate("something always happens", "nothing is planned");
            };
            self.s.now = at;
            self.tally.events += 1;
            if self.tally.events > EVENTS_MAX {
                let detail = format!("after {EVENTS_MAX} events there is no end in sight");
                return self.s.history.violate("progress resumes once faults end", detail);
            }
            self.handle(event);
            self.s.plan_network();
        }
        self.tally.micros = self.s.now;
        self.tally.epochs = self.s.history.last().0;
        self.tally.transactions = self.s.history.operations().len() as u64;
        if self.s.history.violation().is_none() {
            self.check_end();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Network(event) => self.on_network(event),
            Event::Sequencer(boot, timer) => {
                if boot == self.sequencer.boot
                    && let Some(running) = &mut self.sequencer.running
                {
                    let result = running.on_timer(&mut self.s, timer);
                    self.after_step(SEQUENCER, result);
                }
            }
            Event::Host(node, boot, timer) => {
                if let Some(host) = self.hosts.get_mut(&node).filter(|host| host.boot == boot)
                    && let Some(running) = &mut host.running
                {
                    let result = running.on_timer(&mut self.s, timer);
                    self.after_step(node, result);
                }
            }
            Event::Client(number, timer) => {
                self.clients[usize::from(number)].on_timer(&mut self.s, timer);
            }
            Event::Fault(fault) => self.on_fault(fault),
            Event::Start(node) => self.start(node),
            Event::Heal => self.heal(),
            Event::Inspect => self.inspect(),
        }
    }

    fn on_network(&mut self, event: NetworkEvent) {
        let Surroundings { network, random, now, .. } = &mut self.s;
        for (node, seen) in network.take(*now, event, random) {
            self.show(node, seen);
        }
    }

    fn show(&mut self, node: NodeId, seen: Seen) {
        if let Some(client) = client_of(node) {
            self.clients[usize::from(client)].on_seen(&mut self.s, seen);
        } else if node == SEQUENCER {
            if let Some(running) = &mut self.sequencer.running {
                let result = running.on_seen(&mut self.s, seen);
                self.after_step(node, result);
            }
        } else if let Some(running) =
            self.hosts.get_mut(&node).and_then(|host| host.running.as_mut())
        {
            let result = running.on_seen(&mut self.s, seen);
            self.after_step(node, result);
        }
    }

    fn disk(&self, node: NodeId) -> &SimDisk {
        self.hosts.get(&node).map_or(&self.sequencer.disk, |host| &host.disk)
    }

    fn is_running(&self, node: NodeId) -> bool {
        match self.hosts.get(&node) {
            Some(host) => host.running.is_some(),
            None => self.sequencer.running.is_some(),
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        [SEQUENCER].into_iter().chain(self.hosts.keys().copied()).collect()
    }
}

/// A cluster of the shape that was drawn.
fn cluster_of(options: &Options) -> Cluster {
    let partitions = options.hosts.iter().sum();
    let map = Arc::new(PartitionMap::even(partitions).expect("a cluster has few partitions"));
    let mut next = map.partitions();
    let held: Vec<(NodeId, Vec<PartitionId>)> = (1..)
        .map(NodeId)
        .zip(&options.hosts)
        .map(|(node, count)| (node, next.by_ref().take(usize::from(*count)).collect()))
        .collect();
    let layout = Layout::new(&held, &map).expect("each partition was dealt out once");
    Cluster {
        id: ClusterId([7; 32]),
        map,
        layout: Arc::new(layout),
        runtimes: Runtimes::new(vec![Arc::new(NativeRuntime)]),
    }
}
