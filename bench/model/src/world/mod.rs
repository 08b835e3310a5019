//! The cluster, its clients, its processors and its network.

mod client;
mod host;
mod network;
mod options;
mod sequencer;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use parsec_executor_core::{FinishedEpoch, Routes};
use parsec_protocol::message::{ClientReceipt, PeerMessage};
use parsec_protocol::{
    Batch, EpochRecord, Key, NodeId, PartitionId, PartitionMap, Push, Receipt, Value,
};
use parsec_runtimes::Sessions;
use parsec_sequencer_core::{CutEpoch, Layout};

use self::client::Client;
use self::host::HostNode;
use self::sequencer::SequencerNode;
use self::window::Window;
use crate::agenda::{Agenda, Nanos, SECOND};
use crate::costs::{Costs, Stage, Work};
use crate::link::Port;
use crate::load::Load;
use crate::outcome::Outcome;
use crate::processor::{Job, LaneId, Processor};

pub use self::options::{Admission, Capacity, Machine, Options};

/// The node that orders.
const SEQUENCER: NodeId = NodeId(0);
/// Its place among the nodes; hosts come after it, by their ids.
const SEQUENCER_NODE: usize = 0;
/// A cluster that answers nothing for so long never will.
const STALLED_AFTER: Nanos = 600 * SECOND;
/// The number of every session: links do not go down here.
const SESSION: u64 = 1;

/// Why there is no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum Broken {
    #[error("these settings make no cluster: {0}")]
    Settings(String),
    #[error("the cluster stopped: {0}")]
    Stopped(String),
    #[error("{done} of {total} transactions are done, and nothing happens any more")]
    Stalled { done: usize, total: usize },
}

/// What was ordered, and what came of it.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Epochs in their order, each with its batches.
    pub epochs: Vec<(EpochRecord, Vec<Batch>)>,
    /// All receipts, by position.
    pub receipts: Vec<Arc<Receipt>>,
    /// What executions changed of the state: keys that stand on one partition each.
    pub changed: BTreeMap<Key, Option<Value>>,
}

/// A submission under way.
#[derive(Debug)]
pub(super) struct Submission {
    connection: usize,
    request: u64,
    /// Places in the load.
    items: Vec<usize>,
    bytes: usize,
}

/// What is in a frame.
#[derive(Debug)]
pub(super) enum Parcel {
    Peer(PeerMessage),
    /// From a client.
    Submission(Submission),
    /// From a gateway, which has admitted it.
    Admitted(Submission),
    /// To a client.
    Verdicts,
    /// To a client, on one of its connections.
    Receipts(usize, Vec<ClientReceipt>),
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Frame {
    from: usize,
    to: usize,
    parcel: Parcel,
    wire_bytes: u64,
}

/// A job that has not begun.
#[derive(Debug)]
pub(super) enum Task {
    /// A node takes what has arrived.
    Receive(usize),
    /// A sequencer or a gateway admits.
    Admit(usize, Box<Submission>),
    /// The log is written up to the next sync.
    Log,
    /// So many ordered transactions are written to the index.
    Index(u64),
    /// An epoch is cut.
    Cut(Box<(EpochRecord, Vec<Arc<Batch>>)>),
    /// A host is sent what it does not have of the order.
    Serve(usize),
    /// The driver of the order takes a turn.
    Turn,
    /// A connection is sent its answers.
    Answer(usize),
    /// A partition takes in what has happened, and executes.
    Work(PartitionId),
    /// A finished epoch is stored.
    Store(PartitionId),
    /// A host sends what waits for another node.
    Send { from: usize, to: usize },
}

/// What a job brings about at its end.
#[derive(Debug)]
pub(super) enum Effect {
    /// The frames of a node's receipt of that number.
    Received(usize, u64, Vec<Frame>),
    Admitted(usize, Box<Submission>),
    Logged,
    Turned,
    Cut(Box<CutEpoch>),
    /// A connection was written to.
    Answered(Vec<Frame>),
    /// A host was sent what it had not of the order.
    Served(usize, Vec<Frame>),
    /// A host sent what waited for a node.
    Sent {
        from: usize,
        to: usize,
        frames: Vec<Frame>,
    },
    Worked {
        partition: PartitionId,
        pushes: Vec<Push>,
        receipts: Vec<Arc<Receipt>>,
    },
    Stored(PartitionId, Box<FinishedEpoch>),
    Nothing,
}

/// What is to happen.
#[derive(Debug)]
enum Event {
    /// The last bit of a frame is at its receiver's port.
    Arrival(Box<Frame>),
    /// A frame is received.
    Delivery(Box<Frame>),
    /// A job has used its slice of a processor.
    Slice { place: Place, effect: Box<Effect>, left: Nanos },
    /// The log is synced.
    Synced,
    /// The lane may close another batch.
    Turn,
    /// A host tells how far it is.
    Progress(usize),
    /// A host syncs its stores.
    Sync(usize),
}

/// A lane of one of the processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    processor: usize,
    lane: LaneId,
}

/// What a node has to do with processors and the network.
#[derive(Debug, Default)]
struct Node {
    places: BTreeMap<Stage, Place>,
    port: Port,
    arrived: VecDeque<Frame>,
    /// Whether what has arrived is about to be taken.
    receives: bool,
    /// How often something was taken, and how often that is done; several at a time.
    taken: u64,
    received: u64,
    /// What was taken later and is done earlier: frames count in the order of their arrival.
    early: BTreeMap<u64, Vec<Frame>>,
}

/// A cluster with its clients, in virtual time.
pub struct Simulation<'a> {
    load: &'a Load,
    costs: &'a Costs,
    options: Options,
    now: Nanos,
    agenda: Agenda<Event>,
    processors: Vec<Processor<Task, Effect>>,
    /// The sequencer, the hosts, the client, the gateways.
    nodes: Vec<Node>,
    sequencer: SequencerNode,
    hosts: Vec<HostNode>,
    /// Which node holds which partition.
    holders: Vec<usize>,
    client: Client,
    sessions: Sessions,
    /// What was stored, by partition where a key stands on all.
    stored: AHashMap<Key, Option<Value>>,
    stored_everywhere: AHashMap<(PartitionId, Key), Option<Value>>,
    work: BTreeMap<Stage, Work>,
    executed: u64,
    multi_partition: u64,
    window: Window,
    /// What is kept to be compared with the serial order, if anything is.
    ordered: Option<Ordered>,
    broken: Option<Broken>,
}

impl<'a> Simulation<'a> {
    /// A cluster that is to be sent a load.
    ///
    /// # Errors
    /// [`Broken::Settings`].
    pub fn new(load: &'a Load, costs: &'a Costs, options: Options) -> Result<Self, Broken> {
        let options = options.checked(load.len())?;
        let bad = |error: &dyn std::fmt::Display| Broken::Settings(error.to_string());
        let map = PartitionMap::even(options.partitions()).map_err(|error| bad(&error))?;
        let map = Arc::new(map);
        let hosts = usize::from(options.hosts);
        let mut next = map.partitions();
        let held: Vec<(NodeId, Vec<PartitionId>)> = (1..=options.hosts)
            .map(|host| {
                let partitions = next.by_ref().take(usize::from(options.partitions_per_host));
                (NodeId(host), partitions.collect())
            })
            .collect();
        let layout = Arc::new(Layout::new(&held, &map).map_err(|error| bad(&error))?);
        let by_partition: BTreeMap<PartitionId, NodeId> = held
            .iter()
            .flat_map(|(node, held)| held.iter().map(move |partition| (*partition, *node)))
            .collect();
        let holders = by_partition.values().map(|node| usize::from(node.0)).collect();
        let host_nodes = held.iter().map(|(node, partitions)| {
            let routes = Arc::new(Routes::new(*node, &by_partition));
            HostNode::new(routes, partitions, &map)
        });
        let host_nodes: Vec<_> = host_nodes.collect();
        let sequencer = SequencerNode::new(&map, layout, options.connections);
        let client = Client::new(load, &options);
        let gateways = match options.admission {
            Admission::Sequencer => 0,
            Admission::Gateways(count) => usize::from(count),
        };
        let mut nodes = Vec::new();
        nodes.resize_with(hosts + 2 + gateways, Node::default);
        let mut simulation = Self {
            load,
            costs,
            options,
            now: 0,
            agenda: Agenda::new(),
            processors: Vec::new(),
            nodes,
            sequencer,
            hosts: host_nodes,
            holders,
            client,
            sessions: load.runtimes.sessions(),
            stored: AHashMap::new(),
            stored_everywhere: AHashMap::new(),
            work: BTreeMap::new(),
            executed: 0,
            multi_partition: 0,
            window: Window::default(),
            ordered: None,
            broken: None,
        };
        simulation.place_all();
        simulation.link_all();
        Ok(simulation)
    }

    /// Runs until the steady part of the load is through.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn run(mut self) -> Result<Outcome, Broken> {
        self.begin();
        while self.window.end.is_none() {
            self.step()?;
        }
        Ok(self.outcome())
    }

    /// Runs until everything is done, and keeps what was ordered and what came of it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn run_through(mut self) -> Result<(Outcome, Ordered), Broken> {
        self.ordered = Some(Ordered::default());
        self.begin();
        while !self.is_stored() {
            self.step()?;
        }
        let outcome = self.outcome();
        let mut ordered = self.ordered.take().unwrap_or_default();
        ordered.receipts.sort_by_key(|receipt| receipt.position);
        let mut changed: Vec<_> = self.stored.into_iter().collect();
        changed.sort_by(|one, other| one.0.cmp(&other.0));
        ordered.changed = changed.into_iter().collect();
        Ok((outcome, ordered))
    }

    fn begin(&mut self) {
        for host in 1..=self.hosts.len() {
            self.plan_first_sync(host);
        }
        for connection in 0..self.options.connections {
            self.submit(connection);
        }
    }

    fn step(&mut self) -> Result<(), Broken> {
        let stalled = Broken::Stalled { done: self.client.done, total: self.load.len() };
        let Some((at, event)) = self.agenda.next() else { return Err(stalled) };
        self.now = at;
        self.handle(event);
        // Hosts sync as long as there is something to wait for, so that the agenda is never empty.
        if self.now > self.client.answered + STALLED_AFTER {
            return Err(stalled);
        }
        self.broken.take().map_or(Ok(()), Err)
    }

    /// Whether everything is answered, and stored by all partitions.
    fn is_stored(&self) -> bool {
        let last = self.sequencer.ordered();
        self.client.done == self.load.len()
            && self.hosts.iter().all(|host| host.shards().all(|shard| shard.applied == last))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival(frame) => self.arrive(frame),
            Event::Delivery(frame) => self.deliver(*frame),
            Event::Slice { place, effect, left } => {
                let processor = &mut self.processors[place.processor];
                if left > 0 {
                    processor.give_back(place.lane, Some((*effect, left)));
                } else {
                    processor.give_back(place.lane, None);
                    self.finish(*effect);
                }
                self.pump(place.processor);
            }
            Event::Synced => self.on_synced(),
            Event::Turn => {
                self.sequencer.turn_planned = None;
                self.turn_soon();
            }
            Event::Progress(host) => self.report_progress(host),
            Event::Sync(host) => self.sync_stores(host),
        }
    }

    /// Lets a processor go on with what waits for it.
    fn pump(&mut self, processor: usize) {
        while let Some((lane, job)) = self.processors[processor].take() {
            let place = Place { processor, lane };
            let (effect, left) = match job {
                Job::Begun(effect, left) => (effect, left),
                Job::Fresh(task) => {
                    let stage = self.processors[processor].stage(lane);
                    let (work, effect) = self.begin_job(task);
                    self.work.entry(stage).or_default().add(work);
                    (effect, nanos(self.costs.of(stage).micros(work)))
                }
            };
            let (time, left) = self.processors[processor].run(lane, left);
            let effect = Box::new(effect);
            self.agenda.plan(self.now + time, Event::Slice { place, effect, left });
        }
    }

    /// Begins a job: what it does, and what that brings about when it is done.
    fn begin_job(&mut self, task: Task) -> (Work, Effect) {
        match task {
            Task::Receive(node) => self.begin_receive(node),
            Task::Admit(node, submission) => {
                let transactions = submission.items.len() as u64;
                let work = Work { transactions, parts: 0, events: 1 };
                (work, Effect::Admitted(node, submission))
            }
            Task::Log => self.begin_log(),
            Task::Index(transactions) => {
                (Work { transactions, ..Work::default() }, Effect::Nothing)
            }
            Task::Cut(epoch) => self.begin_cut(&epoch.0, &epoch.1),
            Task::Serve(host) => self.begin_serve(host),
            Task::Turn => (Work::default(), Effect::Turned),
            Task::Answer(connection) => self.begin_answer(connection),
            Task::Work(partition) => self.begin_work(partition),
            Task::Store(partition) => self.begin_store(partition),
            Task::Send { from, to } => self.begin_send(from, to),
        }
    }

    fn finish(&mut self, effect: Effect) {
        match effect {
            Effect::Received(node, number, frames) => {
                self.nodes[node].early.insert(number, frames);
                self.finish_receive(node);
            }
            Effect::Admitted(SEQUENCER_NODE, submission) => self.admitted(*submission),
            Effect::Admitted(gateway, submission) => {
                let bytes = submission.bytes;
                self.send(gateway, SEQUENCER_NODE, Parcel::Admitted(*submission), bytes);
            }
            Effect::Logged => {
                let wait = nanos(self.options.sync_us);
                let place = self.place(SEQUENCER_NODE, Stage::Log);
                self.processors[place.processor].hold(place.lane);
                self.agenda.plan(self.now + wait, Event::Synced);
            }
            Effect::Turned => {
                self.sequencer.turns = false;
                self.turn();
            }
            Effect::Cut(epoch) => self.finish_cut(*epoch),
            Effect::Answered(frames) => self.depart_all(frames),
            Effect::Served(host, frames) => {
                self.depart_all(frames);
                self.finish_serve(host);
            }
            Effect::Sent { from, to, frames } => {
                self.depart_all(frames);
                self.finish_send(from, to);
            }
            Effect::Worked { partition, pushes, receipts } => {
                self.finish_work(partition, pushes, receipts);
            }
            Effect::Stored(partition, epoch) => self.finish_store(partition, *epoch),
            Effect::Nothing => {}
        }
    }

    fn stop(&mut self, reason: impl Into<String>) {
        self.broken.get_or_insert_with(|| Broken::Stopped(reason.into()));
    }

    fn client_node(&self) -> usize {
        self.hosts.len() + 1
    }

    fn place(&self, node: usize, stage: Stage) -> Place {
        let place = self.nodes[node].places.get(&stage);
        *place.expect("each node has a place for each of its stages")
    }

    /// Gives a stage of a node something to do.
    fn start(&mut self, node: usize, stage: Stage, task: Task) {
        let place = self.place(node, stage);
        self.start_at(place, task);
    }

    fn start_at(&mut self, place: Place, task: Task) {
        self.processors[place.processor].push(place.lane, task);
        self.pump(place.processor);
    }
}

/// Microseconds as time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cost or a wait")]
fn nanos(micros: f64) -> Nanos {
    (micros * 1e3).round().max(0.0) as Nanos
}
