//! The epochs that a partition has in hand, and what each of them has done to it so far.

use std::collections::VecDeque;
use std::sync::Arc;

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
    /// The keys it has written, and what it found there: what it leaves is what the next epoch
    /// that writes the key finds, or what is there at the end.
    written: Vec<(KeyIndex, Option<Value>)>,
    pub(crate) receipts: Vec<Arc<Receipt>>,
    pub(crate) outbox: Vec<Push>,
    pub(crate) multi_partition: u64,
}

/// The epochs that have written a key and are not finished, in order, each with the key's place
/// in its list of written ones.
pub(crate) type Writers = SmallVec<[(EpochNumber, u32); 1]>;

/// An epoch that is on its way to the store.
#[derive(Debug)]
struct StoringEpoch {
    epoch: EpochNumber,
    written: Vec<KeyIndex>,
}

/// The epochs that a partition has in hand, in order, without gaps.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// The last one taken in.
    last: EpochNumber,
    open: VecDeque<OpenEpoch>,
    storing: VecDeque<StoringEpoch>,
}

impl Epochs {
    pub(crate) fn new(applied: EpochNumber) -> Self {
        Self { last: applied, open: VecDeque::new(), storing: VecDeque::new() }
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
            written: Vec::with_capacity(2 * outstanding),
            receipts: Vec::with_capacity(outstanding),
            outbox: Vec::new(),
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
    ///
    /// Additions of several epochs may hold a key together, so one of an earlier epoch may come
    /// after one of a later epoch: then the later ones have found the key as it is after this.
    pub(crate) fn write(
        &mut self,
        keys: &mut KeyTable,
        epoch: EpochNumber,
        key: KeyIndex,
        change: Change,
    ) {
        let state = keys.get(key);
        let mut later = state.writers.len();
        while later > 0 && state.writers[later - 1].0 > epoch {
            later -= 1;
        }
        let is_first = later == 0 || state.writers[later - 1].0 < epoch;
        let writers_later: Writers = state.writers[later..].iter().copied().collect();
        let mut found = None;
        for (place, (other, written)) in writers_later.iter().enumerate() {
            let old = &mut self.get_mut(*other).written[*written as usize].1;
            let before = std::mem::replace(old, change.apply(old.as_ref()));
            if place == 0 {
                found = Some(before);
            }
        }
        let before = keys.change(key, change);
        if is_first {
            let open = self.get_mut(epoch);
            let place = u32::try_from(open.written.len()).expect("an epoch has fewer accesses");
            open.written.push((key, found.unwrap_or(before)));
            let state = keys.get_mut(key);
            state.writers.insert(later, (epoch, place));
            state.uncommitted += 1;
        }
    }

    /// The first open epoch, if nothing of it is outstanding: it is finished then. `counted` says
    /// which keys this partition counts in the state digest.
    pub(crate) fn finish_first(
        &mut self,
        keys: &mut KeyTable,
        counted: impl Fn(&Key) -> bool,
    ) -> Option<FinishedEpoch> {
        if self.open.front()?.outstanding > 0 {
            return None;
        }
        let mut epoch = self.open.pop_front()?;
        let mut writes = Vec::with_capacity(epoch.written.len());
        let mut written = Vec::with_capacity(epoch.written.len());
        for (index, old) in epoch.written {
            let state = keys.get_mut(index);
            state.writers.remove(0);
            let new = match state.writers.first() {
                Some((next, place)) => {
                    let (next, place) = (*next, *place as usize);
                    self.open[self.place(next)].written[place].1.clone()
                }
                None => keys.value(index).cloned(),
            };
            let key = keys.get(index).key.clone();
            writes.push(EpochWrite { counted: counted(&key), key, old, new });
            written.push(index);
        }
        let number = epoch.context.record.number;
        self.storing.push_back(StoringEpoch { epoch: number, written });
        // ORDER: workers finish in any order; what is stored must not depend on it.
        epoch.receipts.sort_by_key(|receipt| receipt.position);
        epoch.outbox.sort_by_key(|push| (push.to, push.position));
        Some(FinishedEpoch {
            epoch: number,
            writes,
            receipts: epoch.receipts,
            outbox: epoch.outbox,
            multi_partition: epoch.multi_partition,
        })
    }

    /// The store has an epoch.
    ///
    /// # Panics
    /// If another epoch was to be stored before.
    pub(crate) fn on_stored(&mut self, keys: &mut KeyTable, epoch: EpochNumber) {
        let stored = self.storing.pop_front().expect("an epoch is stored after it finished");
        assert_eq!(stored.epoch, epoch, "epochs are stored in order");
        for key in stored.written {
            keys.get_mut(key).uncommitted -= 1;
        }
    }
}
