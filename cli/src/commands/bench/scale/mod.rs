//! `parsec bench scale`: the same load on clusters of several sizes.

mod points;
mod record;
mod site;
mod table;
mod visits;

use std::path::Path;
use std::time::Instant;

use parsec_bench::load::Cancelled;
use parsec_bench::record::WorkloadRecord;
use parsec_bench::workload::WorkloadSpec;

use self::points::Points;
use self::site::Site;
use self::visits::{Visit, visits};
use super::live::Live;
use super::run::{RESULTS, default_directory, load, on_interrupt};
use super::session::Outcome;
use super::{environment, summary, write};
use crate::DEFAULT_CHAIN_ID;
use crate::args::{ClusterArgs, PaceArgs, PacingName, RunArgs, ScaleArgs, WorkloadArgs};
use crate::failure::{Context, Failure, failed};
use crate::genesis::Genesis;
use crate::processes::testbed;

/// Most transactions in one submission.
const SUBMISSION_MAX: u32 = 200;
/// Shares of multi-partition transactions that are measured by default, percent.
const SHARES: [u8; 3] = [0, 10, 100];
/// Accounts by default, of workloads of payments: transactions in flight are to meet seldom, on
/// many hosts, too.
const ACCOUNTS: u32 = 4_096;

/// Measures all sizes, writes the report and prints it.
///
/// # Errors
/// If a part of it fails or is not verified. What was measured before is written all the same.
pub(super) async fn scale(args: &ScaleArgs) -> Result<(), Failure> {
    // Before hours are spent on what can't be written down.
    let out = args.out.as_deref().unwrap_or_else(|| Path::new(RESULTS));
    std::fs::create_dir_all(out).context(out.display())?;
    let cancelled = on_interrupt(testbed::abandon);
    let site = tokio::task::block_in_place(|| Site::find(&args.sites))?;
    let plan = tokio::task::block_in_place(|| Plan::new(args, &site))?;
    let (started_ms, started) = (environment::now_ms(), Instant::now());
    let mut points = Points::default();
    let ended = plan.measure_all(&site, cancelled, &mut points).await;
    if points.is_empty() {
        ended?;
        return Err(failed("there was nothing to measure"));
    }
    let mut run = record::record(&plan, &site, points, ended.as_ref().err());
    (run.started_ms, run.took_seconds) = (started_ms, started.elapsed().as_secs_f64());
    // What was measured is not lost if this fails.
    let lines = super::lines::of(&run, &Live::new(false).bar("one thread"));
    if let Ok(lines) = &lines {
        run.lines = Some(lines.clone());
    }
    let directory = args.out.clone().unwrap_or_else(|| default_directory(&run));
    write(&run, &directory)?;
    match args.json {
        true => summary::print(&run, &[], &directory, true)?,
        false => table::print(&run, &directory),
    }
    ended?;
    lines?;
    match run.verified() {
        true => Ok(()),
        false => Err(failed("UNVERIFIED: the run's numbers are no result; see above")),
    }
}

/// What is to be measured.
struct Plan<'a> {
    args: &'a ScaleArgs,
    visits: Vec<Visit>,
    /// Accounts of the workload, if it has any.
    accounts: Option<u32>,
}

impl<'a> Plan<'a> {
    /// Everything in order, and that the workload can be had on each cluster.
    fn new(args: &'a ScaleArgs, site: &Site) -> Result<Self, Failure> {
        site.check(args.hosts.iter().copied().max().unwrap_or(0))?;
        let partitions = |hosts: u16| site.partitions(hosts);
        let visits = visits(&args.hosts, &shares(args), args.repeat, partitions);
        let mut accounts = args.knobs.accounts.or_else(|| default_accounts(args));
        // By the largest first: its number is a multiple of what the others need more often.
        for visit in visits.iter().rev().chain(&visits) {
            accounts = fitting(spec(args, visit, site.partitions(visit.hosts), accounts))?;
        }
        Ok(Self { args, visits, accounts })
    }

    /// Measures everything in order.
    async fn measure_all(
        &self,
        site: &Site,
        cancelled: Cancelled,
        points: &mut Points,
    ) -> Result<(), Failure> {
        let live = Live::new(false);
        for (number, visit) in (1..).zip(&self.visits) {
            live.say(&format!("{number} of {}: {visit}", self.visits.len()));
            let mut interrupted = cancelled.clone();
            let (workload, outcome) = tokio::select! {
                outcome = self.measure(site, visit, cancelled.clone(), &live) => outcome?,
                () = interrupted.cancelled() => return Err(failed("interrupted")),
            };
            points.add(visit, workload, outcome);
        }
        Ok(())
    }

    /// Starts a cluster, measures it, and stops it.
    async fn measure(
        &self,
        site: &Site,
        visit: &Visit,
        cancelled: Cancelled,
        live: &Live,
    ) -> Result<(WorkloadRecord, Outcome), Failure> {
        let partitions = site.partitions(visit.hosts);
        let args = self.run_args(visit, partitions);
        let balances = || args.workload.check(partitions).map_err(failed);
        let genesis = Genesis::file(&tokio::task::block_in_place(balances)?);
        let (tested, config) = site.start(visit.hosts, genesis).await?;
        let outcome = tokio::select! {
            outcome = load(&args, &tested, &config, cancelled, live) => outcome,
            failure = tested.died() => Err(failure),
        };
        let stopped = tested.stop().await;
        let (workload, _, outcome) = outcome?;
        stopped.map(|()| (workload, outcome))
    }

    /// The visit as a plain run on so many partitions.
    fn run_args(&self, visit: &Visit, partitions: u16) -> RunArgs {
        let args = self.args;
        let in_flight = args.in_flight.saturating_mul(u32::from(visit.hosts));
        RunArgs {
            workload: workload(args, visit, partitions, self.accounts),
            cluster: ClusterArgs {
                hosts: visit.hosts,
                partitions: args.sites.partitions,
                workers: args.sites.workers,
                embedded: false,
                together: false,
                data: None,
                connect: None,
                ca: None,
            },
            pace: PaceArgs { rate: None, slo: None, pacing: PacingName::Poisson },
            in_flight,
            // Several submissions of each connection are under way: none waits for a round trip.
            batch: (in_flight / args.clients / 4).clamp(1, SUBMISSION_MAX),
            clients: args.clients,
            seconds: args.seconds,
            warm_up: args.warm_up,
            repeat: 1,
            transactions: None,
            verify_transactions: None,
            no_lines: true,
            objectives: None,
            dashboard: false,
            out: None,
            name: None,
            json: args.json,
            cache: args.cache.clone(),
        }
    }
}

/// The shares that are measured, percent; `None` is as accounts happen to lie.
fn shares(args: &ScaleArgs) -> Vec<Option<u8>> {
    let can_choose = args.knobs.workload.knobs().contains(&"spread");
    match (&args.multi_partition[..], can_choose) {
        ([], false) => vec![None],
        ([], true) => SHARES.map(Some).to_vec(),
        // The workload refuses what it lacks.
        (shares, _) => shares.iter().copied().map(Some).collect(),
    }
}

fn default_accounts(args: &ScaleArgs) -> Option<u32> {
    use parsec_bench::workload::WorkloadName::{
        Erc20, Ether, LuaPay, NativeTransfer, NativeTransfer4,
    };
    let pays = [Erc20, Ether, LuaPay, NativeTransfer, NativeTransfer4];
    pays.contains(&args.knobs.workload).then_some(ACCOUNTS)
}

fn workload(
    args: &ScaleArgs,
    visit: &Visit,
    partitions: u16,
    accounts: Option<u32>,
) -> WorkloadArgs {
    let mut knobs = args.knobs.clone();
    knobs.accounts = accounts;
    // All clusters are new ones, so that one seed does for all.
    knobs.seed.get_or_insert(1);
    // With one partition there is nothing to choose.
    let multi_partition = visit.share.filter(|_| partitions > 1);
    WorkloadArgs { knobs, multi_partition, participants: args.participants }
}

fn spec(args: &ScaleArgs, visit: &Visit, partitions: u16, accounts: Option<u32>) -> WorkloadSpec {
    workload(args, visit, partitions, accounts).spec(DEFAULT_CHAIN_ID, partitions, 1)
}

/// As many accounts as the workload is to have, or so many more that its partitions can do with
/// them.
fn fitting(mut spec: WorkloadSpec) -> Result<Option<u32>, Failure> {
    use parsec_bench::draw::BadWorkload;
    match spec.open() {
        Err(BadWorkload::Classes { accounts, classes, least, .. }) => {
            spec.accounts = Some(accounts.max(least).next_multiple_of(classes));
            spec.open().map_err(failed)?;
        }
        opened => drop(opened.map_err(failed)?),
    }
    Ok(spec.accounts)
}
