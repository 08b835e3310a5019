//! The file that names the machines of a cluster.
//!
//! ```toml
//! program = "parsec"                 # on each machine; found as a shell there finds it
//!
//! [sequencer]
//! ssh = "bench@10.0.0.10"            # what ssh is told
//! address = "10.0.0.10:7000"         # where it listens for the other nodes
//! clients = "10.0.0.10:7100"         # where it listens for clients
//! directory = "/var/tmp"             # where it may keep files
//!
//! [[host]]
//! ssh = "bench@10.0.0.11"
//! address = "10.0.0.11:7000"
//! directory = "/mnt/nvme"
//! partitions = 2
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use super::plan::ClusterPlan;
use crate::config::NodeAddress;
use crate::failure::{Context, Failure, failed};

/// Most partitions of one host.
const PARTITIONS_MAX: u16 = 64;

/// The machines of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostsFile {
    /// The program `parsec` on machines that say nothing else.
    #[serde(default = "parsec")]
    program: String,
    sequencer: Sequencer,
    #[serde(rename = "host")]
    hosts: Vec<Host>,
}

fn parsec() -> String {
    "parsec".to_owned()
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequencer {
    ssh: String,
    address: SocketAddr,
    clients: SocketAddr,
    directory: String,
    program: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    ssh: String,
    address: SocketAddr,
    directory: String,
    program: Option<String>,
    partitions: Option<u16>,
}

/// One machine, and the node on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The node; 0 is the sequencer.
    pub node: u16,
    /// What ssh is told.
    pub target: String,
    /// Where the node may keep files.
    pub directory: String,
    /// The program `parsec` there.
    pub program: String,
}

impl HostsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).context(path.display())?;
        Self::parse(&text).context(path.display())
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let file: Self = toml::from_str(text).map_err(failed)?;
        if file.hosts.is_empty() {
            return Err(failed("there is no [[host]]"));
        }
        let mut seen = BTreeSet::new();
        let own = [file.sequencer.address, file.sequencer.clients];
        for address in file.hosts.iter().map(|host| host.address).chain(own) {
            if address.ip().is_unspecified() || address.port() == 0 {
                return Err(failed(format!("{address} is no address by which others reach it")));
            }
            if !seen.insert(address) {
                return Err(failed(format!("{address} is there twice")));
            }
        }
        let targets = file.hosts.iter().map(|host| &host.ssh).chain([&file.sequencer.ssh]);
        if let Some(target) = targets.into_iter().find(|target| target.starts_with('-')) {
            return Err(failed(format!("ssh would take {target:?} for an option")));
        }
        let partitions = |host: &Host| host.partitions.unwrap_or(1);
        match file.hosts.iter().map(partitions).find(|count| !(1..=PARTITIONS_MAX).contains(count))
        {
            Some(count) => Err(failed(format!("{count} partitions: 1 to {PARTITIONS_MAX} can be"))),
            None => Ok(file),
        }
    }

    /// How many hosts it names.
    #[must_use]
    pub fn hosts(&self) -> u16 {
        u16::try_from(self.hosts.len()).unwrap_or(u16::MAX)
    }

    /// The partitions of the first hosts together; `default` is for those that say nothing.
    #[must_use]
    pub fn partitions(&self, hosts: u16, default: u16) -> u16 {
        let first = self.hosts.iter().take(usize::from(hosts));
        first.map(|host| host.partitions.unwrap_or(default)).sum()
    }

    /// A cluster of the first hosts. Partitions are numbered host by host.
    ///
    /// # Errors
    /// If there are fewer hosts.
    pub fn plan(&self, hosts: u16, default: u16) -> Result<ClusterPlan, Failure> {
        let most = self.hosts();
        if hosts == 0 || hosts > most {
            return Err(failed(format!("{hosts} hosts: the file has {most}")));
        }
        let Sequencer { address, clients, .. } = self.sequencer;
        let mut nodes = vec![NodeAddress { node: 0, address, partitions: Vec::new() }];
        let mut next = 0;
        for (node, host) in (1..=hosts).zip(&self.hosts) {
            let end = next + host.partitions.unwrap_or(default);
            let (address, partitions) = (host.address, (next..end).collect());
            nodes.push(NodeAddress { node, address, partitions });
            next = end;
        }
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        Ok(ClusterPlan { nodes, ..ClusterPlan::new(clients, &addresses, next) })
    }

    /// The machines of such a cluster, the sequencer's first.
    #[must_use]
    pub fn machines(&self, hosts: u16) -> Vec<Machine> {
        let machine = |node, ssh: &str, directory: &str, program: &Option<String>| Machine {
            node,
            target: ssh.to_owned(),
            directory: directory.to_owned(),
            program: program.clone().unwrap_or_else(|| self.program.clone()),
        };
        let first = &self.sequencer;
        let sequencer = machine(0, &first.ssh, &first.directory, &first.program);
        let others = (1..=hosts)
            .zip(&self.hosts)
            .map(|(node, host)| machine(node, &host.ssh, &host.directory, &host.program));
        std::iter::once(sequencer).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        program = "/opt/parsec"
        [sequencer]
        ssh = "bench@10.0.0.10"
        address = "10.0.0.10:7000"
        clients = "10.0.0.10:7100"
        directory = "/var/tmp"
        [[host]]
        ssh = "one"
        address = "10.0.0.11:7000"
        directory = "/a b"
        partitions = 3
        [[host]]
        ssh = "two"
        address = "10.0.0.12:7000"
        directory = "/c"
        program = "parsec"
    "#;

    #[test]
    fn partitions_are_numbered_host_by_host() {
        let file = HostsFile::parse(FILE).unwrap();
        let plan = file.plan(2, 2).unwrap();
        let partitions: Vec<_> = plan.nodes.iter().map(|node| node.partitions.clone()).collect();
        assert_eq!(partitions, [vec![], vec![0, 1, 2], vec![3, 4]]);
        assert_eq!(plan.partitions(), usize::from(file.partitions(2, 2)));
        assert_eq!(file.plan(1, 2).unwrap().nodes.len(), 2);
        assert!(file.plan(3, 2).unwrap_err().to_string().contains("has 2"));
        let machines = file.machines(2);
        assert_eq!(machines[0].target, "bench@10.0.0.10");
        assert_eq!(
            (machines[1].program.as_str(), machines[2].program.as_str()),
            ("/opt/parsec", "parsec")
        );
        assert_eq!((machines[1].node, machines[1].directory.as_str()), (1, "/a b"));
    }

    #[test]
    fn what_can_be_no_cluster_is_refused() {
        for (from, to, said) in [
            ("10.0.0.12:7000", "10.0.0.11:7000", "twice"),
            ("10.0.0.12:7000", "0.0.0.0:7000", "no address"),
            ("10.0.0.12:7000", "10.0.0.12:0", "no address"),
            ("partitions = 3", "partitions = 0", "0 partitions"),
            ("partitions = 3", "partition = 3", "unknown field"),
            ("ssh = \"two\"", "ssh = \"-oProxyCommand=x\"", "option"),
        ] {
            let said_of = HostsFile::parse(&FILE.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(said_of.contains(said), "{said_of}");
        }
        assert!(HostsFile::parse(FILE.split("[[host]]").next().unwrap()).is_err());
    }
}
