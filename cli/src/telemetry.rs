//! Logs and metrics of a process.

use std::net::SocketAddr;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

use crate::failure::{Context, Failure};

/// Buckets of latencies, seconds: 10 µs to 10 s, about two to a factor of three.
const LATENCY_BUCKETS: [f64; 13] =
    [0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Starts logging to standard error: warnings by default, else what `PARSEC_LOG` says (as
/// `parsec_executor=debug,info`).
pub fn start_logs() {
    let filter = EnvFilter::try_from_env("PARSEC_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Serves the metrics of this process to Prometheus, over HTTP at `address`. Must be called within
/// a tokio runtime.
///
/// # Errors
/// If the address can't be listened on.
pub fn serve_metrics(address: SocketAddr) -> Result<(), Failure> {
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &LATENCY_BUCKETS)
        .context("metrics")?
        .install()
        .context(format!("can't serve metrics at {address}"))
}
