//! Where a transaction runs.
//!
//! The home of a transaction is the partition with the fewest remote edges: every key that the home
//! does not hold has to be pushed to it, and pushed back if it may change. Among partitions that
//! have a key whose value it needs, one that ran much more than its share lately is passed over
//! (Hermes, T-Part: at most 1.25 times the mean).
//!
//! A key that recent transactions wrote again and again is the head of a *hot chain*: each waits for
//! the one before. A link that runs where the one before it ran costs nothing: there its key lives, or
//! the value is left to it ([`Forward`](parsec_protocol::Forward)). One that runs elsewhere costs a hop
//! or two, and everyone behind it waits for them. So a hot key weighs more than any other, its
//! partition is not passed over, and of several that are as hot it is always the same: a chain that
//! crosses the network at each link would be slower than the partition that is spared.

use parsec_protocol::{Access, Entry, Mode, PartitionId, PartitionMap};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

/// What it is worth to have a key at home: a read saves one push, a write two, an addition one that
/// nobody waits for.
const ADD_WEIGHT: u64 = 1;
const READ_WEIGHT: u64 = 1 << 12;
const WRITE_WEIGHT: u64 = 2 << 12;
/// What a hot key is worth for each recent write of it: always more than all others together.
const HOT_WEIGHT: u64 = 1 << 32;
/// A key is hot if so many of the recent transactions wrote it. With fewer, there is time for a
/// link to cross the network while the rest of the window runs.
const HOT_WRITES: u32 = 64;

/// Fewest transactions after which all that is remembered counts half.
const WINDOW_TRANSACTIONS_MIN: u32 = 1_024;
/// The same for each partition.
const WINDOW_TRANSACTIONS_PER_PARTITION: u32 = 64;
/// What a transaction costs its home besides its keys, in the units of one key.
const TRANSACTION_WORK: u64 = 4;
/// How much a partition may be above 1.25 times the mean: some 16 small transactions, so that a
/// few of them are not torn from their keys when nothing else runs.
const LOAD_SLACK: u64 = 128;
/// Keys whose recent writes are counted.
const HEAT_ENTRIES: usize = 4_096;

const _: () = assert!(HEAT_ENTRIES.is_power_of_two());
const _: () =
    assert!(WRITE_WEIGHT * (parsec_protocol::limits::FOOTPRINT_KEYS_MAX as u64) < HOT_WEIGHT);

/// Chooses the home of each transaction of a batch.
///
/// Homes are in the batch, hence in the log: a chooser may look at anything (loads, history)
/// without making executors disagree. It depends on the transactions that it was asked about, and
/// on nothing else.
#[derive(Debug, Clone)]
pub struct HomeChooser {
    map: PartitionMap,
    load: Load,
    heat: Heat,
    window: u32,
    /// Transactions until all that is remembered counts half.
    left: u32,
}

/// A partition that has keys of a transaction, and what it is worth as its home.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    partition: PartitionId,
    weight: u64,
}

type Candidates = SmallVec<[Candidate; 8]>;

impl HomeChooser {
    /// A chooser under this map.
    #[must_use]
    pub fn new(map: PartitionMap) -> Self {
        let per_partition = WINDOW_TRANSACTIONS_PER_PARTITION * u32::from(map.len());
        let window = per_partition.max(WINDOW_TRANSACTIONS_MIN);
        let load = Load::new(usize::from(map.len()));
        Self { map, load, heat: Heat::new(), window, left: window }
    }

    /// The version of the map, for the batch.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.map.version()
    }

    /// The home of a transaction, which is about to be ordered there.
    pub fn choose(&mut self, entry: &Entry) -> PartitionId {
        let accesses = entry.footprint.accesses();
        let candidates = self.weigh(accesses);
        let home = match candidates[..] {
            [] => self.anywhere(entry),
            [Candidate { partition, .. }] => partition,
            _ => self.best(&candidates),
        };
        self.load.add(home, TRANSACTION_WORK + accesses.len() as u64);
        self.left -= 1;
        if self.left == 0 {
            self.left = self.window;
            self.load.halve();
            self.heat.halve();
        }
        home
    }

    /// What each partition that has keys of a transaction is worth. Counts the writes.
    fn weigh(&mut self, accesses: &[Access]) -> Candidates {
        let mut candidates = Candidates::new();
        for access in accesses.iter().filter(|access| !access.key.is_replicated()) {
            let weight = match access.mode {
                Mode::Add => ADD_WEIGHT,
                Mode::Read => READ_WEIGHT,
                Mode::Write => match self.heat.write(xxh3_64(access.key.encoded())) {
                    writes if writes >= HOT_WRITES => HOT_WEIGHT * u64::from(writes),
                    _ => WRITE_WEIGHT,
                },
            };
            let partition = self.map.owner(&access.key);
            match candidates.iter_mut().find(|known| known.partition == partition) {
                Some(known) => known.weight += weight,
                None => candidates.push(Candidate { partition, weight }),
            }
        }
        candidates
    }

    /// The heaviest partition, unless it ran too much lately and another one has values that are
    /// needed, too. Of equals, the one that ran least; of those with keys about as hot, always the same.
    fn best(&self, candidates: &[Candidate]) -> PartitionId {
        let rank = |candidate: &&Candidate| {
            let load = self.load.of(candidate.partition);
            (candidate.weight, std::cmp::Reverse(load))
        };
        let heaviest = candidates.iter().max_by_key(rank).expect("there are several");
        if heaviest.weight >= HOT_WEIGHT {
            // Several hot keys that are always written together are about as hot: their heat is counted
            // only about. Always the same of their partitions, whatever else there is, or each link would
            // run elsewhere than the one before.
            let about = heaviest.weight / 4 * 3;
            let hottest = candidates.iter().filter(|known| known.weight >= about);
            let first = hottest.map(|known| known.partition).min();
            return first.unwrap_or(heaviest.partition);
        }
        if self.load.has_room(heaviest.partition) {
            return heaviest.partition;
        }
        // Those that only add to a key wait for nothing, so running there would help nobody.
        let needed = heaviest.weight.min(READ_WEIGHT);
        let able = || candidates.iter().filter(|candidate| candidate.weight >= needed);
        let with_room = able().filter(|candidate| self.load.has_room(candidate.partition));
        let least_loaded = || able().min_by_key(|candidate| self.load.of(candidate.partition));
        with_room.max_by_key(rank).or_else(least_loaded).unwrap_or(heaviest).partition
    }

    /// A home for a transaction whose keys stand everywhere: of two that its id names, the one that
    /// ran less.
    fn anywhere(&self, entry: &Entry) -> PartitionId {
        let id = &entry.id.0;
        let drawn =
            |at: usize| PartitionId(u16::from_be_bytes([id[at], id[at + 1]]) % self.map.len());
        let (first, second) = (drawn(0), drawn(2));
        match self.load.of(second) < self.load.of(first) {
            true => second,
            false => first,
        }
    }
}

/// The work that each partition was given lately.
#[derive(Debug, Clone)]
struct Load {
    partitions: Vec<u64>,
    total: u64,
}

impl Load {
    fn new(partitions: usize) -> Self {
        Self { partitions: vec![0; partitions], total: 0 }
    }

    fn of(&self, partition: PartitionId) -> u64 {
        self.partitions[partition.index()]
    }

    /// Whether a partition is at most at 1.25 times the mean, and some.
    fn has_room(&self, partition: PartitionId) -> bool {
        let count = self.partitions.len() as u64;
        self.of(partition).saturating_sub(LOAD_SLACK) * 4 * count <= 5 * self.total
    }

    fn add(&mut self, partition: PartitionId, work: u64) {
        self.partitions[partition.index()] += work;
        self.total += work;
    }

    fn halve(&mut self) {
        self.partitions.iter_mut().for_each(|work| *work /= 2);
        self.total = self.partitions.iter().sum();
    }
}

/// How often keys were written lately, by their hash. What is hot is never missed for long: a key
/// that shares its entry with one that is written more seldom takes it over.
#[derive(Debug, Clone)]
struct Heat {
    entries: Vec<Written>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Written {
    tag: u32,
    writes: u32,
}

impl Heat {
    fn new() -> Self {
        Self { entries: vec![Written::default(); HEAT_ENTRIES] }
    }

    /// The key with this hash is written. Returns how often it was before, lately.
    fn write(&mut self, hash: u64) -> u32 {
        let [.., a, b, c, d] = hash.to_be_bytes();
        let [e, f, g, h, ..] = hash.to_be_bytes();
        let (index, tag) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let written = &mut self.entries[index as usize % HEAT_ENTRIES];
        if written.tag == tag {
            written.writes = written.writes.saturating_add(1);
            return written.writes - 1;
        }
        if written.writes > 1 {
            written.writes -= 1;
        } else {
            *written = Written { tag, writes: 1 };
        }
        0
    }

    fn halve(&mut self) {
        self.entries.iter_mut().for_each(|written| written.writes /= 2);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use parsec_protocol::{Footprint, Key, Namespace, RuntimeId, TxId};
    use proptest::prelude::*;

    use super::*;

    const PARTITIONS: u16 = 4;

    static MAP: LazyLock<PartitionMap> = LazyLock::new(|| PartitionMap::even(PARTITIONS).unwrap());

    fn chooser() -> HomeChooser {
        HomeChooser::new(MAP.clone())
    }

    /// The `number`th key that lies on a partition.
    fn key(partition: u16, number: u32) -> Key {
        let candidate = |salt: u32| {
            let bytes = [number.to_be_bytes(), salt.to_be_bytes()].concat();
            Key::new(Namespace::partitioned(1), &bytes).unwrap()
        };
        (0..).map(candidate).find(|key| MAP.owner(key) == PartitionId(partition)).unwrap()
    }

    fn entry(number: u32, accesses: &[(Key, Mode)]) -> Entry {
        let accesses = accesses.iter().map(|(key, mode)| Access { key: key.clone(), mode: *mode });
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
        Entry {
            id: TxId(id),
            runtime: RuntimeId::NATIVE,
            attempt: 0,
            home: PartitionId(0),
            sender: Vec::new().into(),
            payload: Vec::new().into(),
            footprint: Footprint::new(accesses.collect()).unwrap(),
            expires: None,
        }
    }

    #[test]
    fn the_home_has_the_fewest_remote_edges() {
        let mut chooser = chooser();
        let mut choose = |accesses: &[(Key, Mode)]| chooser.choose(&entry(1, accesses)).0;
        assert_eq!(choose(&[(key(1, 0), Mode::Write), (key(2, 0), Mode::Read)]), 1);
        let reads = [(key(3, 0), Mode::Read), (key(3, 1), Mode::Read), (key(3, 2), Mode::Read)];
        assert_eq!(choose(&[&reads[..], &[(key(1, 1), Mode::Write)]].concat()), 3);
        // Nobody waits for an addition, however many there are.
        let adds = [(key(0, 0), Mode::Add), (key(0, 1), Mode::Add), (key(0, 2), Mode::Add)];
        assert_eq!(choose(&[&adds[..], &[(key(2, 3), Mode::Read)]].concat()), 2);
        assert_eq!(choose(&adds), 0);
        // What stands everywhere pulls nowhere.
        let code = Key::new(Namespace::replicated(1), b"code").unwrap();
        assert_eq!(choose(&[(code, Mode::Write), (key(3, 3), Mode::Read)]), 3);
    }

    #[test]
    fn a_single_partition_transaction_keeps_its_partition_whatever_the_load() {
        let mut chooser = chooser();
        for number in 0..3_000 {
            assert_eq!(chooser.choose(&entry(number, &[(key(2, number), Mode::Write)])).0, 2);
        }
    }

    #[test]
    fn what_can_run_anywhere_is_spread() {
        let mut chooser = chooser();
        let mut homes = [0; PARTITIONS as usize];
        for number in 0..4_000 {
            homes[chooser.choose(&entry(number, &[])).index()] += 1;
        }
        assert!(homes.iter().all(|count| (900..1_100).contains(count)), "{homes:?}");
    }

    #[test]
    fn a_hot_chain_stays_where_its_key_lives() {
        let mut chooser = chooser();
        let hot = key(1, 9);
        let mut elsewhere = 0;
        for number in 0..10_000u32 {
            // Everyone writes the hot key and two keys of another partition.
            let other = u16::try_from(number % 3).unwrap() + u16::from(number % 3 > 0);
            let (first, second) = (key(other, number), key(other, number + 1));
            let accesses =
                [(hot.clone(), Mode::Write), (first, Mode::Write), (second, Mode::Write)];
            let home = chooser.choose(&entry(number, &accesses));
            elsewhere += u32::from(number >= HOT_WRITES && home != PartitionId(1));
        }
        assert_eq!(elsewhere, 0);
        // Of two hot keys, the hotter one counts.
        let warm = key(3, 9);
        for number in 0..HOT_WRITES * 3 {
            chooser.choose(&entry(number, &[(warm.clone(), Mode::Write)]));
        }
        let both = [(hot, Mode::Write), (warm, Mode::Write)];
        assert_eq!(chooser.choose(&entry(0, &both)), PartitionId(1));
    }

    #[test]
    fn keys_that_are_always_written_together_have_one_home() {
        let mut chooser = chooser();
        let pool = [key(3, 0), key(1, 0), key(2, 0)].map(|key| (key, Mode::Write));
        let mut homes = std::collections::BTreeSet::new();
        for number in 0..5_000 {
            // What else each of them has is anywhere.
            let own = (key(u16::try_from(number % 4).unwrap(), number), Mode::Write);
            let home = chooser.choose(&entry(number, &[&pool[..], &[own]].concat()));
            if number > HOT_WRITES {
                homes.insert(home);
            }
        }
        assert_eq!(homes.len(), 1, "{homes:?}");
    }

    #[test]
    fn what_was_hot_cools_down() {
        let mut heat = Heat::new();
        (0..1_000).for_each(|before| assert_eq!(heat.write(7), before));
        (0..10).for_each(|_| heat.halve());
        assert_eq!(heat.write(7), 0);
        // Another key with the same entry takes it over, and is counted from then on.
        let other = 7 | 1 << 40;
        assert_eq!((heat.write(other), heat.write(other)), (0, 1));
        assert_eq!(heat.write(7), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The bound: a transaction that has a choice and no hot key is given to a partition with
        /// room, or to the least loaded of those that could run it.
        #[test]
        fn a_choice_never_goes_to_a_partition_above_the_bound(
            choices in proptest::collection::vec(
                (0u16..PARTITIONS, 0u16..PARTITIONS, any::<bool>()), 1..3_000),
            heavy in 0u16..PARTITIONS,
        ) {
            let mut chooser = chooser();
            for (number, (first, second, is_heavy)) in (0u32..).zip(choices) {
                let first = if is_heavy { heavy } else { first };
                let accesses = [(key(first, number), Mode::Write), (key(second, number), Mode::Read)];
                let before = chooser.load.clone();
                let home = chooser.choose(&entry(number, &accesses));
                let able = [PartitionId(first), PartitionId(second)];
                prop_assert!(able.contains(&home));
                let least = able.map(|partition| before.of(partition)).into_iter().min().unwrap();
                prop_assert!(before.has_room(home) || before.of(home) == least);
                let has_fewest_edges = home == PartitionId(first);
                prop_assert!(has_fewest_edges || !before.has_room(PartitionId(first)));
            }
        }

        /// Where everyone has a choice, nobody ends far above the mean.
        #[test]
        fn a_favourite_partition_is_not_overrun(
            favourite in 0u16..PARTITIONS,
            others in proptest::collection::vec(1u16..PARTITIONS, 500..3_000),
        ) {
            let mut chooser = chooser();
            for (number, other) in (0u32..).zip(others) {
                let other = (favourite + other) % PARTITIONS;
                let pair = [(key(favourite, number), Mode::Write), (key(other, number), Mode::Read)];
                chooser.choose(&entry(number, &pair));
            }
            let bound = chooser.load.total * 5 / (4 * u64::from(PARTITIONS)) + LOAD_SLACK;
            let most = chooser.load.of(PartitionId(favourite));
            prop_assert!(most <= bound + TRANSACTION_WORK + 2, "{most} of {bound}");
            prop_assert!(most * 10 >= bound * 9, "what has room is not passed over");
        }
    }
}
