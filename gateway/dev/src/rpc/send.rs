//! Sending the transactions of accounts whose keys are known, or that are impersonated.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, Signature, U256, keccak256};
use parsec_gateway::rpc::{Count, INTERNAL_ERROR, RpcError};
use parsec_gateway::shape::{ReceiptJson, TransactionJson};
use parsec_gateway::{Backend, Chain};
use parsec_runtimes::evm::payload;
use serde_json::{Value, json};

use super::request::{Failing, Unsigned, Wanted, encode, fill, no_signer};
use super::{Family, stopped};
use crate::accounts::Accounts;
use crate::backend::DevBackend;
use crate::chain::DevChain;
use crate::transaction::Submission;

/// How long a transaction is waited for, unless the client says it.
const RECEIPT_WAIT: Duration = Duration::from_secs(30);

pub(super) fn add(family: &mut Family) {
    family.act(&["eth_accounts", "eth_requestAccounts"], async |backend: DevBackend, ()| {
        Ok(accounts(&backend))
    });
    family.act(&["eth_sendTransaction"], async |backend: DevBackend, (wanted,): (Wanted,)| {
        let unsigned = fill(&backend, wanted.0, Failing::Send).await?;
        send(&backend, unsigned, Authority::Own).await
    });
    family.act(
        &["eth_sendUnsignedTransaction"],
        async |backend: DevBackend, (wanted,): (Wanted,)| {
            let unsigned = fill(&backend, wanted.0, Failing::Send).await?;
            send(&backend, unsigned, Authority::Nobodys).await
        },
    );
    family.act(
        &["eth_sendTransactionSync"],
        async |backend: DevBackend, (wanted, timeout): (Wanted, Option<Count>)| {
            let unsigned = fill(&backend, wanted.0, Failing::Send).await?;
            let wait = timeout.map_or(RECEIPT_WAIT, |timeout| Duration::from_millis(timeout.0));
            send_and_wait(&backend, unsigned, wait.min(RECEIPT_WAIT)).await
        },
    );
    family.act(&["eth_signTransaction"], async |backend: DevBackend, (wanted,): (Wanted,)| {
        let unsigned = fill(&backend, wanted.0, Failing::Send).await?;
        Ok(Bytes::from(sign(backend.accounts(), unsigned)?))
    });
    family.act(&["eth_fillTransaction"], async |backend: DevBackend, (wanted,): (Wanted,)| {
        let unsigned = fill(&backend, wanted.0, Failing::Refuse).await?;
        Ok(filled(unsigned))
    });
}

/// The accounts that can be sent from: those with keys, then those that are impersonated.
fn accounts(backend: &DevBackend) -> Vec<Address> {
    let mut accounts = backend.accounts().addresses().to_vec();
    let impersonated = backend.look(|chain| chain.impersonated());
    accounts
        .extend(impersonated.iter().filter(|address| backend.accounts().key(address).is_none()));
    accounts
}

/// Whose signature a transaction needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Authority {
    /// Its sender's, unless that is impersonated.
    Own,
    Nobodys,
}

/// Signs a transaction, unless its sender is impersonated.
pub(super) fn authorize(
    accounts: &Accounts,
    chain: &DevChain,
    unsigned: Unsigned,
    authority: Authority,
) -> Result<Submission, RpcError> {
    let from = unsigned.from;
    let raw = match authority == Authority::Nobodys || chain.is_impersonated(&from) {
        true => unsigned.impersonated(),
        false => sign(accounts, unsigned)?,
    };
    // A signature that was just made need not be checked.
    Ok(Submission::impersonated(&raw, from)?)
}

fn sign(accounts: &Accounts, unsigned: Unsigned) -> Result<bytes::Bytes, RpcError> {
    let hash = unsigned.signature_hash();
    let signature = accounts.sign(&unsigned.from, hash).ok_or_else(no_signer)?;
    Ok(encode(&unsigned.signed(signature)))
}

async fn send(
    backend: &DevBackend,
    unsigned: Unsigned,
    authority: Authority,
) -> Result<B256, RpcError> {
    let signer = backend.clone();
    // ORDER: the nonce is chosen and used while nobody else can send: clients send several
    // transactions at a time without one.
    let sent = backend.change(move |chain, now| {
        let unsigned = unsigned.renewed(chain);
        match authorize(signer.accounts(), chain, unsigned, authority) {
            Ok(submission) => Ok(Ok(chain.submit(now, vec![Ok(submission)])?)),
            Err(error) => Ok(Err(error)),
        }
    });
    let missing = || Err(RpcError::new(INTERNAL_ERROR, "no answer to a transaction"));
    let sent = sent.await.map_err(stopped)??.pop();
    sent.map_or_else(missing, |result| result.map_err(RpcError::from))
}

async fn send_and_wait(
    backend: &DevBackend,
    unsigned: Unsigned,
    wait: Duration,
) -> Result<ReceiptJson, RpcError> {
    let index = backend.index();
    // ORDER: listens before it sends, not to miss the block.
    let mut changes = index.subscribe();
    let hash = send(backend, unsigned, Authority::Own).await?;
    let executed = async {
        loop {
            if let Some(receipt) = receipt(backend, &index, hash)? {
                return Ok(receipt);
            }
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = changes.recv().await {
                return Err(RpcError::new(INTERNAL_ERROR, "the chain has ended"));
            }
        }
    };
    tokio::time::timeout(wait, executed).await.unwrap_or_else(|_| {
        let message = "the transaction was added to the pool but was not executed in time";
        Err(RpcError::new(4, message).with_data(json!(hash)))
    })
}

/// The receipt of a transaction; none while it is in no block.
fn receipt(
    backend: &DevBackend,
    index: &Chain,
    hash: B256,
) -> Result<Option<ReceiptJson>, RpcError> {
    let view = index.view();
    let Some(placed) = view.transaction(hash)? else { return Ok(None) };
    let Some(head) = view.header(placed.place.number)? else { return Ok(None) };
    let transaction = payload::decode(&placed.transaction.raw)
        .map_err(|error| RpcError::new(INTERNAL_ERROR, error.to_string()))?;
    let blobs = || backend.blobs(head.number, head.header.timestamp);
    let price = head.header.excess_blob_gas.map_or(1, |excess| blobs().calc_blob_fee(excess));
    Ok(Some(ReceiptJson::new(&head, &placed, &transaction, price)))
}

/// A transaction without a signature, whole otherwise.
fn filled(unsigned: Unsigned) -> Value {
    let from = unsigned.from;
    let transaction = unsigned.signed(Signature::new(U256::ZERO, U256::ZERO, false));
    let raw = encode(&transaction);
    let shown = TransactionJson::new(&transaction, keccak256(&raw), from, None);
    json!({ "raw": Bytes::from(raw), "tx": shown })
}
