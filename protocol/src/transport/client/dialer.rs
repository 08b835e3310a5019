//! The client's side of its connection to a sequencer.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{ClientConfig, Endpoint};

use super::super::endpoint::{self, LINGER, LinkSettings};
use super::super::error::{CloseCode, LinkError, SendError};
use super::super::frame::{FrameReader, ReadLimits};
use super::super::tls::Trust;
use super::link::Link;
use crate::limits::{CLIENT_FRAME_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::{ClientMessage, ServerMessage, Welcome};

/// Limits and times of a client's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialOptions {
    /// Largest UDP payload to send, bytes; 1,200 to 6,500. By default 6,500 on loopback, and
    /// elsewhere what path MTU discovery finds, up to 1,452.
    pub udp_payload_bytes: Option<u16>,
    /// A connection on which nothing arrives for so long is given up.
    pub idle_timeout: Duration,
    /// How often an idle connection is used, to keep it up. Less than half of `idle_timeout`.
    pub keep_alive: Duration,
    /// How long connecting may take, from the first packet to the welcome.
    pub connect_timeout: Duration,
    /// What the server may send ahead of what is received, bytes.
    pub stream_window_bytes: u32,
    /// What the system is asked to buffer for the socket, each way, bytes.
    pub socket_buffer_bytes: usize,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            udp_payload_bytes: None,
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(4),
            connect_timeout: Duration::from_secs(5),
            stream_window_bytes: 8 * 1_024 * 1_024,
            socket_buffer_bytes: 4 * 1_024 * 1_024,
        }
    }
}

impl DialOptions {
    fn link(&self) -> LinkSettings {
        LinkSettings {
            udp_payload_bytes: self.udp_payload_bytes,
            idle_timeout: self.idle_timeout,
            keep_alive: Some(self.keep_alive),
            stream_window_bytes: self.stream_window_bytes,
            // A client opens the one stream; servers open none.
            bidirectional_streams: 1,
            unidirectional_streams: 0,
        }
    }
}

/// Connects to servers. Cloning is cheap; the connections of all clones share a socket for each
/// kind of address.
#[derive(Debug, Clone)]
pub struct ClientDialer {
    trust: Trust,
    options: DialOptions,
    endpoints: Arc<Mutex<Endpoints>>,
}

#[derive(Debug, Default)]
struct Endpoints {
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl ClientDialer {
    /// A dialler that trusts the servers that `trust` says.
    #[must_use]
    pub fn new(trust: Trust, options: DialOptions) -> Self {
        Self { trust, options, endpoints: Arc::default() }
    }

    /// Connects to the server at `address`, whose certificate must be valid for `server_name`:
    /// [`CLUSTER_NAME`](super::super::tls::CLUSTER_NAME) for any node of the cluster, or a name
    /// or address that the certificate was issued for. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Untrusted`] if the server's certificate is not from the CA or for the name,
    /// [`LinkError::ClosedByPeer`] with what the server said if it refuses, [`LinkError::Closed`]
    /// if it speaks another version of the protocol, and [`LinkError::Lost`] if there is no
    /// answer, or no socket to be had.
    pub async fn connect(
        &self,
        address: SocketAddr,
        server_name: &str,
    ) -> Result<ServerConnection, LinkError> {
        let mut config = ClientConfig::new(self.trust.client());
        config.transport_config(Arc::new(self.options.link().transport(address)?));
        let connecting = self
            .endpoint(address)?
            .connect_with(config, address, server_name)
            .map_err(LinkError::lost)?;
        let timeout = self.options.connect_timeout;
        let introduced =
            tokio::time::timeout(timeout, async { introduce(connecting.await?).await });
        introduced.await.unwrap_or_else(|_| {
            let detail = format!("no welcome from {address} within {} s", timeout.as_secs());
            Err(LinkError::lost(detail))
        })
    }

    fn endpoint(&self, remote: SocketAddr) -> Result<Endpoint, LinkError> {
        let mut endpoints = self.endpoints.lock().expect("nobody panics while holding this lock");
        let (slot, any): (_, SocketAddr) = match remote {
            SocketAddr::V4(_) => (&mut endpoints.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&mut endpoints.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let endpoint = endpoint::open(any, None, None, self.options.socket_buffer_bytes)?;
        Ok(slot.insert(endpoint).clone())
    }
}

/// Says hello and waits for the welcome.
async fn introduce(connection: quinn::Connection) -> Result<ServerConnection, LinkError> {
    let (send, recv) = connection.open_bi().await?;
    let link = Arc::new(Link::new(connection, send, None, None));
    let limits = ReadLimits::of_a_server(CLIENT_FRAME_BYTES_MAX);
    let frames = FrameReader::new(recv, limits);
    let mut reader = ServerReader { link: link.clone(), frames };
    let writer = ServerWriter { link };
    match writer.send(&ClientMessage::Hello { version: PROTOCOL_VERSION }).await {
        Ok(()) => {}
        Err(SendError::Link(error)) => return Err(error),
        Err(other) => return Err(LinkError::lost(other)),
    }
    match reader.recv().await? {
        Some(ServerMessage::Welcome(welcome)) if welcome.version == PROTOCOL_VERSION => {
            Ok(ServerConnection { welcome, reader, writer })
        }
        Some(ServerMessage::Welcome(Welcome { version, .. })) => {
            let detail = format!(
                "the server speaks version {version} of the protocol, this client version \
                 {PROTOCOL_VERSION}; install the same release"
            );
            Err(writer.link.close(CloseCode::Version, &detail))
        }
        Some(ServerMessage::Goodbye { reason }) => {
            // The code comes with the end of the connection.
            let connection = writer.link.connection();
            let closed = tokio::time::timeout(LINGER, connection.closed()).await;
            let unknown = LinkError::ClosedByPeer { code: CloseCode::Shutdown, detail: reason };
            Err(closed.map_or(unknown, LinkError::from))
        }
        _ => Err(writer.link.close(CloseCode::Malformed, "the first message is Welcome")),
    }
}

/// A connection to a server that has welcomed the client.
#[derive(Debug)]
pub struct ServerConnection {
    /// What the server said first.
    pub welcome: Welcome,
    /// Receives its messages.
    pub reader: ServerReader,
    /// Sends messages to it.
    pub writer: ServerWriter,
}

/// Receives a server's messages. The connection closes when reader and writers are dropped.
pub struct ServerReader {
    link: Arc<Link>,
    frames: FrameReader,
}

impl std::fmt::Debug for ServerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let server = self.link.connection().remote_address();
        f.debug_struct("ServerReader").field("server", &server).finish_non_exhaustive()
    }
}

impl ServerReader {
    /// The next message, or `None` when the server sends no more.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The reason why the connection is gone. If the server sent what is no message, it is closed
    /// by this.
    pub async fn recv(&mut self) -> Result<Option<ServerMessage>, LinkError> {
        match self.frames.next().await {
            Ok(message) => Ok(message.map(|(message, _)| message)),
            Err(error) => match LinkError::from(error) {
                LinkError::Closed { code, detail } => Err(self.link.close(code, &detail)),
                other => Err(self.link.known_reason(other)),
            },
        }
    }
}

/// Sends messages to a server. Cloning is cheap.
#[derive(Clone)]
pub struct ServerWriter {
    link: Arc<Link>,
}

impl std::fmt::Debug for ServerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let server = self.link.connection().remote_address();
        f.debug_struct("ServerWriter").field("server", &server).finish_non_exhaustive()
    }
}

impl ServerWriter {
    /// Sends a message, waiting until the server has room for it.
    ///
    /// If the future is dropped while it waits, the connection can't be used any more.
    ///
    /// # Errors
    /// [`SendError::TooLong`], after which the connection goes on, and [`SendError::Link`] if it
    /// is gone.
    pub async fn send(&self, message: &ClientMessage) -> Result<(), SendError> {
        self.link.send(message).await
    }

    /// Closes the connection, telling the server why.
    pub fn close(&self, reason: &str) {
        self.link.close(CloseCode::Shutdown, reason);
    }
}
