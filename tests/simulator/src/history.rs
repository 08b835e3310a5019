//! What has happened so far, against what must: the serial oracle follows the order as soon as it
//! is told to anyone, and everything that nodes keep and clients see is compared with it at once.
//!
//! The first thing that is not as it must be is a [`Violation`], and ends the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_oracle::Oracle;
use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::plant;
use parsec_protocol::{
    Batch, EpochNumber, EpochRecord, ErrorCode, Footprint, Key, Outcome, PartitionId, PartitionMap,
    Position, Receipt, Transaction, TxId, Value, slice,
};
use parsec_runtimes::Runtimes;
use parsec_sequencer_core::{Word, word};
use parsec_storage::{Applied, Digest, EpochCommit};

use crate::agenda::Micros;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule is broken.
    pub rule: &'static str,
    /// How.
    pub detail: String,
}

/// How an operation of a client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With this receipt.
    Receipt(Receipt),
    /// It was refused for good, and must never be ordered.
    Refused(ErrorCode),
}

/// What a client did with one transaction.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The client.
    pub client: u16,
    /// The transaction.
    pub transaction: Transaction,
    /// When it was submitted first, microseconds of virtual time.
    pub submitted: Micros,
    /// When and how it ended; `None` while nobody knows.
    pub ended: Option<(Micros, Ending)>,
    /// The last place in the order that any client had heard of when this was submitted.
    after: Option<Position>,
    /// The last epoch that any client had read when this was submitted.
    read: EpochNumber,
    /// How often it was sent.
    sent: u32,
    /// On which session it was sent first, and in which order there.
    sent_first: Option<(u64, Sent)>,
}

/// The place of a transaction in what a client sends on a session: the request, and its place there.
type Sent = (u64, usize);

/// An epoch, and what becomes of it.
#[derive(Debug)]
struct Ordered {
    record: EpochRecord,
    receipts: Vec<Receipt>,
    /// For each transaction, where it runs, and whether it has keys elsewhere.
    homes: Vec<(PartitionId, bool)>,
    /// The keys that it changes.
    changed: Vec<Key>,
}

/// The history of a run.
pub(crate) struct History {
    map: Arc<PartitionMap>,
    oracle: Oracle,
    epochs: Vec<Ordered>,
    versions: BTreeMap<Key, Vec<(EpochNumber, Option<Value>)>>,
    operations: BTreeMap<TxId, Operation>,
    /// The greatest place in the order that any client has heard of.
    heard: Option<Position>,
    /// The greatest epoch that any client has read.
    read: EpochNumber,
    /// For each session of a client, the last of what it sent that was ordered.
    ordered: BTreeMap<u64, Sent>,
    violation: Option<Violation>,
}

impl History {
    pub(crate) fn new(runtimes: &Runtimes, map: Arc<PartitionMap>) -> Self {
        Self {
            map,
            oracle: Oracle::new(runtimes).watching_ids(),
            epochs: Vec::new(),
            versions: BTreeMap::new(),
            operations: BTreeMap::new(),
            heard: None,
            read: EpochNumber(0),
            ordered: BTreeMap::new(),
            violation: None,
        }
    }

    /// Notes a violation, unless there is one already.
    pub(crate) fn violate(&mut self, rule: &'static str, detail: impl Into<String>) {
        self.violation.get_or_insert_with(|| Violation { rule, detail: detail.into() });
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(crate) fn operations(&self) -> &BTreeMap<TxId, Operation> {
        &self.operations
    }

    /// The last epoch that is known to be ordered.
    pub(crate) fn last(&self) -> EpochNumber {
        EpochNumber(self.epochs.len() as u64)
    }

    /// The digests of the whole state and of all receipts.
    pub(crate) fn digests(&self) -> (Digest, Digest) {
        (self.oracle.state_digest(), self.oracle.receipts_digest())
    }

    fn epoch(&self, number: EpochNumber) -> Option<&Ordered> {
        self.epochs.get(usize::try_from(number.0.checked_sub(1)?).ok()?)
    }

    /// The value of a key after an epoch.
    pub(crate) fn value_at(&self, key: &Key, epoch: EpochNumber) -> Option<&Value> {
        let versions = self.versions.get(key)?;
        let after = versions.partition_point(|(from, _)| *from <= epoch);
        versions.get(after.checked_sub(1)?)?.1.as_ref()
    }
}

/// The order.
impl History {
    /// An epoch is in the order for good: it was told to somebody, or found in the log.
    pub(crate) fn on_ordered(&mut self, record: &EpochRecord, batches: &[Batch]) {
        if let Some(known) = self.epoch(record.number) {
            if known.record != *record {
                let detail =
                    format!("{}: {:?}, but it was {:?}", record.number, record, known.record);
                self.violate("one epoch for each number", detail);
            }
            return;
        }
        // The oracle is right, whatever is planted elsewhere.
        let applied = plant::without(|| self.oracle.apply(record, batches));
        let receipts = match applied {
            Ok(receipts) => receipts,
            Err(error) => return self.violate("the order can be executed", error.to_string()),
        };
        let entries = || batches.iter().flat_map(|batch| &batch.entries);
        for (entry, receipt) in entries().zip(&receipts) {
            self.check_submitted(&entry.id, &entry.payload, receipt.position);
            if entry.attempt == 0 {
                self.check_order(&entry.id, receipt.position);
            }
            self.check_alone(receipt);
        }
        let homes = entries().map(|e| (e.home, self.is_shared(e.home, &e.footprint))).collect();
        let mut changed = Vec::new();
        let accesses = entries().flat_map(|entry| entry.footprint.accesses());
        for access in accesses.filter(|access| access.mode.may_change()) {
            let new = self.oracle.get(&access.key);
            let versions = self.versions.entry(access.key.clone()).or_default();
            if versions.last().and_then(|(_, value)| value.as_ref()) != new {
                versions.push((record.number, new.cloned()));
                changed.push(access.key.clone());
            }
        }
        self.epochs.push(Ordered { record: record.clone(), receipts, homes, changed });
    }

    fn is_shared(&self, home: PartitionId, footprint: &Footprint) -> bool {
        footprint.accesses().iter().any(|access| match access.key.is_replicated() {
            true => access.mode.may_change() && self.map.len() > 1,
            false => {
                slice::is_remote_read(home, access, &self.map)
                    || (access.mode.may_change() && self.map.owner(&access.key) != home)
            }
        })
    }

    /// Only what a client submitted, and was not refused, is ordered; and never before something
    /// that somebody had heard of when it was submitted.
    fn check_submitted(&mut self, id: &TxId, payload: &[u8], position: Position) {
        let Some(operation) = self.operations.get(id) else {
            return self.violate("only submissions are ordered", format!("{id} at {position}"));
        };
        if operation.transaction.payload != payload {
            let detail = format!("{id} at {position} has another payload");
            return self.violate("only submissions are ordered", detail);
        }
        if let Some((_, Ending::Refused(code))) = &operation.ended {
            let detail = format!("{id} at {position} was refused: {code:?}");
            return self.violate("what is refused is not ordered", detail);
        }
        let (after, read) = (operation.after, operation.read);
        if after.is_some_and(|after| position <= after) || position.epoch <= read {
            let detail = format!(
                "{id} is ordered at {position}, but was submitted after somebody had a receipt \
                 from {after:?} and read {read}"
            );
            self.violate("the order respects real time", detail);
        }
    }
}

/// The order, as clients and strays need it.
impl History {
    /// What a client sends on one session is ordered as it was sent. Of what was sent twice nobody
    /// knows which time counts.
    fn check_order(&mut self, id: &TxId, position: Position) {
        let operation = self.operations.get(id).filter(|operation| operation.sent == 1);
        let Some((session, sent)) = operation.and_then(|operation| operation.sent_first) else {
            return;
        };
        let last = self.ordered.entry(session).or_insert(sent);
        if sent < *last {
            let detail = format!("{id}, sent as {sent:?}, is at {position}, after {last:?}");
            return self.violate("submissions are ordered as they were sent", detail);
        }
        *last = sent;
    }

    /// The last attempt runs alone, with a footprint that was found in the state before it.
    fn check_alone(&mut self, receipt: &Receipt) {
        let is_last = receipt.attempt >= STRAY_ATTEMPTS_MAX;
        if is_last && matches!(receipt.outcome, Outcome::Strayed { .. }) {
            self.violate("what runs alone does not stray", format!("{receipt:?}"));
        }
    }

    /// How many transactions are ordered through an epoch.
    pub(crate) fn transactions(&self, through: EpochNumber) -> u64 {
        let epochs = usize::try_from(through.0).unwrap_or(usize::MAX);
        self.epochs.iter().take(epochs).map(|epoch| epoch.record.transactions()).sum()
    }
}

/// Partitions.
impl History {
    /// A partition commits an epoch.
    pub(crate) fn on_commit(&mut self, partition: PartitionId, commit: &EpochCommit) {
        if let Err(detail) = self.check_commit(partition, commit) {
            let detail = format!("{partition} at {}: {detail}", commit.epoch);
            self.violate("partitions commit what the oracle does", detail);
        }
    }

    fn check_commit(&self, partition: PartitionId, commit: &EpochCommit) -> Result<(), String> {
        let ordered = self.epoch(commit.epoch).ok_or("it is not ordered")?;
        let before = EpochNumber(commit.epoch.0 - 1);
        let mut written: BTreeMap<&Key, &Option<Value>> = BTreeMap::new();
        for write in &commit.writes {
            let key = &write.key;
            let (old, new) = (self.value_at(key, before), self.value_at(key, commit.epoch));
            if write.new.as_ref() != new {
                return Err(format!("{key} becomes {:?}, not {new:?}", write.new));
            }
            if write.old.as_ref() != old {
                return Err(format!("{key} was {:?}, not {old:?}", write.old));
            }
            if write.counted != (self.map.owner(key) == partition) {
                return Err(format!("{key} is counted: {}", write.counted));
            }
            written.insert(key, &write.new);
        }
        let own = |key: &&Key| key.is_replicated() || self.map.owner(key) == partition;
        if let Some(key) = ordered.changed.iter().filter(own).find(|k| !written.contains_key(k)) {
            return Err(format!("the change of {key} is missing"));
        }
        let ran = ordered.receipts.iter().zip(&ordered.homes).filter(|(_, at)| at.0 == partition);
        let expected: Vec<_> = ran.clone().map(|(receipt, _)| receipt).collect();
        if !commit.receipts.iter().map(|receipt| &**receipt).eq(expected.iter().copied()) {
            return Err(format!("its receipts are {:?}, not {expected:?}", commit.receipts));
        }
        let shared = ran.filter(|(_, at)| at.1).count() as u64;
        match commit.executed == expected.len() as u64 && commit.multi_partition == shared {
            true => Ok(()),
            false => Err(format!("it counts {} and {}", commit.executed, commit.multi_partition)),
        }
    }

    /// What a partition must add up to after an epoch.
    pub(crate) fn applied(&self, partition: PartitionId, epoch: EpochNumber) -> Applied {
        let mut applied = Applied { epoch, ..Applied::default() };
        for key in self.versions.keys().filter(|key| self.map.owner(key) == partition) {
            if let Some(value) = self.value_at(key, epoch) {
                applied.state.add(Digest::of(key, value));
            }
        }
        let epochs = usize::try_from(epoch.0).unwrap_or(usize::MAX);
        let ran = self.epochs.iter().take(epochs).flat_map(|e| e.receipts.iter().zip(&e.homes));
        for (receipt, (_, shared)) in ran.filter(|(_, (home, _))| *home == partition) {
            applied.receipts.add(Digest(receipt.digest()));
            applied.executed += 1;
            applied.multi_partition += u64::from(*shared);
        }
        applied
    }

    /// A partition's store was opened, or is looked at in the end.
    pub(crate) fn on_found(&mut self, partition: PartitionId, found: &Applied) {
        if found.epoch > self.last() {
            let detail = format!("{partition} has {found}, but {} is the last", self.last());
            return self.violate("no partition is ahead of the order", detail);
        }
        let expected = self.applied(partition, found.epoch);
        if *found != expected {
            let detail = format!("{partition} has {found:?}, not {expected:?}");
            self.violate("stores hold what the oracle does", detail);
        }
    }

    /// The values that a partition holds in the end.
    pub(crate) fn check_values(
        &mut self,
        partition: PartitionId,
        get: impl Fn(&Key) -> Option<Value>,
    ) {
        let last = self.last();
        let own = |key: &&Key| key.is_replicated() || self.map.owner(key) == partition;
        let wrong = self.versions.keys().filter(own).find_map(|key| {
            let (found, expected) = (get(key), self.value_at(key, last));
            (found.as_ref() != expected).then(|| format!("{key} is {found:?}, not {expected:?}"))
        });
        if let Some(wrong) = wrong {
            self.violate("stores hold what the oracle does", format!("at {partition}, {wrong}"));
        }
    }
}

/// Clients.
impl History {
    /// A client submits a transaction, perhaps again.
    pub(crate) fn on_submit(
        &mut self,
        now: Micros,
        client: u16,
        id: TxId,
        transaction: &Transaction,
    ) {
        let (after, read) = (self.heard, self.read);
        self.operations.entry(id).or_insert_with(|| Operation {
            client,
            transaction: transaction.clone(),
            submitted: now,
            ended: None,
            after,
            read,
            sent: 0,
            sent_first: None,
        });
    }

    /// A client sends a transaction, at a place of a request.
    pub(crate) fn on_sent(&mut self, id: &TxId, session: u64, place: (u64, usize)) {
        let Some(operation) = self.operations.get_mut(id) else { return };
        operation.sent += 1;
        operation.sent_first.get_or_insert((session, place));
    }

    /// A client is told how a transaction ended.
    pub(crate) fn on_ending(&mut self, now: Micros, id: &TxId, ending: Ending) {
        if let Err((rule, detail)) = self.check_ending(id, &ending) {
            return self.violate(rule, detail);
        }
        let Some(operation) = self.operations.get_mut(id) else { return };
        if let Ending::Receipt(receipt) = &ending {
            self.heard = self.heard.max(Some(receipt.position));
        }
        operation.ended.get_or_insert((now, ending));
    }

    fn check_ending(&self, id: &TxId, ending: &Ending) -> Result<(), (&'static str, String)> {
        let Some(operation) = self.operations.get(id) else {
            return Err(("answers are to questions", format!("nobody submitted {id}")));
        };
        if let Some((_, known)) = operation.ended.as_ref().filter(|(_, known)| known != ending) {
            let detail = format!("{id}: {known:?}, and then {ending:?}");
            return Err(("one ending for each transaction", detail));
        }
        let ordered = self.epochs.iter().flat_map(|epoch| &epoch.receipts);
        match ending {
            Ending::Refused(code) => {
                let mut own = ordered.filter(|receipt| receipt.id == *id);
                own.next().map_or(Ok(()), |receipt| {
                    let detail = format!("{id} was refused ({code:?}), but is {receipt:?}");
                    Err(("what is refused is not ordered", detail))
                })
            }
            Ending::Receipt(receipt) => {
                let at = receipt.position;
                let epoch = self.epoch(at.epoch);
                let index = usize::try_from(at.index).unwrap_or(usize::MAX);
                let recorded = epoch.and_then(|epoch| epoch.receipts.get(index));
                let expected = recorded.map(|recorded| word(Arc::new(recorded.clone())));
                match &expected {
                    Some(Word::Final(expected)) if **expected == *receipt => Ok(()),
                    _ => {
                        let detail = format!("{receipt:?}, but the order says {expected:?}");
                        Err(("clients hear what the oracle says", detail))
                    }
                }
            }
        }
    }

    /// The least epoch that a read of the latest state may show, if it is sent now.
    pub(crate) fn heard(&self) -> EpochNumber {
        self.heard.map_or(EpochNumber(0), |position| position.epoch).max(self.read)
    }

    /// A client has read keys as of an epoch.
    pub(crate) fn on_read(
        &mut self,
        least: EpochNumber,
        epoch: EpochNumber,
        keys: &[Key],
        values: &[Option<Value>],
    ) {
        if epoch < least || epoch > self.last() {
            let detail = format!("{epoch} was read, {least} had been heard of");
            self.violate("reads are not stale", detail);
        }
        for (key, value) in keys.iter().zip(values) {
            let expected = self.value_at(key, epoch);
            if value.as_ref() != expected {
                let detail = format!("{key} at {epoch} is {value:?}, not {expected:?}");
                return self.violate("reads show what the oracle holds", detail);
            }
        }
        self.read = self.read.max(epoch);
    }

    /// Every transaction that was submitted must have ended.
    pub(crate) fn check_all_ended(&mut self) {
        let mut open = self.operations.iter().filter(|(_, operation)| operation.ended.is_none());
        if let Some((id, operation)) = open.next() {
            let others = open.count();
            let ordered = self.epochs.iter().flat_map(|epoch| &epoch.receipts);
            let attempts: Vec<_> = ordered.filter(|r| r.id == *id).map(|r| r.position).collect();
            let detail = format!(
                "{id} of client {} was submitted at {} and has no ending (ordered at {attempts:?}); \
                 nor have {others} others",
                operation.client,
                crate::trace::time(operation.submitted),
            );
            self.violate("everything ends once faults do", detail);
        }
    }
}

#[cfg(test)]
mod tests;
