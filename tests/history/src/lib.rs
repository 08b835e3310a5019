//! Whether what the clients of a database saw is strictly serializable.
//!
//! A history is a list of [`Operation`]s: who ran them, from when to when, what became of them,
//! what they read and what they wrote. [`check`] looks for a contradiction in it, without looking
//! into the database: it works on histories of a simulation, of a test, and of a cluster in
//! production.
//!
//! **Method.** The transactions of a history are the nodes of Adya's direct serialization graph
//! (*Weak Consistency: A Generalized Theory and Optimistic Implementations for Distributed
//! Transactions*, PhD thesis, MIT 1999; Adya, Liskov and O'Neil, ICDE 2000). Its edges say who came
//! before whom: a write before the next write of the key (write-write), a write before those that
//! read it (write-read), a read before the write that replaced what it read (read-write,
//! *anti-dependency*). A history is serializable if and only if the graph has no cycle. With an
//! edge from each transaction to those that were invoked after it had returned, no cycle means
//! strict serializability (Papadimitriou, JACM 1979; Herlihy and Wing, TOPLAS 1990).
//!
//! **Version orders.** The graph needs to know in which order the versions of a key were written,
//! and a client is not told that. As in Elle (Kingsbury and Alvaro, VLDB 2020), keys are used such
//! that it follows from what clients read; each element is written to a key at most once:
//!
//! * a *register* holds one element, and who writes it reads it first, in the same transaction:
//!   each version names the one before it;
//! * a *list* is only appended to: a read is the whole past of the key;
//! * a *set* is only added to: reads of it contain one another, and what lies between two of them
//!   was added in between, in any order. Counters are sets if their additions are powers of a base
//!   ([`counter`]): this is how additions that commute are checked.
//!
//! **What is found.** No history of a strictly serializable database is called anomalous. For
//! lists, sets, and registers that are read before they are written, every history that is not
//! strictly serializable is. Where a register is written without being read (a *blind* write, or an
//! operation of unknown outcome), its version stands after all those that are known to follow the
//! initial one; nothing is known of the order of several such versions, and what
//! depends on that order alone is not found.
//!
//! **Unknown outcomes.** An operation of which its client never heard took effect if somebody read
//! what it wrote; if nobody did, then it is left out, since it may as well not have happened.
//!
//! ```
//! use parsec_history::{Consistency, check, read_history};
//!
//! let stale = r#"
//! {"process":1,"invoked":0,"returned":2,"outcome":"committed","steps":[{"append":{"key":"x","element":7}}]}
//! {"process":2,"invoked":3,"returned":4,"outcome":"committed","steps":[{"read":{"key":"x","found":{"list":[]}}}]}
//! "#;
//! let history = read_history(stale.trim().as_bytes()).unwrap();
//! assert!(check(&history, Consistency::Serializable).is_ok());
//! assert!(check(&history, Consistency::StrictSerializable).is_err());
//! ```
//!
//! What is not there: predicates (ranges of keys, and with them phantoms), deletions, and
//! transactions whose writes are not known when they are submitted.

mod anomaly;
mod cycles;
mod explain;
mod file;
mod graph;
mod history;
mod order;
mod versions;
mod view;

pub mod counter;

pub use anomaly::{Anomaly, AnomalyKind, Failure, Malformed};
pub use file::{FileError, read_history, write_history};
pub use history::{Element, Found, Operation, Outcome, Process, Step, Tick};
pub use order::Consistency;

use graph::Graph;
use view::View;

/// What a history without an anomaly consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Operations, whatever became of them.
    pub operations: usize,
    /// Those that committed.
    pub committed: usize,
    /// Those of unknown outcome whose effect somebody saw.
    pub recovered: usize,
    /// Keys.
    pub keys: usize,
}

/// Checks a history.
///
/// The answer depends on the history alone: the same one gets the same explanation.
///
/// # Errors [`Failure::Malformed`] if the history is none that can be checked, and
/// [`Failure::Anomaly`], with an explanation, if it is not as consistent as that.
pub fn check(operations: &[Operation], consistency: Consistency) -> Result<Summary, Failure> {
    let view = View::of(operations)?;
    let mut graph = Graph::new(operations.len());
    for (number, key) in view.keys.iter().enumerate() {
        versions::add_edges(&mut graph, &view, number, key)?;
    }
    order::add_edges(&mut graph, &view, consistency);
    if let Some(cycle) = cycles::find(&graph.finish(), &view, consistency) {
        return Err(explain::cycle(&view, &cycle).into());
    }
    let count = |wanted| operations.iter().filter(|each| each.outcome == wanted).count();
    let committed = count(Outcome::Committed);
    let effective = (0..operations.len()).filter(|index| view.took_effect(*index)).count();
    Ok(Summary {
        operations: operations.len(),
        committed,
        recovered: effective - committed,
        keys: view.keys.len(),
    })
}
