//! One round against one server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, TxKind, U256, hex, keccak256};
use bytes::Bytes;
use hdrhistogram::Histogram;
use parsec_bench::account::Account;
use rayon::prelude::*;
use secp256k1::SecretKey;
use serde_json::{Value, json};

use crate::connection::{Connection, result};
use crate::{AnyError, FUNDER, Options};

/// Gas of a transfer of Ether.
const TRANSFER_GAS: u64 = 21_000;
/// The most that is offered for a unit of gas, wei. Base fees rise where blocks are full.
const FEE_MAX: u128 = 100_000_000_000;
/// What an account gets for each transfer that it makes, wei.
const FUNDS_EACH: u128 = 2 * (TRANSFER_GAS as u128) * FEE_MAX;
/// How long to wait between two questions whether all is executed.
const POLL: Duration = Duration::from_millis(5);
/// After this long without the end it is no measurement.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one connection sends.
struct Share {
    /// Bodies of requests.
    requests: Vec<Bytes>,
    /// The hash of the last transaction of each account.
    lasts: Vec<String>,
    /// The hashes of all.
    hashes: Vec<String>,
}

/// A round that can start.
pub(crate) struct Round {
    address: SocketAddr,
    transactions: u64,
    shares: Vec<Share>,
    is_batch: bool,
}

/// What a round showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Transactions answered a second, from the first request to the last answer.
    accepted: f64,
    /// Transactions executed a second, from the first request to the last receipt.
    executed: f64,
    /// Median and 99th percentile of the time to an answer, milliseconds.
    answer: [f64; 2],
}

impl Figures {
    /// The medians, one by one.
    pub(crate) fn median(rounds: Vec<Self>) -> Self {
        let median = |pick: fn(&Self) -> f64| {
            let mut all: Vec<_> = rounds.iter().map(pick).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        Self {
            accepted: median(|figures| figures.accepted),
            executed: median(|figures| figures.executed),
            answer: [median(|figures| figures.answer[0]), median(|figures| figures.answer[1])],
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { accepted, executed, answer: [p50, p99] } = self;
        write!(
            f,
            "{accepted:.0} a second accepted, {executed:.0} executed; \
             an answer takes {p50:.2} ms (p99 {p99:.2})"
        )
    }
}

impl Round {
    /// Funds the accounts, and signs what they will send.
    pub(crate) async fn prepare(
        options: &Options,
        address: SocketAddr,
        number: u64,
    ) -> Result<Self, AnyError> {
        let mut connection = Connection::open(address).await?;
        let chain_id = quantity(&connection.call("eth_chainId", json!([])).await?)?;
        let each = options.transactions.div_ceil(options.accounts);
        let seed = options.seed + number;
        let account = |index| Account::derive(seed, "jsonrpc", index);
        let accounts: Vec<_> = (0..options.accounts).into_par_iter().map(account).collect();
        fund(&mut connection, chain_id, &accounts, U256::from(FUNDS_EACH) * U256::from(each))
            .await?;
        // Not 0 if they were used before.
        let counts = accounts.iter().map(|account| json!([account.address(), "latest"]));
        let counts = connection.call_all("eth_getTransactionCount", counts).await?;
        let nonces = counts.iter().map(quantity).collect::<Result<Vec<_>, _>>()?;
        let sign = |(account, first): (&Account, &u64)| -> Vec<Vec<u8>> {
            // Some that others don't touch.
            let to = Address::from_word(keccak256(account.address()));
            let transfer = |nonce| transfer(chain_id, nonce, to, U256::ONE);
            (*first..first + each).map(|nonce| account.sign(transfer(nonce))).collect()
        };
        let signed: Vec<_> = accounts.par_iter().zip(&nonces).map(sign).collect();
        let per_connection = signed.len().div_ceil(options.connections);
        let shares = signed.chunks(per_connection).map(|part| share(part, options.batch)).collect();
        let transactions = each * options.accounts;
        Ok(Self { address, transactions, shares, is_batch: options.batch > 1 })
    }

    /// Sends everything and waits until all of it is executed.
    pub(crate) async fn run(self) -> Result<Figures, AnyError> {
        let mut connections = Vec::new();
        for _ in &self.shares {
            connections.push(Connection::open(self.address).await?);
        }
        let started = Instant::now();
        let mut tasks = Vec::new();
        for (share, connection) in self.shares.into_iter().zip(connections) {
            tasks.push(tokio::spawn(share.send(connection, self.is_batch)));
        }
        let mut answers = Histogram::<u64>::new(3)?;
        let (mut accepted, mut sent) = (Duration::ZERO, Vec::new());
        for task in tasks {
            let (histogram, ended, connection, share) = task.await??;
            answers.add(histogram)?;
            accepted = accepted.max(ended.duration_since(started));
            sent.push((connection, share));
        }
        for (connection, share) in &mut sent {
            until_executed(connection, &share.lasts).await?;
        }
        let executed = started.elapsed();
        for (connection, share) in &mut sent {
            check(connection, &share.hashes).await?;
        }
        let rate = |time: Duration| self.transactions as f64 / time.as_secs_f64();
        let millis = |quantile| answers.value_at_quantile(quantile) as f64 / 1e3;
        let answer = [millis(0.5), millis(0.99)];
        Ok(Figures { accepted: rate(accepted), executed: rate(executed), answer })
    }
}

impl Share {
    async fn send(
        self,
        mut connection: Connection,
        is_batch: bool,
    ) -> Result<(Histogram<u64>, Instant, Connection, Self), AnyError> {
        let mut times = Histogram::new(3)?;
        for body in &self.requests {
            let sent = Instant::now();
            let answer = connection.post(body.clone()).await?;
            times.record(u64::try_from(sent.elapsed().as_micros())?)?;
            let answers = match is_batch {
                true => serde_json::from_slice(&answer)?,
                false => vec![serde_json::from_slice(&answer)?],
            };
            for answer in answers {
                result(answer)?;
            }
        }
        Ok((times, Instant::now(), connection, self))
    }
}

fn transfer(chain_id: u64, nonce: u64, to: Address, value: U256) -> TxEip1559 {
    TxEip1559 {
        chain_id,
        nonce,
        gas_limit: TRANSFER_GAS,
        max_fee_per_gas: FEE_MAX,
        to: TxKind::Call(to),
        value,
        ..TxEip1559::default()
    }
}

/// The requests with the transactions of some accounts: those of an account in their order, the
/// accounts in turn.
fn share(signed: &[Vec<Vec<u8>>], batch: usize) -> Share {
    let each = signed.first().map_or(0, Vec::len);
    let raw: Vec<_> = (0..each).flat_map(|nonce| signed.iter().map(move |of| &of[nonce])).collect();
    let hash = |raw: &Vec<u8>| keccak256(raw).to_string();
    let request = |raw: &Vec<u8>| -> Value {
        let params = [hex::encode_prefixed(raw)];
        json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": params })
    };
    let body = |part: &[&Vec<u8>]| {
        let requests = Value::Array(part.iter().map(|raw| request(raw)).collect());
        let body = match batch {
            1 => requests[0].to_string(),
            _ => requests.to_string(),
        };
        Bytes::from(body)
    };
    Share {
        requests: raw.chunks(batch).map(body).collect(),
        lasts: signed.iter().filter_map(|of| of.last()).map(hash).collect(),
        hashes: raw.iter().map(|raw| hash(raw)).collect(),
    }
}

/// Pays each account its funds.
async fn fund(
    connection: &mut Connection,
    chain_id: u64,
    accounts: &[Account],
    funds: U256,
) -> Result<(), AnyError> {
    let funder = Account::new(FUNDER.parse::<SecretKey>()?);
    let count = json!([funder.address(), "latest"]);
    let nonce = quantity(&connection.call("eth_getTransactionCount", count).await?)?;
    let payments: Vec<_> = (nonce..)
        .zip(accounts)
        .map(|(nonce, account)| funder.sign(transfer(chain_id, nonce, account.address(), funds)))
        .collect();
    // One by one: anvil takes a batch in any order, and forgets to mine what came too early.
    for raw in &payments {
        connection.call("eth_sendRawTransaction", json!([hex::encode_prefixed(raw)])).await?;
    }
    let hashes: Vec<_> = payments.iter().map(|raw| keccak256(raw).to_string()).collect();
    until_executed(connection, &hashes).await?;
    check(connection, &hashes).await
}

async fn receipts(connection: &mut Connection, hashes: &[String]) -> Result<Vec<Value>, AnyError> {
    connection.call_all("eth_getTransactionReceipt", hashes.iter().map(|hash| json!([hash]))).await
}

/// Returns when each of the transactions has a receipt.
async fn until_executed(connection: &mut Connection, hashes: &[String]) -> Result<(), AnyError> {
    let deadline = Instant::now() + PATIENCE;
    let mut open = hashes;
    while let Some(last) = open.last() {
        let params = json!([last]);
        match connection.call("eth_getTransactionReceipt", params).await? {
            Value::Null if Instant::now() > deadline => {
                return Err(format!("{last} has no receipt after {PATIENCE:?}").into());
            }
            Value::Null => tokio::time::sleep(POLL).await,
            _ => open = &open[..open.len() - 1],
        }
    }
    Ok(())
}

/// Looks at every receipt.
async fn check(connection: &mut Connection, hashes: &[String]) -> Result<(), AnyError> {
    for (hash, receipt) in hashes.iter().zip(receipts(connection, hashes).await?) {
        if receipt["status"] != "0x1" {
            return Err(format!("{hash} did not succeed: {receipt}").into());
        }
    }
    Ok(())
}

fn quantity(value: &Value) -> Result<u64, AnyError> {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    let digits = digits.ok_or_else(|| format!("no quantity: {value}"))?;
    Ok(u64::from_str_radix(digits, 16)?)
}
