//! What is shown while a run goes on, on standard error.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parsec_bench::load::Event;
use parsec_bench::record::{Phase, Repeat, Sample};
use parsec_bench::report::thousands;

/// Shows how a run goes on.
pub(super) struct Live {
    state: Mutex<State>,
    is_terminal: bool,
}

struct State {
    label: String,
    phase: Phase,
}

impl Live {
    pub(super) fn new(_dashboard: bool) -> Self {
        let state = State { label: String::new(), phase: Phase::WarmUp };
        Self { state: Mutex::new(state), is_terminal: std::io::stderr().is_terminal() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bar for what takes long; nothing if standard error is no terminal.
    pub(super) fn bar(&self, message: &str) -> ProgressBar {
        if !self.is_terminal {
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
        label.clone_into(&mut self.state().label);
        self.say(label);
    }

    /// Says something.
    pub(super) fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Takes what happened.
    pub(super) fn event(&self, event: Event) {
        match event {
            Event::Phase(phase) => self.state().phase = phase,
            Event::Second(sample) => eprintln!("{}", line(&sample)),
        }
    }

    /// Says what a repeat came to.
    pub(super) fn repeat(&self, repeat: &Repeat) {
        let latency = &repeat.latency;
        self.say(&format!(
            "  {} committed/s, p50 {:.2} ms, p99 {:.2} ms (not verified yet)",
            thousands(repeat.tps),
            latency.p50_ms,
            latency.p99_ms
        ));
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(&self) {
        restore_terminal();
    }
}

/// Leaves the terminal as it was, however it was used.
pub(super) fn restore_terminal() {}

/// A second in a line.
fn line(sample: &Sample) -> String {
    let phase = match sample.phase {
        Phase::WarmUp => "warm-up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let rate = |count: u64| thousands(count as f64 / sample.seconds.max(1e-9));
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    format!(
        "{:>5.0} s  {phase:<9}  sent {:>8}/s  accepted {:>8}/s  committed {:>8}/s  failed {:>6}/s  \
         in flight {:>6}  p50 {:>7} ms  p99 {:>7} ms  max {:>7} ms",
        sample.end,
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
