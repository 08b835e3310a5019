//! Raw transactions, where a test gives only their fields.

use std::sync::LazyLock;

use alloy_consensus::{
    EthereumTxEnvelope, SignableTransaction, Signed, TxEip1559, TxEip2930, TxEip4844, TxEip7702,
    TxLegacy,
};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip2930::{self, AccessList};
use alloy_eips::eip7702::{self, SignedAuthorization};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex};
use bytes::Bytes as Raw;
use parsec_runtimes::evm::SignedTransaction;
use secp256k1::{Message, Secp256k1, SecretKey, SignOnly};

use super::Failure;
use super::case::{AccessListItem, Authorization, Indexes, Number, Transaction};

static SIGNER: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// A transaction without a key to sign with: with a placeholder for the signature, and its sender.
pub(super) type Unsigned = (Raw, Address);

/// Builds a variant of a transaction. `Ok(Err)` has the sender with it where there is no key.
///
/// # Errors
/// If no transaction has such fields.
pub(super) fn build(
    transaction: &Transaction,
    at: Indexes,
    chain_id: u64,
) -> Result<Result<Raw, Unsigned>, Failure> {
    let fields = Fields::new(transaction, at, chain_id)?;
    let key = transaction.secret_key;
    let raw = if transaction.authorization_list.is_some() {
        sign(fields.eip7702()?, key)
    } else if transaction.blob_versioned_hashes.is_some() {
        sign(fields.eip4844()?, key)
    } else if transaction.max_fee_per_gas.is_some() {
        sign(fields.eip1559()?, key)
    } else if fields.access_list.is_some() {
        sign(fields.eip2930()?, key)
    } else {
        sign(fields.legacy()?, key)
    }?;
    match (key, transaction.sender) {
        (Some(_), _) => Ok(Ok(raw)),
        (None, Some(sender)) => Ok(Err((raw, sender))),
        (None, None) => Err("neither a key nor a sender is given".to_owned()),
    }
}

/// Signs with a key, or puts a placeholder where the signature would be.
fn sign<T: SignableTransaction<Signature>>(
    transaction: T,
    key: Option<B256>,
) -> Result<Raw, Failure>
where
    SignedTransaction: From<Signed<T>>,
{
    let signature = match key {
        None => Signature::new(U256::ONE, U256::ONE, false),
        Some(key) => {
            let key = SecretKey::from_byte_array(key.0).map_err(|error| error.to_string())?;
            let digest = Message::from_digest(transaction.signature_hash().0);
            let signature = SIGNER.sign_ecdsa_recoverable(digest, &key);
            let (parity, scalars) = signature.serialize_compact();
            Signature::from_bytes_and_parity(&scalars, i32::from(parity) & 1 == 1)
        }
    };
    Ok(SignedTransaction::from(transaction.into_signed(signature)).encoded_2718().into())
}

/// The same transaction with another gas limit, under the same signature.
pub(super) fn with_gas_limit(transaction: SignedTransaction, gas_limit: u64) -> Raw {
    macro_rules! set {
        ($signed:expr) => {{
            let (mut transaction, signature, _) = $signed.into_parts();
            transaction.gas_limit = gas_limit;
            transaction.into_signed(signature).into()
        }};
    }
    let transaction: SignedTransaction = match transaction {
        EthereumTxEnvelope::Legacy(signed) => set!(signed),
        EthereumTxEnvelope::Eip2930(signed) => set!(signed),
        EthereumTxEnvelope::Eip1559(signed) => set!(signed),
        EthereumTxEnvelope::Eip4844(signed) => set!(signed),
        EthereumTxEnvelope::Eip7702(signed) => set!(signed),
    };
    transaction.encoded_2718().into()
}

/// The fields of one variant.
struct Fields<'a> {
    transaction: &'a Transaction,
    chain_id: u64,
    nonce: u64,
    gas_limit: u64,
    to: TxKind,
    value: U256,
    input: Bytes,
    access_list: Option<AccessList>,
}

impl<'a> Fields<'a> {
    fn new(transaction: &'a Transaction, at: Indexes, chain_id: u64) -> Result<Self, Failure> {
        let missing = |what: &str| format!("{what}: there is no such variant");
        let input = transaction.data.get(at.data).ok_or_else(|| missing("data"))?;
        let lists = &transaction.access_lists;
        let list = lists.get(at.data).cloned().flatten().map(access_list).transpose()?;
        Ok(Self {
            transaction,
            chain_id,
            nonce: transaction.nonce.quantity()?,
            gas_limit: transaction
                .gas_limit
                .get(at.gas)
                .ok_or_else(|| missing("gas limit"))?
                .quantity()?,
            to: match transaction.to.as_str() {
                "" => TxKind::Create,
                to => TxKind::Call(to.parse().map_err(|error| format!("{to:?}: {error}"))?),
            },
            value: transaction.value.get(at.value).ok_or_else(|| missing("value"))?.wide()?,
            input: hex::decode(input).map_err(|error| format!("data: {error}"))?.into(),
            access_list: list,
        })
    }

    fn gas_price(&self) -> Result<u128, Failure> {
        self.transaction.gas_price.as_ref().map_or(Ok(0), Number::price)
    }

    /// The most that is paid for gas, and the part of it that the coinbase gets.
    fn fees(&self) -> Result<(u128, u128), Failure> {
        let price = |number: &Option<Number>| number.as_ref().map_or(Ok(0), Number::price);
        let transaction = self.transaction;
        Ok((price(&transaction.max_fee_per_gas)?, price(&transaction.max_priority_fee_per_gas)?))
    }

    fn callee(&self) -> Result<Address, Failure> {
        self.to.to().copied().ok_or_else(|| "this type of transaction can't create".to_owned())
    }

    fn legacy(self) -> Result<TxLegacy, Failure> {
        let gas_price = self.gas_price()?;
        let Self { nonce, gas_limit, to, value, input, .. } = self;
        Ok(TxLegacy { chain_id: None, nonce, gas_price, gas_limit, to, value, input })
    }

    fn eip2930(self) -> Result<TxEip2930, Failure> {
        let gas_price = self.gas_price()?;
        let Self { chain_id, nonce, gas_limit, to, value, input, .. } = self;
        let access_list = self.access_list.unwrap_or_default();
        Ok(TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, input, access_list })
    }

    fn eip1559(self) -> Result<TxEip1559, Failure> {
        let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees()?;
        let Self { chain_id, nonce, gas_limit, to, value, input, .. } = self;
        Ok(TxEip1559 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value,
            input,
            access_list: self.access_list.unwrap_or_default(),
        })
    }

    fn eip4844(self) -> Result<TxEip4844, Failure> {
        let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees()?;
        let to = self.callee()?;
        let max_fee_per_blob_gas = self.transaction.max_fee_per_blob_gas.as_ref();
        Ok(TxEip4844 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value: self.value,
            input: self.input,
            access_list: self.access_list.unwrap_or_default(),
            blob_versioned_hashes: self.transaction.blob_versioned_hashes.clone().unwrap_or_default(),
            max_fee_per_blob_gas: max_fee_per_blob_gas.map_or(Ok(0), Number::price)?,
        })
    }

    fn eip7702(self) -> Result<TxEip7702, Failure> {
        let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees()?;
        let to = self.callee()?;
        let list = self.transaction.authorization_list.iter().flatten();
        Ok(TxEip7702 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value: self.value,
            input: self.input,
            access_list: self.access_list.unwrap_or_default(),
            authorization_list: list.map(authorization).collect::<Result<_, _>>()?,
        })
    }
}

fn access_list(items: Vec<AccessListItem>) -> Result<AccessList, Failure> {
    let item = |item: AccessListItem| {
        let slot = |slot: &Number| Ok(B256::from(slot.wide()?));
        let storage_keys = item.storage_keys.iter().map(slot).collect::<Result<_, Failure>>()?;
        Ok(eip2930::AccessListItem { address: item.address, storage_keys })
    };
    Ok(AccessList(items.into_iter().map(item).collect::<Result<_, Failure>>()?))
}

fn authorization(signed: &Authorization) -> Result<SignedAuthorization, Failure> {
    let authorization = eip7702::Authorization {
        chain_id: signed.chain_id.wide()?,
        address: signed.address,
        nonce: signed.nonce.quantity()?,
    };
    let parity = u8::try_from(signed.y_parity.quantity()?).map_err(|error| error.to_string())?;
    let (r, s) = (signed.r.wide()?, signed.s.wide()?);
    Ok(SignedAuthorization::new_unchecked(authorization, parity, r, s))
}
