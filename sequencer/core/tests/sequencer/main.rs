//! Random schedules of a whole sequencer: order, log, index and followers, over a network that loses
//! what is under way, with crashes of the sequencer and of hosts at any step.
//!
//! [`World`] plays the disk, the network, the hosts and the clients, and checks everything that the
//! state machines put out against what came before it.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod disk;
mod host;
mod process;
mod world;

use parsec_protocol::limits::STRAY_ATTEMPTS_MAX;
use proptest::prelude::*;
use world::World;

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// A client submits, with what the index said now (or, `stale`, a while ago).
    Submit {
        id: u8,
        expires: Option<u8>,
        stale: bool,
    },
    /// A client asks the index about an id that it submits later.
    LookUp {
        id: u8,
    },
    /// The log's thread carries out commands.
    Log {
        count: usize,
    },
    /// The dispatching thread cuts an epoch.
    Cut,
    /// The sender of a host goes on.
    Send {
        host: usize,
        count: usize,
    },
    /// Messages arrive, at a host or from it.
    ToHost {
        host: usize,
        count: usize,
    },
    FromHost {
        host: usize,
        count: usize,
    },
    /// The sequencer learns of a change of a link.
    LinkEvent {
        host: usize,
    },
    LinkDown {
        host: usize,
    },
    /// A link comes up, perhaps in the place of one whose end nobody noticed.
    LinkUp {
        host: usize,
        replaces: bool,
    },
    /// Something can't be sent to a host, although its link is up.
    SendFails {
        host: usize,
    },
    /// A partition of a host applies an epoch.
    Apply {
        host: usize,
        partition: usize,
    },
    SyncHost {
        host: usize,
    },
    CrashHost {
        host: usize,
        keep: u64,
        wiped: bool,
    },
    Discover {
        pick: usize,
        fails: bool,
    },
    /// The index is written, or half of it: the write is not told of yet.
    WriteIndex,
    IndexWritten,
    Wait {
        micros: u64,
    },
    /// The sequencer dies; of what was not synced, this much is there afterwards.
    Crash {
        log: usize,
        index: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let host = || 0usize..3;
    let expires = || proptest::option::weighted(0.1, 0u8..20);
    prop_oneof![
        8 => (0u8..40, expires(), any::<bool>())
            .prop_map(|(id, expires, stale)| Op::Submit { id, expires, stale }),
        3 => (0u8..40).prop_map(|id| Op::LookUp { id }),
        8 => (1usize..5).prop_map(|count| Op::Log { count }),
        5 => Just(Op::Cut),
        8 => (host(), 1usize..4).prop_map(|(host, count)| Op::Send { host, count }),
        8 => (host(), 1usize..6).prop_map(|(host, count)| Op::ToHost { host, count }),
        8 => (host(), 1usize..6).prop_map(|(host, count)| Op::FromHost { host, count }),
        6 => host().prop_map(|host| Op::LinkEvent { host }),
        1 => host().prop_map(|host| Op::LinkDown { host }),
        4 => (host(), proptest::bool::weighted(0.2))
            .prop_map(|(host, replaces)| Op::LinkUp { host, replaces }),
        1 => host().prop_map(|host| Op::SendFails { host }),
        12 => (host(), 0usize..2).prop_map(|(host, partition)| Op::Apply { host, partition }),
        2 => host().prop_map(|host| Op::SyncHost { host }),
        1 => (host(), 0u64..4, proptest::bool::weighted(0.1))
            .prop_map(|(host, keep, wiped)| Op::CrashHost { host, keep, wiped }),
        3 => (any::<usize>(), proptest::bool::weighted(0.1))
            .prop_map(|(pick, fails)| Op::Discover { pick, fails }),
        2 => Just(Op::WriteIndex),
        2 => Just(Op::IndexWritten),
        2 => (0u64..3_000).prop_map(|micros| Op::Wait { micros }),
        1 => (0usize..6, 0usize..6).prop_map(|(log, index)| Op::Crash { log, index }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_everyone_gets_everything_once(
        ops in proptest::collection::vec(op(), 0..600),
        strays in proptest::collection::btree_map(0u8..40, 1u8..=STRAY_ATTEMPTS_MAX + 2, 0..10),
    ) {
        let mut world = World::new(strays);
        ops.iter().for_each(|op| world.step(op));
        world.settle();
    }
}
