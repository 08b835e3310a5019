//! A store that loses what was not synced.

use std::collections::{BTreeMap, BTreeSet};

use parsec_executor_core::FinishedEpoch;
use parsec_protocol::{EpochNumber, Key, PartitionId, Position, Push, Receipt, Value};

use crate::support::State;

enum Operation {
    Commit(FinishedEpoch),
    Prune { to: PartitionId, through: EpochNumber },
}

/// A journal, and what it adds up to.
#[derive(Default)]
pub(crate) struct Store {
    journal: Vec<Operation>,
    synced: usize,
    contents: Contents,
}

#[derive(Default)]
struct Contents {
    state: State,
    receipts: BTreeMap<Position, Receipt>,
    outbox: BTreeMap<(PartitionId, EpochNumber), Vec<Push>>,
    applied: EpochNumber,
}

impl Contents {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Commit(epoch) => self.commit(epoch),
            Operation::Prune { to, through } => {
                self.outbox.retain(|(owed, epoch), _| owed != to || epoch > through);
            }
        }
    }

    fn commit(&mut self, epoch: &FinishedEpoch) {
        assert_eq!(epoch.epoch, self.applied.next(), "epochs are stored in order, each once");
        for write in &epoch.writes {
            assert_eq!(self.state.get(&write.key), write.old.as_ref(), "{}", write.key);
            match &write.new {
                Some(value) => drop(self.state.insert(write.key.clone(), value.clone())),
                None => drop(self.state.remove(&write.key)),
            }
        }
        self.receipts
            .extend(epoch.receipts.iter().map(|each| (each.position, Receipt::clone(each))));
        for push in &epoch.outbox {
            self.outbox.entry((push.to, epoch.epoch)).or_default().push(push.clone());
        }
        self.applied = epoch.epoch;
    }
}

impl Store {
    pub(crate) fn commit(&mut self, epoch: FinishedEpoch) {
        self.write(Operation::Commit(epoch));
    }

    pub(crate) fn prune(&mut self, to: PartitionId, through: EpochNumber) {
        self.write(Operation::Prune { to, through });
    }

    fn write(&mut self, operation: Operation) {
        self.contents.apply(&operation);
        self.journal.push(operation);
    }

    /// Makes everything durable; through which epoch.
    pub(crate) fn sync(&mut self) -> EpochNumber {
        self.synced = self.journal.len();
        self.contents.applied
    }

    /// Loses some of what was not synced.
    pub(crate) fn lose_power(&mut self, dice: usize) {
        let unsynced = self.journal.len() - self.synced;
        self.journal.truncate(self.synced + dice % (unsynced + 1));
        self.synced = self.journal.len();
        self.contents = Contents::default();
        self.journal.iter().for_each(|operation| self.contents.apply(operation));
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        self.contents.state.get(key).cloned()
    }

    pub(crate) fn applied(&self) -> EpochNumber {
        self.contents.applied
    }

    pub(crate) fn state(&self) -> &State {
        &self.contents.state
    }

    /// To whom anything is owed.
    pub(crate) fn owed(&self) -> Vec<PartitionId> {
        let owed: BTreeSet<_> = self.contents.outbox.keys().map(|(to, _)| *to).collect();
        owed.into_iter().collect()
    }

    /// Whole epochs until there are `limit` pushes.
    pub(crate) fn outbox(&self, to: PartitionId, after: EpochNumber, limit: usize) -> Vec<Push> {
        let mut owed = Vec::new();
        for pushes in self
            .contents
            .outbox
            .range((to, after.next())..)
            .take_while(|((owed, _), _)| *owed == to)
        {
            if owed.len() >= limit {
                break;
            }
            owed.extend_from_slice(pushes.1);
        }
        owed
    }

    /// Whole epochs until there are `limit` receipts.
    pub(crate) fn receipts(
        &self,
        from: EpochNumber,
        limit: usize,
    ) -> Vec<(EpochNumber, Vec<Receipt>)> {
        let mut epochs: Vec<(EpochNumber, Vec<Receipt>)> = Vec::new();
        let start = Position { epoch: from, index: 0 };
        for (count, (position, receipt)) in self.contents.receipts.range(start..).enumerate() {
            match epochs.last_mut() {
                Some((epoch, receipts)) if *epoch == position.epoch => {
                    receipts.push(receipt.clone());
                }
                _ if count >= limit => break,
                _ => epochs.push((position.epoch, vec![receipt.clone()])),
            }
        }
        epochs
    }
}
