//! What a load is sent to.

use std::future::Future;

use parsec_protocol::{ErrorCode, Receipt, Transaction};

/// What is said of a transaction: the last word on it, or a refusal, or that there will be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was checked and will be ordered. Not the last word; it may be left out.
    Accepted,
    /// What became of it.
    Receipt(Receipt),
    /// It was not ordered.
    Rejected {
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
        /// When to try again, milliseconds from now, if that may help.
        retry_after_ms: Option<u32>,
    },
    /// It may or may not have happened.
    Unknown {
        /// Why, for people.
        reason: String,
    },
}

/// One connection to a cluster: a client, or a stand-in in tests.
pub trait Target: Clone + Send + Sync + 'static {
    /// The answers to one submission.
    type Answers: Answers;

    /// Submits transactions. Submissions are sent in the order of these calls.
    fn submit(
        &self,
        transactions: Vec<Transaction>,
    ) -> impl Future<Output = Result<Self::Answers, String>> + Send;
}

/// The answers to one submission, as they come.
pub trait Answers: Send + 'static {
    /// The next answer, with the transaction's index in the submission; `None` after the last.
    fn next(&mut self) -> impl Future<Output = Option<(usize, Answer)>> + Send;
}
