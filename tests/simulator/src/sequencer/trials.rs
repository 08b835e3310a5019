//! Finding footprints: a transaction is tried against a snapshot, round after round, until it has
//! read all that it needs.

use std::collections::BTreeMap;

use parsec_protocol::message::Query;
use parsec_protocol::{EpochNumber, EpochRecord, ErrorCode, Footprint, Key, Value};
use parsec_runtimes::{Call, Interrupt, Recorder};
use parsec_sequencer_core::{Candidate, Rediscovery};

use super::queries::Purpose;
use super::{Sequencer, SequencerTimer};
use crate::agenda::{MILLISECOND, Micros};
use crate::surroundings::Surroundings;

/// How long to wait before a footprint is looked for again.
const RETRY: Micros = 250 * MILLISECOND;
/// Most rounds of a trial.
const ROUNDS_MAX: usize = 64;

/// A transaction whose footprint is being found.
#[derive(Debug)]
pub(super) struct Trial {
    subject: Candidate,
    wanted_by: WantedBy,
    snapshot: EpochNumber,
    values: BTreeMap<Key, Option<Value>>,
    rounds: usize,
}

/// Who waits for a footprint.
#[derive(Debug)]
pub(super) enum WantedBy {
    /// The transaction at a place of a submission.
    Submission { client: parsec_protocol::NodeId, session: u64, request: u64, place: usize },
    /// One that strayed.
    Stray(Box<Rediscovery>),
}

impl Sequencer {
    /// Finds the footprint of a transaction as it would be after `snapshot`.
    pub(super) fn try_out(
        &mut self,
        s: &mut Surroundings,
        subject: Candidate,
        wanted_by: WantedBy,
        snapshot: EpochNumber,
    ) {
        let number = self.number();
        let runtime = s.cluster.runtimes.get(subject.runtime);
        let likely = runtime.map_or_else(Vec::new, |runtime| {
            runtime.likely_keys(&subject.sender, &subject.payload)
        });
        let trial = Trial { subject, wanted_by, snapshot, values: BTreeMap::new(), rounds: 0 };
        self.trials.insert(number, trial);
        // One question after another: a trial waits for one of them only.
        match likely.into_iter().next() {
            Some(key) => self.fetch(s, number, key),
            None => self.round(s, number),
        }
    }

    /// A transaction strayed: finds its footprint in a later state.
    pub(super) fn rediscover(&mut self, s: &mut Surroundings, stray: Rediscovery) {
        let snapshot = stray.least.max(self.followers.applied_by_all());
        let entry = &stray.entry;
        let subject = Candidate {
            id: entry.id,
            runtime: entry.runtime,
            sender: entry.sender.clone(),
            payload: entry.payload.clone(),
            footprint: Footprint::default(),
            expires: None,
            renews: false,
        };
        self.try_out(s, subject, WantedBy::Stray(Box::new(stray)), snapshot);
    }

    fn fetch(&mut self, s: &mut Surroundings, number: u64, key: Key) {
        let Some(trial) = self.trials.get(&number) else { return };
        let (partition, epoch) = (s.cluster.map.owner(&key), trial.snapshot);
        let query = Query::Read { partition, epoch, keys: vec![key.clone()] };
        self.question(s, query, Purpose::Trial { trial: number, keys: vec![key] });
    }

    pub(super) fn on_trial_values(
        &mut self,
        s: &mut Surroundings,
        number: u64,
        keys: Vec<Key>,
        values: Vec<Option<Value>>,
    ) {
        let Some(trial) = self.trials.get_mut(&number) else { return };
        trial.values.extend(keys.into_iter().zip(values));
        self.round(s, number);
    }

    fn round(&mut self, s: &mut Surroundings, number: u64) {
        let epoch = self.next_epoch(s);
        let Some(trial) = self.trials.get_mut(&number) else { return };
        trial.rounds += 1;
        if trial.rounds > ROUNDS_MAX {
            return self.end_trial(s, number, Err(ErrorCode::TooLarge));
        }
        let mut recorder = Recorder::new(&trial.values);
        let subject = &trial.subject;
        let call = Call {
            id: &subject.id,
            sender: &subject.sender,
            payload: &subject.payload,
            epoch: &epoch,
            entropy: &epoch.digest(),
            trial: true,
        };
        let result = self.sessions.execute(subject.runtime, &call, &mut recorder);
        match (result, recorder.finish()) {
            (Err(Interrupt::Missing(key)), _) => self.fetch(s, number, key),
            (Ok(_), Ok(recording)) => self.end_trial(s, number, Ok(recording.footprint)),
            _ => self.end_trial(s, number, Err(ErrorCode::Unsupported)),
        }
    }

    fn next_epoch(&self, s: &Surroundings) -> EpochRecord {
        let number = self.latest.as_ref().map_or(EpochNumber(0), |latest| latest.number).next();
        let timestamp_ms = s.clock().as_millis();
        EpochRecord { number, timestamp_ms, block: 1, parent: [0; 32], batches: Vec::new() }
    }

    fn end_trial(
        &mut self,
        s: &mut Surroundings,
        number: u64,
        found: Result<Footprint, ErrorCode>,
    ) {
        let Some(trial) = self.trials.remove(&number) else { return };
        match trial.wanted_by {
            WantedBy::Submission { client, session, request, place } => {
                self.on_footprint(s, client, session, request, place, found);
            }
            WantedBy::Stray(stray) => {
                self.orderer.on_discovered(stray.entry.id, stray.attempt, found);
                self.wake(s);
            }
        }
    }

    /// The state could not be read: a submission is refused, a stray is tried again.
    pub(super) fn fail_trial(&mut self, s: &mut Surroundings, number: u64) {
        let Some(trial) = self.trials.remove(&number) else { return };
        match trial.wanted_by {
            WantedBy::Submission { client, session, request, place } => {
                let unavailable = Err(ErrorCode::Unavailable);
                self.on_footprint(s, client, session, request, place, unavailable);
            }
            WantedBy::Stray(stray) => self.plan(s, RETRY, SequencerTimer::Stray(stray)),
        }
    }
}
