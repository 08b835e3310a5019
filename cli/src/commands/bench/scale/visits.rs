//! In which order everything is measured.

/// One measurement, on a cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visit {
    /// The first is 0.
    pub(super) repeat: u32,
    pub(super) hosts: u16,
    /// How many of 100 transactions touch several partitions; `None` is as accounts happen to lie,
    /// and nothing else if there is one partition.
    pub(super) share: Option<u8>,
}

impl std::fmt::Display for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { repeat, hosts, share } = self;
        let plural = if *hosts == 1 { "" } else { "s" };
        write!(f, "repeat {}, {hosts} host{plural}", repeat + 1)?;
        share.map_or(Ok(()), |share| write!(f, ", {share} % multi-partition"))
    }
}

/// All visits: each repeat goes through all numbers of hosts and all shares, the next one back, so
/// that a machine that gets slower tilts no ratio. Where there is one partition, nothing can touch
/// several.
pub(super) fn visits(
    hosts: &[u16],
    shares: &[Option<u8>],
    repeats: u32,
    partitions: impl Fn(u16) -> u16,
) -> Vec<Visit> {
    let (hosts, shares) = (sorted(hosts), sorted(shares));
    let mut visits = Vec::new();
    for repeat in 0..repeats {
        let mut round = Vec::new();
        for &hosts in &hosts {
            let is_alone = partitions(hosts) == 1;
            let possible =
                shares.iter().filter(|share| !is_alone || share.is_none_or(|one| one == 0));
            round.extend(possible.map(|share| Visit { repeat, hosts, share: *share }));
        }
        if repeat % 2 == 1 {
            round.reverse();
        }
        visits.append(&mut round);
    }
    visits
}

fn sorted<T: Ord + Copy>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort_unstable();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forth_and_back() {
        let visits = visits(&[4, 2, 2], &[Some(10), Some(0)], 2, |hosts| hosts);
        let order: Vec<_> =
            visits.iter().map(|visit| (visit.repeat, visit.hosts, visit.share.unwrap())).collect();
        let forth = [(0, 2, 0), (0, 2, 10), (0, 4, 0), (0, 4, 10)];
        let back = [(1, 4, 10), (1, 4, 0), (1, 2, 10), (1, 2, 0)];
        assert_eq!(order, [forth, back].concat());
        assert_eq!(visits[1].to_string(), "repeat 1, 2 hosts, 10 % multi-partition");
    }

    #[test]
    fn one_partition_has_nothing_but_transactions_within_it() {
        let shares = [Some(0), Some(50)];
        assert_eq!(visits(&[1], &shares, 1, |hosts| hosts).len(), 1);
        assert_eq!(visits(&[1], &shares, 1, |hosts| 2 * hosts).len(), 2);
        assert!(visits(&[1], &shares[1..], 3, |hosts| hosts).is_empty());
        assert_eq!(visits(&[1], &[None], 1, |hosts| hosts).len(), 1);
    }
}
