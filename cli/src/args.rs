//! The command line.

mod bench;
mod model;
mod scale;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use parsec_dev::accounts::MNEMONIC;

pub use bench::{
    BenchArgs, BenchCommand, ClusterArgs, CompareArgs, KnobArgs, PaceArgs, PacingName, Rate,
    RunArgs, WorkloadArgs,
};
pub use model::ModelArgs;
pub use scale::{ClusterFilesArgs, RelayArgs, ScaleArgs, SiteArgs, UsageArgs};

/// Executes smart contracts and stored procedures in parallel, on many hosts, with the result
/// that one thread would have produced.
#[derive(Debug, Parser)]
#[command(name = "parsec", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster in this process, load it, and prove the result by a serial replay
    ///
    /// Starts a sequencer and executor hosts that speak QUIC over loopback and keep their data on
    /// disk; deploys an ERC-20 token; measures signed ERC-20 transfers, Lua payments and native
    /// transfers; then replays the recorded order on one thread, and compares all receipts and
    /// the state. The exit code is not 0 if they differ.
    ///
    /// Kill it at any moment and start it again: it goes on from its log, and checks that every
    /// transaction that was acknowledged before is there.
    Demo(DemoArgs),
    /// Measure a cluster under load, verify the result, and write a report
    ///
    /// Starts a cluster, one process for each node, or uses one that is there (--connect). Each
    /// repeat warms up, measures for a fixed time, and is followed by the next; at the end the
    /// workload's invariants are checked, and that one thread makes the same receipts and the same
    /// state of the recorded order. What is not verified is marked so, and the exit code is not 0.
    /// See docs/bench.md.
    Bench(Box<BenchArgs>),
    /// Run a development chain with Ethereum's JSON-RPC: instant blocks, known accounts
    ///
    /// One thread, nothing on disk that outlives it, and the methods of anvil and Hardhat: time
    /// and state can be set, accounts impersonated, everything taken back to a snapshot. Runs
    /// until ctrl-C.
    Dev(DevArgs),
    /// Run a node of a cluster, as its TOML file says; or several in one process
    ///
    /// See docs/cluster.md for a cluster of several processes. Nodes of one process hand messages
    /// to each other without a network. They run until ctrl-C, or until something is wrong with
    /// one of them that it must not go on from.
    Node {
        /// The configuration file of each node.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Stop when standard input ends, as it does when the program that gives it dies.
        #[arg(long)]
        stop_at_eof: bool,
    },
    /// Answer Ethereum's tools: JSON-RPC over HTTP and WebSocket, from a cluster
    ///
    /// Follows the cluster's blocks into an index of its own, which any gateway builds the same; so
    /// there may be any number of them. See docs/json-rpc.md.
    Gateway(GatewayArgs),
    /// Show how a cluster is: its epochs, partitions and digests
    Status {
        /// How to reach it.
        #[command(flatten)]
        connect: ConnectArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Submit one transaction and print its receipt
    Submit {
        /// How to reach the cluster.
        #[command(flatten)]
        connect: ConnectArgs,
        /// The last epoch in which it may run.
        #[arg(long)]
        expires: Option<u64>,
        /// Makes it another transaction than an equal one that was submitted before; with the same
        /// number it is the same one, and is not executed again. Random by default.
        #[arg(long)]
        salt: Option<u128>,
        /// What to submit.
        #[command(subcommand)]
        what: SubmitCommand,
    },
    /// Execute a recorded log again and print what it leads to
    ///
    /// On one thread by default, which is the oracle that every parallel run must agree with; or,
    /// with --partitions, on an embedded cluster of executors, which is then compared with it.
    Replay(ReplayArgs),
    /// Make the certificates of a cluster: a CA, and one certificate for each node
    ///
    /// Give each host its own node-N directory and ca/ca.pem; keep ca/ca.key to yourself.
    Certs {
        /// The directory to make them in.
        #[arg(long, default_value = "certs")]
        out: PathBuf,
        /// How many nodes: 0 to N - 1.
        #[arg(long)]
        nodes: u16,
        /// A DNS name or an IP address by which clients reach the nodes; may be repeated.
        #[arg(long = "name", default_values = ["localhost", "127.0.0.1", "::1"])]
        names: Vec<String>,
    },
    /// Carry datagrams with delay and loss: the network of a benchmark
    #[command(hide = true)]
    Relay(RelayArgs),
    /// Say what a process uses, once for each line of standard input
    #[command(hide = true)]
    Usage(UsageArgs),
}

/// Options of `parsec demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Where the cluster keeps its data. What is there already is gone on from.
    #[arg(long, default_value = "parsec-demo")]
    pub data: PathBuf,
    /// Executor hosts.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub hosts: u16,
    /// Partitions on each host.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub partitions: u16,
    /// Threads that execute the transactions of one partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// What to run: signed ERC-20 transfers, Lua payments, native transfers.
    #[arg(long, value_delimiter = ',', default_value = "erc20,lua,native")]
    pub workloads: Vec<WorkloadName>,
    /// Transactions of each workload.
    #[arg(long, default_value_t = 50_000)]
    pub transactions: usize,
    /// Accounts of each workload.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..))]
    pub accounts: u32,
    /// Transactions in flight.
    #[arg(long, default_value_t = 2_000)]
    pub in_flight: usize,
    /// Where to listen for clients.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Serve metrics to Prometheus here.
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
    /// Leave the cluster up after the verification, until ctrl-C.
    #[arg(long)]
    pub stay: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Options of `parsec dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// The port to listen at; 0 is any that is free.
    #[arg(short, long, default_value_t = 8545)]
    pub port: u16,
    /// The address to listen at.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Accounts that are funded.
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub accounts: u32,
    /// What each of them owns, in whole ether.
    #[arg(long, default_value_t = 10_000)]
    pub balance: u64,
    /// The mnemonic that their keys follow from.
    #[arg(short, long, default_value = MNEMONIC)]
    pub mnemonic: String,
    /// The chain id.
    #[arg(long, default_value_t = 31_337)]
    pub chain_id: u64,
    /// Make a block every so many seconds, instead of one for each transaction.
    #[arg(short, long, value_parser = parse_seconds)]
    pub block_time: Option<u64>,
    /// Make blocks only when asked to.
    #[arg(long, alias = "no-mine", conflicts_with = "block_time")]
    pub no_mining: bool,
    /// The base fee of the first block, wei; 0 stays, another follows demand.
    #[arg(long, alias = "block-base-fee-per-gas", default_value_t = 1_000_000_000)]
    pub base_fee: u64,
    /// The gas limit of a block.
    #[arg(long, default_value_t = 30_000_000)]
    pub gas_limit: u64,
    /// The rules, by the name of the fork that introduced them.
    #[arg(long, default_value = "Osaka")]
    pub hardfork: String,
    /// The time of the genesis, seconds since 1970; now by default.
    #[arg(long)]
    pub timestamp: Option<u64>,
    /// Longest code of a contract, bytes. There is no limit by default; Ethereum has 24576.
    #[arg(long)]
    pub code_size_limit: Option<u64>,
    /// Have no limit on the length of code, which is the default.
    #[arg(long, conflicts_with = "code_size_limit")]
    pub disable_code_size_limit: bool,
    /// Hold single transactions to the gas that the rules allow one (EIP-7825).
    #[arg(long)]
    pub enable_tx_gas_limit: bool,
    /// Which transactions come first in a block.
    #[arg(long, default_value = "fees")]
    pub order: OrderName,
    /// Send every account's transactions without its signature.
    #[arg(long)]
    pub auto_impersonate: bool,
    /// How many blocks' states are kept.
    #[arg(long, default_value_t = 65_536)]
    pub state_window: u64,
    /// Begin with the genesis of another chain: a JSON file in the format of geth.
    ///
    /// It says what the chain id, the rules and the first gas limit are, and who owns something: no
    /// account is funded beside.
    #[arg(
        long,
        value_name = "GENESIS",
        conflicts_with_all = ["chain_id", "timestamp", "base_fee", "hardfork", "gas_limit"]
    )]
    pub init: Option<PathBuf>,
    /// Import blocks of that chain from a file that holds their RLP, one after the other.
    ///
    /// Each is executed, and must hold what its header says. It is served as it is: with its own
    /// hash, transactions, receipts and state.
    #[arg(long, value_name = "BLOCKS", requires = "init")]
    pub import: Option<PathBuf>,
    /// Take the roots of states as the imported blocks say, which is faster on a large state.
    #[arg(long, requires = "import")]
    pub no_state_roots: bool,
    /// Print nothing.
    #[arg(long, short = 'q', alias = "quiet")]
    pub silent: bool,
}

/// Which transactions come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OrderName {
    /// Those that offer more for each unit of gas.
    Fees,
    /// Those that came first.
    Fifo,
}

/// Reads seconds, with up to three decimals, as milliseconds.
fn parse_seconds(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let millis = format!("{part:0<3}");
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let read = || {
        let whole: u64 = whole.parse().ok()?;
        let millis: u64 = millis.parse().ok()?;
        whole.checked_mul(1_000)?.checked_add(millis).filter(|millis| *millis > 0)
    };
    match millis.len() == 3 && digits(whole) && digits(&millis) {
        true => read().ok_or_else(|| "not a positive number of seconds".to_owned()),
        false => Err("seconds have digits, and up to three after the point".to_owned()),
    }
}

/// A workload of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WorkloadName {
    /// Signed ERC-20 transfers.
    Erc20,
    /// Lua payments.
    Lua,
    /// Native transfers.
    Native,
}

/// How to reach a cluster.
#[derive(Debug, Clone, Args)]
pub struct ConnectArgs {
    /// The address where the sequencer listens for clients.
    #[arg(long, default_value = "127.0.0.1:7100", env = "PARSEC_CONNECT")]
    pub connect: SocketAddr,
    /// The certificate of the cluster's CA.
    #[arg(long, default_value = "parsec-demo/certs/ca/ca.pem", env = "PARSEC_CA")]
    pub ca: PathBuf,
}

/// Options of `parsec gateway`.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// How to reach the cluster.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Where the index of blocks is kept. It is made anew from the cluster if it is absent.
    #[arg(long, default_value = "parsec-gateway")]
    pub data: PathBuf,
    /// How it is asked.
    #[command(flatten)]
    pub rpc: RpcArgs,
    /// Serve metrics to Prometheus here.
    #[arg(long)]
    pub metrics: Option<SocketAddr>,
}

/// How JSON-RPC is served.
#[derive(Debug, Clone, Args)]
pub struct RpcArgs {
    /// Where to listen for HTTP and WebSocket.
    #[arg(long, default_value = "127.0.0.1:8545")]
    pub listen: SocketAddr,
    /// A web page's origin that may ask, or * for all; may be repeated. By default all may on a
    /// loopback address, and none elsewhere.
    #[arg(long = "origin")]
    pub origins: Vec<String>,
    /// A file with a token that clients must show: "Authorization: Bearer TOKEN".
    #[arg(long, conflicts_with = "jwt_secret")]
    pub token: Option<PathBuf>,
    /// A file with a secret, as hex, that clients' JSON web tokens (HS256) must be signed with.
    #[arg(long)]
    pub jwt_secret: Option<PathBuf>,
}

/// Options of `parsec replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A directory with a log, such as parsec-demo/sequencer/log, or one file of it.
    pub path: PathBuf,
    /// Replay also on an embedded cluster with this many partitions, and compare.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub partitions: Option<u16>,
    /// Threads that execute the transactions of one partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to submit.
#[derive(Debug, Clone, Subcommand)]
pub enum SubmitCommand {
    /// A signed Ethereum transaction
    Evm {
        /// Its raw bytes, as hex.
        raw: String,
    },
    /// Set a native key
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Read a native key, in the order of transactions
    Get {
        /// The key.
        key: String,
    },
    /// Add to a native account or counter
    Add {
        /// The account or counter.
        key: String,
        /// What to add; may be negative.
        #[arg(allow_hyphen_values = true)]
        amount: i128,
    },
    /// Transfer between native accounts
    Transfer {
        /// Who pays.
        from: String,
        /// Who is paid.
        to: String,
        /// How much.
        amount: u128,
    },
    /// Deploy a Lua contract; its id is the receipt's output
    LuaDeploy {
        /// The file with its source.
        file: PathBuf,
    },
    /// Call a function of a Lua contract
    LuaCall {
        /// The contract's id, as hex.
        contract: String,
        /// The function.
        function: String,
        /// Arguments: integers as they are, everything else as a string.
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<String>,
        /// The most instructions that it may take.
        #[arg(long, default_value_t = 1_000_000)]
        limit: u64,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn block_times_are_seconds_with_decimals() {
        for (text, millis) in [("1", 1_000), ("0.5", 500), ("12.25", 12_250), ("0.001", 1)] {
            assert_eq!(super::parse_seconds(text), Ok(millis));
        }
        for text in ["0", "0.0", "-1", "x", "1.2345", "", "1e3", "+1"] {
            assert!(super::parse_seconds(text).is_err(), "{text}");
        }
    }
}
