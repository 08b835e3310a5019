//! The table of keys that a partition has in memory: their values, and their queues.

use std::hint::black_box;

use ahash::RandomState;
use hashbrown::HashTable;
use parsec_protocol::{Change, EpochNumber, Key, Value};

use smallvec::SmallVec;

use crate::epochs::Writers;
use crate::limits::{CACHE_BYTES_MAX, CACHE_KEYS_MAX, EVICTION_STEPS, KEYS_TOGETHER};
use crate::nodes::NodeIndex;
use crate::queue::Queue;

/// Longer keys are kept elsewhere. A slot of a contract's storage, the longest that is usual, has 63.
const NAME_BYTES: usize = 64;

/// A key in the table of its partition, for as long as it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyIndex(pub(crate) u32);

impl KeyIndex {
    fn slot(self) -> usize {
        // A u32 fits a usize wherever this runs.
        self.0 as usize
    }
}

/// With so many slots, room is made for all that there may be: to copy them to twice the room each time,
/// hundreds of mebibytes in the end, would hold up everything. What is not used of it takes no memory.
const FEW_SLOTS: usize = 16 * 1_024;

/// What is known of a key's value, as of the last transaction that wrote it.
#[derive(Debug)]
pub(crate) enum Cached {
    /// It is being fetched from the store; these transactions wait for it.
    Fetching(Vec<NodeIndex>),
    /// This is it.
    Known(Option<Value>),
}

/// A key, its value and its queue.
#[derive(Debug)]
pub(crate) struct KeyState {
    /// The encoded key. Within the state, so that looking it up touches no other place in memory.
    name: SmallVec<[u8; NAME_BYTES]>,
    pub(crate) cached: Cached,
    pub(crate) queue: Queue,
    pub(crate) writers: Writers,
    /// Whether this partition counts it in the state digest.
    pub(crate) counted: bool,
    /// Whether it was used since the clock hand last passed.
    used: bool,
}

impl KeyState {
    pub(crate) fn key(&self) -> Key {
        Key::from_encoded(Value::copy_from_slice(&self.name)).expect("it was a key's encoded form")
    }

    fn size(&self) -> usize {
        let value = match &self.cached {
            Cached::Known(Some(value)) => value.len(),
            _ => 0,
        };
        size_of::<Self>() + self.name.len() + value
    }

    /// Has the processor bring what lies apart from the name into its cache.
    fn look_at(&self) {
        black_box(self.queue.is_empty());
        if let Cached::Known(Some(value)) = &self.cached {
            // Copied: where a byte is does not bring it.
            black_box((value.first().copied(), value.last().copied()));
        }
    }

    /// Whether it may be dropped: nobody uses it, and the store has its value, if it has the epochs
    /// through `stored`.
    fn is_idle(&self, stored: EpochNumber) -> bool {
        self.queue.is_empty()
            && matches!(self.cached, Cached::Known(_))
            && self.writers.last().is_none_or(|(epoch, _)| *epoch <= stored)
    }
}

/// Where a key was when it was looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    name_hash: u64,
    slot: Option<u32>,
}

/// Where the keys of the next transactions were, in the order in which they are entered.
#[derive(Debug, Default)]
pub(crate) struct Places {
    all: Vec<Place>,
    /// How many are taken.
    taken: usize,
}

impl Places {
    pub(crate) fn take(&mut self) -> Option<Place> {
        let place = self.all.get(self.taken).copied();
        self.taken += usize::from(place.is_some());
        place
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.all.len()
    }
}

/// The keys that a partition has in memory. Beyond a size, those that are not in use are dropped,
/// roughly the longest unused first (the CLOCK algorithm: Corbató, 1968).
pub(crate) struct KeyTable {
    /// Never iterated: the order of its entries differs between processes.
    index: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Option<KeyState>>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    keys_max: usize,
    /// The last epoch that the store has.
    stored: EpochNumber,
}

impl KeyTable {
    pub(crate) fn new(keys_max: usize, stored: EpochNumber) -> Self {
        Self {
            index: HashTable::new(),
            hasher: RandomState::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bytes: 0,
            keys_max: keys_max.min(CACHE_KEYS_MAX),
            stored,
        }
    }

    /// Where keys are now. All are looked up in the index, then all in their slots, and then their
    /// values are looked at: so the processor waits for the memory of many at a time, and finds it at
    /// hand when they are used.
    pub(crate) fn find_all<'k>(&self, keys: impl Iterator<Item = &'k Key>, places: &mut Places) {
        let names: SmallVec<[&[u8]; KEYS_TOGETHER]> = keys.map(Key::encoded).collect();
        places.taken = 0;
        places.all.clear();
        let nowhere = |name: &&[u8]| Place { name_hash: hash(&self.hasher, name), slot: None };
        places.all.extend(names.iter().map(nowhere));
        for place in &mut places.all {
            // The index remembers seven bits of a hash, which are mostly enough.
            place.slot = self.index.find(place.name_hash, |_| true).copied();
        }
        for (place, name) in places.all.iter_mut().zip(names) {
            if place.slot.is_some_and(|slot| !self.is_at(slot, name)) {
                place.slot = self.find(place.name_hash, name);
            }
        }
        for slot in places.all.iter().filter_map(|place| place.slot) {
            self.slots[slot as usize].as_ref().inspect(|state| state.look_at());
        }
    }

    fn find(&self, name_hash: u64, name: &[u8]) -> Option<u32> {
        self.index.find(name_hash, |slot| self.is_at(*slot, name)).copied()
    }

    fn is_at(&self, slot: u32, name: &[u8]) -> bool {
        self.slots[slot as usize].as_ref().is_some_and(|state| state.name[..] == *name)
    }

    /// The index of `key`, and whether it was entered just now: its value must then be fetched.
    /// `place` is where it was, and may be so no longer. `counted` says of a new one whether the state
    /// digest counts it here.
    pub(crate) fn enter(
        &mut self,
        key: &Key,
        place: Place,
        counted: impl FnOnce() -> bool,
    ) -> (KeyIndex, bool) {
        let (name, name_hash) = (key.encoded(), place.name_hash);
        debug_assert_eq!(name_hash, hash(&self.hasher, name), "a place is that of its key");
        let known = place.slot.filter(|slot| self.is_at(*slot, name));
        if let Some(slot) = known.or_else(|| self.find(name_hash, name)) {
            let index = KeyIndex(slot);
            self.get_mut(index).used = true;
            return (index, false);
        }
        self.make_room();
        let state = KeyState {
            name: SmallVec::from_slice(name),
            cached: Cached::Fetching(Vec::new()),
            queue: Queue::default(),
            writers: Writers::new(),
            counted: counted(),
            used: true,
        };
        self.bytes += state.size();
        let slot = self.free.pop().unwrap_or_else(|| self.add_slot());
        self.slots[slot as usize] = Some(state);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(name_hash, slot, |slot| {
            let state = slots[*slot as usize].as_ref();
            hash(hasher, &state.expect("indexed slots are full").name)
        });
        (KeyIndex(slot), true)
    }

    fn add_slot(&mut self) -> u32 {
        let count = self.slots.len();
        if count >= FEW_SLOTS && count == self.slots.capacity() {
            // None is dropped before the clock hand has passed all once: meanwhile a sixteenth more
            // come in. The rest is for keys in use that nobody may drop.
            let room = self.keys_max + 2 * self.keys_max / EVICTION_STEPS;
            self.slots.reserve(room.saturating_sub(count));
        }
        self.slots.push(None);
        u32::try_from(count).expect("keys in use are bounded by NODES_MAX")
    }

    /// # Panics
    /// If the key was dropped, which would be a defect: keys in use are not.
    pub(crate) fn get(&self, index: KeyIndex) -> &KeyState {
        self.slots[index.slot()].as_ref().expect("a key in use is in the table")
    }

    /// # Panics
    /// As [`Self::get`].
    pub(crate) fn get_mut(&mut self, index: KeyIndex) -> &mut KeyState {
        self.slots[index.slot()].as_mut().expect("a key in use is in the table")
    }

    /// The value of a key.
    ///
    /// # Panics
    /// If it is not known yet, which would be a defect: whoever holds a key has awaited it.
    pub(crate) fn value(&self, index: KeyIndex) -> Option<&Value> {
        match &self.get(index).cached {
            Cached::Known(value) => value.as_ref(),
            Cached::Fetching(_) => unreachable!("a transaction runs when its values are known"),
        }
    }

    /// Takes the value of a key out, for the one transaction that holds it, until it is
    /// [given back](Self::give_back).
    ///
    /// # Panics
    /// As [`Self::value`].
    pub(crate) fn lend(&mut self, index: KeyIndex) -> Option<Value> {
        self.known_mut(index).take()
    }

    /// # Panics
    /// As [`Self::value`].
    pub(crate) fn give_back(&mut self, index: KeyIndex, value: Option<Value>) {
        *self.known_mut(index) = value;
    }

    fn known_mut(&mut self, index: KeyIndex) -> &mut Option<Value> {
        match &mut self.get_mut(index).cached {
            Cached::Known(value) => value,
            Cached::Fetching(_) => unreachable!("a transaction runs when its values are known"),
        }
    }

    /// The value of a key came from the store. Returns the transactions that waited for it; none
    /// if it was known.
    pub(crate) fn on_fetched(&mut self, index: KeyIndex, value: Option<Value>) -> Vec<NodeIndex> {
        let state = self.get_mut(index);
        let Cached::Fetching(waiting) = &mut state.cached else { return Vec::new() };
        let waiting = std::mem::take(waiting);
        let bytes = value.as_ref().map_or(0, Value::len);
        state.cached = Cached::Known(value);
        self.bytes += bytes;
        waiting
    }

    /// Changes the value of a key. Returns what it was.
    ///
    /// # Panics
    /// As [`Self::value`].
    pub(crate) fn change(&mut self, index: KeyIndex, change: Change) -> Option<Value> {
        let value = self.known_mut(index);
        let new = match change {
            Change::Put(new) => Some(new),
            other => other.apply(value.as_ref()),
        };
        let bytes = new.as_ref().map_or(0, Value::len);
        let old = std::mem::replace(value, new);
        self.bytes = self.bytes + bytes - old.as_ref().map_or(0, Value::len);
        old
    }

    /// The store has the epochs through `epoch`.
    pub(crate) fn on_stored(&mut self, epoch: EpochNumber) {
        self.stored = epoch;
    }

    /// How many keys are in memory.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn make_room(&mut self) {
        let (mut steps, stored) = (EVICTION_STEPS, self.stored);
        while steps > 0 && (self.len() >= self.keys_max || self.bytes > CACHE_BYTES_MAX) {
            steps -= 1;
            self.hand = (self.hand + 1) % self.slots.len().max(1);
            let Some(Some(state)) = self.slots.get_mut(self.hand) else { continue };
            if std::mem::take(&mut state.used) || !state.is_idle(stored) {
                continue;
            }
            self.drop_slot(self.hand);
        }
    }

    fn drop_slot(&mut self, slot: usize) {
        let Some(state) = self.slots[slot].take() else { return };
        self.bytes -= state.size();
        let name_hash = hash(&self.hasher, &state.name);
        let found = self.index.find_entry(name_hash, |other| *other as usize == slot);
        found.expect("a full slot is indexed").remove();
        self.free.push(u32::try_from(slot).expect("slots are numbered by u32"));
    }
}

fn hash(hasher: &RandomState, name: &[u8]) -> u64 {
    hasher.hash_one(name)
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{Mode, Namespace};

    use super::*;

    fn key(n: u32) -> Key {
        Key::new(Namespace::partitioned(1), &n.to_be_bytes()).unwrap()
    }

    fn find_all(table: &KeyTable, keys: &[&Key]) -> Vec<Place> {
        let mut places = Places::default();
        table.find_all(keys.iter().copied(), &mut places);
        std::iter::from_fn(|| places.take()).collect()
    }

    fn enter(table: &mut KeyTable, key: &Key) -> (KeyIndex, bool) {
        let place = find_all(table, &[key])[0];
        table.enter(key, place, || true)
    }

    #[test]
    fn a_place_that_is_no_longer_right_does_no_harm() {
        let mut table = KeyTable::new(1, EpochNumber(0));
        let (before, now, later) = (key(1), key(2), key(3));
        let (index, _) = enter(&mut table, &before);
        table.on_fetched(index, None);
        let places = find_all(&table, &[&before, &now, &later]);
        table.get_mut(index).used = false;
        // It takes the slot of the key before, which has to come anew.
        let (other, is_new) = table.enter(&now, places[1], || true);
        assert_eq!((other, is_new), (index, true));
        let (anew, is_new) = table.enter(&before, places[0], || true);
        assert!(is_new && anew != other);
        assert_eq!(table.enter(&now, places[1], || true), (other, false));
        assert_eq!(table.get(anew).key(), before);
    }

    #[test]
    fn the_table_is_not_copied_once_there_are_many_keys() {
        let keys_max = 4 * FEW_SLOTS;
        let mut table = KeyTable::new(keys_max, EpochNumber(0));
        let add = |table: &mut KeyTable, n| {
            let (index, is_new) = enter(table, &key(n));
            assert!(is_new);
            table.on_fetched(index, None);
        };
        let few = u32::try_from(FEW_SLOTS).unwrap();
        (0..=few).for_each(|n| add(&mut table, n));
        let before = table.slots.as_ptr();
        // Beyond the limit, too: none is dropped before the hand has passed all.
        (few + 1..12 * few).for_each(|n| add(&mut table, n));
        assert!(table.slots.len() > keys_max, "{}", table.slots.len());
        assert_eq!(table.slots.as_ptr(), before);
    }

    #[test]
    fn unused_keys_are_dropped_and_used_ones_are_not() {
        let mut table = KeyTable::new(8, EpochNumber(0));
        let (held, _) = enter(&mut table, &key(0));
        table.on_fetched(held, None);
        table.get_mut(held).queue.enter(NodeIndex(1), Mode::Write);
        for n in 1..100 {
            let (index, new) = enter(&mut table, &key(n));
            assert!(new);
            table.on_fetched(index, Some(Value::from_static(b"x")));
        }
        assert!(table.len() <= 9, "{}", table.len());
        assert_eq!(enter(&mut table, &key(0)), (held, false));
        assert!(enter(&mut table, &key(1)).1, "it was dropped");
    }
}
