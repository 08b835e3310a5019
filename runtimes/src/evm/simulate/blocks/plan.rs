//! The order of simulated blocks: their numbers and times.

use std::sync::LazyLock;

use alloy_primitives::U256;
use alloy_rpc_types_eth::simulate::{MAX_SIMULATE_BLOCKS, SimulatePayload};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use parsec_ethereum::{Environment, QueryError};

use super::TOO_MUCH;

/// By how much the time of a block is after that of the one before it, if nothing else is said.
const BLOCK_SECONDS: u64 = 12;

/// Codes of JSON-RPC.
const INVALID_PARAMS: i32 = -32_602;
const BLOCK_NUMBER: i32 = -38_020;
const BLOCK_TIMESTAMP: i32 = -38_021;

static NO_OVERRIDES: LazyLock<BlockOverrides> = LazyLock::new(BlockOverrides::default);

/// A block that is to be simulated.
pub(super) struct Planned<'a> {
    pub(super) number: u64,
    pub(super) timestamp: u64,
    pub(super) overrides: &'a BlockOverrides,
    pub(super) state: Option<&'a StateOverride>,
    pub(super) calls: &'a [TransactionRequest],
}

/// The blocks of a request, with empty ones where it leaves out numbers. The environment is that
/// of the first one, if nothing else is said.
pub(super) fn plan<'a>(
    environment: &Environment,
    payload: &'a SimulatePayload,
) -> Result<Vec<Planned<'a>>, QueryError> {
    let refused = |code, message| Err(QueryError::Refused { code, message });
    if payload.block_state_calls.is_empty() {
        return refused(INVALID_PARAMS, "empty input".to_owned());
    }
    let base = environment.number.saturating_sub(1);
    let mut number = base;
    let mut timestamp = environment.timestamp.saturating_sub(BLOCK_SECONDS);
    let mut planned = Vec::new();
    for block in &payload.block_state_calls {
        let overrides = block.block_overrides.as_ref().unwrap_or(&NO_OVERRIDES);
        let wanted = overrides.number.unwrap_or_else(|| U256::from(number) + U256::ONE);
        if wanted <= U256::from(number) {
            let message = format!("block numbers must be in order: {wanted} <= {number}");
            return refused(BLOCK_NUMBER, message);
        }
        let wanted = match u64::try_from(wanted) {
            Ok(wanted) if wanted - base <= MAX_SIMULATE_BLOCKS => wanted,
            _ => return refused(TOO_MUCH, "too many blocks".to_owned()),
        };
        for number in number + 1..wanted {
            timestamp = timestamp.saturating_add(BLOCK_SECONDS);
            let overrides = &*NO_OVERRIDES;
            planned.push(Planned { number, timestamp, overrides, state: None, calls: &[] });
        }
        number = wanted;
        let time = overrides.time.unwrap_or_else(|| timestamp.saturating_add(BLOCK_SECONDS));
        if time <= timestamp {
            let message = format!("block timestamps must be in order: {time} <= {timestamp}");
            return refused(BLOCK_TIMESTAMP, message);
        }
        timestamp = time;
        let state = block.state_overrides.as_ref();
        planned.push(Planned { number, timestamp, overrides, state, calls: &block.calls });
    }
    Ok(planned)
}
