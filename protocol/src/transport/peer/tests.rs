//! Two nodes over loopback, and strangers that must not get in.

use std::future::Future;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::epoch::{EpochNumber, EpochRecord, Position};
use crate::limits::{PEER_FRAME_BYTES_MAX, PROTOCOL_VERSION};
use crate::message::{Answer, PartitionStatus, Query};
use crate::placement::PartitionId;
use crate::receipt::{Outcome, Receipt};
use crate::short::ShortBytes;
use crate::transaction::TxId;
use crate::transport::frame::{Frame, write_frames};
use crate::transport::tls::{CertificateAuthority, PEER_ALPN};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const CLUSTER: ClusterId = ClusterId([7; 32]);

fn options() -> PeerOptions {
    PeerOptions {
        idle_timeout: Duration::from_secs(2),
        keep_alive: Duration::from_millis(200),
        handshake_timeout: Duration::from_secs(1),
        backoff_max: Duration::from_millis(100),
        ..PeerOptions::default()
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Fails the test instead of hanging it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), future).await.expect("it takes too long")
}

fn listen(ca: &CertificateAuthority, node: NodeId, address: SocketAddr) -> PeerListener {
    let identity = Arc::new(ca.issue(node, &[]).unwrap());
    PeerListener::bind(address, identity, options()).unwrap()
}

/// Listens where another listener has just ended: its tasks may take a moment to let go.
async fn listen_again(
    ca: &CertificateAuthority,
    node: NodeId,
    address: SocketAddr,
) -> PeerListener {
    let identity = Arc::new(ca.issue(node, &[]).unwrap());
    loop {
        match PeerListener::bind(address, identity.clone(), options()) {
            Ok(listener) => return listener,
            Err(TransportError::Bind { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(other) => panic!("{other}"),
        }
    }
}

struct Node {
    network: PeerNetwork,
    inbox: PeerInbox,
}

impl Node {
    async fn event(&mut self) -> LinkEvent {
        soon(self.inbox.links.recv()).await.expect("the network runs")
    }

    async fn up(&mut self) -> u64 {
        loop {
            match self.event().await {
                LinkEvent::Up { session, .. } => return session,
                LinkEvent::Failed { .. } => {}
                down @ LinkEvent::Down { .. } => panic!("{down:?}"),
            }
        }
    }

    async fn down(&mut self) -> (u64, LinkError) {
        match self.event().await {
            LinkEvent::Down { session, reason, .. } => (session, reason),
            other => panic!("{other:?}"),
        }
    }

    async fn failure(&mut self) -> LinkError {
        match self.event().await {
            LinkEvent::Failed { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn start(listener: PeerListener, peers: &[PeerAddress], cluster: ClusterId) -> Node {
    let (network, inbox) = listener.start(cluster, peers).unwrap();
    Node { network, inbox }
}

/// Two linked nodes, of which the first dials the second.
async fn pair() -> (Node, Node) {
    let ca = CertificateAuthority::new().unwrap();
    let listeners = [ONE, TWO].map(|node| listen(&ca, node, any()));
    let peers = [ONE, TWO].map(|node| {
        let address = listeners[usize::from(node.0) - 1].local_address();
        PeerAddress { node, address }
    });
    let [mut one, mut two] = listeners.map(|listener| start(listener, &peers, CLUSTER));
    one.up().await;
    two.up().await;
    (one, two)
}

/// The same two in one process.
async fn neighbours() -> (Node, Node) {
    let ca = CertificateAuthority::new().unwrap();
    let both = Neighbourhood::new([ONE, TWO]);
    let [mut one, mut two] = [ONE, TWO].map(|node| start_among(&ca, node, &both));
    one.up().await;
    two.up().await;
    (one, two)
}

/// Starts a node that none can reach but its neighbours.
fn start_among(ca: &CertificateAuthority, node: NodeId, neighbours: &Neighbourhood) -> Node {
    let peers = [ONE, TWO].map(|node| PeerAddress { node, address: nowhere() });
    start(listen(ca, node, any()).among(neighbours.clone()), &peers, CLUSTER)
}

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

fn epoch(number: u64) -> PeerMessage {
    PeerMessage::Epoch(EpochRecord {
        number: EpochNumber(number),
        timestamp_ms: 1,
        block: 2,
        parent: [3; 32],
        batches: Vec::new(),
    })
}

fn number_of(received: &Received) -> u64 {
    match &received.message {
        PeerMessage::Epoch(record) => record.number.0,
        other => panic!("{other:?}"),
    }
}

/// A message of about this many bytes.
fn heavy(bytes: usize) -> PeerMessage {
    let answer = Answer::Failed { reason: "x".repeat(bytes) };
    PeerMessage::Answer { number: 1, answer }
}

#[tokio::test]
async fn messages_arrive_in_order_on_every_channel_both_ways() {
    for (one, two) in [pair().await, neighbours().await] {
        messages_arrive_in_order_on_every_channel_both_ways_between(one, two).await;
    }
}

async fn messages_arrive_in_order_on_every_channel_both_ways_between(mut one: Node, mut two: Node) {
    let status = PartitionStatus {
        partition: PartitionId(1),
        applied: EpochNumber(4),
        durable: EpochNumber(3),
    };
    let progress = PeerMessage::Progress(vec![status]);
    let query = PeerMessage::Query { number: 9, query: Query::Digests };
    for number in 1..=2_000 {
        one.network.send(TWO, Channel::Order, &epoch(number)).await.unwrap();
    }
    one.network.send(TWO, Channel::Exchange, &progress).await.unwrap();
    two.network.send(ONE, Channel::Query, &query).await.unwrap();
    for number in 1..=2_000 {
        let received = soon(two.inbox.order.recv()).await.unwrap();
        assert_eq!((received.from, number_of(&received)), (ONE, number));
    }
    assert_eq!(soon(two.inbox.exchange.recv()).await.unwrap().message, progress);
    let received = soon(one.inbox.query.recv()).await.unwrap();
    assert_eq!((received.from, received.message), (TWO, query));
    assert!(one.inbox.order.try_recv().is_none());
}

#[tokio::test]
async fn a_message_larger_than_every_window_arrives_and_a_larger_one_is_refused() {
    let (one, mut two) = pair().await;
    let large = heavy(PEER_FRAME_BYTES_MAX - 1_000);
    soon(one.network.send(TWO, Channel::Exchange, &large)).await.unwrap();
    assert!(soon(two.inbox.exchange.recv()).await.unwrap().message == large);
    assert!(matches!(
        one.network.send(TWO, Channel::Exchange, &heavy(PEER_FRAME_BYTES_MAX)).await,
        Err(SendError::TooLong { bytes_max: PEER_FRAME_BYTES_MAX, .. })
    ));
    assert!(one.network.is_up(TWO));
}

#[tokio::test]
async fn who_does_not_receive_holds_up_one_channel_only() {
    for (one, two) in [pair().await, neighbours().await] {
        who_does_not_receive_holds_up_one_channel_only_between(one, two).await;
    }
}

async fn who_does_not_receive_holds_up_one_channel_only_between(one: Node, mut two: Node) {
    // Two queues, two windows and two inboxes hold less than this.
    let mut sent = 0u64;
    let stalled = loop {
        assert!(sent < 200, "nothing holds the sender back");
        let message = heavy(1_000_000);
        let send = one.network.send(TWO, Channel::Order, &message);
        match tokio::time::timeout(Duration::from_millis(500), send).await {
            Ok(outcome) => outcome.unwrap(),
            Err(_) => break sent,
        }
        sent += 1;
    };
    assert!(stalled > 10);
    soon(one.network.send(TWO, Channel::Exchange, &epoch(1))).await.unwrap();
    assert_eq!(number_of(&soon(two.inbox.exchange.recv()).await.unwrap()), 1);
    for _ in 0..stalled {
        soon(two.inbox.order.recv()).await.unwrap();
    }
    soon(one.network.send(TWO, Channel::Order, &epoch(2))).await.unwrap();
    assert_eq!(number_of(&soon(two.inbox.order.recv()).await.unwrap()), 2);
}

#[tokio::test]
async fn a_sender_that_waits_learns_that_the_link_is_down() {
    for (one, two) in [pair().await, neighbours().await] {
        a_sender_that_waits_learns_that_the_link_is_down_between(one, two).await;
    }
}

async fn a_sender_that_waits_learns_that_the_link_is_down_between(one: Node, two: Node) {
    let network = one.network.clone();
    let sender = tokio::spawn(async move {
        loop {
            if let Err(error) = network.send(TWO, Channel::Order, &heavy(1_000_000)).await {
                return error;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sender.is_finished());
    two.network.close("maintenance").await;
    assert_eq!(soon(sender).await.unwrap(), SendError::Down(TWO));
}

#[tokio::test]
async fn a_node_that_comes_back_at_its_address_is_linked_again() {
    let ca = CertificateAuthority::new().unwrap();
    let (first, second) = (listen(&ca, ONE, any()), listen(&ca, TWO, any()));
    let address = second.local_address();
    // Only the dialler needs an address.
    let peers = [PeerAddress { node: ONE, address: any() }, PeerAddress { node: TWO, address }];
    let (mut one, mut two) = (start(first, &peers, CLUSTER), start(second, &peers, CLUSTER));
    let mut before = one.up().await;
    two.up().await;
    for round in 0..3 {
        two.network.close("restart").await;
        drop(two);
        let (session, reason) = one.down().await;
        assert_eq!((session, reason.code()), (before, Some(CloseCode::Shutdown)));
        assert!(!one.network.is_up(TWO));
        let stale = one.network.send(TWO, Channel::Order, &epoch(round)).await;
        assert_eq!(stale, Err(SendError::Down(TWO)));
        two = start(soon(listen_again(&ca, TWO, address)).await, &peers, CLUSTER);
        let session = one.up().await;
        two.up().await;
        let stale = one.network.send_on(TWO, before, Channel::Order, &epoch(99)).await;
        assert_eq!(stale, Err(SendError::Down(TWO)));
        one.network.send_on(TWO, session, Channel::Order, &epoch(round)).await.unwrap();
        assert_eq!(number_of(&soon(two.inbox.order.recv()).await.unwrap()), round);
        before = session;
    }
}

#[tokio::test]
async fn a_neighbour_that_starts_again_is_linked_again() {
    let ca = CertificateAuthority::new().unwrap();
    let both = Neighbourhood::new([ONE, TWO]);
    // Whichever of them stops, and whichever has started first.
    for (stays, leaves) in [(ONE, TWO), (TWO, ONE)] {
        let mut staying = start_among(&ca, stays, &both);
        let mut leaving = start_among(&ca, leaves, &both);
        let mut before = staying.up().await;
        leaving.up().await;
        for round in 0..3 {
            leaving.network.close("restart").await;
            drop(leaving);
            let (session, reason) = staying.down().await;
            assert_eq!((session, reason.code()), (before, Some(CloseCode::Shutdown)));
            let stale = staying.network.send(leaves, Channel::Order, &epoch(round)).await;
            assert_eq!(stale, Err(SendError::Down(leaves)));
            leaving = start_among(&ca, leaves, &both);
            let session = staying.up().await;
            leaving.up().await;
            let stale = staying.network.send_on(leaves, before, Channel::Order, &epoch(99)).await;
            assert_eq!(stale, Err(SendError::Down(leaves)));
            soon(staying.network.send_on(leaves, session, Channel::Order, &epoch(round)))
                .await
                .unwrap();
            let received = soon(leaving.inbox.order.recv()).await.unwrap();
            assert_eq!((received.from, number_of(&received)), (stays, round));
            before = session;
        }
    }
}

#[tokio::test]
async fn what_neighbours_share_stays_shared() {
    let (one, mut two) = neighbours().await;
    let position = Position { epoch: EpochNumber(1), index: 2 };
    let receipt = Arc::new(Receipt {
        id: TxId([1; 32]),
        position,
        attempt: 0,
        outcome: Outcome::Committed,
        work: 3,
        output: ShortBytes::default(),
        events: Vec::new(),
    });
    let receipts = vec![receipt.clone()];
    let message = PeerMessage::Receipts { partition: PartitionId(0), receipts };
    soon(one.network.send(TWO, Channel::Order, &message)).await.unwrap();
    drop(message);
    let received = soon(two.inbox.order.recv()).await.unwrap();
    let PeerMessage::Receipts { receipts, .. } = received.message else { panic!("{received:?}") };
    assert!(Arc::ptr_eq(&receipts[0], &receipt));
}

#[tokio::test]
async fn only_nodes_of_one_cluster_are_neighbours_each_of_them_once() {
    let ca = CertificateAuthority::new().unwrap();
    let both = Neighbourhood::new([ONE, TWO]);
    let _one = start_among(&ca, ONE, &both);
    let start = |node, cluster| {
        let listener = listen(&ca, node, any()).among(both.clone());
        listener.start(cluster, &[]).map(drop).unwrap_err().to_string()
    };
    assert!(start(ONE, CLUSTER).contains("runs in this process already"));
    assert!(start(TWO, ClusterId([8; 32])).contains("different genesis"));
    assert!(start(NodeId(3), CLUSTER).contains("not one of the nodes of this process"));
}

#[tokio::test]
async fn a_stranger_with_the_certificate_of_a_neighbour_is_refused() {
    let ca = CertificateAuthority::new().unwrap();
    let two = listen(&ca, TWO, any());
    let address = two.local_address();
    let peers = [ONE, TWO].map(|node| PeerAddress { node, address });
    let mut two = start(two.among(Neighbourhood::new([ONE, TWO])), &peers, CLUSTER);
    let mut elsewhere = start(listen(&ca, ONE, any()), &peers, CLUSTER);
    assert_eq!(elsewhere.failure().await.code(), Some(CloseCode::WrongNode));
    assert_eq!(two.failure().await.code(), Some(CloseCode::WrongNode));
}

#[tokio::test]
async fn a_dialler_that_comes_back_replaces_its_old_link() {
    let ca = CertificateAuthority::new().unwrap();
    let second = listen(&ca, TWO, any());
    let peers = [
        PeerAddress { node: ONE, address: any() },
        PeerAddress { node: TWO, address: second.local_address() },
    ];
    let mut two = start(second, &peers, CLUSTER);
    let mut older = start(listen(&ca, ONE, any()), &peers, CLUSTER);
    let (at_one, at_two) = (older.up().await, two.up().await);
    // The older process has not noticed that it is dead.
    let mut newer = start(listen(&ca, ONE, any()), &peers, CLUSTER);
    newer.up().await;
    let (session, reason) = two.down().await;
    assert_eq!((session, reason.code()), (at_two, Some(CloseCode::Replaced)));
    assert!(two.up().await > at_two);
    let (session, reason) = older.down().await;
    assert_eq!((session, reason.code()), (at_one, Some(CloseCode::Replaced)));
}

#[tokio::test]
async fn messages_stay_between_the_events_of_their_session() {
    for (one, two) in [pair().await, neighbours().await] {
        messages_stay_between_the_events_of_their_session_between(one, two).await;
    }
}

async fn messages_stay_between_the_events_of_their_session_between(one: Node, mut two: Node) {
    one.network.send(TWO, Channel::Order, &epoch(1)).await.unwrap();
    assert_eq!(number_of(&soon(two.inbox.order.recv()).await.unwrap()), 1);
    for number in 2..20 {
        one.network.send(TWO, Channel::Order, &epoch(number)).await.unwrap();
    }
    // Some of them are in the inbox by now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    one.network.close("bye").await;
    drop(one);
    two.down().await;
    assert!(two.inbox.order.try_recv().is_none(), "a message came after its session's end");
}

#[tokio::test]
async fn nothing_flows_before_the_receiver_knows_of_the_link() {
    let ca = CertificateAuthority::new().unwrap();
    let listeners = [ONE, TWO].map(|node| listen(&ca, node, any()));
    let address = listeners[1].local_address();
    let peers = [ONE, TWO].map(|node| PeerAddress { node, address });
    let [mut one, mut two] = listeners.map(|listener| start(listener, &peers, CLUSTER));
    one.up().await;
    one.network.send(TWO, Channel::Query, &epoch(5)).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), two.inbox.query.recv()).await;
    assert!(early.is_err(), "a message came before its session's beginning");
    two.up().await;
    assert_eq!(number_of(&soon(two.inbox.query.recv()).await.unwrap()), 5);
}

/// The failures that both sides of a pair report when their listeners start like this.
async fn failures(
    one: (PeerListener, ClusterId),
    two: (PeerListener, ClusterId),
) -> [LinkError; 2] {
    let peers = [
        PeerAddress { node: ONE, address: any() },
        PeerAddress { node: TWO, address: two.0.local_address() },
    ];
    let mut one = start(one.0, &peers, one.1);
    let mut two = start(two.0, &peers, two.1);
    [one.failure().await, two.failure().await]
}

#[tokio::test]
async fn nodes_of_different_authorities_refuse_each_other() {
    let [a, b] = [(); 2].map(|()| CertificateAuthority::new().unwrap());
    let (one, two) = (listen(&a, ONE, any()), listen(&b, TWO, any()));
    for error in failures((one, CLUSTER), (two, CLUSTER)).await {
        assert!(matches!(error, LinkError::Untrusted { .. }), "{error}");
    }
}

#[tokio::test]
async fn nodes_of_different_clusters_refuse_each_other() {
    let ca = CertificateAuthority::new().unwrap();
    let (one, two) = (listen(&ca, ONE, any()), listen(&ca, TWO, any()));
    let [at_one, at_two] = failures((one, ClusterId([1; 32])), (two, CLUSTER)).await;
    let by_peer = matches!(at_one, LinkError::ClosedByPeer { code: CloseCode::Cluster, .. });
    assert!(by_peer, "{at_one}");
    assert!(matches!(at_two, LinkError::Closed { code: CloseCode::Cluster, .. }), "{at_two}");
}

#[tokio::test]
async fn a_node_that_answers_in_the_place_of_another_is_not_trusted() {
    let ca = CertificateAuthority::new().unwrap();
    // Node 3 listens where node 2 is expected.
    let (one, two) = (listen(&ca, ONE, any()), listen(&ca, NodeId(3), any()));
    let [at_one, _] = failures((one, CLUSTER), (two, CLUSTER)).await;
    assert!(matches!(at_one, LinkError::Untrusted { .. }), "{at_one}");
}

#[tokio::test]
async fn a_silent_address_is_reported_once_and_dialled_on() {
    let ca = CertificateAuthority::new().unwrap();
    let silent = std::net::UdpSocket::bind(any()).unwrap();
    let peers = [PeerAddress { node: TWO, address: silent.local_addr().unwrap() }];
    let mut one = start(listen(&ca, ONE, any()), &peers, CLUSTER);
    assert!(matches!(one.failure().await, LinkError::Lost { .. }));
    let again = tokio::time::timeout(Duration::from_millis(2_500), one.inbox.links.recv()).await;
    assert!(again.is_err(), "the same failure was reported twice");
    let address = silent.local_addr().unwrap();
    drop(silent);
    let mut two =
        start(listen(&ca, TWO, address), &[PeerAddress { node: ONE, address: any() }], CLUSTER);
    two.up().await;
}

/// Accepts any server: a stranger does not care whom it talks to.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<danger::ServerCertVerified, rustls::Error> {
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn without_certificate() -> Arc<QuicClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![PEER_ALPN.to_vec()];
    Arc::new(config.try_into().unwrap())
}

/// How node 2, which runs, ends the connection of a stranger that sends these bytes as its hello.
async fn stranger(
    two: &mut Node,
    crypto: Arc<QuicClientConfig>,
    hello: &[u8],
) -> (LinkError, LinkError) {
    let endpoint = endpoint::open(any(), None, None, 1 << 16).unwrap();
    let config = quinn::ClientConfig::new(crypto);
    let address = two.network.local_address();
    let connection =
        soon(endpoint.connect_with(config, address, "node-2.parsec").unwrap()).await.unwrap();
    let mut streams = connection.open_bi().await;
    if let Ok((send, _)) = &mut streams {
        // The other side may be faster: what counts is how it ends.
        send.write_all(hello).await.ok();
    }
    let ended = soon(connection.closed()).await.into();
    drop(streams);
    (ended, two.failure().await)
}

fn hello_bytes(hello: &PeerHello) -> Vec<u8> {
    let encoded = crate::codec::encode(hello);
    let length = u32::try_from(encoded.len()).unwrap();
    [&length.to_le_bytes(), &encoded[..]].concat()
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason() {
    let ca = CertificateAuthority::new().unwrap();
    let peers = [ONE, TWO, NodeId(3)].map(|node| PeerAddress { node, address: any() });
    let mut two = start(listen(&ca, TWO, any()), &peers[..2], CLUSTER);
    let hello = PeerHello { version: PROTOCOL_VERSION, cluster: CLUSTER, node: ONE };
    let as_node = |node| ca.issue(node, &[]).unwrap().peer_client();

    let bytes = hello_bytes(&hello);
    let (theirs, ours) = stranger(&mut two, without_certificate(), &bytes).await;
    assert!(matches!(theirs, LinkError::Untrusted { .. }), "{theirs}");
    assert!(matches!(ours, LinkError::Untrusted { .. }), "{ours}");

    let other_version = PeerHello { version: PROTOCOL_VERSION + 1, ..hello.clone() };
    let unknown = PeerHello { node: NodeId(0), ..hello.clone() };
    let higher = PeerHello { node: NodeId(3), ..hello.clone() };
    let itself = PeerHello { node: TWO, ..hello.clone() };
    for (certificate, said, code) in [
        (ONE, &other_version, CloseCode::Version),
        (NodeId(3), &hello, CloseCode::WrongNode),
        (ONE, &higher, CloseCode::WrongNode),
        (NodeId(0), &unknown, CloseCode::UnknownNode),
        (NodeId(3), &higher, CloseCode::UnknownNode),
        (TWO, &itself, CloseCode::UnknownNode),
    ] {
        let bytes = hello_bytes(said);
        let (theirs, ours) = stranger(&mut two, as_node(certificate), &bytes).await;
        assert!(matches!(theirs, LinkError::ClosedByPeer { .. }), "{theirs}");
        assert_eq!((theirs.code(), ours.code()), (Some(code), Some(code)), "{said:?}");
    }
    for garbage in [&[0xff; 64][..], &[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], &[200, 0, 0, 0]] {
        let (theirs, ours) = stranger(&mut two, as_node(ONE), garbage).await;
        let expected = if garbage.len() == 4 { CloseCode::Stalled } else { CloseCode::Malformed };
        assert_eq!(ours.code(), Some(expected), "{ours}");
        assert!(theirs.code().is_some(), "{theirs}");
    }
    assert!(!two.network.is_up(ONE));
}

#[tokio::test]
async fn a_higher_node_must_not_dial() {
    let ca = CertificateAuthority::new().unwrap();
    let peers = [ONE, TWO, NodeId(3)].map(|node| PeerAddress { node, address: any() });
    let hello = PeerHello { version: PROTOCOL_VERSION, cluster: CLUSTER, node: NodeId(3) };
    let mut two = start(listen(&ca, TWO, any()), &peers, CLUSTER);
    let crypto = ca.issue(NodeId(3), &[]).unwrap().peer_client();
    // Node 2 also dials node 3, in vain.
    assert!(matches!(two.failure().await, LinkError::Lost { .. }));
    let (theirs, _) = stranger(&mut two, crypto, &hello_bytes(&hello)).await;
    assert_eq!(theirs.code(), Some(CloseCode::WrongDirection));
}

#[tokio::test]
async fn a_peer_that_sends_garbage_loses_its_link() {
    let ca = CertificateAuthority::new().unwrap();
    let peers = [ONE, TWO].map(|node| PeerAddress { node, address: any() });
    let mut two = start(listen(&ca, TWO, any()), &peers, CLUSTER);
    let endpoint = endpoint::open(any(), None, None, 1 << 16).unwrap();
    for garbage in [&[9][..], &[0, 0xff, 0xff, 0xff, 0xff], &[1, 3, 0, 0, 0, 1, 2, 3]] {
        let crypto = ca.issue(ONE, &[]).unwrap().peer_client();
        let config = quinn::ClientConfig::new(crypto);
        let address = two.network.local_address();
        let connecting = endpoint.connect_with(config, address, "node-2.parsec").unwrap();
        let connection = soon(connecting).await.unwrap();
        let (mut control, _answer) = connection.open_bi().await.unwrap();
        let hello = PeerHello { version: PROTOCOL_VERSION, cluster: CLUSTER, node: ONE };
        let frame = Frame::encode(&hello, 1_000).unwrap();
        write_frames(&mut control, &[frame]).await.unwrap();
        two.up().await;
        connection.open_uni().await.unwrap().write_all(garbage).await.unwrap();
        let (_, reason) = two.down().await;
        assert_eq!(reason.code(), Some(CloseCode::Malformed), "{reason}");
        let theirs = LinkError::from(soon(connection.closed()).await);
        assert_eq!(theirs.code(), Some(CloseCode::Malformed), "{theirs}");
    }
}

#[tokio::test]
async fn a_network_whose_handles_are_dropped_stops() {
    let (one, mut two) = pair().await;
    let Node { network, mut inbox } = one;
    drop(network);
    let (_, reason) = two.down().await;
    assert_eq!(reason.code(), Some(CloseCode::Shutdown));
    soon(async { while inbox.links.recv().await.is_some() {} }).await;
    assert!(soon(inbox.order.recv()).await.is_none());
}

#[tokio::test]
async fn options_and_addresses_that_make_no_sense_are_refused() {
    let ca = CertificateAuthority::new().unwrap();
    let identity = Arc::new(ca.issue(ONE, &[]).unwrap());
    for wrong in [
        PeerOptions { keep_alive: Duration::from_secs(3), ..PeerOptions::default() },
        PeerOptions { backoff_min: Duration::ZERO, ..PeerOptions::default() },
        PeerOptions { queue_bytes: 0, ..PeerOptions::default() },
        PeerOptions { incoming_max: 0, ..PeerOptions::default() },
    ] {
        let bound = PeerListener::bind(any(), identity.clone(), wrong);
        assert!(matches!(bound, Err(TransportError::Config { .. })));
    }
    let twice = [PeerAddress { node: TWO, address: any() }; 2];
    let listener = PeerListener::bind(any(), identity, options()).unwrap();
    assert!(matches!(listener.start(CLUSTER, &twice), Err(TransportError::Config { .. })));
}
