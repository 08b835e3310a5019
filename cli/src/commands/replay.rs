//! `parsec replay`: executes a recorded log again.

use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use parsec_oracle::{Oracle, ReplaySummary};
use parsec_protocol::message::ClusterStatus;
use parsec_runtimes::Runtimes;
use parsec_storage::{Digest, LogReader};
use serde_json::json;

use crate::args::ReplayArgs;
use crate::cluster::{Cluster, ClusterOptions, log_directory};
use crate::failure::{Context, Failure, failed};

/// Replays a log on one thread, and on an embedded cluster if asked to.
///
/// # Errors
/// If the log can't be read, or the cluster does not agree with one thread.
pub async fn replay(args: ReplayArgs) -> Result<(), Failure> {
    let path = args.path.clone();
    let started = Instant::now();
    let serial = tokio::task::spawn_blocking(move || replay_serially(&path));
    let serial = serial.await.map_err(failed)??;
    let serial_seconds = started.elapsed().as_secs_f64();
    let parallel = match args.partitions {
        Some(partitions) => Some(replay_in_parallel(&args, partitions).await?),
        None => None,
    };
    let agrees = parallel.as_ref().is_none_or(|run| run.agrees_with(&serial));
    if args.json {
        let parallel = parallel.as_ref().map(|run| {
            json!({
                "partitions": run.partitions,
                "seconds": run.seconds,
                "state_digest": run.state.to_string(),
                "receipts_digest": run.receipts.to_string(),
            })
        });
        let object = json!({
            "epochs": serial.epochs,
            "transactions": serial.transactions,
            "committed": serial.outcomes.committed,
            "strayed": serial.outcomes.strayed,
            "seconds": serial_seconds,
            "state_digest": serial.state.to_string(),
            "receipts_digest": serial.receipts.to_string(),
            "parallel": parallel,
            "agrees": agrees,
        });
        println!("{}", serde_json::to_string_pretty(&object).map_err(failed)?);
    } else {
        print_text(&serial, serial_seconds, parallel.as_ref());
    }
    match agrees {
        true => Ok(()),
        false => Err(failed("the parallel run does not agree with one thread")),
    }
}

fn print_text(serial: &ReplaySummary, seconds: f64, parallel: Option<&ParallelRun>) {
    println!(
        "one thread: {} transactions of {} epochs in {seconds:.2} s; {} committed, {} strayed",
        serial.transactions, serial.epochs, serial.outcomes.committed, serial.outcomes.strayed
    );
    println!("state digest    {}", serial.state);
    println!("receipts digest {}", serial.receipts);
    let Some(run) = parallel else { return };
    println!("\n{} partitions: in {:.2} s", run.partitions, run.seconds);
    println!("state digest    {}", run.state);
    println!("receipts digest {}", run.receipts);
    println!("{}", if run.agrees_with(serial) { "they agree" } else { "they DIFFER" });
}

fn replay_serially(path: &Path) -> Result<ReplaySummary, Failure> {
    let what = format!("can't replay {}", path.display());
    let reader = LogReader::open(path).context(&what)?;
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} transactions {per_sec}")
    {
        bar.set_style(style);
    }
    // The chain id decides at admission only, which is long past.
    let mut oracle = Oracle::new(&Runtimes::standard(crate::DEFAULT_CHAIN_ID));
    let summary = oracle.replay(reader, |summary| bar.set_position(summary.transactions));
    bar.finish_and_clear();
    summary.context(what)
}

/// What an embedded cluster came to.
struct ParallelRun {
    partitions: u16,
    seconds: f64,
    state: Digest,
    receipts: Digest,
}

impl ParallelRun {
    fn agrees_with(&self, serial: &ReplaySummary) -> bool {
        self.state == serial.state && self.receipts == serial.receipts
    }
}

async fn replay_in_parallel(args: &ReplayArgs, partitions: u16) -> Result<ParallelRun, Failure> {
    if !args.path.is_dir() {
        return Err(failed("--partitions needs the directory of a whole log"));
    }
    let scratch = tempfile::tempdir().context("can't make a scratch directory")?;
    let mut options = ClusterOptions::new(scratch.path().to_owned());
    options.hosts = 1;
    options.partitions_per_host = partitions;
    options.workers_per_partition = usize::from(args.workers);
    let target = log_directory(&scratch.path().join("sequencer"));
    copy_log(&args.path, &target)?;
    options.log_id = Some(LogReader::open(&target).context("can't read the log")?.cluster());
    let started = Instant::now();
    let cluster = Cluster::start(&options).await?;
    let client = cluster.client().await?;
    let ordered = client.status().await.context("status")?.ordered;
    tokio::select! {
        () = cluster.applied(ordered) => {}
        failure = cluster.failed() => return Err(failure),
    }
    let seconds = started.elapsed().as_secs_f64();
    let ClusterStatus { partitions: digests, .. } = client.status().await.context("status")?;
    cluster.stop().await?;
    Ok(ParallelRun {
        partitions,
        seconds,
        state: digests.iter().map(|digest| Digest(digest.state)).sum(),
        receipts: digests.iter().map(|digest| Digest(digest.receipts)).sum(),
    })
}

/// Copies a log, since a sequencer writes to its own.
fn copy_log(from: &Path, to: &Path) -> Result<(), Failure> {
    let what = format!("can't copy {}", from.display());
    std::fs::create_dir_all(to).context(&what)?;
    for entry in std::fs::read_dir(from).context(&what)? {
        let entry = entry.context(&what)?;
        if entry.path().extension().is_some_and(|extension| extension == "plog") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).context(&what)?;
        }
    }
    Ok(())
}
