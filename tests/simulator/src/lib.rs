//! The deterministic simulator: whole clusters in one thread, each from one seed.
//!
//! ```text
//!   seed ─▶ Options ─▶ World ── virtual time ──▶ events, one after another
//!                        │
//!     clients ──▶ sequencer ──▶ executors        the production state machines
//!         network, disks                         simulated, and hostile
//!         history ── the serial oracle           compares everything, at once
//! ```
//!
//! A run has a phase in which faults strike (nothing wrong may happen) and one without (everything
//! must come to its end, within a bounded time). All that is random follows from the seed, so a
//! seed always runs exactly the same.
//!
//! What is real: the lane, the ledger, dispatch, restore and the id index's rules
//! (`parsec-sequencer-core`); the host's protocol, the dependency graph and the exchange
//! (`parsec-executor-core`); the log and the floors (`parsec-storage`); every message's encoding;
//! the native runtime. What is not: QUIC, fjall, threads, prediction, and the shells around the
//! cores, whose place the nodes here take.

mod agenda;
mod client;
mod disk;
mod executor;
mod faults;
mod history;
mod network;
mod options;
pub mod plants;
mod random;
mod sequencer;
mod store;
mod surroundings;
mod trace;
mod wire;
mod workload;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parsec_protocol::TxId;
use parsec_protocol::plant::{self, Bug};

pub use history::{Ending, Operation, Violation};
pub use trace::TraceLevel;
pub use world::Tally;

use world::World;

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What went wrong first, if anything did.
    pub violation: Option<Violation>,
    /// The last events, as far as they were kept.
    pub trace: Vec<String>,
    /// The hash of all events, if they were kept: two runs with the same hash are the same.
    pub hash: [u8; 32],
    /// What happened, in numbers.
    pub tally: Tally,
    /// What clients did and saw.
    pub operations: BTreeMap<TxId, Operation>,
}

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on, panics of this process are not printed. Those of a run are in its report.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANIC.with(|last| *last.borrow_mut() = Some(panic.to_string()));
    }));
}

/// Runs one seed, with a bug planted or without.
#[must_use]
pub fn run(seed: u64, planted: Option<Bug>, level: TraceLevel) -> Report {
    plant::plant(planted);
    let mut world = World::new(seed, level);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    plant::plant(None);
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let said = PANIC.with(|last| last.borrow_mut().take());
        world.s.history.violate("nothing panics", said.unwrap_or_else(|| text.to_owned()));
    }
    let World { s, tally, .. } = world;
    let (trace, hash) = s.trace.into_lines();
    let violation = s.history.violation().cloned();
    let operations = s.history.operations().clone();
    Report { seed, violation, trace, hash, tally, operations }
}
