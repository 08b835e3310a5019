//! Measuring for a time: a warm-up that does not count, then so many seconds that do, then what is
//! in flight is waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Item};
use super::pace::Arrivals;
use super::sampler::{Sampler, TimerProbe};
use super::tally::{Counts, Flow, LATE, Tally, Window};
use super::target::Target;
use super::{Cancel, Cancelled, LoadError, cancellation, divide, report, verdict};
use crate::record::{self, Latency, Pace, Phase, Repeat, Resources, Sample};
use crate::workload::LoadTransaction;

/// When nothing is sent any more and nothing was answered for so long, what is in flight is lost.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How a load is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasureOptions {
    /// When transactions are sent.
    pub pace: Pace,
    /// Most transactions in flight, over all connections together. In an open loop, too: what is
    /// due then waits, and its latency runs.
    pub in_flight: usize,
    /// Most transactions in one submission; no more than half of what a connection may have in
    /// flight.
    pub batch: usize,
    /// How long the load runs before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub seconds: Duration,
    /// After a cancellation, how long to wait for what is in flight.
    pub drain: Duration,
}

impl MeasureOptions {
    /// How many transactions an open loop needs; `None` for a closed one, which nobody knows of
    /// before.
    ///
    /// # Errors
    /// [`LoadError::Rate`] if its rate is none.
    pub fn needs(&self) -> Result<Option<usize>, LoadError> {
        let arrivals = arrivals(self.pace)?;
        Ok(arrivals.map(|arrivals| arrivals.before(self.warm_up + self.seconds)))
    }
}

/// What happens while it is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// Another phase has begun.
    Phase(Phase),
    /// A second is over.
    Second(Sample),
}

/// Told what happens, on the task that measures: it must not take long.
pub type OnEvent<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The result. Its [`resources`](Repeat::resources) are for the caller to fill in.
    pub repeat: Repeat,
    /// If the transactions ran out before the time was over: how long it had been measured by
    /// then. The result is of no use, since some connections had nothing to send any more.
    pub ran_out: Option<Duration>,
    /// Whether it was ended early.
    pub cancelled: bool,
    /// What was not sent, or not taken: still in order, to be sent before anything else of the
    /// same workload.
    pub rest: Vec<LoadTransaction>,
    /// How many of these, at their end, were the end of the load: nothing behind any of them was
    /// sent.
    pub untouched: usize,
    /// What went through altogether, warm-up included.
    pub flow: Flow,
    /// From the start to the last answer.
    pub elapsed: Duration,
}

/// Sends `load` over `targets` for as long as `options` say.
///
/// # Errors
/// [`LoadError::NoConnections`], [`LoadError::Options`] and [`LoadError::Rate`] before anything is
/// sent; [`LoadError::Broken`] if a task of the generator itself panicked.
pub async fn measure<T: Target>(
    targets: &[T],
    mut load: Vec<LoadTransaction>,
    options: &MeasureOptions,
    cancelled: &Cancelled,
    on_event: OnEvent<'_>,
) -> Result<Measured, LoadError> {
    let MeasureOptions { in_flight, batch, .. } = *options;
    if targets.is_empty() {
        return Err(LoadError::NoConnections);
    }
    if in_flight < targets.len() || batch == 0 {
        return Err(LoadError::Options { in_flight, connections: targets.len(), batch });
    }
    let arrivals = arrivals(options.pace)?;
    let end = options.warm_up + options.seconds;
    let in_time = |arrivals: Arrivals| arrivals.take(load.len()).take_while(|due| *due < end);
    let due: Option<Vec<Duration>> = arrivals.map(|arrivals| in_time(arrivals).collect());
    let later = load.split_off(due.as_ref().map_or(load.len(), Vec::len));
    let first_later = load.len();
    let at = |place: usize| due.as_ref().and_then(|due| due.get(place)).copied();
    // ORDER: what takes long with many transactions is done before the clock starts.
    let parts = divide(load, targets.len(), at);
    let started = Instant::now();
    let mut run = Run::start(targets, parts, options, started);
    let sampler = Sampler::new(run.window, started, due);
    let samples = run.watch(sampler, cancelled, on_event).await?;
    run.total += later.len();
    run.rest.extend((first_later..).zip(later));
    Ok(run.finish(samples, cancelled.is_cancelled()))
}

fn arrivals(pace: Pace) -> Result<Option<Arrivals>, LoadError> {
    match pace {
        Pace::Closed => Ok(None),
        Pace::Open { rate, pacing, seed } => {
            Arrivals::new(rate, pacing, seed).map(Some).ok_or(LoadError::Rate { rate })
        }
    }
}

/// The connections at work.
struct Run {
    options: MeasureOptions,
    started: Instant,
    window: Window,
    /// Transactions that there are to send.
    total: usize,
    tallies: Vec<Arc<Tally>>,
    tasks: JoinSet<Vec<(usize, LoadTransaction)>>,
    /// Ends the connections.
    cancel: Cancel,
    /// When the first of them had nothing left to send.
    dry: watch::Receiver<Option<Instant>>,
    /// The timers of this process.
    timers: TimerProbe,
    /// What was not sent, or not taken, with its place.
    rest: Vec<(usize, LoadTransaction)>,
    ran_out: Option<Duration>,
    /// Of an open loop: how many were to start while it was measured.
    offered: Option<u64>,
}

impl Run {
    fn start<T: Target>(
        targets: &[T],
        parts: Vec<Vec<Item>>,
        options: &MeasureOptions,
        started: Instant,
    ) -> Self {
        let from = started + options.warm_up;
        let window = Window { from, to: Some(from + options.seconds) };
        let (cancel, cancelled) = cancellation();
        let (dry_sender, dry) = watch::channel(None);
        let is_closed = options.pace == Pace::Closed;
        // What was due in the last moment is sent, or a timer's inaccuracy would look like a
        // cluster that does not keep up.
        let grace = if is_closed { Duration::ZERO } else { LATE };
        let shares = shares(options.in_flight, &parts);
        let total = parts.iter().map(Vec::len).sum();
        let (mut tallies, mut tasks) = (Vec::new(), JoinSet::new());
        for ((target, part), in_flight) in targets.iter().zip(parts).zip(shares) {
            let tally = Arc::new(Tally::new(window));
            tallies.push(tally.clone());
            let connection = Connection {
                target: target.clone(),
                tally,
                in_flight,
                // More at once would have to wait until nothing is in flight.
                batch: options.batch.min(in_flight.div_ceil(2)),
                started,
                until: Some(from + options.seconds + grace),
                drain: options.drain,
                cancelled: cancelled.clone(),
                dry: is_closed.then(|| dry_sender.clone()),
                free_since: None,
            };
            tasks.spawn(connection.run(part));
        }
        Self {
            options: *options,
            started,
            window,
            total,
            tallies,
            tasks,
            cancel,
            dry,
            timers: TimerProbe::start(),
            rest: Vec::new(),
            ran_out: None,
            offered: None,
        }
    }

    /// Waits until everything is answered, and takes samples meanwhile.
    async fn watch(
        &mut self,
        mut sampler: Sampler,
        cancelled: &Cancelled,
        on_event: OnEvent<'_>,
    ) -> Result<Vec<Sample>, LoadError> {
        let (mut cancelled, mut dry) = (cancelled.clone(), self.dry.clone());
        let mut phase = Phase::WarmUp;
        let mut answered = Instant::now();
        on_event(Event::Phase(phase));
        let mut samples = Vec::new();
        loop {
            let change = match phase {
                Phase::WarmUp => Some(self.window.from),
                Phase::Measuring => self.window.to,
                Phase::Draining => None,
            };
            let next = change.map_or_else(|| sampler.next(), |change| change.min(sampler.next()));
            let may_run_dry = self.may_run_dry();
            let may_be_cancelled = !self.cancel.is_cancelled();
            tokio::select! {
                () = sleep_until(next) => {
                    if Instant::now() >= sampler.next() {
                        let sample = sampler.take(phase, &self.tallies);
                        on_event(Event::Second(sample));
                        samples.push(sample);
                        if sample.committed + sample.failed > 0 || phase != Phase::Draining {
                            answered = Instant::now();
                        }
                        if answered.elapsed() >= SILENCE_MAX {
                            self.cancel.cancel();
                        }
                    }
                    if change.is_some_and(|change| Instant::now() >= change) {
                        phase = self.next_phase(phase);
                        on_event(Event::Phase(phase));
                    }
                }
                Ok(_) = dry.wait_for(Option::is_some), if may_run_dry => self.end_dry(),
                () = cancelled.cancelled(), if may_be_cancelled => self.cancel.cancel(),
                ended = self.tasks.join_next() => match ended {
                    Some(Ok(rest)) => self.rest.extend(rest),
                    Some(Err(error)) => {
                        return Err(LoadError::Broken { reason: error.to_string() });
                    }
                    None => break,
                },
            }
        }
        if let Some(sample) = sampler.last(Phase::Draining, &self.tallies) {
            samples.push(sample);
        }
        self.offered = sampler.offered_in_window();
        Ok(samples)
    }

    fn next_phase(&mut self, phase: Phase) -> Phase {
        match phase {
            Phase::WarmUp => {
                self.timers.reset();
                Phase::Measuring
            }
            Phase::Measuring | Phase::Draining => {
                self.timers.stop();
                Phase::Draining
            }
        }
    }

    /// Whether it is still of importance that a connection has nothing left to send.
    fn may_run_dry(&self) -> bool {
        let over = self.window.to.is_some_and(|to| Instant::now() >= to);
        self.options.pace == Pace::Closed && self.ran_out.is_none() && !over
    }

    fn end_dry(&mut self) {
        let first = (*self.dry.borrow()).unwrap_or_else(Instant::now);
        self.ran_out = Some(first.saturating_duration_since(self.window.from));
        self.cancel.cancel();
    }

    fn finish(mut self, samples: Vec<Sample>, cancelled: bool) -> Measured {
        let mut counts = Counts::new();
        self.tallies.iter().for_each(|tally| counts.merge(&tally.snapshot()));
        self.rest.sort_by_key(|(place, _)| *place);
        let rest = std::mem::take(&mut self.rest);
        let ends = (0..self.total).rev().zip(rest.iter().rev());
        let untouched = ends.take_while(|(place, (rest, _))| place == rest).count();
        let last = counts.last_answer.unwrap_or(self.started);
        Measured {
            repeat: self.repeat(&counts, samples),
            ran_out: self.ran_out,
            cancelled,
            rest: rest.into_iter().map(|(_, load)| load).collect(),
            untouched,
            flow: counts.flow,
            elapsed: last - self.started,
        }
    }

    fn repeat(&self, counts: &Counts, samples: Vec<Sample>) -> Repeat {
        let seconds = self.options.seconds;
        let offered = self.offered.unwrap_or(counts.sent).max(counts.sent);
        let unsent = offered - counts.sent;
        let named = |(code, count): (&_, &u64)| (format!("{code:?}"), *count);
        Repeat {
            seconds: seconds.as_secs_f64(),
            tps: report::rate(counts.completed, seconds),
            counts: record::Counts {
                offered,
                sent: counts.sent,
                accepted: counts.accepted,
                committed: counts.committed,
                reverted: counts.reverted,
                invalid: counts.invalid,
                rejected: counts.rejected,
                lost: counts.unknown,
                unsent,
                strayed: counts.strayed,
                retried: counts.retried,
                late: counts.late + unsent,
                completed: counts.completed,
            },
            failures: counts.failures.iter().map(named).collect(),
            first_failure: counts.first_failure.clone(),
            latency: Latency::new(&counts.latencies),
            steady: verdict::steady(&samples),
            generator: verdict::generator(self.options.pace, &counts.pacing, &self.timers.lags()),
            samples,
            resources: Resources::default(),
            lines: None,
        }
    }
}

/// What each connection may have in flight: in proportion to what it has to send, so that all of
/// them run dry at the same time and the mix of senders stays that of the workload.
fn shares(in_flight: usize, parts: &[Vec<Item>]) -> Vec<usize> {
    let total: usize = parts.iter().map(Vec::len).sum();
    let spare = in_flight - parts.len();
    // Rounded down, so that together they are no more than was allowed.
    parts.iter().map(|part| 1 + (spare * part.len()).checked_div(total).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests;
