//! Questions to executors, and what their answers are for.

use std::collections::BTreeMap;

use parsec_protocol::message::{Answer, PeerMessage, Query};
use parsec_protocol::transport::Channel;
use parsec_protocol::{EpochNumber, Key, NodeId, PartitionId};

use super::clients::Recorded;
use super::{Sequencer, SequencerTimer};
use crate::agenda::{Micros, SECOND};
use crate::surroundings::{Halt, SEQUENCER, Surroundings};

/// How long a question may take.
const PATIENCE: Micros = 5 * SECOND;

/// A question without an answer.
#[derive(Debug)]
pub(super) struct Question {
    host: NodeId,
    purpose: Purpose,
}

/// What a question is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A trial needs these values.
    Trial { trial: u64, keys: Vec<Key> },
    /// A client reads the keys at these places of its list.
    Read { read: u64, places: Vec<usize> },
    /// A client wants a recorded receipt.
    Receipt(Recorded),
}

impl Sequencer {
    /// Asks a host; a question that can't be asked fails at once.
    pub(super) fn question(&mut self, s: &mut Surroundings, query: Query, purpose: Purpose) {
        let partition = match &query {
            Query::Read { partition, .. } | Query::Receipt { partition, .. } => *partition,
            Query::Digests | Query::Outcomes { .. } | Query::States { .. } => return,
        };
        let host = self.followers.layout().holder(partition);
        let host = host.expect("every partition has a host in a layout");
        let number = self.number();
        let sent = self.hosts.get(&host).copied().is_some_and(|session| {
            let message = PeerMessage::Query { number, query };
            s.send(SEQUENCER, host, session, Channel::Query, &message)
        });
        if sent {
            self.questions.insert(number, Question { host, purpose });
            self.plan(s, PATIENCE, SequencerTimer::Unanswered(number));
        } else {
            self.unanswered(s, purpose);
        }
    }

    /// Asks all partitions that own `keys` for their values after `epoch`. `purpose` says what the
    /// keys at these places of the list are for. Returns how many questions that takes.
    pub(super) fn question_keys(
        &mut self,
        s: &mut Surroundings,
        epoch: EpochNumber,
        keys: &[Key],
        purpose: impl Fn(Vec<usize>) -> Purpose,
    ) -> usize {
        let mut by_owner: BTreeMap<PartitionId, Vec<usize>> = BTreeMap::new();
        for (place, key) in keys.iter().enumerate() {
            by_owner.entry(s.cluster.map.owner(key)).or_default().push(place);
        }
        let count = by_owner.len();
        for (partition, places) in by_owner {
            let keys = places.iter().map(|place| keys[*place].clone()).collect();
            self.question(s, Query::Read { partition, epoch, keys }, purpose(places));
        }
        count
    }

    pub(super) fn on_answer(
        &mut self,
        s: &mut Surroundings,
        from: NodeId,
        number: u64,
        answer: Answer,
    ) -> Result<(), Halt> {
        let Some(Question { host, purpose }) = self.questions.remove(&number) else {
            return Ok(());
        };
        if host != from {
            return Err(Halt::Defect(format!("{from} answered what {host} was asked")));
        }
        match (purpose, answer) {
            (Purpose::Trial { trial, keys }, Answer::Values(values)) => {
                self.on_trial_values(s, trial, keys, values);
            }
            (Purpose::Read { read, places }, Answer::Values(values)) => {
                self.on_read_values(s, read, &places, values);
            }
            (Purpose::Receipt(recorded), Answer::Receipt(receipt)) => {
                return self.on_recorded(s, recorded, receipt);
            }
            (purpose, Answer::Failed { .. }) => self.unanswered(s, purpose),
            (purpose, other) => {
                return Err(Halt::Defect(format!("{other:?} is no answer for {purpose:?}")));
            }
        }
        Ok(())
    }

    pub(super) fn on_unanswered(&mut self, s: &mut Surroundings, number: u64) -> Result<(), Halt> {
        if let Some(Question { purpose, .. }) = self.questions.remove(&number) {
            self.unanswered(s, purpose);
        }
        Ok(())
    }

    pub(super) fn fail_questions_to(&mut self, s: &mut Surroundings, host: NodeId) {
        let failed: Vec<u64> = self
            .questions
            .iter()
            .filter(|(_, question)| question.host == host)
            .map(|(number, _)| *number)
            .collect();
        for number in failed {
            if let Some(Question { purpose, .. }) = self.questions.remove(&number) {
                self.unanswered(s, purpose);
            }
        }
    }

    fn unanswered(&mut self, s: &mut Surroundings, purpose: Purpose) {
        match purpose {
            Purpose::Trial { trial, .. } => self.fail_trial(s, trial),
            Purpose::Read { read, .. } => self.fail_read(s, read),
            Purpose::Receipt(recorded) => self.retry_receipt(s, recorded),
        }
    }
}
