//! The handle that applications hold.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parsec_protocol::epoch::EpochNumber;
use parsec_protocol::limits::READ_KEYS_MAX;
use parsec_protocol::message::{ClusterStatus, ReadAt, Welcome};
use parsec_protocol::transport::tls::{CLUSTER_NAME, Trust};
use parsec_protocol::transport::{ClientDialer, DialOptions, ServerConnection};
use parsec_protocol::{ErrorCode, Key, Receipt, RuntimeId, Transaction, TxId, Value};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::driver::{Command, Driver};
use crate::error::Error;
use crate::pending::{Answer, Ask, Question, Sink};
use crate::submission::Submission;

/// Commands that may wait for the client's task; each holds at most one submission.
const COMMANDS_MAX: usize = 256;

/// How a client finds its servers, and how long it tries.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Addresses of servers, in the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    /// The CA that issued the servers' certificates.
    pub trust: Trust,
    /// The name that a server's certificate must be valid for. By default [`CLUSTER_NAME`], which
    /// all nodes of a cluster have.
    pub server_name: String,
    /// How long a request may take, over all attempts. After it, the result is
    /// [`Error::Unknown`] or [`Error::NotSent`].
    pub deadline: Duration,
    /// Whether transactions that are rejected because the cluster is busy are submitted again
    /// after the time that it hints at, until their deadline.
    pub retry_busy: bool,
    /// Most transactions that are kept until they have a result.
    pub pending_max: usize,
    /// The first pause after a connection broke; each following one is twice as long.
    pub backoff_min: Duration,
    /// The longest pause between attempts to connect.
    pub backoff_max: Duration,
    /// Limits and times of connections.
    pub dial: DialOptions,
}

impl ClientConfig {
    /// A configuration with default limits: a minute for a request, busy ones retried, 65,536
    /// transactions at a time.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>, trust: Trust) -> Self {
        Self {
            addresses,
            trust,
            server_name: CLUSTER_NAME.to_owned(),
            deadline: Duration::from_secs(60),
            retry_busy: true,
            pending_max: 65_536,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            dial: DialOptions::default(),
        }
    }
}

/// A client of a cluster. Cloning is cheap; clones share one connection, which closes when all of
/// them are dropped and everything that was submitted has a result.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    welcome: watch::Receiver<Welcome>,
    transactions: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    pending_max: u32,
    deadline: Duration,
}

impl Client {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// [`Error::NoAddress`] and [`Error::Unreachable`].
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let dialer = ClientDialer::new(config.trust.clone(), config.dial);
        let (connection, next_address) = first_connection(&dialer, &config).await?;
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (announce, welcome) = watch::channel(connection.welcome.clone());
        let pending_max = u32::try_from(config.pending_max.max(1)).unwrap_or(u32::MAX >> 3);
        let deadline = config.deadline;
        let driver = Driver::new(config, dialer, next_address, received, announce);
        tokio::spawn(driver.run(connection));
        let transactions = Arc::new(Semaphore::new(pending_max as usize));
        let questions = Arc::new(Semaphore::new(COMMANDS_MAX));
        Ok(Self { commands, welcome, transactions, questions, pending_max, deadline })
    }

    /// Hands transactions over, in their order; waits while there is no room for so many.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn submit(&self, transactions: Vec<Transaction>) -> Result<Submission, Error> {
        self.submit_with(transactions, None).await
    }

    /// As [`submit`](Self::submit); also tells when transactions are accepted, with their indexes
    /// and ids. What is not accepted has its rejection as its result.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn submit_watched(
        &self,
        transactions: Vec<Transaction>,
    ) -> Result<(Submission, mpsc::Receiver<(usize, TxId)>), Error> {
        let (accepted, acceptances) = mpsc::channel(transactions.len().max(1));
        let submission = self.submit_with(transactions, Some(accepted)).await?;
        Ok((submission, acceptances))
    }

    async fn submit_with(
        &self,
        transactions: Vec<Transaction>,
        accepted: Option<mpsc::Sender<(usize, TxId)>>,
    ) -> Result<Submission, Error> {
        let count = transactions.len();
        let needed = u32::try_from(count).unwrap_or(u32::MAX).min(self.pending_max);
        let room = self.transactions.clone().acquire_many_owned(needed).await;
        let room = room.map_err(|_| Error::Stopped)?;
        let (results, received) = mpsc::channel(count.max(1));
        let sink = Sink::new(results, room);
        let sink = Arc::new(match accepted {
            Some(accepted) => sink.telling(accepted),
            None => sink,
        });
        let deadline = Instant::now() + self.deadline;
        let command = Command::Submit { transactions, sink, deadline };
        self.commands.send(command).await.map_err(|_| Error::Stopped)?;
        Ok(Submission::new(received, count))
    }

    /// Hands one transaction over and waits for its receipt.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`], [`Error::Unknown`] and [`Error::Stopped`].
    pub async fn submit_one(&self, transaction: Transaction) -> Result<Receipt, Error> {
        let mut submission = self.submit(vec![transaction]).await?;
        submission.next().await.map_or(Err(Error::Stopped), |(_, result)| result)
    }

    /// Reads keys as of one epoch, however many there are.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::NotSent`] if there was no answer in time, and
    /// [`Error::Stopped`].
    pub async fn read(
        &self,
        keys: &[Key],
        at: ReadAt,
    ) -> Result<(EpochNumber, Vec<Option<Value>>), Error> {
        let (first, rest) = keys.split_at(keys.len().min(READ_KEYS_MAX));
        let (epoch, mut values) = self.read_some(first, at).await?;
        for keys in rest.chunks(READ_KEYS_MAX) {
            values.extend(self.read_some(keys, ReadAt::Epoch(epoch)).await?.1);
        }
        Ok((epoch, values))
    }

    async fn read_some(
        &self,
        keys: &[Key],
        at: ReadAt,
    ) -> Result<(EpochNumber, Vec<Option<Value>>), Error> {
        match self.ask(Question::Read { at, keys: keys.to_vec() }).await? {
            Answer::Values { epoch, values } => Ok((epoch, values)),
            _ => Err(Error::Stopped),
        }
    }

    /// Asks how the cluster is.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        match self.ask(Question::Status).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(Error::Stopped),
        }
    }

    /// Ethereum blocks from number `from` on, at most `limit`, each in the encoding of the crate
    /// `parsec-ethereum`. Where there is none yet, it waits a while for the first, and then
    /// returns nothing.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn blocks(&self, from: u64, limit: u32) -> Result<Vec<Bytes>, Error> {
        let mut piece = Vec::new();
        loop {
            let offset = piece.len() as u64;
            let Answer::Blocks { blocks, cut } =
                self.ask(Question::Blocks { from, offset, limit }).await?
            else {
                return Err(Error::Stopped);
            };
            let Some(length) = cut else { return Ok(blocks) };
            let more = blocks.into_iter().next().unwrap_or_default();
            if more.is_empty() {
                let detail = format!("block {from} has no byte {offset}");
                return Err(Error::Failed { code: ErrorCode::Unavailable, detail });
            }
            piece.extend_from_slice(&more);
            if piece.len() as u64 >= length {
                return Ok(vec![piece.into()]);
            }
        }
    }

    /// Asks a runtime what it says of the state after an epoch, in the runtime's own encoding.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn query(
        &self,
        runtime: RuntimeId,
        at: EpochNumber,
        question: Bytes,
    ) -> Result<Bytes, Error> {
        match self.ask(Question::Query { runtime, at, question }).await? {
            Answer::Told(answer) => Ok(answer),
            _ => Err(Error::Stopped),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, Error> {
        let room = self.questions.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask { question, reply, deadline: Instant::now() + self.deadline };
        self.commands.send(Command::Ask(ask)).await.map_err(|_| Error::Stopped)?;
        let answer = answer.await.map_err(|_| Error::Stopped)?;
        drop(room);
        answer
    }

    /// What the server said first, on the present connection or the last one.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        self.welcome.borrow().clone()
    }
}

/// Tries each address once. Also returns the index of the address to try next.
async fn first_connection(
    dialer: &ClientDialer,
    config: &ClientConfig,
) -> Result<(ServerConnection, usize), Error> {
    let mut failures = Vec::new();
    for (index, address) in config.addresses.iter().enumerate() {
        match dialer.connect(*address, &config.server_name).await {
            Ok(connection) => return Ok((connection, index + 1)),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    match failures.is_empty() {
        true => Err(Error::NoAddress),
        false => Err(Error::Unreachable { detail: failures.join("; ") }),
    }
}
