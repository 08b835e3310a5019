//! Transactions that strayed again and again run apart: a group of them is tried in order in the
//! latest state, one after the other's effect, while nothing else is ordered, and is ordered in that
//! order. So those that stray because of one another (everybody counts up one counter, and writes
//! where it stands) get footprints that hold. The last attempt runs alone: nothing can be in its way.

use std::collections::VecDeque;

use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use parsec_protocol::{BatchRef, Entry, TxId};

use super::{Known, Lane, Stage};
use crate::Tick;
use crate::limits::APART_TRANSACTIONS_MAX;

/// How far the group of transactions is that runs apart from all others.
#[derive(Debug)]
pub(super) enum Apart {
    /// There is none. If there is to be one, it waits until nothing executes.
    Idle,
    /// Footprints are being found.
    Discovering(Vec<(TxId, Option<Entry>)>),
    /// They wait to be put into batches of their own, in this order.
    Ready(VecDeque<Entry>),
    /// They are closed or ordered.
    Running,
}

impl Lane {
    /// Whether no other transactions may be put into a batch.
    pub(super) fn is_apart(&self) -> bool {
        !self.apart.is_empty() || !matches!(self.apart_stage, Apart::Idle)
    }

    /// Takes an entry with its new footprint if it is one of the group's; else gives it back.
    pub(super) fn keep_for_group(&mut self, entry: Entry) -> Option<Entry> {
        let Apart::Discovering(group) = &mut self.apart_stage else { return Some(entry) };
        let Some((_, found)) = group.iter_mut().find(|(id, _)| *id == entry.id) else {
            return Some(entry);
        };
        *found = Some(entry);
        if group.iter().all(|(_, found)| found.is_some()) {
            let ready = group.drain(..).filter_map(|(_, found)| found).collect();
            self.apart_stage = Apart::Ready(ready);
        }
        None
    }

    /// Goes on with what runs apart. Returns the batches that are closed now; `None` if nothing is to
    /// run apart.
    pub(super) fn close_apart(&mut self, now: Tick) -> Option<Vec<BatchRef>> {
        match std::mem::replace(&mut self.apart_stage, Apart::Idle) {
            // Nothing is offered either: what is, executes.
            Apart::Idle | Apart::Running if self.executing == 0 => {
                let group = self.next_group();
                if group.is_empty() {
                    return None;
                }
                self.rediscover(&group, self.window.last());
                let group = group.into_iter().map(|id| (id, None)).collect();
                self.apart_stage = Apart::Discovering(group);
            }
            Apart::Idle if self.apart.is_empty() => return None,
            Apart::Ready(entries) => return Some(self.close_group(now, entries)),
            stage => self.apart_stage = stage,
        }
        Some(Vec::new())
    }

    /// The transactions that run apart next: those that waited longest, or one in its last attempt.
    fn next_group(&mut self) -> Vec<TxId> {
        let mut group = Vec::new();
        while group.len() < APART_TRANSACTIONS_MAX
            && let Some(id) = self.apart.front()
        {
            let is_last = self.is_last_attempt(id);
            if is_last && !group.is_empty() {
                break;
            }
            group.extend(self.apart.pop_front());
            if is_last {
                break;
            }
        }
        group
    }

    fn is_last_attempt(&self, id: &TxId) -> bool {
        let Some(Known::Flight(flight)) = self.known.get(id) else { return false };
        matches!(flight.stage, Stage::Rediscovering { attempt, .. } if attempt >= STRAY_ATTEMPTS_MAX)
    }

    /// Closes batches of the group as far as there is room; the rest waits.
    fn close_group(&mut self, now: Tick, mut entries: VecDeque<Entry>) -> Vec<BatchRef> {
        let mut closed = Vec::new();
        while !entries.is_empty() && self.has_room() {
            let next = self.fit(&entries);
            let mut batch = Vec::with_capacity(next + 1);
            if entries.iter().take(next).any(|entry| self.needs_summary(entry)) {
                // Not there while anything executes, such as those of the group before these.
                let Some(write) = self.take_summary() else { break };
                batch.push(write);
            }
            batch.extend(entries.drain(..next));
            closed.push(self.close_batch(now, batch));
        }
        self.apart_stage = match entries.is_empty() {
            true => Apart::Running,
            false => Apart::Ready(entries),
        };
        closed
    }

    /// How many of the entries are put into one batch: one at least.
    fn fit(&self, entries: &VecDeque<Entry>) -> usize {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let has_room = bytes < self.options.batch_bytes_target;
            bytes += entry.size();
            has_room
        };
        let count =
            entries.iter().take(self.options.batch_transactions_max).take_while(fits).count();
        count.max(1)
    }
}
