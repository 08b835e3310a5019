//! The chain as it was, for those who remember it for long.

use std::sync::Arc;

use alloy_primitives::{Bloom, BloomInput};
use parsec_ethereum::Block;

use super::error::ChainError;
use super::head::Head;
use super::logs::{FoundLog, LogFilter};
use super::postings::Tail;
use super::view::{Placed, View};

/// The blocks of a chain as they were at one moment. Unlike a [`View`] it has no part of the index
/// in memory, so many of them cost little, but nothing is found in it except by reading blocks.
pub struct Past(View);

impl View {
    /// The blocks of the chain as they are.
    #[must_use]
    pub fn past(&self) -> Arc<Past> {
        Arc::new(Past(Self {
            tables: self.tables.clone(),
            snapshot: self.snapshot.clone(),
            tail: Tail::default(),
            head: Arc::clone(&self.head),
        }))
    }
}

impl Past {
    /// The latest block.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        self.0.head()
    }

    /// A block without its transactions.
    ///
    /// # Errors
    /// See [`View::header`].
    pub fn header(&self, number: u64) -> Result<Option<Arc<Head>>, ChainError> {
        self.0.header(number)
    }

    /// A block.
    ///
    /// # Errors
    /// See [`View::header`].
    pub fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        self.0.block(number)
    }

    /// The transactions of a block.
    ///
    /// # Errors
    /// See [`View::header`].
    pub fn transactions(&self, number: u64) -> Result<Option<Vec<Placed>>, ChainError> {
        self.0.transactions(number)
    }

    /// As [`View::logs`], but by reading all blocks whose bloom filters don't rule it out.
    ///
    /// # Errors
    /// See [`View::header`].
    pub fn scan(
        &self,
        filter: &LogFilter,
        first: u64,
        last: u64,
        mut visit: impl FnMut(Vec<FoundLog>) -> bool,
    ) -> Result<(), ChainError> {
        for number in first..=last.min(self.head().number) {
            let Some(head) = self.header(number)? else { return Ok(()) };
            if !filter.may_be_in(&head.header.logs_bloom) {
                continue;
            }
            for placed in self.transactions(number)?.unwrap_or_default() {
                if !visit(filter.select(&head, &placed)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl LogFilter {
    /// Whether a block with that bloom filter may hold what is looked for.
    fn may_be_in(&self, bloom: &Bloom) -> bool {
        let holds = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
        let address = self.addresses.is_empty() || self.addresses.iter().any(|a| holds(&a[..]));
        let topic = |any: &Vec<_>| {
            any.is_empty() || any.iter().any(|topic: &alloy_primitives::B256| holds(&topic[..]))
        };
        address && self.topics.iter().all(topic)
    }
}
