//! The threads that admit and try transactions.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::limits::WORKER_STACK_BYTES;

/// A pool of threads for work that takes long. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Workers(Arc<ThreadPool>);

impl Workers {
    /// A pool of so many threads; 0 for one for each processor.
    pub(crate) fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(WORKER_STACK_BYTES)
            .thread_name(|index| format!("parsec-admit-{index}"))
            .build()?;
        Ok(Self(Arc::new(pool)))
    }

    /// Runs `work` in the pool; parallel iterators in it use the pool as well.
    ///
    /// # Panics
    /// If `work` does.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (done, result) = oneshot::channel();
        self.0.spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // Whoever waited may have been dropped.
            done.send(outcome).ok();
        });
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("the work is run, and its outcome sent"),
        }
    }
}
