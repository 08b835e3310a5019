//! Questions to executors: values of keys, receipts, digests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use parsec_protocol::message::{Answer, Outcomes, PartitionDigest, PeerMessage, Query};
use parsec_protocol::transport::{Channel, Inbox, PeerNetwork};
use parsec_protocol::{
    EpochNumber, ErrorCode, Key, NodeId, PartitionId, PartitionMap, Receipt, Value,
};
use parsec_sequencer_core::Place;
use parsec_storage::Digest;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::hosts::Hosts;
use crate::limits::{QUERIES_MAX, QUERY_KEYS_MAX, QUERY_TIMEOUT};

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("no host holds {0}")]
    NoHost(PartitionId),
    #[error("{host} can't be reached: {reason}")]
    Unreachable { host: NodeId, reason: String },
    #[error("{host} did not answer within {} seconds", QUERY_TIMEOUT.as_secs())]
    TimedOut { host: NodeId },
    #[error("{host} could not answer: {reason}")]
    Failed { host: NodeId, reason: String },
    #[error("the state is not kept for so long; the oldest is the one after {oldest}")]
    NotKept { oldest: EpochNumber },
}

/// Questions to executors, and their answers.
#[derive(Clone)]
pub(crate) struct Queries(Arc<Inner>);

struct Inner {
    network: PeerNetwork,
    hosts: Arc<Hosts>,
    map: PartitionMap,
    open: Mutex<Open>,
    permits: Semaphore,
}

#[derive(Default)]
struct Open {
    last: u64,
    waiting: BTreeMap<u64, (NodeId, oneshot::Sender<Answer>)>,
}

/// Takes a question off the list when whoever asked no longer waits.
struct Asked<'a>(&'a Inner, u64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.open().waiting.remove(&self.1);
    }
}

impl QueryError {
    /// What a client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::NotKept { .. } => ErrorCode::NotKept,
            _ => ErrorCode::Unavailable,
        }
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Every change of it is a single one, so a panic elsewhere leaves it whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queries {
    pub(crate) fn new(network: PeerNetwork, hosts: Arc<Hosts>, map: PartitionMap) -> Self {
        let permits = Semaphore::new(QUERIES_MAX);
        Self(Arc::new(Inner { network, hosts, map, open: Mutex::default(), permits }))
    }

    /// Hands out answers as they come, and refuses questions: a sequencer holds no state.
    pub(crate) async fn serve(&self, mut inbox: Inbox) {
        while let Some(received) = inbox.recv().await {
            match received.message {
                PeerMessage::Answer { number, answer } => {
                    let waiting = self.0.open().waiting.remove(&number);
                    match waiting {
                        Some((host, asker)) if host == received.from => {
                            // Whoever asked may have given up.
                            asker.send(answer).ok();
                        }
                        _ => tracing::debug!(from = %received.from, "an answer to no question"),
                    }
                }
                PeerMessage::Query { number, .. } => {
                    let reason = "a sequencer holds no state".to_owned();
                    let answer = Answer::Failed { reason };
                    let answer = PeerMessage::Answer { number, answer };
                    if let Err(error) =
                        self.0.network.send(received.from, Channel::Query, &answer).await
                    {
                        tracing::debug!(%error, "a question could not be refused");
                    }
                }
                other => {
                    let kind = std::mem::discriminant(&other);
                    tracing::warn!(from = %received.from, ?kind, "not a message for the query channel");
                }
            }
        }
    }

    /// A link is down: its questions will not be answered.
    pub(crate) fn on_down(&self, host: NodeId) {
        self.0.open().waiting.retain(|_, (asked, _)| *asked != host);
    }

    async fn ask(&self, host: NodeId, query: Query) -> Result<Answer, QueryError> {
        let started = std::time::Instant::now();
        let asking = tokio::time::timeout(QUERY_TIMEOUT, self.ask_patiently(host, query));
        let answer = asking.await.unwrap_or(Err(QueryError::TimedOut { host }));
        metrics::histogram!("parsec_sequencer_query_seconds").record(started.elapsed());
        match answer? {
            Answer::Failed { reason } => Err(QueryError::Failed { host, reason }),
            Answer::NotKept { oldest } => Err(QueryError::NotKept { oldest }),
            answer => Ok(answer),
        }
    }

    async fn ask_patiently(&self, host: NodeId, query: Query) -> Result<Answer, QueryError> {
        let unreachable = |reason: String| QueryError::Unreachable { host, reason };
        let permit = self.0.permits.acquire().await;
        let _permit = permit.map_err(|closed| unreachable(closed.to_string()))?;
        let (asker, answer) = oneshot::channel();
        let number = {
            let mut open = self.0.open();
            open.last += 1;
            let number = open.last;
            open.waiting.insert(number, (host, asker));
            number
        };
        let _asked = Asked(&self.0, number);
        let message = PeerMessage::Query { number, query };
        let sent = self.0.network.send(host, Channel::Query, &message).await;
        sent.map_err(|error| unreachable(error.to_string()))?;
        answer.await.map_err(|_| unreachable("its link went down".to_owned()))
    }

    fn holder(&self, partition: PartitionId) -> Result<NodeId, QueryError> {
        self.0.hosts.holder(partition).ok_or(QueryError::NoHost(partition))
    }

    /// The values of `keys` after `epoch`, over all partitions, in the order of the keys.
    ///
    /// Partitions that have not applied the epoch are waited for.
    pub(crate) async fn read(
        &self,
        epoch: EpochNumber,
        keys: &[Key],
    ) -> Result<Vec<Option<Value>>, QueryError> {
        let mut by_partition: BTreeMap<PartitionId, Vec<usize>> = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            // A replicated key stands everywhere; its slot spreads the reads.
            by_partition.entry(self.0.map.owner(key)).or_default().push(index);
        }
        let mut reads = JoinSet::new();
        for (partition, indexes) in by_partition {
            for indexes in indexes.chunks(QUERY_KEYS_MAX) {
                let keys: Vec<_> = indexes.iter().map(|index| keys[*index].clone()).collect();
                let (queries, indexes) = (self.clone(), indexes.to_vec());
                reads.spawn(async move {
                    queries
                        .read_partition(partition, epoch, keys)
                        .await
                        .map(|values| (indexes, values))
                });
            }
        }
        let mut all = vec![None; keys.len()];
        while let Some(read) = reads.join_next().await {
            let (indexes, values) = match read {
                Ok(read) => read?,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            for (index, value) in indexes.into_iter().zip(values) {
                all[index] = value;
            }
        }
        Ok(all)
    }

    async fn read_partition(
        &self,
        partition: PartitionId,
        epoch: EpochNumber,
        keys: Vec<Key>,
    ) -> Result<Vec<Option<Value>>, QueryError> {
        let host = self.holder(partition)?;
        let count = keys.len();
        match self.ask(host, Query::Read { partition, epoch, keys }).await? {
            Answer::Values(values) if values.len() == count => Ok(values),
            _ => Err(mismatch(host)),
        }
    }

    /// The receipt that is recorded at `place`, if the partition has got there.
    pub(crate) async fn receipt(&self, place: Place) -> Result<Option<Receipt>, QueryError> {
        let host = self.holder(place.home)?;
        let query = Query::Receipt { partition: place.home, position: place.position };
        match self.ask(host, query).await? {
            Answer::Receipt(receipt) => Ok(receipt),
            _ => Err(mismatch(host)),
        }
    }

    /// What epochs, in ascending order, did to a partition: all of it, in however many answers.
    /// Waits until the partition has applied them.
    pub(crate) async fn outcomes(
        &self,
        partition: PartitionId,
        epochs: &[EpochNumber],
    ) -> Result<Outcomes, QueryError> {
        let host = self.holder(partition)?;
        let mut all = Outcomes::default();
        while !all.complete {
            let after = all.receipts.last().map(|receipt| receipt.position);
            let query = Query::Outcomes { partition, epochs: epochs.to_vec(), after };
            let Answer::Outcomes(piece) = self.ask(host, query).await? else {
                return Err(mismatch(host));
            };
            if piece.states.len() != epochs.len() || (piece.receipts.is_empty() && !piece.complete)
            {
                return Err(mismatch(host));
            }
            all.states = piece.states;
            all.receipts.extend(piece.receipts);
            all.complete = piece.complete;
        }
        Ok(all)
    }

    /// The digest of the whole state after each of these epochs, which are ascending. Waits until
    /// they are applied everywhere.
    pub(crate) async fn states(&self, epochs: &[EpochNumber]) -> Result<Vec<Digest>, QueryError> {
        let mut asked = JoinSet::new();
        for (host, _) in self.0.hosts.iter() {
            let (queries, query) = (self.clone(), Query::States { epochs: epochs.to_vec() });
            asked.spawn(async move { (host, queries.ask(host, query).await) });
        }
        let mut sums = vec![Digest::ZERO; epochs.len()];
        while let Some(answer) = asked.join_next().await {
            let (host, answer) = match answer {
                Ok((host, answer)) => (host, answer?),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            match answer {
                Answer::States(states) if states.len() == sums.len() => {
                    sums.iter_mut().zip(states).for_each(|(sum, state)| sum.add(Digest(state)));
                }
                _ => return Err(mismatch(host)),
            }
        }
        Ok(sums)
    }

    /// The digests of all partitions whose hosts answer, in order.
    pub(crate) async fn digests(&self) -> Vec<PartitionDigest> {
        let mut asked = JoinSet::new();
        for (host, _) in self.0.hosts.iter() {
            let queries = self.clone();
            asked.spawn(async move { queries.ask(host, Query::Digests).await });
        }
        let mut all = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(Answer::Digests(digests))) => all.extend(digests),
                Ok(Ok(_)) => tracing::warn!("an executor answered another question"),
                Ok(Err(error)) => tracing::debug!(%error, "an executor's digests are missing"),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        all.sort_by_key(|digest| digest.partition);
        all.dedup_by_key(|digest| digest.partition);
        all
    }
}

fn mismatch(host: NodeId) -> QueryError {
    QueryError::Failed { host, reason: "it answered another question".to_owned() }
}
