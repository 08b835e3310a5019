//! What a chain's blocks do around their transactions, where they do: contracts are told of the
//! blocks before (EIP-2935, EIP-4788), and others are asked for what they have queued (EIP-7002,
//! EIP-7251).

use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY};
use parsec_ethereum::{Environment, QueryError};
use revm::database::AccountState;
use revm::primitives::hardfork::SpecId;

use super::machine::Machine;
use crate::evm::keys::AccountRecord;
use crate::evm::trie::StateTrie;

/// Does what comes before the first transaction of the block that the machine is in.
pub(super) fn open(
    machine: &mut Machine<'_>,
    environment: &Environment,
    parent: B256,
) -> Result<(), QueryError> {
    let spec = machine.rules.cfg.spec;
    if spec.is_enabled_in(SpecId::PRAGUE) {
        call(machine, eip2935::HISTORY_STORAGE_ADDRESS, Bytes::from(parent.0))?;
    }
    if spec.is_enabled_in(SpecId::CANCUN) {
        let root = environment.parent_beacon_block_root.unwrap_or_default();
        call(machine, eip4788::BEACON_ROOTS_ADDRESS, Bytes::from(root.0))?;
    }
    Ok(())
}

/// Does what comes after the last transaction.
pub(super) fn close(machine: &mut Machine<'_>) -> Result<(), QueryError> {
    if machine.rules.cfg.spec.is_enabled_in(SpecId::PRAGUE) {
        call(machine, eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, Bytes::new())?;
        call(machine, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, Bytes::new())?;
    }
    Ok(())
}

/// Calls a contract as the system; nothing happens if it is not there.
fn call(machine: &mut Machine<'_>, contract: Address, data: Bytes) -> Result<(), QueryError> {
    if machine.world().db.account(&contract)?.code.hash.is_none() {
        return Ok(());
    }
    let executed = machine.call_system(contract, data).map_err(|failure| failure.of_recorded())?;
    machine.commit(executed.state);
    Ok(())
}

/// The root of the state with what a simulation did to it. `trie` has the state before, and may
/// have some of it already.
pub(super) fn root(machine: &mut Machine<'_>, trie: &mut StateTrie) -> B256 {
    let accounts = &machine.world().cache.accounts;
    let mut addresses: Vec<&Address> = accounts.keys().collect();
    addresses.sort_unstable();
    for address in addresses {
        let account = &accounts[address];
        let info = &account.info;
        let gone = account.account_state == AccountState::NotExisting;
        // EIP-161: what is empty is not there.
        let record = (!gone && !info.is_empty())
            .then_some(AccountRecord { balance: info.balance, nonce: info.nonce });
        let code = Some(info.code_hash).filter(|hash| !gone && *hash != KECCAK256_EMPTY);
        let renewed = gone || account.account_state == AccountState::StorageCleared;
        let words = account.storage.iter().map(|(slot, word)| (*slot, *word));
        trie.set(address, record, code, renewed, words);
    }
    trie.root()
}
