//! Reading the state: balances, nonces, code, storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U64, U256};
use parsec_ethereum::{Account, Answer, Query};
use serde::Serialize;

use super::Family;
use crate::backend::At;
use crate::limits::STORAGE_VALUES_MAX;
use crate::node::{Node, confused};
use crate::rpc::{BlockId, BlockTag, Json, METHOD_NOT_FOUND, RpcError, quantity};

/// Why there is no proof.
const NO_TRIE: &str = "Parsec's state is no Merkle trie, and stateRoot is a digest of it";

pub(super) fn add(family: &mut Family) {
    family.read("eth_getAccountInfo", account_info);
    family.read("eth_getBalance", balance);
    family.read("eth_getCode", code);
    family.read("eth_getProof", proof);
    family.read("eth_getStorageAt", storage_at);
    family.read("eth_getStorageValues", storage_values);
    family.read("eth_getTransactionCount", transaction_count);
}

pub(super) async fn account(node: &Node, at: At, address: Address) -> Result<Account, RpcError> {
    match node.query(at, Query::Account(address)).await? {
        Answer::Account(account) => Ok(account),
        other => Err(confused(&other)),
    }
}

pub(super) async fn code_of(node: &Node, at: At, address: Address) -> Result<Bytes, RpcError> {
    match node.query(at, Query::Code(address)).await? {
        Answer::Code(code) => Ok(code),
        other => Err(confused(&other)),
    }
}

async fn words(
    node: &Node,
    at: At,
    address: Address,
    slots: Vec<U256>,
) -> Result<Vec<B256>, RpcError> {
    match node.query(at, Query::Storage(address, slots)).await? {
        Answer::Storage(words) => Ok(words),
        other => Err(confused(&other)),
    }
}

async fn balance(
    node: Arc<Node>,
    (address, block): (Address, Option<BlockId>),
) -> Result<U256, RpcError> {
    let at = node.state(block)?;
    Ok(account(&node, at, address).await?.balance)
}

async fn code(
    node: Arc<Node>,
    (address, block): (Address, Option<BlockId>),
) -> Result<Bytes, RpcError> {
    let at = node.state(block)?;
    code_of(&node, at, address).await
}

async fn transaction_count(
    node: Arc<Node>,
    (address, block): (Address, Option<BlockId>),
) -> Result<U64, RpcError> {
    let nonce = match block {
        Some(BlockId::Tag(BlockTag::Pending)) => node.backend.next_nonce(address).await?,
        _ => account(&node, node.state(block)?, address).await?.nonce,
    };
    Ok(U64::from(nonce))
}

async fn storage_at(
    node: Arc<Node>,
    (address, slot, block): (Address, String, Option<BlockId>),
) -> Result<B256, RpcError> {
    let slot = quantity::storage_key(&slot).map_err(RpcError::invalid_params)?;
    let at = node.state(block)?;
    Ok(words(&node, at, address, vec![slot]).await?.first().copied().unwrap_or_default())
}

async fn storage_values(
    node: Arc<Node>,
    (wanted, block): (Json<BTreeMap<String, Vec<String>>>, Option<BlockId>),
) -> Result<BTreeMap<Address, Vec<B256>>, RpcError> {
    let slots: usize = wanted.0.values().map(Vec::len).sum();
    if slots > STORAGE_VALUES_MAX {
        let message = format!("too many slots: {slots}, at most {STORAGE_VALUES_MAX}");
        return Err(RpcError::invalid_params(message));
    }
    if slots == 0 {
        return Err(RpcError::invalid_params("empty request"));
    }
    let at = node.state(block)?;
    let mut found = BTreeMap::new();
    for (address, keys) in wanted.0 {
        let address = quantity::address(&address).map_err(RpcError::invalid_params)?;
        let slots: Result<_, _> = keys.iter().map(|key| quantity::storage_key(key)).collect();
        let slots = slots.map_err(RpcError::invalid_params)?;
        found.insert(address, words(&node, at, address, slots).await?);
    }
    Ok(found)
}

/// All that is known of an account, without its storage.
#[derive(Serialize)]
struct AccountInfo {
    balance: U256,
    nonce: U64,
    code: Bytes,
}

async fn account_info(
    node: Arc<Node>,
    (address, block): (Address, Option<BlockId>),
) -> Result<AccountInfo, RpcError> {
    let at = node.state(block)?;
    let Account { balance, nonce, .. } = account(&node, at, address).await?;
    let code = code_of(&node, at, address).await?;
    Ok(AccountInfo { balance, nonce: U64::from(nonce), code })
}

/// An account with what proves it (EIP-1186).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProofJson {
    address: Address,
    account_proof: Vec<Bytes>,
    balance: U256,
    code_hash: B256,
    nonce: U64,
    storage_hash: B256,
    storage_proof: Vec<SlotJson>,
}

#[derive(Serialize)]
struct SlotJson {
    /// As it was asked for.
    key: String,
    value: U256,
    proof: Vec<Bytes>,
}

async fn proof(
    node: Arc<Node>,
    (address, keys, block): (Address, Option<Vec<String>>, Option<BlockId>),
) -> Result<ProofJson, RpcError> {
    let keys = keys.unwrap_or_default();
    if keys.len() > STORAGE_VALUES_MAX {
        let message = format!("too many keys: {}, at most {STORAGE_VALUES_MAX}", keys.len());
        return Err(RpcError::invalid_params(message));
    }
    let slots: Result<Vec<U256>, _> = keys.iter().map(|key| quantity::storage_key(key)).collect();
    let slots = slots.map_err(RpcError::invalid_params)?;
    let at = node.state(block)?;
    if !node.backend.proves(at) {
        let message = format!("the method eth_getProof is not available: {NO_TRIE}");
        return Err(RpcError::new(METHOD_NOT_FOUND, message));
    }
    let proof = match node.execute(at, Query::Proof(address, slots)).await? {
        Answer::Proof(proof) => *proof,
        other => return Err(confused(&other)),
    };
    let words = keys.into_iter().zip(proof.words);
    Ok(ProofJson {
        address,
        account_proof: proof.nodes,
        balance: proof.account.balance,
        code_hash: proof.account.code_hash.unwrap_or(KECCAK256_EMPTY),
        nonce: U64::from(proof.account.nonce),
        storage_hash: proof.storage_root,
        storage_proof: words.map(|(key, (value, proof))| SlotJson { key, value, proof }).collect(),
    })
}
