//! Transactions on their way, as their submitter sees them.

use parsec_protocol::Receipt;
use tokio::sync::mpsc;

use crate::error::Error;

/// What became of one transaction, with its index in the submission.
pub(crate) type Indexed = (usize, Result<Receipt, Error>);

/// Transactions that were handed over, and their results.
///
/// Dropping it does not take the transactions back.
#[derive(Debug)]
pub struct Submission {
    results: mpsc::Receiver<Indexed>,
    transactions: usize,
}

impl Submission {
    pub(crate) fn new(results: mpsc::Receiver<Indexed>, transactions: usize) -> Self {
        Self { results, transactions }
    }

    /// How many transactions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// The next result that comes in, of whichever transaction, with its index in the submission;
    /// `None` after the last.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(usize, Result<Receipt, Error>)> {
        self.results.recv().await
    }

    /// All results, in the order of the transactions. Those that [`next`](Self::next) has handed
    /// out already are [`Error::Stopped`] here.
    pub async fn wait_all(mut self) -> Vec<Result<Receipt, Error>> {
        let mut all = vec![Err(Error::Stopped); self.transactions];
        while let Some((index, result)) = self.results.recv().await {
            all[index] = result;
        }
        all
    }
}
