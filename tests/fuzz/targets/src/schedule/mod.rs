//! Random transactions on a cluster under a random schedule, against one thread.
//!
//! Input: a plan. Its first part is native programs over few keys, with footprints that may be too
//! narrow or too wide, in several epochs; transactions that stray are ordered again with what they
//! lacked. The rest decides in which order a cluster of partitions takes in, fetches, executes,
//! pushes and stores, and when one of them restarts from its store. Every receipt, every value
//! after every epoch, and the digests must be those of the serial oracle.

mod programs;

use std::sync::Arc;

use arbitrary::Unstructured;
use parsec_partitions::{Options, Partitions};
use parsec_protocol::PartitionMap;

use crate::{Seed, Target, Verdict};

/// See the module.
pub const TARGET: Target = Target { name: "schedule", run, seeds };

const PARTITIONS_MAX: u16 = 5;
/// After so many steps nobody restarts any more, so that it comes to an end.
const STEPS_WITH_RESTARTS: usize = 4_000;

fn run(input: &[u8]) -> Verdict {
    let mut plan = Unstructured::new(input);
    match setting(&mut plan) {
        Ok((map, cache, order)) => {
            let options = Options { cache, steps_with_restarts: STEPS_WITH_RESTARTS };
            let (epochs, runtimes) = (&order.epochs, programs::runtimes());
            let mut cluster = Partitions::new(&map, options, &runtimes, epochs, &order.receipts);
            cluster.run(&mut Dice { plan, state: blake3::hash(input).as_bytes()[0].into() });
            cluster.check();
            let keys: Vec<_> = programs::keys().collect();
            for ((record, _), state) in order.epochs.iter().zip(&order.states) {
                cluster.check_state(record.number, &keys, state);
            }
            assert_eq!(cluster.digests(), (order.state_digest, order.receipts_digest));
            Verdict::Accepted
        }
        Err(_) => Verdict::Refused,
    }
}

fn setting(
    plan: &mut Unstructured<'_>,
) -> arbitrary::Result<(Arc<PartitionMap>, usize, programs::Order)> {
    let map = Arc::new(PartitionMap::even(plan.int_in_range(1..=PARTITIONS_MAX)?).unwrap());
    let cache = *plan.choose(&[2, 1_000])?;
    let order = programs::order(plan, &map)?;
    Ok((map, cache, order))
}

/// Draws from the plan, and from a generator when it has come to its end.
struct Dice<'a> {
    plan: Unstructured<'a>,
    state: u64,
}

impl parsec_partitions::Dice for Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        if !self.plan.is_empty() {
            return self.plan.choose_index(sides).unwrap_or(0);
        }
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.state >> 33) % sides as u64).unwrap()
    }
}

fn seeds() -> Vec<Seed> {
    let varied = |seed: u32, length: usize| {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect::<Vec<u8>>()
    };
    vec![
        Seed::new("short", varied(3, 120)),
        Seed::new("medium", varied(4, 700)),
        Seed::new("long", varied(5, 3_000)),
        Seed::new("long-too", varied(6, 3_000)),
    ]
}
