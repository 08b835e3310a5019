//! Answers to what the sequencer asks.

use parsec_protocol::message::{Answer, PeerMessage, Query, short};
use parsec_protocol::transport::Channel;
use parsec_protocol::{NodeId, PartitionId};
use parsec_storage::Store as _;

use super::{Executor, HostTimer};
use crate::agenda::{Micros, SECOND};
use crate::surroundings::{Halt, Surroundings};

/// How long a read waits for its epoch.
const READ_PATIENCE: Micros = 10 * SECOND;

/// A read that waits for its epoch.
pub(super) struct Waiting {
    number: u64,
    asked_by: (NodeId, u64),
    question: u64,
    query: Query,
}

/// Questions.
impl Executor {
    pub(super) fn on_query(
        &mut self,
        s: &mut Surroundings,
        asked_by: (NodeId, u64),
        message: PeerMessage,
    ) -> Result<(), Halt> {
        let PeerMessage::Query { number: question, query } = message else {
            return Err(Halt::Defect("a query channel carries queries".into()));
        };
        self.reads += 1;
        let number = self.reads;
        let waiting = Waiting { number, asked_by, question, query };
        match self.try_answer(&waiting.query) {
            Some(answer) => self.answer(s, &waiting, answer),
            None => {
                self.waiting.push(waiting);
                self.plan(s, READ_PATIENCE, HostTimer::Unread(number));
            }
        }
        Ok(())
    }

    /// Answers what has waited for an epoch of a partition that is there now.
    pub(super) fn answer_waiting(&mut self, s: &mut Surroundings, grown: PartitionId) {
        for waiting in std::mem::take(&mut self.waiting) {
            let is_concerned = matches!(
                waiting.query,
                Query::Read { partition, .. } | Query::Receipt { partition, .. }
                    if partition == grown
            );
            match is_concerned.then(|| self.try_answer(&waiting.query)).flatten() {
                Some(answer) => self.answer(s, &waiting, answer),
                None => self.waiting.push(waiting),
            }
        }
    }

    fn try_answer(&self, query: &Query) -> Option<Answer> {
        let failed = |reason: String| Answer::Failed { reason: short(reason) };
        let (partition, epoch) = match query {
            Query::Read { partition, epoch, .. } => (partition, *epoch),
            Query::Receipt { partition, position } => (partition, position.epoch),
            Query::Digests | Query::Outcomes { .. } | Query::States { .. } => {
                return Some(failed("not asked here".into()));
            }
        };
        let Some(shard) = self.shards.get(partition) else {
            return Some(failed(format!("{partition} is not here")));
        };
        if shard.store.applied().epoch < epoch {
            return None;
        }
        let answer = match query {
            Query::Read { keys, .. } => shard.store.read_at(epoch, keys).map(Answer::Values),
            Query::Receipt { position, .. } => shard.store.receipt(*position).map(Answer::Receipt),
            Query::Digests | Query::Outcomes { .. } | Query::States { .. } => return None,
        };
        Some(answer.unwrap_or_else(|error| failed(error.to_string())))
    }

    fn answer(&self, s: &mut Surroundings, waiting: &Waiting, answer: Answer) {
        let (to, session) = waiting.asked_by;
        let message = PeerMessage::Answer { number: waiting.question, answer };
        s.send(self.node, to, session, Channel::Query, &message);
    }

    pub(super) fn unread(&mut self, s: &mut Surroundings, number: u64) {
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.number == number) {
            let waiting = self.waiting.swap_remove(at);
            let reason = "its epoch has not come".into();
            self.answer(s, &waiting, Answer::Failed { reason });
        }
    }
}
