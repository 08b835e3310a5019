//! What a cluster of processes is to be like: the nodes, their files and certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parsec_protocol::NodeId;
use parsec_protocol::transport::tls::{CertificateAuthority, IdentityFiles, development_authority};

use crate::config::{NodeAddress, NodeConfig, RoleName, TlsConfig};
use crate::failure::{Context, Failure, failed};

/// A cluster: node 0 is the sequencer, the others are hosts with partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// Where each node listens for others, and its partitions. Those of node 0 are none.
    pub nodes: Vec<NodeAddress>,
    /// Where the sequencer listens for clients.
    pub clients: SocketAddr,
    /// The chain id that Ethereum transactions are signed for.
    pub chain_id: u64,
    /// Threads that execute the transactions of one partition.
    pub workers_per_partition: usize,
    /// The genesis file; without one the state begins empty.
    pub genesis: Option<PathBuf>,
    /// Whether the sequencer runs in the process of the first host.
    pub together: bool,
}

impl ClusterPlan {
    /// A cluster with these addresses, the sequencer's first. Partitions are dealt out to the
    /// other nodes in turn.
    #[must_use]
    pub fn new(clients: SocketAddr, addresses: &[SocketAddr], partitions: u16) -> Self {
        let hosts = addresses.len().saturating_sub(1).max(1);
        let nodes = addresses.iter().zip(0..).map(|(address, node)| {
            let first = usize::from(node).checked_sub(1);
            let own =
                first.into_iter().flat_map(|first| (0..partitions).skip(first).step_by(hosts));
            NodeAddress { node, address: *address, partitions: own.collect() }
        });
        Self {
            nodes: nodes.collect(),
            clients,
            chain_id: crate::DEFAULT_CHAIN_ID,
            workers_per_partition: 1,
            genesis: None,
            together: false,
        }
    }

    /// The nodes of each process; the sequencer's first, nodes by their numbers.
    #[must_use]
    pub fn processes(&self) -> Vec<Vec<u16>> {
        let nodes: Vec<u16> = self.nodes.iter().map(|node| node.node).collect();
        let (first, others) = nodes.split_at(nodes.len().min(if self.together { 2 } else { 1 }));
        [first.to_vec()].into_iter().chain(others.iter().map(|node| vec![*node])).collect()
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.nodes.iter().map(|node| node.partitions.len()).sum()
    }

    /// The configuration of a node, with paths relative to its file. `reached` is how it reaches
    /// each node; its own entry is where it listens.
    fn config(&self, node: u16, tls: TlsConfig, reached: &[NodeAddress]) -> NodeConfig {
        let role = if node == 0 { RoleName::Sequencer } else { RoleName::Executor };
        NodeConfig {
            node,
            role,
            data: data_of(node),
            chain_id: self.chain_id,
            genesis: self.genesis.clone(),
            clients: (role == RoleName::Sequencer).then_some(self.clients),
            metrics: None,
            workers_per_partition: self.workers_per_partition,
            tls,
            nodes: reached.to_vec(),
        }
    }

    /// Whether only this machine can reach it, so that development certificates will do.
    fn is_local(&self) -> bool {
        let listened = self.nodes.iter().map(|node| node.address).chain([self.clients]);
        listened.into_iter().all(|address| address.ip().is_loopback())
    }

    /// Makes the certificates and the configuration file of each node in `directory`:
    /// `node-N.toml`, `certs/ca/ca.pem`, `certs/node-N`. Data will be in `data-N`. `names` are
    /// names and addresses by which clients reach the cluster beside those of the plan.
    ///
    /// # Errors
    /// If the plan makes no cluster, or a file can't be written.
    pub fn write(&self, directory: &Path, names: &[String]) -> Result<(), Failure> {
        self.write_reached(directory, names, |_| self.nodes.clone())
    }

    /// The same, where each node reaches the others by addresses of its own, such as those of a
    /// relay between them.
    ///
    /// # Errors
    /// Those of [`ClusterPlan::write`].
    pub fn write_reached(
        &self,
        directory: &Path,
        names: &[String],
        reached: impl Fn(u16) -> Vec<NodeAddress>,
    ) -> Result<(), Failure> {
        match self.is_local() {
            true => self.write_development(directory, reached),
            false => self.write_issued(directory, names, reached),
        }
    }

    fn write_development(
        &self,
        directory: &Path,
        reached: impl Fn(u16) -> Vec<NodeAddress>,
    ) -> Result<(), Failure> {
        let certificates = directory.join("certs");
        std::fs::create_dir_all(&certificates).context(certificates.display())?;
        // Now, and not by whichever node is first: clients need its certificate to try.
        development_authority(&certificates).map_err(failed)?;
        let tls = || TlsConfig { development: Some("certs".into()), ..TlsConfig::default() };
        self.write_nodes(directory, |_| tls(), reached)
    }

    /// As [`ClusterPlan::write_reached`], with certificates of their own even if all nodes are on
    /// this machine: each node needs no files but `node-N.toml` and `certs/node-N`.
    ///
    /// # Errors
    /// Those of [`ClusterPlan::write`].
    pub fn write_issued(
        &self,
        directory: &Path,
        names: &[String],
        reached: impl Fn(u16) -> Vec<NodeAddress>,
    ) -> Result<(), Failure> {
        let certificates = directory.join("certs");
        std::fs::create_dir_all(&certificates).context(certificates.display())?;
        self.issue(&certificates, names)?;
        self.write_nodes(directory, issued_to, reached)
    }

    fn write_nodes(
        &self,
        directory: &Path,
        tls: impl Fn(u16) -> TlsConfig,
        reached: impl Fn(u16) -> Vec<NodeAddress>,
    ) -> Result<(), Failure> {
        for node in self.nodes.iter().map(|node| node.node) {
            let config = self.config(node, tls(node), &reached(node));
            let text = toml::to_string(&config).context("can't write a configuration")?;
            NodeConfig::parse(&text).map_err(failed)?;
            let file = directory.join(file_of(node));
            std::fs::write(&file, text).context(file.display())?;
        }
        Ok(())
    }

    /// Makes a CA and a certificate for each node, unless they are there.
    fn issue(&self, certificates: &Path, names: &[String]) -> Result<(), Failure> {
        let ca = certificates.join("ca");
        if ca.exists() {
            return Ok(());
        }
        let addresses = self.nodes.iter().map(|node| node.address).chain([self.clients]);
        let mut names: Vec<String> =
            addresses.map(|address| address.ip().to_string()).chain(names.to_vec()).collect();
        names.push("localhost".to_owned());
        names.sort();
        names.dedup();
        let make = |path: &Path| std::fs::create_dir_all(path).context(path.display());
        make(&ca)?;
        let authority = CertificateAuthority::new().map_err(failed)?;
        authority.save(&ca.join("ca.pem"), &ca.join("ca.key")).map_err(failed)?;
        for node in &self.nodes {
            let home = certificates.join(format!("node-{}", node.node));
            make(&home)?;
            let files = IdentityFiles {
                ca: home.join("ca.pem"),
                certificate: home.join("node.pem"),
                key: home.join("node.key"),
            };
            let identity = authority.issue(NodeId(node.node), &names).map_err(failed)?;
            identity.save(&files).map_err(failed)?;
        }
        Ok(())
    }
}

fn issued_to(node: u16) -> TlsConfig {
    let home = PathBuf::from(format!("certs/node-{node}"));
    TlsConfig {
        development: None,
        ca: Some(home.join("ca.pem")),
        certificate: Some(home.join("node.pem")),
        key: Some(home.join("node.key")),
    }
}

/// The name of the configuration file of a node.
#[must_use]
pub fn file_of(node: u16) -> PathBuf {
    format!("node-{node}.toml").into()
}

/// Where a node keeps its data, beside its file.
#[must_use]
pub fn data_of(node: u16) -> PathBuf {
    format!("data-{node}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ip: &str) -> ClusterPlan {
        let address = |port| format!("{ip}:{port}").parse().unwrap();
        ClusterPlan::new(address(7_100), &[7_000, 7_001, 7_002].map(address), 5)
    }

    #[test]
    fn partitions_are_dealt_out_and_the_files_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let plan = ClusterPlan { workers_per_partition: 3, ..plan("127.0.0.1") };
        plan.write(directory.path(), &[]).unwrap();
        for node in 0..3 {
            let config = NodeConfig::load(&directory.path().join(file_of(node))).unwrap();
            assert_eq!(config.nodes, plan.nodes);
            assert_eq!(config.workers_per_partition, 3);
            assert_eq!(config.clients.is_some(), node == 0);
            assert_eq!(config.data, directory.path().join(data_of(node)));
            config.identity().unwrap();
        }
        assert_eq!(plan.nodes[1].partitions, [0, 2, 4]);
        assert_eq!(plan.nodes[2].partitions, [1, 3]);
        assert_eq!(plan.partitions(), 5);
        assert!(directory.path().join("certs/ca/ca.pem").exists());
    }

    #[test]
    fn the_sequencer_has_a_process_of_its_own_or_that_of_the_first_host() {
        let plan = plan("127.0.0.1");
        assert_eq!(plan.processes(), [[0], [1], [2]]);
        let together = ClusterPlan { together: true, ..plan };
        assert_eq!(together.processes(), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn other_machines_get_certificates_that_are_not_for_development() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan("10.1.2.3");
        plan.write(directory.path(), &["parsec.example".to_owned()]).unwrap();
        for node in 0..3 {
            let config = NodeConfig::load(&directory.path().join(file_of(node))).unwrap();
            assert_eq!(config.tls.development, None);
            assert_eq!(config.identity().unwrap().node(), NodeId(node));
        }
    }

    #[test]
    fn a_node_may_reach_the_others_by_addresses_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan("127.0.0.1");
        let relayed = |node: u16| {
            let mut nodes = plan.nodes.clone();
            nodes.iter_mut().filter(|each| each.node != node).for_each(|each| {
                each.address.set_port(9_000 + each.node);
            });
            nodes
        };
        plan.write_reached(directory.path(), &[], relayed).unwrap();
        let config = NodeConfig::load(&directory.path().join(file_of(1))).unwrap();
        let ports: Vec<_> = config.nodes.iter().map(|node| node.address.port()).collect();
        assert_eq!(ports, [9_000, 7_001, 9_002]);
    }
}
