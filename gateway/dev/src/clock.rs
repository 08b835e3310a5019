//! The time of blocks: that of the wall clock, moved as the user likes.

/// Decides the times of blocks. All times are seconds since 1970, `now` is the wall clock's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    /// What is added to the wall clock.
    offset: i128,
    /// The time of the next block, where it was set.
    exact: Option<u64>,
    /// What each block comes after the one before it, where that was set.
    interval: Option<u64>,
}

/// A clock as a snapshot keeps it: what it showed, so that it goes on from there.
#[derive(Debug, Clone)]
pub(crate) struct StoppedClock {
    shown: i128,
    exact: Option<u64>,
    interval: Option<u64>,
}

impl Clock {
    /// The time of the next block, after one of the time `parent`: later than it, unless exactly
    /// its time was asked for.
    pub(crate) fn next(&self, now: u64, parent: u64) -> u64 {
        let wanted = match (self.exact, self.interval) {
            (Some(exact), _) => return exact.max(parent),
            (None, Some(interval)) => parent.saturating_add(interval),
            (None, None) => clamp(i128::from(now).saturating_add(self.offset)),
        };
        wanted.max(parent.saturating_add(1))
    }

    /// A block of that time was made.
    pub(crate) fn made(&mut self, now: u64, time: u64) {
        if self.exact.take().is_some() {
            self.offset = i128::from(time) - i128::from(now);
        }
    }

    /// Jumps forward; returns what is now added to the wall clock.
    pub(crate) fn increase(&mut self, seconds: u64) -> i64 {
        self.offset = self.offset.saturating_add(i128::from(seconds));
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }

    /// Sets the time that it shows now; returns by how much it then goes forward.
    pub(crate) fn set(&mut self, now: u64, time: u64) -> u64 {
        let shown = clamp(i128::from(now).saturating_add(self.offset));
        self.offset = i128::from(time) - i128::from(now);
        self.exact = None;
        time.saturating_sub(shown)
    }

    /// Sets the time of the next block, after one of the time `parent`.
    ///
    /// # Errors
    /// Says that the time is over.
    pub(crate) fn set_next(&mut self, time: u64, parent: u64) -> Result<(), String> {
        if time < parent {
            return Err(format!(
                "Timestamp error: {time} is lower than previous block's timestamp {parent}"
            ));
        }
        self.exact = Some(time);
        Ok(())
    }

    /// Sets what each block comes after the one before it; returns whether that was set before.
    pub(crate) fn set_interval(&mut self, seconds: Option<u64>) -> bool {
        std::mem::replace(&mut self.interval, seconds).is_some()
    }

    /// Stops it, for a snapshot.
    pub(crate) fn stop(&self, now: u64) -> StoppedClock {
        let shown = i128::from(now).saturating_add(self.offset);
        StoppedClock { shown, exact: self.exact, interval: self.interval }
    }

    /// Goes on from where a clock was stopped.
    pub(crate) fn resume(now: u64, stopped: &StoppedClock) -> Self {
        let offset = stopped.shown - i128::from(now);
        Self { offset, exact: stopped.exact, interval: stopped.interval }
    }
}

fn clamp(time: i128) -> u64 {
    u64::try_from(time.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_the_wall_clock_and_always_advances() {
        let clock = Clock::default();
        assert_eq!(clock.next(100, 50), 100);
        assert_eq!(clock.next(100, 100), 101);
        assert_eq!(clock.next(100, 500), 501);
    }

    #[test]
    fn a_jump_stays() {
        let mut clock = Clock::default();
        assert_eq!(clock.increase(1_000), 1_000);
        assert_eq!(clock.increase(10), 1_010);
        assert_eq!(clock.next(100, 50), 1_110);
        assert_eq!(clock.next(101, 1_110), 1_111);
    }

    #[test]
    fn an_exact_time_counts_once_and_moves_the_clock() {
        let mut clock = Clock::default();
        assert!(clock.set_next(49, 50).is_err());
        clock.set_next(5_000, 50).unwrap();
        assert_eq!(clock.next(100, 50), 5_000);
        clock.made(100, 5_000);
        assert_eq!(clock.next(103, 5_000), 5_003);
        clock.set_next(5_003, 5_003).unwrap();
        assert_eq!(clock.next(103, 5_003), 5_003);
    }

    #[test]
    fn an_interval_counts_from_block_to_block() {
        let mut clock = Clock::default();
        assert!(!clock.set_interval(Some(12)));
        assert_eq!(clock.next(100, 50), 62);
        assert!(clock.set_interval(None));
        assert_eq!(clock.next(100, 62), 100);
    }

    #[test]
    fn a_stopped_clock_goes_on_where_it_was() {
        let mut clock = Clock::default();
        clock.increase(1_000);
        let stopped = clock.stop(100);
        clock.increase(50_000);
        let clock = Clock::resume(160, &stopped);
        assert_eq!(clock.next(160, 0), 1_100);
        assert_eq!(clock.next(161, 0), 1_101);
    }

    #[test]
    fn setting_the_time_says_how_far_it_went() {
        let mut clock = Clock::default();
        assert_eq!(clock.set(100, 700), 600);
        assert_eq!(clock.next(101, 0), 701);
        assert_eq!(clock.set(102, 10), 0);
        assert_eq!(clock.next(102, 0), 10);
    }
}
