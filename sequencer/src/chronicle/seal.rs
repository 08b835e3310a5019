//! The task that finds out what becomes of epochs, and has blocks sealed of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use parsec_protocol::{EpochNumber, PartitionId, Receipt, TxId};
use parsec_runtimes::evm::chronicle::{Chronicle, ChronicleError, Parent, is_block};
use parsec_storage::log::LogError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::blocks::{Blocks, BlocksError};
use super::press::{Became, Job};
use super::source::{Recent, Taken};
use crate::limits::{RETRY_DELAY, SEAL_INTERVAL};
use crate::queries::{Queries, QueryError};
use crate::stop::Stop;

/// Has blocks sealed, in order, as far as all partitions are.
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
    /// The thread that seals them.
    pub(crate) press: mpsc::Sender<Job>,
    pub(crate) stop: Stop,
}

/// Why no more can be sealed, for ever.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    #[error("the log can't be read: {0}")]
    Log(#[from] LogError),
    #[error(transparent)]
    Chronicle(#[from] ChronicleError),
    #[error("{partition} has other receipts of {epoch} than the log says")]
    Receipts { partition: PartitionId, epoch: EpochNumber },
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
        let mut chronicle = None;
        let head = *self.blocks.head().borrow();
        let mut parent = head.map(|head| Parent { number: head.number, hash: head.hash.into() });
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
        if self.genesis.is_empty() {
            self.recent.on_genesis_ended();
        }
        loop {
            let through = self.applied_from(next).await;
            let epochs = self.recent.epochs(&self.log, next, through).await?;
            let Some(last) = epochs.last().map(|taken| taken.ordered.record.number) else {
                // The log is ahead of what is applied, unless somebody cut it.
                tokio::time::sleep(RETRY_DELAY).await;
                continue;
            };
            let became = self.became(epochs).await?;
            match became.is_empty() {
                true => self.blocks.append(&[], last)?,
                false => {
                    // ORDER: only now, for they are in the last epoch of the genesis, perhaps.
                    let chronicle = self.chronicle(&mut chronicle).await?;
                    parent = self.press(chronicle, parent, became, last).await?;
                }
            }
            next = last.next();
            self.gather().await;
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

    /// Waits for more to be sealed together, unless somebody waits for a block: each time costs a
    /// message to every host.
    async fn gather(&self) {
        let mut wanted = self.blocks.wanted();
        let wanted = wanted.wait_for(|waiting| *waiting > 0);
        // That the time is over, and that there is nobody to want anything, come to the same.
        tokio::time::timeout(SEAL_INTERVAL, wanted).await.ok();
    }

    /// Has blocks made of epochs, and kept. Returns the last block.
    async fn press(
        &self,
        chronicle: Arc<Chronicle>,
        parent: Option<Parent>,
        became: Vec<Became>,
        through: EpochNumber,
    ) -> Result<Option<Parent>, Failure> {
        let (answer, pressed) = oneshot::channel();
        let job = Job { chronicle, parent, became, through, answer };
        // The thread ends only when everything does.
        if self.press.send(job).await.is_err() {
            return std::future::pending().await;
        }
        match pressed.await {
            Ok(pressed) => pressed,
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether this epoch holds the last of the genesis.
    fn ends_genesis(&mut self, taken: &Taken) -> bool {
        if self.genesis.is_empty() {
            return false;
        }
        for entry in taken.ordered.batches.iter().flat_map(|batch| &batch.entries) {
            self.genesis.remove(&entry.id);
        }
        let ends = self.genesis.is_empty();
        if ends {
            self.recent.on_genesis_ended();
        }
        ends
    }

    /// The chronicle, whose parameters are read once: they do not change after genesis.
    async fn chronicle(
        &self,
        known: &mut Option<Arc<Chronicle>>,
    ) -> Result<Arc<Chronicle>, Failure> {
        if let Some(chronicle) = known {
            return Ok(chronicle.clone());
        }
        let key = [Chronicle::key()];
        let read = || {
            let applied = *self.applied.borrow();
            self.queries.read(applied, &key)
        };
        let params = patiently(read).await.into_iter().next().flatten();
        let chronicle = Arc::new(Chronicle::new(self.chain_id, params.as_ref())?);
        Ok(known.insert(chronicle).clone())
    }

    /// What became of those of the epochs that are blocks.
    async fn became(&mut self, epochs: Vec<Taken>) -> Result<Vec<Became>, Failure> {
        let mut blocks = Vec::new();
        for taken in epochs {
            if self.ends_genesis(&taken) || is_block(&taken.ordered.record) {
                blocks.push(taken);
            }
        }
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let number = |taken: &Taken| taken.ordered.record.number;
        let numbers: Vec<_> = blocks.iter().map(number).collect();
        let states = patiently(|| self.queries.states(&numbers)).await;
        let unknown = blocks.iter().filter(|taken| taken.receipts.is_none()).map(number).collect();
        let mut asked = self.ask_receipts(unknown).await;
        let became = |(taken, state): (Taken, _)| {
            let Taken { ordered, receipts } = taken;
            let asked = || asked.remove(&ordered.record.number).unwrap_or_default();
            Became { receipts: receipts.unwrap_or_else(asked), ordered, state }
        };
        Ok(blocks.into_iter().zip(states).map(became).collect())
    }

    /// Asks all partitions for the receipts of epochs, which are then sorted.
    async fn ask_receipts(
        &self,
        epochs: Vec<EpochNumber>,
    ) -> BTreeMap<EpochNumber, Vec<Arc<Receipt>>> {
        let mut found: BTreeMap<EpochNumber, Vec<Arc<Receipt>>> = BTreeMap::new();
        if epochs.is_empty() {
            return found;
        }
        metrics::counter!("parsec_sequencer_epochs_asked_for_total").increment(epochs.len() as u64);
        let mut asked = JoinSet::new();
        for partition in self.partitions.iter().copied() {
            let (queries, epochs) = (self.queries.clone(), epochs.clone());
            asked.spawn(async move {
                patiently(|| queries.outcomes(partition, &epochs)).await.receipts
            });
        }
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(receipts) => receipts.into_iter().for_each(|receipt| {
                    found.entry(receipt.position.epoch).or_default().push(Arc::new(receipt));
                }),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        found.values_mut().for_each(|of| of.sort_by_key(|receipt| receipt.position));
        found
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
