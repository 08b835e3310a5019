//! What the fees of the next block follow from.

use std::str::FromStr;

use alloy_eips::calc_next_block_base_fee;
use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7840::BlobParams;
use parsec_runtimes::evm::BlobGas;
use revm::primitives::hardfork::SpecId;

/// The base fee after a block. A fee of zero stays: only whoever wants none sets it.
pub(crate) fn next_base_fee(gas_used: u64, gas_limit: u64, base_fee: u64) -> u64 {
    match base_fee {
        0 => 0,
        fee => calc_next_block_base_fee(gas_used, gas_limit, fee, BaseFeeParams::ethereum()),
    }
}

/// What decides the price of blobs in a fork that has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlobFees(BlobParams);

impl BlobFees {
    /// Those of a fork, from Cancun on.
    pub(crate) fn of(fork: SpecId) -> Option<Self> {
        match fork {
            fork if fork.is_enabled_in(SpecId::OSAKA) => Some(Self(BlobParams::osaka())),
            fork if fork.is_enabled_in(SpecId::PRAGUE) => Some(Self(BlobParams::prague())),
            fork if fork.is_enabled_in(SpecId::CANCUN) => Some(Self(BlobParams::cancun())),
            _ => None,
        }
    }

    /// The blob gas in excess after a block.
    pub(crate) fn next_excess(&self, excess: u64, used: u64, base_fee: u64) -> u64 {
        self.0.next_block_excess_blob_gas_osaka(excess, used, base_fee)
    }

    /// What a block with that excess is executed with.
    pub(crate) fn gas(&self, excess: u64) -> BlobGas {
        let update_fraction = u64::try_from(self.0.update_fraction).unwrap_or(u64::MAX);
        BlobGas { excess, update_fraction }
    }

    /// Most blob gas in a block.
    pub(crate) fn block_gas_max(&self) -> u64 {
        self.0.max_blob_gas_per_block()
    }

    /// The price of blob gas with that excess, wei.
    pub(crate) fn price(&self, excess: u64) -> u128 {
        self.0.calc_blob_fee(excess)
    }
}

/// The fork of that name, as [`ChainParams`](parsec_runtimes::evm::ChainParams) has them.
pub(crate) fn fork(name: &str) -> Option<SpecId> {
    SpecId::from_str(name).ok().filter(|fork| *fork < SpecId::AMSTERDAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_fee_follows_demand_unless_there_is_none() {
        assert_eq!(next_base_fee(0, 30_000_000, 1_000_000_000), 875_000_000);
        assert_eq!(next_base_fee(15_000_000, 30_000_000, 1_000_000_000), 1_000_000_000);
        assert_eq!(next_base_fee(30_000_000, 30_000_000, 1_000_000_000), 1_125_000_000);
        assert_eq!(next_base_fee(30_000_000, 30_000_000, 0), 0);
    }

    #[test]
    fn blobs_have_a_price_from_cancun_on() {
        assert!(BlobFees::of(SpecId::SHANGHAI).is_none());
        for fork in [SpecId::CANCUN, SpecId::PRAGUE, SpecId::OSAKA] {
            let fees = BlobFees::of(fork).unwrap();
            assert_eq!(fees.next_excess(0, 0, 1), 0);
            assert_eq!(fees.price(0), 1);
            assert!(fees.gas(5).update_fraction > 3_000_000);
        }
    }

    #[test]
    fn forks_have_names() {
        assert_eq!(fork("Osaka"), Some(SpecId::OSAKA));
        assert_eq!(fork("Amsterdam"), None);
        assert_eq!(fork("shanghai"), None);
    }
}
