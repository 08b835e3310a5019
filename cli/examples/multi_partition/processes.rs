//! The processes of the cluster, and what they use of the processor.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parsec_cli::cluster::log_directory;
use parsec_cli::failure::{Context, Failure, failed};
use parsec_client::{Client, ClientConfig};
use parsec_protocol::transport::tls::Trust;
use tempfile::TempDir;

use crate::points::PARTITIONS;

/// How long the cluster may take to answer at first.
const START_MAX: Duration = Duration::from_secs(20);

/// Processor time, by who used it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) executors: Duration,
    pub(crate) sequencer: Duration,
    /// This process: clients and load generator.
    pub(crate) client: Duration,
}

impl Cpu {
    pub(crate) fn total(self) -> Duration {
        self.executors + self.sequencer + self.client
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            executors: self.executors - earlier.executors,
            sequencer: self.sequencer - earlier.sequencer,
            client: self.client - earlier.client,
        }
    }
}

/// A sequencer, node 0, and hosts: a process each.
pub(crate) struct Processes {
    directory: TempDir,
    clients: u16,
    /// Node 0 first.
    nodes: Vec<Child>,
}

impl Processes {
    /// Starts them.
    pub(crate) fn start(hosts: u16) -> Result<Self, Failure> {
        let directory = tempfile::tempdir().context("can't make a directory")?;
        let ports = free_ports(hosts + 2).context("can't find free ports")?;
        let (clients, ports) = ports.split_first().ok_or_else(|| failed("no ports"))?;
        let mut processes = Self { directory, clients: *clients, nodes: Vec::new() };
        for node in 0..=hosts {
            let file = processes.directory.path().join(format!("node-{node}.toml"));
            std::fs::write(&file, processes.file(node, ports)).context("can't write a file")?;
            processes.nodes.push(spawn(&file)?);
        }
        Ok(processes)
    }

    /// The configuration of a node.
    fn file(&self, node: u16, ports: &[u16]) -> String {
        let role = match node {
            0 => format!("role = \"sequencer\"\nclients = \"127.0.0.1:{}\"\n", self.clients),
            _ => "role = \"executor\"\n".to_owned(),
        };
        let mut text =
            format!("node = {node}\ndata = \"data-{node}\"\n{role}tls.development = \"certs\"\n");
        let hosts = u16::try_from(ports.len() - 1).unwrap_or(u16::MAX);
        for (node, port) in (0..=hosts).zip(ports) {
            text += &format!("\n[[nodes]]\nnode = {node}\naddress = \"127.0.0.1:{port}\"\n");
            if node > 0 {
                let partitions: Vec<u16> = (node - 1..PARTITIONS).step_by(hosts.into()).collect();
                text += &format!("partitions = {partitions:?}\n");
            }
        }
        text
    }

    /// How clients reach them, as soon as they answer.
    pub(crate) async fn reach(&self) -> Result<ClientConfig, Failure> {
        let started = Instant::now();
        loop {
            let result = self.try_reach().await;
            if result.is_ok() || started.elapsed() > START_MAX {
                return result;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn try_reach(&self) -> Result<ClientConfig, Failure> {
        let ca = self.directory.path().join("certs/ca/ca.pem");
        let trust = Trust::load(&ca).map_err(failed)?;
        let config = ClientConfig::new(vec![([127, 0, 0, 1], self.clients).into()], trust);
        let client = Client::connect(config.clone()).await.context("can't connect")?;
        let status = client.status().await.context("status")?;
        match status.partitions.len() == usize::from(PARTITIONS) {
            true => Ok(config),
            false => Err(failed("not every partition answers")),
        }
    }

    /// Where the recorded order is.
    pub(crate) fn log(&self) -> std::path::PathBuf {
        log_directory(&self.directory.path().join("data-0"))
    }

    /// What they, and this process, have used of the processor so far.
    pub(crate) fn cpu(&self) -> Result<Cpu, Failure> {
        let mut used = Cpu { client: cpu_of(std::process::id())?, ..Cpu::default() };
        for (node, child) in self.nodes.iter().enumerate() {
            match node {
                0 => used.sequencer += cpu_of(child.id())?,
                _ => used.executors += cpu_of(child.id())?,
            }
        }
        Ok(used)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may have ended of itself.
            node.kill().ok();
            node.wait().ok();
        }
    }
}

/// This program again, as a node.
fn spawn(file: &Path) -> Result<Child, Failure> {
    let program = std::env::current_exe().context("can't find this program")?;
    let mut command = Command::new(program);
    command.arg("node").arg(file).stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("can't start a process")
}

/// Ports that nobody has at the moment.
fn free_ports(count: u16) -> std::io::Result<Vec<u16>> {
    // All at once, so that they differ.
    let sockets: Result<Vec<_>, _> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    sockets?.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect()
}

/// The processor time that all threads of a process have used so far, to 10 ms.
fn cpu_of(process: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).context(&path)?;
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th
    // after it, in ticks.
    let ticks: Option<u64> = text.rsplit_once(')').and_then(|(_, rest)| {
        let mut fields = rest.split_ascii_whitespace().skip(11);
        let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
        Some(next()? + next()?)
    });
    let ticks = ticks.ok_or_else(|| failed(format!("{path} is not as expected")))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
}
