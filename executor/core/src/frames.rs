//! Frames: how pushes and receipts are put together into messages of a good size.
//!
//! A frame is closed when it reaches [`FRAME_BYTES_TARGET`]. A push that is longer than that alone
//! is taken apart: a transaction may read hundreds of values of half a mebibyte each from one
//! partition, and a frame that is longer than the transport takes could never be sent.

use std::sync::Arc;

use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_protocol::{Push, PushItems, PushKind, Receipt};

/// Splits pushes into frames.
#[must_use]
pub fn push_frames(pushes: Vec<Push>) -> Vec<Vec<Push>> {
    push_frames_of(pushes, FRAME_BYTES_TARGET)
}

/// Splits pushes into frames of about `target` bytes.
pub(crate) fn push_frames_of(pushes: Vec<Push>, target: usize) -> Vec<Vec<Push>> {
    let is_long = |push: &Push| push.size() > target;
    if !pushes.iter().any(is_long) {
        return frames(pushes, target, Push::size);
    }
    let mut parts = Vec::with_capacity(pushes.len());
    for push in pushes {
        match is_long(&push) {
            true => take_apart(push, &mut parts),
            false => parts.push(push),
        }
    }
    frames(parts, target, Push::size)
}

/// Splits receipts into frames.
#[must_use]
pub fn receipt_frames(receipts: Vec<Arc<Receipt>>) -> Vec<Vec<Arc<Receipt>>> {
    receipt_frames_of(receipts, FRAME_BYTES_TARGET)
}

/// Splits receipts into frames of about `target` bytes.
pub(crate) fn receipt_frames_of(
    receipts: Vec<Arc<Receipt>>,
    target: usize,
) -> Vec<Vec<Arc<Receipt>>> {
    frames(receipts, target, |receipt| receipt_size(receipt))
}

/// Makes a push of each item: the receiver tells items apart by transaction and index.
fn take_apart(push: Push, parts: &mut Vec<Push>) {
    let Push { position, from, to, kind } = push;
    let part = |kind| Push { position, from, to, kind: Arc::new(kind) };
    match Arc::unwrap_or_clone(kind) {
        PushKind::Reads(items) => {
            parts.extend(
                items.into_iter().map(|item| part(PushKind::Reads(PushItems::from_iter([item])))),
            );
        }
        PushKind::Writes(items) => {
            parts.extend(
                items.into_iter().map(|item| part(PushKind::Writes(PushItems::from_iter([item])))),
            );
        }
    }
}

fn receipt_size(receipt: &Receipt) -> usize {
    let events = receipt.events.iter().map(|e| 64 + e.topics.len() * 32 + e.data.len());
    128 + receipt.output.len() + events.sum::<usize>()
}

fn frames<T>(items: Vec<T>, target: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut frames = Vec::new();
    let mut rest = items.into_iter();
    loop {
        let count = fitting(rest.as_slice(), target, &size);
        if count == rest.len() {
            // Mostly the first frame: it has the memory of all.
            if count > 0 {
                frames.push(rest.collect());
            }
            return frames;
        }
        frames.push(rest.by_ref().take(count).collect());
    }
}

/// How many of the first items come to the target together.
fn fitting<T>(items: &[T], target: usize, size: impl Fn(&T) -> usize) -> usize {
    let mut bytes = 0;
    let fits = |item: &T| {
        let fits = bytes < target;
        bytes += size(item);
        fits
    };
    items.iter().map(fits).position(|fits| !fits).unwrap_or(items.len())
}

#[cfg(test)]
mod tests {
    use parsec_protocol::limits::{FOOTPRINT_KEYS_MAX, PEER_FRAME_BYTES_MAX, VALUE_BYTES_MAX};
    use parsec_protocol::message::PeerMessage;
    use parsec_protocol::{Change, EpochNumber, PartitionId, Position, Value, codec};

    use super::*;

    fn push(kind: PushKind) -> Push {
        let position = Position { epoch: EpochNumber(1), index: 0 };
        Push { position, from: PartitionId(0), to: PartitionId(1), kind: Arc::new(kind) }
    }

    #[test]
    fn frames_hold_everything_in_order_and_end_at_the_target() {
        let items: Vec<usize> = (0..100).collect();
        let frames = frames(items.clone(), FRAME_BYTES_TARGET, |_| FRAME_BYTES_TARGET / 10);
        assert!(frames.iter().all(|frame| frame.len() <= 11));
        assert_eq!(frames.concat(), items);
    }

    #[test]
    fn nothing_needs_no_frame() {
        assert!(push_frames(Vec::new()).is_empty());
    }

    #[test]
    fn a_push_of_many_large_values_fits_into_frames() {
        let value = Value::from(vec![7; VALUE_BYTES_MAX]);
        let indexes = 0..u16::try_from(FOOTPRINT_KEYS_MAX).unwrap();
        let items: PushItems<_> = indexes.map(|index| (index, Some(value.clone()))).collect();
        let frames = push_frames(vec![push(PushKind::Reads(items.clone()))]);
        let sizes = frames.iter().map(|frame| frame.iter().map(Push::size).sum::<usize>());
        assert!(sizes.max().unwrap() < PEER_FRAME_BYTES_MAX);
        let encoded = codec::encode(&PeerMessage::Pushes(frames[0].clone()));
        assert!(encoded.len() < PEER_FRAME_BYTES_MAX);
        let parts = frames.into_iter().flatten().flat_map(|push| match &*push.kind {
            PushKind::Reads(items) => items.clone(),
            PushKind::Writes(_) => PushItems::new(),
        });
        assert!(parts.eq(items));
    }

    #[test]
    fn writes_are_taken_apart_as_well() {
        let change = || Change::Put(Value::from(vec![7; FRAME_BYTES_TARGET / 2]));
        let items = (0..4).map(|index| (index, change())).collect();
        let parts = push_frames(vec![push(PushKind::Writes(items))]).concat();
        assert_eq!(parts.len(), 4);
        assert!(parts.iter().all(|part| part.size() <= FRAME_BYTES_TARGET));
    }
}
