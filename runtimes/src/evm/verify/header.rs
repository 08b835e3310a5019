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
    let doubled = periods.checked_sub(2).and_then(|doubled| usize::try_from(doubled).ok());
    let bomb = doubled.map_or(U256::ZERO, |doubled| U256::ONE.wrapping_shl(doubled));
    next.max(least).saturating_add(bomb)
}

/// A field that must be there by now.
pub(super) fn present<T: Copy + Debug>(field: &'static str, value: Option<T>) -> Result<T, Reason> {
    value.ok_or_else(|| Reason::Broken(format!("no {field}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u64, timestamp: u64, difficulty: u64) -> Header {
        Header { number, timestamp, difficulty: U256::from(difficulty), ..Header::default() }
    }

    fn next(fork: &str, parent: &Header, apart: u64, ommers: bool, delays: &[(u64, u64)]) -> u64 {
        let fork = Fork::named(fork).unwrap();
        let spec = ChainSpec { delays: delays.to_vec(), ..ChainSpec::new(1, fork) };
        let child = header(parent.number + 1, parent.timestamp + apart, 0);
        difficulty(&child, parent, ommers, &fork, &spec).try_into().unwrap()
    }

    #[test]
    fn the_difficulty_is_that_of_mainnets_first_blocks() {
        let genesis = header(0, 0, 17_179_869_184);
        assert_eq!(next("Frontier", &genesis, 1_438_269_988, false, &[]), 17_171_480_576);
        let first = header(1, 1_438_269_988, 17_171_480_576);
        assert_eq!(next("Frontier", &first, 29, false, &[]), 17_163_096_064);
    }

    #[test]
    fn the_difficulty_follows_the_time_between_blocks() {
        // One step is 1,000.
        let parent = header(10, 100, 2_048_000);
        for (fork, apart, ommers, steps) in [
            ("Frontier", 12, false, 1),
            ("Frontier", 13, false, -1),
            ("Homestead", 9, false, 1),
            ("Homestead", 10, false, 0),
            ("Homestead", 45, false, -3),
            ("Homestead", 5_000, false, -99),
            ("Byzantium", 8, false, 1),
            ("Byzantium", 8, true, 2),
            ("Byzantium", 9, true, 1),
            ("Byzantium", 30, false, -2),
        ] {
            let found = next(fork, &parent, apart, ommers, &[]);
            assert_eq!(i128::from(found), 2_048_000 + 1_000 * steps, "{fork} {apart} {ommers}");
        }
        assert_eq!(next("Homestead", &header(10, 0, 131_072), 1_000, false, &[]), DIFFICULTY_MIN);
    }

    #[test]
    fn the_difficulty_grows_with_the_number_unless_that_is_held_back() {
        let at = |number: u64, delays: &[(u64, u64)]| {
            next("Byzantium", &header(number - 1, 0, 2_048_000), 9, false, delays) - 2_048_000
        };
        assert_eq!(at(199_999, &[]), 0);
        assert_eq!(at(200_000, &[]), 1);
        assert_eq!(at(1_200_000, &[]), 1_024);
        assert_eq!(at(4_370_000, &[(4_370_000, 3_000_000)]), 2_048);
        assert_eq!(at(4_370_000, &[(5_000_000, 3_000_000)]), 1 << 41);
    }

    #[test]
    fn the_gas_limit_doubles_with_london() {
        let (berlin, london) = (Fork::named("Berlin").unwrap(), Fork::named("London").unwrap());
        let limits = |parent, limit, fork: &Fork, before: &Fork| {
            let with = |gas_limit| Header { gas_limit, ..Header::default() };
            check_gas(&with(limit), &with(parent), fork, before).is_ok()
        };
        assert!(limits(10_000_000, 20_000_000, &london, &berlin));
        assert!(!limits(10_000_000, 10_000_000, &london, &berlin));
        assert!(!limits(10_000_000, 20_000_000, &london, &london));
        assert!(limits(10_000_000, 10_009_764, &berlin, &berlin));
        assert!(!limits(10_000_000, 10_009_765, &berlin, &berlin));
        assert!(limits(5_001, 5_000, &berlin, &berlin));
        assert!(!limits(5_000, 4_999, &berlin, &berlin));
    }
}
