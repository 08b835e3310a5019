//! From what a client asks to be sent to a whole transaction.

use alloy_consensus::{
    SignableTransaction, TxEip4844Variant, TxEip4844WithSidecar, TypedTransaction,
};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Signature, TxKind, U256};
use alloy_rpc_types_eth::TransactionRequest;
use bytes::Bytes;
use parsec_ethereum::{Answer, Task};
use parsec_gateway::rpc::{INTERNAL_ERROR, Param, RpcError};
use parsec_gateway::{At, Backend};
use parsec_runtimes::evm::SignedTransaction;
use revm::primitives::hardfork::SpecId;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::backend::{DevBackend, LEAST_TIP, in_next_block};
use crate::chain::DevChain;

/// A transaction as a client describes it.
pub(super) struct Wanted(pub(super) TransactionRequest);

impl Param for Wanted {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let mut value: Value =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let fields = value.as_object_mut().ok_or("a transaction must be an object")?;
        // Tools send what is not there as null, and creations as a call of "0x" or of "".
        fields.retain(|_, value| !value.is_null());
        if matches!(fields.get("to"), Some(Value::String(to)) if to.is_empty() || to == "0x") {
            fields.remove("to");
        }
        serde_json::from_value(value).map(Self).map_err(|error| error.to_string())
    }
}

/// An account whose key nobody has here.
pub(super) fn no_signer() -> RpcError {
    RpcError::invalid_params("No Signer available")
}

/// A transaction that lacks nothing but a signature, and who is to sign it.
pub(super) struct Unsigned {
    pub(super) from: Address,
    pub(super) transaction: TypedTransaction,
    /// Whether the client chose its nonce.
    has_nonce: bool,
}

/// What to do if the gas that a transaction takes can't be estimated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    /// Send it all the same, with all the gas that a block has: it will be seen to fail.
    Send,
    /// Say so.
    Refuse,
}

/// Fills in what a request leaves out.
pub(super) async fn fill(
    backend: &DevBackend,
    request: TransactionRequest,
    failing: Failing,
) -> Result<Unsigned, RpcError> {
    let first = || backend.accounts().addresses().first().copied();
    let from = request.from.or_else(first).ok_or_else(no_signer)?;
    let has_nonce = request.nonce.is_some();
    let mut request = settle(backend, TransactionRequest { from: Some(from), ..request });
    if request.gas.is_none() {
        request.gas = Some(gas(backend, &request, failing).await?);
    }
    let transaction = request.build_typed_tx().map_err(|request| {
        let missing = request.missing_keys().err().map(|(_, keys)| keys).unwrap_or_default();
        RpcError::invalid_params(format!("Invalid transaction request: missing {missing:?}"))
    })?;
    match transaction {
        TypedTransaction::Eip4844(_) => Err(RpcError::invalid_params(
            "transactions of type 3 (EIP-4844) are not accepted: this chain has no consensus \
             layer that would carry their blobs",
        )),
        transaction => Ok(Unsigned { from, transaction, has_nonce }),
    }
}

/// Fills in everything but the gas.
fn settle(backend: &DevBackend, mut request: TransactionRequest) -> TransactionRequest {
    let (nonce, chain_id, base_fee, london) = backend.look(|chain| {
        let nonce = request.from.map(|from| chain.next_nonce(&from));
        let london = chain.fork().spec.is_enabled_in(SpecId::LONDON);
        (nonce, chain.chain_id(), u128::from(chain.base_fee()), london)
    });
    request.nonce = request.nonce.or(nonce);
    request.chain_id = request.chain_id.or(Some(chain_id));
    request.to = request.to.or(Some(TxKind::Create));
    request.value = request.value.or(Some(U256::ZERO));
    let input = request.input.input().cloned().unwrap_or_default();
    request.input = input.into();
    let dynamic = request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some();
    let legacy = matches!(request.transaction_type, Some(0 | 1)) || !london;
    if request.gas_price.is_none() && legacy && !dynamic {
        request.gas_price = Some(base_fee + LEAST_TIP);
    }
    if request.transaction_type == Some(1) || (legacy && request.access_list.is_some()) {
        request.access_list.get_or_insert_default();
    }
    if request.gas_price.is_none() {
        // A fee that is given bounds the tip, and the other way round.
        let tip = request.max_priority_fee_per_gas;
        let fee = request
            .max_fee_per_gas
            .unwrap_or_else(|| base_fee + tip.map_or(LEAST_TIP, |tip| tip.max(LEAST_TIP)));
        request.max_fee_per_gas = Some(fee);
        request.max_priority_fee_per_gas = Some(tip.unwrap_or_else(|| LEAST_TIP.min(fee)));
    }
    request
}

async fn gas(
    backend: &DevBackend,
    request: &TransactionRequest,
    failing: Failing,
) -> Result<u64, RpcError> {
    let environment = backend.environment();
    let gas_limit = environment.gas_limit;
    let task = Task::Estimate(Box::new(request.clone()));
    match backend.query(At::Pending, in_next_block(environment, task)).await {
        Ok(Answer::Gas(gas)) => Ok(gas),
        Ok(answer) => {
            tracing::error!(?answer, "not an estimate");
            Err(RpcError::new(INTERNAL_ERROR, "the gas can't be estimated"))
        }
        Err(_) if failing == Failing::Send => Ok(gas_limit),
        Err(error) => Err(error.into()),
    }
}

impl Unsigned {
    /// The same with the next nonce that its sender has now, unless the client chose one: others
    /// may have taken the one that it was filled with.
    pub(super) fn renewed(mut self, chain: &DevChain) -> Self {
        if self.has_nonce {
            return self;
        }
        let next = chain.next_nonce(&self.from);
        let nonce = match &mut self.transaction {
            TypedTransaction::Legacy(tx) => &mut tx.nonce,
            TypedTransaction::Eip2930(tx) => &mut tx.nonce,
            TypedTransaction::Eip1559(tx) => &mut tx.nonce,
            TypedTransaction::Eip7702(tx) => &mut tx.nonce,
            TypedTransaction::Eip4844(
                TxEip4844Variant::TxEip4844(tx)
                | TxEip4844Variant::TxEip4844WithSidecar(TxEip4844WithSidecar { tx, .. }),
            ) => &mut tx.nonce,
        };
        *nonce = next;
        self
    }

    /// The hash that is to be signed.
    pub(super) fn signature_hash(&self) -> B256 {
        self.transaction.signature_hash()
    }

    /// The whole transaction.
    pub(super) fn signed(self, signature: Signature) -> SignedTransaction {
        match self.transaction {
            TypedTransaction::Legacy(tx) => tx.into_signed(signature).into(),
            TypedTransaction::Eip2930(tx) => tx.into_signed(signature).into(),
            TypedTransaction::Eip1559(tx) => tx.into_signed(signature).into(),
            TypedTransaction::Eip7702(tx) => tx.into_signed(signature).into(),
            TypedTransaction::Eip4844(
                TxEip4844Variant::TxEip4844(tx)
                | TxEip4844Variant::TxEip4844WithSidecar(TxEip4844WithSidecar { tx, .. }),
            ) => tx.into_signed(signature).into(),
        }
    }

    /// The raw bytes of a transaction that its sender need not sign: in the place of the
    /// signature stands who it is, so that two senders' transactions have two hashes.
    pub(super) fn impersonated(self) -> Bytes {
        let sender = U256::from_be_slice(self.from.as_slice());
        encode(&self.signed(Signature::new(sender, U256::ZERO, false)))
    }
}

/// The raw bytes of a transaction.
pub(super) fn encode(transaction: &SignedTransaction) -> Bytes {
    transaction.encoded_2718().into()
}
