//! Simulated blocks, as Ethereum seals and shows them.

use alloy_consensus::proofs::{calculate_receipt_root, ordered_trie_root_encoded};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, EthereumTxEnvelope, Header, Receipt, ReceiptEnvelope,
    ReceiptWithBloom, SignableTransaction, TxEip1559, TxEip4844, TxEip7702, TxLegacy,
};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Address, B256, Bloom, Bytes, Log, Signature, TxKind, U256, keccak256};
use alloy_rlp::Encodable;
use alloy_trie::EMPTY_ROOT_HASH;
use parsec_ethereum::{Environment, QueryError};
use revm::context::TxEnv;
use revm::context_interface::either::Either;
use revm::context_interface::transaction::TransactionType;
use revm::primitives::hardfork::SpecId;
use serde_json::{Value as Json, json};

use super::Called;

const GAS_PER_BLOB: u64 = 131_072;

/// A call as the transaction that it would be: signed by nobody.
pub(super) struct Transaction {
    envelope: EthereumTxEnvelope<TxEip4844>,
    sender: Address,
    pub(super) raw: Bytes,
    pub(super) hash: B256,
    blob_gas: u64,
}

impl Transaction {
    /// The transaction that was executed as that.
    pub(super) fn new(tx: &TxEnv) -> Self {
        let signature = Signature::new(U256::ZERO, U256::ZERO, false);
        let envelope: EthereumTxEnvelope<TxEip4844> = match TransactionType::from(tx.tx_type) {
            TransactionType::Legacy => legacy(tx).into_signed(signature).into(),
            TransactionType::Eip4844 => blobs(tx).into_signed(signature).into(),
            TransactionType::Eip7702 => delegating(tx).into_signed(signature).into(),
            _ => dynamic(tx).into_signed(signature).into(),
        };
        let raw: Bytes = match &envelope {
            EthereumTxEnvelope::Legacy(signed) => unsigned(signed.tx()),
            envelope => envelope.encoded_2718().into(),
        };
        let count = u64::try_from(tx.blob_hashes.len()).unwrap_or(u64::MAX);
        let blob_gas = GAS_PER_BLOB.saturating_mul(count);
        Self { envelope, sender: tx.caller, hash: keccak256(&raw), raw, blob_gas }
    }

    /// What is said of it where transactions are shown whole.
    fn json(&self, sealed: &Sealed, index: usize, base_fee: u64) -> Result<Json, QueryError> {
        let mut json = serde_json::to_value(&self.envelope)
            .map_err(|error| QueryError::Unavailable(error.to_string()))?;
        json["hash"] = json!(self.hash);
        json["from"] = json!(self.sender);
        json["blockHash"] = json!(sealed.hash);
        json["blockNumber"] = json!(U256::from(sealed.header.number));
        json["blockTimestamp"] = json!(U256::from(sealed.header.timestamp));
        json["transactionIndex"] = json!(U256::from(index));
        let price =
            alloy_consensus::Transaction::effective_gas_price(&self.envelope, Some(base_fee));
        json["gasPrice"] = json!(U256::from(price));
        json["v"] = json!("0x0");
        Ok(json)
    }

    /// Its length in the list of a block's transactions.
    fn length(&self) -> usize {
        match &self.envelope {
            EthereumTxEnvelope::Legacy(_) => self.raw.len(),
            _ => self.raw.length(),
        }
    }
}

fn legacy(tx: &TxEnv) -> TxLegacy {
    TxLegacy {
        chain_id: None,
        nonce: tx.nonce,
        gas_price: tx.gas_price,
        gas_limit: tx.gas_limit,
        to: tx.kind,
        value: tx.value,
        input: tx.data.clone(),
    }
}

fn dynamic(tx: &TxEnv) -> TxEip1559 {
    TxEip1559 {
        chain_id: tx.chain_id.unwrap_or_default(),
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        max_fee_per_gas: tx.gas_price,
        max_priority_fee_per_gas: tx.gas_priority_fee.unwrap_or_default(),
        to: tx.kind,
        value: tx.value,
        access_list: tx.access_list.clone(),
        input: tx.data.clone(),
    }
}

fn blobs(tx: &TxEnv) -> TxEip4844 {
    TxEip4844 {
        chain_id: tx.chain_id.unwrap_or_default(),
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        max_fee_per_gas: tx.gas_price,
        max_priority_fee_per_gas: tx.gas_priority_fee.unwrap_or_default(),
        to: target(tx),
        value: tx.value,
        access_list: tx.access_list.clone(),
        blob_versioned_hashes: tx.blob_hashes.clone(),
        max_fee_per_blob_gas: tx.max_fee_per_blob_gas,
        input: tx.data.clone(),
    }
}

fn delegating(tx: &TxEnv) -> TxEip7702 {
    TxEip7702 {
        chain_id: tx.chain_id.unwrap_or_default(),
        nonce: tx.nonce,
        gas_limit: tx.gas_limit,
        max_fee_per_gas: tx.gas_price,
        max_priority_fee_per_gas: tx.gas_priority_fee.unwrap_or_default(),
        to: target(tx),
        value: tx.value,
        access_list: tx.access_list.clone(),
        authorization_list: tx.authorization_list.iter().map(authorization).collect(),
        input: tx.data.clone(),
    }
}

fn target(tx: &TxEnv) -> Address {
    match tx.kind {
        TxKind::Call(to) => to,
        TxKind::Create => Address::ZERO,
    }
}

/// The authorization without its signature, of which only the signer is left.
fn authorization(
    authorization: &Either<SignedAuthorization, alloy_eips::eip7702::RecoveredAuthorization>,
) -> SignedAuthorization {
    match authorization {
        Either::Left(signed) => signed.clone(),
        Either::Right(recovered) => {
            SignedAuthorization::new_unchecked((**recovered).clone(), 0, U256::ZERO, U256::ZERO)
        }
    }
}

/// The encoding of a legacy transaction with a signature of zeros.
fn unsigned(tx: &TxLegacy) -> Bytes {
    let mut fields = Vec::new();
    tx.nonce.encode(&mut fields);
    tx.gas_price.encode(&mut fields);
    tx.gas_limit.encode(&mut fields);
    tx.to.encode(&mut fields);
    tx.value.encode(&mut fields);
    tx.input.encode(&mut fields);
    for _ in 0..3 {
        0_u8.encode(&mut fields);
    }
    let mut raw = Vec::with_capacity(fields.len() + 9);
    alloy_rlp::Header { list: true, payload_length: fields.len() }.encode(&mut raw);
    raw.extend(fields);
    raw.into()
}

/// A simulated block.
pub(super) struct Sealed {
    pub(super) header: Header,
    pub(super) hash: B256,
    size: usize,
}

impl Sealed {
    /// The block of those calls, after the block with the hash `parent`, with that root of the
    /// state.
    pub(super) fn new(
        spec: SpecId,
        environment: &Environment,
        (parent, state_root): (B256, B256),
        called: &[Called],
    ) -> Self {
        let header = Header { state_root, ..header(spec, environment, parent, called) };
        let transactions: usize = called.iter().map(|call| call.transaction.length()).sum();
        let list = |payload_length| {
            alloy_rlp::Header { list: true, payload_length }.length() + payload_length
        };
        let withdrawals = if spec.is_enabled_in(SpecId::SHANGHAI) { list(0) } else { 0 };
        let size = list(header.length() + list(transactions) + list(0) + withdrawals);
        let hash = header.hash_slow();
        Self { header, hash, size }
    }

    /// The block as it is shown, without its calls.
    pub(super) fn json(
        &self,
        called: &[Called],
        whole: bool,
        base_fee: u64,
    ) -> Result<Json, QueryError> {
        let mut json = serde_json::to_value(&self.header)
            .map_err(|error| QueryError::Unavailable(error.to_string()))?;
        json["hash"] = json!(self.hash);
        json["size"] = json!(U256::from(self.size));
        json["uncles"] = json!([]);
        if self.header.withdrawals_root.is_some() {
            json["withdrawals"] = json!([]);
        }
        let transactions = called.iter().enumerate().map(|(index, call)| match whole {
            true => call.transaction.json(self, index, base_fee),
            false => Ok(json!(call.transaction.hash)),
        });
        json["transactions"] = Json::Array(transactions.collect::<Result<_, _>>()?);
        Ok(json)
    }
}

fn header(spec: SpecId, environment: &Environment, parent: B256, called: &[Called]) -> Header {
    let since = |fork| spec.is_enabled_in(fork);
    let receipts = receipts(called);
    let raw: Vec<Bytes> = called.iter().map(|call| call.transaction.raw.clone()).collect();
    let bloom = |bloom: Bloom, receipt: &ReceiptEnvelope| bloom | *receipt.logs_bloom();
    Header {
        parent_hash: parent,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: environment.coinbase,
        transactions_root: ordered_trie_root_encoded(&raw),
        receipts_root: calculate_receipt_root(&receipts),
        logs_bloom: receipts.iter().fold(Bloom::ZERO, bloom),
        difficulty: environment.difficulty,
        number: environment.number,
        gas_limit: environment.gas_limit,
        gas_used: called.iter().map(|call| call.result.tx_gas_used()).sum(),
        timestamp: environment.timestamp,
        mix_hash: environment.prevrandao,
        base_fee_per_gas: since(SpecId::LONDON).then_some(environment.base_fee),
        withdrawals_root: since(SpecId::SHANGHAI).then_some(EMPTY_ROOT_HASH),
        blob_gas_used: since(SpecId::CANCUN)
            .then(|| called.iter().map(|call| call.transaction.blob_gas).sum()),
        excess_blob_gas: since(SpecId::CANCUN)
            .then(|| environment.excess_blob_gas.unwrap_or_default()),
        parent_beacon_block_root: since(SpecId::CANCUN)
            .then(|| environment.parent_beacon_block_root.unwrap_or_default()),
        requests_hash: since(SpecId::PRAGUE).then_some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

/// The receipts of the calls. Transfers that were only traced are not in them.
fn receipts(called: &[Called]) -> Vec<ReceiptEnvelope> {
    let mut cumulative_gas_used = 0;
    let receipt = |call: &Called| {
        cumulative_gas_used += call.result.tx_gas_used();
        let status = Eip658Value::Eip658(call.result.is_success());
        let logs: Vec<Log> = match call.result.is_success() {
            true => call.result.logs().to_vec(),
            false => Vec::new(),
        };
        let receipt = ReceiptWithBloom::from(Receipt { status, cumulative_gas_used, logs });
        match call.transaction.envelope {
            EthereumTxEnvelope::Legacy(_) => ReceiptEnvelope::Legacy(receipt),
            EthereumTxEnvelope::Eip2930(_) => ReceiptEnvelope::Eip2930(receipt),
            EthereumTxEnvelope::Eip1559(_) => ReceiptEnvelope::Eip1559(receipt),
            EthereumTxEnvelope::Eip4844(_) => ReceiptEnvelope::Eip4844(receipt),
            EthereumTxEnvelope::Eip7702(_) => ReceiptEnvelope::Eip7702(receipt),
        }
    };
    called.iter().map(receipt).collect()
}
