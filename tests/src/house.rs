//! A cluster in a directory of its own.

use std::path::Path;
use std::time::Duration;

use parsec_cli::cluster::{Cluster, ClusterOptions};
use parsec_client::{Client, Error, Submission};
use parsec_protocol::message::ClusterStatus;
use parsec_protocol::{Receipt, Transaction};
use tempfile::TempDir;

use crate::PATIENCE;

/// How many of what a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Executor hosts.
    pub hosts: u16,
    /// Partitions on each of them.
    pub partitions_per_host: u16,
    /// Threads that execute the transactions of one partition.
    pub workers: usize,
}

impl Shape {
    /// Two hosts with two partitions each, one worker each.
    pub const FOUR: Self = Self { hosts: 2, partitions_per_host: 2, workers: 1 };

    /// A shape.
    #[must_use]
    pub fn new(hosts: u16, partitions_per_host: u16, workers: usize) -> Self {
        Self { hosts, partitions_per_host, workers }
    }
}

/// A cluster that can be started, again and again, over one directory.
pub struct House {
    /// What the cluster is to be like. The directory is the house's own.
    pub options: ClusterOptions,
    _directory: TempDir,
}

impl House {
    /// A cluster whose partitions are in memory: only its log outlives it.
    #[must_use]
    pub fn in_memory(shape: Shape) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = ClusterOptions::new(directory.path().to_owned());
        options.in_memory = true;
        let mut house = Self { options, _directory: directory };
        house.reshape(shape);
        house
    }

    /// A cluster whose partitions are on disk.
    #[must_use]
    pub fn on_disk(shape: Shape) -> Self {
        let mut house = Self::in_memory(shape);
        house.options.in_memory = false;
        house
    }

    /// The same cluster with nodes that are linked by memory, not by QUIC.
    #[must_use]
    pub fn linked_by_memory(mut self) -> Self {
        self.options.linked_by_memory = true;
        self
    }

    /// A cluster in memory that begins with a copy of the log of `options`, which may be of
    /// another shape.
    #[must_use]
    pub fn over_log_of(options: &ClusterOptions, shape: Shape) -> Self {
        let mut house = Self::in_memory(shape);
        house.options.genesis = options.genesis.clone();
        house.options.chain_id = options.chain_id;
        house.options.runtimes = options.runtimes.clone();
        copy_log(&options.log(), &house.options.log());
        house
    }

    /// Changes the shape, for the next start. A cluster on disk refuses that.
    pub fn reshape(&mut self, shape: Shape) {
        self.options.hosts = shape.hosts;
        self.options.partitions_per_host = shape.partitions_per_host;
        self.options.workers_per_partition = shape.workers;
    }

    /// Starts the cluster. Must be called within a tokio runtime.
    pub async fn start(&self) -> Running {
        let cluster = tokio::time::timeout(PATIENCE, Cluster::start(&self.options)).await;
        Running { cluster: cluster.expect("a cluster that starts in time").unwrap() }
    }
}

/// Copies the segments of a log, as a crash at this moment might leave them: a log is only ever
/// appended to.
pub fn copy_log(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "plog") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A cluster that runs.
pub struct Running {
    /// The cluster.
    pub cluster: Cluster,
}

impl Running {
    /// A new client.
    pub async fn client(&self) -> Client {
        self.within(self.cluster.client()).await.unwrap()
    }

    /// So many new clients.
    pub async fn clients(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(self.client().await);
        }
        clients
    }

    /// What `future` comes to.
    ///
    /// # Panics
    /// If it takes longer than [`PATIENCE`], or a part of the cluster stops of itself meanwhile.
    pub async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::select! {
            result = future => result,
            failure = self.cluster.failed() => panic!("{failure}"),
            () = tokio::time::sleep(PATIENCE) => panic!("not done within {PATIENCE:?}"),
        }
    }

    /// Hands transactions over and waits for all results, in their order.
    pub async fn run(
        &self,
        client: &Client,
        transactions: Vec<Transaction>,
    ) -> Vec<Result<Receipt, Error>> {
        self.within(async { client.submit(transactions).await.unwrap().wait_all().await }).await
    }

    /// Waits for all results of some submissions, in their order.
    pub async fn results(&self, submissions: Vec<Submission>) -> Vec<Result<Receipt, Error>> {
        let mut all = Vec::new();
        for submission in submissions {
            all.extend(self.within(submission.wait_all()).await);
        }
        all
    }

    /// Waits until nothing is in flight and every partition has applied all that is ordered. Says
    /// how the cluster is then.
    pub async fn settled(&self) -> ClusterStatus {
        let client = self.client().await;
        self.within(async {
            loop {
                let before = client.status().await.unwrap();
                self.cluster.applied(before.ordered).await;
                let status = client.status().await.unwrap();
                let complete = status.partitions.len() == usize::from(status.partitions_total);
                let level = status.partitions.iter().all(|each| each.applied >= status.ordered);
                if status.ordered == before.ordered && status.in_flight == 0 && complete && level {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
    }

    /// Stops the cluster in order.
    pub async fn stop(self) {
        let stopped = tokio::time::timeout(PATIENCE, self.cluster.stop()).await;
        stopped.expect("a cluster that stops in time").unwrap();
    }
}
