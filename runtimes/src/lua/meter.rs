//! The count of a call's work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::limits::{STRING_STEP_BYTES, TICK_INSTRUCTIONS};

/// Counts work against a limit. Shared by a machine, its hook and its host functions, which all
/// run on one thread.
#[derive(Debug, Default)]
pub(super) struct Meter {
    done: AtomicU64,
    limit: AtomicU64,
    /// What one instruction costs, for the longest string so far.
    string_price: AtomicU64,
    memory_limit_touched: AtomicBool,
}

impl Meter {
    /// Begins a call.
    pub(super) fn begin(&self, limit: u64) {
        self.done.store(0, Relaxed);
        self.limit.store(limit, Relaxed);
        self.string_price.store(1, Relaxed);
        self.memory_limit_touched.store(false, Relaxed);
    }

    /// Counts work. Returns whether there was more than the limit allows; that stays so.
    pub(super) fn spend(&self, units: u64) -> bool {
        self.done.store(self.done.load(Relaxed).saturating_add(units), Relaxed);
        self.is_exhausted()
    }

    /// Notes the length of a string. If it is longer than any before, this is paid for at once,
    /// so that nobody has the rest of the current step of instructions cheap. Returns whether more
    /// work was done than the limit allows.
    pub(super) fn note_string(&self, bytes: usize) -> bool {
        let price = 1 + u64::try_from(bytes / STRING_STEP_BYTES).unwrap_or(u64::MAX >> 1);
        if price <= self.string_price.load(Relaxed) {
            return false;
        }
        self.string_price.store(price, Relaxed);
        self.spend(price.saturating_mul(u64::from(TICK_INSTRUCTIONS)))
    }

    /// What one instruction costs, for the longest string so far.
    pub(super) fn string_price(&self) -> u64 {
        self.string_price.load(Relaxed)
    }

    /// Uses up all the work there is.
    pub(super) fn exhaust(&self) {
        self.done.store(u64::MAX, Relaxed);
    }

    /// Whether more work was done than the limit allows.
    pub(super) fn is_exhausted(&self) -> bool {
        self.done.load(Relaxed) > self.limit.load(Relaxed)
    }

    /// Notes that more memory was wanted than is allowed.
    pub(super) fn touch_memory_limit(&self) {
        self.memory_limit_touched.store(true, Relaxed);
    }

    /// Whether that was noted.
    pub(super) fn is_memory_limit_touched(&self) -> bool {
        self.memory_limit_touched.load(Relaxed)
    }

    /// The work done, at most the limit.
    pub(super) fn work(&self) -> u64 {
        self.done.load(Relaxed).min(self.limit.load(Relaxed))
    }

    /// The work left.
    pub(super) fn left(&self) -> u64 {
        self.limit.load(Relaxed).saturating_sub(self.done.load(Relaxed))
    }
}
