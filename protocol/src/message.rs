//! Messages between hosts, and between a client and a sequencer.

#![allow(missing_docs, reason = "rkyv derives fields without their documentation")]

mod size;

use std::sync::Arc;

use bytes::Bytes;
use rkyv::with::Map;
use rkyv::{Archive, Deserialize, Serialize};

use crate::codec::{Malformed, Wire};
use crate::epoch::{EpochNumber, EpochRecord, Position};
use crate::key::Key;
use crate::limits::{
    OUTCOME_EPOCHS_MAX, QUESTION_BYTES_MAX, READ_KEYS_MAX, SUBMISSION_TRANSACTIONS_MAX,
};
use crate::placement::{NodeId, PartitionId};
use crate::receipt::{ErrorCode, Receipt};
use crate::shared::Inlined;
use crate::short::ShortBytes;
use crate::slice::{HostSlices, Push};
use crate::transaction::{RuntimeId, Transaction, TxId};
use crate::value::Value;

/// Names a cluster, so that hosts of different ones refuse each other: the digest of its genesis
/// and its partition map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 32]);

/// The first message on a link between hosts, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PeerHello {
    /// The sender's [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION).
    pub version: u32,
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender. Must agree with its certificate.
    pub node: NodeId,
}

/// How far a partition is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: PartitionId,
    /// The last epoch in its store.
    pub applied: EpochNumber,
    /// The last epoch that a power cut can't take back.
    pub durable: EpochNumber,
}

/// A message between hosts.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Sequencer to executor: the slices of a batch.
    Slices(HostSlices),
    /// Sequencer to executor: an epoch, ordered and durable. Epochs come in order.
    Epoch(EpochRecord),
    /// Sequencer to executor, after a link came up: send receipts from this epoch on again.
    ResendReceipts {
        /// The first epoch wanted.
        from: EpochNumber,
    },
    /// Executor to sequencer: how far its partitions are. Also the first message after a link
    /// came up; the sequencer then sends every epoch after the least `applied` (again).
    Progress(Vec<PartitionStatus>),
    /// Executor to sequencer: receipts of transactions that ran on `partition`.
    Receipts {
        /// Their home.
        partition: PartitionId,
        /// The receipts, of any epochs.
        #[rkyv(with = Map<Inlined>)]
        receipts: Vec<Arc<Receipt>>,
    },
    /// Executor to executor.
    Pushes(Vec<Push>),
    /// Executor to executor, after a link came up and when it has grown: how far its partitions
    /// are. After a link came up, the receiver pushes again all that it owes them for epochs
    /// after `applied`; it may forget what it owes for epochs up to `durable`.
    Watermarks {
        /// Whether the receiver is to push again what it owes.
        resume: bool,
        /// How far each partition of the sender is.
        partitions: Vec<PartitionStatus>,
    },
    /// A question, to be answered with the same number.
    Query {
        /// The number, unique on this link and way.
        number: u64,
        /// The question.
        query: Query,
    },
    /// The answer to a question.
    Answer {
        /// The question's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
}

impl Wire for PeerMessage {
    fn check(&self) -> Result<(), Malformed> {
        match self {
            Self::Slices(slices) => slices.check(),
            Self::Epoch(record) => record.check(),
            Self::Query { query: Query::Read { keys, .. }, .. } => {
                keys.iter().try_for_each(Key::check)
            }
            Self::Receipts { receipts, .. } => receipts.iter().try_for_each(|one| one.check()),
            Self::Answer { answer: Answer::Receipt(Some(receipt)), .. } => receipt.check(),
            Self::Answer { answer: Answer::Outcomes(outcomes), .. } => {
                outcomes.receipts.iter().try_for_each(Receipt::check)
            }
            Self::Query {
                query: Query::Outcomes { epochs, .. } | Query::States { epochs },
                ..
            } if epochs.is_empty() || epochs.len() > OUTCOME_EPOCHS_MAX => {
                Err(Malformed::ReadLength { keys: epochs.len() })
            }
            _ => Ok(()),
        }
    }
}

/// What one host may ask another.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Query {
    /// The values of keys of `partition`, as they were after `epoch`. Waits until it is applied.
    Read {
        /// The partition that owns the keys.
        partition: PartitionId,
        /// The epoch.
        epoch: EpochNumber,
        /// The keys.
        keys: Vec<Key>,
    },
    /// A receipt of a transaction whose home is `partition`.
    Receipt {
        /// The home.
        partition: PartitionId,
        /// Where it stands in the order.
        position: Position,
    },
    /// The digests of all partitions of the host.
    Digests,
    /// What epochs did to `partition`. Waits until the last of them is applied.
    Outcomes {
        /// The partition.
        partition: PartitionId,
        /// The epochs, ascending.
        epochs: Vec<EpochNumber>,
        /// Receipts up to and with this position are left out: they are known.
        after: Option<Position>,
    },
    /// The digest of the state of all partitions of the host together, after each of these epochs.
    /// Waits until the last of them is applied.
    States {
        /// The epochs, ascending.
        epochs: Vec<EpochNumber>,
    },
}

/// What epochs did to a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Outcomes {
    /// The digest of the partition's state after each of the epochs, in the order asked for.
    pub states: Vec<[u8; 32]>,
    /// The receipts of the transactions that ran there in these epochs, by position; as many as
    /// fit into an answer.
    pub receipts: Vec<Receipt>,
    /// Whether these are the last ones. Else there is at least one, and more come after it.
    pub complete: bool,
}

/// What one host answers another.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// The values, in the order of the keys.
    Values(Vec<Option<Value>>),
    /// The receipt, if there is one at that position.
    Receipt(Option<Receipt>),
    /// The digests of all partitions of the host.
    Digests(Vec<PartitionDigest>),
    /// It could not be answered.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// What epochs did.
    Outcomes(Outcomes),
    /// The state after the epoch that was asked about is not kept any more.
    NotKept {
        /// The oldest epoch after which it is.
        oldest: EpochNumber,
    },
    /// The digest of the state after each of the epochs, in the order asked for.
    States(Vec<[u8; 32]>),
}

/// What a partition holds, as digests and counts.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PartitionDigest {
    /// The partition.
    pub partition: PartitionId,
    /// The epoch after which this holds.
    pub applied: EpochNumber,
    /// The digest of its state; the cluster's is the sum over partitions.
    pub state: [u8; 32],
    /// The digest of the receipts of transactions that ran there; the cluster's is the sum.
    pub receipts: [u8; 32],
    /// How many transactions ran there, strays included.
    pub executed: u64,
    /// How many of them had keys on other partitions.
    pub multi_partition: u64,
}

/// As of when a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ReadAt {
    /// After every transaction that was answered before the read was sent.
    Latest,
    /// After that epoch, if it is recent enough.
    Epoch(EpochNumber),
}

/// A message from a client. Requests are numbered by the client, each number once a connection.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ClientMessage {
    /// The first message.
    Hello {
        /// The client's [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION).
        version: u32,
    },
    /// Transactions to order and execute, answered by one `Verdicts` and then, for each accepted
    /// one, a receipt.
    Submit {
        /// The request's number.
        request: u64,
        /// The transactions, ordered in this order where nothing makes one stray.
        transactions: Vec<Transaction>,
    },
    /// A snapshot read over all partitions.
    Read {
        /// The request's number.
        request: u64,
        /// As of when.
        at: ReadAt,
        /// The keys.
        keys: Vec<Key>,
    },
    /// Asks how the cluster is.
    Status {
        /// The request's number.
        request: u64,
    },
    /// Ethereum blocks. If there is none of these yet, the answer waits a while for the first.
    Blocks {
        /// The request's number.
        request: u64,
        /// The number of the first one.
        from: u64,
        /// The byte of the first one's encoding to begin with: not 0 only after an answer that
        /// was [cut](ServerMessage::Blocks).
        offset: u64,
        /// How many at most; fewer are answered where they are large.
        limit: u32,
    },
    /// A question that a runtime answers from the state after an epoch, without any effect: what
    /// a call would return, for example.
    Query {
        /// The request's number.
        request: u64,
        /// The runtime.
        runtime: RuntimeId,
        /// The epoch.
        at: EpochNumber,
        /// The question, in the runtime's own encoding.
        question: Bytes,
    },
}

impl Wire for ClientMessage {
    fn check(&self) -> Result<(), Malformed> {
        match self {
            // The transactions themselves are checked one by one at admission.
            Self::Submit { transactions, .. }
                if transactions.len() > SUBMISSION_TRANSACTIONS_MAX =>
            {
                Err(Malformed::SubmissionLength { transactions: transactions.len() })
            }
            Self::Read { keys, .. } if keys.len() > READ_KEYS_MAX => {
                Err(Malformed::ReadLength { keys: keys.len() })
            }
            Self::Read { keys, .. } => keys.iter().try_for_each(Key::check),
            Self::Query { question, .. } if question.len() > QUESTION_BYTES_MAX => {
                Err(Malformed::PayloadLength { bytes: question.len() })
            }
            _ => Ok(()),
        }
    }
}

/// What admission said of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Verdict {
    /// It will be ordered, or was; its receipt follows.
    Accepted(TxId),
    /// It is refused and was not ordered.
    Rejected {
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
        /// When to try again, milliseconds from now, if that may help.
        retry_after_ms: Option<u32>,
    },
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The answer to the hello.
    Welcome(Welcome),
    /// What admission said of each transaction of a submission, in its order.
    Verdicts {
        /// The submission's number.
        request: u64,
        /// One for each transaction.
        verdicts: Vec<Verdict>,
    },
    /// Receipts, in any order.
    Receipts(Vec<ClientReceipt>),
    /// The answer to a read.
    Values {
        /// The read's number.
        request: u64,
        /// The epoch after which the values hold.
        epoch: EpochNumber,
        /// The values, in the order of the keys.
        values: Vec<Option<Value>>,
    },
    /// A read or a status failed.
    Failed {
        /// The request's number.
        request: u64,
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        detail: String,
    },
    /// How the cluster is.
    Status {
        /// The request's number.
        request: u64,
        /// How it is.
        status: ClusterStatus,
    },
    /// Ethereum blocks.
    Blocks {
        /// The request's number.
        request: u64,
        /// The blocks, in the encoding of the crate `parsec-ethereum`, without gaps.
        blocks: Vec<Bytes>,
        /// If the first one is too long for a message, or an offset was asked for: how long it
        /// is in all. There is then just a piece of it.
        cut: Option<u64>,
    },
    /// What a runtime answers.
    Answer {
        /// The request's number.
        request: u64,
        /// The answer, in the runtime's own encoding.
        answer: Bytes,
    },
    /// The last message: the server closes the connection.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
}

impl Wire for ServerMessage {
    fn check(&self) -> Result<(), Malformed> {
        match self {
            Self::Receipts(receipts) => receipts.iter().try_for_each(|item| item.receipt.check()),
            _ => Ok(()),
        }
    }
}

/// A receipt, with the submission it answers.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ClientReceipt {
    /// The submission's number.
    pub request: u64,
    /// The transaction's index in the submission.
    pub index: u32,
    /// The receipt.
    #[rkyv(with = Inlined)]
    pub receipt: Arc<Receipt>,
}

/// What a server tells a client at first.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Welcome {
    /// The server's [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION).
    pub version: u32,
    /// The cluster.
    pub cluster: ClusterId,
    /// The chain id that Ethereum transactions are signed for.
    pub chain_id: u64,
    /// Most transactions that this connection may have without a receipt.
    pub in_flight_max: u32,
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The last epoch that was ordered.
    pub ordered: EpochNumber,
    /// Transactions ordered so far.
    pub transactions: u64,
    /// Transactions admitted and not answered yet.
    pub in_flight: u64,
    /// Each partition; those that can't be reached are missing.
    pub partitions: Vec<PartitionDigest>,
    /// How many partitions the cluster has.
    pub partitions_total: u16,
}

impl Wire for PeerHello {
    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// The longest text that goes into a message for people, bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// Cuts a text for people to a length that fits any message.
#[must_use]
pub fn short(text: impl Into<String>) -> String {
    let mut text = text.into();
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// An output as a receipt keeps it: cut to the length that is allowed.
#[must_use]
pub fn short_output(output: &[u8]) -> ShortBytes {
    ShortBytes::copy_from_slice(&output[..output.len().min(crate::limits::OUTPUT_BYTES_MAX)])
}
