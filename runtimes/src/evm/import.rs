//! Reading a block of another chain, with the state it ran in, so that it can be run again.
//!
//! The input is a JSON object of `fork`, `block` (as `eth_getBlockByNumber` gives it, with whole
//! transactions), `blockHashes` (number to hash, of earlier blocks) and `pre` (address to balance,
//! nonce, code hash and the storage that the block touches), and beside it a JSON object of code
//! by its hash. Raw transactions are rebuilt from their fields, and must have the hash they claim.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use alloy_consensus::transaction::{RlpEcdsaEncodableTx, from_eip155_value};
use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bloom, Bytes, Signature, TxKind, U256, keccak256};
use parsec_protocol::{Key, Value};
use revm::primitives::hardfork::SpecId;
use serde_json::{Map, Value as Json};

use super::forks::Fork;
use super::params::{BlobGas, BlockOverride, ChainParams, GenesisAccount, Permits, genesis};
use super::payload::SignedTransaction;

/// Why a block can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum ImportError {
    #[error("it is not JSON: {reason}")]
    Json { reason: String },
    #[error("{name} is missing")]
    Missing { name: String },
    #[error("{name} is {text:?}: {reason}")]
    Field { name: String, text: String, reason: String },
    #[error("the code {hash} is not among those given, or is other code")]
    Code { hash: B256 },
    #[error("transactions of type {kind} can't be rebuilt")]
    Kind { kind: u64 },
    #[error("the rebuilt transaction has the hash {rebuilt}, not {claimed}")]
    Hash { claimed: B256, rebuilt: B256 },
}

/// Contract code by its hash.
#[derive(Debug, Clone, Default)]
pub struct Bytecodes(BTreeMap<B256, Bytes>);

impl Bytecodes {
    /// Reads a JSON object of code by its hash. Hashes are checked when a block asks for code.
    ///
    /// # Errors
    /// [`ImportError`] if the bytes are not such an object.
    pub fn read(json: &[u8]) -> Result<Self, ImportError> {
        let texts: BTreeMap<String, String> = from_json(json)?;
        let parse_entry = |(hash, code): (String, String)| {
            Ok((parse::<B256>("code hash", &hash)?, parse::<Bytes>("code", &code)?))
        };
        texts.into_iter().map(parse_entry).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, hash: B256) -> Result<Bytes, ImportError> {
        let code = self.0.get(&hash).filter(|code| keccak256(code) == hash);
        code.cloned().ok_or(ImportError::Code { hash })
    }
}

/// A block of another chain, ready to be run.
#[derive(Debug, Clone)]
pub struct ImportedBlock {
    /// The parameters to run it with, that name the block itself.
    pub params: ChainParams,
    /// The accounts before it, as far as it touches them.
    pub accounts: BTreeMap<Address, GenesisAccount>,
    /// Its transactions, in order.
    pub transactions: Vec<ImportedTransaction>,
    /// What its header says of the result.
    pub header: ImportedHeader,
}

/// A transaction of an imported block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedTransaction {
    /// Its raw bytes, the payload for [`EvmRuntime`](super::EvmRuntime).
    pub raw: bytes::Bytes,
    /// Its hash.
    pub hash: B256,
    /// Who sent it, as the block says.
    pub sender: Address,
}

/// What the header of an imported block says of the result of running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedHeader {
    /// Its number.
    pub number: u64,
    /// The gas used by all transactions.
    pub gas_used: u64,
    /// The bloom filter of all logs.
    pub bloom: Bloom,
    /// The root of the receipts. None before Byzantium, whose receipts hold state roots.
    pub receipts_root: Option<B256>,
    /// The root of the transactions.
    pub transactions_root: B256,
}

impl ImportedBlock {
    /// Reads a block.
    ///
    /// # Errors
    /// [`ImportError`] says what is wrong with it.
    pub fn read(json: &[u8], codes: &Bytecodes) -> Result<Self, ImportError> {
        let root = Object(from_json(json)?);
        let block = root.object("block")?;
        let name = root.text("fork")?;
        let fork = Fork::named(&name).ok_or_else(|| ImportError::Field {
            name: "fork".to_owned(),
            text: name,
            reason: "no fork is called so".to_owned(),
        })?;
        let transactions = block.list("transactions")?;
        Ok(Self {
            params: read_params(&fork, &block, &root.object("blockHashes")?)?,
            accounts: read_accounts(root.object("pre")?, codes)?,
            transactions: transactions.map(read_transaction).collect::<Result<_, _>>()?,
            header: read_header(&fork, &block)?,
        })
    }

    /// The state before it, to start a chain from.
    #[must_use]
    pub fn genesis(&self) -> Vec<(Key, Value)> {
        genesis(&self.params, &self.accounts)
    }
}

fn read_params(fork: &Fork, block: &Object, hashes: &Object) -> Result<ChainParams, ImportError> {
    let merged = fork.spec.is_enabled_in(SpecId::MERGE);
    let update_fraction =
        fork.blobs.map_or(1, |blobs| u64::try_from(blobs.update_fraction).unwrap_or(u64::MAX));
    let excess = block.optional("excessBlobGas", Object::quantity)?;
    let hash = |(number, hash): (&String, &Json)| {
        let number = parse_value::<u64>("block number", number)?;
        Ok((number, parse::<B256>("block hash", text_of("block hash", hash)?)?.0))
    };
    Ok(ChainParams {
        chain_id: 1,
        fork: fork.name().to_owned(),
        forks: Vec::new(),
        coinbase: block.value::<Address>("miner")?.into_array(),
        gas_limit: block.quantity("gasLimit")?,
        base_fee: block.optional("baseFeePerGas", Object::quantity)?.unwrap_or(0),
        dynamic_fee: None,
        block: Some(BlockOverride {
            number: block.quantity("number")?,
            timestamp: block.quantity("timestamp")?,
            difficulty: block.value::<U256>("difficulty")?.to_be_bytes(),
            prevrandao: match merged {
                true => Some(block.value::<B256>("mixHash")?.0),
                false => None,
            },
            blobs: excess.map(|excess| BlobGas { excess, update_fraction }),
            hashes: hashes.0.iter().map(hash).collect::<Result<_, ImportError>>()?,
        }),
        permits: Permits::default(),
    })
}

fn read_accounts(
    pre: Object,
    codes: &Bytecodes,
) -> Result<BTreeMap<Address, GenesisAccount>, ImportError> {
    let account = |(address, account): (String, Json)| {
        let account = Object::from_json("an account", account)?;
        let storage = account.object("storage")?.0.into_iter();
        let word = |(slot, word): (String, Json)| {
            Ok((parse("slot", &slot)?, parse("word", text_of("word", &word)?)?))
        };
        let hash = account.optional("code_hash", Object::value::<B256>)?;
        let account = GenesisAccount {
            balance: account.value("balance")?,
            nonce: account.quantity("nonce")?,
            code: hash.map(|hash| codes.get(hash)).transpose()?.unwrap_or_default(),
            storage: storage.map(word).collect::<Result<_, ImportError>>()?,
        };
        Ok((parse("address", &address)?, account))
    };
    pre.0.into_iter().map(account).collect()
}

fn read_header(fork: &Fork, block: &Object) -> Result<ImportedHeader, ImportError> {
    let before_byzantium = !fork.spec.is_enabled_in(SpecId::BYZANTIUM);
    let receipts_root: B256 = block.value("receiptsRoot")?;
    Ok(ImportedHeader {
        number: block.quantity("number")?,
        gas_used: block.quantity("gasUsed")?,
        bloom: block.value("logsBloom")?,
        receipts_root: (!before_byzantium).then_some(receipts_root),
        transactions_root: block.value("transactionsRoot")?,
    })
}

fn read_transaction(json: &Json) -> Result<ImportedTransaction, ImportError> {
    let tx = Object::from_json("a transaction", json.clone())?;
    let raw = rebuild(&tx)?.encoded_2718();
    let (claimed, rebuilt) = (tx.value("hash")?, keccak256(&raw));
    match claimed == rebuilt {
        true => {
            Ok(ImportedTransaction { raw: raw.into(), hash: claimed, sender: tx.value("from")? })
        }
        false => Err(ImportError::Hash { claimed, rebuilt }),
    }
}

fn rebuild(tx: &Object) -> Result<SignedTransaction, ImportError> {
    let kind = tx.optional("type", Object::quantity)?.unwrap_or(0);
    match kind {
        0 => rebuild_legacy(tx),
        1 => signed(tx, rebuild_2930(tx)?),
        2 => signed(tx, rebuild_1559(tx)?),
        3 => signed(tx, rebuild_4844(tx)?),
        kind => Err(ImportError::Kind { kind }),
    }
}

fn signed<T>(tx: &Object, transaction: T) -> Result<SignedTransaction, ImportError>
where
    T: SignableTransaction<Signature> + RlpEcdsaEncodableTx,
    SignedTransaction: From<alloy_consensus::Signed<T>>,
{
    let parity = tx.quantity(if tx.0.contains_key("yParity") { "yParity" } else { "v" })?;
    let signature = Signature::new(tx.value("r")?, tx.value("s")?, parity == 1);
    Ok(transaction.into_signed(signature).into())
}

fn rebuild_legacy(tx: &Object) -> Result<SignedTransaction, ImportError> {
    let v: u128 = tx.number("v")?;
    let (parity, chain_id) = from_eip155_value(v).ok_or_else(|| ImportError::Field {
        name: "v".to_owned(),
        text: v.to_string(),
        reason: "no legacy signature has it".to_owned(),
    })?;
    let transaction = TxLegacy {
        chain_id,
        nonce: tx.quantity("nonce")?,
        gas_price: tx.number("gasPrice")?,
        gas_limit: tx.quantity("gas")?,
        to: tx.to()?,
        value: tx.value("value")?,
        input: tx.value("input")?,
    };
    let signature = Signature::new(tx.value("r")?, tx.value("s")?, parity);
    Ok(transaction.into_signed(signature).into())
}

fn rebuild_2930(tx: &Object) -> Result<TxEip2930, ImportError> {
    Ok(TxEip2930 {
        chain_id: tx.quantity("chainId")?,
        nonce: tx.quantity("nonce")?,
        gas_price: tx.number("gasPrice")?,
        gas_limit: tx.quantity("gas")?,
        to: tx.to()?,
        value: tx.value("value")?,
        input: tx.value("input")?,
        access_list: tx.access_list()?,
    })
}

fn rebuild_1559(tx: &Object) -> Result<TxEip1559, ImportError> {
    Ok(TxEip1559 {
        chain_id: tx.quantity("chainId")?,
        nonce: tx.quantity("nonce")?,
        gas_limit: tx.quantity("gas")?,
        max_fee_per_gas: tx.number("maxFeePerGas")?,
        max_priority_fee_per_gas: tx.number("maxPriorityFeePerGas")?,
        to: tx.to()?,
        value: tx.value("value")?,
        input: tx.value("input")?,
        access_list: tx.access_list()?,
    })
}

fn rebuild_4844(tx: &Object) -> Result<TxEip4844, ImportError> {
    let hash = |hash: &Json| parse("blob hash", text_of("blob hash", hash)?);
    Ok(TxEip4844 {
        chain_id: tx.quantity("chainId")?,
        nonce: tx.quantity("nonce")?,
        gas_limit: tx.quantity("gas")?,
        max_fee_per_gas: tx.number("maxFeePerGas")?,
        max_priority_fee_per_gas: tx.number("maxPriorityFeePerGas")?,
        to: tx.value("to")?,
        value: tx.value("value")?,
        input: tx.value("input")?,
        access_list: tx.access_list()?,
        blob_versioned_hashes: tx
            .list("blobVersionedHashes")?
            .map(hash)
            .collect::<Result<_, ImportError>>()?,
        max_fee_per_blob_gas: tx.number("maxFeePerBlobGas")?,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, ImportError> {
    serde_json::from_slice(json).map_err(|e| ImportError::Json { reason: e.to_string() })
}

fn text_of<'a>(name: &str, json: &'a Json) -> Result<&'a str, ImportError> {
    json.as_str().ok_or_else(|| ImportError::Field {
        name: name.to_owned(),
        text: json.to_string(),
        reason: "not a string".to_owned(),
    })
}

fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, ImportError> {
    text.parse().map_err(|error: T::Err| ImportError::Field {
        name: name.to_owned(),
        text: text.to_owned(),
        reason: error.to_string(),
    })
}

/// Parses a number, decimal or with `0x`.
fn parse_value<T: TryFrom<U256, Error: Display>>(name: &str, text: &str) -> Result<T, ImportError> {
    T::try_from(parse::<U256>(name, text)?).map_err(|error| ImportError::Field {
        name: name.to_owned(),
        text: text.to_owned(),
        reason: error.to_string(),
    })
}

/// A JSON object whose fields are Ethereum's quantities and data.
struct Object(Map<String, Json>);

impl Object {
    fn from_json(name: &str, json: Json) -> Result<Self, ImportError> {
        match json {
            Json::Object(map) => Ok(Self(map)),
            json => Err(ImportError::Field {
                name: name.to_owned(),
                text: json.to_string(),
                reason: "not an object".to_owned(),
            }),
        }
    }

    fn field(&self, name: &str) -> Result<&Json, ImportError> {
        self.0.get(name).ok_or_else(|| ImportError::Missing { name: name.to_owned() })
    }

    /// What `read` says of a field that may be missing or null.
    fn optional<T>(
        &self,
        name: &str,
        read: impl Fn(&Self, &str) -> Result<T, ImportError>,
    ) -> Result<Option<T>, ImportError> {
        match self.0.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(_) => read(self, name).map(Some),
        }
    }

    fn text(&self, name: &str) -> Result<String, ImportError> {
        text_of(name, self.field(name)?).map(str::to_owned)
    }

    fn object(&self, name: &str) -> Result<Self, ImportError> {
        Self::from_json(name, self.field(name)?.clone())
    }

    fn list(&self, name: &str) -> Result<impl Iterator<Item = &Json>, ImportError> {
        let json = self.field(name)?;
        json.as_array().map(|list| list.iter()).ok_or_else(|| ImportError::Field {
            name: name.to_owned(),
            text: json.to_string(),
            reason: "not a list".to_owned(),
        })
    }

    fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, ImportError> {
        parse(name, text_of(name, self.field(name)?)?)
    }

    /// A number: as text, or as JSON has it.
    fn number<T: TryFrom<U256, Error: Display>>(&self, name: &str) -> Result<T, ImportError> {
        match self.field(name)? {
            Json::Number(number) => parse_value(name, &number.to_string()),
            json => parse_value(name, text_of(name, json)?),
        }
    }

    fn quantity(&self, name: &str) -> Result<u64, ImportError> {
        self.number(name)
    }

    fn to(&self) -> Result<TxKind, ImportError> {
        let to = self.optional("to", Self::value::<Address>)?;
        Ok(to.map_or(TxKind::Create, TxKind::Call))
    }

    fn access_list(&self) -> Result<AccessList, ImportError> {
        let item = |item: &Json| {
            let item = Self::from_json("an access list's item", item.clone())?;
            let slot = |slot: &Json| parse("storage key", text_of("storage key", slot)?);
            let slots = item.list("storageKeys")?.map(slot);
            Ok(AccessListItem {
                address: item.value("address")?,
                storage_keys: slots.collect::<Result<_, ImportError>>()?,
            })
        };
        self.list("accessList")?.map(item).collect::<Result<_, ImportError>>().map(AccessList)
    }
}

#[cfg(test)]
mod tests {
    use parsec_protocol::Wire;
    use serde_json::json;

    use super::*;

    /// A block with the example transaction of EIP-155, whose hash is said to be `hash`, and an
    /// account with that code.
    fn block(hash: &str, code: B256) -> Vec<u8> {
        let quantity = "0x1";
        let word = format!("0x{:064x}", 1);
        let address = "0x3535353535353535353535353535353535353535";
        let transaction = json!({
            "hash": hash, "from": "0x9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f", "to": address,
            "nonce": "0x9", "gasPrice": "0x4a817c800", "gas": "0x5208", "input": "0x",
            "value": "0xde0b6b3a7640000", "v": "0x25",
            "r": "0x28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276",
            "s": "0x67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
        });
        let block = json!({
            "miner": address, "gasLimit": quantity, "number": quantity, "timestamp": quantity,
            "difficulty": quantity, "gasUsed": quantity, "receiptsRoot": word,
            "transactionsRoot": word, "logsBloom": format!("0x{:0512x}", 0),
            "transactions": [transaction],
        });
        let account = json!({ "balance": "0x5", "nonce": 1, "code_hash": code.to_string(), "storage": { "0x1": "0x2" } });
        let pre = json!({ address: account });
        json!({ "fork": "EIP158", "block": block, "blockHashes": {}, "pre": pre })
            .to_string()
            .into_bytes()
    }

    const HASH: &str = "0x33469b22e9f636356c4160a87eb19df52b7412e8eac32a4a55ffe88ea8350788";

    #[test]
    fn a_block_is_read_only_if_code_and_transactions_have_their_hashes() {
        let code = Bytes::from_static(b"\x00");
        let with = |hash: &str| block(hash, keccak256(&code));
        let json = format!("{{\"{}\": \"{code}\"}}", keccak256(&code));
        let codes = Bytecodes::read(json.as_bytes()).unwrap();

        let read = ImportedBlock::read(&with(HASH), &codes).unwrap();
        assert_eq!(read.params.fork, "Spurious");
        assert_eq!(read.params.check(), Ok(()));
        assert_eq!(read.transactions[0].raw.len(), 110);
        assert_eq!(read.header.receipts_root, None);
        assert_eq!(read.genesis().len(), 5);

        let other = B256::with_last_byte(7);
        let error = ImportedBlock::read(&with(&other.to_string()), &codes).unwrap_err();
        assert!(matches!(error, ImportError::Hash { claimed, .. } if claimed == other));
        let error = ImportedBlock::read(&with(HASH), &Bytecodes::default()).unwrap_err();
        assert_eq!(error, ImportError::Code { hash: keccak256(&code) });
    }

    #[test]
    fn what_is_no_block_is_refused_with_a_reason() {
        let codes = Bytecodes::default();
        let refused = |json: &[u8]| ImportedBlock::read(json, &codes).unwrap_err();
        assert!(matches!(refused(b"{"), ImportError::Json { .. }));
        assert_eq!(refused(b"{}"), ImportError::Missing { name: "block".to_owned() });
        assert!(matches!(refused(b"{\"block\": 7}"), ImportError::Field { .. }));
        assert!(matches!(Bytecodes::read(b"{\"0x0\": \"\"}"), Err(ImportError::Field { .. })));
    }
}
