//! What the fuzzers of `tests/fuzz` do with their inputs.
//!
//! A [`Target`] is a function of any bytes that panics if one of its claims does not hold. The
//! fuzzers call it with what they invent, and the test of this crate with the files in
//! `tests/fuzz/seeds`, so that every input that ever failed is tried again with any compiler.
//!
//! Whatever goes wrong panics, since nothing else finds a fuzzer's attention.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a claim that does not hold is to panic"
)]

pub mod evm_payload;
pub mod evm_predictor;
pub mod frames;
pub mod log_segment;
pub mod lua_payload;
pub mod messages;
pub mod native_payload;
pub mod node_files;
pub mod ordered;
pub mod schedule;
pub mod store_records;

mod encoded;
mod samples;
mod spec;

/// What a target made of an input. What seeds are to be is tested: a change of an encoding would
/// otherwise leave the fuzzers with seeds that say nothing to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was refused, as it should be.
    Refused,
    /// It was decoded, and the claims about what came of it hold.
    Accepted,
}

/// An input to begin with.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The name of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
    /// What is to become of it.
    pub verdict: Verdict,
}

impl Seed {
    fn new(name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name, bytes: bytes.into(), verdict: Verdict::Accepted }
    }

    fn refused(name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { verdict: Verdict::Refused, ..Self::new(name, bytes) }
    }
}

/// One fuzzer.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which is that of its binary and of its directory of seeds.
    pub name: &'static str,
    /// Tries an input.
    pub run: fn(&[u8]) -> Verdict,
    /// Inputs to begin with: valid ones of each kind, and what has to be refused.
    pub seeds: fn() -> Vec<Seed>,
}

/// All fuzzers.
pub const TARGETS: &[Target] = &[
    evm_payload::TARGET,
    evm_predictor::TARGET,
    frames::TARGET,
    log_segment::TARGET,
    lua_payload::TARGET,
    messages::TARGET,
    native_payload::TARGET,
    node_files::TARGET,
    ordered::TARGET,
    schedule::TARGET,
    store_records::TARGET,
];
