//! Finding log entries.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use parsec_protocol::Event;

use super::cursor::Search;
use super::error::ChainError;
use super::head::Head;
use super::postings::{Place, Term};
use super::view::{Placed, View};

/// Which log entries are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Of one of these contracts, or of any if there are none.
    pub addresses: Vec<Address>,
    /// With one of these topics in each position, or with any where there are none.
    pub topics: Vec<Vec<B256>>,
}

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLog {
    /// The block that it is in.
    pub block: Arc<Head>,
    /// The transaction that wrote it.
    pub place: Place,
    /// The hash of the transaction.
    pub transaction: B256,
    /// Its index among the log entries of the block.
    pub index: u64,
    /// The entry.
    pub event: Event,
}

impl LogFilter {
    /// Whether a log entry is looked for.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let address =
            self.addresses.is_empty() || self.addresses.iter().any(|a| a[..] == event.source[..]);
        let topic = |(position, any): (usize, &Vec<B256>)| match event.topics.get(position) {
            Some(topic) => any.is_empty() || any.iter().any(|wanted| wanted == topic),
            None => false,
        };
        address && self.topics.iter().enumerate().all(topic)
    }

    /// What a transaction must fulfil to have written such an entry.
    fn conditions(&self) -> Vec<Vec<Term>> {
        let mut conditions = Vec::new();
        if !self.addresses.is_empty() {
            conditions.push(self.addresses.iter().map(|address| Term::Address(*address)).collect());
        }
        for (position, topics) in (0..).zip(&self.topics) {
            if !topics.is_empty() {
                conditions.push(topics.iter().map(|topic| Term::Topic(position, *topic)).collect());
            }
        }
        if conditions.is_empty() {
            conditions.push(vec![Term::Logs]);
        }
        conditions
    }

    /// Those of a transaction's log entries that are looked for.
    #[must_use]
    pub fn select(&self, block: &Arc<Head>, placed: &Placed) -> Vec<FoundLog> {
        let events = (placed.logs_before..).zip(&placed.transaction.receipt.events);
        let wanted = events.filter(|(_, event)| self.matches(event));
        let found = wanted.map(|(index, event)| FoundLog {
            block: Arc::clone(block),
            place: placed.place,
            transaction: placed.transaction.hash(),
            index,
            event: event.clone(),
        });
        found.collect()
    }
}

impl View {
    /// Hands over the log entries of the blocks from `first` to `last` that are looked for, in
    /// order, those of each transaction together, until `visit` says that it has enough. It is
    /// called for each transaction that was looked at, even if it has none.
    ///
    /// # Errors
    /// [`ChainError::Engine`] and [`ChainError::Damaged`].
    pub fn logs(
        &self,
        filter: &LogFilter,
        first: u64,
        last: u64,
        mut visit: impl FnMut(Vec<FoundLog>) -> bool,
    ) -> Result<(), ChainError> {
        let mut search = Search::new(self, filter.conditions());
        let mut head: Option<Arc<Head>> = None;
        let mut next = Some(Place::start(first));
        while let Some(from) = next
            && let Some(place) = search.first_from(from)?
            && place.number <= last
        {
            next = place.next();
            if head.as_ref().is_none_or(|head| head.number != place.number) {
                head = self.header(place.number)?;
            }
            let Some((head, placed)) = head.as_ref().zip(self.placed(place)?) else { continue };
            if !visit(filter.select(head, &placed)) {
                break;
            }
        }
        Ok(())
    }
}
