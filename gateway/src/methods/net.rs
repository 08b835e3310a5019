//! `net_`, `web3_`, and what a node says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use serde_json::{Value, json};

use super::Family;
use crate::backend::At;
use crate::node::Node;
use crate::rpc::RpcError;
use crate::shape::quantity;

pub(super) fn add(family: &mut Family) {
    family.read("eth_accounts", async |_, ()| Ok(Vec::<Address>::new()));
    family.read("eth_capabilities", async |node, ()| capabilities(&node));
    family.read("eth_chainId", async |node: Arc<Node>, ()| Ok(quantity(node.backend.chain_id())));
    family.read("eth_coinbase", async |node: Arc<Node>, ()| Ok(node.backend.pending().coinbase));
    // What a gateway does not have yet, it does not know of.
    family.read("eth_syncing", async |_, ()| Ok(false));
    family.read("net_listening", async |_, ()| Ok(true));
    // Hosts of a cluster are no peers in Ethereum's sense.
    family.read("net_peerCount", async |_, ()| Ok(U64::ZERO));
    family.read("net_version", async |node: Arc<Node>, ()| Ok(node.backend.chain_id().to_string()));
    family.read("rpc_modules", async |node: Arc<Node>, ()| Ok(modules(&node)));
    family.read("web3_clientVersion", async |node: Arc<Node>, ()| Ok(node.client_version.clone()));
    family.read("web3_sha3", async |_, (data,): (Bytes,)| Ok::<B256, RpcError>(keccak256(data)));
}

/// The namespaces in which there are methods.
fn modules(node: &Node) -> BTreeMap<String, &'static str> {
    node.modules.get().into_iter().flatten().map(|name| (name.clone(), "1.0")).collect()
}

/// What can be asked for, and from which block on.
fn capabilities(node: &Node) -> Result<Value, RpcError> {
    let head = node.chain.head();
    let all = json!({ "disabled": false, "oldestBlock": "0x0" });
    let oldest = quantity(node.backend.oldest_state());
    let proofs = match node.backend.proves(At::Block(head.number)) {
        true => json!({ "disabled": false, "oldestBlock": oldest }),
        // The state is no trie, so there is nothing to prove with.
        false => json!({ "disabled": true }),
    };
    Ok(json!({
        "head": { "number": quantity(head.number), "hash": head.hash },
        "state": { "disabled": false, "oldestBlock": oldest },
        "tx": all,
        "logs": all,
        "receipts": all,
        "blocks": all,
        "stateproofs": proofs,
    }))
}
