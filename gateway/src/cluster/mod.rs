//! A cluster as what stands behind a gateway.
//!
//! The gateway follows the cluster's sealed blocks into its own index, submits transactions, and
//! has the Ethereum runtime of the cluster answer questions about the state after a block. Any
//! number of gateways may do so; what they say of blocks is the same.

mod follow;
mod pool;
mod signed;
mod submitter;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parsec_client::{Client, ClientConfig, Error};
use parsec_ethereum::{Answer, Environment, Pool, PoolTransaction, Query, QueryError};
use parsec_protocol::{ErrorCode, RuntimeId};
use tokio::sync::broadcast;

use self::pool::Declined;
use self::signed::Signed;
use self::submitter::{Submitted, Submitter};
use crate::backend::{Answering, At, Backend, Refused};
use crate::chain::{Chain, ChainError};

pub use follow::Follower;

/// How many of the latest blocks have a state that can be asked about.
pub const STATE_BLOCKS: u64 = 128;

/// How many accounts are asked for at a time.
const ACCOUNTS_AT_ONCE: usize = 64;

/// How often an account is asked for before its sender is told to try again.
const ACCOUNT_ATTEMPTS: usize = 16;

/// How long the block of an accepted transaction is waited for: a multiple of what it usually takes.
const BLOCK_WAIT: Duration = Duration::from_millis(250);

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
    asking: Client,
    chain: Arc<Chain>,
    submitter: Submitter,
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
        // For submissions alone: questions that take long would hold them up.
        let submitting = Client::connect(config.clone()).await?;
        let asking = Client::connect(config).await?;
        let genesis = follow::genesis(&following).await?;
        let chain = Arc::new(Chain::open(directory, &genesis)?);
        let chain_id = submitting.welcome().chain_id;
        let submitter = Submitter::start(submitting);
        let follower = Follower::new(following, chain.clone(), submitter.clone());
        Ok((Self { chain_id, asking, chain, submitter }, follower))
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

    /// Takes transactions into the pool; each is refused or gets its hash. Returns when the cluster
    /// has accepted or refused those that have their turn.
    async fn submit_all(&self, raw: Vec<Bytes>) -> Vec<Result<B256, Refused>> {
        let signed = Signed::decode_all(&raw).await;
        self.ask_for_strangers(&signed).await;
        let mut verdicts = Vec::with_capacity(raw.len());
        for (signed, raw) in signed.into_iter().zip(raw) {
            verdicts.push(match signed {
                Some(signed) => self.submit_one(signed).await,
                None => Err(self.submitter.why_refused(&raw).await),
            });
        }
        let mut answers = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            answers.push(match verdict {
                Ok(submitted) => submitted.verdict().await,
                Err(refused) => Err(refused),
            });
        }
        answers
    }

    /// Asks for the accounts of senders that the pool knows nothing of, some at a time.
    async fn ask_for_strangers(&self, signed: &[Option<Signed>]) {
        let senders: BTreeSet<_> = signed.iter().flatten().map(|signed| signed.sender).collect();
        let strangers = self.submitter.strangers(senders);
        let asked = strangers.into_iter().map(|sender| self.ask_account(sender));
        stream::iter(asked).buffer_unordered(ACCOUNTS_AT_ONCE).collect::<Vec<_>>().await;
    }

    /// Asks for an account, for the pool.
    async fn ask_account(&self, sender: Address) -> Result<(), Refused> {
        // It may have become older than what the pool knows meanwhile, but not for long.
        for _ in 0..ACCOUNT_ATTEMPTS {
            let account = match self.ask(At::Pending, Query::Account(sender)).await {
                Ok(Answer::Account(account)) => account,
                Ok(_) => return Err(unavailable("another question was answered")),
                Err(error) => return Err(unavailable(error)),
            };
            if self.submitter.on_account(sender, &account) {
                return Ok(());
            }
        }
        Err(unavailable("the sender's account changes faster than it can be asked for"))
    }

    async fn submit_one(&self, signed: Signed) -> Result<Submitted, Refused> {
        let sender = signed.sender;
        match self.submitter.submit(signed.clone(), false) {
            Err(Declined::AskAccount) => self.ask_account(sender).await?,
            Err(Declined::Refused(refused)) => return Err(refused),
            Ok(submitted) => return Ok(submitted),
        }
        self.submitter.submit(signed, true).map_err(|declined| match declined {
            Declined::AskAccount => unavailable("the sender's account is not known any more"),
            Declined::Refused(refused) => refused,
        })
    }
}

fn unavailable(reason: impl std::fmt::Display) -> Refused {
    Refused { code: ErrorCode::Unavailable, detail: reason.to_string(), known: None }
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
            // Later than the head, though the next block may be of the same second: some contracts do
            // more once time has passed (the first swap of a second of a Uniswap pair), and an
            // estimate has to be enough for that.
            timestamp: now.max(header.timestamp.saturating_add(1)),
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
        Box::pin(self.submit_all(raw))
    }

    fn next_nonce(&self, sender: Address) -> Answering<'_, Result<u64, QueryError>> {
        Box::pin(async move {
            match self.ask(At::Pending, Query::Account(sender)).await? {
                Answer::Account(account) => Ok(self.submitter.next_nonce(&sender, account.nonce)),
                _ => Err(QueryError::Unavailable("another question was answered".into())),
            }
        })
    }

    fn pool(&self) -> Answering<'_, Result<Pool, QueryError>> {
        Box::pin(async move { Ok(self.submitter.pool()) })
    }

    fn pooled(&self, hash: B256) -> Answering<'_, Result<Option<PoolTransaction>, QueryError>> {
        Box::pin(async move { Ok(self.submitter.get(&hash)) })
    }

    fn block_wait(&self) -> Duration {
        BLOCK_WAIT
    }

    fn arrivals(&self) -> broadcast::Receiver<Arc<PoolTransaction>> {
        self.submitter.arrivals()
    }
}
