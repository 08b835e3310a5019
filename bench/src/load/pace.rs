//! When the transactions of an open loop are to start.

use std::time::Duration;

use crate::draw::Draws;
use crate::record::Pacing;

/// The intended starts of an open loop, from its beginning on: an endless series that never
/// decreases, a function of its seed.
#[derive(Debug, Clone)]
pub struct Arrivals {
    rate: f64,
    pacing: Pacing,
    draws: Draws,
    /// Arrivals so far, for equal distances without accumulated rounding.
    number: u64,
    /// The last arrival, seconds.
    last: f64,
}

impl Arrivals {
    /// The arrivals at a rate, a second; `None` if it is no positive number.
    #[must_use]
    pub fn new(rate: f64, pacing: Pacing, seed: u64) -> Option<Self> {
        let usable = rate.is_finite() && rate > 0.0;
        let draws = Draws::new(seed, "arrivals");
        usable.then_some(Self { rate, pacing, draws, number: 0, last: 0.0 })
    }

    /// How many there are before `end`.
    #[must_use]
    pub fn before(self, end: Duration) -> usize {
        self.take_while(|arrival| *arrival < end).count()
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        match self.pacing {
            Pacing::Fixed => self.last = self.number as f64 / self.rate,
            Pacing::Poisson => {
                // 53 bits, above 0, so that its logarithm is a number.
                let draw = ((self.draws.next_u64() >> 11) + 1) as f64 / 9_007_199_254_740_992.0;
                self.last -= draw.ln() / self.rate;
            }
        }
        self.number += 1;
        Duration::try_from_secs_f64(self.last).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arrivals_keep_their_rate_and_order(rate in 100.0..50_000.0f64, seed: u64) {
            for pacing in [Pacing::Fixed, Pacing::Poisson] {
                let arrivals = Arrivals::new(rate, pacing, seed).unwrap();
                let first: Vec<_> = arrivals.clone().take(4_000).collect();
                prop_assert!(first.is_sorted());
                prop_assert_eq!(&first, &arrivals.take(4_000).collect::<Vec<_>>());
                let measured = 4_000.0 / first[3_999].as_secs_f64();
                // 4,000 random distances: their mean is within 8 % unless with luck of 1 in 10^6.
                prop_assert!((0.92..1.08).contains(&(measured / rate)), "{} {}", measured, rate);
            }
        }
    }

    #[test]
    fn random_arrivals_are_as_irregular_as_those_of_many_clients() {
        let arrivals: Vec<f64> = Arrivals::new(1_000.0, Pacing::Poisson, 7)
            .unwrap()
            .take(20_000)
            .map(|arrival| arrival.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Exponential distances have the standard deviation of their mean.
        assert!((0.9..1.1).contains(&(variance.sqrt() / mean)));
    }

    #[test]
    fn a_rate_must_be_a_positive_number() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Arrivals::new(rate, Pacing::Fixed, 1).is_none());
        }
        let fixed = Arrivals::new(10.0, Pacing::Fixed, 1).unwrap();
        assert_eq!(fixed.before(Duration::from_secs(2)), 20);
    }
}
