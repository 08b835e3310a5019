//! Clusters of [`Host`](parsec_executor_core::Host)s with their partitions, driven in one thread by
//! a random schedule, against one thread that executes in order.
//!
//! Links go down, lose what is on the way, and come up again, and each end learns of it at a time of
//! its own. Hosts lose power: of what their stores did not sync, any part is gone. The sequencer
//! forgets receipts and asks for them again. Whatever the schedule, the cluster ends with the
//! state, the receipts and the empty outboxes that it should.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may")]

mod cluster;
mod network;
mod node;
mod sequencer;
mod store;
#[path = "../support/mod.rs"]
mod support;

use parsec_protocol::{EpochNumber, PartitionId};
use proptest::prelude::*;

use crate::cluster::{Cluster, Faults, Layout};
use crate::support::{build, serial, transaction};

fn faults() -> impl Strategy<Value = Faults> {
    let odds = || prop_oneof![Just(0u32), Just(2), Just(10), Just(40)];
    (odds(), odds(), odds()).prop_map(|(links, hosts, sequencer)| Faults {
        links,
        hosts,
        sequencer,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_of_hosts_agrees_with_one_thread(
        epochs in prop::collection::vec(prop::collection::vec(transaction(), 0..10), 1..10),
        hosts in 1u16..5,
        partitions_per_host in 1u16..4,
        faults in faults(),
        seed: u64,
    ) {
        let epochs = build(&epochs);
        let (state, receipts) = serial(&epochs);
        let layout = Layout { hosts, partitions_per_host };
        let mut cluster = Cluster::new(epochs.clone(), layout, faults, seed);
        cluster.run();

        let last = EpochNumber(epochs.len() as u64);
        prop_assert_eq!(cluster.sequencer.receipts(), receipts);
        for (id, store) in cluster.stores() {
            prop_assert_eq!(store.applied(), last);
            for (key, value) in store.state() {
                prop_assert_eq!(state.get(key), Some(value));
            }
            let holds = |key: &&parsec_protocol::Key| {
                key.is_replicated() || cluster.map.owner(key) == id
            };
            prop_assert!(state.keys().filter(holds).all(|key| store.state().contains_key(key)));
            prop_assert_eq!(store.owed(), Vec::<PartitionId>::new(), "{} owes still", id);
        }
    }
}
