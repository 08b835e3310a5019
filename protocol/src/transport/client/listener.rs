//! The server's side of clients' connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, Incoming, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use super::super::endpoint::{self, LINGER, LinkSettings};
use super::super::error::{CloseCode, FrameError, LinkError, SendError, TransportError};
use super::super::frame::{FrameReader, ReadLimits};
use super::super::tls::NodeIdentity;
use super::link::Link;
use crate::limits::{CLIENT_FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::{ClientMessage, ServerMessage, Welcome, short};

/// Connections whose handshake is done and that wait for [`ClientListener::accept`].
const ACCEPTED_MAX: usize = 64;

/// Limits and times of the endpoint for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientListenerOptions {
    /// Largest UDP payload to send, bytes; 1,200 to 6,500. By default 6,500 on loopback, and
    /// elsewhere what path MTU discovery finds, up to 1,452.
    pub udp_payload_bytes: Option<u16>,
    /// A connection on which nothing arrives for so long is closed. Clients keep theirs alive.
    pub idle_timeout: Duration,
    /// How long a handshake may take, from the first packet to the hello.
    pub handshake_timeout: Duration,
    /// How long a frame may take, from its first byte to its last.
    pub frame_timeout: Duration,
    /// How long a message may wait to be read by the client.
    pub send_timeout: Duration,
    /// Most connections at a time; others are refused.
    pub connections_max: usize,
    /// Most connections that wait to be accepted; others are refused.
    pub incoming_max: usize,
    /// What a client may send ahead of what is received, bytes.
    pub stream_window_bytes: u32,
    /// What incomplete frames of all clients may take together, bytes.
    pub incomplete_bytes_max: u32,
    /// What the system is asked to buffer for the socket, each way, bytes.
    pub socket_buffer_bytes: usize,
}

impl Default for ClientListenerOptions {
    fn default() -> Self {
        Self {
            udp_payload_bytes: None,
            idle_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(10),
            connections_max: 1_024,
            incoming_max: 256,
            stream_window_bytes: 1_024 * 1_024,
            incomplete_bytes_max: 256 * 1_024 * 1_024,
            socket_buffer_bytes: 4 * 1_024 * 1_024,
        }
    }
}

impl ClientListenerOptions {
    fn check(&self) -> Result<(), TransportError> {
        let counts = [self.connections_max, self.incoming_max];
        let times = [self.handshake_timeout, self.frame_timeout, self.send_timeout];
        let sizes = [self.stream_window_bytes, self.incomplete_bytes_max];
        if counts.contains(&0) || times.contains(&Duration::ZERO) || sizes.contains(&0) {
            let detail = "limits and times of the endpoint for clients must be more than zero";
            return Err(TransportError::Config { detail: detail.to_owned() });
        }
        Ok(())
    }

    fn link(&self) -> LinkSettings {
        LinkSettings {
            udp_payload_bytes: self.udp_payload_bytes,
            idle_timeout: self.idle_timeout,
            keep_alive: None,
            stream_window_bytes: self.stream_window_bytes,
            bidirectional_streams: 1,
            unidirectional_streams: 0,
        }
    }

    fn reading(&self, room: &Arc<Semaphore>) -> ReadLimits {
        ReadLimits {
            bytes_max: CLIENT_FRAME_BYTES_MAX,
            time_max: Some(self.frame_timeout),
            room: Some(room.clone()),
            kept_bytes: BUFFER_KEPT_BYTES,
        }
    }
}

/// What a reader of a client's frames keeps of its buffer, bytes: there may be many clients.
const BUFFER_KEPT_BYTES: usize = 256 * 1_024;

/// Accepts clients. Stops when it is dropped; connections that it accepted go on.
#[derive(Debug)]
pub struct ClientListener {
    endpoint: Endpoint,
    local_address: SocketAddr,
    accepted: mpsc::Receiver<ClientConnection>,
}

impl ClientListener {
    /// Listens on `address`, port 0 for any that is free, and greets every client with `welcome`.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::Bind`] if the address can't be listened on, and
    /// [`TransportError::Config`] if the options make no sense.
    pub fn bind(
        address: SocketAddr,
        identity: &NodeIdentity,
        welcome: Welcome,
        options: ClientListenerOptions,
    ) -> Result<Self, TransportError> {
        options.check()?;
        let server = endpoint::server(identity.client_server(), options.incoming_max);
        let endpoint = endpoint::open(
            address,
            Some(server.clone()),
            Some(identity.reset_key()),
            options.socket_buffer_bytes,
        )?;
        let local_address =
            endpoint.local_addr().map_err(|source| TransportError::Bind { address, source })?;
        let (connections, accepted) = mpsc::channel(ACCEPTED_MAX);
        let room = usize::try_from(options.incomplete_bytes_max).unwrap_or(usize::MAX >> 3);
        let door = Arc::new(Door {
            server,
            welcome,
            options,
            room: Arc::new(Semaphore::new(room)),
            connections,
        });
        tokio::spawn(accept_all(endpoint.clone(), door));
        Ok(Self { endpoint, local_address, accepted })
    }

    /// The address, with the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// The next client that has said hello and was welcomed, or `None` when the endpoint is
    /// closed.
    ///
    /// Dropping the future loses nothing.
    pub async fn accept(&mut self) -> Option<ClientConnection> {
        self.accepted.recv().await
    }

    /// Closes the endpoint and all its connections, telling clients why, and waits (a second at
    /// most) until they know.
    pub async fn close(&self, reason: &str) {
        let code = VarInt::from_u32(CloseCode::Shutdown.number());
        self.endpoint.close(code, short(reason).as_bytes());
        if tokio::time::timeout(LINGER, self.endpoint.wait_idle()).await.is_err() {
            tracing::debug!(address = %self.local_address, "not every client heard the farewell");
        }
    }
}

/// What the handshakes of all clients have in common.
struct Door {
    server: quinn::ServerConfig,
    welcome: Welcome,
    options: ClientListenerOptions,
    room: Arc<Semaphore>,
    connections: mpsc::Sender<ClientConnection>,
}

/// Accepts clients until the endpoint is closed or nobody wants them any more.
async fn accept_all(endpoint: Endpoint, door: Arc<Door>) {
    let slots = Arc::new(Semaphore::new(door.options.connections_max));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = door.connections.closed() => None,
        };
        let Some(incoming) = incoming else { break };
        let Some(incoming) = endpoint::validated(incoming) else { continue };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            metrics::counter!("parsec_client_connections_refused_total").increment(1);
            incoming.refuse();
            continue;
        };
        let door = door.clone();
        tokio::spawn(async move { door.greet(incoming, slot).await });
    }
    // Whoever comes now is told at once, for as long as there are connections.
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming.refuse(),
                None => break,
            },
            () = endpoint.wait_idle() => break,
        }
    }
}

impl Door {
    async fn greet(&self, incoming: Incoming, slot: OwnedSemaphorePermit) {
        let address = incoming.remote_address();
        match self.handshake(incoming, slot).await {
            Ok(connection) => {
                if self.connections.send(connection).await.is_err() {
                    tracing::debug!(%address, "a client came while the listener was dropped");
                }
            }
            Err(reason) => {
                metrics::counter!("parsec_client_connections_refused_total").increment(1);
                tracing::debug!(%address, %reason, "a client was refused");
            }
        }
    }

    async fn handshake(
        &self,
        incoming: Incoming,
        slot: OwnedSemaphorePermit,
    ) -> Result<ClientConnection, LinkError> {
        let remote = incoming.remote_address();
        let deadline = Instant::now() + self.options.handshake_timeout;
        let mut server = self.server.clone();
        server.transport_config(Arc::new(self.options.link().transport(remote)?));
        let connecting = incoming.accept_with(Arc::new(server))?;
        let stalled = |_| LinkError::closed(CloseCode::Stalled, "the handshake took too long");
        let connection = timeout_at(deadline, connecting).await.map_err(stalled)??;
        let Ok(opened) = timeout_at(deadline, connection.accept_bi()).await else {
            let reason = "no stream was opened";
            endpoint::close(&connection, CloseCode::Stalled, reason);
            return Err(LinkError::closed(CloseCode::Stalled, reason));
        };
        let (send, recv) = opened?;
        let timeout = Some(self.options.send_timeout);
        let link = Arc::new(Link::new(connection, send, timeout, Some(slot)));
        let hello =
            ReadLimits { bytes_max: HELLO_FRAME_BYTES_MAX, ..self.options.reading(&self.room) };
        let frames = FrameReader::new(recv, hello);
        let mut reader = ClientReader { link: link.clone(), frames, _open: Open::new() };
        match timeout_at(deadline, reader.next()).await {
            Err(_) => return Err(reader.end(CloseCode::Stalled, "no hello in time").await),
            Ok(hello) => check_hello(&reader, hello?).await?,
        }
        reader.frames.set_limits(self.options.reading(&self.room));
        let writer = ClientWriter { link };
        writer.send(&ServerMessage::Welcome(self.welcome.clone())).await.map_err(ended)?;
        Ok(ClientConnection { remote, reader, writer })
    }
}

async fn check_hello(reader: &ClientReader, hello: Option<ClientMessage>) -> Result<(), LinkError> {
    match hello {
        Some(ClientMessage::Hello { version: PROTOCOL_VERSION }) => Ok(()),
        Some(ClientMessage::Hello { version }) => {
            let detail = format!(
                "this server speaks version {PROTOCOL_VERSION} of the protocol, the client \
                 version {version}; install the same release"
            );
            Err(reader.end(CloseCode::Version, &detail).await)
        }
        _ => Err(reader.end(CloseCode::Malformed, "the first message is Hello").await),
    }
}

fn ended(error: SendError) -> LinkError {
    match error {
        SendError::Link(error) => error,
        other => LinkError::lost(other),
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
struct Open(metrics::Gauge);

impl Open {
    fn new() -> Self {
        let open = metrics::gauge!("parsec_client_connections");
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A client that was welcomed.
#[derive(Debug)]
pub struct ClientConnection {
    remote: SocketAddr,
    reader: ClientReader,
    writer: ClientWriter,
}

impl ClientConnection {
    /// Where the client is, as far as its packets say.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// Receives the next message, as [`ClientReader::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> Result<Option<ClientMessage>, LinkError> {
        self.reader.recv().await
    }

    /// Sends a message, as [`ClientWriter::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, message: &ServerMessage) -> Result<(), SendError> {
        self.writer.send(message).await
    }

    /// The two halves, for two tasks. The connection closes when both are dropped.
    #[must_use]
    pub fn split(self) -> (ClientReader, ClientWriter) {
        (self.reader, self.writer)
    }
}

/// Receives a client's messages.
pub struct ClientReader {
    link: Arc<Link>,
    frames: FrameReader,
    _open: Open,
}

impl std::fmt::Debug for ClientReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let client = self.link.connection().remote_address();
        f.debug_struct("ClientReader").field("client", &client).finish_non_exhaustive()
    }
}

impl ClientReader {
    /// The next message, or `None` when the client sends no more. Another hello is no message.
    ///
    /// A client that sends anything else than messages, or stops within one, is told so and
    /// closed before this returns. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`LinkError::Closed`] if the client misbehaved, and others if the connection is gone.
    pub async fn recv(&mut self) -> Result<Option<ClientMessage>, LinkError> {
        match self.next().await? {
            Some(ClientMessage::Hello { .. }) => {
                Err(self.end(CloseCode::Malformed, "Hello is the first message only").await)
            }
            other => Ok(other),
        }
    }

    async fn next(&mut self) -> Result<Option<ClientMessage>, LinkError> {
        match self.frames.next().await {
            Ok(Some((message, _))) => Ok(Some(message)),
            Ok(None) => Ok(None),
            Err(FrameError::Link(error)) => match self.link.known_reason(error) {
                LinkError::ClosedByPeer { code: CloseCode::Shutdown, .. } => Ok(None),
                other => Err(other),
            },
            Err(error) => match error.into() {
                LinkError::Closed { code, detail } => Err(self.end(code, &detail).await),
                other => Err(other),
            },
        }
    }

    async fn end(&self, code: CloseCode, reason: &str) -> LinkError {
        self.link.goodbye(code, reason).await;
        LinkError::closed(code, reason)
    }
}

/// Sends messages to a client. Cloning is cheap.
#[derive(Clone)]
pub struct ClientWriter {
    link: Arc<Link>,
}

impl std::fmt::Debug for ClientWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let client = self.link.connection().remote_address();
        f.debug_struct("ClientWriter").field("client", &client).finish_non_exhaustive()
    }
}

impl ClientWriter {
    /// Sends a message, waiting until the client has room for it, up to the listener's
    /// `send_timeout`; then the client is closed.
    ///
    /// If the future is dropped while it waits, the connection can't be used any more.
    ///
    /// # Errors
    /// [`SendError::TooLong`], after which the connection goes on, and [`SendError::Link`] if it
    /// is gone.
    pub async fn send(&self, message: &ServerMessage) -> Result<(), SendError> {
        self.link.send(message).await
    }

    /// Tells the client why it is closed, and closes it when it knows, or after a second.
    pub async fn goodbye(&self, code: CloseCode, reason: &str) {
        self.link.goodbye(code, reason).await;
    }

    /// Returns when the connection has ended, with the reason.
    pub async fn closed(&self) -> LinkError {
        self.link.connection().closed().await.into()
    }
}
