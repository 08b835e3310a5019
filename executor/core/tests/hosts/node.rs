//! A host with its partitions, and what its shell would do for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_executor_core::{
    EpochContext, FinishedEpoch, Host, HostOutput, KeyIndex, Output, Partition, Routes, Task,
};
use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::Channel;
use parsec_protocol::{
    EpochNumber, Key, NodeId, PartitionId, PartitionMap, Position, Push, Receipt, Role,
};

use crate::network::LinkNews;
use crate::store::Store;
use crate::support::execute;

/// Epochs in the inbox of a partition above which no more are taken from the sequencer.
const EPOCHS_WAITING_MAX: usize = 2;

/// Pushes that a partition keeps early: so few that some are lost.
const EARLY_PUSHES_MAX: usize = 4;

enum Event {
    Epoch(Arc<EpochContext>, Vec<(u32, Role)>),
    Push(Push),
}

/// A partition and its threads.
struct Shard {
    core: Partition,
    inbox: VecDeque<Event>,
    fetches: Vec<(KeyIndex, Key)>,
    tasks: Vec<Task>,
    finished: VecDeque<FinishedEpoch>,
    /// What a worker has not sent on its way.
    pushes: Vec<Push>,
    receipts: Vec<Receipt>,
    durable: EpochNumber,
}

impl Shard {
    /// Carries effects out of the state machine.
    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Fetch { index, key } => self.fetches.push((index, key)),
                Output::Push(push) => self.pushes.push(push),
                Output::Receipt(receipt) => self.receipts.push(Arc::unwrap_or_clone(receipt)),
                Output::Finished(epoch) => self.finished.push_back(*epoch),
            }
        }
    }
}

/// What is asked of a store, and answered later.
enum Question {
    Outbox {
        request: parsec_executor_core::Request,
        partition: PartitionId,
        to: PartitionId,
        after: EpochNumber,
        limit: usize,
    },
    Receipts {
        request: parsec_executor_core::Request,
        partition: PartitionId,
        from: EpochNumber,
        limit: usize,
    },
    Prune {
        partition: PartitionId,
        to: PartitionId,
        through: EpochNumber,
    },
}

/// A message to be sent.
pub(crate) struct Sending {
    pub(crate) to: NodeId,
    pub(crate) session: u64,
    pub(crate) channel: Channel,
    pub(crate) message: PeerMessage,
}

/// A host.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    host: Host,
    shards: BTreeMap<PartitionId, Shard>,
    pub(crate) stores: BTreeMap<PartitionId, Store>,
    questions: Vec<Question>,
    pub(crate) sendings: Vec<Sending>,
}

/// A random number in parts.
#[derive(Clone, Copy)]
pub(crate) struct Dice {
    pub(crate) what: usize,
    pub(crate) pick: usize,
}

impl Node {
    pub(crate) fn start(
        routes: Arc<Routes>,
        sequencer: NodeId,
        map: &Arc<PartitionMap>,
        stores: BTreeMap<PartitionId, Store>,
    ) -> Self {
        let applied: BTreeMap<_, _> =
            stores.iter().map(|(id, store)| (*id, store.applied())).collect();
        let shard = |(id, applied): (&PartitionId, &EpochNumber)| {
            let shard = Shard {
                core: Partition::with_cache(*id, map.clone(), *applied, 4)
                    .with_early_pushes(EARLY_PUSHES_MAX),
                inbox: VecDeque::new(),
                fetches: Vec::new(),
                tasks: Vec::new(),
                finished: VecDeque::new(),
                pushes: Vec::new(),
                receipts: Vec::new(),
                durable: EpochNumber(0),
            };
            (*id, shard)
        };
        let mut node = Self {
            id: routes.node(),
            shards: applied.iter().map(shard).collect(),
            host: Host::new(routes, sequencer, &applied),
            stores,
            questions: Vec::new(),
            sendings: Vec::new(),
        };
        node.bring_about();
        node
    }

    /// What is left after a power cut.
    pub(crate) fn lose_power(&mut self, pick: usize) -> BTreeMap<PartitionId, Store> {
        let mut stores = std::mem::take(&mut self.stores);
        for (at, store) in stores.values_mut().enumerate() {
            store.lose_power(pick >> at);
        }
        stores
    }

    pub(crate) fn accepts_orders(&self) -> bool {
        let epochs = |shard: &Shard| {
            shard.inbox.iter().filter(|event| matches!(event, Event::Epoch(..))).count()
        };
        self.shards.values().all(|shard| epochs(shard) < EPOCHS_WAITING_MAX)
    }

    pub(crate) fn on_link(&mut self, peer: NodeId, news: LinkNews) {
        match news {
            LinkNews::Up { session } => self.host.on_link_up(peer, session),
            LinkNews::Down { session } => self.host.on_link_down(peer, session),
        }
        self.bring_about();
    }

    pub(crate) fn on_message(&mut self, from: NodeId, session: u64, message: PeerMessage) {
        self.check_watermarks(&message);
        self.host.on_message(from, session, message).unwrap();
        self.bring_about();
    }

    fn check_watermarks(&self, message: &PeerMessage) {
        if let PeerMessage::Watermarks { partitions, .. } = message {
            assert!(partitions.iter().all(|status| status.durable <= status.applied));
            assert!(partitions.iter().all(|status| !self.shards.contains_key(&status.partition)));
        }
    }

    /// Does one of the things that its threads may do next.
    pub(crate) fn step(&mut self, dice: Dice) {
        let Dice { what, pick } = dice;
        let count = self.shards.len();
        let (id, shard) = self.shards.iter_mut().nth(pick % count).unwrap();
        let (id, store) = (*id, self.stores.get_mut(id).unwrap());
        let pick = pick / count;
        match what % 16 {
            0..=2 => match shard.inbox.pop_front() {
                Some(Event::Epoch(context, entries)) => shard.core.on_epoch(context, entries),
                Some(Event::Push(push)) => shard.core.on_push(push),
                None => {}
            },
            3..=4 if !shard.fetches.is_empty() => {
                let (index, key) = shard.fetches.swap_remove(pick % shard.fetches.len());
                shard.core.on_fetched(index, store.get(&key));
            }
            5..=6 => shard.tasks.extend(shard.core.take_ready()),
            7..=8 if !shard.tasks.is_empty() => {
                let task = shard.tasks.swap_remove(pick % shard.tasks.len());
                let position = Position { epoch: task.context.record.number, index: task.index };
                let (changes, receipt) = execute(&task.entry, position, &task.values);
                shard.core.on_executed(task, changes, receipt);
            }
            9..=10 => {
                let epoch = shard.finished.pop_front();
                if let Some(epoch) = epoch {
                    let number = epoch.epoch;
                    store.commit(epoch);
                    shard.core.on_stored(number);
                }
            }
            11 => {
                let (pushes, receipts) =
                    (std::mem::take(&mut shard.pushes), std::mem::take(&mut shard.receipts));
                self.host.on_pushes(pushes);
                self.host.on_receipts(id, receipts.into_iter().map(Arc::new).collect());
            }
            12 if pick.is_multiple_of(4) => shard.durable = store.sync(),
            12 if pick.is_multiple_of(3) => shard.core.enter_all(),
            13 => self.look_at_partitions(),
            14 => self.host.report_progress(),
            15 => self.answer(pick),
            _ => {}
        }
        self.bring_about();
    }

    /// Whether all is done and known to be durable everywhere.
    pub(crate) fn is_done(&self, last: EpochNumber) -> bool {
        let known = self.host.statuses().iter().all(|status| status.durable == last);
        known
            && self.stores.values().all(|store| store.applied() == last && store.owed().is_empty())
    }

    fn look_at_partitions(&mut self) {
        let mut synced = Vec::new();
        for (id, shard) in &mut self.shards {
            if shard.core.take_pushes_lost() {
                self.host.on_pushes_lost(*id);
            }
        }
        for (id, store) in &self.stores {
            self.host.on_applied(*id, store.applied());
            synced.push((*id, self.shards[id].durable));
        }
        self.host.on_durable(&synced);
    }

    fn answer(&mut self, pick: usize) {
        if self.questions.is_empty() {
            return;
        }
        match self.questions.swap_remove(pick % self.questions.len()) {
            Question::Outbox { request, partition, to, after, limit } => {
                // Small chunks, so that much can happen between two.
                let pushes = self.stores[&partition].outbox(to, after, limit.min(3));
                self.host.on_outbox(request, pushes);
            }
            Question::Receipts { request, partition, from, limit } => {
                let epochs = self.stores[&partition].receipts(from, limit.min(3));
                self.host.on_stored_receipts(request, epochs);
            }
            Question::Prune { partition, to, through } => {
                self.stores.get_mut(&partition).unwrap().prune(to, through);
            }
        }
    }

    fn bring_about(&mut self) {
        while let Some(output) = self.host.poll_output() {
            match output {
                HostOutput::Send { to, session, channel, message } => {
                    self.sendings.push(Sending { to, session, channel, message });
                }
                HostOutput::Epoch { partition, context, entries } => {
                    self.shard(partition).inbox.push_back(Event::Epoch(context, entries));
                }
                HostOutput::Pushes { partition, pushes } => {
                    self.shard(partition).inbox.extend(pushes.into_iter().map(Event::Push));
                }
                HostOutput::Resume { request, partition, to, after } => {
                    let core = &mut self.shard(partition).core;
                    core.on_resume(to, after);
                    let finished = core.finished();
                    self.host.on_resumed(request, finished);
                }
                HostOutput::ResumeReceipts { request, partition } => {
                    let core = &mut self.shard(partition).core;
                    core.on_receipts_lost();
                    let finished = core.finished();
                    self.host.on_resumed(request, finished);
                }
                HostOutput::ReadOutbox { request, partition, to, after, limit } => {
                    self.questions.push(Question::Outbox { request, partition, to, after, limit });
                }
                HostOutput::ReadReceipts { request, partition, from, limit } => {
                    self.questions.push(Question::Receipts { request, partition, from, limit });
                }
                HostOutput::PruneOutbox { partition, to, through } => {
                    self.questions.push(Question::Prune { partition, to, through });
                }
                HostOutput::Forgotten { .. } => panic!("no store was lost"),
                HostOutput::Stop(error) => panic!("{error}"),
            }
        }
        self.shards.values_mut().for_each(Shard::drain);
    }

    fn shard(&mut self, partition: PartitionId) -> &mut Shard {
        self.shards.get_mut(&partition).unwrap()
    }
}
