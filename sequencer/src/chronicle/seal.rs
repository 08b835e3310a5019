//! The task that seals blocks.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use parsec_ethereum::Block;
use parsec_protocol::message::Outcomes;
use parsec_protocol::{EpochNumber, EpochRecord, PartitionId, Receipt, RuntimeId, TxId};
use parsec_runtimes::evm::chronicle::{Chronicle, ChronicleError, Executed, Parent, is_block};
use parsec_storage::Digest;
use parsec_storage::log::LogError;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::blocks::{Blocks, BlocksError};
use super::source::Recent;
use crate::driver::Ordered;
use crate::limits::RETRY_DELAY;
use crate::queries::{Queries, QueryError};
use crate::stop::Stop;

/// Seals blocks, in order, as far as all partitions are.
pub(crate) struct Sealer {
    pub(crate) chain_id: u64,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) recent: Arc<Recent>,
    pub(crate) log: PathBuf,
    pub(crate) partitions: Vec<PartitionId>,
    pub(crate) queries: Queries,
    pub(crate) applied: watch::Receiver<EpochNumber>,
    /// The transactions of the genesis.
    pub(crate) genesis: BTreeSet<TxId>,
    pub(crate) stop: Stop,
}

/// Why no more can be sealed, for ever.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    #[error("the log can't be read: {0}")]
    Log(#[from] LogError),
    #[error(transparent)]
    Chronicle(#[from] ChronicleError),
    #[error("{partition} has other receipts of {epoch} than the log says")]
    Receipts { partition: PartitionId, epoch: EpochNumber },
}

/// What became of some epochs, over all partitions.
struct Became {
    /// The digest of the whole state after each of them.
    states: Vec<Digest>,
    /// All receipts, by position.
    receipts: Vec<Receipt>,
}

impl Sealer {
    /// Runs until everything is to stop.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        let sealing = async {
            match self.seal_all().await {
                Ok(never) => match never {},
                Err(failure) => failure,
            }
        };
        match stop.unless(sealing).await {
            Some(failure) => stop.fail(format!("blocks can't be sealed: {failure}")),
            None => {
                if let Err(error) = self.blocks.persist() {
                    tracing::warn!(%error, "blocks will be sealed again");
                }
            }
        }
    }

    async fn seal_all(&mut self) -> Result<std::convert::Infallible, Failure> {
        let head = *self.blocks.head().borrow();
        let mut parent = head.map(|head| Parent { number: head.number, hash: head.hash.into() });
        let mut chronicle = None;
        let mut next = match &parent {
            Some(_) => {
                self.genesis.clear();
                self.blocks.through().borrow().next()
            }
            // All of the genesis has to be seen.
            None => EpochNumber(1),
        };
        if self.genesis.is_empty() && parent.is_none() {
            let genesis = self.chronicle(&mut chronicle).await?.genesis(None, [0; 32])?;
            parent = Some((&genesis).into());
            self.blocks.append(&[genesis], EpochNumber(0))?;
        }
        loop {
            let through = self.applied_from(next).await;
            let epochs = self.recent.epochs(&self.log, next, through).await?;
            let Some(last) = epochs.last().map(|ordered| ordered.record.number) else {
                // The log is ahead of what is applied, unless somebody cut it.
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            let sealed = self.seal(&mut chronicle, parent.clone(), &epochs).await?;
            if let Some(block) = sealed.last() {
                parent = Some(block.into());
                metrics::gauge!("parsec_sequencer_sealed_block")
                    .set(u32::try_from(block.number).unwrap_or(u32::MAX));
            }
            self.blocks.append(&sealed, last)?;
            next = last.next();
        }
    }

    /// Waits until every partition has applied `next`; how far they are.
    async fn applied_from(&mut self, next: EpochNumber) -> EpochNumber {
        let applied = self.applied.wait_for(|applied| *applied >= next).await.map(|it| *it);
        match applied {
            Ok(applied) => applied,
            // Nobody will tell any more: everything is about to stop.
            Err(_) => std::future::pending().await,
        }
    }

    /// The blocks that are among these epochs.
    async fn seal(
        &mut self,
        chronicle: &mut Option<Chronicle>,
        mut parent: Option<Parent>,
        epochs: &[Ordered],
    ) -> Result<Vec<Block>, Failure> {
        let mut of_interest = Vec::new();
        for ordered in epochs {
            if self.ends_genesis(ordered) || is_block(&ordered.record) {
                of_interest.push(ordered);
            }
        }
        if of_interest.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<_> = of_interest.iter().map(|ordered| ordered.record.number).collect();
        let became = self.became(&numbers).await?;
        let chronicle = self.chronicle(chronicle).await?;
        let mut receipts = became.receipts.into_iter().peekable();
        let mut sealed = Vec::new();
        for (ordered, state) in of_interest.into_iter().zip(became.states) {
            let record = &ordered.record;
            let mut of_epoch = Vec::new();
            while let Some(receipt) =
                receipts.next_if(|receipt| receipt.position.epoch == record.number)
            {
                of_epoch.push(receipt);
            }
            let block = match &parent {
                None => chronicle.genesis(Some(record), state.0)?,
                Some(parent) => {
                    let executed = executed(ordered, of_epoch)?;
                    chronicle.block(parent, record, state.0, executed)?
                }
            };
            parent = Some((&block).into());
            sealed.push(block);
        }
        Ok(sealed)
    }

    /// Whether this epoch holds the last of the genesis.
    fn ends_genesis(&mut self, ordered: &Ordered) -> bool {
        if self.genesis.is_empty() {
            return false;
        }
        for entry in ordered.batches.iter().flat_map(|batch| &batch.entries) {
            self.genesis.remove(&entry.id);
        }
        self.genesis.is_empty()
    }

    /// The chronicle, whose parameters are read once: they do not change after genesis.
    async fn chronicle<'a>(
        &self,
        known: &'a mut Option<Chronicle>,
    ) -> Result<&'a Chronicle, Failure> {
        let chronicle = match known.take() {
            Some(chronicle) => chronicle,
            None => {
                let key = [Chronicle::key()];
                let read = || {
                    let applied = *self.applied.borrow();
                    self.queries.read(applied, &key)
                };
                let params = patiently(read).await.into_iter().next().flatten();
                Chronicle::new(self.chain_id, params.as_ref())?
            }
        };
        Ok(known.insert(chronicle))
    }

    /// What became of these epochs.
    async fn became(&self, epochs: &[EpochNumber]) -> Result<Became, Failure> {
        let mut asked = JoinSet::new();
        for partition in self.partitions.iter().copied() {
            let (queries, epochs) = (self.queries.clone(), epochs.to_vec());
            asked.spawn(async move {
                let outcomes = patiently(|| queries.outcomes(partition, &epochs)).await;
                (partition, outcomes)
            });
        }
        let mut became = Became { states: vec![Digest::ZERO; epochs.len()], receipts: Vec::new() };
        while let Some(answer) = asked.join_next().await {
            let (partition, Outcomes { states, receipts, .. }) = match answer {
                Ok(answer) => answer,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            if let Some(epoch) = epochs.get(states.len()) {
                return Err(Failure::Receipts { partition, epoch: *epoch });
            }
            for (sum, state) in became.states.iter_mut().zip(states) {
                sum.add(Digest(state));
            }
            became.receipts.extend(receipts);
        }
        became.receipts.sort_by_key(|receipt| receipt.position);
        Ok(became)
    }
}

/// Asks until there is an answer: a host may be away.
async fn patiently<T, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, QueryError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::debug!(%error, "what became of epochs is not known yet");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// The Ethereum transactions of an epoch with their receipts, which are sorted.
fn executed(ordered: &Ordered, receipts: Vec<Receipt>) -> Result<Vec<Executed>, Failure> {
    let record: &EpochRecord = &ordered.record;
    let entries = ordered.batches.iter().flat_map(|batch| &batch.entries);
    let mut receipts = receipts.into_iter();
    let mut executed = Vec::new();
    for entry in entries {
        let receipt = receipts.next().filter(|receipt| receipt.id == entry.id);
        let Some(receipt) = receipt else {
            return Err(Failure::Receipts { partition: entry.home, epoch: record.number });
        };
        if entry.runtime == RuntimeId::EVM {
            let (sender, payload) = (entry.sender.clone(), entry.payload.clone());
            executed.push(Executed { sender, payload, receipt });
        }
    }
    Ok(executed)
}
