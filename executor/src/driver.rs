//! Drives the protocol between hosts: carries links, messages, progress and answers of stores to
//! the [`Host`](Protocol) of `parsec-executor-core`, and brings about what it decides.
//!
//! All of it is one task. So what a session brings is looked at only after it is known that the
//! session is up, whatever channel it comes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parsec_executor_core::{Host as Protocol, HostOutput, Request};
use parsec_protocol::transport::{Inbox, LinkEvent, Links, Received};
use parsec_protocol::{EpochNumber, PartitionId, Push, Receipt};
use parsec_storage::StoreError;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::config::Stop;
use crate::host::Host;
use crate::monitor::lock;
use crate::send::{self, Addressed};
use crate::shard::{Event, Shard};

/// How long progress is collected before it is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(2);
/// Answers of stores that may wait for the driver.
const ANSWERS_MAX: usize = 16;

/// What a store answered.
enum Answer {
    Outbox(Request, Vec<Push>),
    Receipts(Request, Vec<(EpochNumber, Vec<Receipt>)>),
}

/// What the driver takes in.
enum Input {
    Link(LinkEvent),
    Message(Received),
    Answer(Answer),
    /// Something has happened to a partition.
    Attention,
    /// Progress was collected for long enough.
    ReportDue,
    /// A task that asks a store has ended.
    Asked(Result<(), JoinError>),
}

/// Drives the protocol of a host.
pub(crate) struct Driver {
    host: Arc<Host>,
    protocol: Protocol,
    /// The tasks that ask stores: one for each thing that is being sent again, and one for each
    /// pair of partitions to forget what was synced since the last time.
    asking: JoinSet<()>,
    answers: mpsc::Sender<Answer>,
    /// Whether every partition has room for another epoch. Looked at anew when one was delivered,
    /// and when a worker calls for attention because it has taken some in.
    has_room: bool,
}

/// What arrives at a host, but for queries.
pub(crate) struct Inboxes {
    pub(crate) links: Links,
    pub(crate) order: Inbox,
    pub(crate) exchange: Inbox,
}

impl Driver {
    /// Drives until the host or the network stops.
    pub(crate) async fn run(host: Arc<Host>, inboxes: Inboxes) {
        let applied = host.shards.values().map(|shard| (shard.id, *shard.applied.borrow()));
        let protocol = Protocol::new(host.routes.clone(), host.sequencer, &applied.collect());
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let driver = Self { host, protocol, asking: JoinSet::new(), answers, has_room: true };
        driver.drive(inboxes, answered).await;
    }

    async fn drive(mut self, inboxes: Inboxes, mut answered: mpsc::Receiver<Answer>) {
        let Inboxes { mut links, mut order, mut exchange } = inboxes;
        let mut reported = Instant::now();
        while !self.host.is_closing() && self.bring_about() {
            let is_due = self.protocol.is_progress_due();
            let input = tokio::select! {
                event = links.recv() => event.map(Input::Link),
                received = order.recv(), if self.has_room => received.map(Input::Message),
                received = exchange.recv() => received.map(Input::Message),
                answer = answered.recv() => answer.map(Input::Answer),
                () = self.host.attention.notified() => Some(Input::Attention),
                () = tokio::time::sleep_until(reported + PROGRESS_INTERVAL), if is_due => {
                    reported = Instant::now();
                    Some(Input::ReportDue)
                }
                Some(asked) = self.asking.join_next() => Some(Input::Asked(asked)),
            };
            // The network has stopped.
            let Some(input) = input else { return };
            self.take_in(input);
        }
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Link(event) => self.on_link(&event),
            Input::Message(received) => self.on_message(received),
            Input::Answer(Answer::Outbox(request, pushes)) => {
                self.protocol.on_outbox(request, pushes);
            }
            Input::Answer(Answer::Receipts(request, epochs)) => {
                self.protocol.on_stored_receipts(request, epochs);
            }
            Input::Attention => self.look_at_partitions(),
            Input::ReportDue => self.protocol.report_progress(),
            Input::Asked(Ok(())) => {}
            Input::Asked(Err(error)) => {
                self.host.stop(Stop(format!("a store could not be asked: {error}")));
            }
        }
    }

    fn on_link(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Up { node, session } => self.protocol.on_link_up(*node, *session),
            LinkEvent::Down { node, session, reason } => {
                tracing::info!(%node, %reason, "the link is down");
                self.protocol.on_link_down(*node, *session);
            }
            LinkEvent::Failed { address, reason, .. } => {
                tracing::info!(%address, %reason, "the link can't come up");
            }
        }
    }

    fn on_message(&mut self, Received { from, session, message }: Received) {
        let kind = std::mem::discriminant(&message);
        if let Err(reason) = self.protocol.on_message(from, session, message) {
            tracing::warn!(%from, ?kind, %reason, "a message was ignored");
        }
    }

    /// Partitions have applied or synced epochs, or have room again for epochs or pushes.
    fn look_at_partitions(&mut self) {
        let mut synced = Vec::new();
        for shard in self.host.shards.values() {
            let status = shard.status();
            self.protocol.on_applied(status.partition, status.applied);
            synced.push((status.partition, status.durable));
            if shard.pushes_lost.swap(false, Ordering::AcqRel) {
                tracing::warn!(partition = %shard.id, "more pushes came early than there is room for");
                self.protocol.on_pushes_lost(shard.id);
            }
        }
        self.protocol.on_durable(&synced);
        self.look_for_room();
    }

    fn look_for_room(&mut self) {
        self.has_room = !self.host.shards.values().any(|shard| shard.is_full());
    }

    /// Brings about all that was decided; whether the host goes on.
    fn bring_about(&mut self) -> bool {
        while let Some(output) = self.protocol.poll_output() {
            match output {
                HostOutput::Send { to, session, channel, message } => {
                    if let Some(outgoing) = self.host.outgoing.get(&to) {
                        let message = Addressed { session, channel, message };
                        outgoing.change(|waiting| send::queue(waiting, message));
                    }
                }
                HostOutput::Epoch { partition, context, entries } => {
                    self.deliver(partition, Event::Epoch(context, entries));
                    self.look_for_room();
                }
                HostOutput::Pushes { partition, pushes } => {
                    self.deliver(partition, Event::Pushes(pushes));
                }
                HostOutput::Resume { request, partition, to, after } => {
                    self.resume(request, partition, Some((to, after)));
                }
                HostOutput::ResumeReceipts { request, partition } => {
                    self.resume(request, partition, None);
                }
                HostOutput::ReadOutbox { request, partition, to, after, limit } => {
                    self.read_outbox(request, partition, (to, after), limit);
                }
                HostOutput::ReadReceipts { request, partition, from, limit } => {
                    self.read_receipts(request, partition, from, limit);
                }
                HostOutput::PruneOutbox { partition, to, through } => {
                    self.prune_outbox(partition, to, through);
                }
                HostOutput::Forgotten { partition, applied, pruned } => tracing::error!(
                    %partition, %applied, %pruned,
                    "the partition has lost what it had synced, and what it needs again is \
                     forgotten here: remove the stores of all hosts to rebuild them from the log",
                ),
                HostOutput::Stop(error) => {
                    self.host.stop(Stop(error.to_string()));
                    return false;
                }
            }
        }
        true
    }

    /// # Panics
    /// If this host does not have the partition, which the protocol never names then.
    fn shard(&self, partition: PartitionId) -> &Arc<Shard> {
        &self.host.shards[&partition]
    }

    fn deliver(&self, partition: PartitionId, event: Event) {
        self.shard(partition).inbox.deliver(event);
    }

    /// Has a partition give again the pushes to one that is after an epoch, or its receipts.
    fn resume(
        &mut self,
        request: Request,
        partition: PartitionId,
        pushes: Option<(PartitionId, EpochNumber)>,
    ) {
        let shard = self.shard(partition);
        let finished = {
            let mut core = lock(&shard.core);
            match pushes {
                Some((to, after)) => core.on_resume(to, after),
                None => core.on_receipts_lost(),
            }
            core.finished()
        };
        // A worker brings out what is given again.
        shard.inbox.leave_work();
        self.protocol.on_resumed(request, finished);
    }

    fn read_outbox(
        &mut self,
        request: Request,
        partition: PartitionId,
        (to, after): (PartitionId, EpochNumber),
        limit: usize,
    ) {
        let (host, shard) = (self.host.clone(), self.shard(partition).clone());
        let answers = self.answers.clone();
        self.asking.spawn(async move {
            let peer = host.routes.holder(to).and_then(|node| host.outgoing.get(&node));
            if let Some(outgoing) = peer {
                outgoing.has_room().await;
            }
            let read = move || shard.store.outbox(to, after, limit);
            let what = format!("{partition} could not read its outbox");
            if let Some(pushes) = or_stop(&host, &what, blocking(read).await) {
                tracing::debug!(partition = %to, count = pushes.len(), "pushing again");
                answer(&answers, Answer::Outbox(request, pushes)).await;
            }
        });
    }

    fn read_receipts(
        &mut self,
        request: Request,
        partition: PartitionId,
        from: EpochNumber,
        limit: usize,
    ) {
        let (host, shard) = (self.host.clone(), self.shard(partition).clone());
        let answers = self.answers.clone();
        self.asking.spawn(async move {
            if let Some(outgoing) = host.outgoing.get(&host.sequencer) {
                outgoing.has_room().await;
            }
            let read = move || shard.store.receipts(from, limit);
            let what = format!("{partition} could not read its receipts");
            if let Some(epochs) = or_stop(&host, &what, blocking(read).await) {
                answer(&answers, Answer::Receipts(request, epochs)).await;
            }
        });
    }

    fn prune_outbox(&mut self, partition: PartitionId, to: PartitionId, through: EpochNumber) {
        let (host, shard) = (self.host.clone(), self.shard(partition).clone());
        self.asking.spawn(async move {
            let pruned = blocking(move || shard.store.prune_outbox(to, through)).await;
            or_stop(&host, &format!("{partition} could not prune its outbox"), pruned);
        });
    }
}

/// Hands an answer to the driver, if it is still there.
async fn answer(answers: &mpsc::Sender<Answer>, answer: Answer) {
    if answers.send(answer).await.is_err() {
        tracing::debug!("a store answered after the end");
    }
}

fn or_stop<T>(host: &Host, what: &str, result: Result<T, StoreError>) -> Option<T> {
    result.map_err(|error| host.stop(Stop(format!("{what}: {error}")))).ok()
}

/// Runs what may wait for a disk where that holds up nothing else.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The pool ends only with the runtime, and then nobody waits for the result.
        Err(_) => std::future::pending().await,
    }
}
