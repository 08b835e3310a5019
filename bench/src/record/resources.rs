//! What a run used of its machines.

use serde::{Deserialize, Serialize};

/// What was used while it was measured. What is not known is not listed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time, by process and stage.
    #[serde(default)]
    pub cpu: Vec<CpuUse>,
    /// Memory, by process.
    #[serde(default)]
    pub memory: Vec<MemoryUse>,
    /// Memory over time, by process.
    #[serde(default)]
    pub memory_samples: Vec<MemorySample>,
    /// What was sent over the network, by process.
    #[serde(default)]
    pub network: Vec<NetworkUse>,
    /// What was written to logs and stores, by process.
    #[serde(default)]
    pub logs: Vec<LogUse>,
    /// Who was at the limit of what it may use.
    #[serde(default)]
    pub limits: Limits,
}

/// Who was at the limit of what it may use, and what limits and networks did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Who used up what it may: `hosts` (one of them at least) or `sequencer` their quotas,
    /// `machine` all of its cores. `null` if that is not known.
    pub used_up: Option<Vec<String>>,
    /// In which share of the periods in which they wanted to run hosts were made to stand still
    /// because their quota was used up, 0 to 1; `null` without quotas.
    pub hosts_throttled: Option<f64>,
    /// The same of the sequencer.
    pub sequencer_throttled: Option<f64>,
    /// What the relay used that made delay and loss, seconds of one core. It is in none of the
    /// other figures.
    pub relay_seconds: Option<f64>,
    /// How many cores other processes of the machine used meanwhile, or a hypervisor took away.
    pub others_cores: Option<f64>,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It admits and orders.
    Sequencer,
    /// It executes.
    Executor,
    /// It orders and executes.
    Both,
    /// It sends the load.
    Client,
    /// Everything in one process.
    Everything,
}

/// Processor time of one stage in one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CpuUse {
    /// The process: `sequencer`, `host-1`, `client`; the sequencer's is `host-1` where that runs it.
    pub host: String,
    /// What it is for.
    pub role: Role,
    /// What its threads do: `admission`, `execution`, `storage`, …; `all` if that is not known.
    pub stage: String,
    /// Seconds of one core.
    pub seconds: f64,
}

/// The memory of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// The process.
    pub host: String,
    /// The most that was resident since it started, bytes.
    pub peak_bytes: u64,
}

/// What a process held at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemorySample {
    /// The process.
    pub host: String,
    /// When: seconds after measuring began; negative in the warm-up.
    pub end: f64,
    /// What was resident, bytes.
    pub bytes: u64,
}

/// What a process sent and received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUse {
    /// The process.
    pub host: String,
    /// Bytes that it sent.
    pub sent_bytes: u64,
    /// Bytes that it received.
    pub received_bytes: u64,
}

/// What a process wrote to its log, or its stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogUse {
    /// The process.
    pub host: String,
    /// By how many bytes the files grew.
    pub bytes: u64,
}

impl Resources {
    /// Processor time of all processes, seconds, if any is known.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        (!self.cpu.is_empty()).then(|| self.cpu.iter().map(|cpu| cpu.seconds).sum())
    }

    /// Whether the cluster's processor time is known, and not the load generator's alone.
    #[must_use]
    pub fn knows_cluster(&self) -> bool {
        self.cpu.iter().any(|cpu| cpu.role != Role::Client)
    }

    /// Processor time of the processes with one role, seconds, if any is known.
    #[must_use]
    pub fn cpu_seconds_of(&self, role: Role) -> Option<f64> {
        let mut of_role = self.cpu.iter().filter(|cpu| cpu.role == role).peekable();
        of_role.peek()?;
        Some(of_role.map(|cpu| cpu.seconds).sum())
    }
}
