//! The transactions of epochs that were taken in and are not entered into the graph yet.

use std::collections::VecDeque;
use std::vec::IntoIter;

use parsec_protocol::{EpochNumber, Position, Role};

/// Transactions that wait to be entered, in order.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    epochs: VecDeque<(EpochNumber, IntoIter<(u32, Role)>)>,
    transactions: usize,
}

/// What comes next.
pub(crate) enum Next {
    Transaction(Position, Role),
    /// All of an epoch were entered.
    EndOf(EpochNumber),
}

impl Pending {
    /// Adds those of the next epoch.
    pub(crate) fn push(&mut self, epoch: EpochNumber, entries: Vec<(u32, Role)>) {
        self.transactions += entries.len();
        self.epochs.push_back((epoch, entries.into_iter()));
    }

    /// Those that come next, if they are of one epoch.
    pub(crate) fn upcoming(&self) -> &[(u32, Role)] {
        self.epochs.front().map_or(&[], |(_, entries)| entries.as_slice())
    }

    pub(crate) fn next(&mut self) -> Option<Next> {
        let (epoch, entries) = self.epochs.front_mut()?;
        let epoch = *epoch;
        match entries.next() {
            Some((index, role)) => {
                self.transactions -= 1;
                Some(Next::Transaction(Position { epoch, index }, role))
            }
            None => {
                self.epochs.pop_front();
                Some(Next::EndOf(epoch))
            }
        }
    }

    /// The position from which on nothing was entered, if epochs through `last` were taken in.
    pub(crate) fn first(&self, last: EpochNumber) -> Position {
        let next = |(epoch, entries): &(EpochNumber, IntoIter<(u32, Role)>)| {
            let (index, _) = entries.as_slice().first()?;
            Some(Position { epoch: *epoch, index: *index })
        };
        let after_all = Position { epoch: last.next(), index: 0 };
        self.epochs.iter().find_map(next).unwrap_or(after_all)
    }

    pub(crate) fn len(&self) -> usize {
        self.transactions
    }
}
