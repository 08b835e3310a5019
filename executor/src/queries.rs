//! Answers to what other hosts ask.

use std::sync::Arc;
use std::time::Duration;

use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_protocol::message::{Answer, Outcomes, PartitionDigest, PeerMessage, Query, short};
use parsec_protocol::transport::{Channel, Inbox, Received};
use parsec_protocol::{EpochNumber, PartitionId, Position};
use parsec_storage::{Digest, Store, StoreError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::driver::blocking;
use crate::host::Host;
use crate::send::send;
use crate::shard::Shard;

/// Queries that are answered at a time; more wait in the stream they came on.
const QUERIES_MAX: usize = 256;
/// How long a read waits for its epoch.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Answers queries, each in a task of its own; they end with this one, whatever they wait for.
pub(crate) async fn answer(host: Arc<Host>, mut queries: Inbox) {
    let permits = Arc::new(Semaphore::new(QUERIES_MAX));
    let mut answers = JoinSet::new();
    while let Some(Received { from, message, .. }) = queries.recv().await {
        let PeerMessage::Query { number, query } = message else {
            tracing::warn!(%from, "not a query; ignored");
            continue;
        };
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        if host.is_closing() {
            return;
        }
        while answers.try_join_next().is_some() {}
        let host = host.clone();
        answers.spawn(async move {
            let answer = match answer_one(&host, query).await {
                Ok(answer) => answer,
                Err(reason) => Answer::Failed { reason: short(reason) },
            };
            send(&host.network, from, Channel::Query, PeerMessage::Answer { number, answer }).await;
            drop(permit);
        });
    }
}

async fn answer_one(host: &Host, query: Query) -> Result<Answer, String> {
    match query {
        Query::Read { partition, epoch, keys } => {
            let shard = shard(host, partition)?;
            wait_for(&shard, epoch).await?;
            let read = move || shard.store.read_at(epoch, &keys);
            match blocking(read).await {
                Ok(values) => Ok(Answer::Values(values)),
                Err(StoreError::SnapshotGone { oldest, .. }) => Ok(Answer::NotKept { oldest }),
                Err(error) => Err(error.to_string()),
            }
        }
        Query::Receipt { partition, position } => receipt(shard(host, partition)?, position).await,
        Query::Outcomes { partition, epochs, after } => {
            outcomes(shard(host, partition)?, epochs, after).await
        }
        Query::States { epochs } => states(host, epochs).await,
        Query::Digests => Ok(Answer::Digests(host.shards.values().map(digest).collect())),
    }
}

async fn receipt(shard: Arc<Shard>, position: Position) -> Result<Answer, String> {
    wait_for(&shard, position.epoch).await?;
    let read = move || shard.store.receipt(position);
    blocking(read).await.map(Answer::Receipt).map_err(|error| error.to_string())
}

async fn outcomes(
    shard: Arc<Shard>,
    epochs: Vec<EpochNumber>,
    after: Option<Position>,
) -> Result<Answer, String> {
    let last = epochs.iter().max().copied().unwrap_or_default();
    wait_for(&shard, last).await?;
    let read = move || read_outcomes(&*shard.store, &epochs, after, FRAME_BYTES_TARGET);
    blocking(read).await.map(Answer::Outcomes).map_err(|error| error.to_string())
}

/// The digest of the state of all partitions here, after each epoch.
async fn states(host: &Host, epochs: Vec<EpochNumber>) -> Result<Answer, String> {
    let last = epochs.iter().max().copied().unwrap_or_default();
    let mut stores = Vec::new();
    for shard in host.shards.values() {
        wait_for(shard, last).await?;
        stores.push(shard.store.clone());
    }
    let read = move || read_states(&stores, &epochs);
    blocking(read).await.map(Answer::States).map_err(|error| error.to_string())
}

fn read_states(
    stores: &[Arc<dyn Store>],
    epochs: &[EpochNumber],
) -> Result<Vec<[u8; 32]>, StoreError> {
    let sum = |epoch: &EpochNumber| {
        let mut sum = Digest::ZERO;
        for store in stores {
            sum.add(store.state_digest(*epoch)?);
        }
        Ok(sum.0)
    };
    epochs.iter().map(sum).collect()
}

/// Waits until a partition has applied an epoch, but not for ever.
async fn wait_for(shard: &Shard, epoch: EpochNumber) -> Result<(), String> {
    let waited = tokio::time::timeout(WAIT_MAX, shard.wait_for(epoch)).await;
    match waited.unwrap_or(false) {
        true => Ok(()),
        false => Err(format!("{} has not applied {epoch} in {WAIT_MAX:?}", shard.id)),
    }
}

/// What epochs did to a partition, with receipts until they take `bytes`.
fn read_outcomes(
    store: &dyn Store,
    epochs: &[EpochNumber],
    after: Option<Position>,
    bytes: usize,
) -> Result<Outcomes, StoreError> {
    let states = epochs.iter().map(|epoch| Ok(store.state_digest(*epoch)?.0));
    let states = states.collect::<Result<_, StoreError>>()?;
    let mut outcomes = Outcomes { states, receipts: Vec::new(), complete: true };
    let mut taken = 0;
    let passed = |epoch: &&EpochNumber| after.is_none_or(|after| **epoch >= after.epoch);
    for epoch in epochs.iter().filter(passed) {
        // The first epoch with receipts may be a later one.
        let found = store.receipts(*epoch, 1)?.into_iter().find(|(number, _)| number == epoch);
        let receipts = found.into_iter().flat_map(|(_, receipts)| receipts);
        for receipt in receipts.filter(|receipt| after.is_none_or(|after| receipt.position > after))
        {
            if taken >= bytes {
                outcomes.complete = false;
                return Ok(outcomes);
            }
            taken += receipt.size();
            outcomes.receipts.push(receipt);
        }
    }
    Ok(outcomes)
}

fn digest(shard: &Arc<Shard>) -> PartitionDigest {
    let applied = shard.store.applied();
    PartitionDigest {
        partition: shard.id,
        applied: applied.epoch,
        state: applied.state.0,
        receipts: applied.receipts.0,
        executed: applied.executed,
        multi_partition: applied.multi_partition,
    }
}

fn shard(host: &Host, partition: PartitionId) -> Result<Arc<Shard>, String> {
    let shard = host.shards.get(&partition);
    shard
        .cloned()
        .ok_or_else(|| format!("{} does not have partition {partition}", host.routes.node()))
}

#[cfg(test)]
mod tests {
    use parsec_protocol::{Outcome, Receipt, TxId};
    use parsec_storage::{EpochCommit, MemoryStore};

    use super::*;

    fn at(epoch: u64, index: u32) -> Position {
        Position { epoch: EpochNumber(epoch), index }
    }

    fn store() -> MemoryStore {
        let store = MemoryStore::new();
        for epoch in [1, 3, 4] {
            let receipts = (0..3).map(|index| Receipt {
                id: TxId([1; 32]),
                position: at(epoch, index),
                attempt: 0,
                outcome: Outcome::Committed,
                work: 1,
                output: vec![0; 100].into(),
                events: Vec::new(),
            });
            let receipts = receipts.map(Arc::new).collect();
            store.commit(EpochCommit { receipts, ..EpochCommit::new(EpochNumber(epoch)) }).unwrap();
        }
        store
    }

    #[test]
    fn outcomes_are_answered_in_pieces_that_add_up() {
        let store = store();
        let epochs = [1, 2, 4].map(EpochNumber);
        let all = read_outcomes(&store, &epochs, None, usize::MAX).unwrap();
        assert!(all.complete && all.states.len() == 3);
        let positions: Vec<_> = all.receipts.iter().map(|receipt| receipt.position).collect();
        assert_eq!(positions, [at(1, 0), at(1, 1), at(1, 2), at(4, 0), at(4, 1), at(4, 2)]);

        let (mut pieces, mut after) = (Vec::new(), None);
        loop {
            let piece = read_outcomes(&store, &epochs, after, 150).unwrap();
            assert!(piece.receipts.len() <= 2);
            pieces.extend(piece.receipts);
            after = pieces.last().map(|receipt| receipt.position);
            if piece.complete {
                break;
            }
        }
        assert_eq!(pieces, all.receipts);
        assert!(read_outcomes(&store, &[EpochNumber(5)], None, 1).is_err(), "not applied");
    }
}
