//! Puts into the filter, after a start, what is on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fjall::Keyspace;
use parsec_protocol::TxId;

use super::filter::IdFilter;

/// A thread that reads all ids beside what the index does. Until it is done the filter knows too
/// little to be asked.
pub(super) struct Refill {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    is_done: AtomicBool,
    shall_stop: AtomicBool,
}

impl Refill {
    /// Begins to put into `filter` all that is in `ids` now. What is written to them later has to be
    /// put in by who writes it.
    pub(super) fn begin(ids: &Keyspace, filter: &Arc<IdFilter>) -> fjall::Result<Self> {
        let progress = Arc::new(Progress::default());
        if ids.is_empty()? {
            progress.is_done.store(true, Ordering::Release);
            return Ok(Self { progress, thread: None });
        }
        let (found, filter, shared) = (ids.iter(), Arc::clone(filter), Arc::clone(&progress));
        let work = move || match fill(found, &filter, &shared.shall_stop) {
            Ok(is_done) => shared.is_done.store(is_done, Ordering::Release),
            Err(error) => tracing::warn!(
                %error,
                "the ids on disk could not be read through: each new one is searched for there"
            ),
        };
        let thread = thread::Builder::new().name("parsec-refill".into()).spawn(work)?;
        Ok(Self { progress, thread: Some(thread) })
    }

    /// Whether all that was on disk is in the filter.
    pub(super) fn is_done(&self) -> bool {
        self.progress.is_done.load(Ordering::Acquire)
    }
}

/// Whoever closes the index may want to open it again, which the thread would not allow.
impl Drop for Refill {
    fn drop(&mut self) {
        self.progress.shall_stop.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that read the ids on disk panicked");
        }
    }
}

/// `false` if it was stopped before the end.
fn fill(found: fjall::Iter, filter: &IdFilter, shall_stop: &AtomicBool) -> fjall::Result<bool> {
    for entry in found {
        if shall_stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        // A key of another length is no id, and is not looked up.
        if let Ok(id) = entry.key()?.as_ref().try_into() {
            filter.add(&TxId(id));
        }
    }
    Ok(true)
}
