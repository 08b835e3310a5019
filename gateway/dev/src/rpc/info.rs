//! What the node says of itself.

use std::collections::BTreeMap;

use alloy_primitives::{U64, keccak256};
use serde_json::{Value, json};

use super::{Family, client_version};
use crate::backend::{DevBackend, LEAST_TIP};
use crate::chain::SnapshotId;
use crate::pool::Order;

pub(super) fn add(family: &mut Family) {
    family.act(&["anvil_nodeInfo", "hardhat_nodeInfo"], async |backend: DevBackend, ()| {
        Ok(node_info(&backend))
    });
    family.act(&["anvil_metadata", "hardhat_metadata"], async |backend: DevBackend, ()| {
        Ok(metadata(&backend))
    });
    family.act(&["anvil_getGenesisTime"], async |backend: DevBackend, ()| {
        Ok(backend.look(|chain| chain.genesis_timestamp()))
    });
    // Nobody mines here by computing.
    family.act(&["eth_mining"], async |_, ()| Ok(true));
    family.act(&["eth_hashrate"], async |_, ()| Ok(U64::ZERO));
    family.act(&["eth_protocolVersion"], async |_, ()| Ok(U64::from(65)));
}

fn node_info(backend: &DevBackend) -> Value {
    backend.look(|chain| {
        let base_fee = u128::from(chain.base_fee());
        let order = match chain.config().order {
            Order::Fees => "fees",
            Order::Arrival => "fifo",
        };
        json!({
            "currentBlockNumber": U64::from(chain.latest()),
            "currentBlockTimestamp": chain.latest_timestamp(),
            "currentBlockHash": chain.latest_hash(),
            "hardFork": chain.fork().name(),
            "transactionOrder": order,
            "environment": {
                "baseFee": format!("{base_fee:#x}"),
                "chainId": chain.chain_id(),
                "gasLimit": U64::from(chain.gas_limit()),
                "gasPrice": format!("{:#x}", base_fee + LEAST_TIP),
            },
            "forkConfig": { "forkUrl": null, "forkBlockNumber": null, "forkRetryBackoff": null },
        })
    })
}

fn metadata(backend: &DevBackend) -> Value {
    backend.look(|chain| {
        let snapshots: BTreeMap<String, Value> = chain
            .snapshots()
            .into_iter()
            .map(|(SnapshotId(id), block, hash)| (format!("{id:#x}"), json!([block, hash])))
            .collect();
        // One chain has one genesis, and another run another time or other accounts.
        let instance = chain.block_hash(0).map(keccak256);
        json!({
            "clientVersion": client_version(),
            "clientSemver": env!("CARGO_PKG_VERSION"),
            "clientCommitSha": null,
            "chainId": chain.chain_id(),
            "instanceId": instance,
            "latestBlockNumber": chain.latest(),
            "latestBlockHash": chain.latest_hash(),
            "forkedNetwork": null,
            "snapshots": snapshots,
        })
    })
}
