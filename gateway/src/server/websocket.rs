//! One WebSocket connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Connection, Server};
use crate::limits::OUTGOING_MAX;
use crate::subscriptions::{Asked, Session};

/// How often a client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A client from which nothing came for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(100);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let says = |name, wanted: &str| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
    };
    says(UPGRADE, "websocket") && says(CONNECTION, "upgrade")
}

/// Makes a WebSocket of the connection of a request.
pub(super) fn upgrade(
    server: Arc<Server>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    let version = request.headers().get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = key.and_then(|key| HeaderValue::from_str(&key).ok());
    let (Some(b"13"), Some(accept)) = (version, accept) else {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return answer;
    };
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => converse(server, connection, upgraded).await,
            Err(error) => tracing::debug!(%error, "a WebSocket did not come about"),
        }
    });
    answer
}

async fn converse(server: Arc<Server>, connection: Connection, upgraded: Upgraded) {
    let most = server.dispatcher.limits().request_bytes_max;
    let config = WebSocketConfig::default().max_message_size(Some(most)).max_frame_size(Some(most));
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (sink, stream) = socket.split();
    let (outgoing, waiting) = mpsc::channel(OUTGOING_MAX);
    let session = Arc::new(Session::new(Arc::clone(server.dispatcher.node()), outgoing));
    let transfer_time_max = server.dispatcher.limits().transfer_time_max;
    let mut stopped = connection.stopped.clone();
    let mut writing = tokio::spawn(write(sink, waiting, transfer_time_max));
    let stop = async { drop(stopped.wait_for(|stopped| *stopped).await) };
    let is_gone = tokio::select! {
        () = read(server, &session, stream) => true,
        _ = &mut writing => true,
        () = stop => false,
    };
    // What is being answered still holds the session, and so do subscriptions: nobody waits for
    // those whose client is gone.
    drop(session);
    if is_gone || tokio::time::timeout(transfer_time_max, &mut writing).await.is_err() {
        writing.abort();
    }
    drop(connection.permit);
}

/// Takes messages and has each answered, as many at a time as one connection may have.
async fn read(server: Arc<Server>, session: &Arc<Session>, mut stream: SplitStream<Socket>) {
    let most = server.dispatcher.limits().requests_per_connection_max;
    let answering = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE_MAX, stream.next()).await {
        let text = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // After the client's close, the next read sends ours and finds the end.
            Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        let Ok(permit) = Arc::clone(&answering).acquire_owned().await else { return };
        let (server, session) = (Arc::clone(&server), Arc::clone(session));
        tokio::spawn(async move {
            let asked = Asked::new(&session);
            let answer = server.dispatcher.answer(&text, Some(&asked)).await;
            session.send(answer).await;
            // ORDER: what was subscribed to is told of after the answer that says so.
            drop(asked);
            drop(permit);
        });
    }
}

/// Sends what is to be sent, until there is nobody who sends or nobody who takes it.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut waiting: mpsc::Receiver<String>,
    transfer_time_max: Duration,
) {
    let mut ping = tokio::time::interval_at((Instant::now() + PING_EVERY).into(), PING_EVERY);
    loop {
        let message = tokio::select! {
            text = waiting.recv() => match text {
                Some(text) => Message::text(text),
                None => break,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        match tokio::time::timeout(transfer_time_max, sink.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
    // The client may be gone already.
    drop(tokio::time::timeout(Duration::from_secs(1), sink.close()).await);
}
