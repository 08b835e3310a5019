//! Writing finished epochs to the stores of a host, and syncing them.

use std::ops::Bound;

use parsec_executor::to_commit;
use parsec_protocol::message::PeerMessage;
use parsec_protocol::{EpochNumber, PartitionId};
use parsec_storage::Store as _;

use super::{Executor, HostTimer, ShardEvent};
use crate::surroundings::{Halt, Surroundings};

/// Stores.
impl Executor {
    pub(super) fn plan_commit(&self, s: &mut Surroundings, partition: PartitionId) {
        let delay = s.within(s.options.executors.commit);
        self.plan(s, delay, HostTimer::Commit(partition));
    }

    pub(super) fn commit(
        &mut self,
        s: &mut Surroundings,
        partition: PartitionId,
    ) -> Result<(), Halt> {
        let shard = self.shard(partition);
        let Some(finished) = shard.finished.pop_front() else { return Ok(()) };
        let has_more = !shard.finished.is_empty();
        let commit = to_commit(finished);
        let epoch = commit.epoch;
        s.note(self.node, || format!("{partition} commits {epoch}"));
        s.history.on_commit(partition, &commit);
        let store = &self.shard(partition).store;
        match commit.is_empty() {
            true => store.advance(epoch),
            false => store.commit(commit)?,
        }
        if has_more {
            self.plan_commit(s, partition);
        }
        self.deliver(s, partition, ShardEvent::Stored(epoch));
        self.host.on_applied(partition, epoch);
        self.answer_waiting(s, partition);
        self.sync_soon(s);
        Ok(())
    }

    pub(super) fn sync_soon(&mut self, s: &mut Surroundings) {
        if !std::mem::replace(&mut self.is_sync_planned, true) {
            let first = *self.shards.keys().next().expect("a host has partitions");
            let delay = s.within(s.options.executors.sync_interval);
            self.plan(s, delay, HostTimer::Sync(first));
        }
    }

    pub(super) fn sync(
        &mut self,
        s: &mut Surroundings,
        partition: PartitionId,
    ) -> Result<(), Halt> {
        let epoch = self.shard(partition).store.sync()?;
        self.synced.push((partition, epoch));
        let after = (Bound::Excluded(partition), Bound::Unbounded);
        let next = self.shards.range(after).next().map(|(next, _)| HostTimer::Sync(*next));
        let delay = s.within(s.options.executors.sync);
        self.plan(s, delay, next.unwrap_or(HostTimer::Synced));
        Ok(())
    }

    /// Commits went on meanwhile: what is told to be durable is less than what is applied.
    pub(super) fn tell_synced(&mut self, s: &mut Surroundings) {
        self.is_sync_planned = false;
        let synced = std::mem::take(&mut self.synced);
        let before = self.host.statuses();
        self.host.on_durable(&synced);
        if self.host.statuses() != before {
            s.note(self.node, || {
                let each = synced.iter().map(|(id, epoch)| format!("{id} {epoch}"));
                format!("has synced {}", each.collect::<Vec<_>>().join(", "))
            });
        }
        let is_behind = |(id, epoch): &(PartitionId, EpochNumber)| {
            self.shards[id].store.applied().epoch > *epoch
        };
        if synced.iter().any(is_behind) {
            self.sync_soon(s);
        }
    }

    /// A host tells of its partitions what their stores have.
    pub(super) fn check_told(&self, s: &mut Surroundings, message: &PeerMessage) {
        let (PeerMessage::Progress(told) | PeerMessage::Watermarks { partitions: told, .. }) =
            message
        else {
            return;
        };
        for status in told {
            let store = &self.shards[&status.partition].store;
            let (applied, durable) = (store.applied().epoch, store.durable());
            if status.applied > applied || status.durable > durable {
                let detail = format!("{status:?}, but it is at {applied}, durable {durable}");
                s.history.violate("hosts tell what their stores have", detail);
            }
        }
    }
}
