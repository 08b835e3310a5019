//! How a link comes up: certificates, then one hello each way on a stream of its own.

use std::sync::Arc;

use quinn::{ClientConfig, Connection, Incoming, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::super::endpoint;
use super::super::error::{CloseCode, LinkError};
use super::super::frame::{Frame, FrameReader, ReadLimits, write_frames};
use super::super::tls::{names_node, node_name};
use super::session::Carrier;
use super::{LinkEvent, Shared};
use crate::limits::{HELLO_FRAME_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::PeerHello;
use crate::placement::NodeId;

/// Dials `node` until its hello is checked, or it is clear that there will be none.
pub(super) async fn dial(shared: &Shared, node: NodeId) -> Result<Connection, LinkError> {
    let address = shared.peers[&node].address;
    let mut config = ClientConfig::new(shared.identity.peer_client());
    config.transport_config(Arc::new(shared.options.link().transport(address)?));
    let connecting =
        shared.endpoint.connect_with(config, address, &node_name(node)).map_err(LinkError::lost)?;
    let timeout = shared.options.handshake_timeout;
    let introduced = tokio::time::timeout(timeout, async {
        // The certificate is checked against the node's name by TLS.
        let connection = connecting.await?;
        let introduced = introduce(shared, &connection, node).await;
        or_close(&connection, introduced).map(|()| connection)
    });
    introduced.await.unwrap_or_else(|_| {
        Err(LinkError::lost(format!("no answer from {address} within {} s", timeout.as_secs())))
    })
}

/// The dialler's part: says hello, and checks the answer.
async fn introduce(
    shared: &Shared,
    connection: &Connection,
    node: NodeId,
) -> Result<(), LinkError> {
    let (mut send, recv) = connection.open_bi().await?;
    write_hello(&mut send, &shared.hello()).await?;
    let hello = read_hello(recv).await.map_err(|error| known_reason(connection, error))?;
    check(shared, &hello)?;
    if hello.node == node {
        return Ok(());
    }
    let detail = format!("{node} was dialled, but {} answered", hello.node);
    Err(LinkError::closed(CloseCode::WrongNode, detail))
}

/// Accepts links until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(shared.options.incoming_max));
    while let Some(incoming) = shared.endpoint.accept().await {
        let Some(incoming) = endpoint::validated(incoming) else { continue };
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            accept(&shared, incoming).await;
            drop(permit);
        });
    }
}

async fn accept(shared: &Shared, incoming: Incoming) {
    let address = incoming.remote_address();
    let mut claimed = None;
    match answer(shared, incoming, &mut claimed).await {
        Ok((node, connection)) => {
            // Fails only when the network stops, and then the connection may close as well.
            if shared.peers[&node].links.send(Carrier::Quic(connection)).await.is_err() {
                tracing::debug!(%node, "a link came up while the network stopped");
            }
        }
        Err(reason) => {
            // Strangers must not be able to fill the log: only who has a certificate of the
            // cluster gets as far as claiming to be a node.
            match claimed {
                Some(node) => tracing::warn!(%node, %address, %reason, "a link was refused"),
                None => tracing::debug!(%address, %reason, "a stranger was refused"),
            }
            metrics::counter!("parsec_peer_links_refused_total").increment(1);
            shared.sinks.announce_failure(LinkEvent::Failed { node: claimed, address, reason });
        }
    }
}

/// The accepting side's part: checks the hello, and answers it.
async fn answer(
    shared: &Shared,
    incoming: Incoming,
    claimed: &mut Option<NodeId>,
) -> Result<(NodeId, Connection), LinkError> {
    let options = &shared.options;
    let deadline = Instant::now() + options.handshake_timeout;
    let mut config = endpoint::server(shared.identity.peer_server(), options.incoming_max);
    let transport = options.link().transport(incoming.remote_address());
    config.transport_config(Arc::new(transport?));
    let connecting = incoming.accept_with(Arc::new(config))?;
    let stalled = |_| LinkError::closed(CloseCode::Stalled, "the handshake took too long");
    let connection = timeout_at(deadline, connecting).await.map_err(stalled)??;
    let checked = async {
        let (mut send, recv) = connection.accept_bi().await?;
        let hello = read_hello(recv).await.map_err(|error| known_reason(&connection, error))?;
        *claimed = Some(hello.node);
        check(shared, &hello)?;
        check_dialler(shared, &connection, hello.node)?;
        write_hello(&mut send, &shared.hello()).await?;
        Ok(hello.node)
    };
    let checked = timeout_at(deadline, checked).await.unwrap_or_else(|late| Err(stalled(late)));
    or_close(&connection, checked).map(|node| (node, connection))
}

/// Checks what both sides of a link must agree on.
fn check(shared: &Shared, hello: &PeerHello) -> Result<(), LinkError> {
    if hello.version != PROTOCOL_VERSION {
        let detail = format!(
            "{} speaks version {} of the protocol, {} version {PROTOCOL_VERSION}; \
             install the same release on all hosts",
            hello.node, hello.version, shared.node
        );
        return Err(LinkError::closed(CloseCode::Version, detail));
    }
    if hello.cluster != shared.cluster {
        let detail = format!(
            "{} and {} have different genesis or partition maps; give all hosts the same",
            hello.node, shared.node
        );
        return Err(LinkError::closed(CloseCode::Cluster, detail));
    }
    Ok(())
}

/// Checks that a dialler is who it says it is, and that it is its turn to dial.
fn check_dialler(shared: &Shared, connection: &Connection, node: NodeId) -> Result<(), LinkError> {
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certified = certificates
        .and_then(|chain| chain.first().map(|certificate| names_node(certificate, node)))
        .unwrap_or(false);
    if !certified {
        let detail = format!("the certificate is not that of {node}");
        return Err(LinkError::closed(CloseCode::WrongNode, detail));
    }
    if !shared.peers.contains_key(&node) {
        let detail = format!("{} has no {node} in its configuration", shared.node);
        return Err(LinkError::closed(CloseCode::UnknownNode, detail));
    }
    if shared.neighbours.as_ref().is_some_and(|neighbours| neighbours.has(node)) {
        let detail = format!("{node} runs in the process of {}, not elsewhere", shared.node);
        return Err(LinkError::closed(CloseCode::WrongNode, detail));
    }
    if node > shared.node {
        let detail = format!("{} dials {node}, not the other way round", shared.node);
        return Err(LinkError::closed(CloseCode::WrongDirection, detail));
    }
    Ok(())
}

async fn write_hello(stream: &mut SendStream, hello: &PeerHello) -> Result<(), LinkError> {
    let frame = Frame::encode(hello, HELLO_FRAME_BYTES_MAX).map_err(LinkError::lost)?;
    write_frames(stream, &[frame]).await
}

async fn read_hello(stream: RecvStream) -> Result<PeerHello, LinkError> {
    let limits = ReadLimits { bytes_max: HELLO_FRAME_BYTES_MAX, ..ReadLimits::default() };
    match FrameReader::new(stream, limits).next().await? {
        Some((hello, _)) => Ok(hello),
        None => Err(LinkError::closed(CloseCode::Malformed, "no hello")),
    }
}

/// The connection knows better than a stream of it why it ended.
fn known_reason(connection: &Connection, error: LinkError) -> LinkError {
    connection.close_reason().map_or(error, LinkError::from)
}

/// Tells the other side why the handshake ends.
fn or_close<T>(connection: &Connection, outcome: Result<T, LinkError>) -> Result<T, LinkError> {
    if let Err(LinkError::Closed { code, detail }) = &outcome {
        endpoint::close(connection, *code, detail);
    }
    outcome
}
