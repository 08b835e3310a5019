//! Clients that behave, and clients that don't, over loopback.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, RecvStream, SendStream};

use super::*;
use crate::epoch::EpochNumber;
use crate::limits::{CLIENT_FRAME_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::{ClientMessage, ClusterId, ServerMessage, Welcome};
use crate::placement::NodeId;
use crate::transaction::{RuntimeId, Transaction};
use crate::transport::endpoint;
use crate::transport::error::{CloseCode, LinkError, SendError};
use crate::transport::frame::{FrameReader, ReadLimits};
use crate::transport::peer::{PeerListener, PeerOptions};
use crate::transport::tls::{CLUSTER_NAME, CertificateAuthority, NodeIdentity, Trust};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Fails the test instead of hanging it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), future).await.expect("it takes too long")
}

fn welcome() -> Welcome {
    Welcome {
        version: PROTOCOL_VERSION,
        cluster: ClusterId([7; 32]),
        chain_id: 0xcbdc,
        in_flight_max: 10,
    }
}

fn options() -> ClientListenerOptions {
    ClientListenerOptions {
        handshake_timeout: Duration::from_millis(700),
        frame_timeout: Duration::from_millis(500),
        send_timeout: Duration::from_millis(500),
        ..ClientListenerOptions::default()
    }
}

struct Server {
    identity: NodeIdentity,
    listener: ClientListener,
}

impl Server {
    fn new(options: ClientListenerOptions) -> Self {
        let ca = CertificateAuthority::new().unwrap();
        let identity = ca.issue(NodeId(1), &["127.0.0.1".into()]).unwrap();
        let listener = ClientListener::bind(any(), &identity, welcome(), options).unwrap();
        Self { identity, listener }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    fn dialer(&self) -> ClientDialer {
        ClientDialer::new(self.identity.trust().clone(), DialOptions::default())
    }

    /// A client that behaves, and the server's end of its connection.
    async fn client(&mut self) -> (ServerConnection, ClientConnection) {
        let dialer = self.dialer();
        let client = soon(dialer.connect(self.address(), CLUSTER_NAME)).await.unwrap();
        (client, soon(self.listener.accept()).await.unwrap())
    }

    /// A client that speaks QUIC and nothing else.
    async fn stranger(&self) -> (Connection, SendStream, RecvStream) {
        let endpoint = endpoint::open(any(), None, None, 1 << 16).unwrap();
        let config = quinn::ClientConfig::new(self.identity.trust().client());
        let connecting = endpoint.connect_with(config, self.address(), CLUSTER_NAME).unwrap();
        let connection = soon(connecting).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        (connection, send, recv)
    }
}

fn framed(message: &ClientMessage) -> Vec<u8> {
    let encoded = crate::codec::encode(message);
    let length = u32::try_from(encoded.len()).unwrap();
    [&length.to_le_bytes(), &encoded[..]].concat()
}

fn hello() -> Vec<u8> {
    framed(&ClientMessage::Hello { version: PROTOCOL_VERSION })
}

/// The reason in the first goodbye that arrives, and the code with which the connection ends.
async fn farewell(connection: &Connection, recv: RecvStream) -> (String, CloseCode) {
    let limits = ReadLimits { bytes_max: CLIENT_FRAME_BYTES_MAX, ..ReadLimits::default() };
    let mut frames = FrameReader::new(recv, limits);
    let reason = soon(async {
        loop {
            match frames.next().await.unwrap().expect("the server says goodbye first").0 {
                ServerMessage::Goodbye { reason } => break reason,
                ServerMessage::Welcome(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let reason = reason.await;
    let ended = LinkError::from(soon(connection.closed()).await);
    (reason, ended.code().expect("the server closes it"))
}

fn submission(payload_bytes: usize) -> ClientMessage {
    let transaction = Transaction::new(RuntimeId::NATIVE, vec![5; payload_bytes]);
    ClientMessage::Submit { request: 1, transactions: vec![transaction] }
}

fn failure(request: u64, bytes: usize) -> ServerMessage {
    let detail = "x".repeat(bytes);
    ServerMessage::Failed { request, code: crate::ErrorCode::Busy, detail }
}

#[tokio::test]
async fn a_client_is_welcomed_and_both_sides_talk() {
    let mut server = Server::new(options());
    let (mut client, mut connection) = server.client().await;
    assert_eq!(client.welcome, welcome());
    let large = submission(1_000_000);
    client.writer.send(&large).await.unwrap();
    assert_eq!(soon(connection.recv()).await.unwrap(), Some(large));
    for request in 0..100 {
        client.writer.send(&ClientMessage::Status { request }).await.unwrap();
        let asked = soon(connection.recv()).await.unwrap();
        assert_eq!(asked, Some(ClientMessage::Status { request }));
        let answer = failure(request, 10);
        connection.send(&answer).await.unwrap();
        assert_eq!(soon(client.reader.recv()).await.unwrap(), Some(answer));
    }
    drop(client);
    assert_eq!(soon(connection.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_trusts_only_its_authority_and_the_name_it_asked_for() {
    let server = Server::new(options());
    let address = server.address();
    let connect = async |trust: Trust, name: &str| {
        let dialer = ClientDialer::new(trust, DialOptions::default());
        soon(dialer.connect(address, name)).await.map(|_| ())
    };
    let trust = server.identity.trust().clone();
    let stranger = CertificateAuthority::new().unwrap().trust().unwrap();
    let [of_a_stranger, of_another, by_name, by_address] = [
        connect(stranger, CLUSTER_NAME).await,
        connect(trust.clone(), "node-2.parsec").await,
        connect(trust.clone(), "node-1.parsec").await,
        connect(trust, "127.0.0.1").await,
    ];
    assert!(matches!(of_a_stranger, Err(LinkError::Untrusted { .. })), "{of_a_stranger:?}");
    assert!(matches!(of_another, Err(LinkError::Untrusted { .. })), "{of_another:?}");
    assert_eq!((by_name, by_address), (Ok(()), Ok(())));
}

#[tokio::test]
async fn peers_and_clients_do_not_get_in_at_each_others_door() {
    let server = Server::new(options());
    let ca = CertificateAuthority::new().unwrap();
    let identity = Arc::new(ca.issue(NodeId(1), &[]).unwrap());
    let peers = PeerListener::bind(any(), identity.clone(), PeerOptions::default()).unwrap();
    let address = peers.local_address();
    let _network = peers.start(ClusterId([7; 32]), &[]).unwrap();
    let dialer = ClientDialer::new(identity.trust().clone(), DialOptions::default());
    let client = soon(dialer.connect(address, "node-1.parsec")).await;
    assert!(matches!(client, Err(LinkError::Untrusted { .. })), "{client:?}");

    let endpoint = endpoint::open(any(), None, None, 1 << 16).unwrap();
    let config = quinn::ClientConfig::new(server.identity.peer_client());
    let peer = soon(endpoint.connect_with(config, server.address(), "node-1.parsec").unwrap());
    let error = LinkError::from(peer.await.unwrap_err());
    assert!(matches!(error, LinkError::Untrusted { .. }), "{error}");
}

#[tokio::test]
async fn another_version_is_told_so() {
    let server = Server::new(options());
    let (connection, mut send, recv) = server.stranger().await;
    let other = ClientMessage::Hello { version: PROTOCOL_VERSION + 1 };
    send.write_all(&framed(&other)).await.unwrap();
    let (reason, code) = farewell(&connection, recv).await;
    assert!(reason.contains(&format!("version {}", PROTOCOL_VERSION + 1)), "{reason}");
    assert_eq!(code, CloseCode::Version);
}

#[tokio::test]
async fn a_server_of_another_version_is_refused() {
    let ca = CertificateAuthority::new().unwrap();
    let identity = ca.issue(NodeId(1), &[]).unwrap();
    let other = Welcome { version: PROTOCOL_VERSION + 1, ..welcome() };
    let listener = ClientListener::bind(any(), &identity, other, options()).unwrap();
    let dialer = ClientDialer::new(identity.trust().clone(), DialOptions::default());
    let error = soon(dialer.connect(listener.local_address(), CLUSTER_NAME)).await.unwrap_err();
    assert_eq!(error.code(), Some(CloseCode::Version));
}

#[tokio::test]
async fn hostile_bytes_end_with_goodbye_and_hurt_nobody_else() {
    let mut server = Server::new(options());
    let (mut bystander, mut connection) = server.client().await;
    let too_long = u32::try_from(CLIENT_FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let garbage = [&[40, 0, 0, 0][..], &[0xa5; 40]].concat();
    let cases: [(&str, Vec<u8>, bool, CloseCode); 9] = [
        ("garbage first", garbage.clone(), false, CloseCode::Malformed),
        ("no hello", framed(&ClientMessage::Status { request: 1 }), false, CloseCode::Malformed),
        ("a long hello", vec![1, 0x10, 0, 0, 1], false, CloseCode::Malformed),
        ("half a hello", hello()[..6].to_vec(), false, CloseCode::Stalled),
        ("garbage later", [hello(), garbage].concat(), false, CloseCode::Malformed),
        ("hello again", [hello(), hello()].concat(), false, CloseCode::Malformed),
        ("huge", [&hello()[..], &too_long].concat(), false, CloseCode::Malformed),
        ("cut off", [&hello()[..], &[9, 0, 0, 0, 1]].concat(), true, CloseCode::Malformed),
        ("stalled", [&hello()[..], &[9, 0, 0, 0, 1]].concat(), false, CloseCode::Stalled),
    ];
    for (what, bytes, finish, expected) in cases {
        let begun = Instant::now();
        let (connection, mut send, recv) = server.stranger().await;
        send.write_all(&bytes).await.unwrap();
        if finish {
            send.finish().unwrap();
        }
        // Whoever gets past the hello is served until it misbehaves.
        let serve = async {
            if let Some(mut accepted) = server.listener.accept().await {
                assert!(accepted.recv().await.is_err(), "{what}");
            }
            std::future::pending::<()>().await;
        };
        let (reason, code) = tokio::select! {
            farewell = farewell(&connection, recv) => farewell,
            () = serve => unreachable!(),
        };
        assert_eq!(code, expected, "{what}: {reason}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
    }
    bystander.writer.send(&ClientMessage::Status { request: 7 }).await.unwrap();
    let asked = soon(connection.recv()).await.unwrap();
    assert_eq!(asked, Some(ClientMessage::Status { request: 7 }));
    connection.send(&failure(7, 1)).await.unwrap();
    assert_eq!(soon(bystander.reader.recv()).await.unwrap(), Some(failure(7, 1)));
    server.client().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed() {
    let mut server = Server::new(options());
    let (client, connection) = server.client().await;
    let (mut reader, writer) = connection.split();
    let begun = Instant::now();
    let error = soon(async {
        loop {
            if let Err(error) = writer.send(&failure(1, 1_000_000)).await {
                break error;
            }
        }
    });
    let SendError::Link(error) = error.await else { panic!("it is not too long") };
    assert_eq!(error.code(), Some(CloseCode::Unread));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(soon(reader.recv()).await.is_err());
    assert!(matches!(writer.send(&failure(2, 1)).await, Err(SendError::Link(_))));
    drop(client);
}

#[tokio::test]
async fn a_message_that_is_too_long_is_an_error_and_no_harm() {
    let mut server = Server::new(options());
    let (mut client, connection) = server.client().await;
    let error = connection.send(&failure(1, CLIENT_FRAME_BYTES_MAX)).await.unwrap_err();
    assert!(matches!(error, SendError::TooLong { .. }), "{error}");
    connection.send(&failure(2, 5)).await.unwrap();
    assert_eq!(soon(client.reader.recv()).await.unwrap(), Some(failure(2, 5)));
}

#[tokio::test]
async fn connections_are_bounded_and_free_again_when_they_end() {
    let mut server = Server::new(ClientListenerOptions { connections_max: 3, ..options() });
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(server.client().await);
    }
    let dialer = server.dialer();
    let address = server.address();
    for _ in 0..20 {
        let refused = soon(dialer.connect(address, CLUSTER_NAME)).await;
        assert!(matches!(refused, Err(LinkError::Lost { .. })), "{refused:?}");
    }
    let (mut client, connection) = open.remove(0);
    connection.send(&failure(1, 1)).await.unwrap();
    assert_eq!(soon(client.reader.recv()).await.unwrap(), Some(failure(1, 1)));
    drop((client, connection));
    soon(async {
        while dialer.connect(address, CLUSTER_NAME).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn handshakes_that_never_end_are_given_up() {
    let mut server = Server::new(ClientListenerOptions { connections_max: 2, ..options() });
    let silent = [server.stranger().await, server.stranger().await];
    assert!(soon(server.dialer().connect(server.address(), CLUSTER_NAME)).await.is_err());
    for (connection, ..) in &silent {
        let ended = LinkError::from(soon(connection.closed()).await);
        assert_eq!(ended.code(), Some(CloseCode::Stalled), "{ended}");
    }
    server.client().await;
}

#[tokio::test]
async fn incomplete_frames_of_all_clients_share_a_limit() {
    let limits = ClientListenerOptions {
        incomplete_bytes_max: 300_000,
        frame_timeout: Duration::from_secs(10),
        ..options()
    };
    let mut server = Server::new(limits);
    let half = &framed(&submission(1_000_000))[..250_000];
    let (first, mut first_send, first_recv) = server.stranger().await;
    first_send.write_all(&[&hello(), half].concat()).await.unwrap();
    let mut first_served = soon(server.listener.accept()).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(300), first_served.recv()).await;
    assert!(waiting.is_err(), "half a frame is no message");
    let (second, mut second_send, recv) = server.stranger().await;
    second_send.write_all(&hello()).await.unwrap();
    let mut second_served = soon(server.listener.accept()).await.unwrap();
    second_send.write_all(half).await.unwrap();
    let (ended, (_, code)) = tokio::join!(second_served.recv(), farewell(&second, recv));
    assert_eq!((ended.unwrap_err().code(), code), (Some(CloseCode::Full), CloseCode::Full));
    drop((first, first_send, first_recv, first_served, second_served));
    let (client, mut connection) = server.client().await;
    client.writer.send(&submission(100_000)).await.unwrap();
    assert_eq!(soon(connection.recv()).await.unwrap(), Some(submission(100_000)));
}

#[tokio::test]
async fn a_server_that_stops_says_why() {
    let mut server = Server::new(options());
    let (mut client, connection) = server.client().await;
    let (_reader, writer) = connection.split();
    let (goodbye, ()) = tokio::join!(
        soon(client.reader.recv()),
        writer.goodbye(CloseCode::Shutdown, "maintenance")
    );
    assert_eq!(goodbye.unwrap(), Some(ServerMessage::Goodbye { reason: "maintenance".into() }));
    let (mut client, _connection) = server.client().await;
    server.listener.close("the end").await;
    let error = soon(client.reader.recv()).await.unwrap_err();
    let detail = "the end".to_owned();
    assert_eq!(error, LinkError::ClosedByPeer { code: CloseCode::Shutdown, detail });
    assert!(soon(server.listener.accept()).await.is_none());
}

#[tokio::test]
async fn connections_outlive_their_listener_and_new_ones_are_refused() {
    let mut server = Server::new(options());
    let (mut client, connection) = server.client().await;
    let (dialer, address) = (server.dialer(), server.address());
    drop(server);
    connection.send(&failure(3, 3)).await.unwrap();
    assert_eq!(soon(client.reader.recv()).await.unwrap(), Some(failure(3, 3)));
    let refused = soon(dialer.connect(address, CLUSTER_NAME)).await;
    assert!(matches!(refused, Err(LinkError::Lost { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_send_that_was_given_up_halfway_ends_the_connection() {
    let mut server =
        Server::new(ClientListenerOptions { send_timeout: Duration::from_secs(10), ..options() });
    let (client, connection) = server.client().await;
    let large = failure(1, 15_000_000);
    let given_up = tokio::time::timeout(Duration::from_millis(300), connection.send(&large)).await;
    assert!(given_up.is_err(), "the client does not read: this can't be sent at once");
    let error = connection.send(&failure(2, 1)).await.unwrap_err();
    assert!(error.to_string().contains("not sent to its end"), "{error}");
    drop(client);
}

#[tokio::test]
async fn an_idle_client_stays_connected() {
    let mut server = Server::new(ClientListenerOptions {
        idle_timeout: Duration::from_millis(800),
        ..options()
    });
    let trust = server.identity.trust().clone();
    let keep_alive = Duration::from_millis(100);
    let dialer = ClientDialer::new(trust, DialOptions { keep_alive, ..DialOptions::default() });
    let client = soon(dialer.connect(server.address(), CLUSTER_NAME)).await.unwrap();
    let mut connection = soon(server.listener.accept()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    let read = ClientMessage::Read {
        request: 4,
        at: crate::message::ReadAt::Epoch(EpochNumber(3)),
        keys: Vec::new(),
    };
    client.writer.send(&read).await.unwrap();
    assert_eq!(soon(connection.recv()).await.unwrap(), Some(read));
}
