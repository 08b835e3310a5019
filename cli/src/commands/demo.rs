//! `parsec demo`: a cluster in this process, loaded, measured and verified.

mod acknowledged;
mod report;
mod verify;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parsec_bench::load::{self, LoadOptions, LoadReport, Progress};
use parsec_bench::workload::{
    Erc20, Erc20Options, LuaPay, LuaPayOptions, NativeTransfer, PaymentOptions, Workload,
};
use parsec_protocol::EpochNumber;
use parsec_protocol::message::ClusterStatus;

use crate::args::{DemoArgs, WorkloadName};
use crate::cluster::{Cluster, ClusterOptions};
use crate::failure::{Context, Failure, failed};
use crate::telemetry;
use acknowledged::{Journal, Recorded};
use report::DemoReport;

/// Transactions in one submission.
const SUBMISSION: usize = 250;
/// Connections over which a workload is sent.
const CONNECTIONS: usize = 4;

/// Runs the demo.
///
/// # Errors
/// If a part of it fails, or the replay does not agree.
pub async fn demo(args: DemoArgs) -> Result<(), Failure> {
    if let Some(address) = args.metrics {
        telemetry::serve_metrics(address)?;
    }
    let mut options = ClusterOptions::new(args.data.clone());
    options.hosts = args.hosts;
    options.partitions_per_host = args.partitions;
    options.workers_per_partition = usize::from(args.workers);
    options.clients = args.listen;
    let (cancel, cancelled) = load::cancellation();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("stopping in order; ctrl-C again to stop at once");
            cancel.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });

    let cluster = Cluster::start(&options).await?;
    let session = Session { args: &args, cluster: &cluster, cancelled: cancelled.clone() };
    let outcome = tokio::select! {
        outcome = session.run(&options) => outcome,
        failure = cluster.failed() => Err(failure),
    };
    if let Ok(report) = &outcome {
        report.print(args.json)?;
        if args.stay && !cancelled.is_cancelled() {
            stay(&args, &cluster, cancelled).await?;
        }
    }
    let verified = outcome.map(|report| report.verified);
    cluster.stop().await?;
    match verified? {
        true => Ok(()),
        false => Err(failed("the run is not verified: see above for what does not agree")),
    }
}

async fn stay(
    args: &DemoArgs,
    cluster: &Cluster,
    mut cancelled: load::Cancelled,
) -> Result<(), Failure> {
    let ca = args.data.join("certs/ca/ca.pem");
    eprintln!("the cluster stays up until ctrl-C; in another terminal:");
    eprintln!("  parsec status --connect {} --ca {}", cluster.address(), ca.display());
    tokio::select! {
        () = cancelled.cancelled() => Ok(()),
        failure = cluster.failed() => Err(failure),
    }
}

/// One run of the demo.
struct Session<'a> {
    args: &'a DemoArgs,
    cluster: &'a Cluster,
    cancelled: load::Cancelled,
}

impl Session<'_> {
    async fn run(&self, options: &ClusterOptions) -> Result<DemoReport, Failure> {
        let client = self.cluster.client().await?;
        let before = client.status().await.context("status")?;
        let journal = Journal::open(&self.args.data.join("acknowledged"))?;
        let earlier = journal.earlier();
        // The first epoch is the genesis.
        if before.ordered > EpochNumber(1) {
            self.note(&format!(
                "going on after {}: {} transactions",
                before.ordered, before.transactions
            ));
        }
        // What was there before has its own accounts and contracts: each run needs another seed.
        let seed = before.ordered.0;
        let mut workloads = Vec::new();
        for mut workload in self.workloads(seed)? {
            if self.cancelled.is_cancelled() {
                break;
            }
            workloads.push(self.measure(&mut *workload, &journal).await?);
        }
        journal.flush()?;
        let status = self.settled(&client).await?;
        let verdict =
            verify::against_one_thread(options, &status, journal, self.bar("replaying", 0));
        let verdict = verdict.await?;
        Ok(DemoReport::new(self.args, workloads, status, verdict, earlier))
    }

    fn workloads(&self, seed: u64) -> Result<Vec<Box<dyn Workload>>, Failure> {
        let payments =
            PaymentOptions { seed, accounts: self.args.accounts, ..PaymentOptions::default() };
        let erc20 = Erc20Options { payments, chain_id: crate::DEFAULT_CHAIN_ID };
        let mut workloads: Vec<Box<dyn Workload>> = Vec::new();
        for name in &self.args.workloads {
            workloads.push(match name {
                WorkloadName::Erc20 => Box::new(Erc20::new(erc20).map_err(failed)?),
                WorkloadName::Lua => {
                    let options = LuaPayOptions { payments, ..LuaPayOptions::default() };
                    Box::new(LuaPay::new(options).map_err(failed)?)
                }
                WorkloadName::Native => Box::new(NativeTransfer::new(payments).map_err(failed)?),
            });
        }
        Ok(workloads)
    }

    async fn measure(
        &self,
        workload: &mut dyn Workload,
        journal: &Journal,
    ) -> Result<LoadReport, Failure> {
        let name = workload.name();
        let clients = load::connect(self.cluster.client_config(), CONNECTIONS).await;
        let recorded = |client| Recorded::new(client, journal.clone());
        let targets: Vec<_> = clients.map_err(failed)?.into_iter().map(recorded).collect();
        let options = LoadOptions {
            in_flight: self.args.in_flight,
            batch: SUBMISSION,
            ..LoadOptions::default()
        };
        let bar = self.bar(&format!("{name}: setting up"), 0);
        let told = |stage: &'static str, progress: Progress| {
            show(&bar, &format!("{name}: {stage}"), progress)
        };
        load::set_up(&targets[0], workload.setup(), &options, &self.cancelled, told)
            .await
            .context(&name)?;
        let count = self.args.transactions;
        bar.set_length(count as u64);
        bar.set_message(format!("{name}: building and signing"));
        let built = tokio::task::block_in_place(|| {
            workload.build(count, &|done| bar.set_position(done as u64))
        });
        let on_progress = |progress: Progress| show(&bar, &name, progress);
        let report =
            load::run(&name, &targets, built, &options, &self.cancelled, &on_progress).await;
        bar.finish_and_clear();
        let report = report.context(&name)?;
        // What must be true of the balances now.
        let client = self.cluster.client().await?;
        let audit = workload.audit().run(&client, report.committed == report.total).await;
        audit.context(format!("{name}: the balances are wrong"))?;
        Ok(report)
    }

    /// Waits until every partition has applied all that is ordered, and says how the cluster is.
    async fn settled(&self, client: &parsec_client::Client) -> Result<ClusterStatus, Failure> {
        loop {
            let status = client.status().await.context("status")?;
            self.cluster.applied(status.ordered).await;
            let again = client.status().await.context("status")?;
            let behind = |ordered: EpochNumber| {
                again.partitions.iter().any(|partition| partition.applied < ordered)
            };
            if again.ordered == status.ordered && !behind(status.ordered) && again.in_flight == 0 {
                return Ok(again);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A progress bar on standard error; nothing if that is no terminal.
    fn bar(&self, message: &str, length: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        let template = "{msg:44} {bar:24} {human_pos:>9}/{human_len:9} {prefix}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        bar
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}

fn show(bar: &ProgressBar, message: &str, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
    bar.set_message(message.to_owned());
    bar.set_prefix(format!("{:.0}/s", progress.per_second));
}
