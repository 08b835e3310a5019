//! A cluster with its clients and its faults, in one thread and in virtual time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parsec_protocol::message::ClusterId;
use parsec_protocol::{NodeId, PartitionId, PartitionMap};
use parsec_runtimes::{Runtimes, native::NativeRuntime};
use parsec_sequencer_core::Layout;
use parsec_storage::StoreError;
use parsec_storage::log::{LogError, verify_on};

use crate::agenda::{Agenda, MILLISECOND, Micros, SECOND};
use crate::client::Client;
use crate::disk::{DiskFault, SimDisk};
use crate::executor::Executor;
use crate::faults::{self, Fault, Kind};
use crate::history::History;
use crate::network::{Network, NetworkEvent, Pair, Seen};
use crate::options::Options;
use crate::random::Random;
use crate::sequencer::{LOG, Sequencer};
use crate::surroundings::{Cluster, Event, Halt, SEQUENCER, Surroundings, client_node, client_of};
use crate::trace::{Trace, TraceLevel};

/// How long everything may take once faults have ended.
const RECOVERY_MAX: Micros = 120 * SECOND;
/// How long faults go on when nobody does anything more.
const WAIT_MAX: Micros = SECOND;
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

/// Starts and ends.
impl World {
    fn start(&mut self, node: NodeId) {
        if self.is_running(node) {
            return;
        }
        self.tally.starts += 1;
        self.s.network.start(node);
        if self.s.healed || self.s.random.chance(500) {
            // The operator has made room.
            self.disk(node).heal();
        }
        let result = if let Some(host) = self.hosts.get_mut(&node) {
            host.boot += 1;
            let started = Executor::start(&mut self.s, node, &host.disk, host.boot);
            started.map(|running| host.running = Some(running))
        } else {
            let sequencer = &mut self.sequencer;
            sequencer.boot += 1;
            let started = Sequencer::start(&mut self.s, &sequencer.disk, sequencer.boot);
            started.map(|running| sequencer.running = Some(running))
        };
        if result.is_ok() && node != SEQUENCER {
            self.check_unnoticed(node);
        }
        self.after_step(node, result);
    }

    /// A store that was opened must have no damage in it.
    fn check_unnoticed(&mut self, node: NodeId) {
        let left = self.disk(node).damaged(Path::new(STORES));
        if let Some(damage) = left.first() {
            let (path, at) = (damage.path.display(), damage.at);
            let detail = format!("{node} opened {path}, which is damaged at byte {at}");
            self.s.history.violate("damage is noticed", detail);
        }
    }

    /// Ends a node; what was not synced is lost if its power was cut. It starts again later.
    fn end(&mut self, node: NodeId, power_cut: bool) {
        self.restarted = false;
        self.s.note(node, || match power_cut {
            true => "loses its power".into(),
            false => "ends".into(),
        });
        let Self { s, hosts, sequencer, .. } = self;
        match hosts.get_mut(&node) {
            Some(host) => host.running = None,
            None => sequencer.running = None,
        }
        s.network.end(node, &mut s.random);
        self.disk(node).restart(power_cut);
        let down = match self.s.healed {
            true => MILLISECOND,
            false => faults::down_time(&mut self.s.random),
        };
        self.s.after(down, Event::Start(node));
    }

    /// A node has done something; ends it if it could not.
    fn after_step(&mut self, node: NodeId, result: Result<(), Halt>) {
        if self.disk(node).is_dead() {
            return self.end(node, true);
        }
        let Err(halt) = result else { return };
        self.s.note(node, || format!("stops: {halt}"));
        match self.explain(node, &halt) {
            Some(Remedy::Restart) => self.end(node, false),
            Some(Remedy::RepairLog) => {
                self.tally.damage_found += 1;
                self.disk(node).repair(Path::new(LOG));
                self.end(node, false);
            }
            Some(Remedy::RebuildStores) => {
                self.tally.damage_found += 1;
                self.rebuild();
            }
            None => {
                let detail = format!("{node} stops: {halt}");
                self.s.history.violate("nodes stop for a reason", detail);
            }
        }
    }

    /// What an operator does about a node that stopped, if a fault explains why.
    fn explain(&self, node: NodeId, halt: &Halt) -> Option<Remedy> {
        let disk = self.disk(node);
        let failed = disk.has_failed().then_some(Remedy::Restart);
        match halt {
            Halt::Index(_) => failed,
            Halt::Log(LogError::Io { .. } | LogError::Poisoned) => failed,
            Halt::Store(StoreError::File { .. } | StoreError::Poisoned) => failed,
            Halt::Log(_) => {
                let is_damaged = !disk.damaged(Path::new(LOG)).is_empty();
                is_damaged.then_some(Remedy::RepairLog)
            }
            Halt::Store(StoreError::BelowFloor { .. } | StoreError::Damaged { .. }) => {
                let is_damaged = !disk.damaged(Path::new(STORES)).is_empty();
                (is_damaged || disk.has_dropped()).then_some(Remedy::RebuildStores)
            }
            Halt::Store(_) | Halt::Defect(_) => None,
        }
    }

    /// Removes the stores of all hosts: they are rebuilt from the log.
    fn rebuild(&mut self) {
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.s.note(node, || "its stores are removed, to be rebuilt".into());
            self.end(node, false);
            self.disk(node).wipe(Path::new(STORES));
        }
    }
}

/// What an operator does about a node that stopped.
enum Remedy {
    Restart,
    RepairLog,
    RebuildStores,
}

/// Faults.
impl World {
    fn on_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Mend(pairs) => {
                for pair in pairs {
                    self.s.network.cut(pair, false, &mut self.s.random);
                }
            }
            Fault::Strike(kind) if self.s.now < self.heal_at => {
                self.tally.faults += 1;
                self.strike(kind);
                let kinds = faults::kinds(&self.s.options.faults);
                if let Some((_, mean)) = kinds.into_iter().find(|(other, _)| *other == kind) {
                    let delay = faults::pause(&mut self.s.random, mean);
                    self.s.after(delay, Event::Fault(Fault::Strike(kind)));
                }
            }
            Fault::Strike(_) => {}
        }
    }

    fn strike(&mut self, kind: Kind) {
        let nodes = self.nodes();
        let host = nodes[1 + self.s.random.index(nodes.len() - 1)];
        let node = *self.s.random.pick(&nodes);
        match kind {
            Kind::HostCrash => self.crash(host),
            Kind::SequencerCrash => self.crash(SEQUENCER),
            Kind::PowerCut => nodes.into_iter().for_each(|node| self.end(node, true)),
            Kind::LinkBreak => self.break_links(|(_, b)| client_of(b).is_none()),
            Kind::ClientBreak => self.break_links(|(_, b)| client_of(b).is_some()),
            Kind::Partition => self.part(),
            Kind::DiskError => {
                let fault = *self.s.random.pick(&[DiskFault::WriteError, DiskFault::SyncError]);
                self.arm(node, fault, 64);
            }
            Kind::FullDisk => self.arm(node, DiskFault::Full, 64),
            Kind::Damage if node == SEQUENCER => self.damage_log(),
            Kind::Damage => self.damage_store(node),
            Kind::ClockJump => {
                self.s.clock_ahead = match self.s.random.below(3) {
                    0 => 0,
                    _ => self.s.random.magnitude(MILLISECOND, 3_600 * SECOND),
                };
            }
        }
    }

    fn arm(&mut self, node: NodeId, fault: DiskFault, most: u64) {
        let later = self.s.random.magnitude(1, most) - 1;
        self.s.note(node, || format!("{fault:?} at its disk after {later} operations"));
        self.disk(node).arm(fault, later);
    }

    /// Now, or between two operations of its disk.
    fn crash(&mut self, node: NodeId) {
        match self.s.random.below(4) {
            0 => self.end(node, false),
            1 => self.end(node, true),
            2 => self.arm(node, DiskFault::Crash, 64),
            _ => self.arm(node, DiskFault::CrashBeforeSync, 8),
        }
    }

    fn break_links(&mut self, which: impl Fn(Pair) -> bool) {
        let pairs: Vec<Pair> = self.s.network.pairs().filter(|pair| which(*pair)).collect();
        if !pairs.is_empty() {
            let pair = *self.s.random.pick(&pairs);
            self.s.note(pair.0, || format!("the session with {} breaks", pair.1));
            self.s.network.break_off(pair, &mut self.s.random);
        }
    }

    /// Some nodes can't reach others for a while.
    fn part(&mut self) {
        let nodes = self.nodes();
        let side: BTreeMap<NodeId, bool> =
            nodes.iter().map(|node| (*node, self.s.random.chance(500))).collect();
        let is_cut = |(a, b): &Pair| side.get(a).zip(side.get(b)).is_some_and(|(a, b)| a != b);
        let pairs: Vec<Pair> = self.s.network.pairs().filter(is_cut).collect();
        for pair in &pairs {
            self.s.note(pair.0, || format!("is cut off from {}", pair.1));
            self.s.network.cut(*pair, true, &mut self.s.random);
        }
        let delay = faults::cut_time(&mut self.s.random);
        self.s.after(delay, Event::Fault(Fault::Mend(pairs)));
    }

    /// An executor is down, and bits of a store or of a floor flip.
    fn damage_store(&mut self, node: NodeId) {
        self.end(node, true);
        let mut files = self.disk(node).files(Path::new(STORES));
        files.retain(|file| file.extension().is_none_or(|end| end != "tmp"));
        if files.is_empty() {
            return;
        }
        let file = self.s.random.pick(&files).clone();
        if let Some(damage) = self.disk(node).damage(&file, 0..usize::MAX) {
            let (path, at) = (damage.path.display(), damage.at);
            self.s.note(node, || format!("{path} is damaged at byte {at}"));
        }
    }

    /// The sequencer is down, and bits of its log flip.
    ///
    /// Not where nobody could tell: damage to what was written last, with nothing behind it that
    /// proves it was synced, looks like a torn write (see `parsec_storage::log`).
    fn damage_log(&mut self) {
        self.end(SEQUENCER, true);
        let disk = self.sequencer.disk.clone();
        let mut files = disk.files(Path::new(LOG));
        files.retain(|file| file.extension().is_some_and(|end| end == "plog"));
        if files.is_empty() || !disk.damaged(Path::new(LOG)).is_empty() {
            return;
        }
        let whole = verify_on(disk.copy(), Path::new(LOG));
        let file = self.s.random.pick(&files).clone();
        let Some(damage) = disk.damage(&file, 0..usize::MAX) else { return };
        let found = verify_on(disk.copy(), Path::new(LOG));
        match (whole, found) {
            (Ok(_), Err(_)) => {
                let (path, at) = (damage.path.display(), damage.at);
                self.s.note(SEQUENCER, || format!("{path} is damaged at byte {at}"));
            }
            _ => disk.repair(Path::new(LOG)),
        }
    }

    fn heal(&mut self) {
        if self.s.healed {
            return;
        }
        self.heal_at = self.s.now;
        self.s.note(SEQUENCER, || "FAULTS END".into());
        self.s.healed = true;
        self.s.network.heal();
        self.nodes().into_iter().for_each(|node| self.disk(node).heal());
        self.s.clock_ahead = 0;
        self.scrub();
    }

    /// Damage to parts of the log that nobody has read since is found by who looks.
    fn scrub(&mut self) {
        let disk = self.sequencer.disk.clone();
        if disk.damaged(Path::new(LOG)).is_empty() {
            return;
        }
        match verify_on(disk.copy(), Path::new(LOG)) {
            Ok(_) => {
                let detail = "the log is damaged, but verifies";
                self.s.history.violate("damage is noticed", detail);
            }
            Err(_) => {
                self.tally.damage_found += 1;
                disk.repair(Path::new(LOG));
            }
        }
    }
}

/// The end.
impl World {
    fn inspect(&mut self) {
        if !self.s.healed {
            // Nobody does anything more before faults end: they end soon.
            let is_waited_for = self.clients.iter().all(Client::waits_for_the_end);
            self.waited = if is_waited_for { self.waited + INSPECTION } else { 0 };
            if self.waited > WAIT_MAX {
                self.heal();
            }
            return self.s.after(INSPECTION, Event::Inspect);
        }
        let unrest = self.unrest();
        match unrest {
            None if self.restarted => self.done = true,
            None => {
                // What is done must outlive a power cut of all nodes.
                self.nodes().into_iter().for_each(|node| self.end(node, true));
                self.restarted = true;
                self.s.after(INSPECTION, Event::Inspect);
            }
            Some(_) if self.s.now < self.heal_at + RECOVERY_MAX => {
                self.s.after(INSPECTION, Event::Inspect);
            }
            Some(unrest) => {
                self.s.history.check_all_ended();
                self.s.history.violate("progress resumes once faults end", unrest);
            }
        }
    }

    /// What is not done yet.
    fn unrest(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().position(|client| !client.is_done()) {
            return Some(format!("client {client} is not done"));
        }
        let Some(sequencer) = &self.sequencer.running else {
            return Some("the sequencer is down".into());
        };
        if !sequencer.is_idle() {
            return Some("the sequencer has something under way".into());
        }
        let last = self.s.history.last();
        self.hosts.iter().find_map(|(node, host)| match &host.running {
            None => Some(format!("{node} is down")),
            Some(running) => running.unrest(last, self.restarted),
        })
    }

    /// Everything that must be so when all is done.
    fn check_end(&mut self) {
        let Self { s, hosts, sequencer, .. } = self;
        s.history.check_all_ended();
        check_log(s, &sequencer.disk);
        let mut state = parsec_storage::Digest::ZERO;
        let mut receipts = parsec_storage::Digest::ZERO;
        for executor in hosts.values().filter_map(|host| host.running.as_ref()) {
            for (partition, store) in executor.stores() {
                use parsec_storage::Store as _;
                let applied = store.applied();
                s.history.on_found(partition, &applied);
                let map = s.cluster.map.clone();
                if let Err(error) = store.verify(&|key| map.owner(key) == partition) {
                    s.history.violate("stores add up", format!("{partition}: {error}"));
                }
                s.history.check_values(partition, |key| store.get(key).ok().flatten());
                state.add(applied.state);
                receipts.add(applied.receipts);
            }
        }
        let expected = s.history.digests();
        if (state, receipts) != expected {
            let detail = format!("{state} and {receipts}, not {expected:?}");
            s.history.violate("digests of partitions add up to the oracle's", detail);
        }
    }
}

fn check_log(s: &mut Surroundings, disk: &SimDisk) {
    match verify_on(disk.copy(), Path::new(LOG)) {
        Err(error) => s.history.violate("the log verifies", error.to_string()),
        Ok(end) => {
            let last = end.last_epoch.map_or(parsec_protocol::EpochNumber(0), |last| last.number);
            if last != s.history.last() || !end.unordered.is_empty() || end.torn_bytes > 0 {
                let detail = format!(
                    "it ends with {last}, {} unordered, {} torn bytes; {} is the last epoch",
                    end.unordered.len(),
                    end.torn_bytes,
                    s.history.last()
                );
                s.history.violate("the log verifies", detail);
            }
        }
    }
}
