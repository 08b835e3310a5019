//! A cluster as what stands behind a gateway.
//!
//! The gateway follows the cluster's sealed blocks into its own index, submits transactions, and
//! has the Ethereum runtime of the cluster answer questions about the state after a block. Any
//! number of gateways may do so; what they say of blocks is the same.

mod check;
mod follow;
mod waiting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use parsec_client::{Client, ClientConfig, Error};
use parsec_ethereum::{Account, Answer, Environment, Pool, PoolTransaction, Query, QueryError};
use parsec_protocol::{ErrorCode, RuntimeId, Transaction};
use tokio::sync::broadcast;
use tokio::time::Instant;

use self::check::Signed;
use self::waiting::Waiting;
use crate::backend::{Answering, At, Backend, Refused};
use crate::chain::{Chain, ChainError};

pub use follow::Follower;

/// How many of the latest blocks have a state that can be asked about.
pub const STATE_BLOCKS: u64 = 128;

/// How long a transaction waits for the one with the nonce before.
const EARLIER_WAIT: Duration = Duration::from_secs(5);

/// How long what was known of an account is taken to be so.
const ACCOUNT_KNOWN: Duration = Duration::from_millis(100);

/// How long the block of an accepted transaction is waited for: a multiple of what it usually takes.
const BLOCK_WAIT: Duration = Duration::from_millis(250);

/// How many arrivals of transactions a slow listener may be behind.
const ARRIVALS_MAX: usize = 4_096;

/// Why a gateway can't follow its cluster.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum ClusterError {
    #[error("the cluster can't be reached: {0}")]
    Client(#[from] Error),
    #[error("the cluster sent something that is no block: {0}")]
    Block(#[from] parsec_protocol::Malformed),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A cluster, as a backend.
pub struct Cluster {
    chain_id: u64,
    /// For submissions alone: questions that take long would hold them up.
    submitting: Client,
    asking: Client,
    chain: Arc<Chain>,
    waiting: Arc<Waiting>,
    arrivals: broadcast::Sender<Arc<PoolTransaction>>,
}

impl Cluster {
    /// Connects to a cluster, and opens the index of its blocks in `directory`. Nothing is current
    /// before the [`Follower`] runs.
    ///
    /// # Errors
    /// [`ClusterError`] if the cluster can't be reached or seals no blocks, or the index is
    /// another cluster's.
    pub async fn connect(
        config: ClientConfig,
        directory: &Path,
    ) -> Result<(Self, Follower), ClusterError> {
        let following = Client::connect(config.clone()).await?;
        let submitting = Client::connect(config.clone()).await?;
        let asking = Client::connect(config).await?;
        let genesis = follow::genesis(&following).await?;
        let chain = Arc::new(Chain::open(directory, &genesis)?);
        let waiting = Arc::new(Waiting::default());
        let follower = Follower::new(following, chain.clone(), waiting.clone());
        let (arrivals, _) = broadcast::channel(ARRIVALS_MAX);
        let chain_id = submitting.welcome().chain_id;
        Ok((Self { chain_id, submitting, asking, chain, waiting, arrivals }, follower))
    }

    /// The index of the cluster's blocks.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    async fn ask(&self, at: At, query: Query) -> Result<Answer, QueryError> {
        let view = self.chain.view();
        let number = match at {
            At::Block(number) => number,
            At::Pending => view.head().number,
        };
        let unavailable =
            |error: &dyn std::fmt::Display| QueryError::Unavailable(error.to_string());
        let header = view.header(number).map_err(|error| unavailable(&error))?;
        let header = header.ok_or_else(|| QueryError::Invalid("header not found".into()))?;
        let oldest = self.oldest_state();
        if number < oldest {
            return Err(QueryError::NotKept { block: number, oldest });
        }
        let question = serde_json::to_vec(&query).map_err(|error| unavailable(&error))?;
        let asked = self.asking.query(RuntimeId::EVM, header.epoch, question.into()).await;
        let answer = asked.map_err(|error| match error {
            Error::Failed { code: ErrorCode::NotKept, .. } => {
                QueryError::NotKept { block: number, oldest }
            }
            Error::Failed { detail, .. } => QueryError::Unavailable(detail),
            error => unavailable(&error),
        })?;
        let answer: Result<Answer, QueryError> =
            serde_json::from_slice(&answer).map_err(|error| unavailable(&error))?;
        answer
    }

    /// Remembers a transaction until it is in a block, and tells who listens.
    fn on_accepted(&self, hash: B256, raw: &Bytes) {
        let Some(arrived) = self.waiting.add(hash, raw.clone()) else { return };
        // ORDER: after it was added; its block may have come before, and with it the moment to
        // remove it.
        if matches!(self.chain.view().transaction(hash), Ok(Some(_))) {
            self.waiting.remove(hash);
        }
        if self.arrivals.receiver_count() > 0
            && let Some(transaction) = arrived.transaction()
        {
            // Listeners may go at any moment.
            self.arrivals.send(transaction).ok();
        }
    }

    /// Refuses what would be found invalid where it is ordered: there, nobody could be told.
    async fn check(&self, raw: &[Bytes]) -> Vec<Result<(), Refused>> {
        let transactions: Vec<_> = raw.iter().cloned().map(Signed::decode_apart).collect();
        let mut expected: BTreeMap<Address, Account> = BTreeMap::new();
        let mut verdicts = Vec::with_capacity(raw.len());
        for decoding in transactions {
            let signed = match decoding.await {
                Ok(Some(signed)) => signed,
                // The cluster says what is wrong with it.
                Ok(None) => {
                    verdicts.push(Ok(()));
                    continue;
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            let known = expected.remove(&signed.sender);
            let (verdict, account) = self.check_one(&signed, known).await;
            expected.extend(account.map(|account| (signed.sender, account)));
            verdicts.push(verdict);
        }
        verdicts
    }

    /// Checks a transaction against its sender's account, which is `known` as after those before
    /// it. One whose nonce is ahead waits a while for the one that it follows: requests that were
    /// sent at once come in any order.
    async fn check_one(
        &self,
        signed: &Signed,
        known: Option<Account>,
    ) -> (Result<(), Refused>, Option<Account>) {
        let until = Instant::now() + EARLIER_WAIT;
        let (mut known, mut asked) = (known, Instant::now());
        loop {
            // Before the account is looked at, so that nothing is missed in between.
            let added = self.waiting.added();
            let mut account = match known.take() {
                Some(account) => account,
                None => match self.account(signed.sender).await {
                    Ok(account) => {
                        asked = Instant::now();
                        account
                    }
                    Err(refused) => return (Err(refused), None),
                },
            };
            let verdict = signed.check(&mut account);
            let is_ahead = |refused: &Refused| refused.code == ErrorCode::NonceTooHigh;
            if !verdict.as_ref().is_err_and(is_ahead) || Instant::now() >= until {
                return (verdict, Some(account));
            }
            // Most that is added says how far the account is; what is done in the meantime, only
            // the cluster does.
            let again = asked + ACCOUNT_KNOWN;
            if tokio::time::timeout_at(again, added).await.is_ok() && Instant::now() < again {
                account.nonce = self.waiting.next_nonce(signed.sender, account.nonce);
                known = Some(account);
            }
        }
    }

    /// An account as the next transaction will find it, with all that it has under way.
    async fn account(&self, sender: Address) -> Result<Account, Refused> {
        match self.ask(At::Pending, Query::Account(sender)).await {
            Ok(Answer::Account(account)) => {
                let nonce = self.waiting.next_nonce(sender, account.nonce);
                Ok(Account { nonce, ..account })
            }
            Ok(_) => Err(unavailable("another question was answered")),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Checks transactions and hands over what passes.
    async fn submit_checked(&self, raw: Vec<Bytes>) -> Vec<Result<B256, Refused>> {
        let verdicts = self.check(&raw).await;
        let passed = raw.into_iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        let passed = passed.map(|(raw, _)| raw).collect();
        let mut accepted = self.hand_over(passed).await.into_iter();
        let stopped = || Err(refused(&Error::Stopped));
        let verdict = |verdict: Result<(), Refused>| match verdict {
            Ok(()) => accepted.next().unwrap_or_else(stopped),
            Err(refused) => Err(refused),
        };
        verdicts.into_iter().map(verdict).collect()
    }

    /// Hands transactions over; returns when each of them is accepted or refused.
    async fn hand_over(&self, raw: Vec<Bytes>) -> Vec<Result<B256, Refused>> {
        let transaction = |raw: &Bytes| Transaction::new(RuntimeId::EVM, raw.clone());
        let transactions = raw.iter().map(transaction).collect();
        let mut verdicts: Vec<Option<Result<B256, Refused>>> = vec![None; raw.len()];
        let (mut submission, mut acceptances) =
            match self.submitting.submit_watched(transactions).await {
                Ok(submitted) => submitted,
                Err(error) => return vec![Err(refused(&error)); raw.len()],
            };
        let mut missing = raw.len();
        while missing > 0 {
            let (index, verdict) = tokio::select! {
                biased;
                Some((index, id)) = acceptances.recv() => (index, Ok(B256::new(id.0))),
                result = submission.next() => match result {
                    Some((index, Ok(receipt))) => (index, Ok(B256::new(receipt.id.0))),
                    Some((index, Err(error))) => (index, Err(refused(&error))),
                    None => break,
                },
            };
            if let Some(slot @ None) = verdicts.get_mut(index) {
                if let Ok(hash) = verdict {
                    self.on_accepted(hash, &raw[index]);
                }
                *slot = Some(verdict);
                missing -= 1;
            }
        }
        tokio::spawn(watch_the_rest(submission, self.waiting.clone()));
        let stopped = || Err(refused(&Error::Stopped));
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(stopped)).collect()
    }
}

/// Takes off the list what turned out to be in no block: it was invalid where it stood.
async fn watch_the_rest(mut submission: parsec_client::Submission, waiting: Arc<Waiting>) {
    while let Some((_, result)) = submission.next().await {
        if let Ok(receipt) = result {
            let ran = matches!(
                receipt.outcome,
                parsec_protocol::Outcome::Committed | parsec_protocol::Outcome::Reverted(_)
            );
            if !ran {
                waiting.remove(B256::new(receipt.id.0));
            }
        }
    }
}

fn unavailable(reason: impl std::fmt::Display) -> Refused {
    Refused { code: ErrorCode::Unavailable, detail: reason.to_string(), known: None }
}

fn refused(error: &Error) -> Refused {
    match error {
        Error::Rejected(rejection) => {
            Refused { code: rejection.code, detail: rejection.detail.clone(), known: None }
        }
        error => Refused { code: ErrorCode::Unavailable, detail: error.to_string(), known: None },
    }
}

impl Backend for Cluster {
    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn pending(&self) -> Environment {
        let head = self.chain.head();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = &head.header;
        Environment {
            number: head.number + 1,
            timestamp: now.max(header.timestamp),
            gas_limit: header.gas_limit,
            base_fee: header.base_fee_per_gas.unwrap_or_default(),
            coinbase: header.beneficiary,
            // It is not known before the block is ordered.
            prevrandao: header.mix_hash,
            excess_blob_gas: header.excess_blob_gas,
            parent_beacon_block_root: header.parent_beacon_block_root,
            ..Environment::default()
        }
    }

    fn oldest_state(&self) -> u64 {
        (self.chain.head().number + 1).saturating_sub(STATE_BLOCKS)
    }

    fn query(&self, at: At, query: Query) -> Answering<'_, Result<Answer, QueryError>> {
        Box::pin(self.ask(at, query))
    }

    fn submit(&self, raw: Vec<Bytes>) -> Answering<'_, Vec<Result<B256, Refused>>> {
        Box::pin(self.submit_checked(raw))
    }

    fn next_nonce(&self, sender: Address) -> Answering<'_, Result<u64, QueryError>> {
        Box::pin(async move {
            match self.ask(At::Pending, Query::Account(sender)).await? {
                Answer::Account(account) => Ok(self.waiting.next_nonce(sender, account.nonce)),
                _ => Err(QueryError::Unavailable("another question was answered".into())),
            }
        })
    }

    fn pool(&self) -> Answering<'_, Result<Pool, QueryError>> {
        Box::pin(async move { Ok(self.waiting.pool()) })
    }

    fn pooled(&self, hash: B256) -> Answering<'_, Result<Option<PoolTransaction>, QueryError>> {
        Box::pin(async move { Ok(self.waiting.get(hash)) })
    }

    fn block_wait(&self) -> Duration {
        BLOCK_WAIT
    }

    fn arrivals(&self) -> broadcast::Receiver<Arc<PoolTransaction>> {
        self.arrivals.subscribe()
    }
}
