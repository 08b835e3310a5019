//! Why a workload can't be built.

use super::Skew;
use crate::workload::{FootprintFrom, WorkloadName};

/// Why a workload can't be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum BadWorkload {
    #[error("{accounts} accounts: payments need 2 to {most} of them")]
    Accounts { accounts: u32, most: u32 },
    #[error("a Zipf exponent of {exponent}: it must be 0 to {}", Skew::EXPONENT_MAX)]
    Exponent { exponent: f64 },
    #[error("{participants} participants of {partitions} partitions: 2 to {most} are possible")]
    Participants { participants: u16, partitions: u16, most: u16 },
    #[error("{percent} % of the transactions: at most 100 can touch several partitions")]
    Percent { percent: u8 },
    #[error(
        "{accounts} accounts: payments across {partitions} partitions need a multiple of {classes}, \
         {least} at least"
    )]
    Classes { accounts: u32, partitions: u16, classes: u32, least: u32 },
    #[error("accounts chosen by their partitions can't be chosen {skew}")]
    SpreadSkew { skew: Skew },
    #[error("{percent} % for {knob}: at most 100 are possible")]
    Share { knob: &'static str, percent: u8 },
    #[error("a skew is uniform, turns, one-payee or a Zipf exponent, not {text:?}")]
    Skew { text: String },
    #[error("there is no workload {text:?}; there are {}", names())]
    Name { text: String },
    #[error("{workload} has no knob `{knob}`; it has {}", workload.knob_names())]
    Knob { workload: WorkloadName, knob: &'static str },
    #[error("{knob} = {value} is impossible: {allowed}")]
    Value { knob: &'static str, value: u64, allowed: String },
    #[error("`{one}` and `{other}` can't be given together: {reason}")]
    Together { one: &'static str, other: &'static str, reason: &'static str },
    #[error("`{knob}` says nothing without {needs}")]
    Alone { knob: &'static str, needs: &'static str },
    #[error("the footprints of {workload} can't be {footprint}: {reason}")]
    Footprint { workload: WorkloadName, footprint: FootprintFrom, reason: &'static str },
    #[error("its setup fails where footprints are found: {reason}")]
    Twin { reason: String },
}

fn names() -> String {
    WorkloadName::ALL.map(|name| name.to_string()).join(", ")
}
