//! The load generator.
//!
//! Transactions go out in the order of their list. In a *closed loop* they do so in submissions of
//! a fixed size, as soon as enough of those before them are answered; a transaction's latency runs
//! from the moment when it is handed to the client until its receipt is there. In an *open loop*
//! each has an intended start, at random or equal distances, and its latency runs from then,
//! whether or not it could be sent in time: a cluster that stalls can't hide it by being asked
//! less. [`run`] sends a whole list, [`measure()`] measures for a time, after a warm-up.
//!
//! **Order.** The transactions of one sender have consecutive nonces and must be ordered as they
//! stand in the list, or they are invalid. So all of one sender's go over the same connection,
//! and each connection is fed by one task. What is left is a refusal: if a cluster is too busy for
//! one transaction and then takes its sender's next one, that one is lost. The generator can't
//! undo this; it avoids it by staying below what the connection may have in flight (where
//! refusals begin), and when one comes all the same, it stops, waits until everything in flight is
//! answered, and sends what was refused again, in order, before anything else.

mod client;
mod connection;
mod knee;
mod measure;
mod objective;
mod pace;
mod report;
mod sampler;
mod tally;
mod target;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::workload::{LoadTransaction, Stage};
pub use client::{ClientAnswers, connect, settled};
use connection::{Connection, Item};
pub use knee::{Knee, Tried};
pub use measure::{Event, MeasureOptions, Measured, OnEvent, measure};
pub use objective::{BadObjective, Objective, Objectives};
pub use pace::Arrivals;
pub use report::LoadReport;
pub use tally::{Flow, latencies};
use tally::{Tally, Window};
pub use target::{Answer, Answers, Target};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How a load is sent.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Most transactions in flight, over all connections together.
    pub in_flight: usize,
    /// Transactions in one submission; fewer if a connection's part of `in_flight` is smaller.
    pub batch: usize,
    /// Send nothing new after this time, even if there is more.
    pub duration: Option<Duration>,
    /// After a cancellation, how long to wait for what is in flight.
    pub drain: Duration,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { in_flight: 2_000, batch: 200, duration: None, drain: Duration::from_secs(5) }
    }
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Transactions with a last word, whatever it is.
    pub done: u64,
    /// All transactions of the load.
    pub total: u64,
    /// Transactions that got their last word since the last report, per second.
    pub per_second: f64,
}

/// Told about ten times a second how far a load is, and once at its end.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Ends a load early.
#[derive(Debug)]
pub struct Cancel(watch::Sender<bool>);

/// What a load watches to see whether it is to end early.
#[derive(Debug, Clone)]
pub struct Cancelled(watch::Receiver<bool>);

/// A way to end loads early.
#[must_use]
pub fn cancellation() -> (Cancel, Cancelled) {
    let (cancel, cancelled) = watch::channel(false);
    (Cancel(cancel), Cancelled(cancelled))
}

impl Cancel {
    fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Makes loads send nothing new and end when what is in flight is answered.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancelled {
    /// What never cancels.
    #[must_use]
    pub fn never() -> Self {
        cancellation().1
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is cancelled; for ever, if nobody is left to do it.
    pub async fn cancelled(&mut self) {
        if self.0.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a load was not run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum LoadError {
    #[error("a load needs at least one connection")]
    NoConnections,
    #[error(
        "{in_flight} transactions in flight over {connections} connections in submissions of \
         {batch}: each connection needs at least one of each"
    )]
    Options { in_flight: usize, connections: usize, batch: usize },
    #[error("a connection of the load generator broke down: {reason}")]
    Broken { reason: String },
    #[error("could not {purpose}: {reason}")]
    Setup { purpose: &'static str, reason: String },
    #[error("a rate of {rate} transactions a second: it must be a positive number")]
    Rate { rate: f64 },
}

/// Sends `load` over `targets` and reports how it went. `name` is for the report.
///
/// # Errors
/// [`LoadError::NoConnections`] and [`LoadError::Options`] before anything is sent;
/// [`LoadError::Broken`] if a task of the generator itself panicked.
pub async fn run<T: Target>(
    name: impl Into<String>,
    targets: &[T],
    load: Vec<LoadTransaction>,
    options: &LoadOptions,
    cancelled: &Cancelled,
    on_progress: OnProgress<'_>,
) -> Result<LoadReport, LoadError> {
    let in_flight = options.in_flight.checked_div(targets.len()).ok_or(LoadError::NoConnections)?;
    if in_flight == 0 || options.batch == 0 {
        let (in_flight, batch) = (options.in_flight, options.batch);
        return Err(LoadError::Options { in_flight, connections: targets.len(), batch });
    }
    let total = tally::count(load.len());
    let parts = divide(load, targets.len(), |_| None);
    let started = Instant::now();
    let window = Window { from: started, to: None };
    let mut tallies = Vec::with_capacity(targets.len());
    let mut tasks = JoinSet::new();
    for (target, part) in targets.iter().zip(parts) {
        let tally = Arc::new(Tally::new(window));
        tallies.push(tally.clone());
        let connection = Connection {
            target: target.clone(),
            tally,
            in_flight,
            batch: options.batch.min(in_flight),
            started,
            until: options.duration.map(|duration| started + duration),
            drain: options.drain,
            cancelled: cancelled.clone(),
            dry: None,
            free_since: None,
        };
        tasks.spawn(async { drop(connection.run(part).await) });
    }
    watch(&mut tasks, &tallies, total, on_progress).await?;
    Ok(LoadReport::new(name.into(), total, cancelled.is_cancelled(), &tallies, started))
}

/// Waits until all tasks have ended, and tells meanwhile how far they are.
async fn watch(
    tasks: &mut JoinSet<()>,
    tallies: &[Arc<Tally>],
    total: u64,
    on_progress: OnProgress<'_>,
) -> Result<(), LoadError> {
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (Instant::now(), 0);
    let mut tell = || {
        let now = (Instant::now(), tallies.iter().map(|tally| tally.flow().done()).sum::<u64>());
        let per_second = report::rate(now.1 - before.1, now.0 - before.0);
        before = now;
        on_progress(Progress { done: now.1, total, per_second });
    };
    loop {
        tokio::select! {
            _ = ticks.tick() => tell(),
            ended = tasks.join_next() => match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => return Err(LoadError::Broken { reason: error.to_string() }),
                None => break,
            },
        }
    }
    tell();
    Ok(())
}

/// Deals a load out to connections: all of one sender's to the same one, in order; the others in
/// turn. `due` says how long after the start of the load each is to start, by its place.
fn divide(
    load: Vec<LoadTransaction>,
    connections: usize,
    mut due: impl FnMut(usize) -> Option<Duration>,
) -> Vec<Vec<Item>> {
    let mut parts: Vec<_> = (0..connections).map(|_| Vec::new()).collect();
    for (number, transaction) in load.into_iter().enumerate() {
        let sender = transaction.sender.and_then(|sender| usize::try_from(sender).ok());
        let part = sender.unwrap_or(number) % connections;
        parts[part].push((number, transaction, due(number)));
    }
    parts
}

/// Sends the stages of a setup, each after the one before it is answered, over one connection.
///
/// # Errors
/// [`LoadError::Setup`] if a transaction neither committed nor was tolerated, or if it was
/// cancelled; else those of [`run`].
pub async fn set_up<T: Target>(
    target: &T,
    stages: Vec<Stage>,
    options: &LoadOptions,
    cancelled: &Cancelled,
    on_progress: impl Fn(&'static str, Progress) + Send + Sync,
) -> Result<(), LoadError> {
    let options = LoadOptions { duration: None, ..options.clone() };
    for Stage { purpose, transactions, tolerated } in stages {
        let tell = |progress| on_progress(purpose, progress);
        let targets = std::slice::from_ref(target);
        let report = run(purpose, targets, transactions, &options, cancelled, &tell).await?;
        let done = report.committed + report.failed_with(tolerated);
        if done < report.total {
            let reason = match report.first_failure {
                Some(failure) => format!("{} of {}: {failure}", report.total - done, report.total),
                None => format!("cancelled after {done} of {} transactions", report.total),
            };
            return Err(LoadError::Setup { purpose, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
