//! The genesis file: the state that a cluster starts from.

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::{Address, Bytes, U256};
use parsec_protocol::codec::digest;
use parsec_protocol::message::ClusterId;
use parsec_protocol::{Key, PartitionMap, Value};
use parsec_runtimes::evm::{self, ChainParams, DynamicFee, ForkAt, ForkBegin, GenesisAccount};
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
    /// The Ethereum fork whose rules hold, from the beginning; the latest by default.
    fork: Option<String>,
    /// The forks that come later, in order.
    #[serde(default)]
    forks: Vec<ForkFile>,
    /// Who gets the fees.
    coinbase: Option<Address>,
    /// Gas limit of a block.
    gas_limit: Option<u64>,
    /// Base fee, wei for each unit of gas; zero by default.
    base_fee: Option<BaseFeeFile>,
    /// Ethereum accounts.
    #[serde(default)]
    accounts: BTreeMap<Address, AccountFile>,
    /// Balances of native accounts, by name.
    #[serde(default)]
    native: BTreeMap<String, u64>,
}

/// A fork, and the first block or time (seconds since 1970) with its rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkFile {
    fork: String,
    block: Option<u64>,
    time: Option<u64>,
}

impl ForkFile {
    fn begin(self) -> Result<ForkBegin, Failure> {
        let at = match (self.block, self.time) {
            (Some(block), None) => ForkAt::Block(block),
            (None, Some(time)) => ForkAt::Time(time),
            _ => {
                let fork = self.fork;
                return Err(failed(format!("the fork {fork} needs either `block` or `time`")));
            }
        };
        Ok(ForkBegin { fork: self.fork, at })
    }
}

/// A base fee that is always the same, or one that follows demand.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a number of wei, or { \"dynamic\": { … } }")]
enum BaseFeeFile {
    Fixed(u64),
    Dynamic { dynamic: DynamicFeeFile },
}

/// How the base fee follows demand; mainnet's way by default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DynamicFeeFile {
    initial: u64,
    elasticity: u64,
    denominator: u64,
    floor: u64,
}

impl Default for DynamicFeeFile {
    fn default() -> Self {
        let DynamicFee { initial, elasticity, denominator, floor } = DynamicFee::MAINNET;
        Self { initial, elasticity, denominator, floor }
    }
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

    /// The text of a genesis file in which these accounts have so many wei, and nothing else is;
    /// none if there are none.
    #[must_use]
    pub fn file(balances: &[(Address, U256)]) -> Option<String> {
        let account = |(address, balance): &(Address, U256)| {
            (address.to_string(), serde_json::json!({ "balance": format!("{balance:#x}") }))
        };
        let accounts: serde_json::Map<_, _> = balances.iter().map(account).collect();
        (!accounts.is_empty()).then(|| serde_json::json!({ "accounts": accounts }).to_string())
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
        params.forks = file.forks.into_iter().map(ForkFile::begin).collect::<Result<_, _>>()?;
        params.coinbase = file.coinbase.map_or(params.coinbase, |address| address.into());
        params.gas_limit = file.gas_limit.unwrap_or(params.gas_limit);
        match file.base_fee {
            None => {}
            Some(BaseFeeFile::Fixed(fee)) => params.base_fee = fee,
            Some(BaseFeeFile::Dynamic { dynamic }) => {
                let DynamicFeeFile { initial, elasticity, denominator, floor } = dynamic;
                params.base_fee = initial.max(floor);
                params.dynamic_fee = Some(DynamicFee { initial, elasticity, denominator, floor });
            }
        }
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
            ("{ \"forks\": [{ \"fork\": \"Osaka\" }] }", "either"),
            ("{ \"forks\": [{ \"fork\": \"Osaka\", \"block\": 1, \"time\": 1 }] }", "either"),
            ("{ \"forks\": [{ \"fork\": \"London\", \"block\": 1 }] }", "can't come after"),
            ("{ \"base_fee\": { \"dynamic\": {} } }", "can't follow demand"),
            ("{ \"base_fee\": true }", "a number of wei"),
            ("{ \"accounts\": { \"0x12\": {} } }", "line 1"),
        ] {
            let problem = Genesis::parse(wrong, 5).unwrap_err().to_string();
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn balances_become_a_genesis_file() {
        assert_eq!(Genesis::file(&[]), None);
        let balances = [(Address::repeat_byte(1), U256::MAX), (Address::repeat_byte(2), U256::ONE)];
        let written = Genesis::parse(&Genesis::file(&balances).unwrap(), 5).unwrap();
        let account = |balance| GenesisAccount { balance, ..GenesisAccount::default() };
        let accounts = balances.map(|(address, balance)| (address, account(balance)));
        let mut entries = evm::genesis(&ChainParams::new(5), &accounts.into());
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(written.entries, entries);
    }

    #[test]
    fn forks_come_by_number_and_by_time() {
        let text = r#"{ "fork": "Berlin", "forks": [
            { "fork": "London", "block": 9 }, { "fork": "Osaka", "time": 2000 }] }"#;
        let genesis = Genesis::parse(text, 5).unwrap();
        let key = evm::keys::params();
        let value = &genesis.entries.iter().find(|(found, _)| *found == key).unwrap().1;
        let params = ChainParams::decode(value).unwrap();
        let name = |number, time| params.fork_at(number, time).unwrap().name();
        assert_eq!((name(8, 0), name(9, 1_999), name(9, 2_000)), ("Berlin", "London", "Osaka"));
    }

    #[test]
    fn clusters_of_other_partitions_differ_but_their_logs_do_not() {
        let genesis = Genesis::empty(1);
        let maps = [1, 2].map(|n| PartitionMap::even(n).unwrap());
        assert_ne!(genesis.cluster_id(1, &maps[0]), genesis.cluster_id(1, &maps[1]));
        assert_ne!(genesis.log_id(1), genesis.log_id(2));
    }
}
