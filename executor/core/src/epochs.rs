//! The epochs that a partition has in hand, and what each of them has done to it so far.

use std::collections::VecDeque;
use std::sync::Arc;

use parsec_protocol::plant::{self, Bug};
use parsec_protocol::{Change, EpochNumber, Key, Push, Receipt, Value};
use smallvec::SmallVec;

use crate::intake::EpochContext;
use crate::keys::{KeyIndex, KeyTable};

/// What an epoch did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochWrite {
    /// The key.
    pub key: Key,
    /// Its value before the epoch.
    pub old: Option<Value>,
    /// Its value after the epoch.
    pub new: Option<Value>,
    /// Whether this partition counts the key in the state digest: it does unless the key is
    /// replicated and its slot lies elsewhere.
    pub counted: bool,
}

/// An epoch of which a partition has done its part, to be stored atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedEpoch {
    /// Its number.
    pub epoch: EpochNumber,
    /// What it did to keys here, each key once.
    pub writes: Vec<EpochWrite>,
    /// Receipts of the transactions that ran here, in the order of their positions.
    pub receipts: Vec<Arc<Receipt>>,
    /// What was pushed to other partitions.
    pub outbox: Vec<Push>,
    /// How many of the transactions that ran here had keys elsewhere.
    pub multi_partition: u64,
}

/// An epoch in hand.
#[derive(Debug)]
pub(crate) struct OpenEpoch {
    pub(crate) context: Arc<EpochContext>,
    /// How many transactions of it this partition has not done its part for.
    pub(crate) outstanding: usize,
    /// How many transactions concern this partition.
    transactions: usize,
    writes: Vec<EpochWrite>,
    pub(crate) receipts: Vec<Arc<Receipt>>,
    pub(crate) outbox: Vec<Push>,
    pub(crate) multi_partition: u64,
}

/// The epochs that have written a key, in order, each with the place of its write in its list.
/// Those that are finished go when the next one comes.
pub(crate) type Writers = SmallVec<[(EpochNumber, u32); 1]>;

/// The epochs that a partition has in hand, in order, without gaps.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// The last one taken in.
    last: EpochNumber,
    open: VecDeque<OpenEpoch>,
    /// The last one that the store has.
    stored: EpochNumber,
    /// How many writes a transaction had in the last epoch that finished, about.
    writes_each: usize,
}

/// Most writes for each transaction of an epoch that there is room for from its beginning.
const WRITES_EACH_MAX: usize = 8;

impl Epochs {
    pub(crate) fn new(applied: EpochNumber) -> Self {
        Self { last: applied, open: VecDeque::new(), stored: applied, writes_each: 1 }
    }

    pub(crate) fn last(&self) -> EpochNumber {
        self.last
    }

    /// The last epoch that is finished here.
    pub(crate) fn finished(&self) -> EpochNumber {
        EpochNumber(self.last.0 - self.open.len() as u64)
    }

    /// Takes in the next epoch, of which `outstanding` transactions concern this partition.
    ///
    /// # Panics
    /// If an epoch is left out.
    pub(crate) fn begin(&mut self, context: Arc<EpochContext>, outstanding: usize) {
        let epoch = context.record.number;
        assert_eq!(epoch, self.last.next(), "epochs are taken in without gaps");
        self.last = epoch;
        self.open.push_back(OpenEpoch {
            context,
            outstanding,
            transactions: outstanding,
            writes: Vec::with_capacity(self.writes_each * outstanding),
            receipts: Vec::with_capacity(outstanding),
            outbox: Vec::with_capacity(outstanding),
            multi_partition: 0,
        });
    }

    /// # Panics
    /// If the epoch is not open, which would be a defect: it is while it has nodes.
    pub(crate) fn get_mut(&mut self, epoch: EpochNumber) -> &mut OpenEpoch {
        let place = self.place(epoch);
        &mut self.open[place]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OpenEpoch> {
        self.open.iter()
    }

    fn place(&self, epoch: EpochNumber) -> usize {
        let after = epoch.0 - self.finished().0;
        usize::try_from(after - 1).expect("few epochs are open")
    }

    /// Changes the value of a key, on behalf of a transaction of `epoch` that holds it.
    pub(crate) fn write(
        &mut self,
        keys: &mut KeyTable,
        epoch: EpochNumber,
        index: KeyIndex,
        key: Key,
        change: Change,
    ) {
        let finished = self.finished();
        let writers = &mut keys.get_mut(index).writers;
        while writers.first().is_some_and(|(first, _)| *first <= finished) {
            writers.remove(0);
        }
        let writer = writers.last().copied();
        let is_late = writer.is_some_and(|(last, _)| last > epoch);
        if is_late && !plant::is(Bug::AdditionInWrongEpoch) {
            return self.write_late(keys, epoch, index, key, &change);
        }
        let old = keys.change(index, change);
        let new = keys.value(index).cloned();
        match writer {
            Some((last, place)) if last == epoch => {
                self.get_mut(epoch).writes[place as usize].new = new;
            }
            _ => {
                let state = keys.get_mut(index);
                let write = EpochWrite { key, old, new, counted: state.counted };
                state.writers.push((epoch, self.add(epoch, write)));
            }
        }
    }

    /// A change of an epoch that comes after one of a later epoch. Only additions may hold a key
    /// together, so it is one; what the later epochs found and left is corrected.
    fn write_late(
        &mut self,
        keys: &mut KeyTable,
        epoch: EpochNumber,
        index: KeyIndex,
        key: Key,
        change: &Change,
    ) {
        keys.change(index, change.clone());
        let state = keys.get_mut(index);
        let at = state.writers.partition_point(|(other, _)| *other < epoch);
        let mut found = None;
        for (other, place) in &state.writers[at..] {
            let write = &mut self.get_mut(*other).writes[*place as usize];
            if *other > epoch {
                let old = change.apply(write.old.as_ref());
                let before = std::mem::replace(&mut write.old, old);
                found.get_or_insert(before);
            }
            write.new = change.apply(write.new.as_ref());
        }
        if state.writers[at].0 > epoch {
            let old = found.flatten();
            let new = change.apply(old.as_ref());
            let write = EpochWrite { key, old, new, counted: state.counted };
            state.writers.insert(at, (epoch, self.add(epoch, write)));
        }
    }

    /// What a key held before the last open epoch wrote it, if one has: not what it holds now. Only
    /// a planted bug wants that.
    pub(crate) fn value_before(&self, writers: &Writers) -> Option<Option<Value>> {
        let (epoch, place) = writers.last().filter(|(epoch, _)| *epoch > self.finished())?;
        Some(self.open[self.place(*epoch)].writes[*place as usize].old.clone())
    }

    /// Adds an epoch's first write to a key. Returns its place.
    fn add(&mut self, epoch: EpochNumber, write: EpochWrite) -> u32 {
        let writes = &mut self.get_mut(epoch).writes;
        writes.push(write);
        u32::try_from(writes.len() - 1).expect("an epoch has fewer accesses")
    }

    /// The first open epoch, if nothing of it is outstanding: it is finished then.
    pub(crate) fn finish_first(&mut self) -> Option<FinishedEpoch> {
        if self.open.front()?.outstanding > 0 {
            return None;
        }
        let mut epoch = self.open.pop_front()?;
        if epoch.transactions > 0 {
            let each = epoch.writes.len().div_ceil(epoch.transactions);
            self.writes_each = each.min(WRITES_EACH_MAX);
        }
        // ORDER: workers finish in any order; what is stored must not depend on it.
        epoch.receipts.sort_by_key(|receipt| receipt.position);
        epoch.outbox.sort_by_key(|push| (push.to, push.position));
        if plant::is(Bug::LostOutboxEntry) {
            epoch.outbox.pop();
        }
        Some(FinishedEpoch {
            epoch: epoch.context.record.number,
            writes: epoch.writes,
            receipts: epoch.receipts,
            outbox: epoch.outbox,
            multi_partition: epoch.multi_partition,
        })
    }

    /// The store has an epoch.
    ///
    /// # Panics
    /// If another epoch was to be stored before.
    pub(crate) fn on_stored(&mut self, epoch: EpochNumber) {
        assert_eq!(epoch, self.stored.next(), "epochs are stored in order");
        assert!(epoch <= self.finished(), "an epoch is stored after it finished");
        self.stored = epoch;
    }
}
