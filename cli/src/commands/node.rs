//! `parsec node`: runs one node of a cluster.

use std::path::Path;

use crate::config::{NodeConfig, RoleName};
use crate::failure::{Failure, failed};
use crate::{node, telemetry};

/// Runs the node that `file` configures until ctrl-C, or until it must not go on.
///
/// # Errors
/// What is wrong with the file, or why the node stopped of itself.
pub async fn node(file: &Path) -> Result<(), Failure> {
    let config = NodeConfig::load(file)?;
    if let Some(address) = config.metrics {
        telemetry::serve_metrics(address)?;
    }
    match config.role {
        RoleName::Sequencer => {
            let (sequencer, address) = node::run_sequencer(&config).await?;
            eprintln!("node {} orders transactions; clients connect to {address}", config.node);
            let stopped = tokio::select! {
                reason = sequencer.stopped() => Some(reason),
                result = tokio::signal::ctrl_c() => { result.map_err(failed)?; None }
            };
            sequencer.shutdown().await.map_err(failed)?;
            stopped.map_or(Ok(()), |reason| Err(failed(reason)))
        }
        RoleName::Executor => {
            let executor = node::run_executor(&config).await?;
            eprintln!("node {} executes transactions", config.node);
            tokio::select! {
                _ = executor.stopped() => {}
                result = tokio::signal::ctrl_c() => result.map_err(failed)?,
            }
            executor.shutdown().await.map_err(failed)
        }
    }
}
