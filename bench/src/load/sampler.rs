//! A sample each second, and how late the timers of this process are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::tally::{Flow, Tally, Window, count, latencies, micros};
use crate::record::{Phase, Sample};

/// The time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What is shorter at the end of a load is part of no sample of its own.
const SAMPLE_MIN: Duration = Duration::from_millis(50);
/// How often it is looked how late timers are.
const TIMER_EVERY: Duration = Duration::from_millis(5);

/// Takes samples, at whole seconds before and after measuring begins.
pub(super) struct Sampler {
    window: Window,
    started: Instant,
    /// The intended starts of an open loop, after the start, in order.
    due: Option<Vec<Duration>>,
    next: Instant,
    before: Instant,
    flow: Flow,
    /// How many of `due` were offered until `before`.
    offered: usize,
}

impl Sampler {
    pub(super) fn new(window: Window, started: Instant, due: Option<Vec<Duration>>) -> Self {
        let warm_up = window.from.saturating_duration_since(started);
        let whole = Duration::from_secs(warm_up.as_secs());
        let next = if warm_up == whole { started + SAMPLE_EVERY } else { window.from - whole };
        Self { window, started, due, next, before: started, flow: Flow::default(), offered: 0 }
    }

    /// When the next sample is to be taken.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// What happened since the last sample.
    pub(super) fn take(&mut self, phase: Phase, tallies: &[Arc<Tally>]) -> Sample {
        let now = Instant::now();
        let (flow, lately) = all(tallies);
        let seconds = (now - self.before).as_secs_f64();
        let was = std::mem::replace(&mut self.flow, flow);
        let at = |quantile| {
            (!lately.is_empty()).then(|| lately.value_at_quantile(quantile) as f64 / 1_000.0)
        };
        let sample = Sample {
            end: now.saturating_duration_since(self.window.from).as_secs_f64()
                - self.window.from.saturating_duration_since(now).as_secs_f64(),
            seconds,
            phase,
            offered: self.offer(now).unwrap_or(flow.sent - was.sent),
            sent: flow.sent - was.sent,
            accepted: flow.accepted - was.accepted,
            committed: flow.committed - was.committed,
            failed: flow.failed - was.failed,
            in_flight: flow.sent.saturating_sub(flow.done()),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        };
        self.before = now;
        while self.next <= now {
            self.next += SAMPLE_EVERY;
        }
        sample
    }

    /// The sample of what is left at the end, if it is long enough to say anything.
    pub(super) fn last(&mut self, phase: Phase, tallies: &[Arc<Tally>]) -> Option<Sample> {
        (self.before.elapsed() >= SAMPLE_MIN).then(|| self.take(phase, tallies))
    }

    /// Of an open loop: how many were to start since the last sample.
    fn offer(&mut self, now: Instant) -> Option<u64> {
        let until = self.window.to.map_or(now, |to| to.min(now));
        let offered = self.due_before(until)?;
        let before = std::mem::replace(&mut self.offered, offered);
        Some(count(offered.saturating_sub(before)))
    }

    /// Of an open loop: how many were to start within the window.
    pub(super) fn offered_in_window(&self) -> Option<u64> {
        let first = self.due_before(self.window.from)?;
        let last = match self.window.to {
            Some(to) => self.due_before(to)?,
            None => self.due.as_ref()?.len(),
        };
        Some(count(last - first))
    }

    /// Of an open loop: how many were to start before that time.
    fn due_before(&self, time: Instant) -> Option<usize> {
        let due = self.due.as_ref()?;
        Some(due.partition_point(|due| self.started + *due < time))
    }
}

fn all(tallies: &[Arc<Tally>]) -> (Flow, Histogram<u64>) {
    let mut flow = Flow::default();
    let mut lately = latencies();
    for tally in tallies {
        let (more, times) = tally.sample();
        flow.add(&more);
        lately.add(times).expect("all histograms have the same bounds");
    }
    (flow, lately)
}

/// Looks how late the timers of this process are: what its own threads keep waiting is no latency
/// of the cluster.
pub(super) struct TimerProbe {
    lags: Arc<Mutex<Histogram<u64>>>,
    task: JoinHandle<()>,
}

impl TimerProbe {
    pub(super) fn start() -> Self {
        let lags = Arc::new(Mutex::new(latencies()));
        let seen = lags.clone();
        let task = tokio::spawn(async move {
            loop {
                let at = Instant::now() + TIMER_EVERY;
                sleep_until(at).await;
                let lag = micros(at.elapsed());
                seen.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(lag);
            }
        });
        Self { lags, task }
    }

    /// Forgets what it has seen.
    pub(super) fn reset(&self) {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).reset();
    }

    /// Looks no more.
    pub(super) fn stop(&self) {
        self.task.abort();
    }

    /// What it has seen, microseconds.
    pub(super) fn lags(&self) -> Histogram<u64> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TimerProbe {
    fn drop(&mut self) {
        self.stop();
    }
}
