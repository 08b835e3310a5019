//! What a simulated transaction is executed with, beside the state.

use alloy_primitives::U256;
use parsec_ethereum::{Environment, QueryError};
use revm::context::{BlockEnv, CfgEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::primitives::eip4844::{
    BLOB_BASE_FEE_UPDATE_FRACTION_CANCUN, BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE,
};
use revm::primitives::hardfork::SpecId;

use super::base::Base;
use crate::evm::keys;
use crate::evm::params::{ChainParams, Prepared};

/// Most gas that a call may have where the chain's blocks have less, as it is with geth. Bounds the
/// time that a question takes, whatever gas limit a request gives its block.
const CALL_GAS_MAX: u64 = 50_000_000;

/// The rules of a chain, at one block.
pub(super) struct Rules {
    pub(super) cfg: CfgEnv,
    pub(super) block: BlockEnv,
    /// Most gas that one call may have.
    pub(super) gas_max: u64,
    /// How slowly the price of blobs reacts to their number.
    pub(super) blob_fraction: u64,
}

impl Rules {
    /// The rules of the chain whose parameters stand in the state, at that block.
    pub(super) fn read(
        chain_id: u64,
        base: &Base<'_>,
        environment: &Environment,
    ) -> Result<Self, QueryError> {
        let damaged = |reason| QueryError::Unavailable(format!("chain parameters: {reason}"));
        let params = match base.value(&keys::params())? {
            None => ChainParams::new(chain_id),
            Some(value) => ChainParams::decode(&value).map_err(|e| damaged(e.to_string()))?,
        };
        Self::new(params, environment).map_err(damaged)
    }

    /// The one place that decides by which rules a block is simulated.
    fn new(params: ChainParams, environment: &Environment) -> Result<Self, String> {
        let gas_max = environment.gas_limit.min(params.gas_limit.max(CALL_GAS_MAX));
        let given = params.block.as_ref().and_then(|block| block.blobs);
        let at = BlockEnv {
            number: U256::from(environment.number),
            timestamp: U256::from(environment.timestamp),
            ..BlockEnv::default()
        };
        let prepared = Prepared::new(params).map_err(|error| error.to_string())?;
        let cfg = prepared.rules(&at).cfg.clone();
        let blob_fraction = given.map_or(
            match cfg.spec.is_enabled_in(SpecId::PRAGUE) {
                true => BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE,
                false => BLOB_BASE_FEE_UPDATE_FRACTION_CANCUN,
            },
            |blobs| blobs.update_fraction,
        );
        let block = block(cfg.spec, environment, blob_fraction);
        Ok(Self { cfg, block, gas_max, blob_fraction })
    }
}

fn block(spec: SpecId, environment: &Environment, blob_fraction: u64) -> BlockEnv {
    let blobs = || {
        let excess = environment.excess_blob_gas.unwrap_or_default();
        BlobExcessGasAndPrice::new(excess, blob_fraction)
    };
    BlockEnv {
        number: U256::from(environment.number),
        beneficiary: environment.coinbase,
        timestamp: U256::from(environment.timestamp),
        gas_limit: environment.gas_limit,
        basefee: environment.base_fee,
        difficulty: environment.difficulty,
        prevrandao: spec.is_enabled_in(SpecId::MERGE).then_some(environment.prevrandao),
        blob_excess_gas_and_price: spec.is_enabled_in(SpecId::CANCUN).then(blobs),
        slot_num: 0,
    }
}
