//! What partitions hand one another: the values that a home awaits, and what it did to the keys of
//! the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_protocol::plant::{self, Bug};
use parsec_protocol::{
    Access, Change, Entry, EpochNumber, Forward, PartitionId, Position, Push, PushItems, PushKind,
    Value, slice,
};
use smallvec::SmallVec;

use crate::copies::CopyAccess;
use crate::epochs::Epochs;
use crate::keys::{KeyIndex, KeyTable};
use crate::limits::EARLY_PUSHES_MAX;
use crate::nodes::{LocalAccess, NodeIndex, Part};
use crate::partition::{Entering, Output, Partition};

/// Pushes for transactions that are not in the graph yet.
#[derive(Debug)]
pub(crate) struct Early {
    pushes: BTreeMap<Position, Vec<Push>>,
    count: usize,
    max: usize,
    /// Whether some did not fit.
    lost: bool,
}

impl Default for Early {
    fn default() -> Self {
        Self { pushes: BTreeMap::new(), count: 0, max: EARLY_PUSHES_MAX, lost: false }
    }
}

impl Early {
    /// Keeps a push, once. If there is no room, the one that is needed last goes: what is kept
    /// lets this partition go on, and then there is room to have the rest pushed again.
    pub(crate) fn keep(&mut self, push: Push) {
        let known = self.pushes.entry(push.position).or_default();
        if known.contains(&push) {
            return;
        }
        known.push(push);
        self.count += 1;
        if self.count > self.max {
            self.lose_last();
        }
    }

    fn lose_last(&mut self) {
        let Some(mut last) = self.pushes.last_entry() else { return };
        last.get_mut().pop();
        if last.get().is_empty() {
            last.remove();
        }
        self.count -= 1;
        self.lost = true;
    }

    /// Whether some were lost and half of the room is free again. Says so once.
    fn take_lost(&mut self) -> bool {
        let may_come_again = self.lost && self.count <= self.max / 2;
        self.lost &= !may_come_again;
        may_come_again
    }

    /// Takes out those for a transaction.
    pub(crate) fn take(&mut self, position: Position) -> Vec<Push> {
        let pushes = self.pushes.remove(&position).unwrap_or_default();
        self.count -= pushes.len();
        pushes
    }

    /// Forgets those for epochs through `epoch`, in which they found no transaction.
    pub(crate) fn drop_through(&mut self, epoch: EpochNumber) {
        while let Some(first) = self.pushes.first_entry()
            && first.key().epoch <= epoch
        {
            self.count -= first.remove().len();
        }
    }
}

impl Partition {
    /// As [`Self::new`] makes one, but with room for no more than `pushes_max` pushes to
    /// transactions that are not in the graph yet.
    #[must_use]
    pub fn with_early_pushes(mut self, pushes_max: usize) -> Self {
        self.early.max = pushes_max;
        self
    }

    /// Whether pushes were lost here, because more came early than there was room for, and have to
    /// come again now: tell [`Host::on_pushes_lost`](crate::Host::on_pushes_lost). Says so once.
    /// To be asked whenever epochs or tasks were taken.
    pub fn take_pushes_lost(&mut self) -> bool {
        self.early.take_lost()
    }

    pub(crate) fn enter_participant(
        &mut self,
        entering: &mut Entering,
        home: PartitionId,
        accesses: &[(u16, Access)],
        forwarded: &[u16],
    ) -> Part {
        for (index, access) in accesses {
            let is_read = slice::is_remote_read(home, access, &self.map);
            let pushed = is_read && !forwarded.contains(index);
            self.enter_key(entering, (*index, access), Some(pushed));
        }
        let awaited = accesses.iter().filter(|(_, access)| access.mode.may_change()).count();
        let (changes, late) = (Vec::with_capacity(awaited), entering.late);
        Part::Participant { home, changes, awaited, late, holds: false }
    }

    /// Enters a transaction into the copy of another partition's key, or makes one with it. `None` if
    /// there is none to enter, which no sequencer brings about.
    pub(crate) fn enter_copy(
        &mut self,
        entering: &mut Entering,
        index: u16,
        Access { key, mode }: &Access,
        how: Forward,
    ) -> Option<CopyAccess> {
        let (node, mode, is_left) = (entering.index, *mode, how.is_left());
        let copy = match is_left {
            false => self.copies.begin(key, node, mode),
            true => {
                let (copy, missing) = self.copies.enter(key, node, mode, how.goes_on())?;
                entering.missing += missing;
                copy
            }
        };
        Some(CopyAccess { index, mode, copy, is_left })
    }

    pub(crate) fn deliver(&mut self, index: NodeIndex, kind: Arc<PushKind>) {
        match Arc::unwrap_or_clone(kind) {
            PushKind::Reads(items) => {
                for (item, value) in items {
                    if self.deliver_read(index, item, value) {
                        self.found_one(index);
                    }
                }
            }
            PushKind::Writes(items) => self.deliver_writes(index, items),
        }
    }

    /// Whether the value was awaited. If it is left to others here, they have it from now on.
    fn deliver_read(&mut self, index: NodeIndex, item: u16, value: Option<Value>) -> bool {
        // One that is being executed awaits nothing: what comes again is not heard any more.
        let part = &mut self.nodes.get_mut(index).part;
        let Part::Home { entry: Some(_), remote, copies, .. } = part else {
            return false;
        };
        let Ok(place) = remote.binary_search_by_key(&item, |(index, _)| *index) else {
            return false;
        };
        if remote[place].1.is_some() {
            return false;
        }
        if let Some(access) = copies.iter().find(|access| access.index == item) {
            let waiting = self.copies.fill(access.copy, value.clone());
            remote[place].1 = Some(value);
            waiting.into_iter().for_each(|node| self.found_one(node));
        } else {
            remote[place].1 = Some(value);
        }
        true
    }

    fn deliver_writes(&mut self, index: NodeIndex, items: PushItems<Change>) {
        let node = self.nodes.get_mut(index);
        let Part::Participant { changes, awaited, late, holds, .. } = &mut node.part else {
            return;
        };
        for (item, change) in items {
            let expected = node.accesses.iter().any(|a| a.index == item && a.mode.may_change());
            if expected && !changes.iter().any(|(known, _)| *known == item) {
                changes.push((item, change));
                *awaited -= 1;
            }
        }
        if *awaited == 0 && *late == 0 && *holds {
            self.complete_participant(index);
        }
    }

    /// A participant holds the keys whose values it pushes: it pushes them. It is done if it holds the
    /// others, too, and awaits no changes.
    pub(crate) fn participate(&mut self, index: NodeIndex) {
        let node = self.nodes.get_mut(index);
        let Part::Participant { home, awaited, late, holds, .. } = &mut node.part else { return };
        let has_pushed = std::mem::replace(holds, true);
        let (home, is_done) = (*home, *awaited == 0 && *late == 0);
        if !has_pushed {
            self.push_reads(index, home);
        }
        if is_done {
            self.complete_participant(index);
        } else if !has_pushed {
            self.let_go_of_read(index);
        }
    }

    fn push_reads(&mut self, index: NodeIndex, home: PartitionId) {
        let node = self.nodes.get_mut(index);
        let pushed = node.accesses.iter().filter(|access| access.pushed);
        let value = |key| value_to_push(&self.keys, &self.epochs, key);
        let mut items: PushItems<_> =
            pushed.map(|access| (access.index, value(access.key))).collect();
        items.extend(std::mem::take(&mut node.read));
        let position = node.position;
        if !items.is_empty() {
            let kind = Arc::new(PushKind::Reads(items));
            self.push(Push { position, from: self.id, to: home, kind });
        }
    }

    /// Lets the keys go that a participant has only read: their values are pushed.
    fn let_go_of_read(&mut self, index: NodeIndex) {
        let accesses = &mut self.nodes.get_mut(index).accesses;
        let is_read = |access: &LocalAccess| access.pushed && !access.mode.may_change();
        let read: SmallVec<[KeyIndex; 8]> =
            accesses.iter().filter(|access| is_read(access)).map(|access| access.key).collect();
        if read.is_empty() {
            return;
        }
        accesses.retain(|access| !is_read(access));
        read.into_iter().for_each(|key| self.let_go(key));
    }

    fn complete_participant(&mut self, index: NodeIndex) {
        let mut node = self.nodes.remove(index);
        let Part::Participant { changes, .. } = &mut node.part else { return };
        for (item, change) in std::mem::take(changes) {
            if let Some(access) = node.accesses.iter().find(|access| access.index == item) {
                let key = self.keys.get(access.key).key();
                self.apply(node.position.epoch, access.key, key, change);
            }
        }
        self.release(&node);
    }

    /// Pushes what a transaction did to the keys that `participant` has to change: an item for
    /// each.
    pub(crate) fn push_writes(
        &mut self,
        participant: PartitionId,
        position: Position,
        entry: &Entry,
        changes: &[Change],
    ) {
        let concerned = entry.footprint.indexed().filter(|(_, access)| {
            access.mode.may_change() && slice::concerns(participant, self.id, access, &self.map)
        });
        let items = concerned.map(|(index, _)| (index, changes[usize::from(index)].clone()));
        let kind = Arc::new(PushKind::Writes(items.collect()));
        self.push(Push { position, from: self.id, to: participant, kind });
    }

    fn push(&mut self, push: Push) {
        self.traffic.pushes_sent += 1;
        self.epochs.get_mut(push.position.epoch).outbox.push(push.clone());
        self.outputs.push_back(Output::Push(push));
    }
}

/// The value of a key that a participant holds.
fn value_to_push(keys: &KeyTable, epochs: &Epochs, key: KeyIndex) -> Option<Value> {
    if plant::is(Bug::StaleRemoteRead)
        && let Some(stale) = epochs.value_before(&keys.get(key).writers)
    {
        return stale;
    }
    keys.value(key).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(index: u32, from: u16) -> Push {
        let position = Position { epoch: EpochNumber(1), index };
        let (from, to) = (PartitionId(from), PartitionId(9));
        Push { position, from, to, kind: Arc::new(PushKind::Reads(PushItems::new())) }
    }

    fn early(max: usize) -> Early {
        Early { max, ..Early::default() }
    }

    fn take(early: &mut Early, index: u32) -> Vec<Push> {
        early.take(Position { epoch: EpochNumber(1), index })
    }

    #[test]
    fn what_comes_again_takes_no_room() {
        let mut early = early(2);
        for _ in 0..10 {
            early.keep(push(1, 0));
            early.keep(push(1, 1));
        }
        assert_eq!(take(&mut early, 1), [push(1, 0), push(1, 1)]);
        assert!(!early.take_lost());
    }

    #[test]
    fn what_is_needed_first_is_kept_and_the_rest_comes_again_when_there_is_room() {
        let mut early = early(4);
        for index in [9, 3, 8, 1, 7, 2] {
            early.keep(push(index, 0));
        }
        assert!(!early.take_lost(), "there is no room yet");
        assert_eq!(take(&mut early, 1).len(), 1);
        assert!(!early.take_lost());
        assert_eq!(take(&mut early, 2).len(), 1);
        assert!(early.take_lost());
        assert!(!early.take_lost());
        assert_eq!([3, 7, 8, 9].map(|index| take(&mut early, index).len()), [1, 1, 0, 0]);
        assert_eq!(early.count, 0);
    }
}
