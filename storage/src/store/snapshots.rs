//! The snapshots that a store keeps, by epoch. Pure.

use std::collections::VecDeque;

use parsec_protocol::EpochNumber;

use super::{Applied, StoreError};
use crate::limits::SNAPSHOTS_KEPT;

/// What one commit left behind.
#[derive(Debug)]
struct Kept<S> {
    /// The first epoch of its run.
    first: EpochNumber,
    /// The last, after which the snapshot was taken.
    epoch: EpochNumber,
    snapshot: S,
}

/// The last [`SNAPSHOTS_KEPT`] snapshots, and how far the store is.
#[derive(Debug)]
pub(super) struct Snapshots<S> {
    /// **Invariant:** never empty, epochs ascend, the last is that of the last commit.
    kept: VecDeque<Kept<S>>,
    applied: Applied,
}

impl<S> Snapshots<S> {
    /// Of a store that was just opened.
    pub(super) fn new(applied: Applied, snapshot: S) -> Self {
        let kept = Kept { first: applied.epoch, epoch: applied.epoch, snapshot };
        Self { kept: VecDeque::from([kept]), applied }
    }

    /// After a commit of `first` to `applied.epoch`.
    pub(super) fn push(&mut self, first: EpochNumber, applied: Applied, snapshot: S) {
        self.kept.push_back(Kept { first, epoch: applied.epoch, snapshot });
        // Epochs may have been passed while the commit was written.
        self.applied = Applied { epoch: self.applied.epoch.max(applied.epoch), ..applied };
        while self.kept.len() > SNAPSHOTS_KEPT {
            self.kept.pop_front();
        }
    }

    /// Counts epochs without a commit as applied.
    pub(super) fn advance(&mut self, epoch: EpochNumber) {
        self.applied.epoch = self.applied.epoch.max(epoch);
    }

    /// Forgets what only epochs before `epoch` need.
    pub(super) fn forget_before(&mut self, epoch: EpochNumber) {
        while self.kept.get(1).is_some_and(|next| next.epoch <= epoch) {
            self.kept.pop_front();
        }
    }

    pub(super) fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Makes sure that `epoch` is applied.
    pub(super) fn check_applied(&self, epoch: EpochNumber) -> Result<(), StoreError> {
        match epoch > self.applied.epoch {
            true => Err(StoreError::NotYet { epoch, applied: self.applied.epoch }),
            false => Ok(()),
        }
    }

    /// The snapshot after the last commit.
    pub(super) fn latest(&self) -> &S {
        &self.kept[self.kept.len() - 1].snapshot
    }

    /// The snapshot that shows the state after `epoch`, and those that came later.
    pub(super) fn at(
        &self,
        epoch: EpochNumber,
    ) -> Result<(&S, impl Iterator<Item = &S>), StoreError> {
        self.check_applied(epoch)?;
        let later = self.kept.partition_point(|kept| kept.epoch <= epoch);
        let gone = |oldest| StoreError::SnapshotGone { epoch, oldest };
        if self.kept.get(later).is_some_and(|next| next.first <= epoch) {
            // The epoch lies within a run that was committed as one.
            return Err(gone(self.kept[later].epoch));
        }
        match later.checked_sub(1) {
            Some(index) => {
                let later = self.kept.range(later..).map(|kept| &kept.snapshot);
                Ok((&self.kept[index].snapshot, later))
            }
            None => Err(gone(self.kept[0].epoch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64) -> Applied {
        Applied { epoch: EpochNumber(epoch), ..Applied::default() }
    }

    #[test]
    fn epochs_without_a_commit_show_the_one_before() {
        let mut snapshots = Snapshots::new(at(3), "three");
        snapshots.push(EpochNumber(6), at(6), "six");
        snapshots.advance(EpochNumber(8));
        snapshots.advance(EpochNumber(7));
        let read = |epoch| snapshots.at(EpochNumber(epoch)).map(|(snapshot, _)| *snapshot);
        assert_eq!([3, 4, 5].map(|e| read(e).unwrap()), ["three"; 3]);
        assert_eq!([6, 7, 8].map(|e| read(e).unwrap()), ["six"; 3]);
        assert!(matches!(read(2), Err(StoreError::SnapshotGone { oldest: EpochNumber(3), .. })));
        assert!(matches!(read(9), Err(StoreError::NotYet { applied: EpochNumber(8), .. })));
    }

    #[test]
    fn what_is_forgotten_is_gone_but_not_what_stands_for_later_epochs() {
        let mut snapshots = Snapshots::new(at(0), "zero");
        snapshots.push(EpochNumber(3), at(3), "three");
        snapshots.push(EpochNumber(6), at(6), "six");
        snapshots.forget_before(EpochNumber(4));
        let read = |epoch| snapshots.at(EpochNumber(epoch)).map(|(snapshot, _)| *snapshot);
        assert!(matches!(read(2), Err(StoreError::SnapshotGone { oldest: EpochNumber(3), .. })));
        assert_eq!([3, 4, 5, 6].map(|e| read(e).unwrap()), ["three", "three", "three", "six"]);
    }

    #[test]
    fn the_middle_of_a_run_can_not_be_read() {
        let mut snapshots = Snapshots::new(at(0), "zero");
        snapshots.push(EpochNumber(2), at(4), "four");
        let read = |epoch| snapshots.at(EpochNumber(epoch)).map(|(snapshot, _)| *snapshot);
        assert_eq!(read(1).unwrap(), "zero");
        assert!(matches!(read(2), Err(StoreError::SnapshotGone { oldest: EpochNumber(4), .. })));
        assert!(matches!(read(3), Err(StoreError::SnapshotGone { oldest: EpochNumber(4), .. })));
        assert_eq!(read(4).unwrap(), "four");
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut snapshots = Snapshots::new(at(0), 0);
        let last = SNAPSHOTS_KEPT as u64 + 5;
        for epoch in 1..=last {
            snapshots.push(EpochNumber(epoch), at(epoch), epoch);
        }
        let (oldest, later) = snapshots.at(EpochNumber(6)).unwrap();
        assert_eq!((*oldest, later.count()), (6, SNAPSHOTS_KEPT - 1));
        assert!(matches!(
            snapshots.at(EpochNumber(5)),
            Err(StoreError::SnapshotGone { oldest: EpochNumber(6), .. })
        ));
    }
}
