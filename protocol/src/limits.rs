//! Every limit of the protocol, and how they hold together.
//!
//! What exceeds a limit is refused with [`ErrorCode::TooLarge`](crate::ErrorCode::TooLarge) or
//! closes the connection with a clear reason; nothing is truncated.

/// Version of the wire protocol. Hosts and clients that differ in it refuse each other.
pub const PROTOCOL_VERSION: u32 = 6;

/// Longest encoded key, bytes, with its three bytes of header.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Longest value of a key, bytes.
pub const VALUE_BYTES_MAX: usize = 512 * 1_024;
/// Most keys in one footprint.
pub const FOOTPRINT_KEYS_MAX: usize = 4_096;
/// Longest payload of one transaction, bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1_024 * 1_024;
/// Longest authenticated sender of a transaction, bytes.
pub const SENDER_BYTES_MAX: usize = 64;
/// Longest output (return data, or the text of an error) that a receipt keeps, bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1_024;
/// Most events in one receipt.
pub const EVENTS_MAX: usize = 16_384;

/// Most transactions in one submission of a client.
pub const SUBMISSION_TRANSACTIONS_MAX: usize = 4_096;
/// Most transactions in one batch.
pub const BATCH_TRANSACTIONS_MAX: usize = 4_096;
/// A batch is closed when its payloads and footprints reach this many bytes.
pub const BATCH_BYTES_TARGET: usize = 4 * 1_024 * 1_024;
/// Most batches in one epoch.
pub const EPOCH_BATCHES_MAX: usize = 256;

/// Longest frame that a client may send or receive, bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Longest frame between hosts, bytes.
pub const PEER_FRAME_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Longest first frame (the hello) of any connection, bytes.
pub const HELLO_FRAME_BYTES_MAX: usize = 4_096;
/// A frame of pushes or receipts is closed when it reaches this many bytes.
pub const FRAME_BYTES_TARGET: usize = 1_024 * 1_024;
/// Most keys in one snapshot read of a client.
pub const READ_KEYS_MAX: usize = 4_096;

/// Most epochs whose outcomes one host may ask another for at a time.
pub const OUTCOME_EPOCHS_MAX: usize = 1_024;

/// Longest question of a client to a runtime, bytes.
pub const QUESTION_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Longest answer to such a question, bytes.
pub const ANSWER_BYTES_MAX: usize = 15 * 1_024 * 1_024;
/// Most blocks that are answered to a client at a time.
pub const BLOCKS_MAX: usize = 1_024;

/// Number of slots that keys hash to; slots map to partitions.
pub const SLOTS: u16 = 4_096;
/// Most partitions in a cluster.
pub const PARTITIONS_MAX: u16 = 4_096;
/// Times a transaction that strays is ordered again, the last time alone.
pub const STRAY_ATTEMPTS_MAX: u8 = 8;

const _: () = assert!(KEY_BYTES_MAX < VALUE_BYTES_MAX);
const _: () =
    assert!(PAYLOAD_BYTES_MAX + FOOTPRINT_KEYS_MAX * KEY_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_TARGET + CLIENT_FRAME_BYTES_MAX < PEER_FRAME_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(QUESTION_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_TARGET + VALUE_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(FOOTPRINT_KEYS_MAX <= u16::MAX as usize);
// The index of a transaction in its epoch.
const _: () = assert!(EPOCH_BATCHES_MAX * BATCH_TRANSACTIONS_MAX <= u32::MAX as usize);
const _: () = assert!(PARTITIONS_MAX <= SLOTS);
const _: () = assert!(SUBMISSION_TRANSACTIONS_MAX <= BATCH_TRANSACTIONS_MAX);
