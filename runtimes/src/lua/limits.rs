//! The limits of Lua contracts, and what their host functions cost.

use parsec_protocol::limits::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX};

/// Most units of work that a call may ask for.
pub const WORK_MAX: u64 = 4_000_000;
/// Units of work that are enough for ordinary calls.
pub const WORK_DEFAULT: u64 = 200_000;
/// Longest source of a contract, bytes.
pub const SOURCE_BYTES_MAX: usize = 64 * 1_024;
/// Longest name of a function, bytes.
pub const FUNCTION_BYTES_MAX: usize = 128;
/// Most arguments of a call, and most values that it returns.
pub const VALUES_MAX: usize = 64;
/// Longest key that a contract may use, bytes: its id and the header come before it.
pub const CONTRACT_KEY_BYTES_MAX: usize = KEY_BYTES_MAX - 3 - 32;
/// Most events of one call.
pub const EVENTS_MAX: usize = 1_024;
/// Most bytes in all events of one call.
pub const EVENT_BYTES_MAX: usize = 256 * 1_024;
/// Longest text of an error that a receipt keeps, bytes.
pub const ERROR_BYTES_MAX: usize = 1_024;

/// How many Lua instructions pass between two looks at the work done. Work is counted in these
/// steps, and one is charged at the start for the part of a step at the end.
pub const TICK_INSTRUCTIONS: u32 = 1_000;
/// What one byte of source costs a call, whether it is compiled anew or not.
pub const SOURCE_BYTE_WORK: u64 = 1;
/// What a request to the state costs, beside its bytes.
pub const REQUEST_WORK: u64 = 100;
/// How many bytes of values, keys or messages cost one unit.
pub const BYTES_PER_WORK: u64 = 8;
/// What the verification of a signature costs: some 32 µs.
pub const SIGNATURE_WORK: u64 = 5_000;

/// Each of these steps in the length of the longest string that a call has seen, bytes, adds the
/// price of one instruction to each. Whoever makes a longer one pays for a step of instructions at
/// once.
pub const STRING_STEP_BYTES: usize = 256;

/// Bytes that one call may allocate in all: nothing is reclaimed while it runs.
pub const CALL_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Bytes that a call may allocate in a pooled machine. One that needs more begins again in a
/// fresh one.
pub const POOLED_CALL_BYTES_MAX: usize = 1_024 * 1_024;
/// Bytes that a pooled machine may hold before a call; above it, garbage is collected.
pub const POOLED_BASE_BYTES_MAX: usize = 2 * 1_024 * 1_024;
/// From here on, memory makes instructions dearer: what one of them may do to a large table takes
/// as long as the table is large.
pub const DEAR_BYTES: usize = 4 * 1_024 * 1_024;
/// Each of these steps beyond [`DEAR_BYTES`] adds the price of one instruction to each.
pub const DEAR_STEP_BYTES: usize = 64 * 1_024;
/// Most contracts that a machine keeps compiled.
pub const COMPILED_MAX: usize = 256;

// What a call takes in a fresh machine is at most what it takes in a pooled one and what that
// held before (a string that was there already is not allocated again). So a call that stays
// within the pooled limit would neither exceed the limit in a fresh machine, nor pay more there.
const _: () = assert!(POOLED_CALL_BYTES_MAX + POOLED_BASE_BYTES_MAX <= DEAR_BYTES);
const _: () = assert!(DEAR_BYTES < CALL_BYTES_MAX);
const _: () = assert!(SOURCE_BYTES_MAX + 1_024 < PAYLOAD_BYTES_MAX);
// A contract can handle the longest value there is.
const _: () = assert!(
    (1 + VALUE_BYTES_MAX / STRING_STEP_BYTES) as u64 * (TICK_INSTRUCTIONS as u64) < WORK_MAX
);
const _: () = assert!(SOURCE_BYTES_MAX as u64 * SOURCE_BYTE_WORK < WORK_DEFAULT);
