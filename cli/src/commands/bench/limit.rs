//! What kept a measurement from being faster.

use parsec_bench::record::Limits;

use crate::processes::ClusterUsage;
use crate::processes::quota::{CpuShare, Throttling};

/// From which part of its quota on a process counts as held up by it. What is left over are
/// periods in which it had nothing to do for a moment.
const QUOTA_USED_UP: f64 = 0.85;
/// From which part of all cores on the machine counts as used up.
const MACHINE_USED_UP: f64 = 0.95;

/// The quotas of processes, and how many cores there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    pub(super) cores: u64,
    /// Of each host.
    pub(super) host: Option<CpuShare>,
    /// Of the sequencer.
    pub(super) sequencer: Option<CpuShare>,
}

impl Capacity {
    /// So many cores, and no quotas.
    pub(super) fn new(cores: u64) -> Self {
        Self { cores, host: None, sequencer: None }
    }
}

/// Who was at the limit of what it may use for so many seconds, where all is on one machine.
pub(super) fn limits(capacity: Capacity, used: &ClusterUsage, seconds: f64) -> Limits {
    let cores = |nanos: u64| nanos as f64 / 1e9 / seconds.max(1e-9);
    let is_used_up = |nanos: u64, share: Option<CpuShare>| {
        share.is_some_and(|share| cores(nanos) >= share.cores() * QUOTA_USED_UP)
    };
    let relay_ns = used.relay.as_ref().map(|relay| relay.cpu_ns);
    let own_ns = used.cpu_ns() + relay_ns.unwrap_or(0);
    let others_ns = used.machine_busy_ns.map(|busy| busy.saturating_sub(own_ns));
    let all = cores(own_ns + others_ns.unwrap_or(0));
    let found = [
        ("hosts", used.nodes.iter().skip(1).any(|node| is_used_up(node.cpu_ns, capacity.host))),
        ("sequencer", is_used_up(used.sequencer().cpu_ns, capacity.sequencer)),
        ("machine", all >= capacity.cores as f64 * MACHINE_USED_UP),
    ];
    let mut hosts = Throttling::default();
    used.throttling.iter().filter(|(node, _)| **node > 0).for_each(|(_, one)| hosts.add(*one));
    Limits {
        used_up: Some(found.iter().filter(|(_, is)| *is).map(|(name, _)| (*name).into()).collect()),
        hosts_throttled: hosts.share(),
        sequencer_throttled: used.throttling.get(&0).and_then(|one| one.share()),
        relay_seconds: relay_ns.map(|nanos| nanos as f64 / 1e9),
        others_cores: others_ns.map(cores),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::usage::ProcessUsage;

    fn limits_of(sequencer: u64, hosts: [u64; 2], driver: u64, relay: Option<u64>) -> Limits {
        let process =
            |millis: u64| ProcessUsage { cpu_ns: millis * 1_000_000, ..Default::default() };
        let stood = |throttled| Throttling { periods: 100, throttled };
        let used = ClusterUsage {
            nodes: [sequencer, hosts[0], hosts[1]].map(process).to_vec(),
            driver: process(driver),
            relay: relay.map(process),
            throttling: [(1, stood(30)), (2, stood(50))].into(),
            ..ClusterUsage::default()
        };
        let share = |text: &str| Some(text.parse().unwrap());
        let capacity = Capacity { host: share("8%"), sequencer: share("50%"), ..Capacity::new(2) };
        limits(capacity, &used, 1.0)
    }

    #[test]
    fn whoever_uses_all_that_it_may_is_the_limit() {
        for (found, expected) in [
            (limits_of(100, [10, 79], 100, None), &["hosts"][..]),
            (limits_of(480, [10, 20], 100, None), &["sequencer"]),
            (limits_of(100, [10, 20], 1_800, None), &["machine"]),
            (limits_of(100, [10, 20], 100, Some(1_700)), &["machine"]),
            (limits_of(499, [80, 80], 1_300, None), &["hosts", "sequencer", "machine"]),
            (limits_of(100, [10, 20], 100, None), &[]),
        ] {
            assert_eq!(found.used_up.unwrap(), expected);
        }
    }

    #[test]
    fn what_others_on_the_machine_do_is_told_and_uses_it_up() {
        let of = |busy: Option<u64>| {
            let used = ClusterUsage {
                nodes: vec![ProcessUsage { cpu_ns: 1_000_000_000, ..Default::default() }],
                machine_busy_ns: busy,
                ..ClusterUsage::default()
            };
            let limits = limits(Capacity::new(2), &used, 1.0);
            (limits.others_cores, limits.used_up.unwrap())
        };
        assert_eq!(of(Some(1_950_000_000)), (Some(0.95), vec!["machine".to_owned()]));
        assert_eq!(of(Some(900_000_000)), (Some(0.0), vec![]));
        assert_eq!(of(None), (None, vec![]));
    }

    #[test]
    fn what_stood_still_and_what_the_relay_cost_is_told() {
        let limits = limits_of(1, [1, 1], 1, Some(500));
        assert_eq!(limits.hosts_throttled, Some(0.4));
        assert_eq!((limits.sequencer_throttled, limits.relay_seconds), (None, Some(0.5)));
    }
}
