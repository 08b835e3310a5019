//! What partitions hand one another: the values that a home awaits, and what it did to the keys of
//! the others.

use std::collections::BTreeMap;

use parsec_protocol::{
    Access, Change, Entry, EpochNumber, PartitionId, Position, Push, PushKind, Value, slice,
};

use crate::limits::EARLY_PUSHES_MAX;
use crate::nodes::{NodeIndex, Part};
use crate::partition::{Entering, Output, Partition};

/// Pushes for epochs that were not taken in yet.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pushes: BTreeMap<Position, Vec<Push>>,
    count: usize,
}

impl Early {
    /// Keeps a push, if there is room. One that does not fit is not lost for good: its sender keeps
    /// it, and pushes it again when this partition resumes.
    pub(crate) fn keep(&mut self, push: Push) {
        if self.count < EARLY_PUSHES_MAX {
            self.count += 1;
            self.pushes.entry(push.position).or_default().push(push);
        }
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
    pub(crate) fn enter_participant(
        &mut self,
        entering: &mut Entering,
        home: PartitionId,
        accesses: &[(u16, Access)],
    ) -> Part {
        for (index, access) in accesses {
            let pushed = slice::is_remote_read(home, access, &self.map);
            self.enter_key(entering, *index, access, pushed);
        }
        let awaited = accesses.iter().filter(|(_, access)| access.mode.may_change()).count();
        Part::Participant { home, changes: Vec::new(), awaited, holds: false }
    }

    pub(crate) fn deliver(&mut self, index: NodeIndex, kind: PushKind) {
        match kind {
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

    /// Whether the value was awaited.
    fn deliver_read(&mut self, index: NodeIndex, item: u16, value: Option<Value>) -> bool {
        // One that is being executed awaits nothing: what comes again is not heard any more.
        let Part::Home { entry: Some(_), remote, .. } = &mut self.nodes.get_mut(index).part else {
            return false;
        };
        let Ok(place) = remote.binary_search_by_key(&item, |(index, _)| *index) else {
            return false;
        };
        let awaited = remote[place].1.is_none();
        if awaited {
            remote[place].1 = Some(value);
        }
        awaited
    }

    fn deliver_writes(&mut self, index: NodeIndex, items: Vec<(u16, Change)>) {
        let node = self.nodes.get_mut(index);
        let Part::Participant { changes, awaited, holds, .. } = &mut node.part else { return };
        for (item, change) in items {
            let expected = node.accesses.iter().any(|a| a.index == item && a.mode.may_change());
            if expected && !changes.iter().any(|(known, _)| *known == item) {
                changes.push((item, change));
                *awaited -= 1;
            }
        }
        if *awaited == 0 && *holds {
            self.complete_participant(index);
        }
    }

    /// A participant holds its keys: it pushes their values, and is done if it awaits no changes.
    pub(crate) fn participate(&mut self, index: NodeIndex) {
        let node = self.nodes.get_mut(index);
        let Part::Participant { home, awaited, holds, .. } = &mut node.part else { return };
        *holds = true;
        let (home, awaited) = (*home, *awaited);
        let pushed = node.accesses.iter().filter(|access| access.pushed);
        let items: Vec<_> =
            pushed.map(|access| (access.index, self.keys.value(access.key).cloned())).collect();
        let position = node.position;
        if !items.is_empty() {
            let kind = PushKind::Reads(items);
            self.push(Push { position, from: self.id, to: home, kind });
        }
        if awaited == 0 {
            self.complete_participant(index);
        }
    }

    fn complete_participant(&mut self, index: NodeIndex) {
        let mut node = self.nodes.remove(index);
        let Part::Participant { changes, .. } = &mut node.part else { return };
        for (item, change) in std::mem::take(changes) {
            if let Some(access) = node.accesses.iter().find(|access| access.index == item) {
                let key = self.keys.get(access.key).key.clone();
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
        let kind = PushKind::Writes(items.collect());
        self.push(Push { position, from: self.id, to: participant, kind });
    }

    fn push(&mut self, push: Push) {
        self.epochs.get_mut(push.position.epoch).outbox.push(push.clone());
        self.outputs.push_back(Output::Push(push));
    }
}
