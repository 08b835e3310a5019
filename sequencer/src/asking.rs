//! Questions of clients to runtimes, about a state that nothing is ordered in.

use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::{EpochNumber, ErrorCode, Key, RuntimeId, Value};
use parsec_runtimes::{Rejection, Runtimes, Snapshot};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::chronicle::Blocks;
use crate::limits::QUESTIONS_MAX;
use crate::queries::{Queries, QueryError};

/// Has runtimes answer questions, on threads of their own.
#[derive(Clone)]
pub(crate) struct Asking {
    runtimes: Runtimes,
    queries: Queries,
    blocks: Option<Arc<Blocks>>,
    permits: Arc<Semaphore>,
}

impl Asking {
    pub(crate) fn new(runtimes: Runtimes, queries: Queries, blocks: Option<Arc<Blocks>>) -> Self {
        Self { runtimes, queries, blocks, permits: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    /// The answer of `runtime` to a question about the state after `at`.
    pub(crate) async fn ask(
        &self,
        runtime: RuntimeId,
        at: EpochNumber,
        question: Bytes,
    ) -> Result<Bytes, Rejection> {
        let unavailable = |reason: &dyn std::fmt::Display| {
            Rejection::new(ErrorCode::Unavailable, reason.to_string())
        };
        let Some(runtime) = self.runtimes.get(runtime).cloned() else {
            return Err(Rejection::new(ErrorCode::UnknownRuntime, "there is no such runtime"));
        };
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| unavailable(&closed))?;
        let mut state = StateAfter {
            epoch: at,
            queries: self.queries.clone(),
            blocks: self.blocks.clone(),
            handle: Handle::current(),
        };
        let answering = tokio::task::spawn_blocking(move || {
            let answer = runtime.answer(&mut state, &question);
            drop(permit);
            answer
        });
        // A runtime that panics over a question has done nothing to the order or the state.
        answering.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a runtime failed to answer a question");
            Err(unavailable(&"the runtime failed; see the sequencer's log"))
        })
    }
}

/// The state after an epoch, read from the partitions as it is asked for.
struct StateAfter {
    epoch: EpochNumber,
    queries: Queries,
    blocks: Option<Arc<Blocks>>,
    handle: Handle,
}

impl Snapshot for StateAfter {
    fn values(&mut self, keys: &[Key]) -> Result<Vec<Option<Value>>, Rejection> {
        let read = self.handle.block_on(self.queries.read(self.epoch, keys));
        read.map_err(|error: QueryError| Rejection::new(error.code(), error.to_string()))
    }

    fn block_hash(&mut self, number: u64) -> Result<Option<[u8; 32]>, Rejection> {
        let Some(blocks) = &self.blocks else { return Ok(None) };
        let hash = blocks.hash(number);
        hash.map_err(|error| Rejection::new(ErrorCode::Unavailable, error.to_string()))
    }
}
