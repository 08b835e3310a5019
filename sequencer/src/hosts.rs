//! The executors: which host holds which partition, which links are up, how far each partition is.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::transport::{Channel, LinkEvent, PeerNetwork};
use parsec_protocol::{EpochNumber, NodeId, PartitionId, PartitionMap};
use tokio::sync::watch;

/// What a host's link is like, for the one who sends epochs on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// The session that is up.
    pub(crate) session: Option<u64>,
    /// The epoch after which this session has to be sent everything, once the host has said so.
    pub(crate) after: Option<EpochNumber>,
}

/// Why the hosts that were configured can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum HostsError {
    #[error("no host holds {partition}")]
    Unheld { partition: PartitionId },
    #[error("both {first} and {second} are configured to hold {partition}; only one may")]
    HeldTwice { partition: PartitionId, first: NodeId, second: NodeId },
    #[error("{host} is configured to hold {partition}, but there are {partitions} partitions")]
    Unknown { host: NodeId, partition: PartitionId, partitions: u16 },
}

/// The executors.
#[derive(Debug)]
pub(crate) struct Hosts {
    /// The partitions of each host.
    hosts: BTreeMap<NodeId, Vec<PartitionId>>,
    /// The host of each partition.
    holder: Vec<NodeId>,
    links: BTreeMap<NodeId, watch::Sender<LinkState>>,
    applied: Mutex<Vec<EpochNumber>>,
    /// The greatest epoch that every partition has applied.
    applied_by_all: watch::Sender<EpochNumber>,
}

impl Hosts {
    pub(crate) fn new(
        hosts: &[(NodeId, Vec<PartitionId>)],
        map: &PartitionMap,
    ) -> Result<Self, HostsError> {
        let partitions = map.len();
        let mut holder: Vec<Option<NodeId>> = vec![None; usize::from(partitions)];
        let mut table: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (host, held) in hosts {
            for &partition in held {
                let slot = holder.get_mut(partition.index());
                let slot =
                    slot.ok_or(HostsError::Unknown { host: *host, partition, partitions })?;
                if let Some(first) = slot.replace(*host) {
                    return Err(HostsError::HeldTwice { partition, first, second: *host });
                }
                table.entry(*host).or_default().push(partition);
            }
        }
        let holder: Result<Vec<_>, _> = map
            .partitions()
            .zip(holder)
            .map(|(partition, host)| host.ok_or(HostsError::Unheld { partition }))
            .collect();
        Ok(Self {
            links: table.keys().map(|host| (*host, watch::Sender::default())).collect(),
            hosts: table,
            holder: holder?,
            applied: Mutex::new(vec![EpochNumber::default(); usize::from(partitions)]),
            applied_by_all: watch::Sender::default(),
        })
    }

    /// The hosts, in order, with their partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &[PartitionId])> {
        self.hosts.iter().map(|(host, held)| (*host, &held[..]))
    }

    /// The host that holds a partition.
    pub(crate) fn holder(&self, partition: PartitionId) -> Option<NodeId> {
        self.holder.get(partition.index()).copied()
    }

    /// What the link to `host` is like, from now on.
    pub(crate) fn link(&self, host: NodeId) -> Option<watch::Receiver<LinkState>> {
        self.links.get(&host).map(watch::Sender::subscribe)
    }

    /// The greatest epoch that every partition has applied, from now on. It falls when a partition
    /// has lost its store.
    pub(crate) fn applied_by_all(&self) -> watch::Receiver<EpochNumber> {
        self.applied_by_all.subscribe()
    }

    /// A link came up or went down. Returns the host and session that came up.
    pub(crate) fn on_link(&self, event: &LinkEvent) -> Option<(NodeId, u64)> {
        match *event {
            LinkEvent::Up { node, session } => {
                let link = self.links.get(&node)?;
                link.send_replace(LinkState { session: Some(session), after: None });
                tracing::info!(%node, "an executor's link is up");
                Some((node, session))
            }
            LinkEvent::Down { node, session, ref reason } => {
                let link = self.links.get(&node)?;
                link.send_if_modified(|state| {
                    let current = state.session == Some(session);
                    if current {
                        *state = LinkState::default();
                    }
                    current
                });
                tracing::warn!(%node, %reason, "an executor's link is down");
                None
            }
            LinkEvent::Failed { ref node, address, ref reason } => {
                tracing::debug!(?node, %address, %reason, "a link could not come up");
                None
            }
        }
    }

    /// A host said how far its partitions are.
    ///
    /// # Errors
    /// The partition that is ahead of `ordered`, the end of the log, and how far it is.
    pub(crate) fn on_progress(
        &self,
        host: NodeId,
        session: u64,
        statuses: &[PartitionStatus],
        ordered: EpochNumber,
    ) -> Result<(), PartitionStatus> {
        let own = |status: &&PartitionStatus| self.holder(status.partition) == Some(host);
        if let Some(ahead) = statuses.iter().filter(own).find(|status| status.applied > ordered) {
            return Err(ahead.clone());
        }
        let mut applied = self.lock();
        for status in statuses.iter().filter(own) {
            applied[status.partition.index()] = status.applied;
        }
        let held = self.hosts.get(&host).map_or(&[][..], Vec::as_slice);
        let least = held.iter().map(|partition| applied[partition.index()]).min();
        let by_all = applied.iter().min().copied().unwrap_or_default();
        drop(applied);
        if let (Some(link), Some(least)) = (self.links.get(&host), least) {
            link.send_if_modified(|state| {
                let first = state.session == Some(session) && state.after.is_none();
                if first {
                    state.after = Some(least);
                }
                first
            });
        }
        self.applied_by_all.send_if_modified(|known| std::mem::replace(known, by_all) != by_all);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<EpochNumber>> {
        // Every change of it is a single assignment, so a panic elsewhere leaves it whole.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a host whose link came up for the receipts that may not have arrived.
pub(crate) async fn ask_for_receipts(
    network: &PeerNetwork,
    host: NodeId,
    session: u64,
    settled: EpochNumber,
) {
    let message = PeerMessage::ResendReceipts { from: settled.next() };
    if let Err(error) = network.send_on(host, session, Channel::Order, &message).await {
        tracing::debug!(%host, %error, "the link went down again at once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(partition: u16, applied: u64) -> PartitionStatus {
        let applied = EpochNumber(applied);
        PartitionStatus { partition: PartitionId(partition), applied, durable: applied }
    }

    fn two_hosts() -> Hosts {
        let held =
            [(NodeId(1), vec![PartitionId(0), PartitionId(1)]), (NodeId(2), vec![PartitionId(2)])];
        Hosts::new(&held, &PartitionMap::even(3).unwrap()).unwrap()
    }

    #[test]
    fn every_partition_needs_one_host() {
        let map = PartitionMap::even(2).unwrap();
        let hosts = |held: &[(u16, &[u16])]| {
            let held: Vec<_> = held
                .iter()
                .map(|(node, held)| {
                    (NodeId(*node), held.iter().copied().map(PartitionId).collect())
                })
                .collect();
            Hosts::new(&held, &map).map(|_| ())
        };
        assert_eq!(hosts(&[(1, &[0]), (2, &[1])]), Ok(()));
        assert_eq!(hosts(&[(1, &[0])]), Err(HostsError::Unheld { partition: PartitionId(1) }));
        assert!(matches!(hosts(&[(1, &[0, 1]), (2, &[1])]), Err(HostsError::HeldTwice { .. })));
        assert!(matches!(hosts(&[(1, &[0, 1, 2])]), Err(HostsError::Unknown { .. })));
    }

    #[test]
    fn a_session_begins_after_the_least_applied_epoch_of_its_host() {
        let hosts = two_hosts();
        let link = hosts.link(NodeId(1)).unwrap();
        hosts.on_link(&LinkEvent::Up { node: NodeId(1), session: 7 });
        let statuses = [status(0, 5), status(1, 3), status(2, 0)];
        hosts.on_progress(NodeId(1), 7, &statuses, EpochNumber(9)).unwrap();
        let begun = LinkState { session: Some(7), after: Some(EpochNumber(3)) };
        assert_eq!(*link.borrow(), begun);
        // Later progress does not make the session begin anew.
        hosts.on_progress(NodeId(1), 7, &[status(1, 6)], EpochNumber(9)).unwrap();
        assert_eq!(*link.borrow(), begun);
        assert_eq!(*hosts.applied_by_all().borrow(), EpochNumber(0));
        hosts.on_progress(NodeId(2), 8, &[status(2, 8)], EpochNumber(9)).unwrap();
        assert_eq!(*hosts.applied_by_all().borrow(), EpochNumber(5));
    }

    #[test]
    fn a_partition_ahead_of_the_log_is_an_error() {
        let hosts = two_hosts();
        let ahead = hosts.on_progress(NodeId(2), 1, &[status(2, 4)], EpochNumber(3));
        assert_eq!(ahead, Err(status(2, 4)));
        // What another host holds is none of its business.
        assert_eq!(hosts.on_progress(NodeId(1), 1, &[status(2, 4)], EpochNumber(3)), Ok(()));
    }
}
