//! `parsec status`: shows how a cluster is.

use parsec_client::{Client, ClientConfig};
use parsec_protocol::message::ClusterStatus;
use parsec_protocol::transport::tls::Trust;
use parsec_storage::Digest;
use serde_json::json;

use crate::args::ConnectArgs;
use crate::failure::{Context, Failure, failed};

/// Connects to a cluster.
///
/// # Errors
/// If the CA's certificate can't be read, or nobody answers.
pub(super) async fn connect(args: &ConnectArgs) -> Result<Client, Failure> {
    let config = client_config(args)?;
    Client::connect(config).await.context(format!("can't connect to {}", args.connect))
}

/// How a cluster is connected to.
///
/// # Errors
/// If the CA's certificate can't be read.
pub(super) fn client_config(args: &ConnectArgs) -> Result<ClientConfig, Failure> {
    let hint = "name the cluster's CA with --ca, as CA/ca.pem in its directory of certificates";
    let trust = Trust::load(&args.ca).map_err(|error| failed(format!("{error}; {hint}")))?;
    Ok(ClientConfig::new(vec![args.connect], trust))
}

/// Prints how a cluster is.
///
/// # Errors
/// If it can't be reached.
pub async fn status(args: &ConnectArgs, as_json: bool) -> Result<(), Failure> {
    let client = connect(args).await?;
    let status = client.status().await.context("status")?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&to_json(&status)).map_err(failed)?);
    } else {
        print_text(&status, client.welcome().chain_id);
    }
    match status.partitions.len() == usize::from(status.partitions_total) {
        true => Ok(()),
        false => Err(failed("not every partition answers: see above")),
    }
}

fn digests(status: &ClusterStatus) -> (Digest, Digest) {
    let partitions = &status.partitions;
    (
        partitions.iter().map(|partition| Digest(partition.state)).sum(),
        partitions.iter().map(|partition| Digest(partition.receipts)).sum(),
    )
}

fn to_json(status: &ClusterStatus) -> serde_json::Value {
    let (state, receipts) = digests(status);
    let partitions = status.partitions.iter().map(|partition| {
        json!({
            "partition": partition.partition.0,
            "applied_epoch": partition.applied.0,
            "executed": partition.executed,
            "multi_partition": partition.multi_partition,
            "state_digest": Digest(partition.state).to_string(),
        })
    });
    json!({
        "ordered_epoch": status.ordered.0,
        "transactions": status.transactions,
        "in_flight": status.in_flight,
        "partitions_total": status.partitions_total,
        "partitions": partitions.collect::<Vec<_>>(),
        "state_digest": state.to_string(),
        "receipts_digest": receipts.to_string(),
    })
}

fn print_text(status: &ClusterStatus, chain_id: u64) {
    let (state, receipts) = digests(status);
    println!("chain id        {chain_id}");
    println!("ordered         epoch {}, {} transactions", status.ordered.0, status.transactions);
    println!("in flight       {}", status.in_flight);
    println!("state digest    {state}");
    println!("receipts digest {receipts}");
    println!("\n{:<10} {:>8} {:>12} {:>16}", "partition", "epoch", "executed", "multi-partition");
    for partition in &status.partitions {
        println!(
            "{:<10} {:>8} {:>12} {:>16}",
            partition.partition.to_string(),
            partition.applied.0,
            partition.executed,
            partition.multi_partition
        );
    }
    let missing = usize::from(status.partitions_total) - status.partitions.len();
    if missing > 0 {
        println!("{missing} of {} partitions don't answer", status.partitions_total);
    }
}
