//! `ots_`: what the explorer Otterscan asks for.

use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_trace::geth::{GethDebugBuiltInTracerType, GethDebugTracingOptions};
use parsec_protocol::{ErrorCode, Outcome};
use serde::Serialize;
use serde_json::{Value, json};

use super::Family;
use super::blocks::{receipt, sealed, transaction};
use super::debug::existing;
use super::state::code_of;
use super::traces::trace_transaction;
use crate::chain::{Head, Place, Search, Term, View};
use crate::limits::SEARCH_PAGE_MAX;
use crate::node::{Node, decoded};
use crate::rpc::{BlockId, BlockTag, Count, INTERNAL_ERROR, RpcError};
use crate::shape::{ReceiptJson, TransactionJson};

/// The version of these methods.
const API_LEVEL: u64 = 8;
/// Hexadecimal digits of the part of a transaction's input that lists of them show: a selector.
const SELECTOR_DIGITS: usize = 10;

pub(super) fn add(family: &mut Family) {
    family.read("ots_getApiLevel", async |_, ()| Ok(API_LEVEL));
    family.read("ots_getBlockDetails", async |node: Arc<Node>, (number,): (Count,)| {
        details(node, BlockId::Tag(BlockTag::Number(number.0))).await
    });
    family.read("ots_getBlockDetailsByHash", async |node: Arc<Node>, (hash,): (B256,)| {
        details(node, BlockId::Hash(hash)).await
    });
    family.read("ots_getBlockTransactions", block_transactions);
    family.read("ots_getContractCreator", contract_creator);
    family.read("ots_getInternalOperations", internal_operations);
    family.read("ots_getTransactionBySenderAndNonce", by_sender_and_nonce);
    family.read("ots_getTransactionError", transaction_error);
    family.read("ots_hasCode", async |node: Arc<Node>, at: (Address, Option<BlockId>)| {
        let state = node.state(at.1)?;
        Ok(!code_of(&node, state, at.0).await?.is_empty())
    });
    family
        .read("ots_searchTransactionsAfter", async |node, asked| search(node, asked, false).await);
    family
        .read("ots_searchTransactionsBefore", async |node, asked| search(node, asked, true).await);
    family.read("ots_traceTransaction", calls_of);
}

fn to_value(value: &impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(value).map_err(|error| {
        tracing::error!(%error, "an answer can't be written");
        RpcError::new(INTERNAL_ERROR, "the answer can't be written")
    })
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.into(), value);
    }
}

/// A block without transactions, but with their number.
fn outline(view: &View, head: &Arc<Head>) -> Result<Value, RpcError> {
    let mut block = to_value(&sealed(view, head, false)?)?;
    if let Value::Object(fields) = &mut block {
        fields.remove("transactions");
    }
    set(&mut block, "transactionCount", json!(head.transactions));
    set(&mut block, "logsBloom", Value::Null);
    Ok(block)
}

async fn details(node: Arc<Node>, id: BlockId) -> Result<Value, RpcError> {
    node.read(move |node, view| {
        let Some(crate::node::Found::Sealed(head)) = node.find(view, id)? else {
            return Ok(Value::Null);
        };
        let base_fee = U256::from(head.header.base_fee_per_gas.unwrap_or_default());
        let mut fees = U256::ZERO;
        for (tip, gas) in view.fees(head.number)? {
            fees += (base_fee + U256::from(tip)) * U256::from(gas);
        }
        // Nobody is rewarded for a block: no money comes into being with it.
        let nothing = U64::ZERO;
        let issuance =
            json!({ "blockReward": nothing, "uncleReward": nothing, "issuance": nothing });
        Ok(json!({ "block": outline(view, &head)?, "issuance": issuance, "totalFees": fees }))
    })
    .await
}

async fn block_transactions(
    node: Arc<Node>,
    (number, page, size): (Count, Count, Count),
) -> Result<Value, RpcError> {
    node.read(move |node, view| {
        let head = existing(node, view, BlockId::Tag(BlockTag::Number(number.0)))?;
        let page_size = usize::try_from(size.0).unwrap_or(usize::MAX).min(SEARCH_PAGE_MAX);
        let placed = view.transactions(head.number)?.unwrap_or_default();
        // Pages count from the end of the block.
        let page = usize::try_from(page.0).unwrap_or(usize::MAX);
        let end = placed.len().saturating_sub(page.saturating_mul(page_size));
        let shown = placed.get(end.saturating_sub(page_size)..end).unwrap_or_default();
        let mut block = outline(view, &head)?;
        let (mut transactions, mut receipts) = (Vec::new(), Vec::new());
        for placed in shown {
            let mut shown = to_value(&transaction(&head, placed)?)?;
            if let Some(Value::String(input)) = shown.get_mut("input") {
                input.truncate(SELECTOR_DIGITS);
            }
            transactions.push(shown);
            let mut shown = to_value(&receipt(node, &head, placed)?)?;
            set(&mut shown, "logs", Value::Null);
            set(&mut shown, "logsBloom", Value::Null);
            receipts.push(shown);
        }
        set(&mut block, "transactions", Value::Array(transactions));
        Ok(json!({ "fullblock": block, "receipts": receipts }))
    })
    .await
}

#[derive(Serialize)]
struct Creator {
    hash: B256,
    creator: Address,
}

async fn contract_creator(
    node: Arc<Node>,
    (contract,): (Address,),
) -> Result<Option<Creator>, RpcError> {
    let creator = node.read(move |_, view| creator_of(view, contract)).await?;
    if creator.is_none() && !code_of(&node, node.state(None)?, contract).await?.is_empty() {
        // Contracts that a contract created are not indexed.
        let message = "the contract was not created by a transaction, but by another contract or \
                       in the genesis: that is not indexed";
        return Err(RpcError::server(message));
    }
    Ok(creator)
}

fn creator_of(view: &View, contract: Address) -> Result<Option<Creator>, RpcError> {
    let mut search = Search::new(view, [vec![Term::Recipient(contract)]]);
    let mut next = Some(Place::start(0));
    while let Some(from) = next
        && let Some(place) = search.first_from(from)?
    {
        next = place.next();
        let Some(placed) = view.placed(place)? else { continue };
        let (hash, creator) = (placed.transaction.hash(), placed.transaction.sender());
        let tx = decoded(&placed.transaction.raw, hash)?;
        let creates = tx.to().is_none() && creator.create(tx.nonce()) == contract;
        if creates && placed.transaction.succeeded() {
            return Ok(Some(Creator { hash, creator }));
        }
    }
    Ok(None)
}

async fn by_sender_and_nonce(
    node: Arc<Node>,
    (sender, nonce): (Address, Count),
) -> Result<Option<B256>, RpcError> {
    node.read(move |_, view| {
        let mut search = Search::new(view, [vec![Term::Sender(sender)]]);
        // The first block from which on all of the sender's nonces are at least the one wanted.
        let (mut low, mut high) = (0, view.head().number + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match first_nonce(view, &mut search, sender, Place::start(middle))? {
                Some((_, found)) if found < nonce.0 => low = middle + 1,
                _ => high = middle,
            }
        }
        // The block before it may hold smaller ones and, after them, the one wanted.
        let mut next = Some(Place::start(low.saturating_sub(1)));
        while let Some(from) = next
            && let Some((place, found)) = first_nonce(view, &mut search, sender, from)?
            && found <= nonce.0
        {
            if found == nonce.0 {
                return Ok(view.placed(place)?.map(|placed| placed.transaction.hash()));
            }
            next = place.next();
        }
        Ok(None)
    })
    .await
}

/// The first transaction of a sender from a place on, and its nonce.
fn first_nonce(
    view: &View,
    search: &mut Search<'_>,
    sender: Address,
    from: Place,
) -> Result<Option<(Place, u64)>, RpcError> {
    let mut next = Some(from);
    while let Some(from) = next
        && let Some(place) = search.first_from(from)?
    {
        next = place.next();
        let placed = view.placed(place)?.filter(|placed| placed.transaction.sender() == sender);
        if let Some(placed) = placed {
            let tx = decoded(&placed.transaction.raw, placed.transaction.hash())?;
            return Ok(Some((place, tx.nonce())));
        }
    }
    Ok(None)
}

async fn transaction_error(node: Arc<Node>, (hash,): (B256,)) -> Result<Bytes, RpcError> {
    let placed = node.chain.view().transaction(hash)?;
    let placed = placed.ok_or_else(|| RpcError::server("transaction not found"))?;
    let receipt = placed.transaction.receipt;
    Ok(match receipt.outcome {
        Outcome::Reverted(ErrorCode::Refused) => Bytes::copy_from_slice(&receipt.output),
        _ => Bytes::new(),
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    txs: Vec<TransactionJson>,
    receipts: Vec<Value>,
    first_page: bool,
    last_page: bool,
}

/// A page of the transactions that an account sent or received, or wrote logs in; the latest
/// first. Block 0 means the end of the chain from which the search starts.
async fn search(
    node: Arc<Node>,
    (account, block, size): (Address, Count, Count),
    back: bool,
) -> Result<Page, RpcError> {
    node.read(move |node, view| {
        let terms = vec![Term::Sender(account), Term::Recipient(account), Term::Address(account)];
        let mut search = Search::new(view, [terms]);
        let start = match (back, block.0) {
            (true, 0) => Some(Place::end(view.head().number)),
            (true, block) => Place::start(block).previous(),
            (false, 0) => Some(Place::start(0)),
            (false, block) => block.checked_add(1).map(Place::start),
        };
        let size = usize::try_from(size.0).unwrap_or(usize::MAX).min(SEARCH_PAGE_MAX);
        let (mut places, more) = page(&mut search, start, size, back)?;
        if !back {
            places.reverse();
        }
        let from_end = block.0 == 0;
        let mut page = Page {
            txs: Vec::new(),
            receipts: Vec::new(),
            first_page: if back { from_end } else { !more },
            last_page: if back { !more } else { from_end },
        };
        for place in places {
            page.add(node, view, place)?;
        }
        Ok(page)
    })
    .await
}

/// Places from a start on, about `size` of them: a block is not torn. And whether there are more.
fn page(
    search: &mut Search<'_>,
    start: Option<Place>,
    size: usize,
    back: bool,
) -> Result<(Vec<Place>, bool), RpcError> {
    let mut places: Vec<Place> = Vec::new();
    let mut next = start;
    while let Some(from) = next {
        let found = if back { search.last_to(from)? } else { search.first_from(from)? };
        let Some(place) = found else { break };
        if places.len() >= size && places.last().is_none_or(|last| last.number != place.number) {
            return Ok((places, true));
        }
        places.push(place);
        next = if back { place.previous() } else { place.next() };
    }
    Ok((places, false))
}

impl Page {
    fn add(&mut self, node: &Node, view: &View, place: Place) -> Result<(), RpcError> {
        let (Some(placed), Some(head)) = (view.placed(place)?, view.header(place.number)?) else {
            return Ok(());
        };
        self.txs.push(transaction(&head, &placed)?);
        let receipt: ReceiptJson = receipt(node, &head, &placed)?;
        let mut receipt = to_value(&receipt)?;
        set(&mut receipt, "timestamp", json!(head.header.timestamp));
        self.receipts.push(receipt);
        Ok(())
    }
}

/// What each call and creation of a transaction was, in order.
async fn flat(node: &Arc<Node>, hash: B256) -> Result<Vec<Value>, RpcError> {
    let tracer = GethDebugBuiltInTracerType::FlatCallTracer;
    let options = GethDebugTracingOptions::default().with_tracer(tracer.into());
    let trace = trace_transaction(node, hash, options).await?;
    serde_json::from_str(trace.get()).map_err(|error| {
        tracing::error!(%error, "a trace can't be read");
        RpcError::new(INTERNAL_ERROR, "the trace can't be read")
    })
}

fn field(call: &Value, part: &str, name: &str) -> Value {
    call.get(part).and_then(|part| part.get(name)).cloned().unwrap_or(Value::Null)
}

fn depth(call: &Value) -> usize {
    call.get("traceAddress").and_then(Value::as_array).map_or(0, Vec::len)
}

fn kind(call: &Value) -> &str {
    call.get("type").and_then(Value::as_str).unwrap_or_default()
}

async fn calls_of(node: Arc<Node>, (hash,): (B256,)) -> Result<Vec<Value>, RpcError> {
    let calls = flat(&node, hash).await?;
    let name = |call: &Value, name: &str, usual: &str| {
        field(call, "action", name).as_str().unwrap_or(usual).to_uppercase()
    };
    let shown = calls.iter().map(|call| match kind(call) {
        "create" => json!({
            "type": name(call, "creationMethod", "create"),
            "depth": depth(call),
            "from": field(call, "action", "from"),
            "to": field(call, "result", "address"),
            "value": field(call, "action", "value"),
            "input": field(call, "action", "init"),
            "output": field(call, "result", "code"),
        }),
        "suicide" => json!({
            "type": "SELFDESTRUCT",
            "depth": depth(call),
            "from": field(call, "action", "address"),
            "to": field(call, "action", "refundAddress"),
            "value": field(call, "action", "balance"),
            "input": "0x",
            "output": "0x",
        }),
        _ => json!({
            "type": name(call, "callType", "call"),
            "depth": depth(call),
            "from": field(call, "action", "from"),
            "to": field(call, "action", "to"),
            "value": field(call, "action", "value"),
            "input": field(call, "action", "input"),
            "output": field(call, "result", "output"),
        }),
    });
    Ok(shown.collect())
}

/// Money that moved and contracts that came or went, but for the transaction's own.
async fn internal_operations(node: Arc<Node>, (hash,): (B256,)) -> Result<Vec<Value>, RpcError> {
    let calls = flat(&node, hash).await?;
    let operation = |kind: u8, from: Value, to: Value, value: Value| json!({ "type": kind, "from": from, "to": to, "value": value });
    let mut operations = Vec::new();
    for call in calls.iter().filter(|call| depth(call) > 0) {
        let action = |name| field(call, "action", name);
        match kind(call) {
            "create" => {
                let second = action("creationMethod").as_str() == Some("create2");
                let to = field(call, "result", "address");
                let kind = if second { 3 } else { 2 };
                operations.push(operation(kind, action("from"), to, action("value")));
            }
            "suicide" => operations.push(operation(
                1,
                action("address"),
                action("refundAddress"),
                action("balance"),
            )),
            _ => {
                let moves = action("callType").as_str() == Some("call");
                if moves && !matches!(action("value").as_str(), None | Some("0x0")) {
                    operations.push(operation(0, action("from"), action("to"), action("value")));
                }
            }
        }
    }
    Ok(operations)
}
