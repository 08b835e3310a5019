//! Faults, as they strike, and their end.

use std::collections::BTreeMap;
use std::path::Path;

use parsec_protocol::NodeId;
use parsec_storage::log::verify_on;

use super::{STORES, World};
use crate::agenda::{MILLISECOND, SECOND};
use crate::disk::DiskFault;
use crate::faults::{self, Fault, Kind};
use crate::network::Pair;
use crate::sequencer::LOG;
use crate::surroundings::{Event, SEQUENCER, client_of};

/// Faults.
impl World {
    pub(super) fn on_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Mend(pairs) => {
                for pair in pairs {
                    self.s.network.cut(pair, false, &mut self.s.random);
                }
            }
            Fault::Strike(kind) if self.s.now < self.heal_at => {
                self.tally.faults += 1;
                self.strike(kind);
                let kinds = faults::kinds(&self.s.options.faults);
                if let Some((_, mean)) = kinds.into_iter().find(|(other, _)| *other == kind) {
                    let delay = faults::pause(&mut self.s.random, mean);
                    self.s.after(delay, Event::Fault(Fault::Strike(kind)));
                }
            }
            Fault::Strike(_) => {}
        }
    }

    fn strike(&mut self, kind: Kind) {
        let nodes = self.nodes();
        let host = nodes[1 + self.s.random.index(nodes.len() - 1)];
        let node = *self.s.random.pick(&nodes);
        match kind {
            Kind::HostCrash => self.crash(host),
            Kind::SequencerCrash => self.crash(SEQUENCER),
            Kind::PowerCut => nodes.into_iter().for_each(|node| self.end(node, true)),
            Kind::LinkBreak => self.break_links(|(_, b)| client_of(b).is_none()),
            Kind::ClientBreak => self.break_links(|(_, b)| client_of(b).is_some()),
            Kind::Partition => self.part(),
            Kind::DiskError => {
                let fault = *self.s.random.pick(&[DiskFault::WriteError, DiskFault::SyncError]);
                self.arm(node, fault, 64);
            }
            Kind::FullDisk => self.arm(node, DiskFault::Full, 64),
            Kind::Damage if node == SEQUENCER => self.damage_log(),
            Kind::Damage => self.damage_store(node),
            Kind::ClockJump => {
                self.s.clock_ahead = match self.s.random.below(3) {
                    0 => 0,
                    _ => self.s.random.magnitude(MILLISECOND, 3_600 * SECOND),
                };
            }
        }
    }

    fn arm(&mut self, node: NodeId, fault: DiskFault, most: u64) {
        let later = self.s.random.magnitude(1, most) - 1;
        self.s.note(node, || format!("{fault:?} at its disk after {later} operations"));
        self.disk(node).arm(fault, later);
    }

    /// Now, or between two operations of its disk.
    fn crash(&mut self, node: NodeId) {
        match self.s.random.below(4) {
            0 => self.end(node, false),
            1 => self.end(node, true),
            2 => self.arm(node, DiskFault::Crash, 64),
            _ => self.arm(node, DiskFault::CrashBeforeSync, 8),
        }
    }

    fn break_links(&mut self, which: impl Fn(Pair) -> bool) {
        let pairs: Vec<Pair> = self.s.network.pairs().filter(|pair| which(*pair)).collect();
        if !pairs.is_empty() {
            let pair = *self.s.random.pick(&pairs);
            self.s.note(pair.0, || format!("the session with {} breaks", pair.1));
            self.s.network.break_off(pair, &mut self.s.random);
        }
    }

    /// Some nodes can't reach others for a while.
    fn part(&mut self) {
        let nodes = self.nodes();
        let side: BTreeMap<NodeId, bool> =
            nodes.iter().map(|node| (*node, self.s.random.chance(500))).collect();
        let is_cut = |(a, b): &Pair| side.get(a).zip(side.get(b)).is_some_and(|(a, b)| a != b);
        let pairs: Vec<Pair> = self.s.network.pairs().filter(is_cut).collect();
        for pair in &pairs {
            self.s.note(pair.0, || format!("is cut off from {}", pair.1));
            self.s.network.cut(*pair, true, &mut self.s.random);
        }
        let delay = faults::cut_time(&mut self.s.random);
        self.s.after(delay, Event::Fault(Fault::Mend(pairs)));
    }

    /// An executor is down, and bits of a store or of a floor flip.
    fn damage_store(&mut self, node: NodeId) {
        self.end(node, true);
        let mut files = self.disk(node).files(Path::new(STORES));
        files.retain(|file| file.extension().is_none_or(|end| end != "tmp"));
        if files.is_empty() {
            return;
        }
        let file = self.s.random.pick(&files).clone();
        if let Some(damage) = self.disk(node).damage(&file, 0..usize::MAX) {
            let (path, at) = (damage.path.display(), damage.at);
            self.s.note(node, || format!("{path} is damaged at byte {at}"));
        }
    }

    /// The sequencer is down, and bits of its log flip.
    ///
    /// Not where nobody could tell: damage to what was written last, with nothing behind it that
    /// proves it was synced, looks like a torn write (see `parsec_storage::log`).
    fn damage_log(&mut self) {
        self.end(SEQUENCER, true);
        let disk = self.sequencer.disk.clone();
        let mut files = disk.files(Path::new(LOG));
        files.retain(|file| file.extension().is_some_and(|end| end == "plog"));
        if files.is_empty() || !disk.damaged(Path::new(LOG)).is_empty() {
            return;
        }
        let whole = verify_on(disk.copy(), Path::new(LOG));
        let file = self.s.random.pick(&files).clone();
        let Some(damage) = disk.damage(&file, 0..usize::MAX) else { return };
        let found = verify_on(disk.copy(), Path::new(LOG));
        match (whole, found) {
            (Ok(_), Err(_)) => {
                let (path, at) = (damage.path.display(), damage.at);
                self.s.note(SEQUENCER, || format!("{path} is damaged at byte {at}"));
            }
            _ => disk.repair(Path::new(LOG)),
        }
    }

    pub(super) fn heal(&mut self) {
        if self.s.healed {
            return;
        }
        self.heal_at = self.s.now;
        self.s.note(SEQUENCER, || "FAULTS END".into());
        self.s.healed = true;
        self.s.network.heal();
        self.nodes().into_iter().for_each(|node| self.disk(node).heal());
        self.s.clock_ahead = 0;
        self.scrub();
    }

    /// Damage to parts of the log that nobody has read since is found by who looks.
    fn scrub(&mut self) {
        let disk = self.sequencer.disk.clone();
        if disk.damaged(Path::new(LOG)).is_empty() {
            return;
        }
        match verify_on(disk.copy(), Path::new(LOG)) {
            Ok(_) => {
                let detail = "the log is damaged, but verifies";
                self.s.history.violate("damage is noticed", detail);
            }
            Err(_) => {
                self.tally.damage_found += 1;
                disk.repair(Path::new(LOG));
            }
        }
    }
}
