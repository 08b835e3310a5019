//! The genesis file: the state that a cluster starts from.

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::{Address, Bytes, U256};
use parsec_protocol::codec::digest;
use parsec_protocol::message::ClusterId;
use parsec_protocol::{Key, PartitionMap, Value};
use parsec_runtimes::evm::{self, ChainParams, GenesisAccount};
use serde::Deserialize;

use crate::failure::{Context, Failure, failed};

/// The state that a cluster starts from.
#[derive(Debug, Clone)]
pub struct Genesis {
    /// Its keys and values.
    pub entries: Vec<(Key, Value)>,
}

/// The genesis file, as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisFile {
    /// The Ethereum fork whose rules hold; the latest by default.
    fork: Option<String>,
    /// Who gets the fees.
    coinbase: Option<Address>,
    /// Gas limit of a block.
    gas_limit: Option<u64>,
    /// Base fee, wei for each unit of gas; zero by default.
    base_fee: Option<u64>,
    /// Ethereum accounts.
    #[serde(default)]
    accounts: BTreeMap<Address, AccountFile>,
    /// Balances of native accounts, by name.
    #[serde(default)]
    native: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AccountFile {
    balance: U256,
    nonce: u64,
    code: Bytes,
    storage: BTreeMap<U256, U256>,
}

impl Genesis {
    /// The state that is empty but for the chain's parameters.
    #[must_use]
    pub fn empty(chain_id: u64) -> Self {
        Self { entries: evm::genesis(&ChainParams::new(chain_id), &BTreeMap::new()) }
    }

    /// Reads a genesis file; without one the state is empty.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong.
    pub fn load(path: Option<&Path>, chain_id: u64) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::empty(chain_id)) };
        let text =
            std::fs::read_to_string(path).context(format!("can't read {}", path.display()))?;
        Self::parse(&text, chain_id).context(path.display())
    }

    /// Parses the text of a genesis file.
    ///
    /// # Errors
    /// Names the line and what is wrong.
    pub fn parse(text: &str, chain_id: u64) -> Result<Self, Failure> {
        let file: GenesisFile = serde_json::from_str(text).map_err(failed)?;
        let mut params = ChainParams::new(chain_id);
        if let Some(fork) = file.fork {
            params.fork = fork;
        }
        params.coinbase = file.coinbase.map_or(params.coinbase, |address| address.into());
        params.gas_limit = file.gas_limit.unwrap_or(params.gas_limit);
        params.base_fee = file.base_fee.unwrap_or(params.base_fee);
        // What no executor could decode must not get into the log.
        ChainParams::decode(&params.encode()).map_err(failed)?;
        let accounts = file.accounts.into_iter().map(|(address, account)| {
            let AccountFile { balance, nonce, code, storage } = account;
            (address, GenesisAccount { balance, nonce, code, storage })
        });
        let mut entries = evm::genesis(&params, &accounts.collect());
        for (name, balance) in file.native {
            let key = parsec_runtimes::native::key(&name).map_err(failed)?;
            let mut value = [0; 32];
            value[24..].copy_from_slice(&balance.to_be_bytes());
            entries.push((key, Value::copy_from_slice(&value)));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { entries })
    }

    /// The name of a log that begins with this genesis: it can be replayed on any number of
    /// partitions.
    #[must_use]
    pub fn log_id(&self, chain_id: u64) -> ClusterId {
        let mut bytes = b"parsec genesis".to_vec();
        bytes.extend_from_slice(&chain_id.to_be_bytes());
        for (key, value) in &self.entries {
            for part in [key.encoded(), value] {
                bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
        ClusterId(digest(&bytes))
    }

    /// The name of a cluster that begins with this genesis and has this partition map: nodes of
    /// clusters that differ in either refuse each other.
    #[must_use]
    pub fn cluster_id(&self, chain_id: u64, map: &PartitionMap) -> ClusterId {
        let map = parsec_protocol::codec::encode(map);
        ClusterId(digest(&[&self.log_id(chain_id).0[..], &map].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_genesis_file_becomes_entries_and_mistakes_are_named() {
        let text = r#"{ "base_fee": 7, "native": { "alice": 5 }, "accounts": {
            "0x00000000000000000000000000000000000000aa":
                { "balance": "0x10", "code": "0x6000", "storage": { "0x1": "0x2" } } } }"#;
        let genesis = Genesis::parse(text, 5).unwrap();
        // Parameters, alice, and the account's record, code record, code and slot.
        assert_eq!(genesis.entries.len(), 6);
        assert_ne!(genesis.log_id(5), Genesis::empty(5).log_id(5));
        for (wrong, says) in [
            ("{ \"bas_fee\": 1 }", "base_fee"),
            ("{ \"fork\": \"Lundon\" }", "Lundon"),
            ("{ \"accounts\": { \"0x12\": {} } }", "line 1"),
        ] {
            let problem = Genesis::parse(wrong, 5).unwrap_err().to_string();
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn clusters_of_other_partitions_differ_but_their_logs_do_not() {
        let genesis = Genesis::empty(1);
        let maps = [1, 2].map(|n| PartitionMap::even(n).unwrap());
        assert_ne!(genesis.cluster_id(1, &maps[0]), genesis.cluster_id(1, &maps[1]));
        assert_ne!(genesis.log_id(1), genesis.log_id(2));
    }
}
