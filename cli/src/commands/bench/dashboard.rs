//! A small dashboard on the terminal.
//!
//! It draws on the alternate screen and hides the cursor, nothing else: the terminal is not put
//! into raw mode, so that ctrl-C stays a signal. [`restore`] undoes both, and may be called at any
//! time and more than once; a panic calls it, too.

use std::collections::VecDeque;
use std::io::{Stderr, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use parsec_bench::record::{Phase, Sample};
use parsec_bench::report::{short, thousands};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Sparkline};
use ratatui::{Frame, backend::Backend};

/// Seconds that are shown.
const HISTORY: usize = 300;
/// Messages that are kept.
const MESSAGES: usize = 50;

/// Whether the alternate screen is shown.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// What is shown.
#[derive(Debug, Default)]
struct Content {
    label: String,
    /// Whether there was a sample since the label.
    is_sampled: bool,
    samples: VecDeque<Sample>,
    messages: VecDeque<String>,
}

/// A dashboard on standard error.
pub(super) struct Dashboard {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    content: Content,
}

impl Dashboard {
    /// Takes the terminal over.
    pub(super) fn start() -> std::io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
        SHOWN.store(true, Ordering::SeqCst);
        let entered = execute!(stderr(), EnterAlternateScreen, Hide);
        let mut dashboard = Self { terminal, content: Content::default() };
        entered?;
        dashboard.draw();
        Ok(dashboard)
    }

    pub(super) fn label(&mut self, label: &str) {
        label.clone_into(&mut self.content.label);
        self.content.is_sampled = false;
        self.draw();
    }

    pub(super) fn say(&mut self, text: &str) {
        self.content.say(text);
        self.draw();
    }

    pub(super) fn second(&mut self, sample: Sample) {
        self.content.second(sample);
        self.draw();
    }

    /// A terminal that can't be drawn on is no reason to end a measurement.
    fn draw(&mut self) {
        if SHOWN.load(Ordering::SeqCst) {
            draw(&mut self.terminal, &self.content).ok();
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves the terminal as it was.
pub(super) fn restore() {
    if SHOWN.swap(false, Ordering::SeqCst) {
        execute!(stderr(), LeaveAlternateScreen, Show).ok();
    }
}

impl Content {
    fn say(&mut self, text: &str) {
        self.messages.push_back(text.to_owned());
        while self.messages.len() > MESSAGES {
            self.messages.pop_front();
        }
    }

    fn second(&mut self, sample: Sample) {
        self.is_sampled = true;
        self.samples.push_back(sample);
        while self.samples.len() > HISTORY {
            self.samples.pop_front();
        }
    }
}

fn draw<B: Backend>(terminal: &mut Terminal<B>, content: &Content) -> Result<(), B::Error> {
    terminal.draw(|frame| render(frame, content)).map(drop)
}

fn render(frame: &mut Frame<'_>, content: &Content) {
    let heights = [
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Length(7),
    ];
    let [title, numbers, rate, latency, messages] = Layout::vertical(heights).areas(frame.area());
    let last = content.samples.back().filter(|_| content.is_sampled);
    let phase = last.map_or("", |sample| match sample.phase {
        Phase::WarmUp => ", warming up",
        Phase::Measuring => ", measuring",
        Phase::Draining => ", draining",
    });
    let title_style = Style::default().add_modifier(Modifier::BOLD);
    let text = format!(" parsec bench: {}{phase}   (ctrl-C stops in order)", content.label);
    frame.render_widget(Paragraph::new(text).style(title_style), title);
    frame.render_widget(
        Paragraph::new(describe(content.samples.back()))
            .block(Block::bordered().title(" last second ")),
        numbers,
    );
    let committed = |sample: &Sample| sample.committed as f64 / sample.seconds.max(1e-9);
    sparkline(frame, rate, content, "committed per second", Color::Green, committed);
    let p99 = |sample: &Sample| sample.p99_ms.unwrap_or(0.0) * 1_000.0;
    sparkline(frame, latency, content, "p99 latency, microseconds", Color::Yellow, p99);
    let fits = usize::from(messages.height.saturating_sub(2));
    let skipped = content.messages.len().saturating_sub(fits);
    let lines: Vec<Line<'_>> =
        content.messages.iter().skip(skipped).map(|text| Line::from(text.as_str())).collect();
    frame.render_widget(
        Paragraph::new(lines).block(Block::bordered().title(" messages ")),
        messages,
    );
}

fn describe(sample: Option<&Sample>) -> Vec<Line<'static>> {
    let Some(sample) = sample else { return vec![Line::from("nothing was sent yet")] };
    let rate = |count: u64| thousands(count as f64 / sample.seconds.max(1e-9));
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let texts = [
        format!(
            "offered {}/s   sent {}/s   accepted {}/s",
            rate(sample.offered),
            rate(sample.sent),
            rate(sample.accepted)
        ),
        format!(
            "committed {}/s   failed {}/s   in flight {}",
            rate(sample.committed),
            rate(sample.failed),
            thousands(sample.in_flight as f64)
        ),
        format!(
            "latency: p50 {} ms   p99 {} ms   max {} ms",
            ms(sample.p50_ms),
            ms(sample.p99_ms),
            ms(sample.max_ms)
        ),
        format!("second {:.0} of the measured time", sample.end),
    ];
    texts.into_iter().map(Line::from).collect()
}

fn sparkline(
    frame: &mut Frame<'_>,
    area: Rect,
    content: &Content,
    name: &str,
    colour: Color,
    of: impl Fn(&Sample) -> f64,
) {
    let width = usize::from(area.width.saturating_sub(2));
    let skipped = content.samples.len().saturating_sub(width);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a height on a screen"
    )]
    let values: Vec<u64> =
        content.samples.iter().skip(skipped).map(|sample| of(sample).max(0.0) as u64).collect();
    let most = values.iter().copied().max().unwrap_or(0);
    let title = format!(" {name}, at most {} ", thousands(most as f64));
    let chart = Sparkline::default()
        .block(Block::bordered().title(title))
        .style(Style::default().fg(colour))
        .data(&values);
    frame.render_widget(chart, area);
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    fn sample(committed: u64) -> Sample {
        Sample {
            end: 3.0,
            seconds: 1.0,
            phase: Phase::Measuring,
            offered: committed,
            sent: committed,
            accepted: committed,
            committed,
            failed: 0,
            in_flight: 1_234,
            p50_ms: Some(12.5),
            p99_ms: None,
            max_ms: Some(99.0),
        }
    }

    fn shown(content: &Content, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        draw(&mut terminal, content).unwrap();
        let cells = terminal.backend().buffer().content().iter();
        cells.map(|cell| cell.symbol()).collect()
    }

    #[test]
    fn the_last_second_is_shown() {
        let mut content = Content { label: "repeat 1 of 3".into(), ..Content::default() };
        assert!(shown(&content, 100, 30).contains("nothing was sent yet"));
        (0..500).for_each(|number| content.second(sample(number * 25)));
        (0..100).for_each(|number| content.say(&format!("message {number}")));
        let screen = shown(&content, 100, 30);
        for text in
            ["repeat 1 of 3, measuring", "12,475/s", "in flight 1,234", "p50 12.5 ms", "message 99"]
        {
            assert!(screen.contains(text), "{text}: {screen}");
        }
        assert_eq!((content.samples.len(), content.messages.len()), (HISTORY, MESSAGES));
    }

    #[test]
    fn a_tiny_screen_is_no_panic() {
        let mut content = Content::default();
        content.second(sample(5));
        for (width, height) in [(1, 1), (3, 2), (20, 5), (300, 100)] {
            shown(&content, width, height);
        }
    }
}
