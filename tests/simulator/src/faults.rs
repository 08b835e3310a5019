//! What befalls a cluster, and when.

use crate::agenda::{MILLISECOND, Micros, SECOND};
use crate::network::Pair;
use crate::options::Faults;
use crate::random::Random;

/// A kind of fault that happens again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An executor loses its power, or its process is killed.
    HostCrash,
    /// The same for the sequencer.
    SequencerCrash,
    /// All nodes lose their power.
    PowerCut,
    /// A session between two nodes ends.
    LinkBreak,
    /// Some nodes can't reach others for a while.
    Partition,
    /// A client's session ends.
    ClientBreak,
    /// A write or a sync fails.
    DiskError,
    /// A disk is full.
    FullDisk,
    /// A node is down, and bits of what it has synced flip.
    Damage,
    /// The sequencer's clock jumps.
    ClockJump,
}

/// A fault that is due.
#[derive(Debug)]
pub(crate) enum Fault {
    /// One of a kind.
    Strike(Kind),
    /// Links that were cut are mended.
    Mend(Vec<Pair>),
}

/// The kinds of faults that a run has, with the mean time between two of each.
pub(crate) fn kinds(faults: &Faults) -> Vec<(Kind, Micros)> {
    let all = [
        (Kind::HostCrash, faults.host_crashes),
        (Kind::SequencerCrash, faults.sequencer_crashes),
        (Kind::PowerCut, faults.power_cuts),
        (Kind::LinkBreak, faults.link_breaks),
        (Kind::Partition, faults.partitions),
        (Kind::ClientBreak, faults.client_breaks),
        (Kind::DiskError, faults.disk_errors),
        (Kind::FullDisk, faults.full_disks),
        (Kind::Damage, faults.damage),
        (Kind::ClockJump, faults.clock_jumps),
    ];
    all.into_iter().filter(|(_, mean)| *mean > 0).collect()
}

/// The time to the next fault of a kind.
pub(crate) fn pause(random: &mut Random, mean: Micros) -> Micros {
    random.between(1, 2 * mean)
}

/// How long a node is down.
pub(crate) fn down_time(random: &mut Random) -> Micros {
    let longest = if random.chance(100) { 3 * SECOND } else { SECOND / 4 };
    random.magnitude(MILLISECOND, longest)
}

/// How long links stay cut.
pub(crate) fn cut_time(random: &mut Random) -> Micros {
    random.magnitude(10 * MILLISECOND, 3 * SECOND)
}
