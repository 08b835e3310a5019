//! What is looked at: the part of the load in which everything is in flight, but for the first
//! transactions, which found empty queues.

use std::collections::BTreeMap;

use super::{Capacity, Simulation, Stage, Work};
use crate::agenda::{MICROSECOND, Nanos, SECOND};
use crate::outcome::{Outcome, Used, Wire};

/// When looking begins and ends: when so many percent of the load are answered.
const BEGIN_PERCENT: usize = 30;
const END_PERCENT: usize = 75;

/// What is remembered of the part that is looked at.
#[derive(Debug, Default)]
pub(super) struct Window {
    begin: Option<Mark>,
    pub(super) end: Option<Mark>,
    /// Nanoseconds.
    latencies: Vec<Nanos>,
}

/// How far everything was at a moment.
#[derive(Debug)]
pub(super) struct Mark {
    at: Nanos,
    done: usize,
    work: BTreeMap<Stage, Work>,
    /// Busy time of every lane: node, stage, how many slots and threads there are for it.
    busy: Vec<Busy>,
    /// Bytes that each node sent and received.
    bytes: Vec<(u64, u64)>,
    epochs: u64,
    executed: u64,
    multi_partition: u64,
}

#[derive(Debug, Clone, Copy)]
struct Busy {
    node: usize,
    processor: usize,
    stage: Stage,
    time: Nanos,
    slots: usize,
    threads: usize,
}

impl Simulation<'_> {
    /// A transaction is answered.
    pub(super) fn completed(&mut self, latency: Nanos) {
        let (done, total) = (self.client.done, self.load.len());
        if self.window.begin.is_some() && self.window.end.is_none() {
            self.window.latencies.push(latency);
        }
        if done == total * BEGIN_PERCENT / 100 {
            self.window.begin = Some(self.mark());
        }
        if done == total * END_PERCENT / 100 {
            self.window.end = Some(self.mark());
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            at: self.now,
            done: self.client.done,
            work: self.work.clone(),
            busy: self.busy(),
            bytes: self.nodes.iter().map(|node| node.port.bytes()).collect(),
            epochs: self.sequencer.ordered().0,
            executed: self.executed,
            multi_partition: self.multi_partition,
        }
    }

    fn busy(&self) -> Vec<Busy> {
        let of_nodes = self.nodes.iter().enumerate();
        let of_nodes =
            of_nodes.flat_map(|(node, here)| here.places.values().map(move |place| (node, *place)));
        let of_shards = (1..).zip(&self.hosts).flat_map(|(node, host)| {
            let places = host.shards().flat_map(|shard| [shard.worker, shard.store]);
            places.flatten().map(move |place| (node, place))
        });
        let busy = |(node, place): (usize, super::Place)| {
            let processor = &self.processors[place.processor];
            let (slots, threads) = processor.room(place.lane);
            Busy {
                node,
                processor: place.processor,
                stage: processor.stage(place.lane),
                time: processor.busy(place.lane),
                slots,
                threads,
            }
        };
        of_nodes.chain(of_shards).map(busy).collect()
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        let end = self.window.end.take().unwrap_or_else(|| self.mark());
        let begin = self.window.begin.take().unwrap_or_else(|| self.mark());
        let time = (end.at - begin.at).max(1);
        let seconds = time as f64 / SECOND as f64;
        let count = end.done - begin.done;
        let mut latencies = std::mem::take(&mut self.window.latencies);
        latencies.sort_unstable();
        let quantile = |percent: usize| {
            let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
            latencies.get(at).map_or(0.0, |nanos| *nanos as f64 / MICROSECOND as f64 / 1e3)
        };
        let work = end.work.iter().map(|(stage, work)| {
            (*stage, work.since(begin.work.get(stage).copied().unwrap_or_default()))
        });
        let executed = (end.executed - begin.executed).max(1);
        Outcome {
            hosts: self.options.hosts,
            tps: count as f64 / seconds,
            p50_ms: quantile(50),
            p99_ms: quantile(99),
            transactions: count as u64,
            seconds,
            epochs: end.epochs - begin.epochs,
            multi_partition: (end.multi_partition - begin.multi_partition) as f64 / executed as f64,
            committed: self.client.committed as u64,
            answered: self.client.done as u64,
            work: work.collect(),
            wire: self.wire(&begin, &end, seconds),
            used: self.used(&begin, &end, time),
        }
    }

    fn wire(&self, begin: &Mark, end: &Mark, seconds: f64) -> Wire {
        let mbit = |bytes: u64| bytes as f64 * 8.0 / 1e6 / seconds;
        let rates: Vec<(f64, f64)> = begin
            .bytes
            .iter()
            .zip(&end.bytes)
            .map(|(before, after)| (mbit(after.0 - before.0), mbit(after.1 - before.1)))
            .collect();
        let hosts = &rates[1..=self.hosts.len()];
        let most = |of: fn(&(f64, f64)) -> f64| hosts.iter().map(of).fold(0.0, f64::max);
        Wire {
            host_sent_mbit: most(|rate| rate.0),
            host_received_mbit: most(|rate| rate.1),
            sequencer_sent_mbit: rates[0].0,
            sequencer_received_mbit: rates[0].1,
        }
    }

    /// How much of what there is was used, the most used first.
    fn used(&self, begin: &Mark, end: &Mark, time: Nanos) -> Vec<Used> {
        let mut used = BTreeMap::new();
        let mut note = |what: String, share: f64, stage: Option<Stage>| {
            let most = used.entry(what).or_insert((0.0, None));
            if share > most.0 {
                *most = (share, stage);
            }
        };
        let mut processors: BTreeMap<(usize, usize), BTreeMap<Stage, Nanos>> = BTreeMap::new();
        for (before, after) in begin.busy.iter().zip(&end.busy) {
            let busy = after.time - before.time;
            let node = if self.is_shared(after.processor) { usize::MAX } else { after.node };
            let stages = processors.entry((after.processor, node)).or_default();
            *stages.entry(after.stage).or_default() += busy;
            // A stage with fewer threads than there are cores has a limit of its own.
            if after.threads < after.slots {
                let share = busy as f64 / (time as f64 * after.threads as f64);
                let what = format!("{} threads for {}", self.kind(after.node), after.stage.name());
                note(what, share, Some(after.stage));
            }
        }
        for ((processor, node), stages) in &processors {
            let slots = end.busy.iter().find(|busy| busy.processor == *processor);
            let slots = slots.map_or(1, |busy| busy.slots);
            let busy: Nanos = stages.values().sum();
            let most = stages.iter().max_by_key(|(_, busy)| **busy).map(|(stage, _)| *stage);
            let share = busy as f64 / (time as f64 * slots as f64);
            note(format!("{} CPU", self.kind(*node)), share, most);
        }
        let bits = self.options.link.bits_per_second;
        for (node, (before, after)) in begin.bytes.iter().zip(&end.bytes).enumerate() {
            let share =
                |bytes: u64| bits.map_or(0.0, |bits| bytes as f64 * 8e9 / (bits * time as f64));
            if node != self.client_node() {
                note(format!("{} link, sending", self.kind(node)), share(after.0 - before.0), None);
                let received = share(after.1 - before.1);
                note(format!("{} link, receiving", self.kind(node)), received, None);
            }
        }
        let used = used.into_iter();
        // A job that is running now counts with its whole slice.
        let used = used.map(|(what, (share, stage))| Used { what, share: share.min(1.0), stage });
        let mut used: Vec<Used> = used.collect();
        used.sort_by(|one, other| other.share.total_cmp(&one.share));
        used
    }

    fn is_shared(&self, processor: usize) -> bool {
        let machine = self.options.machine;
        let shares = [machine.host, machine.sequencer, machine.client];
        processor == 0 && shares.contains(&Capacity::Shared)
    }

    /// What a node is, for people.
    fn kind(&self, node: usize) -> &'static str {
        match node {
            usize::MAX => "shared",
            super::SEQUENCER_NODE => "sequencer",
            host if host <= self.hosts.len() => "host",
            client if client == self.client_node() => "client",
            _ => "gateway",
        }
    }
}
