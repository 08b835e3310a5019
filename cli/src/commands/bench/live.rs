//! What is shown while a run goes on, on standard error: a line each second, or a dashboard.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parsec_bench::load::Event;
use parsec_bench::record::{Phase, Repeat, Sample};
use parsec_bench::report::thousands;

use super::dashboard::Dashboard;
pub(super) use super::dashboard::restore as restore_terminal;

/// Shows how a run goes on.
pub(super) struct Live {
    dashboard: Mutex<Option<Dashboard>>,
    /// Whether bars are shown.
    bars: bool,
}

impl Live {
    /// A dashboard if that is wanted and standard error is a terminal, else lines.
    pub(super) fn new(dashboard: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let dashboard = match dashboard && is_terminal {
            false => None,
            // A terminal that can do nothing still shows lines.
            true => Dashboard::start().ok(),
        };
        let bars = is_terminal && dashboard.is_none();
        Self { dashboard: Mutex::new(dashboard), bars }
    }

    fn dashboard(&self) -> MutexGuard<'_, Option<Dashboard>> {
        self.dashboard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bar for what takes long; nothing if standard error is no terminal.
    pub(super) fn bar(&self, message: &str) -> ProgressBar {
        if let Some(dashboard) = &mut *self.dashboard() {
            dashboard.label(message);
        }
        if !self.bars {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{msg:44} {bar:24} {human_pos:>9}/{human_len:9} {per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        bar
    }

    /// Says what comes next.
    pub(super) fn label(&self, label: &str) {
        match &mut *self.dashboard() {
            Some(dashboard) => dashboard.label(label),
            None => tell(label),
        }
    }

    /// Says something.
    pub(super) fn say(&self, text: &str) {
        match &mut *self.dashboard() {
            Some(dashboard) => dashboard.say(text),
            None => tell(text),
        }
    }

    /// Takes what happened.
    pub(super) fn event(&self, event: Event) {
        let Event::Second(sample) = event else { return };
        match &mut *self.dashboard() {
            Some(dashboard) => dashboard.second(sample),
            None => tell(&line(&sample)),
        }
    }

    /// Says what a repeat came to.
    pub(super) fn repeat(&self, repeat: &Repeat) {
        let latency = &repeat.latency;
        let ms = |value: f64| match latency.count {
            0 => "-".to_owned(),
            _ => format!("{value:.2} ms"),
        };
        self.say(&format!(
            "  {} committed/s, p50 {}, p99 {} (not verified yet)",
            thousands(repeat.tps),
            ms(latency.p50_ms),
            ms(latency.p99_ms)
        ));
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(&self) {
        self.dashboard().take();
    }
}

/// Writes a line to standard error. That nobody reads it is no reason to end a measurement.
fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// A second in a line.
fn line(sample: &Sample) -> String {
    let phase = match sample.phase {
        Phase::WarmUp => "warm-up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let rate = |count: u64| thousands(count as f64 / sample.seconds.max(1e-9));
    let ms =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    format!(
        "{:>5.0} s  {phase:<9}  offered {:>8}/s  sent {:>8}/s  accepted {:>8}/s  committed {:>8}/s  \
         failed {:>6}/s  in flight {:>6}  p50 {:>7} ms  p99 {:>7} ms  max {:>7} ms",
        sample.end,
        rate(sample.offered),
        rate(sample.sent),
        rate(sample.accepted),
        rate(sample.committed),
        rate(sample.failed),
        sample.in_flight,
        ms(sample.p50_ms),
        ms(sample.p99_ms),
        ms(sample.max_ms)
    )
}
