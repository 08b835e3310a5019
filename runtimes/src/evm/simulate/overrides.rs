//! What is different from the state, as a request says.

use alloy_primitives::map::B256HashMap;
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rpc_types_eth::state::{AccountOverride, StateOverride};
use parsec_ethereum::QueryError;
use revm::Database;
use revm::database::AccountState;
use revm::state::AccountInfo;

use super::base::World;
use super::precompiles::Precompiles;
use crate::evm::view::analyse;

/// Applies overrides to a state and the precompiled contracts.
///
/// Whoever overrides an address of a precompiled contract takes that contract away, as it is with
/// geth; it may be moved to another address at once.
///
/// # Errors
/// [`QueryError::Invalid`] if they contradict each other.
pub(super) fn apply(
    world: &mut World<'_>,
    precompiles: &mut Precompiles,
    overrides: &StateOverride,
) -> Result<(), QueryError> {
    let mut sorted: Vec<_> = overrides.iter().collect();
    // ORDER: by address, so that which of two moves wins and which error is told is always the same.
    sorted.sort_unstable_by_key(|(address, _)| **address);
    let mut targets = Vec::new();
    for (address, account) in sorted {
        if targets.contains(address) {
            let reason = format!("account {address} has already been overridden by a precompile");
            return Err(QueryError::Invalid(reason));
        }
        if let Some(target) = account.move_precompile_to {
            check_move(precompiles, overrides, address, &target)?;
            precompiles.copy(*address, target);
            targets.push(target);
        }
        if precompiles.contains(address) {
            precompiles.remove(address);
        }
        apply_account(world, *address, account)?;
    }
    Ok(())
}

fn check_move(
    precompiles: &Precompiles,
    overrides: &StateOverride,
    address: &Address,
    target: &Address,
) -> Result<(), QueryError> {
    if !precompiles.contains(address) {
        return Err(QueryError::Invalid(format!("account {address} is not a precompile")));
    }
    match overrides.contains_key(target) {
        true => Err(QueryError::Invalid(format!("account {target} is already overridden"))),
        false => Ok(()),
    }
}

fn apply_account(
    world: &mut World<'_>,
    address: Address,
    account: &AccountOverride,
) -> Result<(), QueryError> {
    let AccountOverride { balance, nonce, code, state, state_diff, .. } = account;
    if balance.is_some() || nonce.is_some() || code.is_some() {
        let mut info = world.basic(address).map_err(|stop| stop.0)?.unwrap_or_default();
        info.balance = balance.unwrap_or(info.balance);
        info.nonce = nonce.unwrap_or(info.nonce);
        if let Some(code) = code {
            info.code_hash = keccak256(code);
            info.code = Some(analyse(code.0.clone().into()));
        }
        set_info(world, address, info);
    }
    match (state, state_diff) {
        (None, None) => Ok(()),
        (Some(_), Some(_)) => {
            let reason = format!("account {address} has both 'state' and 'stateDiff'");
            Err(QueryError::Invalid(reason))
        }
        (Some(state), None) => {
            let words = words(state).collect();
            world.replace_account_storage(address, words).map_err(|stop| stop.0)
        }
        (None, Some(diff)) => words(diff).try_for_each(|(slot, word)| {
            world.insert_account_storage(address, slot, word).map_err(|stop| stop.0)
        }),
    }
}

fn words(words: &B256HashMap<B256>) -> impl Iterator<Item = (U256, U256)> {
    let word = |word: &B256| U256::from_be_bytes(word.0);
    words.iter().map(move |(slot, value)| (word(slot), word(value)))
}

fn set_info(world: &mut World<'_>, address: Address, info: AccountInfo) {
    let gone = world
        .cache
        .accounts
        .get(&address)
        .is_some_and(|account| account.account_state == AccountState::NotExisting);
    world.insert_account_info(address, info);
    // What the account had before it destroyed itself does not come back.
    if gone && let Some(account) = world.cache.accounts.get_mut(&address) {
        account.account_state = AccountState::StorageCleared;
    }
}
