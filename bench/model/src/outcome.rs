//! What comes out of one simulation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::costs::{Stage, Work};

/// From which share on something counts as used up. Queues are long before all of it is.
pub const USED_UP: f64 = 0.85;

/// What came out, of the part of the load that was looked at. Not a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Executor hosts.
    pub hosts: u16,
    /// Transactions a second.
    pub tps: f64,
    /// Half of them took at most this long, in a closed loop.
    pub p50_ms: f64,
    /// 99 % of them did.
    pub p99_ms: f64,
    /// How many transactions were looked at.
    pub transactions: u64,
    /// Virtual time in which they were answered, seconds.
    pub seconds: f64,
    /// Epochs that were ordered meanwhile.
    pub epochs: u64,
    /// The share of transactions that touched several partitions.
    pub multi_partition: f64,
    /// How many transactions took effect from the beginning on.
    pub committed: u64,
    /// How many were answered from the beginning on.
    pub answered: u64,
    /// What each stage did.
    pub work: BTreeMap<Stage, Work>,
    /// What passed the network.
    pub wire: Wire,
    /// How much of what there is was used, the most used first.
    pub used: Vec<Used>,
}

/// What passed the network, megabits a second, headers included; of hosts, the busiest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Wire {
    /// What the host sent.
    pub host_sent_mbit: f64,
    /// What the host received.
    pub host_received_mbit: f64,
    /// What the sequencer sent.
    pub sequencer_sent_mbit: f64,
    /// What the sequencer received.
    pub sequencer_received_mbit: f64,
}

/// How much of something was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Of what; of several of a kind, the most used.
    pub what: String,
    /// Which share of it, 0 to 1.
    pub share: f64,
    /// The stage that used most of it, if it is a processor.
    pub stage: Option<Stage>,
}

impl Outcome {
    /// What is used up first, and what for.
    #[must_use]
    pub fn saturated(&self) -> String {
        match self.used.first() {
            Some(used) if used.share >= USED_UP => used.to_string(),
            _ => "nothing: transactions wait for one another, or for time to pass".to_owned(),
        }
    }

    /// The share of what is used most.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        self.used.first().map_or(0.0, |used| used.share)
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.stage {
            Some(stage) if self.what.ends_with("CPU") => {
                write!(f, "{}: {}", self.what, stage.name())
            }
            _ => f.write_str(&self.what),
        }
    }
}
