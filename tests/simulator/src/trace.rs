//! What happened in a run, for people, and as a hash by which two runs are compared.

use std::collections::VecDeque;

/// How much of what happens is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceLevel {
    /// Nothing: the fastest.
    Off,
    /// The last events, this many, and the hash of all.
    Last(usize),
}

/// What happened.
#[derive(Debug)]
pub(crate) struct Trace {
    level: TraceLevel,
    lines: VecDeque<String>,
    hasher: blake3::Hasher,
    count: u64,
}

impl Trace {
    pub(crate) fn new(level: TraceLevel) -> Self {
        Self { level, lines: VecDeque::new(), hasher: blake3::Hasher::new(), count: 0 }
    }

    /// Notes what `what` says, if anything is kept.
    pub(crate) fn note(
        &mut self,
        now: u64,
        who: impl FnOnce() -> String,
        what: impl FnOnce() -> String,
    ) {
        let TraceLevel::Last(kept) = self.level else { return };
        let line = format!("{:>12} {:<4} {}", time(now), who(), what());
        self.hasher.update(line.as_bytes()).update(b"\n");
        self.count += 1;
        if self.lines.len() >= kept {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines that were kept.
    pub(crate) fn into_lines(self) -> (Vec<String>, [u8; 32]) {
        let left_out = self.count - self.lines.len() as u64;
        let mut lines = Vec::with_capacity(self.lines.len() + 1);
        if left_out > 0 {
            lines.push(format!("... {left_out} earlier events"));
        }
        lines.extend(self.lines);
        (lines, self.hasher.finalize().into())
    }
}

/// A moment, in seconds with microseconds.
pub(crate) fn time(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(level: TraceLevel, events: u64) -> (Vec<String>, [u8; 32]) {
        let mut trace = Trace::new(level);
        (0..events)
            .for_each(|number| trace.note(number, || "n1".into(), || format!("event {number}")));
        trace.into_lines()
    }

    #[test]
    fn the_last_events_are_kept_and_all_are_hashed() {
        let (lines, hash) = lines_of(TraceLevel::Last(2), 5);
        assert_eq!(lines[0], "... 3 earlier events");
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains("0.000004 n1   event 4"), "{}", lines[2]);
        assert_eq!(lines_of(TraceLevel::Last(100), 5).1, hash);
        assert_ne!(lines_of(TraceLevel::Last(100), 6).1, hash);
        assert_eq!(lines_of(TraceLevel::Off, 5).0.len(), 0);
    }
}
