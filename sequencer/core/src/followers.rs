//! The executors, as the sequencer sees them: which links are up, how far each partition is, and
//! which epoch each host is to be sent next.
//!
//! ```text
//!  link up ──▶ ask for receipts;  wait for the first progress of the session
//!  progress ─▶ the session is served from the least applied epoch on:
//!                  next epoch in the ring?  send it
//!                  not there any more?      read the log until the ring goes on
//!  link down ▶ the session is over, wherever it was; its successor begins anew
//! ```
//!
//! **Invariant:** within a session, epochs are handed out one after another without a gap, from the
//! one after the least that the host said its partitions have applied.
//!
//! **Invariant:** no epoch is handed out that was not reported as ordered and durable, whatever the
//! log holds already.

use std::sync::Arc;

use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::{EpochNumber, NodeId, PartitionId};

use crate::dispatch::{CutEpoch, Ring, RingLimits};
use crate::layout::Layout;

/// A partition has applied an epoch that is not in the log: the log has lost its end, or is not
/// the one of this cluster. Nothing may go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{partition} on {host} has applied {applied}, but the log ends with {ordered}: the log has \
     lost its end, or is not the one of this cluster. Put back the right log, or start with empty \
     stores"
)]
pub struct AheadOfLog {
    /// The host.
    pub host: NodeId,
    /// Its partition.
    pub partition: PartitionId,
    /// What the partition has applied.
    pub applied: EpochNumber,
    /// The last epoch that is ordered and durable.
    pub ordered: EpochNumber,
}

/// What is to be done for a host next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Send an epoch on a session. If that fails, call [`Followers::on_send_failed`].
    Send {
        /// The session.
        session: u64,
        /// The epoch.
        epoch: Arc<CutEpoch>,
    },
    /// Read the log from an epoch on. Ask [`Followers::take_from_log`] about each epoch before it
    /// is sent on the session, and stop when it says no.
    ReadLog {
        /// The session.
        session: u64,
        /// The first epoch wanted.
        from: EpochNumber,
    },
}

/// A session with a host.
#[derive(Debug)]
struct Session {
    number: u64,
    /// The last epoch that was handed out, or that the host need not be sent; `None` until the
    /// host has said how far it is.
    cursor: Option<EpochNumber>,
    /// Something could not be sent: what follows would leave a gap.
    broken: bool,
}

/// The executors. See the module's documentation.
#[derive(Debug)]
pub struct Followers {
    layout: Arc<Layout>,
    /// How far each partition was when it was last heard of.
    applied: Vec<EpochNumber>,
    /// The session of each host, in the order of hosts.
    sessions: Vec<Option<Session>>,
    ring: Ring,
    /// The last epoch that is ordered and durable.
    ordered: EpochNumber,
}

impl Followers {
    /// Executors of which nothing is known yet. The log is durable and ends with `ordered`.
    #[must_use]
    pub fn new(layout: Arc<Layout>, ordered: EpochNumber, limits: RingLimits) -> Self {
        Self {
            applied: vec![EpochNumber::default(); layout.partitions()],
            sessions: layout.hosts().iter().map(|_| None).collect(),
            ring: Ring::new(limits),
            layout,
            ordered,
        }
    }

    /// The hosts.
    #[must_use]
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The last epoch that is ordered and durable.
    #[must_use]
    pub fn ordered(&self) -> EpochNumber {
        self.ordered
    }

    /// The greatest epoch that every partition has applied, as far as is known. It falls when a
    /// partition has lost its store.
    #[must_use]
    pub fn applied_by_all(&self) -> EpochNumber {
        self.applied.iter().min().copied().unwrap_or_default()
    }

    /// A link came up. Returns what has to be sent on the session, if the node is a host: receipts
    /// of what is not `settled` may have been lost with the session before.
    pub fn on_link_up(
        &mut self,
        host: NodeId,
        session: u64,
        settled: EpochNumber,
    ) -> Option<PeerMessage> {
        let place = self.layout.place(host)?;
        self.sessions[place] = Some(Session { number: session, cursor: None, broken: false });
        Some(PeerMessage::ResendReceipts { from: settled.next() })
    }

    /// A link went down. Ignored if the host has a later session already.
    pub fn on_link_down(&mut self, host: NodeId, session: u64) {
        let Some(place) = self.layout.place(host) else { return };
        self.sessions[place].take_if(|current| current.number == session);
    }

    /// A host said how far its partitions are. What is said on a session that is over says nothing
    /// about now, and what a host does not hold is none of its business: both are ignored.
    ///
    /// # Errors
    /// [`AheadOfLog`]: then nothing of it is taken, and the sequencer has to stop.
    pub fn on_progress(
        &mut self,
        host: NodeId,
        session: u64,
        statuses: &[PartitionStatus],
    ) -> Result<(), AheadOfLog> {
        let Some(place) = self.layout.place(host) else { return Ok(()) };
        let Some(current) = self.sessions[place].as_mut() else { return Ok(()) };
        if current.number != session {
            return Ok(());
        }
        let held = &self.layout.hosts()[place].partitions;
        let own = || statuses.iter().filter(|status| held.contains(&status.partition));
        if let Some(ahead) = own().find(|status| status.applied > self.ordered) {
            let (partition, applied, ordered) = (ahead.partition, ahead.applied, self.ordered);
            return Err(AheadOfLog { host, partition, applied, ordered });
        }
        if current.cursor.is_none() {
            // What a host says nothing of counts as empty: too much is sent rather than too little.
            held.iter().for_each(|p| self.applied[p.index()] = EpochNumber::default());
        }
        for status in own() {
            self.applied[status.partition.index()] = status.applied;
        }
        let least = held.iter().map(|partition| self.applied[partition.index()]).min();
        current.cursor = current.cursor.or(least);
        Ok(())
    }

    /// The next epoch is ordered and durable.
    ///
    /// # Panics
    /// If it is not the next one.
    pub fn on_ordered(&mut self, epoch: CutEpoch) {
        assert_eq!(epoch.number(), self.ordered.next(), "epochs are dense");
        self.ordered = epoch.number();
        self.ring.push(epoch);
    }

    /// What is to be done for a host now; `None` if there is nothing until something else happens.
    /// What is returned counts as handed out.
    pub fn next(&mut self, host: NodeId) -> Option<Step> {
        let place = self.layout.place(host)?;
        let session = self.sessions[place].as_mut().filter(|session| !session.broken)?;
        let from = session.cursor.filter(|cursor| *cursor < self.ordered)?.next();
        let session_number = session.number;
        let Some(epoch) = self.ring.get(from) else {
            return Some(Step::ReadLog { session: session_number, from });
        };
        session.cursor = Some(from);
        Some(Step::Send { session: session_number, epoch: epoch.clone() })
    }

    /// Whether the epoch `number`, which was read from the log, is to be sent to `host` on
    /// `session` now; if so, it counts as handed out. If not, reading ends: the session is over,
    /// the ring goes on from here, or the log holds more than is durable.
    pub fn take_from_log(&mut self, host: NodeId, session: u64, number: EpochNumber) -> bool {
        let Some(place) = self.layout.place(host) else { return false };
        let current = self.sessions[place].as_mut();
        let Some(current) = current.filter(|s| s.number == session && !s.broken) else {
            return false;
        };
        let is_next = current.cursor.is_some_and(|cursor| number == cursor.next());
        let taken = is_next && number <= self.ordered && self.ring.get(number).is_none();
        if taken {
            current.cursor = Some(number);
        }
        taken
    }

    /// Something could not be sent on a session: it gets nothing any more.
    pub fn on_send_failed(&mut self, host: NodeId, session: u64) {
        let Some(place) = self.layout.place(host) else { return };
        if let Some(current) = self.sessions[place].as_mut().filter(|s| s.number == session) {
            current.broken = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{Batch, EpochRecord, LaneId, PartitionMap};

    use super::*;
    use crate::Cutter;

    const FIRST: NodeId = NodeId(1);
    const SECOND: NodeId = NodeId(2);

    fn status(partition: u16, applied: u64) -> PartitionStatus {
        let applied = EpochNumber(applied);
        PartitionStatus { partition: PartitionId(partition), applied, durable: applied }
    }

    /// Two hosts, after epochs through `ordered`; the ring holds the last two after `before`.
    fn followers(before: u64, ordered: u64) -> Followers {
        let map = PartitionMap::even(3).unwrap();
        let held = [(FIRST, vec![PartitionId(0), PartitionId(1)]), (SECOND, vec![PartitionId(2)])];
        let layout = Arc::new(Layout::new(&held, &map).unwrap());
        let cutter = Cutter::new(LaneId(0), map, layout.clone());
        let limits = RingLimits { epochs_max: 2, bytes_max: usize::MAX };
        let mut followers = Followers::new(layout, EpochNumber(before), limits);
        for number in (before + 1..=ordered).map(EpochNumber) {
            let (parent, batches) = ([0; 32], Vec::new());
            let record = EpochRecord { number, timestamp_ms: 0, block: 0, parent, batches };
            followers.on_ordered(cutter.cut::<Batch>(&record, &[]));
        }
        followers
    }

    /// What comes next for a host, in words.
    fn next(followers: &mut Followers, host: NodeId) -> Option<String> {
        followers.next(host).map(|step| match step {
            Step::Send { session, epoch } => format!("send {} on {session}", epoch.number()),
            Step::ReadLog { session, from } => format!("read {from} for {session}"),
        })
    }

    #[test]
    fn a_session_is_served_from_the_least_applied_epoch_of_its_host() {
        let mut followers = followers(0, 5);
        let asked = followers.on_link_up(FIRST, 7, EpochNumber(2));
        assert_eq!(asked, Some(PeerMessage::ResendReceipts { from: EpochNumber(3) }));
        assert_eq!(next(&mut followers, FIRST), None, "it has not said how far it is");
        // What another host holds is none of its business.
        followers.on_progress(FIRST, 7, &[status(0, 5), status(1, 2), status(2, 9)]).unwrap();
        assert_eq!(next(&mut followers, FIRST).unwrap(), "read e3 for 7");
        assert!(!followers.take_from_log(FIRST, 7, EpochNumber(4)), "not the next one");
        assert!(followers.take_from_log(FIRST, 7, EpochNumber(3)));
        assert!(!followers.take_from_log(FIRST, 7, EpochNumber(4)), "the ring goes on from here");
        // Later progress does not make the session begin anew.
        followers.on_progress(FIRST, 7, &[status(1, 3)]).unwrap();
        assert_eq!(next(&mut followers, FIRST).unwrap(), "send e4 on 7");
        assert_eq!(next(&mut followers, FIRST).unwrap(), "send e5 on 7");
        assert_eq!(next(&mut followers, FIRST), None);
    }

    #[test]
    fn a_session_that_is_over_neither_gets_nor_says_anything() {
        let mut followers = followers(0, 2);
        followers.on_link_up(FIRST, 7, EpochNumber(0));
        followers.on_progress(FIRST, 7, &[status(0, 0), status(1, 0)]).unwrap();
        assert_eq!(next(&mut followers, FIRST).unwrap(), "send e1 on 7");
        followers.on_link_up(FIRST, 8, EpochNumber(0));
        followers.on_link_down(FIRST, 7);
        followers.on_progress(FIRST, 7, &[status(0, 2), status(1, 2)]).unwrap();
        followers.on_send_failed(FIRST, 7);
        assert!(!followers.take_from_log(FIRST, 7, EpochNumber(2)));
        assert_eq!(next(&mut followers, FIRST), None);
        followers.on_progress(FIRST, 8, &[status(0, 0), status(1, 1)]).unwrap();
        assert_eq!(next(&mut followers, FIRST).unwrap(), "send e1 on 8");
        followers.on_send_failed(FIRST, 8);
        assert_eq!(next(&mut followers, FIRST), None, "what follows would leave a gap");
        followers.on_link_down(FIRST, 8);
        assert_eq!(next(&mut followers, FIRST), None);
    }

    #[test]
    fn what_all_have_applied_falls_with_a_lost_store() {
        let mut followers = followers(0, 5);
        for (host, session) in [(FIRST, 1), (SECOND, 2)] {
            followers.on_link_up(host, session, EpochNumber(0));
        }
        followers.on_progress(FIRST, 1, &[status(0, 5), status(1, 3)]).unwrap();
        assert_eq!(followers.applied_by_all(), EpochNumber(0));
        followers.on_progress(SECOND, 2, &[status(2, 4)]).unwrap();
        assert_eq!(followers.applied_by_all(), EpochNumber(3));
        followers.on_link_up(SECOND, 3, EpochNumber(0));
        assert_eq!(followers.applied_by_all(), EpochNumber(3), "it was so, and may be still");
        followers.on_progress(SECOND, 3, &[status(2, 1)]).unwrap();
        assert_eq!(followers.applied_by_all(), EpochNumber(1));
    }

    #[test]
    fn a_partition_that_is_not_reported_counts_as_empty() {
        let mut followers = followers(4, 5);
        followers.on_link_up(FIRST, 1, EpochNumber(0));
        followers.on_progress(FIRST, 1, &[status(1, 5)]).unwrap();
        assert_eq!(next(&mut followers, FIRST).unwrap(), "read e1 for 1");
    }

    #[test]
    fn a_partition_ahead_of_the_log_is_an_error() {
        let mut followers = followers(3, 3);
        followers.on_link_up(SECOND, 1, EpochNumber(0));
        let ahead = followers.on_progress(SECOND, 1, &[status(2, 4)]).unwrap_err();
        assert_eq!((ahead.partition, ahead.applied), (PartitionId(2), EpochNumber(4)));
        assert_eq!(followers.applied_by_all(), EpochNumber(0));
        // A node that holds nothing can say what it likes.
        assert_eq!(followers.on_link_up(NodeId(9), 2, EpochNumber(0)), None);
        followers.on_progress(NodeId(9), 2, &[status(2, 4)]).unwrap();
    }
}
