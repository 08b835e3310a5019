//! What a host decides, and why it stops or ignores something.

use std::sync::Arc;

use parsec_protocol::message::PeerMessage;
use parsec_protocol::transport::Channel;
use parsec_protocol::{EpochNumber, NodeId, PartitionId, Push, Role};

use super::Request;
use crate::intake::{EpochContext, IntakeError};
use crate::routes::Unheld;

/// An effect that the shell has to bring about, in the order in which they come out.
#[derive(Debug)]
pub enum HostOutput {
    /// Send a message. If that session is over, the message is lost.
    Send {
        /// To whom.
        to: NodeId,
        /// On which session.
        session: u64,
        /// On which channel.
        channel: Channel,
        /// What.
        message: PeerMessage,
    },
    /// Hand an epoch to a partition: [`Partition::on_epoch`](crate::Partition::on_epoch).
    Epoch {
        /// The partition.
        partition: PartitionId,
        /// The epoch.
        context: Arc<EpochContext>,
        /// The transactions that concern the partition.
        entries: Vec<(u32, Role)>,
    },
    /// Hand pushes to a partition: [`Partition::on_push`](crate::Partition::on_push).
    Pushes {
        /// The partition.
        partition: PartitionId,
        /// The pushes.
        pushes: Vec<Push>,
    },
    /// Call [`Partition::on_resume`](crate::Partition::on_resume), then hand
    /// [`Partition::finished`](crate::Partition::finished) to [`Host::on_resumed`](crate::Host::on_resumed). Between the
    /// two the partition must not go on.
    Resume {
        /// By which to answer.
        request: Request,
        /// The partition here.
        partition: PartitionId,
        /// The partition that may have lost pushes.
        to: PartitionId,
        /// The last epoch that it has applied.
        after: EpochNumber,
    },
    /// Call [`Partition::on_receipts_lost`](crate::Partition::on_receipts_lost), then hand
    /// [`Partition::finished`](crate::Partition::finished) to [`Host::on_resumed`](crate::Host::on_resumed). Between the
    /// two the partition must not go on.
    ResumeReceipts {
        /// By which to answer.
        request: Request,
        /// The partition here.
        partition: PartitionId,
    },
    /// Read what a partition here owes from its store, whole epochs until there are `limit`
    /// pushes, and hand it to [`Host::on_outbox`](crate::Host::on_outbox). May wait until there is room to send it.
    ReadOutbox {
        /// By which to answer.
        request: Request,
        /// The partition here.
        partition: PartitionId,
        /// The partition that is owed.
        to: PartitionId,
        /// The epoch after which to begin.
        after: EpochNumber,
        /// How many pushes to read at least, if there are.
        limit: usize,
    },
    /// Read receipts from the store of a partition here, whole epochs until there are `limit`,
    /// and hand them to [`Host::on_stored_receipts`](crate::Host::on_stored_receipts). May wait until there is room to send them.
    ReadReceipts {
        /// By which to answer.
        request: Request,
        /// The partition here.
        partition: PartitionId,
        /// The epoch to begin with.
        from: EpochNumber,
        /// How many receipts to read at least, if there are.
        limit: usize,
    },
    /// Forget what a partition here owes for epochs up to `through`.
    PruneOutbox {
        /// The partition here.
        partition: PartitionId,
        /// The partition that has durably applied those epochs.
        to: PartitionId,
        /// The last of them.
        through: EpochNumber,
    },
    /// Tell the operator: a partition has lost what it had said to be durable, and what it needs
    /// again is forgotten here. It can only be rebuilt together with all others.
    Forgotten {
        /// The partition that has lost its store.
        partition: PartitionId,
        /// The last epoch that it has applied now.
        applied: EpochNumber,
        /// The last epoch of which everything owed to it is forgotten.
        pruned: EpochNumber,
    },
    /// Stop the host before it answers anyone. Nothing comes out after this.
    Stop(HostError),
}

/// Why a host must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// What the sequencer sent can't be right.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A push has nowhere to go.
    #[error(transparent)]
    Unheld(#[from] Unheld),
}

/// Why a message was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It came on a session that is not up: it will be sent again.
    #[error("it came on a session that is over")]
    Stale,
    /// The sender does not order.
    #[error("only the sequencer may send it")]
    NotSequencer,
    /// The sender has no partitions.
    #[error("only a host with partitions may send it")]
    NotExecutor,
    /// No executor has a use for such a message.
    #[error("it is not for the executor's order or exchange")]
    Unexpected,
}
