//! Calls as clients describe them.

use alloy_eips::eip7840::BlobParams;
use alloy_primitives::U256;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use parsec_ethereum::Environment;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::node::Node;
use crate::rpc::{Param, RpcError, quantity};

/// The fields of a call that are quantities.
const QUANTITIES: [&str; 9] = [
    "gas",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "maxFeePerBlobGas",
    "value",
    "nonce",
    "chainId",
    "type",
];

/// The fields of a call that are bytes.
const BYTES: [&str; 4] = ["from", "to", "data", "input"];

/// A call as a client describes it.
#[derive(Debug, Clone)]
pub(crate) struct CallRequest(pub(crate) TransactionRequest);

impl Param for CallRequest {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let Value::Object(fields) = &value else { return Err("a call must be an object".into()) };
        for name in QUANTITIES {
            match fields.get(name) {
                Some(Value::String(text)) => {
                    quantity::quantity(text).map_err(|reason| format!("{name}: {reason}"))?;
                }
                Some(Value::Number(number)) if number.as_u64().is_none() => {
                    return Err(format!("{name}: expected a quantity"));
                }
                _ => {}
            }
        }
        for name in BYTES {
            if let Some(Value::String(text)) = fields.get(name) {
                quantity::bytes(text).map_err(|reason| format!("{name}: {reason}"))?;
            }
        }
        let request: TransactionRequest =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        Ok(Self(request))
    }
}

impl CallRequest {
    /// The call, if its fields don't contradict one another.
    pub(crate) fn checked(self, node: &Node) -> Result<TransactionRequest, RpcError> {
        let request = self.0;
        if let (Some(data), Some(input)) = (&request.input.data, &request.input.input)
            && data != input
        {
            return Err(RpcError::server(
                "both \"data\" and \"input\" are set and not equal. Please use \"input\" to pass \
                 transaction call data",
            ));
        }
        let dynamic =
            request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some();
        if request.gas_price.is_some() && dynamic {
            return Err(RpcError::server(
                "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified",
            ));
        }
        if let (Some(most), Some(tip)) = (request.max_fee_per_gas, request.max_priority_fee_per_gas)
            && most < tip
        {
            let message = format!("maxFeePerGas ({most:#x}) < maxPriorityFeePerGas ({tip:#x})");
            return Err(RpcError::server(message));
        }
        let ours = node.backend.chain_id();
        match request.chain_id {
            Some(theirs) if theirs != ours => Err(RpcError::server(format!(
                "chainId does not match node's (have={theirs}, want={ours})"
            ))),
            _ => Ok(request),
        }
    }
}

/// The environment with what a client wants to be different in it.
pub(crate) fn overridden(
    node: &Node,
    mut environment: Environment,
    overrides: Option<BlockOverrides>,
) -> Result<Environment, RpcError> {
    let Some(overrides) = overrides else { return Ok(environment) };
    let blobs = node.backend.blobs(environment.number, environment.timestamp);
    let small = |name: &str, number: U256| {
        u64::try_from(number)
            .map_err(|_| RpcError::invalid_params(format!("{name} does not fit into 64 bits")))
    };
    if let Some(number) = overrides.number {
        environment.number = small("number", number)?;
    }
    if let Some(base_fee) = overrides.base_fee {
        environment.base_fee = small("baseFeePerGas", base_fee)?;
    }
    if let Some(price) = overrides.blob_base_fee {
        environment.excess_blob_gas = Some(excess_for(&blobs, price));
    }
    environment.timestamp = overrides.time.unwrap_or(environment.timestamp);
    environment.gas_limit = overrides.gas_limit.unwrap_or(environment.gas_limit);
    environment.coinbase = overrides.coinbase.unwrap_or(environment.coinbase);
    environment.difficulty = overrides.difficulty.unwrap_or(environment.difficulty);
    environment.prevrandao = overrides.random.unwrap_or(environment.prevrandao);
    environment.parent_beacon_block_root =
        overrides.beacon_root.or(environment.parent_beacon_block_root);
    environment.hashes.extend(overrides.block_hash.into_iter().flatten());
    Ok(environment)
}

/// The least excess of blob gas at which blob gas costs that much: what a block says of its price.
fn excess_for(blobs: &BlobParams, price: U256) -> u64 {
    let price = u128::try_from(price).unwrap_or(u128::MAX);
    // Beyond this even a unit costs more than there is.
    let (mut low, mut high) = (0, u64::try_from(blobs.update_fraction).unwrap_or(0));
    high = high.saturating_mul(64);
    while low < high {
        let middle = low + (high - low) / 2;
        match blobs.calc_blob_fee(middle) < price {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}
