//! The accounts that an execution touched, before it, and what it changed: geth's prestate tracer.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256};
use revm::DatabaseRef;
use revm::state::{Account, AccountInfo, EvmState};
use serde::{Deserialize, Serialize};

use crate::evm::simulate::base::{Stop, World};

/// What is asked of the tracer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    /// Whether only what changed is told, before and after.
    diff_mode: bool,
    disable_code: bool,
    disable_storage: bool,
    /// Whether accounts are told that there were not.
    include_empty: bool,
}

/// What the tracer says.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Frame {
    /// The accounts before the execution.
    Before(BTreeMap<Address, State>),
    /// What changed.
    Change { pre: BTreeMap<Address, State>, post: BTreeMap<Address, State> },
}

/// An account, or what of it changed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_hash: Option<B256>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    storage: BTreeMap<B256, B256>,
}

/// What the tracer says of an execution on `world` that ended with those accounts.
pub(super) fn frame(config: Config, world: &World<'_>, touched: &EvmState) -> Result<Frame, Stop> {
    let (mut pre, mut post) = (BTreeMap::new(), BTreeMap::new());
    for (address, account) in touched.iter().collect::<BTreeMap<_, _>>() {
        let info = world.basic_ref(*address)?.unwrap_or_default();
        let code = code(world, &info)?;
        let empty = info.is_empty();
        let mut before = config.before(&info, code, account);
        if config.diff_mode && !account.is_selfdestructed() {
            let Some(after) = config.change(&info, &mut before, account) else {
                continue;
            };
            post.insert(*address, after);
        }
        if config.include_empty || !empty {
            pre.insert(*address, before);
        }
    }
    Ok(if config.diff_mode { Frame::Change { pre, post } } else { Frame::Before(pre) })
}

fn code(world: &World<'_>, info: &AccountInfo) -> Result<Bytes, Stop> {
    match info.is_empty_code_hash() {
        true => Ok(Bytes::new()),
        false => Ok(world.code_by_hash_ref(info.code_hash)?.original_bytes()),
    }
}

impl Config {
    fn before(self, info: &AccountInfo, code: Bytes, account: &Account) -> State {
        let has_code = !info.is_empty_code_hash();
        let words = account.storage.iter();
        let words = words.map(|(slot, word)| (B256::from(*slot), B256::from(word.original_value)));
        State {
            balance: Some(info.balance),
            nonce: Some(info.nonce).filter(|nonce| *nonce > 0),
            code: Some(code).filter(|_| has_code && !self.disable_code),
            code_hash: Some(info.code_hash).filter(|_| has_code),
            storage: if self.disable_storage { BTreeMap::new() } else { words.collect() },
        }
    }

    /// What changed of an account, if anything did. What stayed the same of its storage, or was
    /// zero, is left out of what was `before`.
    fn change(self, info: &AccountInfo, before: &mut State, account: &Account) -> Option<State> {
        let now = &account.info;
        let mut after = State {
            balance: Some(now.balance).filter(|balance| *balance != info.balance),
            nonce: Some(now.nonce).filter(|nonce| *nonce != info.nonce),
            ..State::default()
        };
        let same_code = now.code_hash == info.code_hash
            || (now.is_empty_code_hash() && info.is_empty_code_hash());
        if !same_code {
            after.code_hash = Some(now.code_hash);
            let code = now.code.as_ref().map(revm::bytecode::Bytecode::original_bytes);
            after.code = Some(code.unwrap_or_default()).filter(|_| !self.disable_code);
        }
        let changed = account.storage.iter().filter(|(_, word)| word.is_changed());
        let mut stays = Vec::new();
        for (slot, word) in changed.filter(|_| !self.disable_storage) {
            if !word.original_value.is_zero() {
                stays.push(B256::from(*slot));
            }
            after.storage.insert((*slot).into(), word.present_value.into());
        }
        let changed = after != State::default();
        before.storage.retain(|slot, _| stays.contains(slot));
        after.storage.retain(|_, word| !word.is_zero());
        changed.then_some(after)
    }
}
