//! `parsec node`: runs a node of a cluster, or several.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{NodeConfig, RoleName};
use crate::failure::{Context, Failure, failed};
use crate::node::{self, Node};
use crate::telemetry;

/// Runs the nodes that `files` configure until ctrl-C, or until one of them must not go on; also
/// until standard input ends, if `stop_at_eof`.
///
/// # Errors
/// What is wrong with the files, or why a node stopped of itself.
pub async fn node(files: &[PathBuf], stop_at_eof: bool) -> Result<(), Failure> {
    let asked = asked_to_stop(stop_at_eof)?;
    let configs: Vec<_> =
        files.iter().map(|file| NodeConfig::load(file)).collect::<Result<_, _>>()?;
    if let Some(address) = metrics_of(&configs)? {
        telemetry::serve_metrics(address)?;
    }
    if configs.iter().all(|config| config.role == RoleName::Sequencer) {
        without_huge_pages();
    }
    let nodes = node::run(&configs).await?;
    for (config, node) in configs.iter().zip(&nodes) {
        match node {
            Node::Sequencer(_, clients) => {
                eprintln!("node {} orders transactions; clients connect to {clients}", config.node);
            }
            Node::Executor(_) => eprintln!("node {} executes transactions", config.node),
        }
    }
    let stopped = tokio::select! {
        reason = node::stopped(&nodes) => Some(reason),
        result = asked => { result?; None }
    };
    let mut end = stopped.map_or(Ok(()), Err);
    for node in nodes {
        // The first reason is why the others were stopped.
        end = end.and(node.shutdown().await);
    }
    end
}

/// Where the metrics of a process with these nodes are served.
fn metrics_of(configs: &[NodeConfig]) -> Result<Option<SocketAddr>, Failure> {
    let mut addresses = configs.iter().filter_map(|config| config.metrics);
    match (addresses.next(), addresses.next()) {
        (Some(one), Some(other)) => Err(failed(format!(
            "metrics are those of a process: give one of its nodes an address, not {one} and {other}"
        ))),
        (address, _) => Ok(address),
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

    #[test]
    fn metrics_have_one_address() {
        let config = |metrics: &str| {
            let text = format!(
                "node = 0\nrole = \"sequencer\"\ndata = \"data\"\nclients = \"127.0.0.1:7100\"\n\
                 {metrics}\ntls.development = \"certs\"\n\
                 nodes = [{{ node = 0, address = \"127.0.0.1:7000\" }},\
                 {{ node = 1, address = \"127.0.0.1:7001\", partitions = [0] }}]"
            );
            NodeConfig::parse(&text).unwrap()
        };
        let with = config("metrics = \"127.0.0.1:9100\"");
        let address = metrics_of(&[config(""), with.clone()]).unwrap();
        assert_eq!(address, Some("127.0.0.1:9100".parse().unwrap()));
        assert_eq!(metrics_of(&[config("")]).unwrap(), None);
        let failure = metrics_of(&[with.clone(), with]).unwrap_err().to_string();
        assert!(failure.contains("127.0.0.1:9100 and 127.0.0.1:9100"), "{failure}");
    }
}
