//! What can become of a request, other than success.

use std::time::Duration;

use parsec_protocol::ErrorCode;

/// A transaction that was refused before it was ordered. It has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Rejection {
    /// Why.
    pub code: ErrorCode,
    /// Why, for people.
    pub detail: String,
    /// When to try again, if that may help.
    pub retry_after: Option<Duration>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configuration names no address.
    #[error("no address of a server is configured")]
    NoAddress,
    /// No server could be connected to.
    #[error("no server can be reached: {detail}")]
    Unreachable {
        /// What each address answered.
        detail: String,
    },
    /// The transaction was refused before it was ordered. It has no effect.
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// There was no connection to send the request on until its deadline. It has no effect.
    #[error("not sent before its deadline, so that nothing has happened: {reason}")]
    NotSent {
        /// Why the last connection failed or ended, if one did.
        reason: String,
    },
    /// The transaction was sent, but has no receipt at its deadline.
    #[error(
        "no answer before the deadline, the transaction may or may not have happened: {reason}; \
         submit the same transaction again to learn"
    )]
    Unknown {
        /// Why the last connection failed or ended, if one did.
        reason: String,
    },
    /// A read or a status could not be answered.
    #[error("failed: {code}: {detail}")]
    Failed {
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
    },
    /// The client's task is gone: its tokio runtime has shut down.
    #[error("the client has stopped")]
    Stopped,
}
