//! The arguments of `parsec bench model`.

#![allow(clippy::float_arithmetic, reason = "cores, bandwidths and times of a model")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Tokens that stand for many.
const MANY_TOKENS: u32 = 100;

/// Options of `parsec bench model`.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// The measured run from which costs are taken: its directory, or its run.json. Best is one of
    /// `parsec bench scale` with several numbers of hosts and shares.
    #[arg(long, value_name = "RUN")]
    pub from: PathBuf,
    /// Numbers of hosts to predict.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256,512,1024",
        value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub hosts: Vec<u16>,
    /// Numbers of tokens, if the workload has any: one, many (100), or a number.
    #[arg(long, value_delimiter = ',', default_value = "one,many", value_parser = parse_tokens,
        help_heading = "Workload")]
    pub tokens: Vec<u32>,
    /// Accounts: made more where tokens or partitions need a multiple.
    #[arg(long, default_value_t = 20_000, help_heading = "Workload",
        value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    pub accounts: u32,
    /// Shares of transactions that touch several partitions, 0 to 1. By default as accounts happen
    /// to lie.
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = parse_share,
        help_heading = "Workload")]
    pub multi_partition: Vec<f64>,
    /// Most transactions in flight for each host.
    #[arg(long, default_value_t = 400, help_heading = "Workload",
        value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub in_flight: u32,
    /// Most transactions in flight in all.
    #[arg(long, default_value_t = 16_384, help_heading = "Workload",
        value_parser = clap::value_parser!(u32).range(64..=65_536))]
    pub in_flight_max: u32,
    /// Most transactions in one submission.
    #[arg(long, default_value_t = 250, help_heading = "Workload",
        value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub batch: u32,
    /// Cores of each host, such as 0.08. By default the quota of the run, or 1.
    #[arg(long, value_parser = parse_cores, help_heading = "Cluster")]
    pub cores_per_host: Option<f64>,
    /// Cores of the sequencer.
    #[arg(long, default_value = "1", value_parser = parse_cores, help_heading = "Cluster")]
    pub sequencer_cores: f64,
    /// Partitions on each host. By default as in the run.
    #[arg(long, help_heading = "Cluster", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub partitions: Option<u16>,
    /// Threads that execute the transactions of one partition. By default as in the run.
    #[arg(long, help_heading = "Cluster", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Option<u16>,
    /// Bandwidth of each node's link, each way, Gbit/s.
    #[arg(long, default_value = "10", value_parser = parse_cores, help_heading = "Cluster")]
    pub link_gbit: f64,
    /// How long a message is on its way, beside its bits.
    #[arg(long, default_value = "0.5ms", value_parser = parse_time, help_heading = "Cluster")]
    pub link_latency: Duration,
    /// How long the log's device takes for a sync, in the run, too: a run does not say it.
    #[arg(long, default_value = "2ms", value_parser = parse_time, help_heading = "Cluster")]
    pub sync: Duration,
    /// Leave out what is not built: admission at gateways.
    #[arg(long, help_heading = "Cluster")]
    pub as_built: bool,
    /// The directory for model.json, and the run's report with the model's points in it.
    #[arg(long, help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Print all of it as JSON.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

fn parse_tokens(text: &str) -> Result<u32, String> {
    match text {
        "one" => Ok(1),
        "many" => Ok(MANY_TOKENS),
        number => {
            let tokens = number.parse().ok().filter(|tokens| (1..=10_000).contains(tokens));
            tokens.ok_or_else(|| "tokens are one, many, or a number up to 10000".to_owned())
        }
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is not a share of 0 to 1"))
}

fn parse_cores(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.001..=1_000.0).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a number of 0.001 to 1000"))
}

/// Reads `0.5ms`, `50us` or `1s`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)];
    let read = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        Some(number * seconds)
    });
    let read = read.filter(|seconds| (0.0..=10.0).contains(seconds));
    read.map(Duration::from_secs_f64).ok_or_else(|| format!("{text:?} is not a time such as 0.5ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_shares_and_times_are_read() {
        assert_eq!((parse_tokens("one"), parse_tokens("many")), (Ok(1), Ok(100)));
        assert_eq!(parse_tokens("7"), Ok(7));
        assert!(parse_tokens("0").is_err() && parse_tokens("x").is_err());
        assert_eq!(parse_share("0.1"), Ok(0.1));
        assert!(parse_share("1.1").is_err() && parse_share("NaN").is_err());
        for (text, micros) in [("0.5ms", 500), ("50us", 50), ("1s", 1_000_000)] {
            assert_eq!(parse_time(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        assert!(parse_time("5").is_err() && parse_time("-1ms").is_err());
        assert!(parse_cores("0").is_err() && parse_cores("inf").is_err());
        assert_eq!(parse_cores("0.08"), Ok(0.08));
    }
}
