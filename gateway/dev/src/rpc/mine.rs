//! Making blocks, time, and taking the chain back.

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use parsec_gateway::rpc::{Count, Param, RpcError};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Family, stopped};
use crate::backend::DevBackend;
use crate::chain::{BLOCKS_MAX, SnapshotId};
use crate::config::Mining;

/// Times above this are taken to be milliseconds.
const SECONDS_MAX: u64 = 1_000_000_000_000;

/// What `evm_mine` takes: a time, or options.
#[derive(Default)]
pub(super) struct MineOptions {
    timestamp: Option<u64>,
    blocks: Option<u64>,
}

impl Param for MineOptions {
    fn read(raw: &RawValue) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Options {
            timestamp: Option<Value>,
            blocks: Option<Value>,
        }
        if !raw.get().starts_with('{') {
            return Ok(Self { timestamp: Some(whole(raw)?), blocks: None });
        }
        let Options { timestamp, blocks } =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let number = |value: Value| {
            let raw = serde_json::value::to_raw_value(&value).map_err(|e| e.to_string())?;
            whole(&raw)
        };
        Ok(Self {
            timestamp: timestamp.filter(|v| !v.is_null()).map(number).transpose()?,
            blocks: blocks.filter(|v| !v.is_null()).map(number).transpose()?,
        })
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

/// A number of any width, as a JSON number or a quantity, with or without leading zeros; what
/// does not fit is the greatest that does.
pub(super) struct Wide(pub(super) U256);

impl Param for Wide {
    fn read(raw: &RawValue) -> Result<Self, String> {
        if let Ok(Count(number)) = Count::read(raw) {
            return Ok(Self(U256::from(number)));
        }
        let text: String = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        text.parse().map(Self).map_err(|_| "expected a quantity".into())
    }
}

fn whole(raw: &RawValue) -> Result<u64, String> {
    Wide::read(raw).map(|wide| wide.0.saturating_to())
}

pub(super) fn add(family: &mut Family) {
    add_mining(family);
    add_time(family);
    add_snapshots(family);
    add_pool(family);
}

fn add_mining(family: &mut Family) {
    family.act(&["evm_mine"], async |backend: DevBackend, (options,): (MineOptions,)| {
        mine(&backend, options).await?;
        Ok("0x0")
    });
    family.act(
        &["hardhat_mine", "anvil_mine"],
        async |backend: DevBackend, (count, interval): (Option<Wide>, Option<Wide>)| {
            let count = count.map_or(1, |count| count.0.saturating_to::<u64>());
            check_count(count)?;
            let interval = interval.map(|interval| interval.0.saturating_to());
            let mined = backend.change(move |chain, now| chain.mine_many(now, count, interval));
            mined.await.map_err(stopped)
        },
    );
    family.act(
        &["evm_setAutomine", "anvil_setAutomine", "hardhat_setAutomine"],
        async |backend: DevBackend, (on,): (bool,)| {
            let is_auto = backend.look(|chain| chain.mining()) == Mining::Auto;
            let mining = match on {
                true => Mining::Auto,
                false if is_auto => Mining::Manual,
                false => return Ok(true),
            };
            backend.set_mining(mining).await.map_err(stopped)?;
            Ok(true)
        },
    );
    family.act(
        &["evm_setIntervalMining", "anvil_setIntervalMining"],
        async |backend: DevBackend, (interval,): (Wide,)| {
            let mining = match interval.0.saturating_to::<u64>() {
                0 => Mining::Manual,
                seconds => Mining::Interval(seconds.saturating_mul(1_000)),
            };
            backend.set_mining(mining).await.map_err(stopped)?;
            Ok(true)
        },
    );
    family.act(&["hardhat_getAutomine", "anvil_getAutomine"], async |backend: DevBackend, ()| {
        Ok(backend.look(|chain| chain.mining()) == Mining::Auto)
    });
    family.act(&["anvil_getIntervalMining"], async |backend: DevBackend, ()| {
        Ok(match backend.look(|chain| chain.mining()) {
            Mining::Interval(millis) => Some(millis / 1_000),
            Mining::Auto | Mining::Manual => None,
        })
    });
}

pub(super) fn check_count(count: u64) -> Result<(), RpcError> {
    match count > BLOCKS_MAX {
        true => {
            let message = format!("{count} blocks at once are too many: at most {BLOCKS_MAX}");
            Err(RpcError::invalid_params(message))
        }
        false => Ok(()),
    }
}

/// Makes blocks; returns the numbers of the first one and the last.
pub(super) async fn mine(
    backend: &DevBackend,
    options: MineOptions,
) -> Result<(u64, u64), RpcError> {
    let count = options.blocks.unwrap_or(1);
    check_count(count)?;
    let mined = backend.change(move |chain, now| {
        if let Some(time) = options.timestamp
            && let Err(reason) = chain.set_next_timestamp(time)
        {
            return Ok(Err(RpcError::invalid_params(reason)));
        }
        let first = chain.latest() + 1;
        chain.mine_many(now, count, None)?;
        Ok(Ok((first, chain.latest())))
    });
    mined.await.map_err(stopped)?
}

fn add_time(family: &mut Family) {
    family.act(
        &["evm_increaseTime", "anvil_increaseTime"],
        async |backend: DevBackend, (seconds,): (Wide,)| {
            let seconds = seconds.0.saturating_to();
            let change = backend.change(move |chain, _| Ok(chain.increase_time(seconds)));
            change.await.map_err(stopped)
        },
    );
    family.act(
        &["evm_setNextBlockTimestamp", "anvil_setNextBlockTimestamp"],
        async |backend: DevBackend, (time,): (Wide,)| {
            let time = time.0.saturating_to();
            let change = backend.change(move |chain, _| Ok(chain.set_next_timestamp(time)));
            change.await.map_err(stopped)?.map_err(RpcError::invalid_params)
        },
    );
    family.act(&["evm_setTime", "anvil_setTime"], async |backend: DevBackend, (time,): (Wide,)| {
        let time = match time.0.saturating_to::<u64>() {
            millis if millis > SECONDS_MAX => millis / 1_000,
            seconds => seconds,
        };
        let change = backend.change(move |chain, now| Ok(chain.set_time(now, time)));
        change.await.map_err(stopped)
    });
    family.act(
        &["anvil_setBlockTimestampInterval", "evm_setBlockTimestampInterval"],
        async |backend: DevBackend, (seconds,): (Wide,)| {
            let seconds = Some(seconds.0.saturating_to());
            let change = backend.change(move |chain, _| {
                chain.set_timestamp_interval(seconds);
                Ok(())
            });
            change.await.map_err(stopped)
        },
    );
    family.act(
        &["anvil_removeBlockTimestampInterval", "evm_removeBlockTimestampInterval"],
        async |backend: DevBackend, ()| {
            let change = backend.change(|chain, _| Ok(chain.set_timestamp_interval(None)));
            change.await.map_err(stopped)
        },
    );
}

fn add_snapshots(family: &mut Family) {
    family.act(&["evm_snapshot", "anvil_snapshot"], async |backend: DevBackend, ()| {
        let SnapshotId(id) =
            backend.change(|chain, now| Ok(chain.snapshot(now))).await.map_err(stopped)?;
        Ok(U64::from(id))
    });
    family.act(&["evm_revert", "anvil_revert"], async |backend: DevBackend, (id,): (Wide,)| {
        let Ok(id) = u64::try_from(id.0) else { return Ok(false) };
        let change = backend.change(move |chain, now| Ok(chain.revert(now, SnapshotId(id))));
        change.await.map_err(stopped)
    });
    family.act(
        &["hardhat_reset", "anvil_reset"],
        async |backend: DevBackend, (options,): (Option<Forking>,)| {
            if options.is_some_and(|options| options.0) {
                return Err(RpcError::invalid_params("this chain can't be forked from another"));
            }
            let change = backend.change(|chain, _| {
                chain.reset();
                Ok(true)
            });
            change.await.map_err(stopped)
        },
    );
}

/// Whether a reset asks for a fork of another chain.
struct Forking(bool);

impl Param for Forking {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let forking = value.get("forking").unwrap_or(&value);
        Ok(Self(forking.get("jsonRpcUrl").is_some_and(|url| !url.is_null())))
    }
}

fn add_pool(family: &mut Family) {
    family.act(
        &["hardhat_dropTransaction", "anvil_dropTransaction"],
        async |backend: DevBackend, (hash,): (B256,)| {
            let change = backend.change(move |chain, _| Ok(chain.drop_transaction(&hash)));
            Ok(change.await.map_err(stopped)?.then_some(hash))
        },
    );
    family.act(&["anvil_dropAllTransactions"], async |backend: DevBackend, ()| {
        drop_all(&backend, None).await
    });
    family.act(
        &["anvil_removePoolTransactions"],
        async |backend: DevBackend, (sender,): (Address,)| drop_all(&backend, Some(sender)).await,
    );
    family.act(
        &["hardhat_setPrevRandao", "anvil_setPrevRandao"],
        async |backend: DevBackend, (random,): (Bytes,)| {
            let random = B256::try_from(&random[..])
                .map_err(|_| RpcError::invalid_params("expected 32 bytes"))?;
            let change = backend.change(move |chain, _| {
                chain.set_next_prevrandao(random);
                Ok(true)
            });
            change.await.map_err(stopped)
        },
    );
}

async fn drop_all(backend: &DevBackend, sender: Option<Address>) -> Result<(), RpcError> {
    let change = backend.change(move |chain, _| {
        chain.drop_transactions(sender.as_ref());
        Ok(())
    });
    change.await.map_err(stopped)
}
