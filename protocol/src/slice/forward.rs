//! Forwarding: a value that one transaction has had, the next one at the same home need not be sent.
//!
//! The owner of a key hands its value to the home of each transaction that needs it, and waits for
//! what that did to it. If two transactions of a batch run at the same home, and nobody between them
//! changes the key, the second would be handed what the first has had, or has made, itself: two hops
//! later. So the first leaves it to the second (T-Part's forward-push, Wu et al., SIGMOD 2016, to
//! oneself). A chain of writers of a hot key then crosses the network only where its home changes.
//!
//! Only within a batch, so that what is cut depends on a batch and a map alone: it is cut again,
//! alike, for a host that comes back, from the log.

use ahash::AHashMap;
use rkyv::{Archive, Deserialize, Serialize};
use smallvec::SmallVec;

use super::{Role, Slice};
use crate::footprint::{Access, Mode};
use crate::key::Key;
use crate::placement::{PartitionId, PartitionMap};
use crate::plant::{self, Bug};
use crate::transaction::Entry;

/// How a home comes by the value of a key of another partition, if that does not push it for this
/// transaction alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Forward {
    /// The owner pushes it. This transaction leaves it to a later one.
    First,
    /// An earlier transaction leaves it, and this one to a later one.
    Next,
    /// An earlier transaction leaves it. Nobody here needs it after this one.
    Last,
}

impl Forward {
    /// Whether an earlier transaction leaves the value: nobody pushes it.
    #[must_use]
    pub fn is_left(self) -> bool {
        self != Self::First
    }

    /// Whether it is left to a later transaction.
    #[must_use]
    pub fn goes_on(self) -> bool {
        self != Self::Last
    }
}

/// What is forwarded to a transaction, or by it: indexes of accesses, ascending, each with how.
pub type Forwards = Vec<(u16, Forward)>;

/// Who knows which values, while a batch is cut.
#[derive(Default)]
pub(super) struct Forwarding<'b> {
    /// For each key whose value was handed to another partition, those homes that know what it is
    /// now. Never iterated.
    known: AHashMap<&'b Key, SmallVec<[Holder; 2]>>,
}

/// The last transaction at a home that knows a value.
struct Holder {
    home: PartitionId,
    /// Its place in the slice of its home.
    place: usize,
    /// The index of the access.
    index: u16,
}

impl<'b> Forwarding<'b> {
    /// What is left to the batch's next transaction. Of those that leave it, this is noted in their
    /// slices.
    pub(super) fn next(
        &mut self,
        entry: &'b Entry,
        home: PartitionId,
        map: &PartitionMap,
        slices: &mut [Slice],
    ) -> Forwards {
        let mut left = Forwards::new();
        let place = slices[home.index()].entries.len();
        for (index, access) in entry.footprint.indexed() {
            if super::is_remote_read(home, access, map) {
                let holder = Holder { home, place, index };
                if let Some(before) = self.take_over(access, holder) {
                    note(&mut slices[home.index()], before);
                    left.push((index, Forward::Last));
                }
            } else if access.mode.may_change() && !self.known.is_empty() && forgets() {
                self.known.remove(&access.key);
            }
        }
        left
    }

    /// A transaction will know the value of a key; the place and index of the one that leaves it to
    /// that, if there is any.
    fn take_over(&mut self, access: &'b Access, holder: Holder) -> Option<(usize, u16)> {
        let holders = self.known.entry(&access.key).or_default();
        let home = holder.home;
        let before = match holders.iter_mut().find(|known| known.home == home) {
            Some(known) => {
                let before = std::mem::replace(known, holder);
                Some((before.place, before.index))
            }
            None => {
                holders.push(holder);
                None
            }
        };
        if access.mode == Mode::Write && forgets() {
            holders.retain(|known| known.home == home);
        }
        before
    }
}

/// Whether homes no longer know a value that was changed elsewhere: unless a bug is planted.
fn forgets() -> bool {
    !plant::is(Bug::ForwardedPastAWriter)
}

/// Notes that an access leaves its value to a later transaction.
fn note(slice: &mut Slice, (place, index): (usize, u16)) {
    let Role::Home { forwards, .. } = &mut slice.entries[place].role else {
        unreachable!("holders are homes")
    };
    match forwards.binary_search_by_key(&index, |(index, _)| *index) {
        Ok(at) => forwards[at].1 = Forward::Next,
        Err(at) => forwards.insert(at, (index, Forward::First)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::cut;
    use super::*;
    use crate::footprint::Footprint;
    use crate::key::Namespace;
    use crate::transaction::{Batch, LaneId, RuntimeId, TxId};

    const HERE: u16 = 0;
    const THERE: u16 = 1;

    fn map() -> PartitionMap {
        PartitionMap::even(3).unwrap()
    }

    /// The `number`th key that lies on a partition.
    fn key(partition: u16, number: u32) -> Key {
        let candidate = |salt: u32| {
            let bytes = [number.to_be_bytes(), salt.to_be_bytes()].concat();
            Key::new(Namespace::partitioned(1), &bytes).unwrap()
        };
        let is_there = |key: &Key| map().owner(key) == PartitionId(partition);
        (0..).map(candidate).find(is_there).unwrap()
    }

    fn batch(transactions: &[(u16, &[(&Key, Mode)])]) -> Batch {
        let entry = |(home, accesses): &(u16, &[(&Key, Mode)])| {
            let access = |(key, mode): &(&Key, Mode)| Access { key: (*key).clone(), mode: *mode };
            Arc::new(Entry {
                id: TxId([0; 32]),
                runtime: RuntimeId::NATIVE,
                attempt: 0,
                home: PartitionId(*home),
                sender: Vec::new().into(),
                payload: Vec::new().into(),
                footprint: Footprint::new(accesses.iter().map(access).collect()).unwrap(),
                expires: None,
            })
        };
        let entries = transactions.iter().map(entry).collect();
        Batch { lane: LaneId(0), sequence: 1, map_version: map().version(), entries }
    }

    /// What is forwarded to and by each transaction.
    fn forwards(transactions: &[(u16, &[(&Key, Mode)])]) -> Vec<Forwards> {
        let mut found = vec![Forwards::new(); transactions.len()];
        for entry in cut(&batch(transactions), &map()).into_iter().flat_map(|slice| slice.entries) {
            if let Role::Home { forwards, .. } = entry.role {
                found[entry.index as usize] = forwards;
            }
        }
        found
    }

    /// The same of transactions that have one key.
    fn of_one(key: &Key, transactions: &[(u16, Mode)]) -> Vec<Option<Forward>> {
        let accesses: Vec<_> = transactions.iter().map(|(_, mode)| [(key, *mode)]).collect();
        let homes = transactions.iter().map(|(home, _)| *home);
        let all: Vec<(u16, &[_])> = homes.zip(accesses.iter().map(|one| &one[..])).collect();
        let first = |forwards: &Forwards| forwards.first().map(|(_, forward)| *forward);
        forwards(&all).iter().map(first).collect()
    }

    #[test]
    fn a_chain_at_one_home_is_pushed_its_value_once() {
        use Forward::{First, Last, Next};
        use Mode::{Read, Write};
        let key = key(THERE, 0);
        assert_eq!(
            of_one(&key, &[(HERE, Write), (HERE, Read), (HERE, Write), (HERE, Write)]),
            [Some(First), Some(Next), Some(Next), Some(Last)]
        );
        // Where its owner runs it, nothing has to be handed over.
        assert_eq!(of_one(&key, &[(THERE, Write), (THERE, Write)]), [None, None]);
    }

    #[test]
    fn who_changes_it_elsewhere_ends_the_chain() {
        use Forward::{First, Last};
        use Mode::{Add, Read, Write};
        let key = key(THERE, 0);
        for between in [(THERE, Write), (2, Write), (HERE, Add), (THERE, Add), (2, Add)] {
            let chain = [(HERE, Write), between, (HERE, Read), (HERE, Read)];
            assert_eq!(of_one(&key, &chain), [None, None, Some(First), Some(Last)], "{between:?}");
        }
        // Readers know it side by side, and hold up nobody.
        let readers = [(HERE, Write), (2, Read), (HERE, Read), (THERE, Read), (2, Read)];
        let expected = [Some(First), Some(First), Some(Last), None, Some(Last)];
        assert_eq!(of_one(&key, &readers), expected);
    }

    #[test]
    fn the_owner_hears_of_what_is_left_only_if_it_may_change() {
        use Mode::{Read, Write};
        let (one, two, own) = (key(THERE, 1), key(THERE, 2), key(HERE, 3));
        let first = [(&one, Read), (&two, Read), (&own, Write)];
        let second = [(&one, Write), (&two, Read)];
        let third = [(&one, Read), (&two, Read)];
        let transactions: [(u16, &[_]); 3] = [(HERE, &first), (HERE, &second), (HERE, &third)];
        let batch = batch(&transactions);
        let slices = cut(&batch, &map());
        let index =
            |at: usize, key| u16::try_from(batch.entries[at].footprint.find(key).unwrap()).unwrap();
        let heard: Vec<_> = slices[usize::from(THERE)]
            .entries
            .iter()
            .map(|entry| match &entry.role {
                Role::Participant { accesses, forwarded, .. } => {
                    let accesses = accesses.iter().map(|(index, access)| (*index, access.mode));
                    (entry.index, accesses.collect::<Vec<_>>(), forwarded.clone())
                }
                Role::Home { .. } => panic!("nothing runs there"),
            })
            .collect();
        let mut of_first = vec![(index(0, &one), Read), (index(0, &two), Read)];
        of_first.sort_by_key(|(index, _)| *index);
        let of_second = vec![(index(1, &one), Write)];
        assert_eq!(
            heard,
            [(0, of_first, vec![]), (1, of_second, vec![index(1, &one)])],
            "the third has no part there"
        );
    }
}
