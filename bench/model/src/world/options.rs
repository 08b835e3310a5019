//! What is assumed of a cluster.

use parsec_protocol::limits::{PARTITIONS_MAX, SUBMISSION_TRANSACTIONS_MAX};
use parsec_sequencer_core::limits::IN_FLIGHT_TRANSACTIONS_MAX;
use serde::{Deserialize, Serialize};

use super::{Broken, Place, SEQUENCER, SEQUENCER_NODE, SESSION, Simulation};
use crate::costs::Stage;
use crate::link::Link;
use crate::processor::Processor;

/// Threads of stages that have as many as there is work for.
const MANY: usize = 1 << 16;
/// Cores of a node whose processor is no limit.
const ENDLESS: f64 = 65_536.0;

/// What is assumed of a cluster and its load, beside what stages cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Executor hosts.
    pub hosts: u16,
    /// Partitions on each.
    pub partitions_per_host: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: u16,
    /// The processors.
    pub machine: Machine,
    /// The network.
    pub link: Link,
    /// How long the log's device takes to sync, microseconds.
    pub sync_us: f64,
    /// Transactions in flight, over all connections together.
    pub in_flight: usize,
    /// Transactions in one submission.
    pub batch: usize,
    /// Client connections.
    pub connections: usize,
    /// Who admits.
    pub admission: Admission,
}

/// The processors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// What each host has.
    pub host: Capacity,
    /// What the sequencer has.
    pub sequencer: Capacity,
    /// What the load generator has.
    pub client: Capacity,
    /// Cores that all nodes share that have no part of their own.
    pub shared_cores: f64,
}

/// How much of a processor a node has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// So many cores of its own; 0.08 for 8 % of one.
    Own(f64),
    /// What others leave of [`Machine::shared_cores`].
    Shared,
    /// As much as it can use.
    Endless,
}

/// Who admits: checks signatures and finds footprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// The sequencer, as it is built.
    Sequencer,
    /// So many gateways, each with a core of its own, which hand on what they admitted. That is
    /// **not built**: it shows what would be the limit then.
    Gateways(u16),
}

impl Machine {
    /// Hosts with so many cores each, a sequencer with so many, and a load generator that is no
    /// limit.
    #[must_use]
    pub fn apart(host: f64, sequencer: f64) -> Self {
        let (host, sequencer) = (Capacity::Own(host), Capacity::Own(sequencer));
        Self { host, sequencer, client: Capacity::Endless, shared_cores: 1.0 }
    }
}

impl Options {
    /// Partitions of the cluster.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.hosts.saturating_mul(self.partitions_per_host)
    }

    /// These options, if they make a cluster that can be sent so many transactions. Batches become
    /// smaller where else not every connection could send one.
    pub(super) fn checked(self, transactions: usize) -> Result<Self, Broken> {
        let bad = |what: &str| Err(Broken::Settings(what.to_owned()));
        let least = [self.in_flight, self.batch, self.connections];
        if self.hosts == 0
            || self.partitions_per_host == 0
            || self.workers_per_partition == 0
            || least.contains(&0)
        {
            return bad("there has to be one at least of everything");
        }
        if u32::from(self.hosts) * u32::from(self.partitions_per_host) > PARTITIONS_MAX.into() {
            return bad("there are too many partitions");
        }
        if self.in_flight > IN_FLIGHT_TRANSACTIONS_MAX || self.in_flight < self.connections {
            return bad("the transactions in flight are more than a lane takes, or too few");
        }
        if transactions < 4 * self.in_flight {
            return bad("the load is too short for so many transactions in flight");
        }
        let most = self.in_flight / self.connections;
        let batch = self.batch.min(most).min(SUBMISSION_TRANSACTIONS_MAX);
        Ok(Self { batch, ..self })
    }
}

/// Setting up.
impl Simulation<'_> {
    /// Gives every node its part of a processor.
    pub(super) fn place_all(&mut self) {
        let Machine { host, sequencer, client, shared_cores } = self.options.machine;
        self.processors.push(Processor::new(shared_cores));
        let cores = self.processor(sequencer);
        let of_sequencer = [
            (Stage::Admission, MANY),
            (Stage::Ordering, MANY),
            (Stage::Log, 1),
            (Stage::Dispatch, 1),
            (Stage::Index, 1),
        ];
        self.add_places(SEQUENCER_NODE, cores, &of_sequencer);
        let workers = usize::from(self.options.workers_per_partition);
        for node in 1..=self.hosts.len() {
            let cores = self.processor(host);
            self.add_places(node, cores, &[(Stage::Messages, MANY)]);
            for shard in self.hosts[node - 1].shards_mut() {
                let processor = &mut self.processors[cores];
                let mut lane = |stage, threads| {
                    let lane = processor.lane(stage, threads);
                    Place { processor: cores, lane }
                };
                shard.worker = Some(lane(Stage::Execution, workers));
                shard.store = Some(lane(Stage::Storage, 1));
            }
        }
        let cores = self.processor(client);
        let client = self.client_node();
        self.add_places(client, cores, &[(Stage::Generator, MANY)]);
        for gateway in client + 1..self.nodes.len() {
            let cores = self.processor(Capacity::Own(1.0));
            self.add_places(gateway, cores, &[(Stage::Admission, MANY)]);
        }
    }

    fn processor(&mut self, capacity: Capacity) -> usize {
        let cores = match capacity {
            Capacity::Shared => return 0,
            Capacity::Own(cores) => cores,
            Capacity::Endless => ENDLESS,
        };
        self.processors.push(Processor::new(cores));
        self.processors.len() - 1
    }

    fn add_places(&mut self, node: usize, processor: usize, stages: &[(Stage, usize)]) {
        for (stage, threads) in stages {
            let lane = self.processors[processor].lane(*stage, *threads);
            self.nodes[node].places.insert(*stage, Place { processor, lane });
        }
    }

    /// Brings up all links. Nobody is owed anything yet, so that what hosts tell one another of
    /// themselves is left out.
    pub(super) fn link_all(&mut self) {
        for place in 0..self.hosts.len() {
            let host = &mut self.hosts[place];
            let told = host.link_up();
            let node = host.id();
            let settled = self.sequencer.orderer.lane().settled();
            let followers = &mut self.sequencer.followers;
            // It asks for receipts, of which there are none.
            drop(followers.on_link_up(node, SESSION, settled));
            if let Err(error) = followers.on_progress(node, SESSION, &told) {
                self.stop(error.to_string());
            }
        }
        debug_assert_eq!(self.sequencer.followers.layout().place(SEQUENCER), None);
    }
}
