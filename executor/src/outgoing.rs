//! What waits to be sent to one host: collected while the one before is on its way, so that under
//! load many pushes travel in one frame, and alone one travels at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::{Channel, PeerNetwork};
use parsec_protocol::{NodeId, PartitionId, Push, Receipt, limits::FRAME_BYTES_TARGET};
use tokio::sync::Notify;

/// Items that wait to be sent to one host.
pub(crate) struct Outgoing<T> {
    items: Mutex<Vec<T>>,
    filled: Notify,
    closed: AtomicBool,
}

impl<T> Outgoing<T> {
    pub(crate) fn new() -> Self {
        Self {
            items: Mutex::new(Vec::new()),
            filled: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Bounded by the sequencer's window: only ordered transactions make items.
    pub(crate) fn extend(&self, items: impl IntoIterator<Item = T>) {
        let mut waiting = lock(&self.items);
        let was_empty = waiting.is_empty();
        waiting.extend(items);
        if was_empty && !waiting.is_empty() {
            self.filled.notify_one();
        }
    }

    /// All that waits, as soon as there is any; nothing once closed.
    async fn take(&self) -> Vec<T> {
        loop {
            let items = std::mem::take(&mut *lock(&self.items));
            if !items.is_empty() || self.closed.load(Ordering::Acquire) {
                return items;
            }
            self.filled.notified().await;
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.filled.notify_one();
    }
}

/// A lock that a panicking thread has held is taken all the same: the executor stops on any
/// panic, and answers nobody from then on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sends pushes to `peer` until closed.
pub(crate) async fn send_pushes(outgoing: &Outgoing<Push>, network: &PeerNetwork, peer: NodeId) {
    loop {
        let pushes = outgoing.take().await;
        if pushes.is_empty() {
            return;
        }
        metrics::counter!("parsec_executor_pushes_sent_total").increment(pushes.len() as u64);
        for frame in frames(pushes, Push::size) {
            send(network, peer, Channel::Exchange, PeerMessage::Pushes(frame)).await;
        }
    }
}

/// Sends receipts to the sequencer until closed.
pub(crate) async fn send_receipts(
    outgoing: &Outgoing<(PartitionId, Arc<Receipt>)>,
    network: &PeerNetwork,
    sequencer: NodeId,
) {
    loop {
        let mut waiting = outgoing.take().await;
        if waiting.is_empty() {
            return;
        }
        waiting.sort_by_key(|(partition, receipt)| (*partition, receipt.position));
        let mut waiting = waiting.into_iter().peekable();
        while let Some((partition, first)) = waiting.next() {
            let mut receipts = vec![Arc::unwrap_or_clone(first)];
            while let Some((_, receipt)) = waiting.next_if(|(other, _)| *other == partition) {
                receipts.push(Arc::unwrap_or_clone(receipt));
            }
            for receipts in frames(receipts, receipt_size) {
                let message = PeerMessage::Receipts { partition, receipts };
                send(network, sequencer, Channel::Order, message).await;
            }
        }
    }
}

/// Sends a message; if the link is down the message is lost, and asked for when it is up again.
pub(crate) async fn send(
    network: &PeerNetwork,
    peer: NodeId,
    channel: Channel,
    message: PeerMessage,
) {
    if let Err(error) = network.send(peer, channel, &message).await {
        tracing::debug!(%peer, %error, "not sent: it will be asked for when the link is up");
    }
}

/// Roughly how many bytes a receipt takes, for closing frames.
pub(crate) fn receipt_size(receipt: &Receipt) -> usize {
    let events = receipt.events.iter().map(|e| 64 + e.topics.len() * 32 + e.data.len());
    128 + receipt.output.len() + events.sum::<usize>()
}

/// Splits items into frames of about [`FRAME_BYTES_TARGET`].
pub(crate) fn frames<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut frames = vec![Vec::new()];
    let mut bytes = 0;
    for item in items {
        if bytes >= FRAME_BYTES_TARGET {
            frames.push(Vec::new());
            bytes = 0;
        }
        bytes += size(&item);
        frames.last_mut().expect("it began with one").push(item);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_hold_everything_in_order_and_end_at_the_target() {
        let items: Vec<usize> = (0..100).collect();
        let frames = frames(items.clone(), |_| FRAME_BYTES_TARGET / 10);
        assert!(frames.iter().all(|frame| frame.len() <= 11));
        assert_eq!(frames.concat(), items);
    }
}
