//! The thread that seals blocks: roots of tries and bloom filters are work for a processor, which
//! would hold up everyone who shares a thread with it.

use std::sync::Arc;

use parsec_ethereum::Block;
use parsec_protocol::{EpochNumber, Receipt, RuntimeId};
use parsec_runtimes::evm::chronicle::{Chronicle, Executed, Parent};
use parsec_storage::Digest;
use tokio::sync::{mpsc, oneshot};

use super::blocks::Blocks;
use super::seal::Failure;
use crate::driver::Ordered;

/// An epoch that is a block, and what became of it.
pub(super) struct Became {
    pub(super) ordered: Ordered,
    /// The digest of the whole state after it.
    pub(super) state: Digest,
    /// The receipts of all its transactions, by position.
    pub(super) receipts: Vec<Arc<Receipt>>,
}

/// Blocks to be sealed.
pub(crate) struct Job {
    pub(super) chronicle: Arc<Chronicle>,
    /// The block before; none before the genesis.
    pub(super) parent: Option<Parent>,
    pub(super) became: Vec<Became>,
    /// The epoch through which all blocks are sealed then.
    pub(super) through: EpochNumber,
    /// Gets the last block.
    pub(super) answer: oneshot::Sender<Result<Option<Parent>, Failure>>,
}

/// Seals blocks and keeps them, until nobody can want any more.
pub(crate) fn press_all(blocks: &Blocks, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        let Job { chronicle, parent, became, through, answer } = job;
        let pressed = press(&chronicle, blocks, parent, became, through);
        // If nobody waits for it, everything is about to stop.
        answer.send(pressed).ok();
    }
}

fn press(
    chronicle: &Chronicle,
    blocks: &Blocks,
    mut parent: Option<Parent>,
    became: Vec<Became>,
    through: EpochNumber,
) -> Result<Option<Parent>, Failure> {
    let mut sealed: Vec<Block> = Vec::with_capacity(became.len());
    for Became { ordered, state, receipts } in became {
        let block = match &parent {
            None => chronicle.genesis(Some(&ordered.record), state.0)?,
            Some(parent) => {
                let executed = executed(&ordered, receipts)?;
                chronicle.block(parent, &ordered.record, state.0, executed)?
            }
        };
        parent = Some((&block).into());
        sealed.push(block);
    }
    if let Some(block) = sealed.last() {
        metrics::gauge!("parsec_sequencer_sealed_block")
            .set(u32::try_from(block.number).unwrap_or(u32::MAX));
    }
    blocks.append(&sealed, through)?;
    Ok(parent)
}

/// The Ethereum transactions of an epoch with their receipts, which are sorted.
fn executed(ordered: &Ordered, receipts: Vec<Arc<Receipt>>) -> Result<Vec<Executed>, Failure> {
    let entries = ordered.batches.iter().flat_map(|batch| &batch.entries);
    let mut receipts = receipts.into_iter();
    let mut executed = Vec::new();
    for entry in entries {
        let receipt = receipts.next().filter(|receipt| receipt.id == entry.id);
        let Some(receipt) = receipt else {
            let epoch = ordered.record.number;
            return Err(Failure::Receipts { partition: entry.home, epoch });
        };
        if entry.runtime == RuntimeId::EVM {
            let (sender, payload) = (entry.sender.clone(), entry.payload.clone());
            let receipt = Arc::unwrap_or_clone(receipt);
            executed.push(Executed { sender, payload, receipt });
        }
    }
    Ok(executed)
}
