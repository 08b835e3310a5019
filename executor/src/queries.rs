//! Answers to what other hosts ask.

use std::sync::Arc;
use std::time::Duration;

use parsec_protocol::message::{Answer, PartitionDigest, PeerMessage, Query, short};
use parsec_protocol::transport::{Channel, Inbox, Received};
use parsec_protocol::{PartitionId, Position};
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
            let waited = tokio::time::timeout(WAIT_MAX, shard.wait_for(epoch)).await;
            if !waited.unwrap_or(false) {
                return Err(format!("{partition} has not applied {epoch} in {WAIT_MAX:?}"));
            }
            let read = move || shard.store.read_at(epoch, &keys);
            blocking(read).await.map(Answer::Values).map_err(|error| error.to_string())
        }
        Query::Receipt { partition, position } => receipt(shard(host, partition)?, position).await,
        Query::Digests => Ok(Answer::Digests(host.shards.values().map(digest).collect())),
    }
}

async fn receipt(shard: Arc<Shard>, position: Position) -> Result<Answer, String> {
    let waited = tokio::time::timeout(WAIT_MAX, shard.wait_for(position.epoch)).await;
    if !waited.unwrap_or(false) {
        return Err(format!("{} has not applied {} yet", shard.id, position.epoch));
    }
    let read = move || shard.store.receipt(position);
    blocking(read).await.map(Answer::Receipt).map_err(|error| error.to_string())
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
