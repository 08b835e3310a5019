//! Closing batches: which transactions go into the next one, and when.

use std::sync::Arc;

use parsec_protocol::limits::EPOCH_BATCHES_MAX;
use parsec_protocol::{Batch, BatchRef, Entry, codec};

use super::{Flight, Known, Lane, Stage, Summary};
use crate::limits::{EPOCH_INTERVAL_MAX_US, EPOCHS_UNHURRIED};
use crate::{LaneOptions, Output, Tick};

impl Lane {
    /// Whether the ledger is free, and it is not too soon for another epoch.
    pub(super) fn may_close_partial(&self, now: Tick) -> bool {
        let due = self.closed_at.after(self.epoch_interval_us());
        self.ledger_is_free && (self.executing == 0 || now >= due)
    }

    /// Microseconds between epochs, at present.
    pub(super) fn epoch_interval_us(&self) -> u64 {
        let behind = self.window.last().0.saturating_sub(self.applied.0);
        epoch_interval_us(self.options.epoch_interval_min_us, behind)
    }

    pub(super) fn has_full_batch(&self) -> bool {
        let fresh = self.queue.len().min(self.room_for_fresh());
        let bytes = self.again_bytes + if fresh > 0 { self.queue_bytes } else { 0 };
        self.again.len() + fresh >= self.options.batch_transactions_max
            || bytes >= self.options.batch_bytes_target
    }

    /// Whether one more batch may be ordered, as far as the slowest partition is concerned.
    pub(super) fn has_room(&self) -> bool {
        // At most two epochs are yet to come of what is closed: one that the ledger is busy with,
        // and one of all that gathered meanwhile.
        let coming = if self.ledger_is_free { 1 } else { 2 };
        let ahead = self.window.last().0 + coming - self.applied.0.min(self.window.last().0);
        ahead <= self.options.epochs_in_flight_max && self.offered.len() < EPOCH_BATCHES_MAX
    }

    /// How many transactions may be put into their first batch.
    pub(super) fn room_for_fresh(&self) -> usize {
        // Transactions that strayed are not held to these: only they can make room.
        let retained = self.window.transactions() + self.offered_transactions();
        if self.window.bytes() >= self.options.retained_bytes_max
            || self.window.len() >= self.options.retained_epochs_max
        {
            return 0;
        }
        let in_flight = self.options.in_flight_transactions_max.saturating_sub(self.in_flight);
        in_flight.min(self.options.retained_transactions_max.saturating_sub(retained))
    }

    pub(super) fn offered_transactions(&self) -> usize {
        self.offered.iter().map(|(_, batch)| batch.entries.len()).sum()
    }

    pub(super) fn take_entries(&mut self) -> Vec<Entry> {
        let mut fresh = self.room_for_fresh();
        let LaneOptions { batch_transactions_max, batch_bytes_target, .. } = self.options;
        let there = self.again.len() + self.queue.len().min(fresh);
        let mut entries = Vec::with_capacity(there.min(batch_transactions_max));
        let mut bytes = 0;
        let mut summarized = false;
        let is_full = |count: usize, bytes: usize| {
            count >= batch_transactions_max || bytes >= batch_bytes_target
        };
        while !is_full(entries.len(), bytes) {
            let next = self.again.front().or_else(|| self.queue.front().filter(|_| fresh > 0));
            if !summarized && next.is_some_and(|entry| self.needs_summary(entry)) {
                let Some(write) = self.take_summary() else { break };
                entries.insert(0, write);
                summarized = true;
            }
            let entry = if let Some(entry) = self.again.pop_front() {
                self.again_bytes -= entry.size();
                entry
            } else if fresh > 0
                && let Some(entry) = self.queue.pop_front()
            {
                self.queue_bytes -= entry.size();
                self.in_flight += 1;
                fresh -= 1;
                entry
            } else {
                break;
            };
            bytes += entry.size();
            entries.push(entry);
        }
        entries
    }

    pub(super) fn close_batch(&mut self, now: Tick, mut entries: Vec<Entry>) -> BatchRef {
        for entry in &mut entries {
            entry.home = self.homes.choose(entry);
            let Some(Known::Flight(flight)) = self.known.get_mut(&entry.id) else {
                unreachable!("what is queued is under way")
            };
            let before = match flight.stage {
                Stage::Again { before } => Some(before),
                _ => None,
            };
            flight.stage = Stage::Closed { before };
        }
        self.executing += entries.len();
        self.sequence += 1;
        self.closed_at = now;
        let map_version = self.homes.map_version();
        let entries = entries.into_iter().map(Arc::new).collect();
        let batch = Batch { lane: self.id, sequence: self.sequence, map_version, entries };
        let encoded = codec::encode(&batch);
        let reference = batch.reference(&encoded);
        let batch = Arc::new(batch);
        self.offered.push_back((reference.clone(), batch.clone()));
        self.outputs.push_back(Output::Append { batch, reference: reference.clone(), encoded });
        reference
    }

    pub(super) fn needs_summary(&self, entry: &Entry) -> bool {
        let key = self.options.summary_key.as_ref();
        key.is_some_and(|key| entry.footprint.find(key).is_some())
    }

    /// Whether what comes next waits for a summary that is not there.
    pub(super) fn is_held(&self) -> bool {
        let next = self.again.front().or_else(|| self.queue.front());
        next.is_some_and(|entry| self.needs_summary(entry)) && !self.has_summary()
    }

    fn has_summary(&self) -> bool {
        let is_drained = self.executing == 0 && self.offered.is_empty();
        is_drained && matches!(self.summary, Summary::Known(at, _) if at == self.window.last())
    }

    /// The transaction that writes the summary of all that is ordered, for the next batch; `None`
    /// while there is none, because something executes or it has to be made first.
    pub(super) fn take_summary(&mut self) -> Option<Entry> {
        if self.executing > 0 || !self.offered.is_empty() {
            return None;
        }
        let last = self.window.last();
        match std::mem::replace(&mut self.summary, Summary::Unknown) {
            Summary::Known(through, write) if through == last => {
                self.known.insert(write.id, Known::Flight(Flight::new(Stage::Queued)));
                self.in_flight += 1;
                Some(*write)
            }
            Summary::Asked(through) if through == last => {
                self.summary = Summary::Asked(through);
                None
            }
            _ => {
                self.summary = Summary::Asked(last);
                self.outputs.push_back(Output::Summarize { through: last });
                None
            }
        }
    }
}

/// Microseconds between epochs while the slowest partition is so many of them `behind`: more than
/// `least` if those are many. What is ordered then waits anyway, and larger batches cost less each,
/// and leave more values where they are ([`Forward`](parsec_protocol::Forward)).
fn epoch_interval_us(least: u64, behind: u64) -> u64 {
    let stretched = least.saturating_mul(behind) / EPOCHS_UNHURRIED;
    stretched.clamp(least, EPOCH_INTERVAL_MAX_US.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_further_apart_the_more_of_them_wait() {
        let interval = |behind| epoch_interval_us(4_000, behind);
        assert_eq!(
            [0, 1, 8, 12, 16, 40, 1_000].map(interval),
            [4_000, 4_000, 4_000, 6_000, 8_000, 20_000, 20_000]
        );
        // What is further apart already stays so.
        assert_eq!(epoch_interval_us(30_000, 100), 30_000);
        assert_eq!(epoch_interval_us(0, u64::MAX), 0);
    }
}
