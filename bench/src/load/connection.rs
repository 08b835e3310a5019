//! One connection of a load: one task that submits, and one for the answers to each submission.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parsec_protocol::ErrorCode;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Cancelled;
use super::tally::Tally;
use super::target::{Answer, Answers, Target};
use crate::workload::LoadTransaction;

/// How long to wait before sending again what was refused without a hint when to.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// A transaction that is refused as often as it is sent for so long is given up.
const REFUSED_MAX: Duration = Duration::from_secs(60);

/// What a connection is to send: a transaction with its place in the whole load, and how long after
/// the start of the load it is to start, if that is not as soon as there is room.
pub(super) type Item = (usize, LoadTransaction, Option<Duration>);

/// What a connection is to do.
pub(super) struct Connection<T> {
    pub(super) target: T,
    pub(super) tally: Arc<Tally>,
    pub(super) in_flight: usize,
    pub(super) batch: usize,
    /// When the load started.
    pub(super) started: Instant,
    /// When to send nothing new any more.
    pub(super) until: Option<Instant>,
    pub(super) drain: Duration,
    pub(super) cancelled: Cancelled,
    /// Told when there is nothing left to send.
    pub(super) dry: Option<watch::Sender<Option<Instant>>>,
    /// When it had no room last, or waited after a refusal: what was due before is late because of
    /// the cluster.
    pub(super) free_since: Option<Instant>,
}

/// A transaction that waits to be sent, or to be sent again.
#[derive(Debug)]
struct Waiting {
    /// Its place in the list.
    place: usize,
    load: LoadTransaction,
    /// When it is to start, if that was said.
    due: Option<Instant>,
    /// When it was to start; when it was sent first, if that was not said.
    since: Option<Instant>,
}

/// A transaction that the cluster was too busy for.
struct Refused {
    waiting: Waiting,
    retry_after: Duration,
}

/// What the task that submits shares with those that collect answers.
struct Shared {
    tally: Arc<Tally>,
    /// A permit for each transaction that may still be sent.
    room: Semaphore,
    refused: mpsc::Sender<Refused>,
}

impl<T: Target> Connection<T> {
    /// Sends `load`, and returns when all of it has its last word; returns what was not sent or not
    /// taken.
    pub(super) async fn run(mut self, load: Vec<Item>) -> Vec<(usize, LoadTransaction)> {
        // Nothing is sent while it holds a refusal, so that it never holds more than are in flight.
        let (refused_sender, mut refused) = mpsc::channel(self.in_flight);
        let shared = Arc::new(Shared {
            tally: self.tally.clone(),
            room: Semaphore::new(self.in_flight),
            refused: refused_sender,
        });
        let mut queue: VecDeque<_> =
            load.into_iter().map(|item| Waiting::new(item, self.started)).collect();
        let mut collectors = JoinSet::new();
        loop {
            while !queue.is_empty() {
                let Some(next) = self.next_batch(&queue).await else { break };
                let held = shared.room.available_permits() < next;
                let Some(room) = self.make_room(&shared, next).await else { break };
                if held {
                    self.free_since = Some(Instant::now());
                }
                // ORDER: looked at with the room at hand. Who refused made room for what follows.
                if !refused.is_empty() {
                    break;
                }
                room.forget();
                let submission: Vec<_> = queue.drain(..next).collect();
                self.submit(&shared, &mut collectors, submission).await;
                // Collectors that have ended hold memory until they are joined.
                while collectors.try_join_next().is_some() {}
            }
            if queue.is_empty()
                && let Some(dry) = &self.dry
            {
                dry.send_if_modified(|first| first.replace(Instant::now()).is_none());
            }
            let settled = self.settle(&shared).await;
            let pause = take_back(&mut refused, &mut queue);
            if queue.is_empty() || !settled || self.is_over() {
                break;
            }
            self.tally.retry(queue.iter().filter_map(|waiting| waiting.since));
            // Ends early if the load is cancelled, which the next turn notices.
            timeout(pause, self.cancelled.cancelled()).await.ok();
            self.free_since = Some(Instant::now());
        }
        collectors.shutdown().await;
        self.give_up(&queue);
        queue.into_iter().map(|waiting| (waiting.place, waiting.load)).collect()
    }

    /// How many transactions to send next; waits until one is due. None if the load is over.
    async fn next_batch(&mut self, queue: &VecDeque<Waiting>) -> Option<usize> {
        let first = queue.front()?;
        if let Some(due) = first.due
            && due > Instant::now()
        {
            tokio::select! {
                biased;
                () = self.cancelled.cancelled() => return None,
                () = reached(self.until) => return None,
                () = sleep_until(due) => {}
            }
        }
        let now = Instant::now();
        let due = |waiting: &&Waiting| waiting.due.is_none_or(|due| due <= now);
        Some(queue.iter().take(self.batch).take_while(due).count().max(1))
    }

    /// Waits until `transactions` more may be in flight; there is none if the load is over.
    async fn make_room<'a>(
        &mut self,
        shared: &'a Shared,
        transactions: usize,
    ) -> Option<SemaphorePermit<'a>> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => None,
            () = reached(self.until) => None,
            room = shared.room.acquire_many(permits(transactions)) => room.ok(),
        }
    }

    fn is_over(&self) -> bool {
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        late || self.cancelled.is_cancelled()
    }

    /// Submits what there is room for, and leaves the answers to a task of their own.
    async fn submit(
        &mut self,
        shared: &Arc<Shared>,
        collectors: &mut JoinSet<()>,
        mut submission: Vec<Waiting>,
    ) {
        let now = Instant::now();
        for waiting in submission.iter_mut().filter(|waiting| waiting.since.is_none()) {
            let since = waiting.due.unwrap_or(now);
            waiting.since = Some(since);
            self.tally.send(since, waiting.due, self.free_since);
        }
        let transactions =
            submission.iter().map(|waiting| waiting.load.transaction.clone()).collect();
        let outstanding = submission.into_iter().map(Some).collect();
        let drain = self.drain;
        let target = self.target.clone();
        let too_late = async {
            self.cancelled.cancelled().await;
            sleep(drain).await;
        };
        let submitted = tokio::select! {
            submitted = target.submit(transactions) => submitted,
            () = too_late => Err("cancelled".into()),
        };
        match submitted {
            Ok(answers) => {
                collectors.spawn(shared.clone().collect(answers, outstanding));
            }
            Err(reason) => shared.end(outstanding, &reason),
        }
    }

    /// Waits until nothing is in flight; says no if that took too long after a cancellation.
    async fn settle(&mut self, shared: &Shared) -> bool {
        let all = permits(self.in_flight);
        let settled = tokio::select! {
            biased;
            settled = shared.room.acquire_many(all) => settled.is_ok(),
            () = self.cancelled.cancelled() => {
                timeout(self.drain, shared.room.acquire_many(all)).await.is_ok()
            }
        };
        settled
    }

    /// Counts what has no last word at the end: what was refused and what was never answered.
    fn give_up(&self, queue: &VecDeque<Waiting>) {
        for since in queue.iter().filter_map(|waiting| waiting.since) {
            self.tally.record(&busy("and the load ended before it was taken"), since);
        }
        self.tally.lose_rest("the load ended before it was answered");
    }
}

impl Waiting {
    fn new((place, load, due): Item, started: Instant) -> Self {
        Self { place, load, due: due.map(|due| started + due), since: None }
    }
}

impl Shared {
    /// Counts answers as they come, until each transaction of a submission has its own.
    async fn collect<A: Answers>(
        self: Arc<Self>,
        mut answers: A,
        mut outstanding: Vec<Option<Waiting>>,
    ) {
        let mut accepted = vec![false; outstanding.len()];
        while let Some((index, answer)) = answers.next().await {
            let Some(slot) = outstanding.get_mut(index) else { continue };
            let Some(since) = slot.as_ref().and_then(|waiting| waiting.since) else { continue };
            // A receipt says, too, that it was taken, if nothing said so before.
            if matches!(answer, Answer::Accepted | Answer::Receipt(_)) && !accepted[index] {
                accepted[index] = true;
                self.tally.accept(since);
            }
            if answer == Answer::Accepted {
                continue;
            }
            let Some(waiting) = slot.take() else { continue };
            match answer {
                Answer::Rejected {
                    code: ErrorCode::Busy | ErrorCode::Unavailable,
                    retry_after_ms,
                    ..
                } if since.elapsed() < REFUSED_MAX => {
                    let retry_after = retry_after_ms
                        .map_or(RETRY_AFTER, |ms| Duration::from_millis(u64::from(ms)));
                    self.refuse(Refused { waiting, retry_after }).await;
                }
                answer => self.tally.record(&answer, since),
            }
            // ORDER: the refusal is queued before there is room: who has all room sees them all.
            self.room.add_permits(1);
        }
        self.end(outstanding, "the connection gave no answer");
    }

    async fn refuse(&self, refused: Refused) {
        // Fails only when the connection has given up, and then counts what was not answered.
        self.refused.send(refused).await.ok();
    }

    /// Ends the wait for the rest of a submission.
    fn end(&self, outstanding: Vec<Option<Waiting>>, reason: &str) {
        let lost: Vec<_> = outstanding.into_iter().flatten().collect();
        self.tally.lose(lost.iter().filter_map(|waiting| waiting.since), reason);
        self.room.add_permits(lost.len());
    }
}

/// Puts what was refused back to the front of the queue, in order, and says how long to wait.
fn take_back(refused: &mut mpsc::Receiver<Refused>, queue: &mut VecDeque<Waiting>) -> Duration {
    let mut again = Vec::new();
    let mut pause = Duration::ZERO;
    while let Ok(Refused { waiting, retry_after }) = refused.try_recv() {
        pause = pause.max(retry_after);
        again.push(waiting);
    }
    again.sort_by_key(|waiting| waiting.place);
    again.into_iter().rev().for_each(|waiting| queue.push_front(waiting));
    pause
}

fn busy(detail: &str) -> Answer {
    Answer::Rejected { code: ErrorCode::Busy, detail: detail.into(), retry_after_ms: None }
}

/// Waits until that time; for ever, if there is none.
async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn permits(transactions: usize) -> u32 {
    u32::try_from(transactions).unwrap_or(u32::MAX)
}
