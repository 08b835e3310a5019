//! Dispatch: cuts batches into slices, once, and sends every host its part of every epoch.
//!
//! What is sent when is decided by [`Followers`](parsec_sequencer_core::Followers). A host that is
//! slow, or down, holds up nobody here: its own task waits.

use std::path::PathBuf;
use std::sync::Arc;

use parsec_protocol::transport::{Channel, PeerNetwork, SendError};
use parsec_protocol::{EpochNumber, NodeId};
use parsec_sequencer_core::{CutEpoch, Cutter, Step};
use parsec_storage::log::{LogError, LogReader};
use tokio::sync::mpsc;

use crate::ahead::Counters;
use crate::cache::ReplicatedCache;
use crate::chronicle::Recent;
use crate::driver::Ordered;
use crate::hosts::Hosts;
use crate::limits::CATCH_UP_EPOCHS;
use crate::stop::Stop;

/// Hands out what is ordered.
pub(crate) struct Dispatcher {
    pub(crate) cutter: Cutter,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) cache: Arc<ReplicatedCache>,
    pub(crate) counters: Arc<Counters>,
    /// Where the chronicle takes epochs from, if there is one.
    pub(crate) recent: Option<Arc<Recent>>,
}

impl Dispatcher {
    /// Cuts what is ordered and hands it to the hosts' senders, the chronicle and the index, until
    /// nothing more can come.
    pub(crate) fn cut_all(
        &self,
        mut ordered: mpsc::Receiver<Ordered>,
        index: &mpsc::Sender<Ordered>,
    ) {
        while let Some(Ordered { record, batches }) = ordered.blocking_recv() {
            if let Some(recent) = &self.recent {
                recent.push(&record, &batches);
            }
            let ids = batches.iter().flat_map(|batch| &batch.entries).map(|entry| &entry.id);
            // ORDER: before an executor can say that it has applied it.
            self.counters.on_ordered(record.number, ids);
            self.hosts.on_ordered(self.cutter.cut(&record, &batches));
            let accesses = batches
                .iter()
                .flat_map(|batch| &batch.entries)
                .flat_map(|entry| entry.footprint.accesses());
            let written = accesses.filter(|access| access.mode.may_change());
            self.cache.forget(written.map(|access| &access.key));
            if index.blocking_send(Ordered { record, batches }).is_err() {
                return;
            }
        }
    }
}

/// Sends one host everything it needs.
pub(crate) struct HostSender {
    pub(crate) host: NodeId,
    /// Its place in the order of hosts.
    pub(crate) place: usize,
    pub(crate) network: PeerNetwork,
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) cutter: Cutter,
    pub(crate) log: PathBuf,
    pub(crate) stop: Stop,
}

impl HostSender {
    /// Sends epochs until everything stops.
    pub(crate) async fn run(self) {
        while let Some(step) = self.hosts.next(self.host).await {
            match step {
                Step::Send { session, epoch } => {
                    self.send(session, &epoch).await;
                }
                Step::ReadLog { session, from } => {
                    tracing::info!(host = %self.host, %from, "sending epochs from the log");
                    if let Err(error) = self.catch_up(session, from).await {
                        return self.stop.fail(format!("the log can't be read: {error}"));
                    }
                }
            }
        }
    }

    /// Sends an epoch; returns whether that went well.
    async fn send(&self, session: u64, epoch: &CutEpoch) -> bool {
        for message in epoch.messages(self.place) {
            let sent = self.network.send_on(self.host, session, Channel::Order, message).await;
            let Err(error) = sent else { continue };
            if let SendError::TooLong { .. } = error {
                // No session will ever take it, so the host would wait for ever.
                self.stop.fail(format!("{} can't be sent {}: {error}", self.host, epoch.number()));
            }
            tracing::debug!(host = %self.host, %error, "an epoch could not be sent");
            self.hosts.on_send_failed(self.host, session);
            return false;
        }
        true
    }

    /// Sends from the log what is no longer in memory.
    async fn catch_up(&self, session: u64, from: EpochNumber) -> Result<(), LogError> {
        let (ahead, mut epochs) = mpsc::channel(CATCH_UP_EPOCHS);
        let (cutter, log) = (self.cutter.clone(), self.log.clone());
        let (hosts, host) = (self.hosts.clone(), self.host);
        let reading = tokio::task::spawn_blocking(move || {
            for epoch in LogReader::epochs_from(&log, from)? {
                let (record, batches) = epoch?;
                if !hosts.take_from_log(host, session, record.number)
                    || ahead.blocking_send(cutter.cut(&record, &batches)).is_err()
                {
                    break;
                }
            }
            Ok(())
        });
        while let Some(epoch) = epochs.recv().await {
            if !self.send(session, &epoch).await {
                break;
            }
        }
        // ORDER: without a receiver the reader ends at its next epoch.
        drop(epochs);
        match reading.await {
            Ok(read) => read,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
