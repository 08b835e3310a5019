//! What a seed draws: the cluster, its load, and what befalls it.

use parsec_protocol::limits::FRAME_BYTES_TARGET;
use parsec_sequencer_core::{LaneOptions, RingLimits};

use crate::agenda::{MILLISECOND, Micros, SECOND};
use crate::network::NetworkOptions;
use crate::random::Random;

/// Everything that is decided before a run begins.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How many partitions each executor holds.
    pub(crate) hosts: Vec<u16>,
    pub(crate) clients: u16,
    /// Transactions of each client.
    pub(crate) transactions: u64,
    pub(crate) load: Load,
    pub(crate) network: NetworkOptions,
    pub(crate) faults: Faults,
    pub(crate) lane: LaneOptions,
    /// Transactions that a connection may have without a receipt.
    pub(crate) in_flight_max: usize,
    pub(crate) ring: RingLimits,
    pub(crate) segment_bytes: u64,
    pub(crate) executors: Executors,
    pub(crate) index_interval: Micros,
    /// How long an append, and a sync, of the log takes at most.
    pub(crate) append: Micros,
    pub(crate) sync: Micros,
}

/// What clients do.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Keys of each kind.
    pub(crate) keys: u64,
    /// Most transactions of one submission.
    pub(crate) submission: u64,
    /// Most transactions that a client has under way.
    pub(crate) window: usize,
    /// How long a client pauses, at most.
    pub(crate) pause: Micros,
    /// How long a client waits before it submits a transaction again.
    pub(crate) patience: Micros,
    /// Of a thousand transactions, how many declare a footprint that is too narrow.
    pub(crate) narrow: u64,
    /// ... follow keys that others change.
    pub(crate) chases: u64,
    /// ... change the keys that those follow.
    pub(crate) points: u64,
    /// ... touch a replicated key.
    pub(crate) replicated: u64,
    /// ... may run only for some epochs.
    pub(crate) expires: u64,
    /// Longest value, bytes.
    pub(crate) value_bytes: u64,
}

/// How executors work.
#[derive(Debug, Clone)]
pub(crate) struct Executors {
    pub(crate) workers: usize,
    pub(crate) cached_keys: usize,
    /// Pushes that a partition keeps for epochs that it has not taken in.
    pub(crate) early_pushes: usize,
    /// Epochs that may wait in the inbox of a partition.
    pub(crate) inbox: usize,
    /// With fewer transactions ready than the first, more are entered, until the second are.
    pub(crate) ready_low: usize,
    pub(crate) ready_ahead: usize,
    /// How long a frame of pushes or receipts is.
    pub(crate) frame_bytes: usize,
    /// How long each step of a partition takes at most.
    pub(crate) step: Micros,
    /// How long the commit of an epoch takes at most.
    pub(crate) commit: Micros,
    pub(crate) sync_interval: Micros,
    /// How long the sync of a store takes at most.
    pub(crate) sync: Micros,
    pub(crate) progress_interval: Micros,
}

/// How often each kind of fault happens: the mean time between two; zero for never.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// How long there are any.
    pub(crate) until: Micros,
    pub(crate) host_crashes: Micros,
    pub(crate) sequencer_crashes: Micros,
    /// All nodes lose their power at once.
    pub(crate) power_cuts: Micros,
    pub(crate) link_breaks: Micros,
    pub(crate) partitions: Micros,
    pub(crate) client_breaks: Micros,
    pub(crate) disk_errors: Micros,
    pub(crate) full_disks: Micros,
    pub(crate) damage: Micros,
    pub(crate) clock_jumps: Micros,
}

impl Options {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let random = &mut random;
        let hosts: Vec<u16> = (0..random.between(1, 4)).map(|_| small(random, 1, 3)).collect();
        let clients = small(random, 1, 6);
        let step = random.magnitude(5, 2 * MILLISECOND);
        let ready_low = random_usize(random, 1, 8);
        let transactions = random.between(50, 300) / u64::from(clients) + 1;
        let faults = Faults::draw(random);
        Self {
            load: Load::draw(random, transactions, faults.until),
            transactions,
            hosts,
            clients,
            faults,
            network: NetworkOptions {
                delay: (random.between(5, 50), random.magnitude(100, 20 * MILLISECOND)),
                stragglers: *random.pick(&[0, 0, 5, 50]),
                repeats: *random.pick(&[0, 0, 20, 300]),
            },
            lane: draw_lane(random),
            in_flight_max: random_usize(random, 16, 256),
            ring: RingLimits {
                epochs_max: random_usize(random, 1, 200),
                bytes_max: random_usize(random, 1_000, 10_000_000),
            },
            segment_bytes: random.magnitude(2_000, 1_000_000),
            executors: Executors {
                workers: random_usize(random, 1, 4),
                cached_keys: *random.pick(&[2, 8, 1_000_000]),
                early_pushes: *random.pick(&[4, 64, 1_000_000]),
                inbox: random_usize(random, 1, 16),
                ready_low,
                ready_ahead: ready_low + random_usize(random, 1, 64),
                frame_bytes: *random.pick(&[500, 5_000, FRAME_BYTES_TARGET]),
                step,
                commit: random.magnitude(10, 50 * MILLISECOND),
                sync_interval: random.magnitude(MILLISECOND, SECOND),
                sync: random.magnitude(50, 20 * MILLISECOND),
                progress_interval: random.magnitude(100, 20 * MILLISECOND),
            },
            index_interval: random.magnitude(MILLISECOND, 500 * MILLISECOND),
            append: random.magnitude(2, 500),
            sync: random.magnitude(50, 20 * MILLISECOND),
        }
    }
}

fn small(random: &mut Random, least: u64, most: u64) -> u16 {
    u16::try_from(random.between(least, most)).unwrap_or(u16::MAX)
}

fn random_usize(random: &mut Random, least: u64, most: u64) -> usize {
    usize::try_from(random.magnitude(least, most)).unwrap_or(usize::MAX)
}

fn draw_lane(random: &mut Random) -> LaneOptions {
    let mut lane = LaneOptions {
        batch_transactions_max: random_usize(random, 1, 64),
        epochs_in_flight_max: random.magnitude(2, 128),
        epoch_interval_min_us: random.magnitude(1, 20 * MILLISECOND),
        ..LaneOptions::default()
    };
    if random.chance(200) {
        // A tight lane refuses what it has no room for.
        lane.pending_transactions_max = random_usize(random, 8, 64);
        lane.in_flight_transactions_max = random_usize(random, 2, 64);
        lane.retained_transactions_max = random_usize(random, 64, 512);
        lane.retained_bytes_max = random_usize(random, 10_000, 1_000_000);
        lane.retained_epochs_max = random_usize(random, 16, 256);
        lane.batch_bytes_target = random_usize(random, 500, 100_000);
    }
    lane
}

impl Load {
    /// A load of `transactions` for each client that takes about `until`, or less.
    fn draw(random: &mut Random, transactions: u64, until: Micros) -> Self {
        let submission = random.magnitude(1, 16);
        let chases = *random.pick(&[0, 0, 100, 100, 400, 400, 8_000]);
        let longest = until * (submission + 1) / transactions;
        Self {
            keys: random.magnitude(2, 64),
            submission,
            window: random_usize(random, 1, 64),
            pause: random.magnitude(longest / 8 + 1, longest + 1),
            patience: random.magnitude(50 * MILLISECOND, 2 * SECOND),
            narrow: *random.pick(&[0, 0, 50, 300]),
            chases,
            points: chases / *random.pick(&[4, 1]),
            replicated: *random.pick(&[0, 30, 200]),
            expires: *random.pick(&[0, 0, 0, 100]),
            value_bytes: random.magnitude(16, 3_000),
        }
    }
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let until = random.magnitude(SECOND, 12 * SECOND);
        let mut faults = Self { until, ..Self::default() };
        // Calm runs find what needs no fault, runs with one kind say what it was, and in wild ones
        // faults meet.
        let share = *random.weighted(&[(15, 0), (35, 1), (25, 300), (25, 800)]);
        if share == 1 {
            let one = random.index(faults.kinds().len());
            *faults.kinds()[one] = random.magnitude(until / 32 + 1, until / 2);
        } else if share > 1 {
            for kind in faults.kinds() {
                if random.chance(share) {
                    *kind = random.magnitude(until / 16 + 1, until);
                }
            }
        }
        faults
    }

    fn kinds(&mut self) -> [&mut Micros; 10] {
        [
            &mut self.host_crashes,
            &mut self.sequencer_crashes,
            &mut self.power_cuts,
            &mut self.link_breaks,
            &mut self.partitions,
            &mut self.client_breaks,
            &mut self.disk_errors,
            &mut self.full_disks,
            &mut self.damage,
            &mut self.clock_jumps,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_draw_calm_and_wild_runs_and_every_kind_of_fault() {
        let mut kinds = [0; 10];
        let mut calm = 0;
        for seed in 0..400 {
            let mut faults = Options::draw(seed).faults;
            let on = faults.kinds().map(|kind| *kind > 0);
            calm += u64::from(!on.contains(&true));
            kinds.iter_mut().zip(on).for_each(|(count, on)| *count += u64::from(on));
        }
        assert!(calm > 20, "{calm}");
        assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
    }
}
