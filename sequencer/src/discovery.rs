//! Finding the footprint of a transaction: by predicting it from earlier calls, or by trying it
//! against a snapshot (reconnaissance).
//!
//! All transactions of a unit are tried together, round after round: each trial runs until it
//! needs a value that is not at hand; then all values that any of them needs are fetched, in one
//! query per partition, and those trials run again.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parsec_protocol::{
    EpochNumber, EpochRecord, ErrorCode, Footprint, Key, RuntimeId, TxId, Value,
};
use parsec_runtimes::{Call, Interrupt, Predictors, Recorder, Runtimes, Sessions};
use rayon::prelude::*;
use tokio::sync::{Semaphore, watch};

use crate::cache::ReplicatedCache;
use crate::limits::{DISCOVERIES_MAX, DISCOVERY_BYTES_MAX, DISCOVERY_ROUNDS_MAX};
use crate::queries::{Queries, QueryError};
use crate::workers::Workers;

/// A transaction whose footprint is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) id: TxId,
    pub(crate) runtime: RuntimeId,
    pub(crate) sender: Bytes,
    pub(crate) payload: Bytes,
}

/// Why no footprint was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undiscovered {
    /// The state could not be read: it may go well another time.
    Unavailable(String),
    /// It will not go better another time.
    Refused(ErrorCode, String),
}

/// How far a trial came.
enum Trial {
    Found(Result<Footprint, Undiscovered>),
    Needs(Key),
}

type Values = BTreeMap<Key, Option<Value>>;

/// Finds footprints.
#[derive(Clone)]
pub(crate) struct Discovery(Arc<Inner>);

struct Inner {
    predictors: Predictors,
    runtimes: Runtimes,
    workers: Workers,
    /// Sessions that no thread uses at the moment.
    idle: Mutex<Vec<Sessions>>,
    queries: Queries,
    cache: Arc<ReplicatedCache>,
    /// The last epoch that was ordered: trials see the one that may come next.
    latest: watch::Receiver<Option<Arc<EpochRecord>>>,
    permits: Semaphore,
}

impl Discovery {
    pub(crate) fn new(
        runtimes: Runtimes,
        workers: Workers,
        queries: Queries,
        cache: Arc<ReplicatedCache>,
        latest: watch::Receiver<Option<Arc<EpochRecord>>>,
    ) -> Self {
        let permits = Semaphore::new(DISCOVERIES_MAX);
        let idle = Mutex::default();
        let predictors = runtimes.predictors();
        Self(Arc::new(Inner {
            predictors,
            runtimes,
            workers,
            idle,
            queries,
            cache,
            latest,
            permits,
        }))
    }

    /// The footprint of each transaction, in their order: predicted from earlier calls, or else as
    /// [`Self::discover`] finds it.
    pub(crate) async fn predict_or_discover(
        &self,
        subjects: Vec<Subject>,
        snapshot: EpochNumber,
    ) -> Vec<Result<Footprint, Undiscovered>> {
        let inner = self.0.clone();
        let predict = move || {
            let predict = |subject: &Subject| {
                let Subject { runtime, sender, payload, .. } = subject;
                inner.predictors.predict(*runtime, sender, payload)
            };
            let predicted: Vec<_> = subjects.par_iter().map(predict).collect();
            (subjects, predicted)
        };
        let (subjects, predicted) = self.0.workers.run(predict).await;
        let others = subjects.into_iter().zip(&predicted).filter(|(_, found)| found.is_none());
        let others: Vec<Subject> = others.map(|(subject, _)| subject).collect();
        let count = |by, count: usize| {
            metrics::counter!("parsec_sequencer_footprints_total", "by" => by)
                .increment(count as u64);
        };
        count("prediction", predicted.len() - others.len());
        count("trial", others.len());
        let mut found = match others.is_empty() {
            true => Vec::new(),
            false => self.discover(others, snapshot).await,
        }
        .into_iter();
        let pick = |predicted: Option<Footprint>| predicted.map(Ok).or_else(|| found.next());
        predicted.into_iter().map_while(pick).collect()
    }

    /// What was predicted for these transactions was wrong.
    pub(crate) fn forget(&self, subjects: &[Subject]) {
        for Subject { runtime, sender, payload, .. } in subjects {
            self.0.predictors.forget(*runtime, sender, payload);
        }
    }

    /// The footprint of each transaction, as it would be in the state after `snapshot`, in their
    /// order. A trial that ends badly has a footprint too: the order decides how it ends.
    pub(crate) async fn discover(
        &self,
        subjects: Vec<Subject>,
        snapshot: EpochNumber,
    ) -> Vec<Result<Footprint, Undiscovered>> {
        let Ok(_permit) = self.0.permits.acquire().await else { return Vec::new() };
        let started = std::time::Instant::now();
        let mut unit = Unit::new(subjects);
        let mut wanted = self.likely(&unit.subjects);
        for _ in 0..DISCOVERY_ROUNDS_MAX {
            if let Err(error) = self.fetch(&mut unit, wanted, snapshot).await {
                unit.give_up(&Undiscovered::Unavailable(error.to_string()));
                break;
            }
            if unit.bytes > DISCOVERY_BYTES_MAX {
                unit.give_up(&too_large("it reads too much"));
                break;
            }
            (unit, wanted) = self.round(unit).await;
            if wanted.is_empty() {
                break;
            }
        }
        unit.give_up(&too_large("it needs too many rounds of reads"));
        metrics::histogram!("parsec_sequencer_discovery_seconds").record(started.elapsed());
        unit.found.into_iter().flatten().collect()
    }

    /// What the transactions are likely to touch.
    fn likely(&self, subjects: &[Subject]) -> BTreeSet<Key> {
        let keys = |subject: &Subject| {
            let runtime = self.0.runtimes.get(subject.runtime);
            runtime.map_or_else(Vec::new, |r| r.likely_keys(&subject.sender, &subject.payload))
        };
        subjects.iter().flat_map(keys).collect()
    }

    async fn fetch(
        &self,
        unit: &mut Unit,
        wanted: BTreeSet<Key>,
        snapshot: EpochNumber,
    ) -> Result<(), QueryError> {
        let mut missing = Vec::new();
        for key in wanted {
            match self.0.cache.get(&key) {
                Some(value) => unit.learn(key, Some(value)),
                None => missing.push(key),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let values = self.0.queries.read(snapshot, &missing).await?;
        for (key, value) in missing.into_iter().zip(values) {
            self.0.cache.keep(&key, value.as_ref());
            unit.learn(key, value);
        }
        Ok(())
    }

    /// Tries every transaction whose footprint is not found yet. Returns the keys that are needed
    /// to go on.
    async fn round(&self, mut unit: Unit) -> (Unit, BTreeSet<Key>) {
        let inner = self.0.clone();
        let trial = move || {
            let epoch = inner.next_epoch();
            let entropy = epoch.digest();
            let open = (0..unit.found.len()).filter(|index| unit.found[*index].is_none());
            let trials: Vec<(usize, Trial)> = open
                .collect::<Vec<_>>()
                .into_par_iter()
                .map(|index| (index, inner.try_one(&unit, index, &epoch, &entropy)))
                .collect();
            let mut wanted = BTreeSet::new();
            for (index, trial) in trials {
                let Subject { runtime, sender, payload, .. } = &unit.subjects[index];
                if let Trial::Found(Ok(footprint)) = &trial {
                    inner.predictors.learn(*runtime, sender, payload, footprint);
                }
                match trial {
                    Trial::Found(result) => unit.found[index] = Some(result),
                    Trial::Needs(key) => {
                        wanted.insert(key);
                    }
                }
            }
            (unit, wanted)
        };
        self.0.workers.run(trial).await
    }
}

impl Inner {
    fn try_one(&self, unit: &Unit, index: usize, epoch: &EpochRecord, entropy: &[u8; 32]) -> Trial {
        let subject = &unit.subjects[index];
        let mut sessions = self.sessions();
        // A runtime that panics here would panic at every executor: the transaction must not get
        // there. The sessions it used are not used again.
        let tried = catch_unwind(AssertUnwindSafe(|| {
            let mut recorder = Recorder::new(&unit.values);
            let call = Call {
                id: &subject.id,
                sender: &subject.sender,
                payload: &subject.payload,
                epoch,
                entropy,
                trial: true,
            };
            let result = sessions.execute(subject.runtime, &call, &mut recorder);
            (result, recorder.finish())
        }));
        let Ok((result, recording)) = tried else {
            tracing::error!(id = %subject.id, "a runtime panicked in a trial");
            return Trial::Found(Err(refused(ErrorCode::Unsupported, "its runtime failed")));
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sessions);
        match (result, recording) {
            (Err(Interrupt::Missing(key)), _) => Trial::Needs(key),
            (Ok(_), Ok(recording)) => Trial::Found(Ok(recording.footprint)),
            (Ok(_), Err(error)) => Trial::Found(Err(too_large(&error.to_string()))),
            (Err(Interrupt::Stray(access)), _) => {
                let detail = format!("its runtime strayed in a trial, at {}", access.key);
                Trial::Found(Err(refused(ErrorCode::Unsupported, &detail)))
            }
            (Err(Interrupt::Fatal(reason)), _) => {
                tracing::error!(id = %subject.id, reason, "a runtime gave up in a trial");
                Trial::Found(Err(refused(ErrorCode::Unsupported, &reason)))
            }
        }
    }

    fn sessions(&self) -> Sessions {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| self.runtimes.sessions())
    }

    /// The epoch that may come next, for the context of a trial.
    fn next_epoch(&self) -> EpochRecord {
        let latest = self.latest.borrow().clone();
        let now = crate::clock::now().as_millis();
        match latest {
            Some(latest) => EpochRecord {
                number: latest.number.next(),
                timestamp_ms: now.max(latest.timestamp_ms),
                block: latest.block + 1,
                parent: latest.parent,
                batches: Vec::new(),
            },
            None => EpochRecord {
                number: EpochNumber(1),
                timestamp_ms: now,
                block: 1,
                parent: [0; 32],
                batches: Vec::new(),
            },
        }
    }
}

/// Transactions whose footprints are found together.
struct Unit {
    subjects: Vec<Subject>,
    found: Vec<Option<Result<Footprint, Undiscovered>>>,
    values: Values,
    bytes: usize,
}

impl Unit {
    fn new(subjects: Vec<Subject>) -> Self {
        Self { found: vec![None; subjects.len()], subjects, values: Values::new(), bytes: 0 }
    }

    fn learn(&mut self, key: Key, value: Option<Value>) {
        self.bytes += key.encoded().len() + value.as_ref().map_or(0, Value::len);
        self.values.insert(key, value);
    }

    /// Gives this as the reason for every transaction whose footprint is not found.
    fn give_up(&mut self, reason: &Undiscovered) {
        for found in &mut self.found {
            found.get_or_insert_with(|| Err(reason.clone()));
        }
    }
}

fn refused(code: ErrorCode, detail: &str) -> Undiscovered {
    Undiscovered::Refused(code, detail.to_owned())
}

fn too_large(detail: &str) -> Undiscovered {
    refused(ErrorCode::TooLarge, &format!("no footprint was found: {detail}"))
}
