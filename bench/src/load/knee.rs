//! The search for the highest rate that keeps to an objective: twice as much as long as it does,
//! then halving what is left between what did and what did not.

/// The search ends when the rates that kept and did not keep are this close, relative to the
/// latter.
const PRECISION: f64 = 0.05;
/// By how much a rate grows as long as it keeps.
const GROWTH: f64 = 2.0;
/// No rate below this is tried, transactions a second.
const RATE_MIN: f64 = 1.0;
/// No rate above this is tried, transactions a second.
const RATE_MAX: f64 = 10_000_000.0;

/// The state of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Knee {
    next: f64,
    /// The highest rate that kept.
    kept: Option<f64>,
    /// The lowest one that did not.
    failed: Option<f64>,
}

/// What came of one rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It kept to the objective.
    Kept,
    /// It did not.
    Failed,
}

impl Knee {
    /// A search that begins with a rate, transactions a second.
    #[must_use]
    pub fn new(first: f64) -> Self {
        let next = if first.is_finite() { first.clamp(RATE_MIN, RATE_MAX) } else { RATE_MIN };
        Self { next, kept: None, failed: None }
    }

    /// The rate to try next; `None` when the search is over.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        let over = match (self.kept, self.failed) {
            (Some(kept), Some(failed)) => failed - kept <= PRECISION * failed,
            (Some(kept), None) => kept >= RATE_MAX,
            (None, Some(failed)) => failed <= RATE_MIN,
            (None, None) => false,
        };
        (!over).then_some(self.next)
    }

    /// Takes what came of the rate that [`next`](Self::next) said.
    pub fn tried(&mut self, tried: Tried) {
        match tried {
            Tried::Kept => self.kept = Some(self.next),
            Tried::Failed => self.failed = Some(self.next),
        }
        self.next = match (self.kept, self.failed) {
            (Some(kept), Some(failed)) => f64::midpoint(kept, failed),
            (Some(kept), None) => (kept * GROWTH).min(RATE_MAX),
            (None, Some(failed)) => (failed / GROWTH).max(RATE_MIN),
            (None, None) => self.next,
        };
    }

    /// The highest rate that kept, if any did.
    #[must_use]
    pub fn found(&self) -> Option<f64> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(first: f64, knee: f64) -> (Option<f64>, u32) {
        let (mut search, mut probes) = (Knee::new(first), 0);
        while let Some(rate) = search.next() {
            search.tried(if rate <= knee { Tried::Kept } else { Tried::Failed });
            probes += 1;
            assert!(probes < 60, "{search:?}");
        }
        (search.found(), probes)
    }

    proptest! {
        #[test]
        fn the_knee_is_found_from_anywhere(first in 0.1..2e6f64, knee in 2.0..1e6f64) {
            let (found, probes) = search(first, knee);
            let found = found.unwrap();
            prop_assert!(found <= knee && found >= knee * (1.0 - PRECISION), "{}", found);
            prop_assert!(probes <= 30);
        }
    }

    #[test]
    fn a_cluster_that_keeps_to_nothing_or_to_everything_ends_the_search() {
        assert_eq!(search(1_000.0, 0.5).0, None);
        assert_eq!(search(1_000.0, f64::INFINITY).0, Some(RATE_MAX));
        assert_eq!(
            search(f64::NAN, 100.0).0.map(|found| (95.0..=100.0).contains(&found)),
            Some(true)
        );
    }
}
