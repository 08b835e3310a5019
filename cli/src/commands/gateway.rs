//! `parsec gateway`: shows a cluster to Ethereum's tools.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use parsec_client::ClientConfig;
use parsec_gateway::cluster::{Cluster, ClusterError, Follower};
use parsec_gateway::{Auth, Gateway, GatewayConfig, Methods};

use crate::args::{GatewayArgs, RpcArgs};
use crate::commands::status::client_config;
use crate::failure::{Context, Failure, failed};
use crate::telemetry;

/// Follows a cluster and answers JSON-RPC, until ctrl-C, or until the cluster's blocks can't be
/// followed any more.
///
/// # Errors
/// If the cluster can't be reached, or the address can't be listened on; why following ended.
pub async fn gateway(args: GatewayArgs) -> Result<(), Failure> {
    if let Some(address) = args.metrics {
        telemetry::serve_metrics(address)?;
    }
    let config = client_config(&args.connect)?;
    let (gateway, follower) = start(config, &args.data, &args.rpc).await?;
    eprintln!("Ethereum JSON-RPC over HTTP and WebSocket on {}", gateway.address());
    let ended = tokio::select! {
        ended = follower.run() => Err(failed(why(ended))),
        result = tokio::signal::ctrl_c() => result.map_err(failed),
    };
    gateway.stop().await;
    ended
}

/// Starts a gateway to a cluster, with the index of blocks in `data`. Nothing is followed before
/// the follower runs.
///
/// # Errors
/// If the cluster can't be reached, the index can't be used, or the address can't be listened on.
pub async fn start(
    config: ClientConfig,
    data: &Path,
    rpc: &RpcArgs,
) -> Result<(Gateway, Follower), Failure> {
    let connected = Cluster::connect(config, data).await;
    let (cluster, follower) = connected.context("the gateway can't follow the cluster")?;
    let chain = cluster.chain().clone();
    let started = Gateway::start(configured(rpc)?, chain, Arc::new(cluster), Methods::new());
    let gateway = started.await.context(format!("can't listen on {}", rpc.listen))?;
    Ok((gateway, follower))
}

fn why(ended: Result<Infallible, ClusterError>) -> ClusterError {
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// What the command line says of the server.
pub(super) fn configured(args: &RpcArgs) -> Result<GatewayConfig, Failure> {
    let mut config = GatewayConfig::new(args.listen);
    if !args.origins.is_empty() {
        config.origins.clone_from(&args.origins);
    }
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map(|text| text.trim().to_owned()).context(format!("can't read {}", path.display()))
    };
    config.auth = match (&args.token, &args.jwt_secret) {
        (Some(path), _) => Some(Auth::Token(read(path)?)),
        (None, Some(path)) => {
            let secret = hex::decode(read(path)?.trim_start_matches("0x"));
            let secret = secret.context(format!("{} is no hex", path.display()))?;
            Some(Auth::Jwt(secret))
        }
        (None, None) => None,
    };
    Ok(config)
}
