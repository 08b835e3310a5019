//! What follows from what was recorded.

use serde::{Deserialize, Serialize};

use super::{Counts, Repeat};

impl Repeat {
    /// Processor time of all processes for each transaction that committed meanwhile,
    /// microseconds, if it is known: that of the load generator alone is not.
    #[must_use]
    pub fn cpu_micros(&self) -> Option<f64> {
        let seconds = self.resources.cpu_seconds().filter(|_| self.resources.knows_cluster())?;
        (self.counts.completed > 0).then(|| seconds * 1e6 / self.counts.completed as f64)
    }

    /// Which part of that processor time could not be avoided, percent, by what one thread took right
    /// after the repeat. A machine whose speed changes meanwhile changes it; the median of several
    /// repeats says more than one.
    #[must_use]
    pub fn unavoidable_percent(&self) -> Option<f64> {
        let limit = self.lines.as_ref()?.limit_micros();
        self.cpu_micros().filter(|micros| *micros > 0.0).map(|micros| limit / micros * 100.0)
    }

    /// A quantile of latency, if there are enough latencies to tell it from the slowest one: it is of
    /// the slowest one in `one_in`.
    #[must_use]
    pub fn quantile(&self, one_in: u64, value_ms: f64) -> Option<f64> {
        (self.latency.count >= one_in).then_some(value_ms)
    }

    /// The share of what was offered that no latency is known of, 0 to 1: it was not sent in time,
    /// refused, or never answered. Quantiles are about the rest, and look better than they are.
    #[must_use]
    pub fn unanswered(&self) -> f64 {
        let Counts { offered, unsent, rejected, lost, .. } = self.counts;
        if offered == 0 {
            0.0
        } else {
            unsent.saturating_add(rejected).saturating_add(lost) as f64 / offered as f64
        }
    }
}

/// Median and range of a few measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MedianRange {
    /// The one in the middle, or the mean of the two.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl MedianRange {
    /// Those of some values; `None` if there are none, or one is no number.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: (low + high) / 2.0, min, max })
    }
}
