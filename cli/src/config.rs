//! The configuration file of a node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parsec_protocol::transport::PeerAddress;
use parsec_protocol::transport::tls::{
    IdentityFiles, NodeIdentity, development_identity, ensure_loopback,
};
use parsec_protocol::{NodeId, PartitionId, PartitionMap};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, failed};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleName {
    /// It admits and orders transactions, and serves clients.
    Sequencer,
    /// It executes the transactions of its partitions.
    Executor,
}

/// The configuration file of a node. Paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The number of this node, one of `nodes`.
    pub node: u16,
    /// What it does.
    pub role: RoleName,
    /// Where it keeps its data.
    pub data: PathBuf,
    /// The chain id that Ethereum transactions are signed for.
    #[serde(default = "default_chain_id")]
    pub chain_id: u64,
    /// The genesis file, the same on every node. Without one the state begins empty.
    pub genesis: Option<PathBuf>,
    /// Where a sequencer listens for clients.
    pub clients: Option<SocketAddr>,
    /// Where metrics are served to Prometheus, over HTTP.
    pub metrics: Option<SocketAddr>,
    /// Threads that execute the transactions of one partition of an executor.
    #[serde(default = "default_workers")]
    pub workers_per_partition: usize,
    /// How hosts and clients know each other.
    pub tls: TlsConfig,
    /// All nodes of the cluster, the same on every node.
    pub nodes: Vec<NodeAddress>,
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddress {
    /// Its number.
    pub node: u16,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
    /// The partitions that it executes; a node without any is the sequencer.
    #[serde(default)]
    pub partitions: Vec<u16>,
}

/// How hosts and clients know each other: either a directory of development certificates, or
/// three files made by `parsec certs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A directory in which certificates make themselves; for loopback addresses only.
    pub development: Option<PathBuf>,
    /// The certificate of the cluster's CA.
    pub ca: Option<PathBuf>,
    /// This node's certificate.
    pub certificate: Option<PathBuf>,
    /// This node's private key.
    pub key: Option<PathBuf>,
}

fn default_chain_id() -> u64 {
    crate::DEFAULT_CHAIN_ID
}

fn default_workers() -> usize {
    1
}

/// The layout of a cluster, as every node must see it.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The node that orders.
    pub sequencer: NodeId,
    /// Where each node listens for others.
    pub addresses: Vec<PeerAddress>,
    /// Which host has which partition.
    pub hosts: BTreeMap<PartitionId, NodeId>,
    /// Which partition holds which key.
    pub map: Arc<PartitionMap>,
}

impl Layout {
    /// The executors, each with its partitions.
    pub(crate) fn hosts_with_partitions(&self) -> Vec<(NodeId, Vec<PartitionId>)> {
        let mut hosts: BTreeMap<NodeId, Vec<PartitionId>> = BTreeMap::new();
        for (partition, node) in &self.hosts {
            hosts.entry(*node).or_default().push(*partition);
        }
        hosts.into_iter().collect()
    }
}

impl NodeConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Names the file, the line and the nearest right key.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| failed(format!("can't read {}: {error}", path.display())))?;
        let mut config = Self::parse(&text)
            .map_err(|problem| failed(format!("{}: {problem}", path.display())))?;
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        config.data = base.join(&config.data);
        let tls = &mut config.tls;
        let files = [&mut tls.development, &mut tls.ca, &mut tls.certificate, &mut tls.key];
        for file in files.into_iter().chain([&mut config.genesis]).flatten() {
            *file = base.join(&*file);
        }
        Ok(config)
    }

    /// Parses and checks the text of a configuration file.
    ///
    /// # Errors
    /// Names the line and the nearest right key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| explain(text, &error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.layout()?;
        let own = self.nodes.iter().find(|node| node.node == self.node);
        let own = own.ok_or_else(|| format!("node = {} is not among [[nodes]]", self.node))?;
        match self.role {
            RoleName::Sequencer if !own.partitions.is_empty() => {
                return Err(format!("node {} is a sequencer, but has partitions", self.node));
            }
            RoleName::Sequencer if self.clients.is_none() => {
                return Err("a sequencer needs clients = \"ADDRESS:PORT\" to listen on".into());
            }
            RoleName::Executor if own.partitions.is_empty() => {
                return Err(format!("node {} is an executor, but has no partitions", self.node));
            }
            RoleName::Executor if self.clients.is_some() => {
                return Err("clients connect to the sequencer: remove clients here".into());
            }
            _ => {}
        }
        if !(1..=256).contains(&self.workers_per_partition) {
            return Err("workers_per_partition must be 1 to 256".into());
        }
        match (&self.tls.development, self.tls.files()) {
            (Some(_), None) => {
                let listened = [Some(own.address), self.clients];
                listened
                    .into_iter()
                    .flatten()
                    .try_for_each(ensure_loopback)
                    .map_err(|error| error.to_string())
            }
            (None, Some(_)) => Ok(()),
            _ => Err("[tls] needs either development, or ca, certificate and key".into()),
        }
    }

    /// The layout of the cluster.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn layout(&self) -> Result<Layout, String> {
        let mut hosts = BTreeMap::new();
        let mut sequencers = Vec::new();
        for node in &self.nodes {
            if node.partitions.is_empty() {
                sequencers.push(NodeId(node.node));
            }
            for partition in &node.partitions {
                if hosts.insert(PartitionId(*partition), NodeId(node.node)).is_some() {
                    return Err(format!("partition {partition} is on two nodes, or there twice"));
                }
            }
        }
        let [sequencer] = sequencers[..] else {
            return Err(format!(
                "one node without partitions, the sequencer, is needed; there are {}",
                sequencers.len()
            ));
        };
        let count = u16::try_from(hosts.len()).map_err(|_| "too many partitions".to_owned())?;
        if let Some(gap) = (0..count).find(|id| !hosts.contains_key(&PartitionId(*id))) {
            return Err(format!("partitions are numbered from 0 without gaps; {gap} is missing"));
        }
        let map = PartitionMap::even(count).map_err(|error| error.to_string())?;
        let addresses = self
            .nodes
            .iter()
            .map(|node| PeerAddress { node: NodeId(node.node), address: node.address });
        Ok(Layout { sequencer, addresses: addresses.collect(), hosts, map: Arc::new(map) })
    }

    /// Loads the identity of this node, or makes it in development.
    ///
    /// # Errors
    /// What is wrong with the certificates.
    pub fn identity(&self) -> Result<NodeIdentity, Failure> {
        let node = NodeId(self.node);
        let identity = match (&self.tls.development, self.tls.files()) {
            (Some(directory), _) => development_identity(directory, node),
            (None, Some(files)) => NodeIdentity::load(node, &files),
            (None, None) => return Err(failed("[tls] is empty")),
        };
        identity.map_err(failed)
    }
}

impl TlsConfig {
    fn files(&self) -> Option<IdentityFiles> {
        Some(IdentityFiles {
            ca: self.ca.clone()?,
            certificate: self.certificate.clone()?,
            key: self.key.clone()?,
        })
    }
}

/// Says what is wrong with a configuration, in which line, and which key was probably meant.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or(text);
        before.matches('\n').count() + 1
    });
    let place = line.map_or(String::new(), |line| format!("line {line}: "));
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(wrong)) => {
            let nearest = quoted.min_by_key(|known| strsim::damerau_levenshtein(wrong, known));
            nearest.map_or(String::new(), |key| format!("; did you mean `{key}`?"))
        }
        _ => String::new(),
    };
    format!("{place}{message}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
node = 1
role = "executor"
data = "data"
tls.development = "certs"

[[nodes]]
node = 0
address = "127.0.0.1:7000"

[[nodes]]
node = 1
address = "127.0.0.1:7001"
partitions = [0, 1]
"#;

    #[test]
    fn a_good_file_gives_a_layout() {
        let layout = NodeConfig::parse(GOOD).unwrap().layout().unwrap();
        assert_eq!(layout.sequencer, NodeId(0));
        assert_eq!(layout.map.len(), 2);
        assert_eq!(layout.hosts[&PartitionId(1)], NodeId(1));
    }

    #[track_caller]
    fn assert_says(text: &str, parts: &[&str]) {
        let problem = NodeConfig::parse(text).unwrap_err();
        for part in parts {
            assert!(problem.contains(part), "{problem:?} does not say {part:?}");
        }
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line_and_the_nearest_right_one() {
        let wrong = GOOD.replace("partitions = [0", "partitons = [0");
        assert_says(&wrong, &["line 14", "`partitons`", "did you mean `partitions`?"]);
        let wrong = GOOD.replace("data =", "dta =");
        assert_says(&wrong, &["line 4", "did you mean `data`?"]);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        assert_says(&GOOD.replace("\"executor\"", "\"excutor\""), &["line 3", "excutor"]);
        assert_says(&GOOD.replace("node = 1\nrole", "node = 7\nrole"), &["node = 7"]);
        assert_says(&GOOD.replace("[0, 1]", "[0, 2]"), &["1 is missing"]);
        assert_says(&GOOD.replace("[0, 1]", "[0, 0]"), &["partition 0"]);
        assert_says(&GOOD.replace("7001", "70001"), &["line 13"]);
        assert_says(&GOOD.replace("\"executor\"", "\"sequencer\""), &["has partitions"]);
        assert_says(&GOOD.replace("127.0.0.1:7001", "10.0.0.1:7001"), &["10.0.0.1:7001"]);
        assert_says(&GOOD.replace("tls.development", "tls.ca"), &["[tls] needs either"]);
    }
}
