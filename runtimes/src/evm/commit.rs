//! Writing back what a run did to the state.

use alloy_primitives::{Address, U256};
use parsec_protocol::{Delta, Key, Value};
use revm::context::journal::{JournalEntry, JournalInner};
use revm::primitives::hardfork::SpecId;
use revm::state::Account;

use super::keys::{self, AccountRecord, CodeRecord};
use super::params::has_code;
use super::view::{LoadedAccount, View};
use crate::{Interrupt, State};

/// Writes what a run changed, in the order in which it loaded it, and the coinbase's reward.
///
/// A value is only put where it differs from the one that was read; records of hollow accounts
/// are never put.
pub(super) fn write_back(
    view: &mut View<'_>,
    journal: &JournalInner<JournalEntry>,
    coinbase: Address,
) -> Result<(), Interrupt> {
    let spec = journal.cfg.spec;
    let state = &mut *view.state;
    for loaded in &view.trace.accounts {
        let Some(account) = journal.state.get(&loaded.address) else {
            continue;
        };
        match loaded.hollow {
            true => check_hollow(loaded, account)?,
            false => write_account(state, spec, loaded, account)?,
        }
        if account.is_created() && !account.is_selfdestructed() {
            write_new_storage(state, loaded, account)?;
        }
    }
    for slot in &view.trace.slots {
        let loaded = &view.trace.accounts[slot.account];
        let account = journal.state.get(&loaded.address);
        let Some(account) = account.filter(|a| !a.is_created() && !a.is_selfdestructed()) else {
            continue;
        };
        let present = account.storage.get(&slot.slot).map_or(slot.word, |s| s.present_value);
        if present != slot.word {
            state.put(&slot.key, keys::encode_word(present))?;
        }
    }
    reward(view, spec, coinbase)
}

/// A hollow account that changed would be lost: better to stop than to diverge.
fn check_hollow(loaded: &LoadedAccount, account: &Account) -> Result<(), Interrupt> {
    let info = &account.info;
    let same = info.balance.is_zero()
        && info.nonce == 0
        && Some(info.code_hash) == loaded.code.hash
        && !account.is_selfdestructed()
        && !account.is_created();
    match same {
        true => Ok(()),
        false => Err(Interrupt::Fatal(format!("{} changed while hollow", loaded.address))),
    }
}

fn write_account(
    state: &mut dyn State,
    spec: SpecId,
    loaded: &LoadedAccount,
    account: &Account,
) -> Result<(), Interrupt> {
    if !account.is_touched() && !account.is_selfdestructed() {
        return Ok(());
    }
    let info = &account.info;
    // EIP-161: what is touched and empty does not exist. Before it, what is touched exists.
    let exists = !account.is_selfdestructed()
        && (!account.is_empty() || !spec.is_enabled_in(SpecId::SPURIOUS_DRAGON));
    let record = exists.then_some(AccountRecord { balance: info.balance, nonce: info.nonce });
    if record != loaded.record {
        state.put(&loaded.key, record.map(|record| record.encode()))?;
    }
    let code = match (account.is_selfdestructed(), loaded.code.hash) {
        // The storage of the contract is left behind in its incarnation.
        (true, Some(_)) => CodeRecord { hash: None, incarnation: loaded.code.incarnation + 1 },
        (true, None) => loaded.code,
        (false, _) => {
            let hash = has_code(&info.code_hash).then_some(info.code_hash);
            CodeRecord { hash, ..loaded.code }
        }
    };
    if code != loaded.code {
        state.put(&loaded.code_key, code.encode())?;
        write_code(state, account, &code)?;
    }
    Ok(())
}

/// Stores the code that a record names, unless some contract brought it before.
fn write_code(
    state: &mut dyn State,
    account: &Account,
    record: &CodeRecord,
) -> Result<(), Interrupt> {
    let Some(hash) = record.hash else {
        return Ok(());
    };
    let key = keys::code(&hash);
    if state.get(&key)?.is_some() {
        return Ok(());
    }
    let Some(code) = &account.info.code else {
        return Err(Interrupt::Fatal(format!("the code {hash} was created and is not at hand")));
    };
    state.put(&key, Some(code.original_bytes().0.into()))
}

/// Writes the storage of an account that was created: all of it is new.
fn write_new_storage(
    state: &mut dyn State,
    loaded: &LoadedAccount,
    account: &Account,
) -> Result<(), Interrupt> {
    let words = account.storage.iter().map(|(slot, word)| (*slot, word.present_value));
    let mut words: Vec<(U256, U256)> = words.filter(|(_, word)| !word.is_zero()).collect();
    // ORDER: by slot, so that the order of a hash map reaches neither the state nor a stray.
    words.sort_unstable();
    for (slot, word) in words {
        let key = keys::storage(&loaded.address, loaded.code.incarnation, slot);
        state.put(&key, keys::encode_word(word))?;
    }
    Ok(())
}

/// Adds the reward to a coinbase that was not loaded.
fn reward(view: &mut View<'_>, spec: SpecId, coinbase: Address) -> Result<(), Interrupt> {
    let Some(reward) = view.reward else {
        return Ok(());
    };
    let key: Key = keys::account(&coinbase);
    if !reward.is_zero() {
        return view.state.add(&key, Delta(reward.to_be_bytes()));
    }
    // Before EIP-161, a reward of nothing brings the coinbase into existence.
    if !spec.is_enabled_in(SpecId::SPURIOUS_DRAGON) && !view.exists(coinbase)? {
        let empty: Value = AccountRecord::default().encode();
        view.state.put(&key, Some(empty))?;
    }
    Ok(())
}
