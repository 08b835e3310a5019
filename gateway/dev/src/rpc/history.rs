//! Changing what has been: taking blocks back, and making others in their place.

use alloy_primitives::Bytes;
use parsec_gateway::rpc::{Count, INTERNAL_ERROR, Param, RpcError};
use parsec_gateway::shape::{BlockJson, Mined, TransactionJson, Transactions};
use parsec_runtimes::evm::payload;
use serde_json::value::RawValue;

use super::mine::{MineOptions, check_count, mine};
use super::request::{Failing, Unsigned, Wanted, fill};
use super::send::{Authority, authorize};
use super::{Family, stopped};
use crate::backend::DevBackend;
use crate::chain::DevChain;
use crate::transaction::Submission;

/// A transaction for a block that is made anew: its raw bytes, or a description of it.
enum Given {
    Raw(Bytes),
    Wanted(Box<Wanted>),
}

/// A transaction, and the index of the block that it is for.
struct ForBlock(Given, u64);

impl Param for ForBlock {
    fn read(raw: &RawValue) -> Result<Self, String> {
        let (given, index): (&RawValue, Box<RawValue>) =
            serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let given = match given.get().starts_with('"') {
            true => Given::Raw(Bytes::read(given)?),
            false => Given::Wanted(Box::new(Wanted::read(given)?)),
        };
        Ok(Self(given, Count::read(&index)?.0))
    }
}

/// A transaction that can be sent, with the block that it is for.
enum Ready {
    Signed(Box<Submission>),
    Unsigned(Box<Unsigned>),
}

pub(super) fn add(family: &mut Family) {
    family.act(
        &["evm_mine_detailed", "anvil_mine_detailed"],
        async |backend: DevBackend, (options,): (MineOptions,)| {
            let (first, last) = mine(&backend, options).await?;
            (first..=last).map(|number| block(&backend, number)).collect::<Result<Vec<_>, _>>()
        },
    );
    family.act(&["anvil_rollback"], async |backend: DevBackend, (blocks,): (Option<Count>,)| {
        let blocks = blocks.map_or(1, |blocks| blocks.0);
        let change = backend.change(move |chain, _| Ok(chain.roll_back(blocks)));
        change.await.map_err(stopped)?.map_err(RpcError::invalid_params)
    });
    family.act(
        &["anvil_reorg"],
        async |backend: DevBackend, (blocks, given): (Count, Option<Vec<ForBlock>>)| {
            check_count(blocks.0)?;
            reorganize(&backend, blocks.0, given.unwrap_or_default()).await
        },
    );
}

async fn reorganize(
    backend: &DevBackend,
    blocks: u64,
    given: Vec<ForBlock>,
) -> Result<(), RpcError> {
    let mut ready = Vec::with_capacity(given.len());
    for ForBlock(given, index) in given {
        if index >= blocks {
            let message = format!("a transaction for block {index} of {blocks}");
            return Err(RpcError::invalid_params(message));
        }
        ready.push((prepare(backend, given).await?, index));
    }
    let signer = backend.clone();
    let change = backend.change(move |chain, now| {
        let replaced = chain.latest_hash();
        if let Err(reason) = chain.roll_back(blocks) {
            return Ok(Some(RpcError::invalid_params(reason)));
        }
        chain.mine_instead(now, replaced, blocks, |chain, index| {
            let (of_block, others) = std::mem::take(&mut ready)
                .into_iter()
                .partition::<Vec<_>, _>(|(_, block)| *block == index);
            ready = others;
            of_block.into_iter().map(|(ready, _)| finish(&signer, chain, ready)).collect()
        })
    });
    change.await.map_err(stopped)?.map_or(Ok(()), Err)
}

async fn prepare(backend: &DevBackend, given: Given) -> Result<Ready, RpcError> {
    match given {
        Given::Raw(raw) => Ok(Ready::Signed(Box::new(Submission::signed(&raw.0)?))),
        Given::Wanted(wanted) => {
            Ok(Ready::Unsigned(Box::new(fill(backend, wanted.0, Failing::Send).await?)))
        }
    }
}

fn finish(backend: &DevBackend, chain: &DevChain, ready: Ready) -> Result<Submission, RpcError> {
    match ready {
        Ready::Signed(submission) => Ok(*submission),
        Ready::Unsigned(unsigned) => {
            authorize(backend.accounts(), chain, unsigned.renewed(chain), Authority::Own)
        }
    }
}

/// A block with its transactions.
fn block(backend: &DevBackend, number: u64) -> Result<BlockJson, RpcError> {
    let index = backend.index();
    let view = index.view();
    let missing = || RpcError::new(INTERNAL_ERROR, "a block that was made is not there");
    let head = view.header(number)?.ok_or_else(missing)?;
    let placed = view.transactions(number)?.unwrap_or_default();
    let all = placed.iter().map(|placed| {
        let transaction = payload::decode(&placed.transaction.raw)
            .map_err(|error| RpcError::new(INTERNAL_ERROR, error.to_string()))?;
        let mined = Mined { head: &head, index: placed.place.index };
        let (hash, sender) = (placed.transaction.hash(), placed.transaction.sender());
        Ok(TransactionJson::new(&transaction, hash, sender, Some(mined)))
    });
    let all: Result<_, RpcError> = all.collect();
    Ok(BlockJson::new(&head, Transactions::Full(all?)))
}
