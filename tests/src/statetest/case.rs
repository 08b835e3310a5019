//! State tests as they are written down.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use parsec_runtimes::evm::{BlobGas, BlockOverride, ChainParams, Fork, GenesisAccount};
use serde::Deserialize;
use serde_json::Value as Json;

use super::Failure;

/// The chain of tests that name none.
const CHAIN_ID: u64 = 1;
/// Earlier blocks whose hashes BLOCKHASH gives.
const HASHES: u64 = 256;

/// A number as text, decimal or with `0x`; some are none on purpose.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Number(String);

impl Number {
    pub(super) fn wide(&self) -> Result<U256, Failure> {
        match self.0.as_str() {
            "" | "0x" => Ok(U256::ZERO),
            text => text.parse().map_err(|error| format!("{text:?} is no number: {error}")),
        }
    }

    pub(crate) fn quantity(&self) -> Result<u64, Failure> {
        u64::try_from(self.wide()?).map_err(|_| format!("{} is more than 64 bits hold", self.0))
    }

    pub(super) fn price(&self) -> Result<u128, Failure> {
        u128::try_from(self.wide()?).map_err(|_| format!("{} is more than 128 bits hold", self.0))
    }

    fn saturated(&self) -> Result<u64, Failure> {
        Ok(self.wide()?.saturating_to())
    }
}

/// A state test: one state and transaction, with variants, and what comes out in each fork.
#[derive(Debug, Deserialize)]
pub(super) struct Test {
    pub(super) env: Env,
    pub(super) pre: BTreeMap<Address, Account>,
    pub(super) transaction: Transaction,
    pub(super) post: BTreeMap<String, Vec<Post>>,
    #[serde(default)]
    pub(super) config: Config,
}

/// The block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Env {
    current_coinbase: Address,
    current_gas_limit: Number,
    current_number: Number,
    current_timestamp: Number,
    #[serde(default)]
    current_difficulty: Option<Number>,
    #[serde(default)]
    current_random: Option<Number>,
    #[serde(default)]
    current_base_fee: Option<Number>,
    #[serde(default)]
    current_excess_blob_gas: Option<Number>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    balance: Number,
    nonce: Number,
    code: Bytes,
    #[serde(default)]
    storage: BTreeMap<String, Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(default)]
    chainid: Option<Number>,
    #[serde(default)]
    blob_schedule: BTreeMap<String, Blobs>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blobs {
    base_fee_update_fraction: Number,
}

/// The transaction, with lists of variants.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
    pub(super) nonce: Number,
    /// Empty where it creates.
    #[serde(default)]
    pub(super) to: String,
    pub(super) data: Vec<String>,
    pub(super) gas_limit: Vec<Number>,
    pub(super) value: Vec<Number>,
    #[serde(default)]
    pub(super) gas_price: Option<Number>,
    #[serde(default)]
    pub(super) max_fee_per_gas: Option<Number>,
    #[serde(default)]
    pub(super) max_priority_fee_per_gas: Option<Number>,
    #[serde(default)]
    pub(super) max_fee_per_blob_gas: Option<Number>,
    #[serde(default)]
    pub(super) blob_versioned_hashes: Option<Vec<B256>>,
    #[serde(default)]
    pub(super) access_lists: Vec<Option<Vec<AccessListItem>>>,
    #[serde(default)]
    pub(super) authorization_list: Option<Vec<Authorization>>,
    #[serde(default)]
    pub(super) secret_key: Option<B256>,
    #[serde(default)]
    pub(super) sender: Option<Address>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccessListItem {
    pub(super) address: Address,
    pub(super) storage_keys: Vec<Number>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Authorization {
    pub(super) chain_id: Number,
    pub(super) address: Address,
    pub(super) nonce: Number,
    /// By its old name, which newer tests have beside the other.
    #[serde(default)]
    pub(super) v: Option<Number>,
    #[serde(default)]
    pub(super) y_parity: Option<Number>,
    pub(super) r: Number,
    pub(super) s: Number,
}

/// What comes out of one variant in one fork.
#[derive(Debug, Deserialize)]
pub(super) struct Post {
    pub(super) hash: B256,
    pub(super) logs: B256,
    pub(super) indexes: Indexes,
    #[serde(default)]
    pub(super) txbytes: Option<Bytes>,
    #[serde(default, rename = "expectException")]
    pub(super) exception: Option<Json>,
    /// The whole state, where it is told.
    #[serde(default)]
    pub(super) state: Option<BTreeMap<Address, Account>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Indexes {
    pub(super) data: usize,
    pub(super) gas: usize,
    pub(super) value: usize,
}

impl Test {
    pub(super) fn chain_id(&self) -> Result<u64, Failure> {
        self.config.chainid.as_ref().map_or(Ok(CHAIN_ID), Number::quantity)
    }

    /// The parameters of the chain whose block it is, with the rules of that fork.
    pub(super) fn params(&self, name: &str, fork: &Fork) -> Result<ChainParams, Failure> {
        let env = &self.env;
        let number = env.current_number.saturated()?;
        let wide = |number: &Option<Number>| number.as_ref().map_or(Ok(U256::ZERO), Number::wide);
        let saturated = |number: &Option<Number>| number.as_ref().map_or(Ok(0), Number::saturated);
        let since = |name| Fork::named(name).is_some_and(|first| *fork >= first);
        let hash = |n: u64| (n, keccak256(n.to_string()).0);
        Ok(ChainParams {
            fork: fork.name().to_owned(),
            coinbase: env.current_coinbase.into_array(),
            gas_limit: env.current_gas_limit.saturated()?,
            base_fee: if since("London") { saturated(&env.current_base_fee)? } else { 0 },
            block: Some(BlockOverride {
                number,
                timestamp: env.current_timestamp.saturated()?,
                difficulty: wide(&env.current_difficulty)?.to_be_bytes(),
                prevrandao: match since("Merge") {
                    true => Some(wide(&env.current_random)?.to_be_bytes()),
                    false => None,
                },
                blobs: match fork.blobs {
                    None => None,
                    Some(blobs) => Some(BlobGas {
                        excess: saturated(&env.current_excess_blob_gas)?,
                        update_fraction: match self.config.blob_schedule.get(name) {
                            Some(blobs) => blobs.base_fee_update_fraction.quantity()?,
                            None => blobs.update_fraction.try_into().unwrap_or(u64::MAX),
                        },
                    }),
                },
                hashes: (number.saturating_sub(HASHES)..number).map(hash).collect(),
            }),
            ..ChainParams::new(self.chain_id()?)
        })
    }
}

/// The accounts of a state.
pub(crate) fn accounts(
    pre: &BTreeMap<Address, Account>,
) -> Result<BTreeMap<Address, GenesisAccount>, Failure> {
    let account = |(address, account): (&Address, &Account)| {
        let word =
            |(slot, word): (&String, &Number)| Ok((Number(slot.clone()).wide()?, word.wide()?));
        let account = GenesisAccount {
            balance: account.balance.wide()?,
            nonce: account.nonce.quantity()?,
            code: account.code.clone(),
            storage: account.storage.iter().map(word).collect::<Result<_, Failure>>()?,
        };
        Ok((*address, account))
    };
    pre.iter().map(account).collect()
}
