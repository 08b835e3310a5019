//! What the base fee and the price of blobs of a block are, by the block before it.
//!
//! Only where a block is complete before the next one begins: in the development chain, and in
//! chains that are imported. A cluster orders epochs before it knows what gas they use, so that
//! its base fee is fixed.

use alloy_consensus::Header;
use alloy_eips::calc_next_block_base_fee;
use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7840::BlobParams;
use rkyv::{Archive, Deserialize, Serialize};

/// How the base fee follows demand (EIP-1559).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct DynamicFee {
    /// The base fee of the first block that has one, wei.
    pub initial: u64,
    /// By how much a block may be larger than its target.
    pub elasticity: u64,
    /// The base fee changes by at most its own part of one in this many.
    pub denominator: u64,
    /// The base fee never falls below this, wei.
    pub floor: u64,
}

impl DynamicFee {
    /// Mainnet's: from 1 gwei, twice the target, an eighth, no floor.
    pub const MAINNET: Self =
        Self { initial: 1_000_000_000, elasticity: 2, denominator: 8, floor: 0 };
}

/// What of a block decides the fees of the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parent {
    /// The gas that its transactions used.
    pub gas_used: u64,
    /// Its gas limit.
    pub gas_limit: u64,
    /// Its base fee, wei; none before London.
    pub base_fee: Option<u64>,
    /// The blob gas of its transactions; zero before Cancun.
    pub blob_gas_used: u64,
    /// The blob gas in excess of the target before it; zero before Cancun.
    pub excess_blob_gas: u64,
}

impl From<&Header> for Parent {
    fn from(header: &Header) -> Self {
        Self {
            gas_used: header.gas_used,
            gas_limit: header.gas_limit,
            base_fee: header.base_fee_per_gas,
            blob_gas_used: header.blob_gas_used.unwrap_or_default(),
            excess_blob_gas: header.excess_blob_gas.unwrap_or_default(),
        }
    }
}

/// The base fee of the block after `parent`, wei (EIP-1559).
#[must_use]
pub fn next_base_fee(parent: &Parent, fee: &DynamicFee) -> u64 {
    let next = parent.base_fee.map_or(fee.initial, |base_fee| {
        let params = BaseFeeParams {
            max_change_denominator: fee.denominator.into(),
            elasticity_multiplier: fee.elasticity.into(),
        };
        calc_next_block_base_fee(parent.gas_used, parent.gas_limit, base_fee, params)
    });
    next.max(fee.floor)
}

/// The blob gas in excess of the target before the block after `parent` (EIP-4844, and EIP-7918
/// from Osaka on). `blobs` are the parameters of that block's fork.
#[must_use]
pub fn next_excess_blob_gas(parent: &Parent, blobs: &BlobParams) -> u64 {
    let Parent { excess_blob_gas, blob_gas_used, base_fee, .. } = *parent;
    blobs.next_block_excess_blob_gas_osaka(
        excess_blob_gas,
        blob_gas_used,
        base_fee.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: u64 = 131_072;

    fn parent(gas_used: u64, gas_limit: u64, base_fee: u64) -> Parent {
        Parent { gas_used, gas_limit, base_fee: Some(base_fee), ..Parent::default() }
    }

    #[test]
    fn the_base_fee_follows_the_formula_of_eip_1559() {
        // Base fee, gas limit, gas used, next: at, over, under and far from the target; the first
        // three are go-ethereum's vectors.
        for (base_fee, limit, used, next) in [
            (1_000_000_000, 20_000_000, 10_000_000, 1_000_000_000),
            (1_000_000_000, 20_000_000, 9_000_000, 987_500_000),
            (1_000_000_000, 20_000_000, 11_000_000, 1_012_500_000),
            (1_000_000_000, 30_000_000, 30_000_000, 1_125_000_000),
            (1_000_000_000, 30_000_000, 0, 875_000_000),
            // It rises by one at least, also from nothing; it falls by nothing if an eighth is less.
            (0, 30_000_000, 15_000_001, 1),
            (7, 30_000_000, 30_000_000, 8),
            (7, 30_000_000, 0, 7),
        ] {
            let found = next_base_fee(&parent(used, limit, base_fee), &DynamicFee::MAINNET);
            assert_eq!(found, next, "{base_fee} {limit} {used}");
        }
    }

    #[test]
    fn the_first_base_fee_and_the_floor_are_configured() {
        let fee = DynamicFee { initial: 77, floor: 50, ..DynamicFee::MAINNET };
        assert_eq!(next_base_fee(&Parent { base_fee: None, ..parent(1, 2, 0) }, &fee), 77);
        assert_eq!(next_base_fee(&parent(0, 30_000_000, 56), &fee), 50);
        let other = DynamicFee { elasticity: 4, denominator: 2, ..DynamicFee::MAINNET };
        // A full block is four times its target: 1 + 3 / 2 of the fee before.
        assert_eq!(next_base_fee(&parent(40, 40, 1_000), &other), 2_500);
    }

    #[test]
    fn senseless_parameters_change_nothing() {
        for fee in [
            DynamicFee { elasticity: 0, ..DynamicFee::MAINNET },
            DynamicFee { denominator: 0, ..DynamicFee::MAINNET },
        ] {
            assert_eq!(next_base_fee(&parent(5, 10, 9), &fee), 9);
        }
        assert_eq!(next_base_fee(&parent(0, 0, 9), &DynamicFee::MAINNET), 9);
    }

    /// Excess and used blobs, the base fee, and the excess that follows.
    fn excess(blobs: BlobParams, excess: u64, used: u64, base_fee: u64) -> u64 {
        let parent = Parent {
            excess_blob_gas: excess,
            blob_gas_used: used * BLOB,
            base_fee: Some(base_fee),
            ..Parent::default()
        };
        next_excess_blob_gas(&parent, &blobs)
    }

    #[test]
    fn excess_blob_gas_is_what_is_above_the_target() {
        let cancun = |before, used| excess(BlobParams::cancun(), before, used, 0);
        // go-ethereum's vectors: the target is 3 blobs.
        assert_eq!(cancun(0, 0), 0);
        assert_eq!(cancun(0, 3), 0);
        assert_eq!(cancun(0, 4), BLOB);
        assert_eq!(cancun(1, 4), BLOB + 1);
        assert_eq!(cancun(1, 5), 2 * BLOB + 1);
        assert_eq!(cancun(3 * BLOB, 3), 3 * BLOB);
        assert_eq!(cancun(3 * BLOB, 2), 2 * BLOB);
        assert_eq!(cancun(3 * BLOB, 1), BLOB);
        assert_eq!(cancun(BLOB - 1, 2), 0);
        // EIP-7691: 6 blobs.
        assert_eq!(excess(BlobParams::prague(), 0, 6, 0), 0);
        assert_eq!(excess(BlobParams::prague(), 0, 9, 0), 3 * BLOB);
    }

    #[test]
    fn blobs_never_cost_much_less_than_execution() {
        // EIP-7918: while 2^13 execution gas costs more than a blob, the excess does not fall, and
        // rises by a third of what is used.
        let osaka = |base_fee| excess(BlobParams::osaka(), 10 * BLOB, 6, base_fee);
        assert_eq!(osaka(16), 10 * BLOB);
        assert_eq!(osaka(17), 12 * BLOB);
        assert_eq!(excess(BlobParams::prague(), 10 * BLOB, 6, 1_000), 10 * BLOB);
        assert_eq!(excess(BlobParams::bpo2(), 10 * BLOB, 21, 1_000), 17 * BLOB);
    }
}
