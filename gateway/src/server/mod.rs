//! The server: HTTP and WebSocket on one port.

mod auth;
mod http;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

pub use auth::{Auth, AuthError};

use crate::backend::Backend;
use crate::chain::Chain;
use crate::dispatch::Dispatcher;
use crate::limits::Limits;
use crate::methods;
use crate::node::Node;
use crate::rpc::{Methods, RpcError, answer};

/// How long connections may take to end when the gateway is stopped.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long the server rests when it can't accept connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a gateway is set up.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where it listens. Port 0 is any that is free.
    pub address: SocketAddr,
    /// The web pages that may ask it, by their origins (`https://example.org`), or `*` for all.
    pub origins: Vec<String>,
    /// Who may ask it; anyone if there is nothing.
    pub auth: Option<Auth>,
    /// What `web3_clientVersion` says.
    pub client_version: String,
    /// What clients may ask for.
    pub limits: Limits,
}

impl GatewayConfig {
    /// A gateway at an address. On a loopback address pages of all origins may ask it, otherwise
    /// none.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let origins = if address.ip().is_loopback() { vec!["*".into()] } else { Vec::new() };
        let (name, version) = ("Parsec", env!("CARGO_PKG_VERSION"));
        let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        Self {
            address,
            origins,
            auth: None,
            client_version: format!("{name}/v{version}/{platform}/rust"),
            limits: Limits::default(),
        }
    }
}

/// A gateway that is running. It goes on until it is stopped or dropped.
pub struct Gateway {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    connections: Arc<Semaphore>,
    connections_max: u32,
    accepting: JoinHandle<()>,
}

impl Gateway {
    /// Starts a gateway that answers from `chain` and `backend`. Methods in `extra` come beside
    /// its own, or instead of those of the same name.
    ///
    /// # Errors
    /// If it can't listen at its address.
    pub async fn start(
        config: GatewayConfig,
        chain: Arc<Chain>,
        backend: Arc<dyn Backend>,
        extra: Methods,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(config.address).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let connections_max = config
            .limits
            .connections_max
            .min(Semaphore::MAX_PERMITS)
            .try_into()
            .unwrap_or(u32::MAX);
        let connections =
            Arc::new(Semaphore::new(config.limits.connections_max.min(Semaphore::MAX_PERMITS)));
        let server = Arc::new(Server::new(config, chain, backend, extra));
        let accepting = accept(listener, server, Arc::clone(&connections), stopped);
        let accepting = tokio::spawn(accepting);
        tracing::info!(%address, "the gateway listens");
        Ok(Self { address, stop, connections, connections_max, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it: nothing is accepted any more, and what is being answered is waited for, for a
    /// few seconds.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let ended = self.connections.acquire_many(self.connections_max);
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!("some connections did not end");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.accepting.abort();
    }
}

/// What all connections share.
struct Server {
    dispatcher: Dispatcher,
    origins: Vec<String>,
    auth: Option<Auth>,
}

impl Server {
    fn new(
        config: GatewayConfig,
        chain: Arc<Chain>,
        backend: Arc<dyn Backend>,
        extra: Methods,
    ) -> Self {
        let node = Node::new(chain, backend, config.limits, config.client_version);
        let node = Arc::new(node);
        let mut all = methods::all(&node);
        let sends = extra.get("eth_sendRawTransaction").is_none();
        all.extend(extra);
        let namespace = |name: &str| name.split('_').next().unwrap_or_default().to_owned();
        node.modules.get_or_init(|| all.names().map(namespace).collect());
        let dispatcher = Dispatcher::new(node, all, sends);
        Self { dispatcher, origins: config.origins, auth: config.auth }
    }

    /// What to answer to the page of an origin: that origin, or all. Nothing if it may not ask.
    fn allowed(&self, origin: &str) -> Option<&str> {
        let found = self.origins.iter().find(|allowed| *allowed == "*" || *allowed == origin);
        found.map(String::as_str)
    }
}

async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    connections: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one connection, or because there are no more file descriptors.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&connections).try_acquire_owned() {
            Ok(permit) => {
                let connection = Connection { permit: Arc::new(permit), stopped: stopped.clone() };
                tokio::spawn(serve(stream, Arc::clone(&server), connection));
            }
            Err(_) => {
                metrics::counter!("parsec_gateway_connections_refused_total").increment(1);
                tokio::spawn(refuse(stream));
            }
        }
    }
}

/// What lasts as long as a connection.
#[derive(Clone)]
struct Connection {
    /// Given back when the last part of the connection ends.
    permit: Arc<OwnedSemaphorePermit>,
    stopped: watch::Receiver<bool>,
}

/// Says that there are too many connections already.
async fn refuse(mut stream: TcpStream) {
    let body = answer(RawValue::NULL, &Err(RpcError::limit("too many connections")));
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let said = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    // A client that does not even take that is none of our business.
    drop(tokio::time::timeout(Duration::from_secs(1), said).await);
}

async fn serve(stream: TcpStream, server: Arc<Server>, connection: Connection) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small packets wait");
    }
    let open = metrics::gauge!("parsec_gateway_connections");
    open.increment(1);
    let transfer_time_max = server.dispatcher.limits().transfer_time_max;
    let mut stopped = connection.stopped.clone();
    let service = service_fn(move |request| {
        let (server, connection) = (Arc::clone(&server), connection.clone());
        async move { Ok::<_, std::convert::Infallible>(http::answer(server, connection, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(transfer_time_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
    open.decrement(1);
}
