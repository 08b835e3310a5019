//! Where the marks of an axis stand: at round numbers.

/// The values of the marks of an axis, in order. The first and the last one are its ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticks(pub(super) Vec<f64>);

impl Ticks {
    /// About `count` round numbers, the first at or below `low`, the last at or above `high`.
    pub(super) fn linear(low: f64, high: f64, count: u32) -> Self {
        let (low, high) = usable(low, high);
        let step = round_step((high - low) / f64::from(count.max(1)));
        let first = (low / step).floor();
        let mut ticks = Vec::new();
        let mut index = 0.0;
        loop {
            let tick = (first + index) * step;
            ticks.push(tick);
            if tick >= high - step * 1e-9 {
                return Self(ticks);
            }
            index += 1.0;
        }
    }

    /// Powers of ten around `low` to `high`, which are positive, and between them 2 and 5 times
    /// each if they are few.
    pub(super) fn log(low: f64, high: f64) -> Self {
        let low = if low.is_finite() && low > 0.0 { low } else { 1.0 };
        let high = if high.is_finite() && high > low { high } else { low * 10.0 };
        let (first, last) = (low.log10().floor(), high.log10().ceil());
        let factors: &[f64] = if last - first <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut all = Vec::new();
        let mut exponent = first;
        while exponent <= last {
            all.extend(factors.iter().map(|factor| factor * 10_f64.powf(exponent)));
            exponent += 1.0;
        }
        // Without those that are not needed at either end.
        let start = all.iter().rposition(|tick| *tick <= low * (1.0 + 1e-9)).unwrap_or(0);
        let end = all.iter().position(|tick| *tick >= high * (1.0 - 1e-9)).unwrap_or(all.len() - 1);
        Self(all[start..=end.max(start + 1).min(all.len() - 1)].to_vec())
    }

    pub(super) fn low(&self) -> f64 {
        self.0.first().copied().unwrap_or(0.0)
    }

    pub(super) fn high(&self) -> f64 {
        self.0.last().copied().unwrap_or(1.0)
    }
}

/// A range that is not empty.
fn usable(low: f64, high: f64) -> (f64, f64) {
    let low = if low.is_finite() { low } else { 0.0 };
    let high = if high.is_finite() { high } else { low };
    let least = low.abs().max(1.0) * 1e-6;
    if high - low > least { (low, high) } else { (low, low + least.max(1.0)) }
}

/// 1, 2 or 5 times a power of ten, not less than `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_sound(ticks: &Ticks, low: f64, high: f64) {
        let values = &ticks.0;
        assert!(values.len() >= 2 && values.len() <= 32, "{values:?}");
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
        let slack = (high - low).abs().max(high.abs()) * 1e-6;
        assert!(
            ticks.low() <= low + slack && ticks.high() >= high - slack,
            "{low} {high} {values:?}"
        );
    }

    proptest! {
        #[test]
        fn linear_ticks_cover(low in -1e9..1e9f64, size in 0.0..1e9f64, count in 2u32..12) {
            let ticks = Ticks::linear(low, low + size, count);
            assert_sound(&ticks, low, low + size);
            prop_assert!(ticks.0.len() <= count as usize * 2 + 3);
        }

        #[test]
        fn logarithmic_ticks_cover(exponent in -6.0..6.0f64, size in 0.0..8.0f64) {
            let (low, high) = (10_f64.powf(exponent), 10_f64.powf(exponent + size));
            assert_sound(&Ticks::log(low, high), low, high);
        }
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(Ticks::linear(0.0, 11_574.0, 5).0, [0.0, 5_000.0, 10_000.0, 15_000.0]);
        assert_eq!(Ticks::log(3.0, 180.0).0, [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
    }

    #[test]
    fn what_is_no_range_becomes_one() {
        for (low, high) in
            [(0.0, 0.0), (f64::NAN, 1.0), (5.0, f64::INFINITY), (7.0, 7.0), (3.0, 1.0)]
        {
            assert!(Ticks::linear(low, high, 5).0.len() >= 2);
            assert!(Ticks::log(low, high).0.len() >= 2);
        }
    }
}
