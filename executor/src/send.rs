//! Sending: one task for each other host, so that one that is slow holds up nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use parsec_executor_core::frames::{push_frames, receipt_frames};
use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::{Channel, PeerNetwork, SendError};
use parsec_protocol::{NodeId, PartitionId, Push, Receipt};

use crate::outgoing::Outgoing;

/// What is sent to another host.
pub(crate) enum Parcel {
    /// What a worker made; sent on whichever session is up.
    Push(Push),
    /// What a worker made; sent on whichever session is up.
    Receipt(PartitionId, Arc<Receipt>),
    /// What the host decided.
    Message(Addressed),
}

/// A message for one session.
pub(crate) struct Addressed {
    pub(crate) session: u64,
    pub(crate) channel: Channel,
    pub(crate) message: PeerMessage,
}

/// Adds a message to what waits for a host. How far this host is takes the place of how far it
/// was, so that a host that does not read makes no heap of it.
pub(crate) fn queue(waiting: &mut Vec<Parcel>, new: Addressed) {
    let known = match replaces(&new.message) {
        Some(kind) => waiting.iter_mut().find_map(|parcel| match parcel {
            Parcel::Message(old) if old.session == new.session && kind(&old.message) => Some(old),
            _ => None,
        }),
        None => None,
    };
    match known {
        Some(old) => old.message = new.message,
        None => waiting.push(Parcel::Message(new)),
    }
}

/// Whether a message takes the place of older ones, and of which. A wish to resume is never
/// replaced by a mere watermark.
fn replaces(new: &PeerMessage) -> Option<fn(&PeerMessage) -> bool> {
    match new {
        PeerMessage::Progress(_) => Some(|old| matches!(old, PeerMessage::Progress(_))),
        PeerMessage::Watermarks { resume: false, .. } => {
            Some(|old| matches!(old, PeerMessage::Watermarks { resume: false, .. }))
        }
        _ => None,
    }
}

/// Sends what is for `peer` until closed.
pub(crate) async fn send_all(outgoing: &Outgoing<Parcel>, network: &PeerNetwork, peer: NodeId) {
    let mut parcels = Vec::new();
    loop {
        outgoing.take(&mut parcels).await;
        if parcels.is_empty() {
            return;
        }
        let (mut pushes, mut messages) = (Vec::new(), Vec::new());
        let mut receipts: BTreeMap<PartitionId, Vec<Arc<Receipt>>> = BTreeMap::new();
        let mut left = parcels.len();
        for parcel in parcels.drain(..) {
            // Mostly those that are left are of the same kind.
            match parcel {
                Parcel::Push(push) => {
                    pushes.reserve(left);
                    pushes.push(push);
                }
                Parcel::Receipt(from, receipt) => {
                    let of_one = receipts.entry(from).or_insert_with(|| Vec::with_capacity(left));
                    of_one.push(receipt);
                }
                Parcel::Message(message) => messages.push(message),
            }
            left -= 1;
        }
        for frame in push_frames(pushes) {
            send(network, peer, Channel::Exchange, PeerMessage::Pushes(frame)).await;
        }
        for (partition, mut receipts) in receipts {
            receipts.sort_by_key(|receipt| receipt.position);
            for receipts in receipt_frames(receipts) {
                let message = PeerMessage::Receipts { partition, receipts };
                send(network, peer, Channel::Order, message).await;
            }
        }
        // After the receipts: who hears that an epoch is applied then has what became of it.
        for Addressed { session, channel, message } in messages {
            count_pushes(&message);
            noted(peer, network.send_on(peer, session, channel, &message).await);
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
    count_pushes(&message);
    noted(peer, network.send(peer, channel, &message).await);
}

fn noted(peer: NodeId, sent: Result<(), SendError>) {
    match sent {
        Ok(()) => {}
        Err(error @ (SendError::Down(_) | SendError::Link(_))) => {
            tracing::debug!(%peer, %error, "not sent: it will be asked for when the link is up");
        }
        // It would never be sent, however often it is asked for.
        Err(error) => tracing::error!(%peer, %error, "a message can't be sent"),
    }
}

fn count_pushes(message: &PeerMessage) {
    if let PeerMessage::Pushes(pushes) = message {
        metrics::counter!("parsec_executor_pushes_sent_total").increment(pushes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::EpochNumber;
    use parsec_protocol::message::PartitionStatus;

    use super::*;

    fn statuses(applied: u64) -> Vec<PartitionStatus> {
        let applied = EpochNumber(applied);
        vec![PartitionStatus { partition: PartitionId(0), applied, durable: EpochNumber(0) }]
    }

    fn add(waiting: &mut Vec<Parcel>, session: u64, message: PeerMessage) {
        queue(waiting, Addressed { session, channel: Channel::Exchange, message });
    }

    #[test]
    fn how_far_a_host_is_waits_once_for_each_session_and_kind() {
        let mut waiting = Vec::new();
        let watermarks = |resume, at| PeerMessage::Watermarks { resume, partitions: statuses(at) };
        add(&mut waiting, 1, watermarks(true, 1));
        for at in 2..100 {
            add(&mut waiting, 1, watermarks(false, at));
            add(&mut waiting, 1, PeerMessage::Progress(statuses(at)));
        }
        add(&mut waiting, 2, watermarks(true, 100));
        let messages: Vec<_> = waiting
            .into_iter()
            .filter_map(|parcel| match parcel {
                Parcel::Message(Addressed { session, message, .. }) => Some((session, message)),
                _ => None,
            })
            .collect();
        assert_eq!(
            messages,
            [
                (1, watermarks(true, 1)),
                (1, watermarks(false, 99)),
                (1, PeerMessage::Progress(statuses(99))),
                (2, watermarks(true, 100)),
            ]
        );
    }
}
