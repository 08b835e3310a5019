//! How much room messages take that were not encoded.

use super::{Answer, Outcomes, PeerMessage, Query};
use crate::receipt::Receipt;
use crate::slice::{Push, Slice};
use crate::transaction::BatchRef;

impl PeerMessage {
    /// Roughly how many bytes it takes, for limits on what waits to be received without having
    /// been encoded.
    #[must_use]
    pub fn size(&self) -> usize {
        let content = match self {
            Self::Slices(slices) => slices.slices.iter().map(Slice::size).sum(),
            Self::Epoch(record) => record.batches.len() * size_of::<BatchRef>(),
            Self::Receipts { receipts, .. } => receipts.iter().map(|one| one.size()).sum(),
            Self::Pushes(pushes) => pushes.iter().map(Push::size).sum(),
            Self::Progress(partitions) | Self::Watermarks { partitions, .. } => {
                size_of_val(partitions.as_slice())
            }
            Self::Query { query, .. } => query.size(),
            Self::Answer { answer, .. } => answer.size(),
            Self::ResendReceipts { .. } => 0,
        };
        size_of::<Self>() + content
    }
}

impl Query {
    fn size(&self) -> usize {
        match self {
            Self::Read { keys, .. } => keys.iter().map(|key| 8 + key.encoded().len()).sum(),
            Self::Outcomes { epochs, .. } | Self::States { epochs } => {
                size_of_val(epochs.as_slice())
            }
            Self::Receipt { .. } | Self::Digests => 0,
        }
    }
}

impl Answer {
    fn size(&self) -> usize {
        match self {
            Self::Values(values) => {
                values.iter().map(|value| 8 + value.as_ref().map_or(0, |value| value.len())).sum()
            }
            Self::Receipt(receipt) => receipt.as_ref().map_or(0, Receipt::size),
            Self::Digests(digests) => size_of_val(digests.as_slice()),
            Self::Failed { reason } => reason.len(),
            Self::Outcomes(Outcomes { states, receipts, .. }) => {
                size_of_val(states.as_slice()) + receipts.iter().map(Receipt::size).sum::<usize>()
            }
            Self::NotKept { .. } => 0,
            Self::States(states) => size_of_val(states.as_slice()),
        }
    }
}
