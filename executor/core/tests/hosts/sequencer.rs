//! A sequencer that only dispatches what was ordered, and collects receipts.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_executor_core::EpochContext;
use parsec_protocol::message::PeerMessage;
use parsec_protocol::transaction::{Batch, LaneId};
use parsec_protocol::{
    EpochNumber, HostSlices, NodeId, PartitionId, PartitionMap, Position, Receipt, slice,
};

type Epochs = Vec<(Arc<EpochContext>, Batch)>;

/// What is known of one host's link.
struct Session {
    number: u64,
    /// The last epoch that was sent; none until the host has said how far it is.
    cursor: Option<EpochNumber>,
}

pub(crate) struct Sequencer {
    epochs: Epochs,
    map: Arc<PartitionMap>,
    hosts: BTreeMap<PartitionId, NodeId>,
    sessions: BTreeMap<NodeId, Session>,
    /// The last epoch that was ordered.
    ordered: EpochNumber,
    receipts: BTreeMap<Position, Receipt>,
}

impl Sequencer {
    pub(crate) fn new(
        epochs: Epochs,
        map: Arc<PartitionMap>,
        hosts: BTreeMap<PartitionId, NodeId>,
    ) -> Self {
        let (sessions, receipts) = (BTreeMap::new(), BTreeMap::new());
        Self { epochs, map, hosts, sessions, ordered: EpochNumber(0), receipts }
    }

    pub(crate) fn last(&self) -> EpochNumber {
        EpochNumber(self.epochs.len() as u64)
    }

    pub(crate) fn receipts(&self) -> Vec<Receipt> {
        self.receipts.values().cloned().collect()
    }

    pub(crate) fn has_all_receipts(&self) -> bool {
        self.receipts.len() == self.epochs.iter().map(|(_, batch)| batch.entries.len()).sum()
    }

    /// The last epoch through which all receipts are there.
    fn settled(&self) -> EpochNumber {
        let is_settled = |(context, batch): &&(Arc<EpochContext>, Batch)| {
            let epoch = context.record.number;
            let count = self
                .receipts
                .range(Position { epoch, index: 0 }..Position { epoch: epoch.next(), index: 0 });
            count.count() == batch.entries.len()
        };
        EpochNumber(self.epochs.iter().take_while(is_settled).count() as u64)
    }

    /// Forgets receipts of epochs that are not settled, and all links.
    pub(crate) fn restart(&mut self) {
        let settled = self.settled();
        self.receipts.retain(|position, _| position.epoch <= settled);
        self.sessions.clear();
    }

    pub(crate) fn on_link_up(&mut self, host: NodeId, session: u64) -> PeerMessage {
        self.sessions.insert(host, Session { number: session, cursor: None });
        PeerMessage::ResendReceipts { from: self.settled().next() }
    }

    pub(crate) fn on_link_down(&mut self, host: NodeId) {
        self.sessions.remove(&host);
    }

    pub(crate) fn on_message(&mut self, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Progress(statuses) => {
                let least = statuses.iter().map(|status| status.applied).min().unwrap();
                assert!(least <= self.ordered, "a host has applied what was not ordered");
                let session = self.sessions.get_mut(&from).unwrap();
                session.cursor.get_or_insert(least);
            }
            PeerMessage::Receipts { receipts, .. } => {
                for receipt in receipts.into_iter().map(Arc::unwrap_or_clone) {
                    let old = self.receipts.insert(receipt.position, receipt.clone());
                    assert!(old.is_none_or(|old| old == receipt), "two receipts differ");
                }
            }
            other => panic!("not for a sequencer: {other:?}"),
        }
    }

    /// Orders another epoch.
    pub(crate) fn order(&mut self) {
        if self.ordered < self.last() {
            self.ordered = self.ordered.next();
        }
    }

    /// Sends the next epoch to a host: the session, its slices and its record.
    pub(crate) fn dispatch(&mut self, host: NodeId) -> Option<(u64, [PeerMessage; 2])> {
        let session = self.sessions.get_mut(&host)?;
        let cursor = session.cursor.as_mut()?;
        if *cursor >= self.ordered {
            return None;
        }
        let (context, batch) = &self.epochs[cursor.0 as usize];
        *cursor = cursor.next();
        let held = slice::cut(batch, &self.map)
            .into_iter()
            .filter(|slice| self.hosts[&slice.partition] == host && !slice.entries.is_empty());
        let slices = HostSlices {
            lane: LaneId(0),
            sequence: batch.sequence,
            digest: context.record.batches[0].digest,
            slices: held.collect(),
        };
        let record = PeerMessage::Epoch(context.record.clone());
        Some((session.number, [PeerMessage::Slices(slices), record]))
    }
}
