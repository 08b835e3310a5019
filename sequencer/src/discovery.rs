//! Finding the footprint of a transaction: by what its payload declares, by predicting it from
//! earlier calls, or by trying it against a snapshot (reconnaissance).
//!
//! All transactions of a submission are tried together, round after round: see
//! [`parsec_runtimes::trial`]. All values that any of them needs are fetched at once, in one query
//! per partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parsec_protocol::{EpochNumber, EpochRecord, ErrorCode, Footprint, Key, Value};
use parsec_runtimes::access::{Ahead, Source};
use parsec_runtimes::trial::{Memory, Refusal, Setting, Subject, Trials, Unit};
use parsec_runtimes::{Declared, Predictors, Runtimes};
use tokio::sync::{Semaphore, watch};

use crate::ahead::Counters;
use crate::cache::ReplicatedCache;
use crate::limits::{
    ADMISSIONS_MIN, DISCOVERIES_MAX, DISCOVERY_BYTES_MAX, DISCOVERY_ROUNDS_MAX, ORDERLY_ROUNDS_MAX,
    ORDERLY_TIME_MAX, TRIAL_TIME_MAX, TRIALS_MIN,
};
use crate::queries::{Queries, QueryError};
use crate::workers::Workers;

/// Why no footprint was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undiscovered {
    /// The state could not be read: it may go well another time.
    Unavailable(String),
    /// It will not go better another time.
    Refused(ErrorCode, String),
}

/// Where trials see the state.
#[derive(Debug, Clone)]
pub(crate) struct Vantage {
    /// The epoch after which values are read.
    pub(crate) snapshot: EpochNumber,
    /// Closes when the client's earlier submissions have been through discovery.
    pub(crate) earlier: Option<watch::Receiver<()>>,
}

/// What was found for each transaction.
pub(crate) type Footprints = Vec<Result<Footprint, Undiscovered>>;

/// Finds footprints.
#[derive(Clone)]
pub(crate) struct Discovery(Arc<Inner>);

struct Inner {
    predictors: Predictors,
    runtimes: Runtimes,
    trials: Trials,
    workers: Workers,
    queries: Queries,
    cache: Arc<ReplicatedCache>,
    counters: Arc<Counters>,
    /// The last epoch that was ordered: trials see the one that may come next.
    latest: watch::Receiver<Option<Arc<EpochRecord>>>,
    permits: Semaphore,
}

/// A unit on its way through rounds.
struct Job {
    unit: Unit,
    /// The epoch after which values are read.
    snapshot: EpochNumber,
    /// How long the trials of each transaction took.
    spent: Vec<Duration>,
    rounds: usize,
    /// How often it was tried in order.
    orderly: usize,
    /// How long that took.
    in_order: Duration,
}

/// Values of replicated keys, as far as they are remembered.
struct Remembered<'a>(&'a ReplicatedCache);

impl Source for Remembered<'_> {
    fn value(&self, key: &Key) -> Option<Option<Value>> {
        self.0.get(key).map(Some)
    }
}

/// What is remembered beside the values that are read after an epoch.
struct Beside<'a> {
    cache: &'a ReplicatedCache,
    counters: &'a Counters,
    snapshot: EpochNumber,
}

impl Memory for Beside<'_> {
    fn replicated(&self, key: &Key) -> Option<Value> {
        self.cache.replicated(key)
    }

    fn last_known(&self, key: &Key) -> Option<Value> {
        self.cache.last_known(key)
    }

    fn ahead(&self, key: &Key) -> Ahead {
        self.counters.count(key, self.snapshot)
    }
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
        let predictors = runtimes.predictors();
        let trials = Trials::new(runtimes.clone());
        Self(Arc::new(Inner {
            predictors,
            runtimes,
            trials,
            workers,
            queries,
            cache,
            counters: Arc::default(),
            latest,
            permits,
        }))
    }

    /// Who is on the way to count keys up: to be told what is ordered.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.0.counters.clone()
    }

    /// The footprint of each transaction of a submission, in their order: the known one, what the
    /// payload declares, what is predicted from earlier calls, or else what a trial finds.
    pub(crate) async fn find(&self, subjects: Vec<Subject>, vantage: Vantage) -> Footprints {
        let foresee = |inner: &Arc<Inner>, mut subject| (inner.foresee(&mut subject), subject);
        let inner = self.0.clone();
        let (_, foreseen) = self.0.workers.map(inner, subjects, ADMISSIONS_MIN, foresee).await;
        let (ways, subjects): (Vec<_>, Vec<_>) = foreseen.into_iter().unzip();
        count(&ways);
        let to_try = |subject: &Subject| subject.known.as_ref().is_none_or(Footprint::may_deploy);
        if !subjects.iter().any(to_try) {
            return subjects.into_iter().filter_map(|subject| subject.known).map(Ok).collect();
        }
        let (job, failure) = self.discover(Unit::new(subjects), vantage).await;
        let inner = self.0.clone();
        let learn = move || {
            for (Subject { runtime, sender, payload, .. }, footprint) in job.unit.found() {
                inner.predictors.learn(*runtime, sender, payload, footprint);
            }
            job
        };
        let job = self.0.workers.run(learn).await;
        finish(self.count(job).await.unit, failure)
    }

    /// The footprint of each transaction that strayed, in the state after `snapshot`. What may
    /// declare it anew does so only if its runtime says that this helps.
    pub(crate) async fn find_again(
        &self,
        mut subjects: Vec<Subject>,
        snapshot: EpochNumber,
    ) -> Footprints {
        for subject in &mut subjects {
            let runtime = self.0.runtimes.get(subject.runtime);
            subject.declares &= runtime.is_some_and(|runtime| runtime.declares_by_values());
            let strays_often = subject.erratic;
            self.0.judge(subject);
            subject.erratic |= strays_often;
        }
        let vantage = Vantage { snapshot, earlier: None };
        // Nothing is learnt from strays: the rare case would pass for the usual one.
        let (job, failure) = self.discover(Unit::new(subjects), vantage).await;
        finish(self.count(job).await.unit, failure)
    }

    /// A transaction strayed from the footprint with which it was ordered.
    pub(crate) fn strayed(&self, subject: &Subject, footprint: &Footprint) {
        let Subject { id, runtime, sender, payload, .. } = subject;
        self.0.predictors.strayed(*runtime, sender, payload, footprint);
        self.0.counters.on_stray(id, self.0.latest());
    }

    /// Tries all transactions of a unit whose footprints are not known. What is still open after
    /// that could not be tried, for the reason that is returned.
    async fn discover(&self, unit: Unit, vantage: Vantage) -> (Job, Option<QueryError>) {
        let started = Instant::now();
        let Vantage { snapshot, earlier } = vantage;
        let (mut job, mut failure) = self.try_all(Job::new(unit, snapshot)).await;
        let cache = &self.0.cache;
        if let Some(mut earlier) = earlier {
            // This submission comes after those in any case, so waiting for them costs nothing. Not
            // with a permit: they may need it.
            while earlier.changed().await.is_ok() {}
            let expected = |key: &Key| cache.expected(key, snapshot);
            if failure.is_none() && !cache.expects_nothing() && job.unit.fill(expected) {
                (job, failure) = self.try_all(job).await;
            }
        }
        let now = self.0.latest();
        for (key, value) in job.unit.deployments() {
            cache.expect(key, value, now);
        }
        metrics::histogram!("parsec_sequencer_discovery_seconds").record(started.elapsed());
        (job, failure)
    }

    /// Takes into account how many come before those for which that matters, and announces them:
    /// the last step, so that few can be ordered in between.
    async fn count(&self, mut job: Job) -> Job {
        if !job.unit.is_counting() {
            return job;
        }
        let inner = self.0.clone();
        let count = move || {
            let (memory, now) = (inner.beside(job.snapshot), inner.latest());
            let announce = |id, counter: &Key| inner.counters.announce(id, counter, now);
            job.unit.count(&inner.trials, &memory, announce);
            job
        };
        self.0.workers.run(count).await
    }

    /// Rounds of trials and reads, until nothing more is needed.
    async fn try_all(&self, mut job: Job) -> (Job, Option<QueryError>) {
        let Ok(_permit) = self.0.permits.acquire().await else { return (job, None) };
        let mut wanted = self.likely(&job.unit);
        for round in 0.. {
            let needed;
            (job, needed) = self.step(job).await;
            wanted.extend(needed);
            wanted.retain(|key| !job.unit.has(key));
            let open = job.unit.open();
            if open.is_empty() && (job.orderly >= ORDERLY_ROUNDS_MAX || wanted.is_empty()) {
                metrics::histogram!("parsec_sequencer_discovery_rounds").record(round);
                break;
            }
            let too_much = match () {
                () if wanted.is_empty() => Some("its trial does not get on"),
                () if job.rounds > DISCOVERY_ROUNDS_MAX => {
                    Some("it needs too many rounds of reads")
                }
                () if job.unit.bytes() > DISCOVERY_BYTES_MAX => Some("it reads too much"),
                () => None,
            };
            if let Some(reason) = too_much {
                open.into_iter().for_each(|index| job.unit.refuse(index, too_large(reason)));
                break;
            }
            if let Err(error) = self.fetch(&mut job.unit, &mut wanted, job.snapshot).await {
                return (job, Some(error));
            }
        }
        (job, None)
    }

    /// What the transactions to be tried are likely to touch.
    fn likely(&self, unit: &Unit) -> BTreeSet<Key> {
        let keys = |index: usize| {
            let Subject { runtime, sender, payload, .. } = &unit.subjects()[index];
            let runtime = self.0.runtimes.get(*runtime);
            runtime.map_or_else(Vec::new, |runtime| runtime.likely_keys(sender, payload))
        };
        unit.open().into_iter().flat_map(keys).collect()
    }

    /// Fetches all that is wanted.
    async fn fetch(
        &self,
        unit: &mut Unit,
        wanted: &mut BTreeSet<Key>,
        snapshot: EpochNumber,
    ) -> Result<(), QueryError> {
        let cache = &self.0.cache;
        let mut missing = Vec::new();
        for key in std::mem::take(wanted) {
            match cache.get(&key) {
                Some(value) => unit.learn(key, Some(value)),
                None => missing.push(key),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let values = self.0.queries.read(snapshot, &missing).await?;
        cache.keep(missing.iter().zip(&values).filter_map(|(key, v)| Some((key, v.as_ref()?))));
        let expects = !cache.expects_nothing();
        for (key, value) in missing.into_iter().zip(values) {
            let expected = |key| cache.expected(key, snapshot).filter(|_| expects);
            let value = value.or_else(|| expected(&key));
            unit.learn(key, value);
        }
        Ok(())
    }

    /// Tries every transaction that is open, and all in order when none is. Returns the keys that
    /// are needed to go on.
    async fn step(&self, job: Job) -> (Job, BTreeSet<Key>) {
        let inner = self.0.clone();
        let setting = inner.setting();
        let (mut job, mut wanted) = self.try_open(job, setting.clone()).await;
        let step = move || {
            if job.unit.open().is_empty() && job.orderly < ORDERLY_ROUNDS_MAX {
                job.orderly += 1;
                let memory = inner.beside(job.snapshot);
                let (started, left) =
                    (Instant::now(), ORDERLY_TIME_MAX.saturating_sub(job.in_order));
                let may_go_on = || started.elapsed() < left;
                wanted.extend(job.unit.in_order(&inner.trials, &setting, &memory, &may_go_on));
                job.in_order += started.elapsed();
            }
            (job, wanted)
        };
        self.0.workers.run(step).await
    }

    /// Tries every transaction that is open, in parallel. Returns the keys that are needed to go
    /// on.
    async fn try_open(&self, mut job: Job, setting: Setting) -> (Job, BTreeSet<Key>) {
        let mut wanted = BTreeSet::new();
        let open = job.unit.open();
        if open.is_empty() {
            return (job, wanted);
        }
        job.rounds += 1;
        let attempt = |(inner, job, setting): &(Arc<Inner>, Job, Setting), index| {
            let started = Instant::now();
            let memory = inner.beside(job.snapshot);
            let attempt = job.unit.attempt(index, &inner.trials, setting, &memory);
            (index, attempt, started.elapsed())
        };
        let shared = (self.0.clone(), job, setting);
        let ((_, mut job, _), attempts) =
            self.0.workers.map(shared, open, TRIALS_MIN, attempt).await;
        for (index, attempt, took) in attempts {
            job.unit.take(index, attempt, &mut wanted);
            job.spent[index] += took;
            if job.spent[index] > TRIAL_TIME_MAX {
                job.unit.refuse(index, too_large("its trials take too long"));
            }
        }
        (job, wanted)
    }
}

/// How a footprint is come by, for the metrics.
const DECLARED: &str = "access list";
const PREDICTED: &str = "prediction";
const TRIED: &str = "trial";

impl Inner {
    /// Finds the footprint of a transaction without a trial, if that can be done. Says how.
    fn foresee(&self, subject: &mut Subject) -> Option<&'static str> {
        if subject.known.is_some() {
            return None;
        }
        let Subject { runtime, sender, payload, .. } = &*subject;
        let declared = self.runtimes.get(*runtime).map_or(Declared::Nothing, |runtime| {
            runtime.declared(sender, payload, &Remembered(&self.cache))
        });
        match declared {
            Declared::Footprint(footprint) => {
                subject.known = Some(footprint);
                return Some(DECLARED);
            }
            Declared::Needs(_) | Declared::Counting { .. } => {
                subject.declares = true;
                return Some(DECLARED);
            }
            Declared::Nothing => {}
        }
        subject.known = self.predictors.predict(*runtime, sender, payload);
        if subject.known.is_some() {
            return Some(PREDICTED);
        }
        self.judge(subject);
        Some(TRIED)
    }

    /// The last epoch that was ordered.
    fn latest(&self) -> EpochNumber {
        self.latest.borrow().as_ref().map_or_else(EpochNumber::default, |latest| latest.number)
    }

    fn beside(&self, snapshot: EpochNumber) -> Beside<'_> {
        Beside { cache: &self.cache, counters: &self.counters, snapshot }
    }

    /// Looks how far a trial of the transaction can be relied upon.
    fn judge(&self, subject: &mut Subject) {
        let Subject { runtime, sender, payload, .. } = &*subject;
        let follows = self.runtimes.get(*runtime).is_some_and(|runtime| runtime.follows_values());
        subject.erratic = follows || self.predictors.is_erratic(*runtime, sender, payload);
    }

    /// The epoch that may come next, for the context of a trial.
    fn setting(&self) -> Setting {
        let latest = self.latest.borrow().clone();
        let now = crate::clock::now().as_millis();
        let epoch = match latest {
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
        };
        Setting { entropy: epoch.digest(), epoch }
    }
}

impl Job {
    fn new(unit: Unit, snapshot: EpochNumber) -> Self {
        let spent = vec![Duration::ZERO; unit.subjects().len()];
        Self { unit, snapshot, spent, rounds: 0, orderly: 0, in_order: Duration::ZERO }
    }
}

fn count(foreseen: &[Option<&'static str>]) {
    for by in [DECLARED, PREDICTED, TRIED] {
        let count = foreseen.iter().filter(|each| **each == Some(by)).count();
        metrics::counter!("parsec_sequencer_footprints_total", "by" => by).increment(count as u64);
    }
}

fn finish(unit: Unit, failure: Option<QueryError>) -> Footprints {
    let reason = failure.map_or_else(|| "it is stopping".to_owned(), |error| error.to_string());
    let finish = |found: Option<Result<Footprint, Refusal>>| match found {
        Some(Ok(footprint)) => Ok(footprint),
        Some(Err(Refusal { code, detail })) => Err(Undiscovered::Refused(code, detail)),
        None => Err(Undiscovered::Unavailable(reason.clone())),
    };
    unit.finish().into_iter().map(finish).collect()
}

fn too_large(detail: &str) -> Refusal {
    let detail = format!("no footprint was found: {detail}");
    Refusal { code: ErrorCode::TooLarge, detail }
}
