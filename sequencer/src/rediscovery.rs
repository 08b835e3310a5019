//! Finds footprints anew for transactions that strayed.

use std::sync::Arc;

use parsec_protocol::{EpochNumber, ErrorCode, Footprint, TxId};
use parsec_runtimes::trial::Subject;
use parsec_sequencer_core::Rediscovery;
use parsec_sequencer_core::limits::APART_ATTEMPT;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::cache::ReplicatedCache;
use crate::discovery::{Discovery, Undiscovered};
use crate::driver::Input;
use crate::limits::{DECLARED_ATTEMPTS_MAX, REDISCOVERIES_MAX, REDISCOVERY_UNIT_MAX, RETRY_DELAY};
use crate::stop::Stop;

/// Finds footprints anew.
#[derive(Clone)]
pub(crate) struct Rediscoverer {
    pub(crate) discovery: Discovery,
    pub(crate) cache: Arc<ReplicatedCache>,
    pub(crate) applied_by_all: watch::Receiver<EpochNumber>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) stop: Stop,
}

impl Rediscoverer {
    /// Runs until no more can come.
    pub(crate) async fn run(self, mut strays: mpsc::Receiver<Vec<Rediscovery>>) {
        let permits = Arc::new(Semaphore::new(REDISCOVERIES_MAX));
        let mut come = Vec::new();
        while strays.recv_many(&mut come, REDISCOVERY_UNIT_MAX).await > 0 {
            // What came one by one is tried together; a group has its own order, and no other.
            let (groups, single): (Vec<_>, Vec<_>) =
                come.drain(..).partition(|next| next.len() > 1);
            let single = single.into_iter().flatten().collect();
            for unit in groups.into_iter().chain([single]).filter(|unit| !unit.is_empty()) {
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let this = self.clone();
                tokio::spawn(async move {
                    this.stop.unless(this.find(unit)).await;
                    drop(permit);
                });
            }
        }
    }

    /// Finds the footprints of a unit, however long the state can't be read: these transactions
    /// were accepted.
    async fn find(&self, mut unit: Vec<Rediscovery>) {
        while !unit.is_empty() {
            for stray in &unit {
                // What is remembered of them may be why it strayed.
                let old = stray.entry.footprint.accesses();
                self.cache.distrust(old.iter().chain([&stray.stray]).map(|access| &access.key));
                self.discovery.strayed(&subject(stray), &stray.entry.footprint);
            }
            let least = unit.iter().map(|stray| stray.least).max().unwrap_or_default();
            let snapshot = least.max(*self.applied_by_all.borrow());
            let subjects: Vec<_> = unit.iter().map(subject).collect();
            let found = self.discovery.find_again(subjects, snapshot).await;
            let (done, again) = sort(unit, found);
            if self.inputs.send(Input::Discovered(done)).await.is_err() {
                return;
            }
            unit = again;
            if !unit.is_empty() {
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

fn subject(stray: &Rediscovery) -> Subject {
    Subject {
        id: stray.entry.id,
        runtime: stray.entry.runtime,
        sender: stray.entry.sender.clone(),
        payload: stray.entry.payload.clone(),
        known: None,
        declares: stray.attempt <= DECLARED_ATTEMPTS_MAX,
        // What strays again and again does so because of others like it.
        erratic: stray.attempt >= APART_ATTEMPT,
    }
}

type Found = (TxId, u8, Result<Footprint, ErrorCode>);

/// Parts those whose footprint is found, or never will be, from those to be tried again.
fn sort(
    unit: Vec<Rediscovery>,
    found: Vec<Result<Footprint, Undiscovered>>,
) -> (Vec<Found>, Vec<Rediscovery>) {
    let mut done = Vec::new();
    let mut again = Vec::new();
    for (stray, found) in unit.into_iter().zip(found) {
        let (id, attempt) = (stray.entry.id, stray.attempt);
        match found {
            Ok(footprint) => done.push((id, attempt, Ok(footprint))),
            Err(Undiscovered::Refused(code, detail)) => {
                tracing::debug!(%id, ?code, detail, "no footprint can be found");
                done.push((id, attempt, Err(code)));
            }
            Err(Undiscovered::Unavailable(reason)) => {
                tracing::debug!(%id, reason, "a footprint can't be found yet");
                again.push(stray);
            }
        }
    }
    (done, again)
}
