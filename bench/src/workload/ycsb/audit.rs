//! What must be in the records after a load, whatever the order.

use parsec_protocol::Value;
use parsec_runtimes::procedures::ycsb::{self, Record};

use super::{NEVER, Ycsb, YcsbOptions};
use crate::workload::payments::index;
use crate::workload::{Audit, AuditFailure, Commits};

/// Most records that are looked at: of more, as many are taken evenly.
const RECORDS_MAX: usize = 100_000;

/// A record, and what may have become of it.
struct Expected {
    number: u64,
    /// Whether it was there from the beginning.
    is_first: bool,
    /// The number of each write to it.
    writes: Vec<u64>,
}

struct Check {
    options: YcsbOptions,
    expected: Vec<Expected>,
    /// Which field each write sets.
    fields: Vec<u8>,
}

/// The audit of what was built so far.
pub(super) fn of(workload: &Ycsb) -> Audit {
    let options = workload.options;
    let first = options.records.accounts;
    let all = first + workload.inserted;
    let mut writes = vec![Vec::new(); index(all)];
    for ((place, _), write) in workload.writes.iter().zip(0..) {
        writes[index(*place)].push(write);
    }
    let step = index(all).div_ceil(RECORDS_MAX).max(1);
    let places = (0..all).zip(writes).step_by(step);
    let expected: Vec<_> = places
        .map(|(place, writes)| {
            let number = Ycsb::number(&workload.numbers, place);
            Expected { number, is_first: place < first, writes }
        })
        .collect();
    let fields = workload.writes.iter().map(|(_, field)| *field).collect();
    let table = workload.table();
    let keys = expected.iter().map(|record| ycsb::key(table, record.number)).collect();
    let check = Check { options, expected, fields };
    Audit::of(keys, move |values, commits| {
        check.expected.iter().zip(values).try_for_each(|(expected, value)| {
            check.record(expected, value.as_ref(), commits == Commits::All)
        })
    })
}

impl Check {
    fn record(
        &self,
        expected: &Expected,
        value: Option<&Value>,
        all: bool,
    ) -> Result<(), AuditFailure> {
        let number = expected.number;
        let Some(value) = value else {
            return match all || expected.is_first {
                true => Err(wrong("records don't vanish", number, "it is not there")),
                false => Ok(()),
            };
        };
        let Some(Record { version, fields }) = Record::decode(value) else {
            return Err(wrong("records keep their form", number, "it is none"));
        };
        let built = u64::try_from(expected.writes.len()).unwrap_or(u64::MAX);
        if version > built || (all && version != built) {
            let detail = format!("it was written {version} times, not {built}");
            return Err(wrong("writes are neither lost nor made twice", number, &detail));
        }
        let width = usize::from(self.options.field_bytes);
        if fields.len() != 10 * width {
            return Err(wrong("records keep their form", number, "it has another length"));
        }
        let first = self.options.first_fields(number);
        let all_fields = fields.chunks(width).zip(first.chunks(width)).zip(0..);
        for ((field, first), place) in all_fields {
            self.field(expected, place, field, first, all)
                .map_err(|detail| wrong("a field is what a write put there", number, &detail))?;
        }
        Ok(())
    }

    /// Whether a field is what one of the writes to it left there.
    fn field(
        &self,
        expected: &Expected,
        place: u8,
        field: &[u8],
        first: &[u8],
        all: bool,
    ) -> Result<(), String> {
        let to_it = |write: &u64| self.fields[usize_of(*write)] == place;
        let head = field.first_chunk().map_or(NEVER, |head| u64::from_be_bytes(*head));
        if head == NEVER {
            return match (field == first, all && expected.writes.iter().any(to_it)) {
                (true, false) => Ok(()),
                (true, true) => Err(format!("field {place} was never written")),
                (false, _) => Err(format!("field {place} is not what it was at first")),
            };
        }
        match expected.writes.iter().any(|write| *write == head && to_it(write)) {
            true if field == self.options.written(head) => Ok(()),
            true => Err(format!("field {place} is not what write {head} left")),
            false => Err(format!("no write {head} set field {place}")),
        }
    }
}

fn usize_of(write: u64) -> usize {
    usize::try_from(write).expect("it is the index of a vector")
}

fn wrong(rule: &'static str, record: u64, detail: &str) -> AuditFailure {
    AuditFailure::rule(rule, format!("record {record}: {detail}"))
}
