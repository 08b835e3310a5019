//! The threads of a partition, and what waits to be sent, under random schedules (shuttle).
//!
//! This compiles `src/monitor.rs` and `src/outgoing.rs` with shuttle's locks in the place of the
//! standard library's: each schedule runs in one thread, every step is chosen, and a schedule in
//! which everybody waits is found as a deadlock. A part of `cargo test -p parsec-executor`;
//! `PARSEC_SCHEDULES=100000` runs more of them. A failure prints a schedule for
//! `shuttle::replay`.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../src/monitor.rs"]
#[allow(dead_code, reason = "nobody counts events here")]
mod monitor;
#[path = "../src/outgoing.rs"]
mod outgoing;
#[path = "../core/tests/support/mod.rs"]
#[allow(dead_code, reason = "these tests draw no random transactions")]
mod support;

mod sync {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;
}

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parsec_executor_core::{EpochContext, FinishedEpoch, KeyIndex, Output, Partition, Task};
use parsec_protocol::transaction::Batch;
use parsec_protocol::{
    Change, EpochNumber, Key, PartitionId, PartitionMap, Position, Receipt, Role, Value, slice,
};
use shuttle::sync::{Barrier, mpsc};
use shuttle::thread;

use crate::monitor::{Handover, Inbox, lock};
use crate::outgoing::Outgoing;
use crate::support::{State, build, serial};
use crate::sync::Mutex;

/// Runs under random schedules, and under such as change their mind seldom.
fn under_schedules(test: fn()) {
    let schedules = std::env::var("PARSEC_SCHEDULES").ok();
    let schedules = schedules.and_then(|count| count.parse().ok()).unwrap_or(2_000);
    shuttle::check_random(test, schedules);
    shuttle::check_pct(test, schedules, 3);
}

enum Event {
    Epoch(Arc<EpochContext>, Vec<(u32, Role)>),
    Stored(EpochNumber),
}

/// A partition as its threads share it.
struct Shard {
    core: Mutex<Partition>,
    inbox: Inbox<Event>,
    finished: Handover<FinishedEpoch>,
    stored: Mutex<State>,
    /// Where the execution of a transaction waits for another one's.
    meeting: Option<Barrier>,
}

impl Shard {
    fn new(meeting: Option<Barrier>) -> Arc<Self> {
        let map = Arc::new(PartitionMap::even(1).unwrap());
        Arc::new(Self {
            core: Mutex::new(Partition::new(PartitionId(0), map, EpochNumber(0))),
            inbox: Inbox::new(),
            finished: Handover::new(),
            stored: Mutex::new(State::new()),
            meeting,
        })
    }

    fn deliver(&self, (context, batch): &(Arc<EpochContext>, Batch)) {
        let slice = slice::cut(batch, &PartitionMap::even(1).unwrap()).swap_remove(0);
        let entries = slice.entries.into_iter().map(|entry| (entry.index, entry.role));
        self.inbox.deliver(Event::Epoch(context.clone(), entries.collect()));
    }

    fn close(&self) {
        self.inbox.close();
        self.finished.close();
    }

    fn execute(&self, task: Task) -> (Task, Vec<Change>, Receipt) {
        if let Some(meeting) = &self.meeting {
            meeting.wait();
        }
        let position = Position { epoch: task.context.record.number, index: task.index };
        let (changes, receipt) = support::execute(&task.entry, position, &task.values);
        (task, changes, receipt)
    }
}

/// What a worker carries into the monitor.
#[derive(Default)]
struct Results {
    fetched: Vec<(KeyIndex, Option<Value>)>,
    executed: Option<(Task, Vec<Change>, Receipt)>,
}

/// The loop of a worker, as `src/worker.rs` has it.
fn work(shard: &Shard) {
    let mut results = Results::default();
    let mut wait = false;
    while shard.inbox.wake(wait).is_some() {
        let (task, fetches) = in_monitor(shard, &mut results);
        let fetch = |(index, key): (KeyIndex, Key)| (index, lock(&shard.stored).get(&key).cloned());
        results.fetched = fetches.into_iter().map(fetch).collect();
        wait = task.is_none() && results.fetched.is_empty();
        results.executed = task.map(|task| shard.execute(task));
    }
}

fn in_monitor(shard: &Shard, results: &mut Results) -> (Option<Task>, Vec<(KeyIndex, Key)>) {
    let mut core = lock(&shard.core);
    if let Some((task, changes, receipt)) = results.executed.take() {
        core.on_executed(task, changes, receipt);
    }
    for (index, value) in results.fetched.drain(..) {
        core.on_fetched(index, value);
    }
    let mut events = VecDeque::new();
    shard.inbox.take_events(&mut events);
    for event in events {
        match event {
            Event::Epoch(context, entries) => core.on_epoch(context, entries),
            Event::Stored(epoch) => core.on_stored(epoch),
        }
    }
    let task = core.take_ready();
    let mut fetches = Vec::new();
    while let Some(output) = core.poll_output() {
        match output {
            Output::Fetch { index, key } => fetches.push((index, key)),
            Output::Finished(epoch) => shard.finished.give(*epoch),
            Output::Push(_) | Output::Receipt(_) => {}
        }
    }
    if core.ready() > 0 {
        shard.inbox.leave_work();
    }
    (task, fetches)
}

/// The loop of the committer. Tells of each epoch that it has stored.
fn commit(shard: &Shard, stored: &mpsc::Sender<EpochNumber>) {
    let mut last = EpochNumber(0);
    loop {
        let finished = shard.finished.take();
        if finished.is_empty() {
            return;
        }
        for epoch in finished {
            assert_eq!(epoch.epoch, last.next(), "epochs are handed over in order");
            last = epoch.epoch;
            for write in epoch.writes {
                let mut state = lock(&shard.stored);
                match write.new {
                    Some(value) => drop(state.insert(write.key, value)),
                    None => drop(state.remove(&write.key)),
                }
            }
            shard.inbox.deliver(Event::Stored(last));
            // Nobody may listen any more, once it is closed.
            stored.send(last).unwrap_or_default();
        }
    }
}

struct Threads(Vec<thread::JoinHandle<()>>);

impl Threads {
    fn start(shard: &Arc<Shard>, workers: usize) -> (Self, mpsc::Receiver<EpochNumber>) {
        let (sender, stored) = mpsc::channel();
        let mut threads: Vec<_> = (0..workers)
            .map(|_| {
                let shard = shard.clone();
                thread::spawn(move || work(&shard))
            })
            .collect();
        let shard = shard.clone();
        threads.push(thread::spawn(move || commit(&shard, &sender)));
        (Self(threads), stored)
    }

    fn join(self) {
        self.0.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Writers, readers and additions of few keys.
fn epochs() -> Vec<(Arc<EpochContext>, Batch)> {
    build(&[
        vec![vec![(0, 1), (1, 1)], vec![(2, 1)], vec![(0, 0), (2, 2)]],
        vec![],
        vec![vec![(1, 1)], vec![(2, 0)], vec![(0, 2)], vec![(3, 1)]],
        vec![vec![(0, 1), (3, 0)]],
    ])
}

#[test]
fn workers_agree_with_one_thread_and_hand_epochs_over_in_order() {
    under_schedules(|| {
        let epochs = epochs();
        let shard = Shard::new(None);
        let (threads, stored) = Threads::start(&shard, 2);
        epochs.iter().for_each(|epoch| shard.deliver(epoch));
        // A wake-up that is lost shows here, as a deadlock.
        epochs.iter().for_each(|(epoch, _)| assert_eq!(stored.recv(), Ok(epoch.record.number)));
        shard.close();
        threads.join();
        assert_eq!(*lock(&shard.stored), serial(&epochs).0);
    });
}

#[test]
fn a_ready_transaction_does_not_wait_for_one_that_runs() {
    under_schedules(|| {
        // Each of the two ends only when the other one runs as well.
        let epochs = build(&[vec![vec![(0, 1)], vec![(1, 1)]]]);
        let shard = Shard::new(Some(Barrier::new(2)));
        let (threads, stored) = Threads::start(&shard, 2);
        shard.deliver(&epochs[0]);
        assert_eq!(stored.recv(), Ok(EpochNumber(1)));
        shard.close();
        threads.join();
    });
}

#[test]
fn closing_ends_all_threads_whatever_they_do() {
    under_schedules(|| {
        let epochs = epochs();
        let shard = Shard::new(None);
        let (threads, _stored) = Threads::start(&shard, 3);
        let closing = {
            let shard = shard.clone();
            thread::spawn(move || shard.close())
        };
        epochs.iter().for_each(|epoch| shard.deliver(epoch));
        closing.join().unwrap();
        threads.join();
    });
}

/// Takes until closed, and tells of each item that came.
async fn take_all(outgoing: &Outgoing<(usize, u32)>, taken: mpsc::Sender<()>) {
    let mut next = BTreeMap::new();
    let mut items = Vec::new();
    loop {
        outgoing.take(&mut items).await;
        if items.is_empty() {
            return;
        }
        for (producer, item) in items.drain(..) {
            let expected = next.entry(producer).or_insert(0);
            assert_eq!(item, *expected, "items of one producer stay in order, each once");
            *expected += 1;
            taken.send(()).unwrap();
        }
    }
}

#[test]
fn what_waits_to_be_sent_is_taken_once_and_in_order() {
    under_schedules(|| {
        let outgoing = Arc::new(Outgoing::new());
        let (sender, taken) = mpsc::channel();
        let taker = {
            let outgoing = outgoing.clone();
            thread::spawn(move || shuttle::future::block_on(take_all(&outgoing, sender)))
        };
        let producer = |name: usize| {
            let outgoing = outgoing.clone();
            thread::spawn(move || {
                (0..3)
                    .for_each(|round| outgoing.extend([(name, 2 * round), (name, 2 * round + 1)]));
            })
        };
        let producers = [producer(0), producer(1)];
        // A wake-up that is lost shows here, as a deadlock.
        (0..12).for_each(|_| taken.recv().unwrap());
        producers.into_iter().for_each(|thread| thread.join().unwrap());
        outgoing.close();
        taker.join().unwrap();
        assert!(taken.recv().is_err(), "nothing comes twice");
    });
}

#[test]
fn who_waits_for_room_gets_it_or_the_end() {
    under_schedules(|| {
        let outgoing = Arc::new(Outgoing::new());
        // More than there is room for.
        outgoing.extend((0..20_000).map(|item| (0, item)));
        let waiter = || {
            let outgoing = outgoing.clone();
            thread::spawn(move || shuttle::future::block_on(outgoing.has_room()))
        };
        let waiters = [waiter(), waiter()];
        let mut taken = Vec::new();
        shuttle::future::block_on(outgoing.take(&mut taken));
        assert_eq!(taken.len(), 20_000);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());

        outgoing.extend((0..20_000).map(|item| (0, item)));
        let waiters = [waiter(), waiter()];
        outgoing.close();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}
