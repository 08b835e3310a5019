//! What can be wrong with a history.

use std::fmt;

use crate::{Consistency, Element};

/// Why a history is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is none that can be checked: whoever recorded it made a mistake.
    #[error("not a history: {0}")]
    Malformed(#[from] Malformed),
    /// The database made a mistake.
    #[error("{0}")]
    Anomaly(Box<Anomaly>),
}

impl From<Anomaly> for Failure {
    fn from(anomaly: Anomaly) -> Self {
        Self::Anomaly(Box::new(anomaly))
    }
}

/// What no history may have. Operations are told by their index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An operation returned before it was invoked.
    #[error("T{operation} returned before it was invoked")]
    ReturnedBeforeInvoked {
        /// The operation.
        operation: usize,
    },
    /// A key is used in two ways.
    #[error("T{operation} uses {key} in another way than those before it")]
    TwoKinds {
        /// The operation that uses it in another way.
        operation: usize,
        /// The key.
        key: String,
    },
    /// An element is written to a key twice.
    #[error("T{operation} writes {element} to {key}, as T{before} does")]
    WrittenTwice {
        /// The first operation.
        before: usize,
        /// The second operation.
        operation: usize,
        /// The key.
        key: String,
        /// The element.
        element: Element,
    },
}

/// What a database must never let its clients see, in the words of Adya and of Elle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnomalyKind {
    /// A transaction contradicts itself: it did not see its own writes, or two of its reads differ.
    Internal,
    /// An element was read that nobody wrote.
    UnwrittenRead,
    /// G1a: an element was read that an aborted transaction wrote.
    AbortedRead,
    /// G1b: a version was read that its transaction wrote over.
    IntermediateRead,
    /// A write took effect more than once.
    DuplicateEffect,
    /// Two reads of a list, neither of which begins with the other.
    IncompatibleOrder,
    /// G0: a cycle of writes only.
    WriteCycle,
    /// G1c: a cycle of writes and of reads of what was written.
    InformationCycle,
    /// Two transactions read the same version and replaced it. A case of G-single or G2.
    LostUpdate,
    /// G-single (read skew): a cycle with one read of what was replaced.
    ReadSkew,
    /// G2 (write skew): two transactions, each of which read what the other one replaced.
    WriteSkew,
    /// G2: a cycle with more than one read of what was replaced.
    AntiDependencyCycle,
}

impl fmt::Display for AnomalyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Internal => "internal inconsistency",
            Self::UnwrittenRead => "read of what nobody wrote",
            Self::AbortedRead => "G1a (aborted read)",
            Self::IntermediateRead => "G1b (intermediate read)",
            Self::DuplicateEffect => "duplicate effect",
            Self::IncompatibleOrder => "incompatible order",
            Self::WriteCycle => "G0 (write cycle)",
            Self::InformationCycle => "G1c (circular information flow)",
            Self::LostUpdate => "lost update",
            Self::ReadSkew => "G-single (read skew)",
            Self::WriteSkew => "G2 (write skew)",
            Self::AntiDependencyCycle => "G2 (anti-dependency cycle)",
        })
    }
}

/// A contradiction in a history. Its [`Display`](fmt::Display) explains it, on several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub kind: AnomalyKind,
    /// The weakest consistency that it violates.
    pub violates: Consistency,
    /// The operations that contradict one another, by index; of a cycle, in its order.
    pub operations: Vec<usize>,
    /// What these operations did, and why this can't be: a sentence a line.
    pub explanation: Vec<String>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; this is not {}", self.kind, self.violates)?;
        self.explanation.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
