//! What clients saw.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A client. Its operations usually come one after another; they may overlap.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Process(pub u64);

/// A moment of a clock that all clients share and that never goes back, in any unit.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tick(pub u64);

/// What is written to a key: at most once to each.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Element(pub u64);

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One transaction as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who ran it.
    pub process: Process,
    /// When it was handed over, or before that.
    pub invoked: Tick,
    /// When its client knew what became of it, or after that. It means nothing if the outcome is
    /// unknown.
    pub returned: Tick,
    /// What became of it.
    pub outcome: Outcome,
    /// What it did, in its order. Reads count only if it committed.
    pub steps: Vec<Step>,
}

/// What became of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect.
    Committed,
    /// It was refused or reverted: it has no effect.
    Aborted,
    /// It may have taken effect, or may yet.
    Unknown,
}

/// A read or a write of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A read of a key, after the steps before it.
    Read {
        /// The key.
        key: String,
        /// What was there.
        found: Found,
    },
    /// A register gets another element.
    Write {
        /// The key.
        key: String,
        /// The element.
        element: Element,
    },
    /// A list gets one element more, at its end.
    Append {
        /// The key.
        key: String,
        /// The element.
        element: Element,
    },
    /// A set gets one element more.
    Add {
        /// The key.
        key: String,
        /// The element.
        element: Element,
    },
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The element of a register, if it has ever been written.
    Register(Option<Element>),
    /// The elements of a list, from its beginning.
    List(Vec<Element>),
    /// The elements of a set, in any order, each as often as it is there.
    Set(Vec<Element>),
}

impl Step {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Read { key, .. }
            | Self::Write { key, .. }
            | Self::Append { key, .. }
            | Self::Add { key, .. } => key,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Read { found: Found::Register(_), .. } | Self::Write { .. } => Kind::Register,
            Self::Read { found: Found::List(_), .. } | Self::Append { .. } => Kind::List,
            Self::Read { found: Found::Set(_), .. } | Self::Add { .. } => Kind::Set,
        }
    }

    pub(crate) fn written(&self) -> Option<Element> {
        match self {
            Self::Read { .. } => None,
            Self::Write { element, .. }
            | Self::Append { element, .. }
            | Self::Add { element, .. } => Some(*element),
        }
    }
}

impl Found {
    pub(crate) fn elements(&self) -> &[Element] {
        match self {
            Self::Register(element) => element.as_slice(),
            Self::List(elements) | Self::Set(elements) => elements,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(None) => f.write_str("nothing"),
            Self::Register(Some(element)) => element.fmt(f),
            Self::List(elements) => write!(f, "[{}]", listed(elements)),
            Self::Set(elements) => write!(f, "{{{}}}", listed(elements)),
        }
    }
}

/// Elements with commas between them.
pub(crate) fn listed(elements: &[Element]) -> String {
    elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How a key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    List,
    Set,
}
