//! Tests of blocks as they are written down.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256};
use parsec_runtimes::evm::verify::ChainSpec;
use parsec_runtimes::evm::{Fork, ForkAt};
use serde::Deserialize;

use crate::statetest::{Account, Failure, Number, UNBORN};

/// The chain of tests that name none.
const CHAIN_ID: u64 = 1;
/// Forks that change nothing but the parameters of blobs, and are not final: tests give them.
const BLOBS_ALONE: [&str; 3] = ["BPO3", "BPO4", "BPO5"];

/// A chain of blocks, and what it comes to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Test {
    network: String,
    #[serde(default)]
    config: Config,
    #[serde(rename = "genesisRLP")]
    pub(super) genesis: Bytes,
    pub(super) pre: BTreeMap<Address, Account>,
    pub(super) blocks: Vec<BlockCase>,
    #[serde(rename = "lastblockhash")]
    pub(super) last: B256,
    #[serde(default)]
    pub(super) post_state: Option<BTreeMap<Address, Account>>,
    #[serde(default)]
    pub(super) post_state_hash: Option<B256>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    chainid: Option<Number>,
    #[serde(default)]
    blob_schedule: BTreeMap<String, Blobs>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blobs {
    target: Number,
    max: Number,
    base_fee_update_fraction: Number,
}

/// A block, and whether it must be refused.
#[derive(Debug, Deserialize)]
pub(super) struct BlockCase {
    pub(super) rlp: Bytes,
    #[serde(default, rename = "expectException")]
    exception: Option<String>,
    /// So in older tests, one for each fork.
    #[serde(default, rename = "expectExceptionALL")]
    exception_of_all: Option<String>,
}

impl BlockCase {
    /// Why it must be refused, if it must.
    pub(super) fn exception(&self) -> Option<&str> {
        self.exception.as_deref().or(self.exception_of_all.as_deref())
    }
}

impl Test {
    /// The rules of its chain; none if there are no such rules here.
    pub(super) fn spec(&self) -> Result<Option<ChainSpec>, Failure> {
        let chain_id = self.config.chainid.as_ref().map_or(Ok(CHAIN_ID), Number::quantity)?;
        let (first, later) = match transition(&self.network) {
            Some((first, later, at)) => (first, Some((later, at))),
            None => (&*self.network, None),
        };
        let Some(first) = self.fork(first)? else { return Ok(None) };
        let mut spec = ChainSpec::new(chain_id, first);
        if let Some((name, at)) = later {
            let Some(fork) = self.fork(name)? else { return Ok(None) };
            match at {
                Begin::At(at) => spec.later.push((at, fork)),
                Begin::Difficulty(end) => spec.terminal_difficulty = Some(end),
            }
        }
        Ok(Some(spec))
    }

    /// The network, for people.
    pub(super) fn network(&self) -> &str {
        &self.network
    }

    fn fork(&self, name: &str) -> Result<Option<Fork>, Failure> {
        let known = if BLOBS_ALONE.contains(&name) { "BPO2" } else { name };
        let Some(mut fork) = Fork::named(known).filter(|_| name != UNBORN) else { return Ok(None) };
        if let (Some(blobs), Some(told)) = (&mut fork.blobs, self.config.blob_schedule.get(name)) {
            blobs.target_blob_count = told.target.quantity()?;
            blobs.max_blob_count = told.max.quantity()?;
            blobs.update_fraction = told.base_fee_update_fraction.quantity()?.into();
        }
        Ok(Some(fork))
    }
}

/// When a later fork begins.
enum Begin {
    At(ForkAt),
    Difficulty(U256),
}

/// What a name like "CancunToPragueAtTime15k" means.
fn transition(network: &str) -> Option<(&str, &str, Begin)> {
    let (forks, at) = network.rsplit_once("At")?;
    let (first, later) = forks.split_once("To")?;
    let begin = match at.strip_prefix("Time") {
        Some(time) => {
            let thousands: u64 = time.strip_suffix('k')?.parse().ok()?;
            Begin::At(ForkAt::Time(thousands * 1_000))
        }
        None => match at.strip_prefix("Diff") {
            Some(end) => Begin::Difficulty(U256::from_str_radix(end, 16).ok()?),
            None => Begin::At(ForkAt::Block(at.parse().ok()?)),
        },
    };
    Some((first, later, begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_are_understood() {
        for (name, first, later, at) in [
            ("CancunToPragueAtTime15k", "Cancun", "Prague", Some(ForkAt::Time(15_000))),
            ("BerlinToLondonAt5", "Berlin", "London", Some(ForkAt::Block(5))),
            ("ArrowGlacierToParisAtDiffC0000", "ArrowGlacier", "Paris", None),
        ] {
            let (found, next, begin) = transition(name).unwrap();
            assert_eq!((found, next), (first, later));
            match (begin, at) {
                (Begin::At(begin), Some(at)) => assert_eq!(begin, at),
                (Begin::Difficulty(end), None) => assert_eq!(end, U256::from(0xc_0000)),
                _ => panic!("{name}"),
            }
        }
        assert!(transition("Prague").is_none());
        assert!(transition("HomesteadToDaoAtSomeTime").is_none());
    }
}
