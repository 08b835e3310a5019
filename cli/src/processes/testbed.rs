//! A cluster on this machine as if each node had a machine of its own: with a network, a quota of
//! processor time, and distance between them, as far as this system can.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use parsec_client::ClientConfig;

use super::child::Process;
use super::network::{self, Network};
use super::owner::Owner;
use super::plan::ClusterPlan;
use super::quota::{self, Controller, CpuShare, Group};
use super::relay::Link;
use super::usage::ProcessUsage;
use super::{ClusterUsage, Place, Processes, free_ports};
use crate::config::NodeAddress;
use crate::failure::{Context, Failure, failed};

/// Where nodes listen in a namespace of their own, for each other and for clients.
const PEER_PORT: u16 = 7_000;
const CLIENT_PORT: u16 = 7_100;
/// How long the relay may take to end.
const RELAY_END_MAX: Duration = Duration::from_secs(5);

/// What a network between the nodes does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distance {
    /// How long each is under way.
    pub delay: Duration,
    /// How many of a million are lost.
    pub loss_millionths: u32,
    /// Decides which.
    pub seed: u64,
}

/// What a testbed is to be like.
#[derive(Debug, Clone)]
pub struct TestbedOptions {
    /// Hosts; the sequencer is one node more.
    pub hosts: u16,
    /// Partitions of all hosts together, dealt out to them in turn.
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: usize,
    /// Where files and data are; a directory that is removed at the end if it is not said.
    pub directory: Option<PathBuf>,
    /// The program of the nodes; this program if it is not said.
    pub program: Option<PathBuf>,
    /// The text of the genesis file; without one the state begins empty.
    pub genesis: Option<String>,
    /// Whether each node gets a network namespace; else all are on loopback.
    pub namespaces: bool,
    /// By what quotas are imposed; without it there are none.
    pub controller: Option<Controller>,
    /// What each host may use of a core.
    pub quota: Option<CpuShare>,
    /// What the sequencer may use.
    pub sequencer_quota: Option<CpuShare>,
    /// What happens to datagrams between nodes, and between them and clients.
    pub distance: Option<Distance>,
}

/// What this system can do.
#[derive(Debug)]
pub struct Abilities {
    /// Whether it has network namespaces for us, or why not.
    pub namespaces: Result<(), Failure>,
    /// The controller of processor time that we may write to, or why there is none.
    pub quotas: Result<Controller, Failure>,
    /// What earlier runs left behind and is removed now.
    pub removed: Vec<String>,
}

impl Abilities {
    /// Tries everything once, after removing what runs left behind that were killed.
    #[must_use]
    pub fn find() -> Self {
        let is_gone = |owner: Owner| !owner.is_alive();
        let mut removed = Vec::new();
        // ORDER: groups first. Their processes keep the namespaces that they are in.
        let quotas = Controller::find().and_then(|controller| {
            removed.extend(quota::remove_of(&controller, is_gone)?);
            let share: CpuShare = "50%".parse().map_err(failed)?;
            Group::new(&controller, Owner::next(), 0, share)?.impose()?;
            Ok(controller)
        });
        let namespaces = network::remove_of(is_gone).and_then(|names| {
            removed.extend(names);
            Network::set_up(Owner::next(), 1).map(drop)
        });
        Self { namespaces, quotas, removed }
    }
}

/// Kills and removes at once what this process made and has not removed yet, as far as that can be
/// done without being asked twice: for a process that is about to end.
pub fn abandon() {
    let is_own = |owner: Owner| owner.process == std::process::id();
    let groups = Controller::find().and_then(|controller| quota::remove_of(&controller, is_own));
    let networks = network::remove_of(is_own);
    for failure in [groups.err(), networks.err()].into_iter().flatten() {
        tracing::debug!(%failure, "not everything could be looked for");
    }
}

/// A cluster that runs. Dropping it kills it and removes everything that was made for it.
// ORDER: fields are dropped in this order. Groups can't be removed before their processes have
// ended, and namespaces stay as long as a process is in them.
#[derive(Debug)]
pub struct Testbed {
    processes: Processes,
    relay: Option<Process>,
    /// The groups of nodes with a quota, with their nodes.
    groups: Vec<(u16, Group)>,
    network: Option<Network>,
    /// Where clients reach the sequencer.
    clients: SocketAddr,
}

impl Testbed {
    /// Starts a cluster, without quotas yet: [`Testbed::impose`].
    ///
    /// # Errors
    /// What could not be made; nothing is left then.
    pub fn start(options: &TestbedOptions) -> Result<Self, Failure> {
        let owner = Owner::next();
        let nodes = options.hosts + 1;
        let network = match options.namespaces {
            true => Some(Network::set_up(owner, nodes)?),
            false => None,
        };
        let groups = groups(options, owner)?;
        let addresses = Addresses::new(options, network.as_ref())?;
        let mut plan = ClusterPlan::new(addresses.clients, &addresses.nodes, options.partitions);
        plan.workers_per_partition = options.workers_per_partition;
        let place = Place::new(options.directory.clone())?;
        place.put_genesis(&mut plan, options.genesis.as_deref())?;
        let relay = match options.distance {
            Some(distance) => {
                Some(addresses.start_relay(distance, &place, options.program.clone())?)
            }
            None => None,
        };
        let names: Vec<String> =
            network.iter().map(|made| made.plan().driver().to_string()).collect();
        let reached = |node: u16| addresses.reached(node, &plan.nodes);
        plan.write_reached(&place.directory, &names, reached)?;
        let wrap = |node: u16, argv: Vec<OsString>| {
            let group = groups.iter().find(|(member, _)| *member == node);
            let group = group.map_or_else(Vec::new, |(_, group)| group.enter());
            let namespace =
                network.as_ref().map_or_else(Vec::new, |network| network.plan().enter(node));
            [group, namespace, argv].concat()
        };
        let clients = addresses.clients_reach();
        let processes = Processes::start_written(plan, place, options.program.as_deref(), wrap)?;
        Ok(Self { processes, relay, groups, network, clients })
    }

    /// How clients reach the cluster, as soon as all of it answers.
    ///
    /// # Errors
    /// Those of [`Processes::reach`].
    pub async fn reach(&self) -> Result<ClientConfig, Failure> {
        self.processes.reach_at(self.clients).await
    }

    /// Its processes.
    #[must_use]
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// What everything has used so far.
    ///
    /// # Errors
    /// If a node died; then what it said last. If the relay did.
    pub fn usage(&self) -> Result<ClusterUsage, Failure> {
        let relay =
            self.relay.as_ref().map(|relay| ProcessUsage::of(relay.id()).context("the relay"));
        let throttling = self.groups.iter().map(|(node, group)| Ok((*node, group.throttling()?)));
        Ok(ClusterUsage {
            relay: relay.transpose()?,
            throttling: throttling.collect::<Result<_, Failure>>()?,
            ..self.processes.usage()?
        })
    }

    /// Whether each node has a network namespace.
    #[must_use]
    pub fn has_namespaces(&self) -> bool {
        self.network.is_some()
    }

    /// What each host, and the sequencer, may use of a core, if they have quotas.
    #[must_use]
    pub fn quotas(&self) -> (Option<CpuShare>, Option<CpuShare>) {
        let share = |is_host: bool| {
            let found = self.groups.iter().find(|(node, _)| (*node > 0) == is_host);
            found.map(|(_, group)| group.share())
        };
        (share(true), share(false))
    }

    /// Imposes the quotas.
    ///
    /// # Errors
    /// What could not be written.
    pub fn impose(&self) -> Result<(), Failure> {
        self.groups.iter().try_for_each(|(_, group)| group.impose())
    }

    /// Lifts the quotas.
    ///
    /// # Errors
    /// What could not be written.
    pub fn lift(&self) -> Result<(), Failure> {
        self.groups.iter().try_for_each(|(_, group)| group.lift())
    }

    /// Stops all nodes in order and removes everything.
    ///
    /// # Errors
    /// Those of [`Processes::stop`]; everything is removed all the same.
    pub async fn stop(self) -> Result<(), Failure> {
        self.lift()?;
        let Self { processes, relay, groups, network, .. } = self;
        let stopped = processes.stop().await;
        let ended = match relay {
            Some(relay) => relay.end(RELAY_END_MAX).await,
            None => Ok(()),
        };
        drop(groups);
        drop(network);
        stopped.and(ended)
    }
}

fn groups(options: &TestbedOptions, owner: Owner) -> Result<Vec<(u16, Group)>, Failure> {
    let mut groups = Vec::new();
    let Some(controller) = &options.controller else { return Ok(groups) };
    for node in 0..=options.hosts {
        let share = if node == 0 { options.sequencer_quota } else { options.quota };
        if let Some(share) = share {
            groups.push((node, Group::new(controller, owner, node, share)?));
        }
    }
    Ok(groups)
}

/// Where everybody listens.
struct Addresses {
    /// Where each node does, for others; the sequencer first.
    nodes: Vec<SocketAddr>,
    /// Where the sequencer does, for clients.
    clients: SocketAddr,
    /// Where the relay does, for each node and then for clients; none without a relay.
    relay: Vec<SocketAddr>,
}

impl Addresses {
    fn new(options: &TestbedOptions, network: Option<&Network>) -> Result<Self, Failure> {
        let nodes = options.hosts + 1;
        let relayed = if options.distance.is_some() { usize::from(nodes) + 1 } else { 0 };
        let ports = |ip: Ipv4Addr, count| {
            let ports = free_ports(ip, count).map_err(failed)?;
            Ok::<Vec<SocketAddr>, Failure>(
                ports.into_iter().map(|port| (ip, port).into()).collect(),
            )
        };
        if let Some(network) = network {
            let plan = network.plan();
            return Ok(Self {
                nodes: (0..nodes).map(|node| (plan.node(node), PEER_PORT).into()).collect(),
                clients: (plan.node(0), CLIENT_PORT).into(),
                relay: ports(plan.driver(), relayed)?,
            });
        }
        let mut all = ports(Ipv4Addr::LOCALHOST, usize::from(nodes) + 1 + relayed)?;
        let relay = all.split_off(usize::from(nodes) + 1);
        let clients = all.pop().ok_or_else(|| failed("no ports"))?;
        Ok(Self { nodes: all, clients, relay })
    }

    /// How a node reaches each other: by way of the relay, if there is one.
    fn reached(&self, node: u16, nodes: &[NodeAddress]) -> Vec<NodeAddress> {
        let mut reached = nodes.to_vec();
        let relayed = reached.iter_mut().zip(&self.relay).filter(|(other, _)| other.node != node);
        relayed.for_each(|(other, relay)| other.address = *relay);
        reached
    }

    /// Where clients reach the sequencer.
    fn clients_reach(&self) -> SocketAddr {
        self.relay.last().copied().unwrap_or(self.clients)
    }

    fn start_relay(
        &self,
        distance: Distance,
        place: &Place,
        program: Option<PathBuf>,
    ) -> Result<Process, Failure> {
        let program = program.map_or_else(std::env::current_exe, Ok).map_err(failed)?;
        let targets = self.nodes.iter().chain([&self.clients]);
        let links = self.relay.iter().zip(targets);
        let links = links.map(|(listen, target)| Link { listen: *listen, target: *target });
        let mut argv: Vec<OsString> = vec![program.into(), "relay".into()];
        for (option, value) in [
            ("--delay-us", distance.delay.as_micros().to_string()),
            ("--loss-millionths", distance.loss_millionths.to_string()),
            ("--seed", distance.seed.to_string()),
        ] {
            argv.extend([option.into(), value.into()]);
        }
        argv.extend(links.map(|link| link.to_string().into()));
        Process::start("the relay".to_owned(), &argv, place.directory.join("relay.stderr"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process has in the kernel now, as names of namespaces, interfaces and groups.
    fn own() -> Vec<String> {
        let mut names = Vec::new();
        let mut directories = vec![PathBuf::from("/run/netns"), PathBuf::from("/sys/class/net")];
        directories.extend(Controller::find().ok().map(|controller| controller.root().to_owned()));
        for directory in directories {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            names.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        let owner = |name: &String| Owner::of_name(name).or_else(|| Owner::of_interface(name));
        names.retain(|name| owner(name).is_some_and(|one| one.process == std::process::id()));
        names
    }

    /// Whatever of this the machine can do is tried; the rest is left out.
    fn options(program: &str) -> TestbedOptions {
        let Abilities { namespaces, quotas, .. } = Abilities::find();
        TestbedOptions {
            hosts: 2,
            partitions: 2,
            workers_per_partition: 1,
            directory: None,
            program: Some(program.into()),
            genesis: None,
            namespaces: namespaces.is_ok(),
            controller: quotas.ok(),
            quota: Some("20%".parse().unwrap()),
            sequencer_quota: None,
            distance: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whatever_fails_leaves_nothing_behind() {
        // The relay is the last to be made before the nodes.
        let distance = Distance { delay: Duration::ZERO, loss_millionths: 0, seed: 1 };
        let absent = TestbedOptions { distance: Some(distance), ..options("/no/such/program") };
        let failure = Testbed::start(&absent).unwrap_err();
        assert!(failure.to_string().contains("/no/such/program"), "{failure}");
        assert_eq!(own(), Vec::<String>::new());

        // Something that runs and is no node.
        let made = options("sleep");
        let testbed = Testbed::start(&made);
        let expected = [made.namespaces, made.controller.is_some()].contains(&true);
        assert_eq!(!own().is_empty(), expected, "{testbed:?}");
        let said = testbed.unwrap().reach().await.unwrap_err().to_string();
        assert!(said.contains("node 0 ended") && said.contains("sleep"), "{said}");
        assert_eq!(own(), Vec::<String>::new());

        let testbed = Testbed::start(&made).unwrap();
        abandon();
        assert_eq!(own(), Vec::<String>::new());
        drop(testbed);
    }
}
