//! The genesis of a chain, as geth's tools write it down.

use std::collections::{BTreeMap, BTreeSet};

use alloy_consensus::Header;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{Address, B64, B256, Bytes, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use parsec_protocol::Value;
use revm::primitives::hardfork::SpecId;
use serde::Deserialize;
use serde_json::Value as Json;

use super::spec::ChainSpec;
use crate::evm::fees::DynamicFee;
use crate::evm::forks::{Fork, ForkAt};
use crate::evm::params::{GenesisAccount, genesis as entries};
use crate::evm::trie::StateTrie;

/// The forks of a configuration that begin by number, in order: the field that names the block, the
/// fork, and by how many blocks it holds back the growth of the difficulty, where it changes that.
const BY_NUMBER: [(&str, Option<&str>, Option<u64>); 13] = [
    ("homesteadBlock", Some("Homestead"), None),
    ("eip150Block", Some("Tangerine"), None),
    ("eip155Block", None, None),
    ("eip158Block", Some("Spurious"), None),
    ("byzantiumBlock", Some("Byzantium"), Some(3_000_000)),
    ("constantinopleBlock", Some("Constantinople"), Some(5_000_000)),
    ("petersburgBlock", Some("Petersburg"), None),
    ("istanbulBlock", Some("Istanbul"), None),
    ("muirGlacierBlock", None, Some(9_000_000)),
    ("berlinBlock", Some("Berlin"), None),
    ("londonBlock", Some("London"), Some(9_700_000)),
    ("arrowGlacierBlock", None, Some(10_700_000)),
    ("grayGlacierBlock", None, Some(11_400_000)),
];
/// Those that begin by time: the field, and the name of the fork and of its blobs' parameters.
const BY_TIME: [(&str, &str); 6] = [
    ("shanghaiTime", "shanghai"),
    ("cancunTime", "cancun"),
    ("pragueTime", "prague"),
    ("osakaTime", "osaka"),
    ("bpo1Time", "bpo1"),
    ("bpo2Time", "bpo2"),
];
/// Fields that say nothing about the rules, or what the chain's difficulty says better.
const INDIFFERENT: [&str; 7] = [
    "chainId",
    "blobSchedule",
    "depositContractAddress",
    "ethash",
    "mergeNetsplitBlock",
    "terminalTotalDifficulty",
    "terminalTotalDifficultyPassed",
];

/// Why a genesis can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum GenesisError {
    #[error("it is no genesis: {reason}")]
    Json { reason: String },
    #[error("{name}: {reason}")]
    Field { name: String, reason: String },
}

/// The genesis of a chain.
#[derive(Debug, Clone)]
pub struct Genesis {
    /// The rules of the chain.
    pub spec: ChainSpec,
    /// What stands in its first state.
    pub accounts: BTreeMap<Address, GenesisAccount>,
    /// The header of its first block.
    pub header: Header,
}

impl Genesis {
    /// Reads a genesis in the format of geth: `config`, `alloc`, and fields of the header.
    ///
    /// # Errors
    /// [`GenesisError`] if it is none, or asks for rules that are not there.
    pub fn read(json: &[u8]) -> Result<Self, GenesisError> {
        let file: File = serde_json::from_slice(json)
            .map_err(|error| GenesisError::Json { reason: error.to_string() })?;
        let timestamp = file.timestamp.quantity("timestamp")?;
        let spec = spec(&file.config, timestamp)?;
        let accounts: BTreeMap<Address, GenesisAccount> =
            file.alloc.iter().map(account).collect::<Result<_, _>>()?;
        let header = header(&file, timestamp, &spec, &accounts)?;
        Ok(Self { spec, accounts, header })
    }
}

/// A number: as JSON has it, or as text, decimal or with `0x`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
struct Number(Json);

impl Number {
    fn wide(&self, name: &str) -> Result<U256, GenesisError> {
        let text = match &self.0 {
            Json::Null => return Ok(U256::ZERO),
            Json::String(text) if text.is_empty() || text == "0x" => return Ok(U256::ZERO),
            Json::String(text) => text.clone(),
            json => json.to_string(),
        };
        let wrong = |reason: String| GenesisError::Field { name: name.to_owned(), reason };
        text.parse().map_err(|error| wrong(format!("{text:?} is no number: {error}")))
    }

    fn quantity(&self, name: &str) -> Result<u64, GenesisError> {
        let wide = self.wide(name)?;
        let reason = format!("{wide} is more than 64 bits hold");
        u64::try_from(wide).map_err(|_| GenesisError::Field { name: name.to_owned(), reason })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    config: BTreeMap<String, Json>,
    alloc: BTreeMap<String, Account>,
    #[serde(default)]
    nonce: Number,
    #[serde(default)]
    timestamp: Number,
    #[serde(default)]
    extra_data: Bytes,
    gas_limit: Number,
    #[serde(default)]
    difficulty: Number,
    #[serde(default)]
    mix_hash: B256,
    #[serde(default)]
    coinbase: Address,
    #[serde(default)]
    number: Number,
    #[serde(default)]
    base_fee_per_gas: Option<Number>,
    #[serde(default)]
    excess_blob_gas: Option<Number>,
    #[serde(default)]
    blob_gas_used: Option<Number>,
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    balance: Number,
    #[serde(default)]
    nonce: Number,
    #[serde(default)]
    code: Bytes,
    #[serde(default)]
    storage: BTreeMap<String, Number>,
}

fn account(
    (name, account): (&String, &Account),
) -> Result<(Address, GenesisAccount), GenesisError> {
    let wrong = |reason: String| GenesisError::Field { name: name.clone(), reason };
    let address = name.parse().map_err(|error| wrong(format!("no address: {error}")))?;
    let word = |(slot, word): (&String, &Number)| {
        Ok((Number(Json::String(slot.clone())).wide(name)?, word.wide(name)?))
    };
    let account = GenesisAccount {
        balance: account.balance.wide(name)?,
        nonce: account.nonce.quantity(name)?,
        code: account.code.clone(),
        storage: account.storage.iter().map(word).collect::<Result<_, GenesisError>>()?,
    };
    Ok((address, account))
}

/// The rules of a chain with that configuration, whose genesis has that time.
fn spec(config: &BTreeMap<String, Json>, timestamp: u64) -> Result<ChainSpec, GenesisError> {
    refuse_others(config)?;
    let number = |name: &str| match config.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(json) => Number(json.clone()).quantity(name).map(Some),
    };
    let named = |name: &str| Fork::named(name).expect("the tables name forks that there are");
    let chain_id = number("chainId")?.unwrap_or(1);
    let mut spec = ChainSpec::new(chain_id, named("Frontier"));
    let begin = |spec: &mut ChainSpec, at: ForkAt, fork: Fork| match at {
        ForkAt::Block(0) => spec.first = fork,
        ForkAt::Time(time) if time <= timestamp => spec.first = fork,
        // Petersburg is the name of Constantinople's fix here, too.
        at if spec.later.last().is_none_or(|(_, last)| *last < fork) => spec.later.push((at, fork)),
        _ => {}
    };
    for (field, fork, delay) in BY_NUMBER {
        let Some(first) = number(field)? else { continue };
        if let Some(fork) = fork {
            begin(&mut spec, ForkAt::Block(first), named(fork));
        }
        spec.delays.extend(delay.map(|delay| (first, delay)));
    }
    if let Some(end) = config.get("terminalTotalDifficulty").filter(|json| !json.is_null()) {
        let end = Number(end.clone()).wide("terminalTotalDifficulty")?;
        spec.terminal_difficulty = Some(end);
        if end.is_zero() {
            spec.merge_at(0);
        }
    }
    for (field, name) in BY_TIME {
        let Some(first) = number(field)? else { continue };
        let mut fork = named(name);
        adjust_blobs(&mut fork, config.get("blobSchedule").map(|all| &all[name]))?;
        begin(&mut spec, ForkAt::Time(first), fork);
    }
    spec.points = points(
        BY_NUMBER.iter().map(|(field, ..)| *field).chain(["mergeNetsplitBlock"]),
        BY_TIME.iter().map(|(field, _)| *field),
        number,
        timestamp,
    )?;
    if let Some(Json::String(address)) = config.get("depositContractAddress") {
        spec.deposit_contract = address.parse().map_err(|_| GenesisError::Field {
            name: "depositContractAddress".to_owned(),
            reason: format!("{address:?} is no address"),
        })?;
    }
    Ok(spec)
}

/// The numbers and times that a configuration names, after the genesis.
fn points<'a>(
    by_number: impl Iterator<Item = &'a str>,
    by_time: impl Iterator<Item = &'a str>,
    named: impl Fn(&str) -> Result<Option<u64>, GenesisError>,
    timestamp: u64,
) -> Result<(Vec<u64>, Vec<u64>), GenesisError> {
    let numbers = by_number.filter_map(|field| named(field).transpose());
    let numbers: BTreeSet<u64> = numbers.collect::<Result<_, _>>()?;
    let times = by_time.filter_map(|field| named(field).transpose());
    let times: BTreeSet<u64> = times.collect::<Result<_, _>>()?;
    let numbers = numbers.into_iter().filter(|number| *number > 0);
    Ok((numbers.collect(), times.into_iter().filter(|time| *time > timestamp).collect()))
}

/// Refuses a configuration that asks for rules which are not there.
fn refuse_others(config: &BTreeMap<String, Json>) -> Result<(), GenesisError> {
    for (name, json) in config {
        let known = INDIFFERENT.contains(&name.as_str())
            || BY_NUMBER.iter().any(|(field, ..)| field == name)
            || BY_TIME.iter().any(|(field, _)| field == name);
        // What is not switched on is not asked for.
        if !known && !json.is_null() && *json != Json::Bool(false) {
            let reason = "there are no such rules here".to_owned();
            return Err(GenesisError::Field { name: name.clone(), reason });
        }
    }
    Ok(())
}

/// Gives a fork the parameters of blobs that a chain has, where these are told.
fn adjust_blobs(fork: &mut Fork, told: Option<&Json>) -> Result<(), GenesisError> {
    let (Some(blobs), Some(told)) = (&mut fork.blobs, told.filter(|told| !told.is_null())) else {
        return Ok(());
    };
    let number = |name: &str| Number(told[name].clone()).quantity(name);
    (blobs.target_blob_count, blobs.max_blob_count) = (number("target")?, number("max")?);
    blobs.update_fraction = number("baseFeeUpdateFraction")?.max(1).into();
    Ok(())
}

fn header(
    file: &File,
    timestamp: u64,
    spec: &ChainSpec,
    accounts: &BTreeMap<Address, GenesisAccount>,
) -> Result<Header, GenesisError> {
    let gas_limit = file.gas_limit.quantity("gasLimit")?;
    let state = entries(&spec.params(gas_limit), accounts);
    let state: Vec<(_, Value)> = state;
    let trie = StateTrie::of(state.iter().map(|(key, value)| (key, value)));
    let mut trie = trie.map_err(|error| GenesisError::Json { reason: error.to_string() })?;
    let since = |fork| spec.first.spec.is_enabled_in(fork);
    let optional = |number: &Option<Number>, name, default| match number {
        None => Ok(default),
        Some(number) if number.0.is_null() => Ok(default),
        Some(number) => number.quantity(name),
    };
    let base_fee = optional(&file.base_fee_per_gas, "baseFeePerGas", DynamicFee::MAINNET.initial)?;
    let excess = optional(&file.excess_blob_gas, "excessBlobGas", 0)?;
    let used = optional(&file.blob_gas_used, "blobGasUsed", 0)?;
    Ok(Header {
        state_root: trie.root(),
        beneficiary: file.coinbase,
        difficulty: file.difficulty.wide("difficulty")?,
        number: file.number.quantity("number")?,
        gas_limit,
        timestamp,
        extra_data: file.extra_data.clone(),
        mix_hash: file.mix_hash,
        nonce: B64::from(file.nonce.quantity("nonce")?),
        base_fee_per_gas: since(SpecId::LONDON).then_some(base_fee),
        withdrawals_root: since(SpecId::SHANGHAI).then_some(EMPTY_ROOT_HASH),
        blob_gas_used: since(SpecId::CANCUN).then_some(used),
        excess_blob_gas: since(SpecId::CANCUN).then_some(excess),
        parent_beacon_block_root: since(SpecId::CANCUN).then_some(B256::ZERO),
        requests_hash: since(SpecId::PRAGUE).then_some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    })
}
