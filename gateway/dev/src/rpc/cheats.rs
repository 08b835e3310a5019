//! Changing the state and the rules of the next blocks.

use alloy_primitives::{Address, B256, Bytes, U256};
use parsec_gateway::rpc::{Param, RpcError};
use revm::primitives::hardfork::SpecId;
use serde_json::value::RawValue;

use super::mine::Wide;
use super::{Family, stopped};
use crate::backend::DevBackend;
use crate::chain::DevChain;

/// A word of storage: 32 bytes, or a quantity.
struct Word(U256);

impl Param for Word {
    fn read(raw: &RawValue) -> Result<Self, String> {
        Wide::read(raw).map(|wide| Self(wide.0))
    }
}

async fn change(
    backend: &DevBackend,
    change: impl FnOnce(&mut DevChain) + Send + 'static,
) -> Result<bool, RpcError> {
    let changed = backend.change(move |chain, _| {
        change(chain);
        Ok(true)
    });
    changed.await.map_err(stopped)
}

pub(super) fn add(family: &mut Family) {
    add_state(family);
    add_senders(family);
    add_rules(family);
    add_absent(family);
}

fn add_state(family: &mut Family) {
    family.act(
        &[
            "hardhat_setBalance",
            "anvil_setBalance",
            "evm_setAccountBalance",
            "tenderly_setBalance",
            "anvil_deal",
        ],
        async |backend: DevBackend, (address, balance): (Address, Wide)| {
            change(&backend, move |chain| chain.set_balance(&address, balance.0)).await
        },
    );
    family.act(
        &["hardhat_addBalance", "anvil_addBalance", "tenderly_addBalance"],
        async |backend: DevBackend, (address, amount): (Address, Wide)| {
            change(&backend, move |chain| {
                let balance = chain.balance(&address).saturating_add(amount.0);
                chain.set_balance(&address, balance);
            })
            .await
        },
    );
    family.act(
        &["hardhat_setCode", "anvil_setCode", "evm_setAccountCode"],
        async |backend: DevBackend, (address, code): (Address, Bytes)| {
            change(&backend, move |chain| chain.set_code(&address, &code)).await
        },
    );
    family.act(
        &["hardhat_setNonce", "anvil_setNonce", "evm_setAccountNonce"],
        async |backend: DevBackend, (address, nonce): (Address, Wide)| {
            let nonce = u64::try_from(nonce.0)
                .map_err(|_| RpcError::invalid_params("a nonce has at most 64 bits"))?;
            change(&backend, move |chain| chain.set_nonce(&address, nonce)).await
        },
    );
    family.act(
        &["hardhat_setStorageAt", "anvil_setStorageAt", "evm_setAccountStorageAt"],
        async |backend: DevBackend, (address, slot, word): (Address, Word, Word)| {
            change(&backend, move |chain| chain.set_storage(&address, slot.0, word.0)).await
        },
    );
}

fn add_senders(family: &mut Family) {
    family.act(
        &["hardhat_impersonateAccount", "anvil_impersonateAccount"],
        async |backend: DevBackend, (address,): (Address,)| {
            change(&backend, move |chain| chain.impersonate(address, true)).await
        },
    );
    family.act(
        &["hardhat_stopImpersonatingAccount", "anvil_stopImpersonatingAccount"],
        async |backend: DevBackend, (address,): (Address,)| {
            change(&backend, move |chain| chain.impersonate(address, false)).await
        },
    );
    family.act(
        &["anvil_autoImpersonateAccount", "hardhat_autoImpersonateAccount"],
        async |backend: DevBackend, (on,): (bool,)| {
            change(&backend, move |chain| chain.impersonate_all(on)).await
        },
    );
}

fn add_rules(family: &mut Family) {
    family.act(
        &["hardhat_setCoinbase", "anvil_setCoinbase", "evm_setCoinbase"],
        async |backend: DevBackend, (coinbase,): (Address,)| {
            change(&backend, move |chain| chain.set_coinbase(coinbase)).await
        },
    );
    family.act(
        &["hardhat_setNextBlockBaseFeePerGas", "anvil_setNextBlockBaseFeePerGas"],
        async |backend: DevBackend, (fee,): (Wide,)| {
            if !backend.look(|chain| chain.fork().spec.is_enabled_in(SpecId::LONDON)) {
                return Err(RpcError::invalid_params("there is no base fee before London"));
            }
            let fee = u64::try_from(fee.0)
                .map_err(|_| RpcError::invalid_params("a base fee has at most 64 bits"))?;
            change(&backend, move |chain| chain.set_next_base_fee(fee)).await
        },
    );
    family.act(
        &["hardhat_setMinGasPrice", "anvil_setMinGasPrice"],
        async |backend: DevBackend, (_,): (Wide,)| {
            match backend.look(|chain| chain.fork().spec.is_enabled_in(SpecId::LONDON)) {
                true => Err(RpcError::invalid_params(
                    "setMinGasPrice is not supported when EIP-1559 is active",
                )),
                // Transactions of any price are taken.
                false => Ok(true),
            }
        },
    );
    family.act(
        &["evm_setBlockGasLimit", "anvil_setBlockGasLimit"],
        async |backend: DevBackend, (gas,): (Wide,)| {
            let gas = gas.0.saturating_to();
            change(&backend, move |chain| chain.set_gas_limit(gas)).await
        },
    );
    family.act(&["anvil_setChainId"], async |backend: DevBackend, (id,): (Wide,)| {
        let id = u64::try_from(id.0)
            .map_err(|_| RpcError::invalid_params("a chain id has at most 64 bits"))?;
        change(&backend, move |chain| chain.set_chain_id(id)).await
    });
}

/// What is asked for of a development chain and has no sense here: taken, or refused clearly.
fn add_absent(family: &mut Family) {
    family.act(
        &["hardhat_addCompilationResult"],
        async |_, _: (Option<Ignored>, Option<Ignored>, Option<Ignored>)| Ok(false),
    );
    family.act(
        &["hardhat_setLoggingEnabled", "anvil_setLoggingEnabled"],
        async |_, (_,): (bool,)| Ok(true),
    );
    family.act(&["anvil_setRpcUrl"], async |_, (_,): (Option<Ignored>,)| {
        Err::<B256, _>(RpcError::server("this chain is no fork of another"))
    });
}

/// A parameter that does not matter.
struct Ignored;

impl Param for Ignored {
    fn read(_: &RawValue) -> Result<Self, String> {
        Ok(Self)
    }
}
