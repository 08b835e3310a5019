//! What a simulated transaction is executed with, beside the state.

use alloy_eips::eip7840::BlobParams;
use alloy_primitives::U256;
use parsec_ethereum::{Environment, QueryError};
use parsec_protocol::Malformed;
use revm::context::{BlockEnv, CfgEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::primitives::hardfork::SpecId;

use super::base::Base;
use crate::evm::fees::DynamicFee;
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
    /// What the price of blobs follows.
    pub(super) blobs: BlobParams,
    /// How the base fee follows demand, if it does.
    pub(super) fee: Option<DynamicFee>,
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
        Self::new(params, environment).map_err(|error| damaged(error.to_string()))
    }

    fn new(params: ChainParams, environment: &Environment) -> Result<Self, Malformed> {
        let gas_max = environment.gas_limit.min(params.gas_limit.max(CALL_GAS_MAX));
        let fork = params.fork_at(environment.number, environment.timestamp)?;
        let mut blobs = fork.blobs.unwrap_or_else(BlobParams::prague);
        if let Some(given) = params.block.as_ref().and_then(|block| block.blobs) {
            blobs.update_fraction = given.update_fraction.into();
        }
        let block = block(fork.spec, environment, &blobs);
        let fee = params.dynamic_fee;
        let prepared = Prepared::new(params)?;
        let cfg = prepared.rules(&block).cfg.clone();
        Ok(Self { cfg, block, gas_max, blobs, fee })
    }
}

fn block(spec: SpecId, environment: &Environment, blobs: &BlobParams) -> BlockEnv {
    let blobs = || {
        let excess_blob_gas = environment.excess_blob_gas.unwrap_or_default();
        let blob_gasprice = blobs.calc_blob_fee(excess_blob_gas);
        BlobExcessGasAndPrice { excess_blob_gas, blob_gasprice }
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
