//! How the threads of a partition wait for one another: an inbox that wakes workers, and the
//! handover of finished epochs to the committer.
//!
//! `tests/schedules.rs` runs this file, and `outgoing.rs`, under thousands of random schedules of
//! their threads; `cargo test -p parsec-executor` includes it.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A lock that a panicking thread has held is taken all the same: the executor stops on any
/// panic, and answers nobody from then on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has happened to a partition and no worker has looked at.
///
/// **Invariant:** while an event is there, or work was left, a worker is awake that will look.
pub(crate) struct Inbox<E> {
    state: Mutex<InboxState<E>>,
    filled: Condvar,
}

struct InboxState<E> {
    events: VecDeque<E>,
    /// A worker left ready transactions behind for another one.
    work_left: bool,
    /// How many workers wait. Waking nobody would cost a system call all the same.
    waiting: usize,
    closed: bool,
}

impl<E> Inbox<E> {
    pub(crate) fn new() -> Self {
        let state =
            InboxState { events: VecDeque::new(), work_left: false, waiting: 0, closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Hands an event to the next free worker.
    pub(crate) fn deliver(&self, event: E) {
        let mut state = lock(&self.state);
        state.events.push_back(event);
        self.notify(state);
    }

    /// Tells another worker that there is more ready than this one takes.
    pub(crate) fn leave_work(&self) {
        let mut state = lock(&self.state);
        state.work_left = true;
        self.notify(state);
    }

    /// Waits for something to happen, if told so. `None` once closed.
    pub(crate) fn wake(&self, wait: bool) -> Option<()> {
        let mut state = lock(&self.state);
        while wait && state.events.is_empty() && !state.work_left && !state.closed {
            state.waiting += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.work_left = false;
        (!state.closed).then_some(())
    }

    fn notify(&self, state: MutexGuard<'_, InboxState<E>>) {
        let somebody_waits = state.waiting > 0;
        drop(state);
        if somebody_waits {
            self.filled.notify_one();
        }
    }

    /// Puts what has happened since into `taken`, which is empty, and gets its memory for what comes
    /// next.
    ///
    /// ORDER: called under the lock of the partition's state machine, or two workers could take
    /// epochs out of the inbox in their order and bring them into the state machine in another.
    pub(crate) fn take_events(&self, taken: &mut VecDeque<E>) {
        std::mem::swap(&mut lock(&self.state).events, taken);
    }

    /// How many events of a kind are there.
    pub(crate) fn count(&self, is_counted: impl Fn(&E) -> bool) -> usize {
        lock(&self.state).events.iter().filter(|event| is_counted(event)).count()
    }

    /// Lets all who wait here end.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }
}

/// A queue that one thread empties and others fill, in an order that they agree on among
/// themselves.
pub(crate) struct Handover<T> {
    state: Mutex<HandoverState<T>>,
    filled: Condvar,
}

struct HandoverState<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Handover<T> {
    pub(crate) fn new() -> Self {
        let state = HandoverState { items: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    pub(crate) fn give(&self, item: T) {
        lock(&self.state).items.push_back(item);
        self.filled.notify_one();
    }

    /// All that is there, as soon as there is any. Nothing once closed, even if there is: whoever
    /// closes may have found that it can't be trusted.
    pub(crate) fn take(&self) -> VecDeque<T> {
        let mut state = lock(&self.state);
        while state.items.is_empty() && !state.closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.closed {
            true => VecDeque::new(),
            false => std::mem::take(&mut state.items),
        }
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
    }
}
