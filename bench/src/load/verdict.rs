//! Whether a measurement is worth believing: was the rate level, and was the generator the limit?

use hdrhistogram::Histogram;

use super::tally::LATE;
use crate::record::{Generator, Pace, Phase, Sample, Steady};

/// How much the halves of the measured time may differ, relative to the mean; a trend may rise by
/// twice that, which is what a straight line between such halves does.
const TOLERANCE: f64 = 0.1;
/// Seconds that are needed to tell.
const SECONDS_MIN: usize = 4;
/// A generator that uses this share of its cores or more is the limit.
const CORES_SHARE_MAX: f64 = 0.9;

/// Whether the rate stayed level while it was measured.
pub(super) fn steady(samples: &[Sample]) -> Steady {
    let measured = samples.iter().filter(|sample| sample.phase == Phase::Measuring);
    let rates: Vec<f64> =
        measured.map(|sample| sample.committed as f64 / sample.seconds.max(1e-9)).collect();
    let (first, second) = rates.split_at(rates.len() / 2);
    let mean_of = |rates: &[f64]| match rates.len() {
        0 => 0.0,
        count => rates.iter().sum::<f64>() / count as f64,
    };
    let (mean, first_half_tps, second_half_tps) =
        (mean_of(&rates), mean_of(first), mean_of(second));
    let mut steady = Steady {
        steady: None,
        first_half_tps,
        second_half_tps,
        trend: 0.0,
        variation: 0.0,
        tolerance: TOLERANCE,
    };
    if mean > 0.0 {
        let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        steady.variation = (squares / rates.len() as f64).sqrt() / mean;
        steady.trend = slope(&rates) * rates.len() as f64 / mean;
    }
    if rates.len() >= SECONDS_MIN {
        let halves = (first_half_tps - second_half_tps).abs() <= TOLERANCE * mean;
        steady.steady = Some(halves && steady.trend.abs() <= 2.0 * TOLERANCE);
    }
    steady
}

/// What a straight line through these values rises by from each to the next: least squares.
fn slope(values: &[f64]) -> f64 {
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let (mut products, mut squares) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate() {
        let x = index as f64 - middle;
        products += x * value;
        squares += x * x;
    }
    if squares > 0.0 { products / squares } else { 0.0 }
}

/// Whether the load generator was the limit, as far as it can tell by itself.
pub(super) fn generator(pace: Pace, pacing: &Histogram<u64>, timers: &Histogram<u64>) -> Generator {
    let p99 = |lags: &Histogram<u64>| lags.value_at_quantile(0.99) as f64 / 1_000.0;
    let late_ms = LATE.as_secs_f64() * 1_000.0;
    let pacing_p99_ms = (pace != Pace::Closed).then(|| p99(pacing));
    let mut verdict =
        Generator { timer_p99_ms: p99(timers), pacing_p99_ms, ..Generator::default() };
    if let Some(lag) = pacing_p99_ms.filter(|lag| *lag > late_ms) {
        verdict.limited = true;
        verdict.reasons.push(format!(
            "it did not keep up with the rate: one in a hundred was sent {lag:.1} ms late or \
             later, though the connection had room"
        ));
    }
    if verdict.timer_p99_ms > late_ms {
        verdict.reasons.push(format!(
            "its timers were up to {:.1} ms late (p99): its threads wait for a processor, and \
             latencies include that",
            verdict.timer_p99_ms
        ));
    }
    verdict
}

impl Generator {
    /// Adds what its process used of the machine's cores, which makes it the limit if it is nearly
    /// all of them.
    pub fn used(&mut self, cores_used: f64, cores: f64) {
        self.cores_used = Some(cores_used);
        if cores_used >= CORES_SHARE_MAX * cores {
            self.limited = true;
            self.reasons
                .push(format!("its process used {cores_used:.2} of {cores:.0} cores by itself"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latencies;
    use crate::record::Pacing;

    fn samples(rates: &[u64]) -> Vec<Sample> {
        let sample = |committed: &u64| Sample {
            end: 0.0,
            seconds: 1.0,
            phase: Phase::Measuring,
            offered: 0,
            sent: 0,
            accepted: 0,
            committed: *committed,
            failed: 0,
            in_flight: 0,
            p50_ms: None,
            p99_ms: None,
            max_ms: None,
        };
        rates.iter().map(sample).collect()
    }

    #[test]
    fn what_drifts_is_not_steady() {
        let verdict = |rates: &[u64]| steady(&samples(rates)).steady;
        assert_eq!(verdict(&[100, 103, 98, 101, 99, 100]), Some(true));
        assert_eq!(verdict(&[100, 90, 80, 70, 60, 50]), Some(false));
        assert_eq!(verdict(&[50, 50, 50, 100, 100, 100]), Some(false));
        // The halves are alike, and so are the ends.
        assert_eq!(verdict(&[80, 100, 120, 120, 100, 80]), Some(true));
        assert_eq!(verdict(&[100, 100, 100]), None);
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[0, 0, 0, 0]), Some(true));
    }

    #[test]
    fn the_trend_is_that_of_the_line() {
        let rising = steady(&samples(&[100, 110, 120, 130, 140]));
        assert!((rising.trend - 50.0 / 120.0).abs() < 1e-9, "{rising:?}");
        assert!(steady(&samples(&[100, 100, 100, 100])).variation.abs() < 1e-9);
    }

    #[test]
    fn warm_up_and_drain_do_not_count() {
        let mut all = samples(&[10, 100, 100, 100, 100, 10]);
        all[0].phase = Phase::WarmUp;
        all[5].phase = Phase::Draining;
        assert_eq!(steady(&all).steady, Some(true));
    }

    #[test]
    fn a_generator_that_is_late_or_busy_says_so() {
        let mut late = latencies();
        late.record_n(25_000, 100).unwrap();
        let open = Pace::Open { rate: 1.0, pacing: Pacing::Fixed, seed: 1 };
        assert!(generator(open, &late, &latencies()).limited);
        assert!(!generator(open, &latencies(), &late).limited);
        assert_eq!(generator(open, &latencies(), &late).reasons.len(), 1);
        let mut closed = generator(Pace::Closed, &latencies(), &latencies());
        assert!(!closed.limited && closed.reasons.is_empty() && closed.pacing_p99_ms.is_none());
        closed.used(1.0, 2.0);
        assert!(!closed.limited);
        closed.used(1.9, 2.0);
        assert!(closed.limited);
    }
}
