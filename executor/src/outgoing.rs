//! What waits to be sent to one host: collected while the one before is on its way, so that under
//! load many items travel in one frame, and alone one travels at once.

use tokio::sync::Notify;

use crate::monitor::lock;
use crate::sync::Mutex;

/// Items above which what can wait to be read, from a store, waits.
const ROOM_ITEMS: usize = 16_384;

/// Items that wait to be sent to one host. One task takes them.
///
/// Bounded by the sequencer's window: only ordered transactions make items, and those that are
/// sent again are read when there is [room](Self::has_room).
pub(crate) struct Outgoing<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Notify,
    emptied: Notify,
}

struct Waiting<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Outgoing<T> {
    pub(crate) fn new() -> Self {
        let waiting = Waiting { items: Vec::new(), closed: false };
        Self { waiting: Mutex::new(waiting), filled: Notify::new(), emptied: Notify::new() }
    }

    pub(crate) fn extend(&self, items: impl IntoIterator<Item = T>) {
        self.change(|waiting| waiting.extend(items));
    }

    /// Adds to what waits, or changes it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<T>)) {
        let mut waiting = lock(&self.waiting);
        let was_empty = waiting.items.is_empty();
        change(&mut waiting.items);
        if was_empty && !waiting.items.is_empty() {
            self.filled.notify_one();
        }
    }

    /// Puts all that waits into `taken`, as soon as there is any, and gets its memory for what comes
    /// next. Nothing once closed, even if there is: whoever closes may have found that it can't be
    /// trusted.
    pub(crate) async fn take(&self, taken: &mut Vec<T>) {
        taken.clear();
        loop {
            {
                let mut waiting = lock(&self.waiting);
                if waiting.closed {
                    return;
                }
                std::mem::swap(&mut waiting.items, taken);
            }
            if !taken.is_empty() {
                self.emptied.notify_waiters();
                return;
            }
            self.filled.notified().await;
        }
    }

    /// Waits until little waits, or this is closed.
    pub(crate) async fn has_room(&self) {
        loop {
            // ORDER: from before the look on, or what happens in between would be missed.
            let emptied = self.emptied.notified();
            {
                let waiting = lock(&self.waiting);
                if waiting.closed || waiting.items.len() < ROOM_ITEMS {
                    return;
                }
            }
            emptied.await;
        }
    }

    pub(crate) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }
}
