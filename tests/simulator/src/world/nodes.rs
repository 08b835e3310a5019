//! Nodes that start and end, and what an operator does about those that stop of themselves.

use std::path::Path;

use parsec_protocol::NodeId;
use parsec_storage::StoreError;
use parsec_storage::log::LogError;

use super::{STORES, World};
use crate::agenda::MILLISECOND;
use crate::executor::Executor;
use crate::faults;
use crate::sequencer::{LOG, Sequencer};
use crate::surroundings::{Event, Halt, SEQUENCER};

/// Starts and ends.
impl World {
    pub(super) fn start(&mut self, node: NodeId) {
        if self.is_running(node) {
            return;
        }
        self.tally.starts += 1;
        self.s.network.start(node);
        if self.s.healed || self.s.random.chance(500) {
            // The operator has made room.
            self.disk(node).heal();
        }
        let result = if let Some(host) = self.hosts.get_mut(&node) {
            host.boot += 1;
            let started = Executor::start(&mut self.s, node, &host.disk, host.boot);
            started.map(|running| host.running = Some(running))
        } else {
            let sequencer = &mut self.sequencer;
            sequencer.boot += 1;
            let started = Sequencer::start(&mut self.s, &sequencer.disk, sequencer.boot);
            started.map(|running| sequencer.running = Some(running))
        };
        if result.is_ok() && node != SEQUENCER {
            self.check_unnoticed(node);
        }
        self.after_step(node, result);
    }

    /// A store that was opened must have no damage in it.
    fn check_unnoticed(&mut self, node: NodeId) {
        let left = self.disk(node).damaged(Path::new(STORES));
        if let Some(damage) = left.first() {
            let (path, at) = (damage.path.display(), damage.at);
            let detail = format!("{node} opened {path}, which is damaged at byte {at}");
            self.s.history.violate("damage is noticed", detail);
        }
    }

    /// Ends a node; what was not synced is lost if its power was cut. It starts again later.
    pub(super) fn end(&mut self, node: NodeId, power_cut: bool) {
        self.restarted = false;
        self.s.note(node, || match power_cut {
            true => "loses its power".into(),
            false => "ends".into(),
        });
        let Self { s, hosts, sequencer, .. } = self;
        match hosts.get_mut(&node) {
            Some(host) => host.running = None,
            None => sequencer.running = None,
        }
        s.network.end(node, &mut s.random);
        self.disk(node).restart(power_cut);
        let down = match self.s.healed {
            true => MILLISECOND,
            false => faults::down_time(&mut self.s.random),
        };
        self.s.after(down, Event::Start(node));
    }

    /// A node has done something; ends it if it could not.
    pub(super) fn after_step(&mut self, node: NodeId, result: Result<(), Halt>) {
        if self.disk(node).is_dead() {
            return self.end(node, true);
        }
        let Err(halt) = result else { return };
        self.s.note(node, || format!("stops: {halt}"));
        match self.explain(node, &halt) {
            Some(Remedy::Restart) => self.end(node, false),
            Some(Remedy::RepairLog) => {
                self.tally.damage_found += 1;
                self.disk(node).repair(Path::new(LOG));
                self.end(node, false);
            }
            Some(Remedy::RebuildStores) => {
                self.tally.damage_found += 1;
                self.rebuild();
            }
            None => {
                let detail = format!("{node} stops: {halt}");
                self.s.history.violate("nodes stop for a reason", detail);
            }
        }
    }

    /// What an operator does about a node that stopped, if a fault explains why.
    fn explain(&self, node: NodeId, halt: &Halt) -> Option<Remedy> {
        let disk = self.disk(node);
        let failed = disk.has_failed().then_some(Remedy::Restart);
        match halt {
            Halt::Index(_) => failed,
            Halt::Log(LogError::Io { .. } | LogError::Poisoned) => failed,
            Halt::Store(StoreError::File { .. } | StoreError::Poisoned) => failed,
            Halt::Log(_) => {
                let is_damaged = !disk.damaged(Path::new(LOG)).is_empty();
                is_damaged.then_some(Remedy::RepairLog)
            }
            Halt::Store(StoreError::BelowFloor { .. } | StoreError::Damaged { .. }) => {
                let is_damaged = !disk.damaged(Path::new(STORES)).is_empty();
                (is_damaged || disk.has_dropped()).then_some(Remedy::RebuildStores)
            }
            Halt::Store(_) | Halt::Defect(_) => None,
        }
    }

    /// Removes the stores of all hosts: they are rebuilt from the log.
    fn rebuild(&mut self) {
        for node in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.s.note(node, || "its stores are removed, to be rebuilt".into());
            self.end(node, false);
            self.disk(node).wipe(Path::new(STORES));
        }
    }
}

/// What an operator does about a node that stopped.
enum Remedy {
    Restart,
    RepairLog,
    RebuildStores,
}
