//! The threads that execute transactions.
//!
//! There is no thread that only schedules: a worker takes what has happened into the state
//! machine of its partition, takes a ready transaction out, executes it, hands back what it did,
//! and takes the next one, which is often the one that has just waited for the same key.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parsec_executor_core::{KeyIndex, Output, Partition, Task};
use parsec_protocol::{Key, Push, Receipt, Value};
use parsec_runtimes::{Execution, Sessions};

use crate::config::Stop;
use crate::host::Host;
use crate::monitor::lock;
use crate::shard::{Event, Shard};

/// Transactions that a worker executes before it sends what they made on its way, if there are
/// that many ready: waking another thread costs as much as executing one.
const ROUTE_AFTER: usize = 32;
/// A transaction that takes longer, with what comes before it, lets everything that was taken in be
/// entered into the graph.
const LONG: Duration = Duration::from_micros(200);

/// What a worker carries out of the monitor, to bring about without holding it.
#[derive(Default)]
struct Effects {
    fetches: Vec<(KeyIndex, Key)>,
    pushes: Vec<Push>,
    receipts: Vec<Arc<Receipt>>,
}

/// What a worker carries into the monitor.
#[derive(Default)]
struct Results {
    fetched: Vec<(KeyIndex, Option<Value>)>,
    executed: Option<(Task, Execution)>,
    /// Whether that took long.
    took_long: bool,
}

/// Works for `shard` until it is closed.
///
/// # Errors
/// Why this host must stop.
pub(crate) fn work(host: &Host, shard: &Arc<Shard>, mut sessions: Sessions) -> Result<(), Stop> {
    let mut events = VecDeque::new();
    let mut results = Results::default();
    let mut effects = Effects::default();
    let mut wait = false;
    let mut executed = 0;
    let mut since = Instant::now();
    while shard.inbox.wake(wait).is_some() {
        if wait {
            since = Instant::now();
        }
        let task = {
            let mut core = lock(&shard.core);
            shard.inbox.take_events(&mut events);
            let took_epochs = take_in(&mut core, &mut events, &mut results);
            let task = core.take_ready();
            drain(&mut core, shard, &mut effects);
            if core.ready() > 0 && host.workers_per_partition > 1 {
                shard.inbox.leave_work();
            }
            let full = core.is_full();
            // Written under the lock of the core only, so that it need not be swapped.
            let was_full = shard.graph_full.load(Ordering::Relaxed);
            if was_full != full {
                shard.graph_full.store(full, Ordering::Relaxed);
            }
            let pushes_lost = core.take_pushes_lost();
            if pushes_lost {
                shard.pushes_lost.store(true, Ordering::Release);
            }
            if took_epochs || (was_full && !full) || pushes_lost {
                host.attention.notify_one();
            }
            task
        };
        for (index, key) in effects.fetches.drain(..) {
            let value = shard.store.get(&key).map_err(|error| {
                Stop(format!("{} could not read {key} from its store: {error}", shard.id))
            })?;
            results.fetched.push((index, value));
        }
        executed += 1;
        if task.is_none() || executed >= ROUTE_AFTER {
            host.route(shard.id, &mut effects.pushes, &mut effects.receipts);
            executed = 0;
        }
        wait = task.is_none() && results.fetched.is_empty();
        if let Some(task) = task {
            let execution = execute(&mut sessions, &task)?;
            results.executed = Some((task, execution));
            // From the end of the one before, so that the clock is read once for each.
            let now = Instant::now();
            results.took_long = now - std::mem::replace(&mut since, now) > LONG;
        }
    }
    Ok(())
}

fn execute(sessions: &mut Sessions, task: &Task) -> Result<Execution, Stop> {
    let context = &task.context;
    let execution = Execution::run(
        sessions,
        &task.entry,
        &context.record,
        &context.entropy,
        task.index,
        &task.values,
    );
    execution.map_err(|reason| {
        let epoch = context.record.number;
        Stop(format!("transaction {} at {epoch}/{}: {reason}", task.entry.id, task.index))
    })
}

/// Takes what has happened into the state machine; whether epochs were among it.
fn take_in(core: &mut Partition, events: &mut VecDeque<Event>, results: &mut Results) -> bool {
    let mut took_epochs = false;
    if let Some((task, execution)) = results.executed.take() {
        core.on_executed(task, execution.changes, execution.receipt);
        if results.took_long {
            core.enter_all();
        }
    }
    for (index, value) in results.fetched.drain(..) {
        core.on_fetched(index, value);
    }
    for event in events.drain(..) {
        match event {
            Event::Epoch(context, entries) => {
                core.on_epoch(context, entries);
                took_epochs = true;
            }
            Event::Pushes(pushes) => pushes.into_iter().for_each(|push| core.on_push(push)),
            Event::Stored(epoch) => core.on_stored(epoch),
        }
    }
    took_epochs
}

fn drain(core: &mut Partition, shard: &Shard, effects: &mut Effects) {
    while let Some(output) = core.poll_output() {
        match output {
            Output::Fetch { index, key } => effects.fetches.push((index, key)),
            Output::Push(push) => effects.pushes.push(push),
            Output::Receipt(receipt) => effects.receipts.push(receipt),
            // ORDER: handed over under the lock of the core, so that epochs stay in order.
            Output::Finished(epoch) => shard.finish(*epoch),
        }
    }
}
