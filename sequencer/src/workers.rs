//! The threads that admit and try transactions.
//!
//! A queue and a condition variable. What submissions bring is many short pieces of work with
//! nothing between them, where a pool whose threads look for more work for a while before they sleep
//! (as rayon's do) spent a fifth of their time on looking, in a profile.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

use crate::limits::WORKER_STACK_BYTES;

type Task = Box<dyn FnOnce() + Send>;

/// A pool of threads for work that takes long. Cloning gives another handle to the same; the threads
/// end with the last one.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Pool>);

struct Pool {
    threads: usize,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    tasks: Mutex<Tasks>,
    /// One more task is there, or no more will come.
    changed: Condvar,
}

#[derive(Default)]
struct Tasks {
    waiting: VecDeque<Task>,
    is_closed: bool,
}

impl Queue {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        // Nothing panics while it is held.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, task: Task) {
        self.tasks().waiting.push_back(task);
        self.changed.notify_one();
    }

    /// The next task, when there is one. `None`: no more will come.
    fn pop(&self) -> Option<Task> {
        let is_idle = |tasks: &mut Tasks| tasks.waiting.is_empty() && !tasks.is_closed;
        let tasks = self.changed.wait_while(self.tasks(), is_idle);
        tasks.unwrap_or_else(PoisonError::into_inner).waiting.pop_front()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.tasks().is_closed = true;
        self.queue.changed.notify_all();
    }
}

impl Workers {
    /// A pool of so many threads; 0 for one for each processor.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, NonZero::get),
            threads => threads,
        };
        // Made first, so that the threads that there are end if one can't be made.
        let pool = Pool { threads, queue: Arc::default() };
        for index in 0..threads {
            let queue = Arc::clone(&pool.queue);
            thread::Builder::new()
                .stack_size(WORKER_STACK_BYTES)
                .name(format!("parsec-admit-{index}"))
                .spawn(move || {
                    while let Some(task) = queue.pop() {
                        task()
                    }
                })?;
        }
        Ok(Self(Arc::new(pool)))
    }

    /// Runs `work` in the pool.
    ///
    /// # Panics
    /// If `work` does.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        outcome(self.begin(work)).await
    }

    /// Does `each` with every item, in parallel if there are at least twice `part_min`. Results are in
    /// the order of the items; what is `shared` comes back with them.
    ///
    /// # Panics
    /// If `each` does.
    pub(crate) async fn map<S, I, T>(
        &self,
        shared: S,
        mut items: Vec<I>,
        part_min: usize,
        each: impl Fn(&S, I) -> T + Copy + Send + 'static,
    ) -> (S, Vec<T>)
    where
        S: Send + Sync + 'static,
        I: Send + 'static,
        T: Send + 'static,
    {
        let shared = Arc::new(shared);
        let begin = |items: Vec<I>| {
            let shared = Arc::clone(&shared);
            self.begin(move || {
                let results: Vec<_> = items.into_iter().map(|item| each(&shared, item)).collect();
                drop(shared);
                results
            })
        };
        let parts = self.0.threads.min(items.len() / part_min).max(1);
        let of_part = items.len().div_ceil(parts);
        let mut begun = Vec::with_capacity(parts);
        while items.len() > of_part {
            let rest = items.split_off(of_part);
            begun.push(begin(std::mem::replace(&mut items, rest)));
        }
        begun.push(begin(items));
        let mut results = Vec::new();
        for part in begun {
            let part = outcome(part).await;
            match results.is_empty() {
                true => results = part,
                false => results.extend(part),
            }
        }
        match Arc::into_inner(shared) {
            Some(shared) => (shared, results),
            None => unreachable!("each part let go of it before it was done"),
        }
    }

    fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<thread::Result<T>> {
        let (done, result) = oneshot::channel();
        self.0.queue.push(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            // Whoever waited may have been dropped.
            done.send(outcome).ok();
        }));
        result
    }
}

async fn outcome<T>(result: oneshot::Receiver<thread::Result<T>>) -> T {
    match result.await {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => unreachable!("the work is run, and its outcome sent"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_item_comes_back_in_its_place() {
        let workers = Workers::new(3).unwrap();
        for items in [0, 1, 10, 31, 1_000] {
            let all = (0..items).collect();
            let (shared, results) = workers.map(7, all, 10, |seven, item| seven * item).await;
            assert_eq!(shared, 7);
            assert_eq!(results, (0..items).map(|item| 7 * item).collect::<Vec<_>>());
        }
    }

    /// Two parts that wait for each other can only end if both run.
    #[tokio::test]
    async fn many_items_are_done_in_parallel() {
        let workers = Workers::new(2).unwrap();
        let met = std::sync::Barrier::new(2);
        let meet = |met: &std::sync::Barrier, item: usize| {
            if item.is_multiple_of(10) {
                met.wait();
            }
        };
        let done = workers.map(met, (0..20).collect(), 10, meet);
        tokio::time::timeout(Duration::from_secs(60), done).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_reaches_who_waits_and_no_other() {
        let workers = Workers::new(1).unwrap();
        let shared = workers.clone();
        let panicked = tokio::spawn(async move {
            shared.map((), vec![1, 2], 1, |(), item: i32| assert_ne!(item, 2)).await
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(workers.run(|| 5).await, 5);
    }

    #[tokio::test]
    async fn threads_end_with_the_last_handle_after_what_was_begun() {
        let workers = Workers::new(2).unwrap();
        let queue = Arc::downgrade(&workers.0.queue);
        let begun = workers.begin(|| thread::sleep(Duration::from_millis(50)));
        drop(workers);
        outcome(begun).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while queue.strong_count() > 0 && std::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(queue.strong_count(), 0);
    }
}
