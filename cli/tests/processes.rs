//! A cluster of three nodes in as many processes or fewer, as its files say, with ends that nobody
//! asked for.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod support;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value as Json;
use support::{Process, eventually, finish, parsec, refused, run, succeeded};
use tempfile::TempDir;

/// A cluster of a sequencer, node 0, and two executors with three partitions.
struct Cluster {
    directory: TempDir,
    clients: u16,
    /// Processes, each by its first node.
    nodes: Vec<Option<Process>>,
}

/// Ports that nobody has at the moment.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All at once, so that they differ.
    let sockets = [(); COUNT].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

/// The file of a node of which all data is in `data`.
fn file(node: usize, data: &str, ports: [u16; 3], clients: u16) -> String {
    let (role, extra) = match node {
        0 => ("sequencer", format!("clients = \"127.0.0.1:{clients}\"\n")),
        _ => ("executor", "workers_per_partition = 2\n".to_owned()),
    };
    let [first, second, third] = ports;
    format!(
        "node = {node}\nrole = \"{role}\"\ndata = \"{data}\"\n{extra}\
         tls.development = \"certs\"\n\n\
         [[nodes]]\nnode = 0\naddress = \"127.0.0.1:{first}\"\n\n\
         [[nodes]]\nnode = 1\naddress = \"127.0.0.1:{second}\"\npartitions = [0, 2]\n\n\
         [[nodes]]\nnode = 2\naddress = \"127.0.0.1:{third}\"\npartitions = [1]\n"
    )
}

impl Cluster {
    /// Each node a process.
    fn start() -> Self {
        let mut cluster = Self::written();
        // All at once: they make the certificates together, too.
        (0..3).for_each(|node| cluster.start_node(node));
        cluster
    }

    /// The files of a cluster that does not run yet.
    fn written() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [first, second, third, clients] = free_ports();
        for node in 0..3 {
            let text = file(node, &format!("data-{node}"), [first, second, third], clients);
            std::fs::write(directory.path().join(format!("node-{node}.toml")), text).unwrap();
        }
        Self { directory, clients, nodes: vec![None, None, None] }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn start_node(&mut self, node: usize) {
        self.start_together(&[node]);
    }

    /// Starts nodes in one process.
    fn start_together(&mut self, nodes: &[usize]) {
        let first = nodes[0];
        let errors = self.path().join(format!("errors-{first}"));
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(errors).unwrap();
        let mut command = parsec(self.path(), &["node"]);
        command.args(nodes.iter().map(|node| format!("node-{node}.toml")));
        let child = command.stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        self.nodes[first] = Some(Process(child));
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].take().unwrap().kill();
    }

    /// `parsec` with these arguments, and where the cluster is.
    fn begin(&self, arguments: &[&str]) -> Process {
        let mut command = parsec(self.path(), arguments);
        command.env("PARSEC_CONNECT", format!("127.0.0.1:{}", self.clients));
        command.env("PARSEC_CA", self.path().join("certs/ca/ca.pem"));
        Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        finish(self.begin(arguments))
    }

    /// Adds one to a counter. Returns what is printed.
    fn count(&self, counter: &str, salt: u32) -> String {
        let salt = salt.to_string();
        succeeded(self.ask(&["submit", "--salt", &salt, "add", counter, "1"]))
    }

    /// The value of a counter.
    fn counter(&self, counter: &str) -> u64 {
        let printed = succeeded(self.ask(&["submit", "get", counter]));
        let value = printed.lines().find_map(|line| line.strip_prefix("value")).unwrap().trim();
        value.parse().unwrap()
    }

    /// The status, as soon as every partition answers and has applied all that is ordered.
    fn settled(&mut self) -> Json {
        eventually("a cluster at rest", || {
            self.nodes.iter_mut().flatten().for_each(Process::assert_runs);
            let output = self.ask(&["status", "--json"]);
            let status: Json = serde_json::from_slice(&output.stdout).ok()?;
            let partitions = status["partitions"].as_array()?;
            let level = partitions.iter().all(|p| p["applied_epoch"] == status["ordered_epoch"]);
            (output.status.success() && level && status["in_flight"] == 0).then_some(status)
        })
    }

    fn log(&self) -> PathBuf {
        self.path().join("data-0/log")
    }

    /// Checks that one thread makes the same of the log.
    fn assert_replays(&mut self, status: &Json) {
        let log = self.log();
        let replay = run(self.path(), &["replay", log.to_str().unwrap(), "--json"]);
        let replay: Json = serde_json::from_str(&succeeded(replay)).unwrap();
        for what in ["state_digest", "receipts_digest", "transactions"] {
            assert_eq!(replay[what], status[what], "{what}: {replay:#} {status:#}");
        }
    }
}

/// Counters that are spread over the partitions.
const COUNTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[test]
fn three_processes_go_on_whichever_is_killed() {
    let mut cluster = Cluster::start();
    let status = cluster.settled();
    assert_eq!(status["partitions_total"], 3);
    let mut first: Vec<String> = Vec::new();
    for (counter, salt) in COUNTERS.iter().zip(0..) {
        first.push(cluster.count(counter, salt));
    }

    // An executor: what is submitted meanwhile waits for it.
    cluster.kill(2);
    let waiting: Vec<_> = COUNTERS
        .iter()
        .zip(100..)
        .map(|(counter, salt)| {
            cluster.begin(&["submit", "--salt", &salt.to_string(), "add", counter, "1"])
        })
        .collect();
    let status = cluster.ask(&["status"]);
    assert!(refused(&status).contains("not every partition answers"), "{status:?}");
    cluster.start_node(2);
    waiting.into_iter().for_each(|process| drop(succeeded(finish(process))));
    let status = cluster.settled();
    cluster.assert_replays(&status);

    // The sequencer: clients and executors find it again.
    let waiting = cluster.begin(&["submit", "--salt=200", "transfer", "a", "b", "1"]);
    cluster.kill(0);
    cluster.start_node(0);
    drop(succeeded(finish(waiting)));
    cluster.settled();

    // All of them at once.
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.start_node(node));
    let before = cluster.settled();
    // What is submitted again is answered as it was at first, and does not happen again.
    for ((counter, salt), printed) in COUNTERS.iter().zip(0..).zip(first) {
        assert_eq!(cluster.count(counter, salt), printed);
    }
    let after = cluster.settled();
    assert_eq!(after["transactions"], before["transactions"]);
    assert_eq!(after["state_digest"], before["state_digest"]);
    let counted: Vec<_> = COUNTERS.iter().map(|counter| cluster.counter(counter)).collect();
    assert_eq!(counted, [1, 3, 2, 2, 2, 2]);
    let status = cluster.settled();
    cluster.assert_replays(&status);
}

#[test]
fn nodes_of_one_process_go_on_after_it_was_killed_in_the_same_processes_or_others() {
    let mut cluster = Cluster::written();
    let mut salts = 0..;
    let mut all_count = |cluster: &mut Cluster| {
        cluster.settled();
        for (counter, salt) in COUNTERS.iter().zip(salts.by_ref()) {
            cluster.count(counter, salt);
        }
        let status = cluster.settled();
        cluster.assert_replays(&status);
        status
    };
    for processes in [&[&[0, 1][..], &[2]][..], &[&[2, 0, 1]], &[&[0], &[1, 2]], &[&[0, 1], &[2]]] {
        processes.iter().for_each(|nodes| cluster.start_together(nodes));
        all_count(&mut cluster);
        // One process alone, and then all of them.
        cluster.kill(processes[0][0]);
        cluster.start_together(processes[0]);
        all_count(&mut cluster);
        processes.iter().for_each(|nodes| cluster.kill(nodes[0]));
    }
    (0..3).for_each(|node| cluster.start_node(node));
    cluster.settled();
    assert_eq!(cluster.counter("a"), 8);
}

#[test]
fn two_nodes_of_one_number_do_not_run_in_one_process() {
    let cluster = Cluster::written();
    let reason = refused(&run(cluster.path(), &["node", "node-1.toml", "node-1.toml"]));
    assert!(reason.contains("two of the files are for the same node"), "{reason}");
}

#[test]
fn two_processes_do_not_share_a_directory() {
    let mut cluster = Cluster::start();
    cluster.settled();
    let [first, second, third, clients] = free_ports();
    for node in [0, 1] {
        let text = file(node, &format!("data-{node}"), [first, second, third], clients);
        std::fs::write(cluster.path().join("second.toml"), text).unwrap();
        let reason = refused(&run(cluster.path(), &["node", "second.toml"]));
        assert!(reason.contains("another process"), "{reason}");
    }
    cluster.settled();
}

#[test]
fn a_mistake_in_a_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let wrong = file(1, "data", [7_000, 7_001, 7_002], 7_100).replace("partitions", "partitons");
    std::fs::write(directory.path().join("node.toml"), wrong).unwrap();
    let reason = refused(&run(directory.path(), &["node", "node.toml"]));
    for part in ["node.toml", "line 14", "`partitons`", "did you mean `partitions`?"] {
        assert!(reason.contains(part), "{reason:?} does not say {part:?}");
    }
    let reason = refused(&run(directory.path(), &["node", "absent.toml"]));
    assert!(reason.contains("absent.toml"), "{reason}");
}
