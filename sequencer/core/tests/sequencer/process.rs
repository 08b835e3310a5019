//! The sequencer's process: what a crash takes, and how it begins again.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::message::PeerMessage;
use parsec_protocol::{Batch, EpochNumber, EpochRecord, LaneId, NodeId, PartitionId, PartitionMap};
use parsec_sequencer_core::{
    CutEpoch, Durability, Followers, HomeChooser, Identity, Indexing, LaneOptions, Layout,
    LogExtent, Mark, Orderer, Rediscovery, Restored, Restorer, RingLimits, SingleLedger,
};

use crate::disk::{Index, Log, LogCommand};

pub(crate) const LANE: LaneId = LaneId(2);
const RING: RingLimits = RingLimits { epochs_max: 2, bytes_max: usize::MAX };

/// Reading the log for a host.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) session: u64,
    pub(crate) next: EpochNumber,
    /// What was read and is not sent yet.
    pub(crate) ahead: VecDeque<CutEpoch>,
    pub(crate) ended: bool,
}

/// What dies with the sequencer.
pub(crate) struct Process {
    pub(crate) orderer: Orderer<SingleLedger>,
    pub(crate) followers: Followers,
    pub(crate) indexing: Indexing,
    pub(crate) writing: Option<Mark>,
    pub(crate) durability: Durability,
    pub(crate) log: VecDeque<LogCommand>,
    pub(crate) dispatch: VecDeque<(EpochRecord, Vec<Arc<Batch>>)>,
    pub(crate) readers: Vec<Option<Reader>>,
    pub(crate) rediscoveries: Vec<Rediscovery>,
}

/// A link between the sequencer and a host.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) session: Option<u64>,
    pub(crate) to_host: VecDeque<PeerMessage>,
    pub(crate) from_host: VecDeque<PeerMessage>,
    /// What the sequencer has not noticed yet: a session, and whether it came up.
    pub(crate) events: VecDeque<(u64, bool)>,
    /// The session whose messages the sequencer takes.
    pub(crate) open: Option<u64>,
    /// A session on which the sequencer fails to send the whole of an epoch.
    pub(crate) fails: Option<u64>,
    /// A session on which that has happened: it ends sooner or later.
    pub(crate) doomed: Option<u64>,
}

impl Link {
    pub(crate) fn say(&mut self, message: PeerMessage) {
        if self.session.is_some() {
            self.from_host.push_back(message);
        }
    }
}

pub(crate) fn map() -> PartitionMap {
    PartitionMap::even(5).unwrap()
}

pub(crate) fn layout() -> Arc<Layout> {
    let partitions = |held: &[u16]| held.iter().copied().map(PartitionId).collect::<Vec<_>>();
    let hosts = [
        (NodeId(3), partitions(&[0, 3])),
        (NodeId(5), partitions(&[1, 4])),
        (NodeId(7), partitions(&[2])),
    ];
    Arc::new(Layout::new(&hosts, &map()).unwrap())
}

pub(crate) fn options() -> LaneOptions {
    LaneOptions {
        pending_transactions_max: 8,
        in_flight_transactions_max: 10,
        epochs_in_flight_max: 4,
        batch_transactions_max: 3,
        retained_transactions_max: 16,
        epoch_interval_min_us: 1_000,
        ..LaneOptions::default()
    }
}

/// Starts the sequencer from what is on its disk.
pub(crate) fn start(
    options: &LaneOptions,
    layout: &Arc<Layout>,
    disk: &Log,
    index: &mut Index,
) -> Process {
    let (epochs, unordered) = disk.read(disk.synced);
    let last_epoch = epochs.last().map(|(record, _)| record.clone());
    let ordered = last_epoch.as_ref().map_or(EpochNumber(0), |record| record.number);
    let batches = epochs.iter().flat_map(|(_, batches)| batches).chain(&unordered);
    let extent = LogExtent {
        last_epoch,
        last_batch: batches.last().map_or(0, |batch| batch.sequence),
        unordered: unordered.len() as u64,
    };
    let identity =
        Identity { lane: LANE, options: options.clone(), homes: HomeChooser::new(map()) };
    let mut restorer = Restorer::new(identity, &extent, index.mark()).unwrap();
    let first = restorer.first_epoch().unwrap_or_else(|| ordered.next());
    for (record, batches) in epochs.iter().filter(|(record, _)| record.number >= first) {
        let batches = batches.iter().map(|batch| Batch::clone(batch));
        index.writes.extend(restorer.on_epoch(record, batches).unwrap());
    }
    unordered.iter().for_each(|batch| restorer.on_unordered(Batch::clone(batch)));
    let (Restored { orderer, indexing }, write) = restorer.finish().unwrap();
    index.writes.extend(write);
    Process {
        orderer,
        followers: Followers::new(layout.clone(), ordered, RING),
        indexing,
        writing: None,
        durability: Durability::new(ordered),
        log: VecDeque::new(),
        dispatch: VecDeque::new(),
        readers: layout.hosts().iter().map(|_| None).collect(),
        rediscoveries: Vec::new(),
    }
}
