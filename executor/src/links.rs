//! What arrives from other hosts, and what they are told about this one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use parsec_executor_core::{Intake, ReadyEpoch};
use parsec_protocol::message::{PartitionStatus, PeerMessage};
use parsec_protocol::transport::{Channel, Inbox, LinkEvent, Links, Received};
use parsec_protocol::{EpochNumber, NodeId, PartitionId, Push, Receipt};
use parsec_storage::StoreError;

use crate::config::Stop;
use crate::host::{Host, intake};
use crate::outgoing::{frames, lock, receipt_size, send};
use crate::shard::{Event, Shard};

/// How long progress is collected before it is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(2);
/// How many stored receipts or pushes are read at a time to be sent again.
const RESEND_ITEMS: usize = 4_096;

/// Tells a host whose link came up how far this one is.
pub(crate) async fn watch_links(host: Arc<Host>, intake_: Arc<Mutex<Intake>>, mut links: Links) {
    while let Some(event) = links.recv().await {
        match event {
            LinkEvent::Up { node, .. } if node == host.sequencer => {
                intake(&intake_).on_link_up();
                let progress = PeerMessage::Progress(host.statuses());
                send(&host.network, node, Channel::Order, progress).await;
            }
            LinkEvent::Up { node, .. } => {
                let message = PeerMessage::Watermarks { resume: true, partitions: host.statuses() };
                send(&host.network, node, Channel::Exchange, message).await;
            }
            LinkEvent::Down { node, reason, .. } => {
                tracing::info!(%node, %reason, "the link is down");
            }
            LinkEvent::Failed { address, reason, .. } => {
                tracing::info!(%address, %reason, "the link can't come up");
            }
        }
    }
}

/// Takes slices and epochs from the sequencer, as fast as the partitions have room for them.
pub(crate) async fn take_order(host: Arc<Host>, intake_: Arc<Mutex<Intake>>, mut order: Inbox) {
    while let Some(Received { from, message, .. }) = order.recv().await {
        let ready = match message {
            _ if from != host.sequencer => {
                tracing::warn!(%from, "a host that does not order sent an order; ignored");
                continue;
            }
            PeerMessage::Slices(slices) => intake(&intake_).on_slices(slices).map(|()| None),
            PeerMessage::Epoch(record) => intake(&intake_).on_epoch(record),
            PeerMessage::ResendReceipts { from } => {
                tokio::spawn(resend_receipts(host.clone(), from));
                continue;
            }
            other => {
                tracing::warn!(%from, ?other, "not a message for an executor's order; ignored");
                continue;
            }
        };
        match ready {
            Ok(Some(epoch)) => feed(&host, epoch).await,
            Ok(None) => {}
            Err(error) => return host.stop(Stop(error.to_string())),
        }
    }
}

async fn feed(host: &Host, epoch: ReadyEpoch) {
    for shard in host.shards.values() {
        // Everything ordered earlier must get in before this, so waiting here holds nothing up
        // that others wait for.
        while shard.is_full() {
            tokio::select! {
                () = shard.has_room.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }
    let mut parts = epoch.partitions.into_iter().peekable();
    for (id, shard) in &host.shards {
        while parts.next_if(|(other, _)| other < id).is_some() {}
        let entries = parts.next_if(|(other, _)| other == id).map(|(_, entries)| entries);
        shard.deliver(Event::Epoch(epoch.context.clone(), entries.unwrap_or_default()));
    }
}

/// Takes pushes and watermarks from other executors.
pub(crate) async fn take_exchange(host: Arc<Host>, mut exchange: Inbox) {
    while let Some(Received { from, message, .. }) = exchange.recv().await {
        match message {
            PeerMessage::Pushes(mut pushes) => {
                // A peer only pushes to partitions of this host; anything else is not for it.
                pushes.retain(|push| host.shards.contains_key(&push.to));
                host.route(PartitionId(0), &mut pushes, &mut Vec::new());
            }
            PeerMessage::Watermarks { resume, partitions } => {
                tokio::spawn(serve_watermarks(host.clone(), from, resume, partitions));
            }
            other => {
                tracing::warn!(%from, ?other, "not a message for the exchange; ignored");
            }
        }
    }
}

/// Pushes again what a peer may have lost, and forgets what it has for good.
pub(crate) async fn serve_watermarks(
    host: Arc<Host>,
    from: NodeId,
    resume: bool,
    partitions: Vec<PartitionStatus>,
) {
    for shard in host.shards.values() {
        for theirs in &partitions {
            let result = match resume {
                true => resume_one(&host, shard, theirs).await,
                false => prune_one(shard, theirs).await,
            };
            if let Err(error) = result {
                let what = format!("{} could not serve {from} from its outbox", shard.id);
                return host.stop(Stop(format!("{what}: {error}")));
            }
        }
    }
}

async fn resume_one(
    host: &Host,
    shard: &Arc<Shard>,
    theirs: &PartitionStatus,
) -> Result<(), StoreError> {
    let finished = {
        let mut core = lock(&shard.core);
        core.on_resume(theirs.partition, theirs.applied);
        core.finished()
    };
    // A worker brings the pushes of unfinished epochs out.
    shard.leave_work();
    if !wait_for(shard, finished).await {
        return Ok(());
    }
    let mut after = theirs.applied;
    loop {
        let (shard, to) = (shard.clone(), theirs.partition);
        let read = move || shard.store.outbox(to, after, RESEND_ITEMS);
        let pushes = blocking(read).await?;
        let Some(last) = pushes.last().map(|push| push.position.epoch) else { return Ok(()) };
        tracing::debug!(partition = %to, count = pushes.len(), "pushing again");
        after = last;
        let mut pushes: Vec<Push> = pushes;
        host.route(PartitionId(0), &mut pushes, &mut Vec::new());
    }
}

async fn prune_one(shard: &Arc<Shard>, theirs: &PartitionStatus) -> Result<(), StoreError> {
    let (shard, to, durable) = (shard.clone(), theirs.partition, theirs.durable);
    blocking(move || shard.store.prune_outbox(to, durable)).await
}

/// Sends the receipts of epochs from `from` on again.
async fn resend_receipts(host: Arc<Host>, from: EpochNumber) {
    for shard in host.shards.values() {
        if let Err(error) = resend_receipts_of(&host, shard, from).await {
            let what = format!("{} could not read its receipts", shard.id);
            return host.stop(Stop(format!("{what}: {error}")));
        }
    }
}

async fn resend_receipts_of(
    host: &Host,
    shard: &Arc<Shard>,
    mut from: EpochNumber,
) -> Result<(), StoreError> {
    let finished = {
        let mut core = lock(&shard.core);
        core.on_receipts_lost();
        core.finished()
    };
    shard.leave_work();
    if !wait_for(shard, finished).await {
        return Ok(());
    }
    loop {
        let shard_ = shard.clone();
        let read = move || shard_.store.receipts(from, RESEND_ITEMS);
        let epochs = blocking(read).await?;
        let Some((last, _)) = epochs.last() else { return Ok(()) };
        from = last.next();
        let receipts: Vec<Receipt> = epochs.into_iter().flat_map(|(_, r)| r).collect();
        for receipts in frames(receipts, receipt_size) {
            let message = PeerMessage::Receipts { partition: shard.id, receipts };
            send(&host.network, host.sequencer, Channel::Order, message).await;
        }
    }
}

/// Waits until a partition has applied an epoch; whether it has.
pub(crate) async fn wait_for(shard: &Shard, epoch: EpochNumber) -> bool {
    let mut applied = shard.applied.subscribe();
    applied.wait_for(|applied| *applied >= epoch).await.is_ok()
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

/// Reports to the sequencer how far this host is.
pub(crate) async fn report_progress(host: Arc<Host>) {
    loop {
        host.progressed.notified().await;
        let progress = PeerMessage::Progress(host.statuses());
        send(&host.network, host.sequencer, Channel::Order, progress).await;
        tokio::time::sleep(PROGRESS_INTERVAL).await;
    }
}

/// Reports to the peers, and the sequencer, what a power cut can't take back any more.
pub(crate) async fn report_durable(host: Arc<Host>) {
    loop {
        host.synced.notified().await;
        for peer in host.peers.keys() {
            let message = PeerMessage::Watermarks { resume: false, partitions: host.statuses() };
            send(&host.network, *peer, Channel::Exchange, message).await;
        }
        // Partitions of this very host owe each other as well.
        let own = host.statuses();
        serve_watermarks(host.clone(), host.node, false, own).await;
        host.progressed.notify_one();
    }
}
