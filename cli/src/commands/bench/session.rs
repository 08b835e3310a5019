//! One run against one cluster: set up, try, measure again and again, send the rest, verify.

mod search;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use parsec_bench::load::{self, Cancelled, Event, Flow, LoadOptions, MeasureOptions, Measured};
use parsec_bench::record::{
    Check, CheckKind, CheckResult, Lines, MemorySample, Pace, Phase, Repeat, Search, Verification,
};
use parsec_bench::workload::{Commits, LoadTransaction, Reverts, Workload};
use parsec_client::{Client, ClientConfig};
use parsec_protocol::message::ClusterStatus;

use super::environment;
use super::lines::Meter;
use super::live::Live;
use super::supply::Supply;
use super::tested::Tested;
use super::verify::{self, Rest};
use crate::args::{Rate, RunArgs};
use crate::failure::{Context, Failure, failed};
use crate::genesis::Genesis;
use crate::processes::ClusterUsage;

/// Transactions by which it is found out how many a second there will be.
pub(super) const TRY: usize = 10_000;
/// How long that takes at most.
const TRY_SECONDS: Duration = Duration::from_secs(2);
/// What is built ahead, relative to what the rate so far would need.
const AHEAD: f64 = 1.4;
/// Most transactions that are built ahead: some gigabytes.
const BUILT_MAX: f64 = 20_000_000.0;
/// How often a repeat is done again because its transactions ran out.
const ATTEMPTS: u32 = 4;
/// How long to wait for what is in flight after an interruption.
const DRAIN: Duration = Duration::from_secs(5);

/// How long all that is ordered may take until it is applied.
const SETTLED_MAX: Duration = Duration::from_secs(120);

/// What is at hand while a run goes on.
pub(super) struct Session<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) tested: &'a Tested,
    pub(super) config: &'a ClientConfig,
    pub(super) client: &'a Client,
    pub(super) cancelled: Cancelled,
    pub(super) live: &'a Live,
    /// The workload's seed.
    pub(super) seed: u64,
}

/// What came of a run.
pub(super) struct Outcome {
    pub(super) pace: Pace,
    pub(super) repeats: Vec<Repeat>,
    pub(super) search: Option<Search>,
    pub(super) verification: Verification,
}

/// What changes while it goes on.
struct Progress {
    supply: Supply,
    clients: Vec<Client>,
    /// Committed transactions a second, as far as is known.
    rate: f64,
    flow: Flow,
    rests: Vec<Rest>,
    /// The thread that the repeats are held against, once there was one.
    meter: Option<Meter>,
}

impl Session<'_> {
    /// Measures a workload whose first transactions are built.
    pub(super) async fn run(&self, supply: Supply) -> Result<Outcome, Failure> {
        let connections = usize::try_from(self.args.clients).unwrap_or(usize::MAX);
        let clients = load::connect(self.config, connections).await.map_err(failed)?;
        self.set_up(&clients[0], supply.workload()).await?;
        self.tested.impose()?;
        let mut progress = Progress {
            supply,
            clients,
            rate: 0.0,
            flow: Flow::default(),
            rests: Vec::new(),
            meter: None,
        };
        self.find_rate(&mut progress).await?;
        let (pace, repeats, search) = match self.args.pace.rate {
            None => (Pace::Closed, self.measure(&mut progress, Pace::Closed).await?, None),
            Some(Rate::PerSecond(rate)) => {
                let pace = self.open(rate, 0);
                (pace, self.measure(&mut progress, pace).await?, None)
            }
            Some(Rate::Find) => {
                let (rate, repeats, search) = self.find(&mut progress).await?;
                (self.open(rate, 0), repeats, Some(search))
            }
        };
        self.tested.lift()?;
        if let Some(meter) = progress.meter.take() {
            tokio::task::block_in_place(|| meter.end())?;
        }
        let verification = self.verify(progress).await?;
        Ok(Outcome { pace, repeats, search, verification })
    }

    async fn set_up(&self, client: &Client, workload: &dyn Workload) -> Result<(), Failure> {
        let options = self.load_options();
        let bar = self.live.bar("setting up");
        let told = |stage: &'static str, progress: load::Progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(format!("setting up: {stage}"));
        };
        let stages = tokio::task::block_in_place(|| workload.setup());
        let done = load::set_up(client, stages, &options, &self.cancelled, told).await;
        bar.finish_and_clear();
        let needed = Genesis::file(&workload.genesis());
        done.map_err(|error| match needed.filter(|_| matches!(self.tested, Tested::Existing)) {
            Some(genesis) => failed(format!(
                "{error}. The cluster's genesis must have {genesis}, which goes with --seed {}",
                self.seed
            )),
            None => failed(error),
        })
    }

    /// A first try, by which it is known how many transactions will be needed.
    async fn find_rate(&self, progress: &mut Progress) -> Result<(), Failure> {
        self.live.label("trying");
        let load = progress.supply.take(1)?;
        let options = MeasureOptions {
            warm_up: Duration::ZERO,
            seconds: TRY_SECONDS,
            ..self.options(Pace::Closed)
        };
        let measured = self.send(progress, load, &options).await?;
        self.say_invalid(&measured.repeat);
        progress.rate = rate(&measured).max(1.0);
        self.rest(progress).await
    }

    /// Says what could not run in a first try: no report has it, but what the same accounts send
    /// later, with nonces behind it, is invalid in all that is measured.
    fn say_invalid(&self, tried: &Repeat) {
        let (invalid, sent) = (tried.counts.invalid, tried.counts.sent);
        if let Some(first) = tried.first_failure.as_ref().filter(|_| invalid > 0) {
            self.live.say(&format!("{invalid} of {sent} of the first try were invalid: {first}"));
        }
    }

    /// All repeats.
    async fn measure(&self, progress: &mut Progress, pace: Pace) -> Result<Vec<Repeat>, Failure> {
        let mut repeats = Vec::new();
        for number in 0..self.args.repeat {
            self.live.label(&format!("repeat {} of {}", number + 1, self.args.repeat));
            let pace = match pace {
                Pace::Closed => Pace::Closed,
                Pace::Open { rate, .. } => self.open(rate, u64::from(number)),
            };
            let left = self.args.repeat - number;
            let Measured { mut repeat, .. } =
                self.measure_once(progress, &self.options(pace), left).await?;
            self.rest(progress).await?;
            if !self.args.no_lines {
                repeat.lines = Some(tokio::task::block_in_place(|| self.lines(progress))?);
            }
            self.live.repeat(&repeat);
            repeats.push(repeat);
        }
        Ok(repeats)
    }

    /// What one thread does with the workload now.
    fn lines(&self, progress: &mut Progress) -> Result<Lines, Failure> {
        let bar = self.live.bar("one thread");
        let spec = progress.supply.spec();
        let mut meter = match progress.meter.take() {
            Some(meter) => meter,
            None => Meter::new(spec, self.args.repeat, &bar)?,
        };
        let lines = meter.measure(&bar)?;
        progress.meter = Some(meter);
        Ok(lines)
    }

    /// Measures once, with enough transactions for `left` times. If they run out, more are built,
    /// and it is measured again.
    async fn measure_once(
        &self,
        progress: &mut Progress,
        options: &MeasureOptions,
        left: u32,
    ) -> Result<Measured, Failure> {
        for _ in 0..ATTEMPTS {
            let needed = match options.needs().map_err(failed)? {
                Some(exactly) => exactly,
                None => {
                    let seconds = (options.warm_up + options.seconds).as_secs_f64();
                    transactions(progress.rate * seconds * AHEAD)?
                }
            };
            let load = progress.supply.take(needed.saturating_mul(times(left)))?;
            let measured = self.send(progress, load, options).await?;
            progress.rate = progress.rate.max(rate(&measured));
            let Some(after) = measured.ran_out else { return Ok(measured) };
            progress.rate *= AHEAD;
            self.live.say(&format!(
                "the transactions that were built ahead ran out after {:.1} of {} s; building \
                 more and measuring again",
                after.as_secs_f64(),
                options.seconds.as_secs()
            ));
        }
        Err(failed(
            "the transactions that were built ahead ran out again and again; name a larger number with --transactions",
        ))
    }

    /// Sends what there is for as long as the options say, and notes what is used meanwhile.
    async fn send(
        &self,
        progress: &mut Progress,
        load: Vec<LoadTransaction>,
        options: &MeasureOptions,
    ) -> Result<Measured, Failure> {
        let used: Mutex<Vec<Result<ClusterUsage, Failure>>> = Mutex::new(Vec::new());
        let memory: Mutex<Vec<MemorySample>> = Mutex::new(Vec::new());
        let on_event = |event: Event| {
            if let Event::Second(sample) = event {
                let held = self.tested.memory().into_iter();
                let at = |(host, bytes)| MemorySample { host, end: sample.end, bytes };
                memory.lock().unwrap_or_else(PoisonError::into_inner).extend(held.map(at));
            }
            if matches!(event, Event::Phase(Phase::Measuring | Phase::Draining)) {
                used.lock().unwrap_or_else(PoisonError::into_inner).push(self.tested.used());
            }
            self.live.event(event);
        };
        let clients = &progress.clients;
        let measured = load::measure(clients, load, options, &self.cancelled, &on_event).await;
        let mut measured = measured.map_err(failed)?;
        progress.supply.put_back(std::mem::take(&mut measured.rest), measured.untouched);
        progress.flow.add(&measured.flow);
        if measured.cancelled {
            return Err(failed("interrupted: nothing was measured to its end"));
        }
        let used = used.into_inner().unwrap_or_else(PoisonError::into_inner);
        let used: Vec<_> = used.into_iter().collect::<Result<_, _>>()?;
        if let [before, after, ..] = &used[..] {
            self.note_use(&mut measured.repeat, &after.since(before));
        }
        let memory = memory.into_inner().unwrap_or_else(PoisonError::into_inner);
        measured.repeat.resources.memory_samples = memory;
        Ok(measured)
    }

    fn note_use(&self, repeat: &mut Repeat, used: &ClusterUsage) {
        repeat.resources = self.tested.resources(used);
        let cores = f64::from(environment::cores());
        let of = |nanos: u64| nanos as f64 / 1e9 / repeat.seconds.max(1e-9);
        let (mine, all) = (of(used.driver.cpu_ns), of(used.cpu_ns()));
        if self.tested.is_apart() {
            repeat.generator.used(mine, cores);
        }
        repeat.resources.limits = self.tested.limits(used, repeat.seconds);
        let is_here = matches!(self.tested, Tested::Processes(_) | Tested::Testbed(_));
        if is_here && all > 0.95 * cores && !repeat.generator.limited {
            repeat.generator.reasons.push(format!(
                "all {cores:.0} cores of the machine were busy, and the load generator took \
                 {mine:.2} of them from the cluster"
            ));
        }
    }

    /// Waits until nothing is in flight, and notes how the cluster is then.
    async fn rest(&self, progress: &mut Progress) -> Result<(), Failure> {
        let status = settled(self.client).await?;
        progress.rests.push(Rest::new(&status)?);
        Ok(())
    }

    /// Sends what was left between what was sent, and checks everything that can be.
    async fn verify(&self, progress: Progress) -> Result<Verification, Failure> {
        let Progress { supply, clients, mut flow, mut rests, .. } = progress;
        let (workload, holes, sent) = tokio::task::block_in_place(|| supply.close())?;
        if !holes.is_empty() {
            let options = self.load_options();
            let report = load::run("rest", &clients, holes, &options, &self.cancelled, &|_| {});
            let report = report.await.map_err(failed)?;
            flow.committed += report.committed;
            flow.lost += report.unknown;
        }
        let status = settled(self.client).await?;
        rests.push(Rest::new(&status)?);
        let mut checks = vec![self.audit(&*workload, sent, flow).await?];
        checks.extend(rests.last().map(verify::level));
        let log = self.tested.log().await?;
        let needs_oracle = log.is_some();
        checks.push(match log {
            None => verify::without_log(),
            Some(log) => {
                let bar = self.live.bar("replaying on one thread");
                let (chain, most) = (self.client.welcome().chain_id, self.args.verify_transactions);
                verify::against_one_thread(log, chain, &rests, most, bar).await?
            }
        });
        Ok(verify::verdict(checks, needs_oracle))
    }

    /// Checks the invariants of a workload of which `sent` transactions are built and sent.
    async fn audit(
        &self,
        workload: &dyn Workload,
        sent: usize,
        flow: Flow,
    ) -> Result<Check, Failure> {
        let sent = u64::try_from(sent).unwrap_or(u64::MAX);
        let foreseen = match workload.reverts() {
            Reverts::Exactly(reverts) => reverts,
            Reverts::Never | Reverts::Perhaps(_) => 0,
        };
        let all = flow.committed + foreseen == sent;
        let most = flow.committed.saturating_add(flow.lost);
        let commits =
            if all { Commits::All } else { Commits::Between { least: flow.committed, most } };
        let audited = workload.audit().verify(self.client, commits).await;
        let which = if all {
            format!("all {sent} transactions that were sent had the effect that was foreseen")
        } else {
            let committed = flow.committed;
            format!(
                "{committed} of {sent} transactions committed, so that only what holds whichever did is checked"
            )
        };
        Ok(Check {
            kind: CheckKind::Audit,
            result: if audited.is_ok() { CheckResult::Passed } else { CheckResult::Failed },
            detail: match audited {
                Ok(epoch) => format!("the workload's invariants hold after {epoch}; {which}"),
                Err(error) => format!("{error}; {which}"),
            },
            transactions: Some(sent),
        })
    }

    fn options(&self, pace: Pace) -> MeasureOptions {
        MeasureOptions {
            pace,
            in_flight: usize::try_from(self.args.in_flight).unwrap_or(usize::MAX),
            batch: usize::try_from(self.args.batch).unwrap_or(usize::MAX),
            warm_up: Duration::from_secs(u64::from(self.args.warm_up)),
            seconds: Duration::from_secs(u64::from(self.args.seconds)),
            drain: DRAIN,
        }
    }

    fn load_options(&self) -> LoadOptions {
        let MeasureOptions { in_flight, batch, drain, .. } = self.options(Pace::Closed);
        LoadOptions { in_flight, batch, drain, duration: None }
    }

    /// An open loop with that rate; `number` makes it random in another way.
    fn open(&self, rate: f64, number: u64) -> Pace {
        let seed = self.args.workload.knobs.seed.unwrap_or(1).wrapping_add(number);
        Pace::Open { rate, pacing: self.args.pace.pacing.into(), seed }
    }
}

/// Waits until nothing is in flight and all that is ordered is applied. Says how the cluster is then.
pub(super) async fn settled(client: &Client) -> Result<ClusterStatus, Failure> {
    let settled = tokio::time::timeout(SETTLED_MAX, load::settled(client)).await;
    let late = |_| failed(format!("the cluster has not applied all within {SETTLED_MAX:?}"));
    settled.map_err(late)?.context("status")
}

/// Committed transactions a second, warm-up included.
fn rate(measured: &Measured) -> f64 {
    match measured.elapsed.is_zero() {
        true => 0.0,
        false => measured.flow.committed as f64 / measured.elapsed.as_secs_f64(),
    }
}

/// A number of transactions to build.
fn transactions(count: f64) -> Result<usize, Failure> {
    if !(0.0..=BUILT_MAX).contains(&count) {
        return Err(failed(format!(
            "{count:.0} transactions would have to be built ahead, and at most {BUILT_MAX:.0} are: \
             measure for fewer seconds"
        )));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(count.ceil() as usize)
}

fn times(repeats: u32) -> usize {
    usize::try_from(repeats).unwrap_or(usize::MAX)
}
