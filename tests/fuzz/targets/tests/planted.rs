//! The targets can fail: bugs that are planted into the production code are found, by inputs that
//! are random and nothing more.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::panic::{catch_unwind, set_hook, take_hook};

use parsec_fuzz_targets::{Target, log_segment, schedule};
use parsec_protocol::plant::{self, Bug};

/// After so many inputs a bug counts as not found.
const INPUTS_MAX: u64 = 1_000;

const PLANTS: &[(&Target, Bug)] = &[
    (&schedule::TARGET, Bug::SkippedEdge),
    (&schedule::TARGET, Bug::ReadersHoldNobody),
    (&schedule::TARGET, Bug::LostOutboxEntry),
    (&schedule::TARGET, Bug::StaleRemoteRead),
    (&schedule::TARGET, Bug::AdditionInWrongEpoch),
    (&log_segment::TARGET, Bug::TornEndTakenAsWhole),
];

/// The input of that number. A segment of the log begins with a plan; a schedule is one.
fn input(number: u64) -> Vec<u8> {
    let mut state = number;
    let next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let rest = std::iter::repeat_with(next).skip(3).take(1_500);
    [1].into_iter().chain(rest).collect()
}

/// How many inputs it took until one made the target fail.
fn found_after(target: &Target, bug: Option<Bug>, inputs_max: u64) -> Option<u64> {
    plant::plant(bug);
    let found = (1..=inputs_max).find(|number| {
        let input = input(*number);
        catch_unwind(|| (target.run)(&input)).is_err()
    });
    plant::plant(None);
    found
}

#[test]
fn planted_bugs_are_found() {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let found: Vec<_> =
        PLANTS.iter().map(|(target, bug)| found_after(target, Some(*bug), INPUTS_MAX)).collect();
    set_hook(hook);
    for ((target, bug), found) in PLANTS.iter().zip(&found) {
        println!("{} {bug:?}: {found:?}", target.name);
    }
    assert!(found.iter().all(Option::is_some), "{found:?}");
}
