//! Ommers: blocks before the Merge that were late, and what they and blocks earn.

use std::collections::VecDeque;

use alloy_primitives::{Address, U256, keccak256};

use super::body::Body;
use super::error::Reason;
use super::spec::ChainSpec;
use super::{Generation, header};
use crate::evm::forks::Fork;

/// Most ommers that a block may have.
const OMMERS_MAX: usize = 2;
/// An ommer earns as many eighths of a reward less as it is generations late.
const LATE_DENOMINATOR: u64 = 8;
/// A block earns one in this many of a reward for each ommer.
const NEPHEW_DENOMINATOR: u64 = 32;

/// Makes sure that a block's ommers are such: valid, children of its ancestors, and new. `recent`
/// are its ancestors, its parent last.
pub(super) fn check(
    body: &Body,
    recent: &VecDeque<Generation>,
    spec: &ChainSpec,
) -> Result<(), Reason> {
    if body.ommers.len() > OMMERS_MAX {
        let detail = format!("a block has at most {OMMERS_MAX}");
        return Err(Reason::Ommer { index: OMMERS_MAX, detail });
    }
    let mut known: Vec<_> =
        recent.iter().flat_map(|one| one.ommers.iter().copied().chain([one.hash])).collect();
    for (index, ommer) in body.ommers.iter().enumerate() {
        let refused = |detail: &str| Reason::Ommer { index, detail: detail.to_owned() };
        let hash = keccak256(&ommer.raw);
        if known.contains(&hash) {
            return Err(refused("it is known already"));
        }
        known.push(hash);
        if ommer.header.parent_hash == body.header.parent_hash {
            return Err(refused("it is a sibling"));
        }
        let parent = recent.iter().position(|one| one.hash == ommer.header.parent_hash);
        let Some(parent) = parent else {
            return Err(refused("its parent is no recent ancestor"));
        };
        let parent = &recent[parent];
        if ommer.header.number != parent.header.number + 1 {
            return Err(refused("its number does not follow its parent's"));
        }
        header::check(&ommer.header, &parent.header, !parent.ommers.is_empty(), spec)
            .map_err(|reason| refused(&reason.to_string()))?;
    }
    Ok(())
}

/// Who earns what by a block and its ommers, wei.
pub(super) fn rewards(body: &Body, fork: &Fork) -> Vec<(Address, U256)> {
    let reward = ChainSpec::reward(fork);
    if reward.is_zero() {
        return Vec::new();
    }
    let ommers = U256::from(body.ommers.len());
    let own = reward + reward / U256::from(NEPHEW_DENOMINATOR) * ommers;
    let mut rewards = vec![(body.header.beneficiary, own)];
    for ommer in &body.ommers {
        let late = body.header.number.saturating_sub(ommer.header.number);
        let eighths = U256::from(LATE_DENOMINATOR.saturating_sub(late));
        rewards.push((ommer.header.beneficiary, reward * eighths / U256::from(LATE_DENOMINATOR)));
    }
    rewards
}
