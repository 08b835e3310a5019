//! What each stage of the way of a transaction costs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A stage of the way of a transaction: what one kind of thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Sequencer (or gateway): decoding, signatures, look-ups, footprints.
    Admission,
    /// Sequencer: messages of clients and hosts, and the order itself.
    Ordering,
    /// Sequencer: writing the log.
    Log,
    /// Sequencer: cutting epochs into slices.
    Dispatch,
    /// Sequencer: the index of ids, and what else no other stage does.
    Index,
    /// Host: scheduling and executing.
    Execution,
    /// Host: writing finished epochs to the stores.
    Storage,
    /// Host: messages.
    Messages,
    /// The load generator, where it shares a processor with the cluster.
    Generator,
}

/// What a stage has done, in the units that its cost is counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Transactions.
    pub transactions: u64,
    /// What [`Stage::part`] says.
    pub parts: u64,
    /// What [`Stage::event`] says.
    pub events: u64,
}

/// What one of each unit costs, microseconds of one core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Of a transaction.
    pub transaction: f64,
    /// Of a part.
    pub part: f64,
    /// Of an event.
    pub event: f64,
}

/// What each stage costs. One that is not there costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Costs(pub BTreeMap<Stage, Cost>);

impl Stage {
    /// All stages.
    pub const ALL: [Self; 9] = [
        Self::Admission,
        Self::Ordering,
        Self::Log,
        Self::Dispatch,
        Self::Index,
        Self::Execution,
        Self::Storage,
        Self::Messages,
        Self::Generator,
    ];

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Ordering => "ordering and messages",
            Self::Log => "log",
            Self::Dispatch => "dispatch",
            Self::Index => "index, blocks and other",
            Self::Execution => "scheduling, execution",
            Self::Storage => "storage",
            Self::Messages => "messages",
            Self::Generator => "load generator",
        }
    }

    /// Whether it is the sequencer's.
    #[must_use]
    pub fn is_of_sequencer(self) -> bool {
        matches!(self, Self::Admission | Self::Ordering | Self::Log | Self::Dispatch | Self::Index)
    }

    /// What [`Work::parts`] are, if the stage has any.
    #[must_use]
    pub fn part(self) -> Option<&'static str> {
        match self {
            Self::Dispatch => Some("part of a transaction at another partition than its home"),
            Self::Execution => Some("part in a transaction that is at home elsewhere"),
            Self::Storage => Some("key written"),
            Self::Messages => Some("push sent"),
            _ => None,
        }
    }

    /// What [`Work::events`] are, if the stage has any.
    #[must_use]
    pub fn event(self) -> Option<&'static str> {
        match self {
            Self::Admission => Some("submission"),
            Self::Ordering | Self::Messages => Some("frame sent or received"),
            Self::Log => Some("epoch"),
            Self::Dispatch => Some("epoch and host"),
            Self::Execution | Self::Storage => Some("epoch and partition"),
            Self::Index | Self::Generator => None,
        }
    }

    /// The stage that threads work at which a run lists under this name.
    #[must_use]
    pub fn of_thread(is_sequencer: bool, name: &str) -> Self {
        match (is_sequencer, name) {
            (true, "admission") => Self::Admission,
            (true, "dispatch") => Self::Dispatch,
            (true, "log") => Self::Log,
            (true, "network") => Self::Ordering,
            (true, _) => Self::Index,
            (false, "scheduling, execution") => Self::Execution,
            (false, "storage") => Self::Storage,
            (false, _) => Self::Messages,
        }
    }
}

impl Work {
    /// Adds what else was done.
    pub fn add(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.parts += other.parts;
        self.events += other.events;
    }

    /// What was done since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            transactions: self.transactions - earlier.transactions,
            parts: self.parts - earlier.parts,
            events: self.events - earlier.events,
        }
    }

    /// As numbers, in the order of the fields.
    #[must_use]
    pub fn units(self) -> [f64; 3] {
        [self.transactions as f64, self.parts as f64, self.events as f64]
    }
}

impl Cost {
    /// Of a transaction alone.
    #[must_use]
    pub fn of_transaction(micros: f64) -> Self {
        Self { transaction: micros, ..Self::default() }
    }

    /// What work costs, microseconds of one core.
    #[must_use]
    pub fn micros(self, work: Work) -> f64 {
        let [transactions, parts, events] = work.units();
        self.transaction * transactions + self.part * parts + self.event * events
    }
}

impl Costs {
    /// What one stage costs.
    #[must_use]
    pub fn of(&self, stage: Stage) -> Cost {
        self.0.get(&stage).copied().unwrap_or_default()
    }
}
