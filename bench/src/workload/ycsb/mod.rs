//! YCSB: reads, updates, inserts and scans of records.

use bytes::Bytes;
use parsec_runtimes::procedures::Invocation;
use parsec_runtimes::procedures::ycsb::{self, Answer, Call, FIELDS, Op, Record};
use rayon::prelude::*;

use super::payments::{PaymentOptions, index};
use super::spread::{Pattern, Spread, Spreader};
use super::{
    Audit, BuildProgress, LoadTransaction, Stage, Workload, build, procedure, put_rows, salt,
};
use crate::draw::{self, BadWorkload, Draws, Pairs, Ranks, Skew};

mod audit;

/// Most records of one scan.
const SCAN_MAX: u64 = 100;
/// Least bytes of a field: it begins with the number of the write that it comes from.
const FIELD_BYTES_MIN: u16 = 8;
/// Most bytes of a field.
const FIELD_BYTES_MAX: u16 = 1_000;
/// The number that fields begin with that nobody wrote since the record was made.
const NEVER: u64 = u64::MAX;

/// One of the workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// Half reads, half updates.
    A,
    /// 95 % reads, 5 % updates.
    B,
    /// Reads.
    C,
    /// 95 % reads of the latest records, 5 % inserts.
    D,
    /// 95 % scans, 5 % inserts.
    E,
    /// Half reads, half read-modify-writes.
    F,
    /// So many records in each transaction, each read (80 %) or updated (20 %), as deterministic
    /// databases are measured. What was read is summed up, not returned.
    Many(u16),
}

impl Letter {
    /// How many of 100 operations read, if nothing else is said.
    #[must_use]
    pub fn read(self) -> u8 {
        match self {
            Self::A | Self::F => 50,
            Self::B | Self::D | Self::E => 95,
            Self::C => 100,
            Self::Many(_) => 80,
        }
    }

    fn inserts(self) -> bool {
        matches!(self, Self::D | Self::E)
    }

    /// Records that are chosen for each transaction.
    fn group(self) -> u16 {
        if let Self::Many(keys) = self { keys } else { 1 }
    }
}

impl std::fmt::Display for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Many(keys) => write!(f, "ycsb, {keys} records a transaction"),
            letter => write!(f, "ycsb {letter:?}"),
        }
    }
}

/// What a [`Ycsb`] workload may choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YcsbOptions {
    /// Which of the workloads.
    pub letter: Letter,
    /// Records at first, how they are chosen, and the seed. For D, rank k is the k-th youngest.
    pub records: PaymentOptions,
    /// How many of 100 operations read.
    pub read: u8,
    /// Bytes of each field.
    pub field_bytes: u16,
    /// Whether transactions declare their footprints. Otherwise admission takes them from the
    /// arguments.
    pub declared: bool,
}

/// Operations on the records of one table.
///
/// Each write has a number, with which the field that it sets begins: the audit can tell of every
/// field which write it comes from, and of every record how often it was written.
#[derive(Debug)]
pub struct Ycsb {
    options: YcsbOptions,
    spread: Option<Spread>,
    /// The number of each record; none where they are numbered from zero on.
    numbers: Vec<u64>,
    choice: Choice,
    draws: Draws,
    made: u64,
    /// Which field of which record each write sets.
    writes: Vec<(u32, u8)>,
    inserted: u32,
}

#[derive(Debug)]
enum Choice {
    One { ranks: Ranks, conflict: u8, turn: u32 },
    Group(Pairs),
    Spread(Spreader),
}

impl Ycsb {
    /// The workload with these options, with records anywhere or where `spread` wants them.
    ///
    /// # Errors
    /// [`BadWorkload`] if the options are out of range. Only where there are several records in a
    /// transaction, they can be spread.
    pub fn new(options: YcsbOptions, spread: Option<Spread>) -> Result<Self, BadWorkload> {
        let YcsbOptions { letter, records, field_bytes, .. } = options;
        let PaymentOptions { seed, accounts, skew, conflict } = records;
        let group = letter.group();
        let bounded = |knob, value: u16, least: u16, most: u16| match value {
            value if (least..=most).contains(&value) => Ok(()),
            value => {
                let allowed = format!("{least} to {most}");
                Err(BadWorkload::Value { knob, value: value.into(), allowed })
            }
        };
        bounded("field_bytes", field_bytes, FIELD_BYTES_MIN, FIELD_BYTES_MAX)?;
        bounded("keys", group, 1, u16::try_from(ycsb::OPS_MAX).unwrap_or(u16::MAX))?;
        // Checks the number of records, too.
        let pairs = Pairs::new(seed, accounts, skew)?.with_conflict(conflict)?;
        if accounts < u32::from(group) || skew == Skew::OnePayee {
            let (value, allowed) = (accounts.into(), format!("{group} different ones are chosen"));
            return Err(BadWorkload::Value { knob: "accounts", value, allowed });
        }
        let mut numbers = Vec::new();
        let choice = match (spread, letter) {
            (Some(spread), _) => {
                let spreader = Spreader::new(&records, spread, Pattern::Group(group))?;
                numbers = spreader.fill(|number| (number, [ycsb::key(seed, number)]));
                Choice::Spread(spreader)
            }
            (None, Letter::Many(_)) => Choice::Group(pairs),
            (None, _) => Choice::One { ranks: Ranks::new(accounts, skew)?, conflict, turn: 0 },
        };
        let draws = Draws::new(seed, "ycsb");
        let (writes, made, inserted) = (Vec::new(), 0, 0);
        Ok(Self { options, spread, numbers, choice, draws, made, writes, inserted })
    }

    fn table(&self) -> u64 {
        self.options.records.seed
    }

    /// The records of the next transaction, by their place among all.
    fn choose(&mut self) -> Vec<u32> {
        let PaymentOptions { accounts, skew, .. } = self.options.records;
        match &mut self.choice {
            Choice::Spread(spreader) => spreader.next_group(),
            Choice::Group(pairs) => pairs.next_group(self.options.letter.group().into()),
            Choice::One { ranks, conflict, turn } => {
                if *conflict > 0 && self.draws.below(100) < u64::from(*conflict) {
                    return vec![0];
                }
                let rank = match skew {
                    Skew::Turns => {
                        let rank = *turn;
                        *turn = (rank + 1) % accounts;
                        rank
                    }
                    _ => ranks.draw(&mut self.draws),
                };
                match self.options.letter {
                    Letter::D => vec![accounts + self.inserted - 1 - rank],
                    _ => vec![rank],
                }
            }
        }
    }

    /// The next transaction, without the bytes that it writes.
    fn next_plan(&mut self) -> (u64, Vec<Planned>) {
        let letter = self.options.letter;
        let chosen = self.choose();
        let mut planned = Vec::with_capacity(chosen.len());
        for place in chosen {
            let reads = self.draws.below(100) < u64::from(self.options.read);
            planned.push(match (reads, letter) {
                (true, Letter::E) => {
                    let count = 1 + self.draws.below(SCAN_MAX);
                    Planned::Scan { place, count: u16::try_from(count).expect("100 at most") }
                }
                (true, _) => Planned::Read { place },
                (false, _) if letter.inserts() => {
                    let place = self.options.records.accounts + self.inserted;
                    self.inserted += 1;
                    Planned::Insert { place }
                }
                (false, _) => self.next_write(place),
            });
        }
        let number = self.made;
        self.made += 1;
        (number, planned)
    }

    fn next_write(&mut self, place: u32) -> Planned {
        let field = u8::try_from(self.draws.below(10)).expect("below 10");
        let write = u64::try_from(self.writes.len()).expect("a vector's length is a u64");
        self.writes.push((place, field));
        Planned::Write { place, field, write }
    }

    /// The number of the record at a place.
    fn number(numbers: &[u64], place: u32) -> u64 {
        numbers.get(index(place)).copied().unwrap_or_else(|| place.into())
    }
}

/// An operation, without the bytes that it writes.
#[derive(Debug, Clone, Copy)]
enum Planned {
    Read { place: u32 },
    Write { place: u32, field: u8, write: u64 },
    Insert { place: u32 },
    Scan { place: u32, count: u16 },
}

impl YcsbOptions {
    fn op(&self, numbers: &[u64], planned: Planned) -> Op {
        let number = |place| Ycsb::number(numbers, place);
        match planned {
            Planned::Read { place } => Op::Read { record: number(place) },
            Planned::Scan { place, count } => Op::Scan { first: number(place), count },
            Planned::Insert { place } => {
                let record = number(place);
                Op::Insert { record, fields: self.first_fields(record).into() }
            }
            Planned::Write { place, field, write } => {
                let (record, value) = (number(place), self.written(write));
                match self.letter {
                    Letter::F => Op::ReadModifyWrite { record, field, value },
                    _ => Op::Update { record, field, value },
                }
            }
        }
    }

    /// What a write puts into its field.
    fn written(&self, write: u64) -> Bytes {
        filler(self.records.seed, "ycsb write", write, write, self.field_bytes).into()
    }

    /// The fields of a record at first.
    fn first_fields(&self, record: u64) -> Vec<u8> {
        let field = |field: u64| {
            let number = record.wrapping_mul(10).wrapping_add(field);
            filler(self.records.seed, "ycsb record", number, NEVER, self.field_bytes)
        };
        (0..10).flat_map(field).collect()
    }
}

const _: () = assert!(FIELDS == 10);

/// Bytes that begin with `head` and go on with what follows from seed, purpose and number.
fn filler(seed: u64, purpose: &str, number: u64, head: u64, bytes: u16) -> Vec<u8> {
    let noise = draw::bytes32(seed, purpose, number);
    head.to_be_bytes().into_iter().chain(noise.into_iter().cycle()).take(bytes.into()).collect()
}

impl Workload for Ycsb {
    fn name(&self) -> String {
        let YcsbOptions { letter, records, read, field_bytes, .. } = &self.options;
        let PaymentOptions { accounts, skew, seed, .. } = records;
        let spread = self.spread.map(|spread| format!("{spread}, ")).unwrap_or_default();
        format!(
            "{letter} ({spread}{accounts} records of 10 × {field_bytes} bytes, {skew}, {read} % \
             reads, seed {seed})"
        )
    }

    fn setup(&self) -> Vec<Stage> {
        let (table, options) = (self.table(), &self.options);
        let row = |place: u32| {
            let number = Self::number(&self.numbers, place);
            let fields = options.first_fields(number);
            (ycsb::key(table, number), Record { version: 0, fields: &fields }.encode())
        };
        let rows: Vec<_> = (0..options.records.accounts).into_par_iter().map(row).collect();
        vec![put_rows(table, "put the records", rows)]
    }

    fn build(&mut self, count: usize, progress: BuildProgress<'_>) -> Vec<LoadTransaction> {
        let (table, options) = (self.table(), self.options);
        let numbers = std::mem::take(&mut self.numbers);
        let answer = match options.letter {
            Letter::E | Letter::Many(_) => Answer::Digest,
            _ => Answer::Records,
        };
        let built = build(
            count,
            progress,
            || self.next_plan(),
            |(number, planned)| {
                let ops =
                    planned.into_iter().map(|planned| options.op(&numbers, planned)).collect();
                let call = Invocation::Ycsb(Call { table, answer, ops });
                procedure(call, salt(table, "ycsb load", number), options.declared)
            },
        );
        self.numbers = numbers;
        built
    }

    fn multi_partition(&self) -> Option<u64> {
        match &self.choice {
            Choice::Spread(spreader) => Some(spreader.multi_partition()),
            Choice::One { .. } | Choice::Group(_) => None,
        }
    }

    fn audit(&self) -> Audit {
        audit::of(self)
    }
}

#[cfg(test)]
mod tests;
