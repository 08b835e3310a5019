//! Logs and filters.

use std::sync::Arc;

use alloy_primitives::{Address, B256, U128};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Family;
use super::transactions::pooled;
use crate::chain::{ChainError, FoundLog, LogFilter, Past, View};
use crate::filters::{Due, News, Subject, common};
use crate::node::Node;
use crate::rpc::{BlockTag, Param, RpcError, quantity};
use crate::shape::LogJson;

/// Topics that a log entry can have.
const TOPICS_MAX: usize = 4;

pub(super) fn add(family: &mut Family) {
    family.read("eth_getLogs", async |node, (criteria,): (Criteria,)| logs(node, criteria).await);
    family.act("eth_newFilter", async |node: Arc<Node>, (criteria,): (Criteria,)| {
        criteria.check(&node)?;
        node.filters.add(Subject::Logs(criteria), node.chain.view().past())
    });
    family.act("eth_newBlockFilter", async |node: Arc<Node>, ()| {
        node.filters.add(Subject::Blocks, node.chain.view().past())
    });
    family.act(
        "eth_newPendingTransactionFilter",
        async |node: Arc<Node>, (full,): (Option<bool>,)| {
            let arrivals = node.backend.arrivals();
            let subject = Subject::Pending { arrivals, full: full.unwrap_or(false) };
            node.filters.add(subject, node.chain.view().past())
        },
    );
    family.act("eth_uninstallFilter", async |node: Arc<Node>, (id,): (FilterId,)| {
        Ok(node.filters.remove(id.0))
    });
    family.act("eth_getFilterChanges", changes);
    family.read("eth_getFilterLogs", async |node: Arc<Node>, (id,): (FilterId,)| {
        let criteria = node.filters.criteria(id.0)?;
        logs(node, criteria).await
    });
}

/// The id of a filter.
struct FilterId(U128);

impl Param for FilterId {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let id = alloy_primitives::U256::read(raw)?;
        u128::try_from(id).map(|id| Self(U128::from(id))).map_err(|_| "no id of a filter".into())
    }
}

/// Which logs are looked for, and where.
#[derive(Debug, Clone)]
pub(crate) struct Criteria {
    pub(crate) filter: LogFilter,
    range: Range,
}

#[derive(Debug, Clone, Copy)]
enum Range {
    Block(B256),
    Blocks { from: Option<BlockTag>, to: Option<BlockTag> },
}

impl Param for Criteria {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        read_criteria(&value)
    }
}

/// Reads what logs are looked for.
pub(crate) fn read_criteria(value: &Value) -> Result<Criteria, String> {
    let Value::Object(fields) = value else { return Err("a filter must be an object".into()) };
    let field = |name| fields.get(name).filter(|value| !value.is_null());
    let tag = |name| match field(name) {
        Some(value) => BlockTag::of(value).map(Some).map_err(|why| format!("{name}: {why}")),
        None => Ok(None),
    };
    let (from, to) = (tag("fromBlock")?, tag("toBlock")?);
    let range = match field("blockHash") {
        Some(_) if from.is_some() || to.is_some() => {
            return Err("cannot specify both BlockHash and FromBlock/ToBlock, choose one or the \
                        other"
                .into());
        }
        Some(Value::String(text)) => Range::Block(quantity::hash(text)?),
        Some(_) => return Err("blockHash: expected a string".into()),
        None => Range::Blocks { from, to },
    };
    let addresses = match field("address") {
        Some(value) => any_of(value, quantity::address).map_err(|why| format!("address: {why}"))?,
        None => Some(Vec::new()),
    };
    let topics = match field("topics") {
        Some(Value::Array(positions)) if positions.len() > TOPICS_MAX => {
            return Err("exceed max topics".into());
        }
        Some(Value::Array(positions)) => positions.iter().map(topic).collect::<Result<_, _>>()?,
        Some(_) => return Err("topics: expected an array".into()),
        None => Vec::new(),
    };
    let addresses: Vec<Address> = addresses.unwrap_or_default();
    Ok(Criteria { filter: LogFilter { addresses, topics }, range })
}

/// The topics that may be in a position; none if any may.
fn topic(value: &Value) -> Result<Vec<B256>, String> {
    let topics = any_of(value, quantity::hash).map_err(|why| format!("invalid topic(s): {why}"))?;
    Ok(topics.unwrap_or_default())
}

/// One of something or a list. Nothing if all are welcome, which a null in the list means, too.
fn any_of<T>(
    value: &Value,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(vec![read(text)?])),
        Value::Array(items) if items.iter().any(Value::is_null) => Ok(None),
        Value::Array(items) => {
            let text = |item: &Value| item.as_str().map(&read);
            let expected = || Err("expected strings".into());
            let read = items.iter().map(|item| text(item).unwrap_or_else(expected));
            read.collect::<Result<_, _>>().map(Some)
        }
        _ => Err("expected a string or an array".into()),
    }
}

impl Criteria {
    /// Refuses what asks for too much.
    fn check(&self, node: &Node) -> Result<(), RpcError> {
        let most = node.limits.log_terms_max;
        let long = |count: usize| count > most;
        if long(self.filter.addresses.len()) || self.filter.topics.iter().any(|t| long(t.len())) {
            let message = format!("exceed max addresses or topics: at most {most}");
            return Err(RpcError::invalid_params(message));
        }
        let number =
            |tag| if let Some(BlockTag::Number(number)) = tag { Some(number) } else { None };
        match self.range {
            Range::Blocks { from, to } if number(from) > number(to) && number(to).is_some() => {
                Err(RpcError::invalid_params("invalid block range params"))
            }
            _ => Ok(()),
        }
    }

    /// The first and the last block; nothing if there are none of them yet.
    fn blocks(&self, node: &Node, view: &View) -> Result<Option<(u64, u64)>, RpcError> {
        let head = view.head().number;
        let number = |tag: Option<BlockTag>| match tag {
            Some(BlockTag::Earliest) => 0,
            Some(BlockTag::Number(number)) => number,
            Some(BlockTag::Latest | BlockTag::Pending) | None => head,
        };
        let (first, last) = match self.range {
            Range::Block(hash) => {
                let found = view.number_of(hash)?;
                let number = found.ok_or_else(|| RpcError::server("unknown block"))?;
                (number, number)
            }
            Range::Blocks { from, to } => (number(from), number(to)),
        };
        if first > last {
            // A range that ends at the head may begin after it.
            return match first > head && last >= head {
                true => Ok(None),
                false => Err(RpcError::invalid_params("invalid block range params")),
            };
        }
        let last = last.min(head);
        let most = node.limits.log_blocks_max;
        match last.saturating_sub(first) >= most {
            true => Err(RpcError::limit(format!(
                "block range too large: {} blocks, at most {most}",
                last - first + 1
            ))),
            false => Ok((first <= last).then_some((first, last))),
        }
    }

    /// Whether a filter is to be told of a block.
    fn covers(&self, number: u64) -> bool {
        let bound = |tag| match tag {
            Some(BlockTag::Number(bound)) => Some(bound),
            Some(BlockTag::Earliest) => Some(0),
            _ => None,
        };
        match self.range {
            Range::Block(_) => false,
            Range::Blocks { from, to } => {
                bound(from).is_none_or(|from| number >= from)
                    && bound(to).is_none_or(|to| number <= to)
            }
        }
    }
}

async fn logs(node: Arc<Node>, criteria: Criteria) -> Result<Vec<LogJson>, RpcError> {
    criteria.check(&node)?;
    node.read(move |node, view| {
        let Some((first, last)) = criteria.blocks(node, view)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let find = |visit: &mut dyn FnMut(Vec<FoundLog>) -> bool| {
            view.logs(&criteria.filter, first, last, visit)
        };
        take(node, find, |log| found.push(LogJson::new(log, false)))?;
        Ok(found)
    })
    .await
}

/// Takes logs from whatever finds them, as many as one answer may have.
fn take(
    node: &Node,
    find: impl FnOnce(&mut dyn FnMut(Vec<FoundLog>) -> bool) -> Result<(), ChainError>,
    mut take: impl FnMut(FoundLog),
) -> Result<(), RpcError> {
    let limits = &node.limits;
    let (mut found, mut candidates) = (0, 0);
    find(&mut |logs| {
        candidates += 1;
        found += logs.len();
        logs.into_iter().for_each(&mut take);
        found <= limits.logs_max && candidates <= limits.log_candidates_max
    })?;
    if found > limits.logs_max {
        let message = format!("query returned more than {} results", limits.logs_max);
        return Err(RpcError::limit(message));
    }
    if candidates > limits.log_candidates_max {
        let message = "query looks at too many transactions: ask for fewer blocks";
        return Err(RpcError::limit(message));
    }
    Ok(())
}

/// The logs that are gone and those that are new, from one state of the chain to a later one.
pub(crate) fn log_changes(
    node: &Node,
    criteria: &Criteria,
    seen: &Past,
    now: &Past,
) -> Result<Vec<LogJson>, RpcError> {
    let common = common(seen, now)?;
    let mut changes = Vec::new();
    for (past, removed) in [(seen, true), (now, false)] {
        let last = past.head().number;
        let find = |visit: &mut dyn FnMut(Vec<FoundLog>) -> bool| {
            past.scan(&criteria.filter, common + 1, last, visit)
        };
        take(node, find, |log| {
            if criteria.covers(log.block.number) {
                changes.push(LogJson::new(log, removed));
            }
        })?;
    }
    Ok(changes)
}

async fn changes(node: Arc<Node>, (id,): (FilterId,)) -> Result<News, RpcError> {
    let now = node.chain.view().past();
    match node.filters.due(id.0, &now)? {
        Due::Blocks { seen } => {
            let read = move |_: &Node, _: &View| new_blocks(&seen, &now);
            node.read(read).await.map(News::Hashes)
        }
        Due::Logs { seen, criteria } => {
            let read = move |node: &Node, _: &View| log_changes(node, &criteria, &seen, &now);
            node.read(read).await.map(News::Logs)
        }
        Due::Pending { arrived, full: false } => {
            Ok(News::Hashes(arrived.iter().map(|transaction| transaction.hash).collect()))
        }
        Due::Pending { arrived, full: true } => {
            let transactions = arrived.iter().map(|transaction| pooled(transaction));
            transactions.collect::<Result<_, _>>().map(News::Transactions)
        }
    }
}

fn new_blocks(seen: &Past, now: &Past) -> Result<Vec<B256>, RpcError> {
    let mut hashes = Vec::new();
    for number in common(seen, now)? + 1..=now.head().number {
        hashes.extend(now.header(number)?.map(|head| head.hash));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn criteria_are_written_in_many_ways() {
        let one = B256::repeat_byte(1);
        let address = Address::repeat_byte(2);
        let read = |value: Value| read_criteria(&value).unwrap().filter;
        let filter = read(json!({ "address": address, "topics": [null, one, [one, one], []] }));
        assert_eq!(filter.addresses, [address]);
        assert_eq!(filter.topics, [vec![], vec![one], vec![one, one], vec![]]);
        assert_eq!(read(json!({ "address": [address, address] })).addresses.len(), 2);
        assert_eq!(read(json!({ "topics": [[null, one]] })).topics, [Vec::<B256>::new()]);
        assert_eq!(read(json!({ "address": null, "topics": null })), LogFilter::default());
        assert_eq!(read(json!({ "address": [] })), LogFilter::default());
    }

    #[test]
    fn malformed_criteria_are_refused() {
        let hash = B256::repeat_byte(1);
        for value in [
            json!(null),
            json!([]),
            json!("latest"),
            json!({ "fromBlock": -1 }),
            json!({ "fromBlock": "1" }),
            json!({ "toBlock": "0x01" }),
            json!({ "blockHash": hash, "fromBlock": "0x1" }),
            json!({ "blockHash": "0x1" }),
            json!({ "blockHash": 1 }),
            json!({ "address": "0x1" }),
            json!({ "address": {} }),
            json!({ "address": [1] }),
            json!({ "topics": hash }),
            json!({ "topics": ["0x1"] }),
            json!({ "topics": [1] }),
            json!({ "topics": [[1]] }),
            json!({ "topics": [{}] }),
            json!({ "topics": [null, null, null, null, null] }),
        ] {
            assert!(read_criteria(&value).is_err(), "{value}");
        }
    }
}
