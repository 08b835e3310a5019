//! The task behind a client: carries messages between its state and a connection, and makes the
//! connection again when it breaks.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parsec_protocol::Transaction;
use parsec_protocol::message::{ClientMessage, ServerMessage, Welcome};
use parsec_protocol::transport::{
    ClientDialer, LinkError, ServerConnection, ServerReader, ServerWriter,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::ClientConfig;
use crate::pending::{Ask, Pending, Sink};

/// Messages that wait to be written. Few: what waits longer is sent in larger messages.
const MESSAGES_MAX: usize = 2;

/// What the handles of a client want.
#[derive(Debug)]
pub(crate) enum Command {
    Submit { transactions: Vec<Transaction>, sink: Arc<Sink>, deadline: Instant },
    Ask(Ask),
}

pub(crate) struct Driver {
    config: ClientConfig,
    dialer: ClientDialer,
    next_address: usize,
    commands: mpsc::Receiver<Command>,
    /// Whether all handles are gone.
    deserted: bool,
    welcome: watch::Sender<Welcome>,
    pending: Pending,
    /// The pause before the next connection.
    pause: Duration,
    /// Why the last connection failed or ended.
    reason: String,
}

/// All handles are gone and nothing is pending.
struct Finished;

impl Driver {
    pub(crate) fn new(
        config: ClientConfig,
        dialer: ClientDialer,
        next_address: usize,
        commands: mpsc::Receiver<Command>,
        welcome: watch::Sender<Welcome>,
    ) -> Self {
        let pending = Pending::new(Instant::now(), config.retry_busy);
        Self {
            config,
            dialer,
            next_address,
            commands,
            deserted: false,
            welcome,
            pending,
            pause: Duration::ZERO,
            reason: "the server has not answered".to_owned(),
        }
    }

    /// Runs until all handles are gone and nothing is pending.
    pub(crate) async fn run(mut self, connection: ServerConnection) {
        let mut connection = Some(connection);
        while let Some(current) = connection.take() {
            let began = Instant::now();
            let Err(reason) = self.serve(current).await else { return };
            tracing::info!(%reason, "the connection has ended; connecting again");
            self.reason = reason;
            self.pending.disconnected();
            if began.elapsed() >= self.config.backoff_max {
                self.pause = Duration::ZERO;
            }
            connection = self.connect_again().await.ok();
        }
    }

    /// Serves one connection. Fails with the reason why it is of no more use.
    async fn serve(&mut self, connection: ServerConnection) -> Result<Finished, String> {
        let ServerConnection { welcome, reader, writer } = connection;
        let in_flight_max = usize::try_from(welcome.in_flight_max.max(1)).unwrap_or(usize::MAX);
        self.welcome.send_replace(welcome);
        let (messages, queued) = mpsc::channel(MESSAGES_MAX);
        let writing = tokio::spawn(write(writer.clone(), queued));
        let ended = self.exchange(in_flight_max, reader, &messages).await;
        writer.close("the client is done with this connection");
        writing.abort();
        ended
    }

    async fn exchange(
        &mut self,
        in_flight_max: usize,
        mut reader: ServerReader,
        messages: &mpsc::Sender<Arc<ClientMessage>>,
    ) -> Result<Finished, String> {
        while !self.is_finished() {
            let time = self.pending.next_time();
            tokio::select! {
                command = self.commands.recv(), if !self.deserted => self.on_command(command),
                room = messages.reserve(), if self.pending.has_message(in_flight_max) => {
                    let room = room.map_err(|_| "the server takes no more messages".to_owned())?;
                    if let Some(message) = self.pending.next_message(in_flight_max) {
                        room.send(message);
                    }
                }
                received = reader.recv() => match received {
                    Ok(Some(ServerMessage::Goodbye { reason })) => {
                        return Err(format!("the server said goodbye: {reason}"));
                    }
                    Ok(Some(message)) => self.pending.on_message(Instant::now(), message)?,
                    Ok(None) => return Err("the server has closed its stream".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                () = until(time) => self.on_time(),
            }
        }
        Ok(Finished)
    }

    /// Tries the addresses in turn, with a pause after each round, until one answers.
    async fn connect_again(&mut self) -> Result<ServerConnection, Finished> {
        loop {
            let pause = self.pause;
            self.meanwhile(sleep(pause)).await?;
            self.pause = (pause * 2).clamp(self.config.backoff_min, self.config.backoff_max);
            for _ in 0..self.config.addresses.len() {
                let address =
                    self.config.addresses[self.next_address % self.config.addresses.len()];
                self.next_address += 1;
                match self.connect(address).await? {
                    Ok(connection) => return Ok(connection),
                    Err(error) => self.reason = format!("{address}: {error}"),
                }
            }
            tracing::info!(reason = %self.reason, "no server can be reached; trying on");
        }
    }

    async fn connect(
        &mut self,
        address: SocketAddr,
    ) -> Result<Result<ServerConnection, LinkError>, Finished> {
        let (dialer, name) = (self.dialer.clone(), self.config.server_name.clone());
        self.meanwhile(async move { dialer.connect(address, &name).await }).await
    }

    /// Waits for something, and takes commands and looks after deadlines meanwhile.
    async fn meanwhile<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Finished> {
        let mut awaited = pin!(awaited);
        while !self.is_finished() {
            let time = self.pending.next_time();
            tokio::select! {
                output = &mut awaited => return Ok(output),
                command = self.commands.recv(), if !self.deserted => self.on_command(command),
                () = until(time) => self.on_time(),
            }
        }
        Err(Finished)
    }

    fn on_command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Submit { transactions, sink, deadline }) => {
                self.pending.submit(transactions, &sink, deadline);
            }
            Some(Command::Ask(ask)) => self.pending.ask(ask),
            None => self.deserted = true,
        }
    }

    fn on_time(&mut self) {
        self.pending.on_time(Instant::now(), &self.reason);
    }

    fn is_finished(&self) -> bool {
        self.deserted && self.pending.is_empty()
    }
}

/// Writes messages in their order. Ends when there are no more, or the connection is gone.
async fn write(writer: ServerWriter, mut messages: mpsc::Receiver<Arc<ClientMessage>>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = writer.send(&message).await {
            writer.close(&error.to_string());
            break;
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
