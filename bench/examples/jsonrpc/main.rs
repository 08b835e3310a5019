//! How many transactions a JSON-RPC server takes and executes, several servers in turn:
//!
//! ```sh
//! cargo run --release -p parsec-bench --example jsonrpc -- --batch 200 \
//!     parsec=127.0.0.1:8545 anvil=127.0.0.1:8546
//! ```
//!
//! Each server must have the ten accounts of the "test … junk" mnemonic. In every round each gets
//! transfers of Ether that are signed in advance, from accounts of its own that are funded before
//! the clock starts. They are sent with `eth_sendRawTransaction`, as a batch or one by one, over
//! some connections that each wait for an answer before they send again. The clock stops when each
//! server says that every account's last transaction is executed; then, outside of the measurement,
//! every single receipt is looked at.

#![allow(clippy::float_arithmetic, reason = "it reports measurements")]

mod connection;
mod round;

use std::net::SocketAddr;

use self::round::{Figures, Round};

/// The secret key of the first account of the mnemonic that Ethereum's tools know.
const FUNDER: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

const USAGE: &str = "usage: jsonrpc [--transactions N] [--accounts N] [--batch N] \
    [--connections N] [--rounds N] [--seed N] NAME=HOST:PORT…";

/// What is measured.
#[derive(Debug, Clone)]
struct Options {
    transactions: u64,
    accounts: u64,
    batch: usize,
    connections: usize,
    rounds: u64,
    seed: u64,
    servers: Vec<(String, SocketAddr)>,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn options() -> Result<Options, AnyError> {
    let mut options = Options {
        transactions: 10_000,
        accounts: 100,
        batch: 1,
        connections: 4,
        rounds: 3,
        seed: 1,
        servers: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else {
            let (name, address) = word.split_once('=').ok_or(USAGE)?;
            options.servers.push((name.to_owned(), address.parse()?));
            continue;
        };
        let value: u64 = words.next().ok_or(USAGE)?.parse()?;
        match name {
            "transactions" => options.transactions = value,
            "accounts" => options.accounts = value.max(1),
            "batch" => options.batch = usize::try_from(value.max(1))?,
            "connections" => options.connections = usize::try_from(value.max(1))?,
            "rounds" => options.rounds = value,
            "seed" => options.seed = value,
            _ => return Err(USAGE.into()),
        }
    }
    match options.servers.is_empty() || options.rounds == 0 {
        true => Err(USAGE.into()),
        false => Ok(options),
    }
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let options = options()?;
    println!(
        "{} transfers a round from {} accounts, {} in a request, {} connections, {} rounds",
        options.transactions, options.accounts, options.batch, options.connections, options.rounds
    );
    let mut all = vec![Vec::new(); options.servers.len()];
    for number in 0..options.rounds {
        for (index, (name, address)) in options.servers.iter().enumerate() {
            let figures = Round::prepare(&options, *address, number).await?.run().await?;
            println!("  {name}: {figures}");
            all[index].push(figures);
        }
    }
    for ((name, _), rounds) in options.servers.iter().zip(all) {
        println!("{name}: median of {} rounds: {}", rounds.len(), Figures::median(rounds));
    }
    Ok(())
}
