//! What the demo prints at its end.

use parsec_bench::load::LoadReport;
use parsec_protocol::message::ClusterStatus;
use serde_json::json;

use super::verify::Verdict;
use crate::args::DemoArgs;
use crate::failure::{Failure, failed};

/// What the demo prints at its end.
pub(super) struct DemoReport {
    /// Whether everything agrees.
    pub(super) verified: bool,
    title: String,
    workloads: Vec<LoadReport>,
    status: ClusterStatus,
    verdict: Verdict,
    /// Transactions that earlier runs in the same directory had acknowledged.
    earlier: usize,
}

impl DemoReport {
    pub(super) fn new(
        args: &DemoArgs,
        workloads: Vec<LoadReport>,
        status: ClusterStatus,
        verdict: Verdict,
        earlier: usize,
    ) -> Self {
        let title = format!(
            "{} hosts with {} partitions each, {} worker a partition; data in {}",
            args.hosts,
            args.partitions,
            args.workers,
            args.data.display()
        );
        Self { verified: verdict.is_good(), title, workloads, status, verdict, earlier }
    }

    pub(super) fn print(&self, as_json: bool) -> Result<(), Failure> {
        if as_json {
            println!("{}", serde_json::to_string_pretty(&self.json()).map_err(failed)?);
        } else {
            self.print_text();
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let partitions = self.status.partitions.iter().map(|partition| {
            json!({
                "partition": partition.partition.0,
                "executed": partition.executed,
                "multi_partition": partition.multi_partition,
                "applied_epoch": partition.applied.0,
            })
        });
        json!({
            "workloads": self.workloads,
            "verified": self.verified,
            "state_digest": self.verdict.state.to_string(),
            "receipts_digest": self.verdict.receipts.to_string(),
            "partitions": partitions.collect::<Vec<_>>(),
            "epochs": self.status.ordered.0,
            "transactions": self.status.transactions,
            "acknowledged_earlier": self.earlier,
            "acknowledged_missing": self.verdict.missing.len(),
            "replay": {
                "seconds": self.verdict.took.as_secs_f64(),
                "state_digest": self.verdict.replay.state.to_string(),
                "receipts_digest": self.verdict.replay.receipts.to_string(),
                "strayed": self.verdict.replay.outcomes.strayed,
            },
        })
    }

    fn print_text(&self) {
        println!("{}\n", self.title);
        println!(
            "{:<48} {:>9} {:>8} {:>9} {:>8} {:>8}",
            "workload", "committed", "seconds", "per s", "p50 ms", "p99 ms"
        );
        for load in &self.workloads {
            println!(
                "{:<48} {:>9} {:>8.2} {:>9.0} {:>8.1} {:>8.1}",
                load.name, load.committed, load.seconds, load.tps, load.p50_ms, load.p99_ms
            );
            if let Some(failure) = &load.first_failure {
                let others = load.total - load.committed;
                println!("  {others} did not commit; the first one: {failure}");
            }
        }
        println!(
            "\n{:<10} {:>12} {:>16} {:>8}",
            "partition", "executed", "multi-partition", "epoch"
        );
        for partition in &self.status.partitions {
            println!(
                "{:<10} {:>12} {:>16} {:>8}",
                partition.partition.to_string(),
                partition.executed,
                partition.multi_partition,
                partition.applied.0
            );
        }
        self.print_verdict();
    }

    fn print_verdict(&self) {
        let verdict = &self.verdict;
        let agree = |agrees: bool| if agrees { "agree" } else { "DIFFER" };
        println!(
            "\nreplayed {} transactions of {} epochs on one thread in {:.2} s: receipts {}, state {}",
            verdict.replay.transactions,
            verdict.replay.epochs,
            verdict.took.as_secs_f64(),
            agree(verdict.receipts_agree()),
            if verdict.states_agree() { "agrees" } else { "DIFFERS" },
        );
        println!("state digest    {}", verdict.state);
        println!("receipts digest {}", verdict.receipts);
        if !verdict.states_agree() || !verdict.receipts_agree() {
            println!("one thread gives {} and {}", verdict.replay.state, verdict.replay.receipts);
        }
        if self.earlier > 0 {
            let missing = verdict.missing.len();
            println!(
                "{} transactions were acknowledged in earlier runs; {missing} of them are missing",
                self.earlier
            );
            for id in verdict.missing.iter().take(10) {
                println!("  MISSING {id}");
            }
        }
    }
}
