//! How far the log is durable.

use parsec_protocol::EpochNumber;
use parsec_protocol::plant::{self, Bug};

/// Follows what is done to the log, and says what may be told of it.
///
/// Records are appended in order, and one sync makes durable all that was appended before it. After
/// an error nobody knows what the disk holds, so nothing more is ever told.
#[derive(Debug)]
pub struct Durability {
    appended: EpochNumber,
    durable: EpochNumber,
    failed: bool,
}

impl Durability {
    /// For a log that was opened, is durable, and ends with `end`.
    #[must_use]
    pub fn new(end: EpochNumber) -> Self {
        Self { appended: end, durable: end, failed: false }
    }

    /// The record of an epoch was appended.
    ///
    /// # Panics
    /// If it is not the next one.
    pub fn on_appended(&mut self, epoch: EpochNumber) {
        assert_eq!(epoch, self.appended.next(), "epochs are appended in order");
        self.appended = epoch;
        if plant::is(Bug::ToldBeforeSync) {
            self.durable = epoch;
        }
    }

    /// A sync that began after everything so far was appended has succeeded.
    pub fn on_synced(&mut self) {
        if !self.failed {
            self.durable = self.appended;
        }
    }

    /// The log could not be written or synced.
    pub fn on_failed(&mut self) {
        self.failed = true;
    }

    /// The epoch through whose record the log is durable.
    #[must_use]
    pub fn durable(&self) -> EpochNumber {
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_is_told() {
        let mut log = Durability::new(EpochNumber(4));
        log.on_appended(EpochNumber(5));
        assert_eq!(log.durable(), EpochNumber(4));
        log.on_appended(EpochNumber(6));
        log.on_synced();
        assert_eq!(log.durable(), EpochNumber(6));
        log.on_appended(EpochNumber(7));
        log.on_failed();
        log.on_synced();
        assert_eq!(log.durable(), EpochNumber(6));
    }
}
