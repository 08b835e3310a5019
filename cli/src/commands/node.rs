//! `parsec node`: runs one node of a cluster.

use std::path::Path;

use crate::config::{NodeConfig, RoleName};
use crate::failure::{Context, Failure, failed};
use crate::{node, telemetry};

/// Runs the node that `file` configures until ctrl-C, or until it must not go on; also until
/// standard input ends, if `stop_at_eof`.
///
/// # Errors
/// What is wrong with the file, or why the node stopped of itself.
pub async fn node(file: &Path, stop_at_eof: bool) -> Result<(), Failure> {
    let asked = asked_to_stop(stop_at_eof)?;
    let config = NodeConfig::load(file)?;
    if let Some(address) = config.metrics {
        telemetry::serve_metrics(address)?;
    }
    match config.role {
        RoleName::Sequencer => {
            without_huge_pages();
            let (sequencer, address) = node::run_sequencer(&config).await?;
            eprintln!("node {} orders transactions; clients connect to {address}", config.node);
            let stopped = tokio::select! {
                reason = sequencer.stopped() => Some(reason),
                result = asked => { result?; None }
            };
            sequencer.shutdown().await.map_err(failed)?;
            stopped.map_or(Ok(()), |reason| Err(failed(reason)))
        }
        RoleName::Executor => {
            let executor = node::run_executor(&config).await?;
            eprintln!("node {} executes transactions", config.node);
            tokio::select! {
                _ = executor.stopped() => {}
                result = asked => result?,
            }
            executor.shutdown().await.map_err(failed)
        }
    }
}

/// Has the system give this process no huge pages, which the allocator asks for: as long as anything of
/// one is used, all of it is kept. A sequencer's memory is used by many threads, each for a moment.
/// Executors keep theirs: they look up keys all over their memory, for which huge pages are good.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages cannot be turned off: more memory will be kept than used");
    }
}

/// Returns when somebody wants the process to stop: with ctrl-C, or by the end of its standard
/// input if `stop_at_eof`.
pub(super) fn asked_to_stop(
    stop_at_eof: bool,
) -> Result<impl Future<Output = Result<(), Failure>>, Failure> {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let mut waiting = Some(ended);
    if stop_at_eof {
        let ended = waiting.take();
        // Not one of the runtime's threads: it must not hold up the end of the runtime.
        let thread = std::thread::Builder::new().name("stdin".to_owned());
        let read = move || {
            // An error is an end, too.
            std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
            drop(ended);
        };
        thread.spawn(read).context("the system gives no thread")?;
    }
    Ok(async move {
        let _waiting = waiting;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result.map_err(failed),
            _ = end => Ok(()),
        }
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_sequencer_has_no_huge_pages() {
        without_huge_pages();
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
    }
}
