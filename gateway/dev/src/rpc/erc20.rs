//! Setting what accounts own, and may spend, of tokens whose storage nobody here knows.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_eth::state::{AccountOverride, StateOverride};
use parsec_ethereum::{Answer, Query, Simulation, Task};
use parsec_gateway::rpc::RpcError;
use parsec_gateway::{At, Backend};

use super::mine::Wide;
use super::{Family, stopped};
use crate::backend::DevBackend;

/// `balanceOf(address)`.
const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
/// `allowance(address,address)`.
const ALLOWANCE: [u8; 4] = [0xdd, 0x62, 0xed, 0x3e];

pub(super) fn add(family: &mut Family) {
    family.act(
        &["anvil_dealERC20", "anvil_setERC20Balance"],
        async |backend: DevBackend, (owner, token, amount): (Address, Address, Wide)| {
            let question = question(BALANCE_OF, &[owner]);
            set(&backend, token, question, amount.0).await
        },
    );
    family.act(
        &["anvil_setERC20Allowance"],
        async |backend: DevBackend,
               (owner, spender, token, amount): (Address, Address, Address, Wide)| {
            let question = question(ALLOWANCE, &[owner, spender]);
            set(&backend, token, question, amount.0).await
        },
    );
}

/// The data of a call that asks a token about accounts.
fn question(selector: [u8; 4], accounts: &[Address]) -> Bytes {
    let words = accounts.iter().flat_map(|account| account.into_word().0);
    selector.into_iter().chain(words).collect()
}

/// Finds the slot that the answer to a question stands in, and sets it.
async fn set(
    backend: &DevBackend,
    token: Address,
    question: Bytes,
    amount: U256,
) -> Result<(), RpcError> {
    let request = TransactionRequest::default().to(token).input(question.into());
    let list = Task::AccessList(Box::new(request.clone()));
    let Answer::AccessList(touched) = ask(backend, StateOverride::default(), list).await? else {
        return Err(not_found(token));
    };
    for item in touched.access_list.0 {
        for slot in item.storage_keys {
            if answers(backend, &request, item.address, slot, amount).await? {
                let change = backend.change(move |chain, _| {
                    chain.set_storage(&item.address, slot.into(), amount);
                    Ok(())
                });
                return change.await.map_err(stopped);
            }
        }
    }
    Err(not_found(token))
}

fn not_found(token: Address) -> RpcError {
    RpcError::server(format!("no slot of storage holds what {token} answers"))
}

/// Whether a token would answer with an amount if that stood in a slot.
async fn answers(
    backend: &DevBackend,
    request: &TransactionRequest,
    address: Address,
    slot: B256,
    amount: U256,
) -> Result<bool, RpcError> {
    let word = [(slot, B256::from(amount))].into_iter().collect();
    let change = AccountOverride { state_diff: Some(word), ..AccountOverride::default() };
    let overrides = [(address, change)].into_iter().collect();
    let call = Task::Call(Box::new(request.clone()));
    Ok(match ask(backend, overrides, call).await? {
        Answer::Call(result) => {
            result.failure.is_none() && result.output[..] == amount.to_be_bytes::<32>()
        }
        _ => false,
    })
}

async fn ask(
    backend: &DevBackend,
    overrides: StateOverride,
    task: Task,
) -> Result<Answer, RpcError> {
    let environment = backend.environment();
    let simulation = Simulation { environment, overrides, before: Vec::new(), task };
    let latest = At::Block(backend.look(|chain| chain.latest()));
    Ok(backend.query(latest, Query::Simulate(Box::new(simulation))).await?)
}
