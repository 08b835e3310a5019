//! The arguments of `parsec bench scale` and of the commands that it uses.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::bench::KnobArgs;
use crate::processes::quota::CpuShare;
use crate::processes::relay::Link;

/// Options of `parsec bench scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// Numbers of hosts to measure.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16",
        value_parser = clap::value_parser!(u16).range(1..=250))]
    pub hosts: Vec<u16>,
    /// How often each is measured, on a new cluster each time; in turns, forth and back.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
    /// What is sent. Accounts are made more if the partitions need a multiple.
    #[command(flatten)]
    pub knobs: KnobArgs,
    /// Shares of transactions that touch several partitions, 0 to 1. By default 0,0.1,1, if the
    /// workload can choose them.
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = parse_share,
        help_heading = "Workload")]
    pub multi_partition: Vec<u8>,
    /// How many partitions those touch.
    #[arg(long, default_value_t = 2, help_heading = "Workload",
        value_parser = clap::value_parser!(u16).range(2..))]
    pub participants: u16,
    /// How the hosts are.
    #[command(flatten)]
    pub sites: SiteArgs,
    /// How long each point is measured, seconds.
    #[arg(long, default_value_t = 5, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// How long a load runs before that, seconds. Not counted.
    #[arg(long, default_value_t = 3, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(0..=3_600))]
    pub warm_up: u32,
    /// Most transactions in flight for each host.
    #[arg(long, default_value_t = 200, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(16..=100_000))]
    pub in_flight: u32,
    /// Client connections.
    #[arg(long, default_value_t = 4, help_heading = "Load",
        value_parser = clap::value_parser!(u32).range(1..=16))]
    pub clients: u32,
    /// The directory for run.json, samples.csv and report.html. By default
    /// bench-results/NAME-TIME.
    #[arg(long, help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// What the run is called. By default after the workload.
    #[arg(long, help_heading = "Output")]
    pub name: Option<String>,
    /// Print the summary as JSON.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Where signed transactions are kept, so that they need not be signed again.
    #[arg(long, default_value = "bench-results/cache", help_heading = "Output")]
    pub cache: PathBuf,
}

/// Where the hosts are, and what each may use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct SiteArgs {
    /// How much of a core each host may use, such as 8%. All there is by default.
    #[arg(long)]
    pub quota: Option<CpuShare>,
    /// How much of a core the sequencer may use. All there is by default.
    #[arg(long)]
    pub sequencer_quota: Option<CpuShare>,
    /// How long each datagram is under way, such as 1ms.
    #[arg(long, value_parser = parse_delay)]
    pub delay: Option<Duration>,
    /// Which share of the datagrams is lost, such as 0.1%.
    #[arg(long, value_parser = parse_loss)]
    pub loss: Option<u32>,
    /// Partitions on each host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Plain processes on loopback, even if namespaces are possible.
    #[arg(long)]
    pub loopback: bool,
    /// Real machines, which this TOML file names: see docs/scaling.md.
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["quota", "sequencer_quota", "delay", "loss", "loopback"])]
    pub hosts_file: Option<PathBuf>,
    /// The program that reaches them.
    #[arg(long, value_name = "PROGRAM", default_value = "ssh", requires = "hosts_file")]
    pub ssh: PathBuf,
}

/// Options of `parsec relay`.
#[derive(Debug, Clone, Args)]
pub struct RelayArgs {
    /// How long each datagram is under way, microseconds.
    #[arg(long, default_value_t = 0)]
    pub delay_us: u64,
    /// How many of a million are lost.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub loss_millionths: u32,
    /// Decides which.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// LISTEN=TARGET, one for each target.
    #[arg(required = true)]
    pub links: Vec<Link>,
}

/// Options of `parsec usage`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// The file with the number of the process.
    #[arg(long)]
    pub process: PathBuf,
    /// The directory of its log, which may be absent.
    #[arg(long)]
    pub log: PathBuf,
}

/// Options of `parsec bench cluster`.
#[derive(Debug, Clone, Args)]
pub struct ClusterFilesArgs {
    /// The machines: see docs/scaling.md.
    #[arg(long)]
    pub hosts_file: PathBuf,
    /// The directory to write to.
    #[arg(long)]
    pub out: PathBuf,
    /// So many of the hosts; all by default.
    #[arg(long)]
    pub hosts: Option<u16>,
    /// Partitions on each host that the file says nothing of.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
}

/// A number with up to so many digits after the point, times ten to the power of them.
fn decimal(text: &str, digits: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > digits {
        return None;
    }
    format!("{whole}{part:0<digits$}").parse().ok()
}

/// Reads a share of 0 to 1 in steps of 0.01, as percent.
fn parse_share(text: &str) -> Result<u8, String> {
    let percent = decimal(text, 2).filter(|percent| *percent <= 100);
    let percent = percent.and_then(|percent| u8::try_from(percent).ok());
    percent.ok_or_else(|| format!("{text:?} is not a share of 0 to 1 in steps of 0.01"))
}

/// Reads `1ms`, `0.25ms`, `500us` or `1s`.
fn parse_delay(text: &str) -> Result<Duration, String> {
    let units = [("ms", 6), ("us", 3), ("s", 9)];
    let read = units.iter().find_map(|(unit, digits)| {
        decimal(text.strip_suffix(unit)?.trim(), *digits).map(Duration::from_nanos)
    });
    let read = read.filter(|delay| *delay <= Duration::from_secs(10));
    read.ok_or_else(|| format!("{text:?} is not a time such as 1ms, 10 s at most"))
}

/// Reads `0.1%` as millionths.
fn parse_loss(text: &str) -> Result<u32, String> {
    let read = text.strip_suffix('%').and_then(|number| decimal(number.trim(), 4));
    // With more than that lost, no connection is ever made.
    let read = read.and_then(|loss| u32::try_from(loss).ok()).filter(|loss| *loss <= 500_000);
    read.ok_or_else(|| format!("{text:?} is not a share such as 0.1%, 50% at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_times_and_losses_are_read() {
        for (text, percent) in [("0", 0), ("0.1", 10), ("1", 100), ("0.25", 25), ("1.00", 100)] {
            assert_eq!(parse_share(text), Ok(percent), "{text}");
        }
        for text in ["", "1.01", "-0.1", "0.001", ".5", "1e0", "50%"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
        for (text, micros) in [("1ms", 1_000), ("500us", 500), ("0.25ms", 250), ("1s", 1_000_000)] {
            assert_eq!(parse_delay(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["1", "ms", "-1ms", "11s", "1 m", "1.5.2ms"] {
            assert!(parse_delay(text).is_err(), "{text}");
        }
        for (text, millionths) in [("0.1%", 1_000), ("5%", 50_000), ("0.0001%", 1), ("0%", 0)] {
            assert_eq!(parse_loss(text), Ok(millionths), "{text}");
        }
        for text in ["0.1", "51%", "%", "-1%", "0.00001%"] {
            assert!(parse_loss(text).is_err(), "{text}");
        }
    }

    #[test]
    fn real_machines_have_no_quotas_and_shares_are_lists() {
        use clap::Parser;

        use crate::args::{Arguments, BenchCommand, Command};

        let parse = |line: &str| {
            let words = ["parsec", "bench", "scale"].into_iter().chain(line.split_whitespace());
            match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
                Ok(Command::Bench(args)) => match args.command {
                    Some(BenchCommand::Scale(args)) => Ok(args),
                    other => panic!("{other:?}"),
                },
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let args = parse("").unwrap();
        assert_eq!((args.hosts, args.repeat), (vec![1, 2, 4, 8, 16], 3));
        let args = parse("--hosts 2,4 --multi-partition 0,0.1,1 --quota 8% --loss 0.1%").unwrap();
        assert_eq!((args.multi_partition, args.sites.loss), (vec![0, 10, 100], Some(1_000)));
        for bad in ["--hosts 0", "--hosts-file f --quota 8%", "--ssh x", "--quota 8", "--repeat 0"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
