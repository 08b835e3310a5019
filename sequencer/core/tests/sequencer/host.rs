//! A host of executors: takes what it is sent, and checks that it is what it has to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::{
    Access, Entry, EpochNumber, EpochRecord, HostSlices, Key, LaneId, Mode, Namespace, NodeId,
    Outcome, PartitionId, Position, Receipt, Role, TxId,
};
use parsec_sequencer_core::{Word, word};

/// How often each transaction strays before it gives a final receipt.
pub(crate) type Strays = BTreeMap<u8, u8>;

pub(crate) fn key(number: u8) -> Key {
    Key::new(Namespace::partitioned(1), &[number]).unwrap()
}

/// What executing an entry gives: it depends on the entry and its position alone.
pub(crate) fn execute(strays: &Strays, entry: &Entry, position: Position) -> Receipt {
    let often = strays.get(&entry.id.0[0]).copied().unwrap_or(0);
    let stray = Access { key: key(200), mode: Mode::Read };
    Receipt {
        id: entry.id,
        position,
        attempt: entry.attempt,
        outcome: match entry.attempt < often {
            true => Outcome::Strayed { key: stray.key, mode: stray.mode },
            false => Outcome::Committed,
        },
        work: 1,
        output: entry.payload.clone().into(),
        events: Vec::new(),
    }
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    applied: EpochNumber,
    durable: EpochNumber,
}

/// A host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: NodeId,
    partitions: BTreeMap<PartitionId, Progress>,
    /// The last epoch that arrived, and its digest if the host has seen it.
    last: EpochNumber,
    last_digest: Option<[u8; 32]>,
    slices: BTreeMap<(LaneId, u64), HostSlices>,
    /// The transactions that run here, by epoch and home.
    homes: BTreeMap<(EpochNumber, PartitionId), Vec<(Position, Entry)>>,
    /// What the partitions have stored.
    pub(crate) receipts: BTreeMap<Position, (PartitionId, Receipt)>,
}

impl Host {
    pub(crate) fn new(node: NodeId, partitions: &[PartitionId]) -> Self {
        Self {
            node,
            partitions: partitions.iter().map(|p| (*p, Progress::default())).collect(),
            last: EpochNumber(0),
            last_digest: None,
            slices: BTreeMap::new(),
            homes: BTreeMap::new(),
            receipts: BTreeMap::new(),
        }
    }

    /// The first thing to say on a session, and whenever a partition has got on.
    pub(crate) fn progress(&self) -> PeerMessage {
        let status = |(partition, progress): (&PartitionId, &Progress)| PartitionStatus {
            partition: *partition,
            applied: progress.applied,
            durable: progress.durable,
        };
        PeerMessage::Progress(self.partitions.iter().map(status).collect())
    }

    /// The least that its partitions have applied.
    pub(crate) fn applied(&self) -> EpochNumber {
        self.partitions.values().map(|progress| progress.applied).min().unwrap()
    }

    pub(crate) fn on_link_up(&mut self) {
        self.slices.clear();
    }

    /// Takes a message; returns receipts that were asked for.
    pub(crate) fn on_message(&mut self, message: PeerMessage) -> Vec<(PartitionId, Receipt)> {
        match message {
            PeerMessage::Slices(slices) => {
                self.slices.insert((slices.lane, slices.sequence), slices);
            }
            PeerMessage::Epoch(record) => self.on_epoch(&record),
            PeerMessage::ResendReceipts { from } => {
                let from = Position { epoch: from, index: 0 };
                return self.receipts.range(from..).map(|(_, item)| item.clone()).collect();
            }
            other => panic!("{other:?} is not for an executor"),
        }
        Vec::new()
    }

    fn on_epoch(&mut self, record: &EpochRecord) {
        let number = record.number;
        let slices: Vec<_> = record
            .batches
            .iter()
            .map(|batch| self.slices.remove(&(batch.lane, batch.sequence)).expect("slices first"))
            .collect();
        if number <= self.last {
            return;
        }
        assert_eq!(number, self.last.next(), "an epoch is missing at {}", self.node);
        assert!(self.last_digest.is_none_or(|digest| digest == record.parent), "another history");
        (self.last, self.last_digest) = (number, Some(record.digest()));
        let mut first = 0;
        for (batch, slices) in record.batches.iter().zip(slices) {
            assert_eq!(slices.digest, batch.digest);
            for slice in slices.slices {
                for entry in slice.entries {
                    let Role::Home { entry: home, .. } = entry.role else { continue };
                    let position = Position { epoch: number, index: first + entry.index };
                    self.homes
                        .entry((number, slice.partition))
                        .or_default()
                        .push((position, Arc::unwrap_or_clone(home)));
                }
            }
            first += batch.transactions;
        }
    }

    /// A partition applies its next epoch, if it is there. Returns its receipts.
    pub(crate) fn apply(&mut self, pick: usize, strays: &Strays) -> Vec<(PartitionId, Receipt)> {
        let partition = *self.partitions.keys().nth(pick % self.partitions.len()).unwrap();
        let progress = self.partitions.get_mut(&partition).unwrap();
        if progress.applied >= self.last {
            return Vec::new();
        }
        progress.applied = progress.applied.next();
        let entries = self.homes.remove(&(progress.applied, partition)).unwrap_or_default();
        let receipts = entries.iter().map(|(position, entry)| execute(strays, entry, *position));
        let receipts: Vec<_> = receipts.map(|receipt| (partition, receipt)).collect();
        self.receipts.extend(receipts.iter().map(|item| (item.1.position, item.clone())));
        receipts
    }

    pub(crate) fn sync(&mut self) {
        self.partitions.values_mut().for_each(|progress| progress.durable = progress.applied);
    }

    /// The host dies; its stores keep what was synced, and of the rest what `keep` says. With
    /// `wiped`, they are lost altogether.
    pub(crate) fn crash(&mut self, keep: u64, wiped: bool) {
        for progress in self.partitions.values_mut() {
            let kept = EpochNumber(progress.durable.0 + keep).min(progress.applied);
            let kept = if wiped { EpochNumber(0) } else { kept };
            *progress = Progress { applied: kept, durable: kept };
        }
        let applied: BTreeMap<_, _> =
            self.partitions.iter().map(|(partition, progress)| (*partition, *progress)).collect();
        self.receipts.retain(|at, (home, _)| at.epoch <= applied[home].applied);
        self.homes.clear();
        self.slices.clear();
        (self.last, self.last_digest) = (self.applied(), None);
    }

    /// Whether a transaction has ended here.
    pub(crate) fn has(&self, id: TxId) -> bool {
        let is_final = |receipt: &Receipt| matches!(word(receipt.clone().into()), Word::Final(_));
        self.receipts.values().any(|(_, receipt)| receipt.id == id && is_final(receipt))
    }
}
