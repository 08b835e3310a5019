//! What choosing a home costs: `cargo run --release -p parsec-sequencer-core --example home_cost`.
//!
//! Prints nanoseconds per transaction for the chooser and, beside it, for
//! [`PartitionMap::choose_home`], which knows neither load nor history.

#![allow(clippy::disallowed_types, reason = "an example may look at the clock")]
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example may")]

use std::hint::black_box;
use std::time::Instant;

use parsec_protocol::{
    Access, Entry, Footprint, Key, Mode, Namespace, PartitionId, PartitionMap, RuntimeId, TxId,
};
use parsec_sequencer_core::HomeChooser;

const TRANSACTIONS: u32 = 20_000;
const ROUNDS: usize = 25;

/// A transaction whose `keys` keys of 32 bytes share an affinity, or do not.
fn entry(number: u32, keys: u32, together: bool, hot: bool) -> Entry {
    let access = |index: u32| {
        let hot = hot && index == 0;
        let number = if hot { 0 } else { number };
        let owner = if together && !hot { number } else { number * 64 + index };
        let parts = [&owner.to_be_bytes()[..], &index.to_be_bytes(), &[0; 24]];
        let key = Key::with_affinity(Namespace::partitioned(1), 4, &parts).unwrap();
        Access { key, mode: if index.is_multiple_of(2) { Mode::Write } else { Mode::Read } }
    };
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    Entry {
        id: TxId(id),
        runtime: RuntimeId::NATIVE,
        attempt: 0,
        home: PartitionId(0),
        sender: Vec::new().into(),
        payload: Vec::new().into(),
        footprint: Footprint::new((0..keys).map(access).collect()).unwrap(),
        expires: None,
    }
}

/// The least of several rounds, in nanoseconds per transaction.
fn time(entries: &[Entry], mut choose: impl FnMut(&Entry) -> PartitionId) -> u128 {
    let round = |_| {
        let started = Instant::now();
        for entry in entries {
            black_box(choose(black_box(entry)));
        }
        started.elapsed().as_nanos() / entries.len() as u128
    };
    (0..ROUNDS).map(round).min().unwrap()
}

fn main() {
    let map = PartitionMap::even(4).unwrap();
    println!("{:36} {:>12} {:>12}", "4 partitions, ns a transaction", "chooser", "most keys");
    for (name, keys, together, hot) in [
        ("4 keys, one partition", 4, true, false),
        ("4 keys, several partitions", 4, false, false),
        ("4 keys, several, one of them hot", 4, false, true),
        ("10 keys, several partitions", 10, false, false),
        ("no keys", 0, true, false),
    ] {
        let entries: Vec<_> =
            (0..TRANSACTIONS).map(|number| entry(number, keys, together, hot)).collect();
        let mut chooser = HomeChooser::new(map.clone());
        let chosen = time(&entries, |entry| chooser.choose(entry));
        let plain = time(&entries, |entry| map.choose_home(&entry.id, &entry.footprint));
        println!("{name:36} {chosen:>12} {plain:>12}");
    }
}
