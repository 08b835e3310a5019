//! Whether everything is done, and all that must be so then.

use std::path::Path;

use parsec_protocol::EpochNumber;
use parsec_storage::log::verify_on;
use parsec_storage::{Digest, Store as _};

use super::{INSPECTION, World};
use crate::agenda::{Micros, SECOND};
use crate::client::Client;
use crate::disk::SimDisk;
use crate::sequencer::LOG;
use crate::surroundings::{Event, Surroundings};

/// How long everything may take once faults have ended.
const RECOVERY_MAX: Micros = 60 * SECOND;
/// How long faults go on when nobody does anything more.
const WAIT_MAX: Micros = SECOND;

/// The end.
impl World {
    pub(super) fn inspect(&mut self) {
        if !self.s.healed {
            // Nobody does anything more before faults end: they end soon.
            let is_waited_for = self.clients.iter().all(Client::waits_for_the_end);
            self.waited = if is_waited_for { self.waited + INSPECTION } else { 0 };
            if self.waited > WAIT_MAX {
                self.heal();
            }
            return self.s.after(INSPECTION, Event::Inspect);
        }
        let unrest = self.unrest();
        match unrest {
            None if self.restarted => self.done = true,
            None => {
                // What is done must outlive a power cut of all nodes.
                self.nodes().into_iter().for_each(|node| self.end(node, true));
                self.restarted = true;
                self.s.after(INSPECTION, Event::Inspect);
            }
            Some(_) if self.s.now < self.heal_at + RECOVERY_MAX => {
                self.s.after(INSPECTION, Event::Inspect);
            }
            Some(unrest) => {
                self.s.history.check_all_ended();
                self.s.history.violate("progress resumes once faults end", unrest);
            }
        }
    }

    /// What is not done yet.
    fn unrest(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().position(|client| !client.is_done()) {
            return Some(format!("client {client} is not done"));
        }
        let Some(sequencer) = &self.sequencer.running else {
            return Some("the sequencer is down".into());
        };
        if !sequencer.is_idle() {
            return Some("the sequencer has something under way".into());
        }
        let last = self.s.history.last();
        self.hosts.iter().find_map(|(node, host)| match &host.running {
            None => Some(format!("{node} is down")),
            Some(running) => running.unrest(last, self.restarted),
        })
    }

    /// Everything that must be so when all is done.
    pub(super) fn check_end(&mut self) {
        let Self { s, hosts, sequencer, .. } = self;
        s.history.check_all_ended();
        check_log(s, &sequencer.disk);
        let mut state = Digest::ZERO;
        let mut receipts = Digest::ZERO;
        for executor in hosts.values().filter_map(|host| host.running.as_ref()) {
            for (partition, store) in executor.stores() {
                let applied = store.applied();
                s.history.on_found(partition, &applied);
                let map = s.cluster.map.clone();
                if let Err(error) = store.verify(&|key| map.owner(key) == partition) {
                    s.history.violate("stores add up", format!("{partition}: {error}"));
                }
                s.history.check_values(partition, |key| store.get(key).ok().flatten());
                state.add(applied.state);
                receipts.add(applied.receipts);
            }
        }
        let expected = s.history.digests();
        if (state, receipts) != expected {
            let detail = format!("{state} and {receipts}, not {expected:?}");
            s.history.violate("digests of partitions add up to the oracle's", detail);
        }
    }
}

fn check_log(s: &mut Surroundings, disk: &SimDisk) {
    match verify_on(disk.copy(), Path::new(LOG)) {
        Err(error) => s.history.violate("the log verifies", error.to_string()),
        Ok(end) => {
            let last = end.last_epoch.map_or(EpochNumber(0), |last| last.number);
            if last != s.history.last() || !end.unordered.is_empty() || end.torn_bytes > 0 {
                let detail = format!(
                    "it ends with {last}, {} unordered, {} torn bytes; {} is the last epoch",
                    end.unordered.len(),
                    end.torn_bytes,
                    s.history.last()
                );
                s.history.violate("the log verifies", detail);
            }
        }
    }
}
