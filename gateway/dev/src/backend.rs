//! The development chain behind a gateway.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_eips::eip7840::BlobParams;
use alloy_primitives::{Address, B256};
use bytes::Bytes;
use parsec_ethereum::{
    Answer, Block, Environment, Pool, PoolTransaction, Query, QueryError, Simulation,
};
use parsec_gateway::{Answering, At, Backend, Chain, ChainError, Refused};
use parsec_protocol::{ErrorCode, Key, Value};
use parsec_runtimes::evm::simulate::{self, Reader};
use parsec_runtimes::evm::trie::StateTrie;
use tokio::sync::{broadcast, watch};

use crate::accounts::Accounts;
use crate::chain::{DevChain, ImportError, Output, Pending, Stop};
use crate::config::{ConfigError, DevConfig, Mining};
use crate::transaction::{Submission, refused};

/// How many transactions those who listen for them may be behind.
const ARRIVALS_BEHIND_MAX: usize = 4_096;
/// How many imported blocks are indexed at once.
const IMPORTED_AT_ONCE: usize = 1_024;
/// What transactions are told to offer above the base fee, wei.
pub(crate) const LEAST_TIP: u128 = 1_000_000_000;

/// Why a development chain can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What it was configured with.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The index of blocks.
    #[error(transparent)]
    Index(#[from] ChainError),
}

/// A [`DevChain`] with a clock, an index of blocks, and accounts: what stands behind the gateway of
/// `parsec dev`. Cloning is cheap; all clones are one.
#[derive(Clone)]
pub struct DevBackend(Arc<Inner>);

struct Inner {
    chain: RwLock<DevChain>,
    index: Arc<Chain>,
    accounts: Accounts,
    arrivals: broadcast::Sender<Arc<PoolTransaction>>,
    /// What waits, executed, as of a revision of the chain and a time.
    pending: Mutex<Option<(u64, u64, Arc<Pending>)>>,
    /// Why it must not go on, if it must not.
    stopped: watch::Sender<Option<Stop>>,
    mining: watch::Sender<Mining>,
}

/// The time, seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl DevBackend {
    /// Starts a chain whose blocks are indexed in `directory`, which must be empty: nothing of a
    /// development chain outlives it.
    ///
    /// # Errors
    /// [`StartError`] says what can't be started with.
    pub fn start(
        config: DevConfig,
        accounts: Accounts,
        directory: &Path,
    ) -> Result<Self, StartError> {
        let mining = config.mining;
        let mut chain = DevChain::new(config, now())?;
        let Some(Output::Block(genesis)) = chain.take_outputs().pop() else {
            return Err(ConfigError::NoGenesis.into());
        };
        let index = Arc::new(Chain::open(directory, &genesis)?);
        let inner = Inner {
            chain: RwLock::new(chain),
            index,
            accounts,
            arrivals: broadcast::channel(ARRIVALS_BEHIND_MAX).0,
            pending: Mutex::new(None),
            stopped: watch::channel(None).0,
            mining: watch::channel(mining).0,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Takes the blocks of the chain whose genesis it was started with, each as its RLP, as
    /// [`DevChain::import`] does; `checks_roots` as in [`DevChain::verifier`].
    ///
    /// # Errors
    /// [`Stop`] if they can't be indexed; [`ImportError`] inside if one of them is refused.
    pub async fn import(
        &self,
        blocks: Vec<Bytes>,
        checks_roots: bool,
    ) -> Result<Result<(), ImportError>, Stop> {
        let mut verifier = match self.look(|chain| chain.verifier(checks_roots)) {
            Ok(verifier) => verifier,
            Err(error) => return Ok(Err(error)),
        };
        for (index, some) in blocks.chunks(IMPORTED_AT_ONCE).enumerate() {
            let (count, some) = (some.len(), some.to_vec());
            let import = self.change(move |chain, now| {
                let imported = chain.import(now, &mut verifier, &some);
                Ok((imported, verifier))
            });
            let (imported, back) = import.await?;
            if imported.is_err() {
                return Ok(imported);
            }
            verifier = back;
            tracing::info!("{} of {} blocks", index * IMPORTED_AT_ONCE + count, blocks.len());
        }
        Ok(Ok(()))
    }

    /// The index of its blocks.
    #[must_use]
    pub fn index(&self) -> Arc<Chain> {
        Arc::clone(&self.0.index)
    }

    /// The accounts whose keys it has.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// Makes blocks at their intervals, for as long as it is polled; ends when the chain must not
    /// go on.
    pub async fn run(&self) -> Stop {
        let (mut mining, mut stopped) = (self.0.mining.subscribe(), self.0.stopped.subscribe());
        loop {
            let mode = *mining.borrow_and_update();
            let interval = async {
                match mode {
                    Mining::Interval(millis) => {
                        tokio::time::sleep(Duration::from_millis(millis)).await;
                    }
                    Mining::Auto | Mining::Manual => std::future::pending().await,
                }
            };
            tokio::select! {
                () = interval => {
                    // An error is what `stopped` tells.
                    drop(self.change(|chain, now| chain.mine(now)).await);
                }
                changed = mining.changed() => changed.unwrap_or_default(),
                stop = told(&mut stopped) => return stop,
            }
        }
    }

    /// Sets when blocks are made.
    pub(crate) async fn set_mining(&self, mining: Mining) -> Result<(), Stop> {
        let set = self.change(move |chain, _| {
            chain.set_mining(mining);
            Ok(())
        });
        set.await?;
        self.0.mining.send_replace(mining);
        Ok(())
    }

    /// Reads the chain, for a moment.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&DevChain) -> T) -> T {
        self.0.look(read)
    }

    /// What transactions of the next block see of it.
    pub(crate) fn environment(&self) -> Environment {
        self.look(|chain| chain.environment(now()))
    }

    /// Changes the chain; what it then has to tell is told before this is done.
    ///
    /// # Errors
    /// [`Stop`].
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut DevChain, u64) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, Stop> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.change(change)).await.unwrap_or_else(|reason| Err(Stop(reason)))
    }
}

/// Waits until the chain must not go on.
async fn told(stopped: &mut watch::Receiver<Option<Stop>>) -> Stop {
    loop {
        if let Some(stop) = stopped.borrow_and_update().clone() {
            return stop;
        }
        if stopped.changed().await.is_err() {
            // Its chain is gone, and nobody polls this any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Does something on a thread that may be kept busy.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

impl Inner {
    fn look<T>(&self, read: impl FnOnce(&DevChain) -> T) -> T {
        // A panic inside a change stops the chain: see `change`.
        read(&self.chain.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut DevChain, u64) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let chain = self.chain.write();
        let mut chain = chain.map_err(|_| self.stop(Stop("a change was not finished".into())))?;
        if let Some(stop) = self.stopped.borrow().clone() {
            return Err(stop);
        }
        let result = change(&mut chain, now());
        // ORDER: blocks are in the index before the lock is free and before anyone is answered.
        let told = self.tell(chain.take_outputs());
        result.and_then(|value| told.map(|()| value)).map_err(|stop| self.stop(stop))
    }

    fn stop(&self, stop: Stop) -> Stop {
        tracing::error!("{stop}");
        self.stopped.send_replace(Some(stop.clone()));
        stop
    }

    fn tell(&self, outputs: Vec<Output>) -> Result<(), Stop> {
        let failed = |error: ChainError| Stop(error.to_string());
        let mut blocks: Vec<Block> = Vec::new();
        for output in outputs {
            match output {
                Output::Block(block) => blocks.push(Arc::unwrap_or_clone(block)),
                Output::Rewound(to) => {
                    self.index.append_all(&std::mem::take(&mut blocks)).map_err(failed)?;
                    self.index.rewind(to).map_err(failed)?;
                }
                // Nobody may be listening.
                Output::Arrived(transaction) => drop(self.arrivals.send(transaction)),
            }
        }
        self.index.append_all(&blocks).map_err(failed)
    }

    /// What waits, executed; none if nothing does.
    fn pending(&self) -> Result<Option<Arc<Pending>>, Stop> {
        let now = now();
        let (revision, empty) = self.look(|chain| (chain.revision(), chain.pool().is_empty()));
        if empty {
            return Ok(None);
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, time, known)) = &*pending
            && (*at, *time) == (revision, now)
        {
            return Ok(Some(Arc::clone(known)));
        }
        let (revision, executed) = self.change(|chain, now| {
            let executed = chain.pending(now)?;
            Ok((chain.revision(), Arc::new(executed)))
        })?;
        *pending = Some((revision, now, Arc::clone(&executed)));
        Ok(Some(executed))
    }

    fn query(&self, at: At, query: &Query) -> Result<Answer, QueryError> {
        let unavailable = |stop: Stop| QueryError::Unavailable(stop.to_string());
        let pending = match at {
            At::Pending => self.pending().map_err(unavailable)?,
            At::Block(_) => None,
        };
        self.look(|chain| {
            let latest = chain.latest();
            let block = match at {
                At::Block(block) => block,
                // The pool may have gone into a block meanwhile.
                At::Pending => pending.as_ref().map_or(latest, |p| p.environment.number - 1),
            };
            let oldest = chain.oldest_state();
            if block < oldest || block > latest {
                return Err(QueryError::NotKept { block, oldest });
            }
            if let Query::Proof(address, slots) = query {
                let proof = chain.prove(block, address, slots).filter(|_| pending.is_none());
                let changed = "the state was changed after its block was made";
                let none = || QueryError::Unsupported(changed.to_owned());
                return proof.map(|proof| Answer::Proof(Box::new(proof))).ok_or_else(none);
            }
            let mut reader = StateReader { chain, block, pending: pending.as_deref() };
            simulate::answer(chain.chain_id(), &mut reader, query)
        })
    }

    fn pool(&self) -> Pool {
        self.look(|chain| {
            let mut pool = Pool::default();
            for sender in chain.pool().senders() {
                let ready = chain.next_nonce(sender);
                for (nonce, transaction) in chain.pool().of(sender) {
                    let part = if nonce < ready { &mut pool.pending } else { &mut pool.queued };
                    part.entry(*sender).or_default().insert(nonce, transaction.pooled());
                }
            }
            pool
        })
    }
}

/// The state after a block, or after what waits.
struct StateReader<'a> {
    chain: &'a DevChain,
    block: u64,
    pending: Option<&'a Pending>,
}

impl Reader for StateReader<'_> {
    fn value(&mut self, key: &Key) -> Result<Option<Value>, QueryError> {
        if let Some(changed) = self.pending.and_then(|pending| pending.changed(key)) {
            return Ok(changed.cloned());
        }
        Ok(self.chain.value_at(key, self.block).cloned())
    }

    fn block_hash(&mut self, number: u64) -> Result<Option<B256>, QueryError> {
        Ok(self.chain.block_hash(number))
    }

    fn calls_system(&mut self, number: u64) -> bool {
        self.chain.calls_system(number)
    }

    fn trie(&mut self) -> Option<StateTrie> {
        self.chain.trie(self.block).filter(|_| self.pending.is_none())
    }
}

impl Backend for DevBackend {
    fn chain_id(&self) -> u64 {
        self.look(DevChain::chain_id)
    }

    fn pending(&self) -> Environment {
        self.environment()
    }

    fn oldest_state(&self) -> u64 {
        self.look(DevChain::oldest_state)
    }

    fn query(&self, at: At, query: Query) -> Answering<'_, Result<Answer, QueryError>> {
        // What executes nothing is answered at once.
        if !matches!((at, &query), (At::Block(_), Query::Account(_) | Query::Storage(..))) {
            let inner = Arc::clone(&self.0);
            return Box::pin(async move {
                let answer = blocking(move || inner.query(at, &query)).await;
                answer.unwrap_or_else(|reason| Err(QueryError::Unavailable(reason)))
            });
        }
        Box::pin(async move { self.0.query(at, &query) })
    }

    fn submit(&self, raw: Vec<Bytes>) -> Answering<'_, Vec<Result<B256, Refused>>> {
        Box::pin(async move {
            let count = raw.len();
            let inner = Arc::clone(&self.0);
            let submitted = blocking(move || {
                let read = raw.iter().map(Submission::signed).collect();
                inner.change(|chain, now| chain.submit(now, read))
            });
            let failed = |reason: String| vec![Err(refused(ErrorCode::Unavailable, reason)); count];
            match submitted.await {
                Ok(Ok(results)) => results,
                Ok(Err(stop)) => failed(stop.to_string()),
                Err(reason) => failed(reason),
            }
        })
    }

    fn next_nonce(&self, sender: Address) -> Answering<'_, Result<u64, QueryError>> {
        Box::pin(async move { Ok(self.look(|chain| chain.next_nonce(&sender))) })
    }

    fn pool(&self) -> Answering<'_, Result<Pool, QueryError>> {
        Box::pin(async move { Ok(self.0.pool()) })
    }

    fn pooled(&self, hash: B256) -> Answering<'_, Result<Option<PoolTransaction>, QueryError>> {
        let pooled = self.look(|chain| chain.pool().get(&hash).map(Submission::pooled));
        Box::pin(async move { Ok(pooled) })
    }

    fn pending_block(&self) -> Answering<'_, Result<Option<Block>, QueryError>> {
        Box::pin(async move {
            let block = self.change(|chain, now| chain.pending_block(now)).await;
            block.map(Some).map_err(|stop| QueryError::Unavailable(stop.to_string()))
        })
    }

    fn blobs(&self, number: u64, timestamp: u64) -> BlobParams {
        let blobs = self.look(|chain| chain.blobs_at(number, timestamp));
        blobs.unwrap_or_else(BlobParams::cancun)
    }

    fn proves(&self, at: At) -> bool {
        matches!(at, At::Block(_))
    }

    fn least_tip(&self) -> u128 {
        LEAST_TIP
    }

    fn arrivals(&self) -> broadcast::Receiver<Arc<PoolTransaction>> {
        self.0.arrivals.subscribe()
    }
}

/// A question that is executed in the next block, after what waits.
pub(crate) fn in_next_block(environment: Environment, task: parsec_ethereum::Task) -> Query {
    let overrides = Default::default();
    Query::Simulate(Box::new(Simulation { environment, overrides, before: Vec::new(), task }))
}
