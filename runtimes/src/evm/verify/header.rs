//! What a header must say, before anything is executed.

use std::fmt::Debug;

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, Header};
use alloy_primitives::{B64, U256};
use revm::primitives::hardfork::SpecId;

use super::error::{Reason, holds, same_header};
use super::spec::ChainSpec;
use crate::evm::fees::{DynamicFee, Parent, next_base_fee, next_excess_blob_gas};
use crate::evm::forks::Fork;

/// Longest extra data, bytes.
const EXTRA_BYTES_MAX: usize = 32;
/// Least gas limit of a block.
const GAS_LIMIT_MIN: u64 = 5_000;
/// Most gas that a block may have for all nodes to agree on it.
const GAS_LIMIT_MAX: u64 = (1 << 63) - 1;
/// A gas limit is less than its parent's one in this many away from it.
const GAS_LIMIT_DENOMINATOR: u64 = 1_024;
/// Least difficulty of a block before the Merge.
const DIFFICULTY_MIN: u64 = 131_072;
/// The difficulty changes by a multiple of one in this many.
const DIFFICULTY_DENOMINATOR: u64 = 2_048;
/// The difficulty doubles its growth every so many blocks, unless that is held back.
const BOMB_BLOCKS: u64 = 100_000;

/// Makes sure that a header may follow another one.
pub(super) fn check(
    header: &Header,
    parent: &Header,
    parent_has_ommers: bool,
    spec: &ChainSpec,
) -> Result<(), Reason> {
    let fork = spec.fork_at(header.number, header.timestamp);
    let before = spec.fork_at(parent.number, parent.timestamp);
    let later = header.timestamp > parent.timestamp;
    holds("timestamp", later, format!("later than {}", parent.timestamp), header.timestamp)?;
    let extra = header.extra_data.len();
    holds("extra data", extra <= EXTRA_BYTES_MAX, "at most 32 bytes long", extra)?;
    check_gas(header, parent, &fork, &before)?;
    check_fields(header, &fork)?;
    check_fees(header, parent, &fork)?;
    match fork.spec.is_enabled_in(SpecId::MERGE) {
        true => check_merged(header),
        false => {
            let expected = difficulty(header, parent, parent_has_ommers, &fork, spec);
            same_header("difficulty", expected, header.difficulty)
        }
    }
}

fn check_gas(header: &Header, parent: &Header, fork: &Fork, before: &Fork) -> Result<(), Reason> {
    let begins = |first| fork.spec.is_enabled_in(first) && !before.spec.is_enabled_in(first);
    // With London a block's target becomes what its limit was.
    let factor = if begins(SpecId::LONDON) { DynamicFee::MAINNET.elasticity } else { 1 };
    let from = parent.gas_limit.saturating_mul(factor);
    let limit = header.gas_limit;
    let near = limit.abs_diff(from) < from / GAS_LIMIT_DENOMINATOR;
    holds("gas limit", near, format!("nearer to {from}"), limit)?;
    let range = (GAS_LIMIT_MIN..=GAS_LIMIT_MAX).contains(&limit);
    holds("gas limit", range, format!("{GAS_LIMIT_MIN} to {GAS_LIMIT_MAX}"), limit)?;
    let used = header.gas_used;
    holds("gas used", used <= limit, format!("at most {limit}"), used)
}

/// Makes sure that the header has the fields of its fork, and no others.
fn check_fields(header: &Header, fork: &Fork) -> Result<(), Reason> {
    let has = [
        ("base fee", header.base_fee_per_gas.is_some(), SpecId::LONDON),
        ("withdrawals root", header.withdrawals_root.is_some(), SpecId::SHANGHAI),
        ("blob gas used", header.blob_gas_used.is_some(), SpecId::CANCUN),
        ("excess blob gas", header.excess_blob_gas.is_some(), SpecId::CANCUN),
        ("parent beacon block root", header.parent_beacon_block_root.is_some(), SpecId::CANCUN),
        ("requests hash", header.requests_hash.is_some(), SpecId::PRAGUE),
        ("block access list hash", header.block_access_list_hash.is_some(), SpecId::AMSTERDAM),
        ("slot number", header.slot_number.is_some(), SpecId::AMSTERDAM),
    ];
    for (field, found, first) in has {
        let expected = fork.spec.is_enabled_in(first);
        let words = |is: bool| if is { "there" } else { "not there" };
        holds(field, found == expected, words(expected), words(found))?;
    }
    Ok(())
}

fn check_fees(header: &Header, parent: &Header, fork: &Fork) -> Result<(), Reason> {
    let before = Parent::from(parent);
    if let Some(found) = header.base_fee_per_gas {
        same_header("base fee", next_base_fee(&before, &DynamicFee::MAINNET), found)?;
    }
    if let (Some(blobs), Some(found)) = (&fork.blobs, header.excess_blob_gas) {
        same_header("excess blob gas", next_excess_blob_gas(&before, blobs), found)?;
    }
    Ok(())
}

fn check_merged(header: &Header) -> Result<(), Reason> {
    same_header("difficulty", U256::ZERO, header.difficulty)?;
    same_header("nonce", B64::ZERO, header.nonce)?;
    same_header("ommers hash", EMPTY_OMMER_ROOT_HASH, header.ommers_hash)
}

/// The difficulty that a block before the Merge must have.
fn difficulty(
    header: &Header,
    parent: &Header,
    parent_has_ommers: bool,
    fork: &Fork,
    spec: &ChainSpec,
) -> U256 {
    let since = |first| fork.spec.is_enabled_in(first);
    let apart = header.timestamp.saturating_sub(parent.timestamp);
    // By how many steps it grows, and by how many it falls.
    let (grows, falls) = match () {
        () if since(SpecId::BYZANTIUM) => (1 + u64::from(parent_has_ommers), apart / 9),
        () if since(SpecId::HOMESTEAD) => (1, apart / 10),
        () if apart < 13 => (1, 0),
        () => (0, 1),
    };
    let step = parent.difficulty / U256::from(DIFFICULTY_DENOMINATOR);
    let least = U256::from(DIFFICULTY_MIN);
    let next = match grows.checked_sub(falls) {
        Some(up) => parent.difficulty.saturating_add(step.saturating_mul(U256::from(up))),
        None => parent.difficulty.saturating_sub(step * U256::from((falls - grows).min(99))),
    };
    let periods = header.number.saturating_sub(spec.delay_at(header.number)) / BOMB_BLOCKS;
    let bomb = match periods.checked_sub(2) {
        Some(doubled) if periods > 1 => U256::ONE.checked_shl(doubled as usize).unwrap_or_default(),
        _ => U256::ZERO,
    };
    next.max(least).saturating_add(bomb)
}

/// A field that must be there by now.
pub(super) fn present<T: Copy + Debug>(field: &'static str, value: Option<T>) -> Result<T, Reason> {
    value.ok_or_else(|| Reason::Broken(format!("no {field}")))
}
