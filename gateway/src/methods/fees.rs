//! What gas costs, and what it has cost.

use std::sync::Arc;

use alloy_eips::eip7840::BlobParams;
use alloy_primitives::{U64, U128};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Family;
use crate::chain::View;
use crate::limits::{FEE_HISTORY_BLOCKS_MAX, PERCENTILES_MAX};
use crate::node::{Node, environment};
use crate::rpc::{BlockId, BlockTag, Count, INTERNAL_ERROR, Json, RpcError};
use crate::shape::quantity;

/// A hundredth of a millionth of a percent: the unit in which percentiles are compared.
const PER_PERCENT: u128 = 100_000_000;
/// Decimal digits of a ratio.
const RATIO_DIGITS: u32 = 17;
/// A suggestion is what this share of the gas of the latest blocks paid at most, percent.
const SUGGESTED_PERCENTILE: u128 = 60 * PER_PERCENT;
/// How many blocks a suggestion looks at.
const SUGGESTION_BLOCKS: u64 = 20;

pub(super) fn add(family: &mut Family) {
    family.read("eth_baseFee", async |node: Arc<Node>, ()| {
        Ok(quantity(node.backend.pending().base_fee))
    });
    family.read("eth_blobBaseFee", async |node: Arc<Node>, ()| {
        let next = node.backend.pending();
        let blobs = || node.backend.blobs(next.number, next.timestamp);
        Ok(U128::from(next.excess_blob_gas.map_or(1, |excess| blobs().calc_blob_fee(excess))))
    });
    family.read("eth_feeHistory", fee_history);
    family.read("eth_gasPrice", gas_price);
    family.read("eth_maxPriorityFeePerGas", async |node: Arc<Node>, ()| {
        Ok(U128::from(suggested_tip(&node).await?))
    });
}

/// What transactions should offer above the base fee to be like others.
pub(super) async fn suggested_tip(node: &Arc<Node>) -> Result<u128, RpcError> {
    let least = node.backend.least_tip();
    node.read(move |_, view| {
        let mut paid = Vec::new();
        let head = view.head().number;
        for number in head.saturating_sub(SUGGESTION_BLOCKS - 1)..=head {
            paid.extend(view.fees(number)?);
        }
        paid.sort_unstable();
        Ok(least.max(at_percentile(&paid, SUGGESTED_PERCENTILE)))
    })
    .await
}

async fn gas_price(node: Arc<Node>, (): ()) -> Result<U128, RpcError> {
    let base_fee = u128::from(node.backend.pending().base_fee);
    Ok(U128::from(base_fee.saturating_add(suggested_tip(&node).await?)))
}

/// What the unit of gas paid at which a share of the gas is reached; 0 of no gas.
fn at_percentile(paid: &[(u128, u64)], percentile: u128) -> u128 {
    let total: u128 = paid.iter().map(|(_, gas)| u128::from(*gas)).sum();
    let threshold = total * percentile / (100 * PER_PERCENT);
    let mut reached = 0;
    for (price, gas) in paid {
        reached += u128::from(*gas);
        if reached >= threshold {
            return *price;
        }
    }
    0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FeeHistory {
    oldest_block: U64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reward: Option<Vec<Vec<U128>>>,
    base_fee_per_gas: Vec<U64>,
    gas_used_ratio: Vec<Box<RawValue>>,
    base_fee_per_blob_gas: Vec<U128>,
    blob_gas_used_ratio: Vec<Box<RawValue>>,
}

async fn fee_history(
    node: Arc<Node>,
    (count, newest, percentiles): (Count, BlockTag, Option<Json<Vec<serde_json::Number>>>),
) -> Result<FeeHistory, RpcError> {
    let percentiles =
        percentiles.filter(|list| !list.0.is_empty()).map(|list| read_percentiles(&list.0));
    let percentiles = percentiles.transpose()?;
    let read = move |node: &Node, view: &View| {
        history(node, view, count.0, newest, percentiles.as_deref())
    };
    node.read(read).await
}

/// Percentiles in the unit that they are compared in.
fn read_percentiles(list: &[serde_json::Number]) -> Result<Vec<u128>, RpcError> {
    if list.len() > PERCENTILES_MAX {
        let message = format!("invalid reward percentile: over the query limit {PERCENTILES_MAX}");
        return Err(RpcError::server(message));
    }
    let mut percentiles = Vec::with_capacity(list.len());
    for number in list {
        let invalid = || RpcError::server(format!("invalid reward percentile: {number}"));
        let percent = number.as_f64().filter(|percent| (0.0..=100.0).contains(percent));
        let digits = format!("{:.8}", percent.ok_or_else(invalid)?).replace('.', "");
        let percentile: u128 = digits.parse().map_err(|_| invalid())?;
        if let Some(last) = percentiles.last()
            && percentile < *last
        {
            let message =
                format!("invalid reward percentile: {number} is less than the one before");
            return Err(RpcError::server(message));
        }
        percentiles.push(percentile);
    }
    Ok(percentiles)
}

fn history(
    node: &Node,
    view: &View,
    count: u64,
    newest: BlockTag,
    percentiles: Option<&[u128]>,
) -> Result<FeeHistory, RpcError> {
    let head = view.head().number;
    if let BlockTag::Number(number) = newest
        && number > head
    {
        let message = format!("request beyond head block: requested {number}, head {head}");
        return Err(RpcError::server(message));
    }
    let newest = node.sealed(view, BlockId::Tag(newest))?.number;
    let count = count.min(FEE_HISTORY_BLOCKS_MAX).min(newest + 1);
    let oldest = newest + 1 - count;
    let mut history = FeeHistory {
        oldest_block: quantity(if count == 0 { 0 } else { oldest }),
        reward: percentiles.filter(|_| count > 0).map(|_| Vec::new()),
        base_fee_per_gas: Vec::new(),
        gas_used_ratio: Vec::new(),
        base_fee_per_blob_gas: Vec::new(),
        blob_gas_used_ratio: Vec::new(),
    };
    for number in oldest..oldest + count {
        history.add(node, view, number, percentiles)?;
    }
    if count > 0 {
        history.end(node, view, newest + 1)?;
    }
    Ok(history)
}

impl FeeHistory {
    fn add(
        &mut self,
        node: &Node,
        view: &View,
        number: u64,
        percentiles: Option<&[u128]>,
    ) -> Result<(), RpcError> {
        let header = &node.sealed(view, BlockId::Tag(BlockTag::Number(number)))?.header;
        self.base_fee_per_gas.push(quantity(header.base_fee_per_gas.unwrap_or_default()));
        self.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit)?);
        let blobs = node.backend.blobs(header.number, header.timestamp);
        self.base_fee_per_blob_gas.push(blob_price(&blobs, header.excess_blob_gas));
        let blob_gas_max = blobs.max_blob_gas_per_block();
        self.blob_gas_used_ratio.push(ratio(header.blob_gas_used.unwrap_or(0), blob_gas_max)?);
        if let (Some(rewards), Some(percentiles)) = (&mut self.reward, percentiles) {
            let paid = view.fees(number)?;
            let reward = |percentile: &u128| U128::from(at_percentile(&paid, *percentile));
            rewards.push(percentiles.iter().map(reward).collect());
        }
        Ok(())
    }

    /// The fees of the block after the newest: they are known before it is.
    fn end(&mut self, node: &Node, view: &View, next: u64) -> Result<(), RpcError> {
        let next = match view.header(next)? {
            Some(head) => environment(&head.header),
            None => node.backend.pending(),
        };
        let blobs = node.backend.blobs(next.number, next.timestamp);
        self.base_fee_per_gas.push(quantity(next.base_fee));
        self.base_fee_per_blob_gas.push(blob_price(&blobs, next.excess_blob_gas));
        Ok(())
    }
}

/// The price of blob gas; 0 where there was none yet.
fn blob_price(blobs: &BlobParams, excess: Option<u64>) -> U128 {
    U128::from(excess.map_or(0, |excess| blobs.calc_blob_fee(excess)))
}

/// A ratio as a JSON number, in decimal digits and rounded down.
fn ratio(part: u64, whole: u64) -> Result<Box<RawValue>, RpcError> {
    let unit = 10_u128.pow(RATIO_DIGITS);
    let scaled = (u128::from(part) * unit).checked_div(u128::from(whole)).unwrap_or(0);
    let fraction = format!("{:017}", scaled % unit);
    let text = match fraction.trim_end_matches('0') {
        "" => (scaled / unit).to_string(),
        digits => format!("{}.{digits}", scaled / unit),
    };
    RawValue::from_string(text)
        .map_err(|_| RpcError::new(INTERNAL_ERROR, "a ratio that is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_numbers() {
        let text = |part, whole| ratio(part, whole).unwrap().get().to_owned();
        assert_eq!(text(0, 30), "0");
        assert_eq!(text(30, 30), "1");
        assert_eq!(text(72_868, 100_000_000), "0.00072868");
        assert_eq!(text(1, 3), "0.33333333333333333");
        assert_eq!(text(7, 0), "0");
        assert_eq!(text(u64::MAX, 1), u64::MAX.to_string());
    }

    #[test]
    fn percentiles_are_of_the_gas() {
        let paid = [(1, 10), (2, 80), (9, 10)];
        for (percent, price) in [(0, 1), (10, 1), (11, 2), (90, 2), (91, 9), (100, 9)] {
            assert_eq!(at_percentile(&paid, percent * PER_PERCENT), price, "{percent}");
        }
        assert_eq!(at_percentile(&[], 50 * PER_PERCENT), 0);
    }

    #[test]
    fn percentiles_must_be_in_order_and_in_range() {
        let read = |text: &str| read_percentiles(&serde_json::from_str::<Vec<_>>(text).unwrap());
        assert_eq!(read("[0, 12.5, 1e2]").unwrap(), [0, 1_250_000_000, 10_000_000_000]);
        for text in ["[-1]", "[101]", "[50, 49]", "[1e300]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
