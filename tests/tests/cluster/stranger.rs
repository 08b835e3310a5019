//! A client that speaks QUIC, and otherwise says what it likes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parsec_protocol::codec;
use parsec_protocol::limits::PROTOCOL_VERSION;
use parsec_protocol::message::{ClientReceipt, ReadAt, ServerMessage, Verdict};
use parsec_protocol::transport::tls::{CLIENT_ALPN, CLUSTER_NAME};
use parsec_protocol::transport::{CloseCode, LinkError};
use parsec_protocol::{EpochNumber, Key, Mode, RuntimeId};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rkyv::{Archive, Deserialize, Serialize};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Messages as the protocol has them, down to the last byte, but without its checks.
pub(crate) mod forged {
    #![allow(unnameable_types, unreachable_pub, reason = "rkyv derives items of its own")]

    use super::*;

    #[derive(Debug, Clone, Archive, Serialize, Deserialize)]
    pub struct Footprint {
        accesses: Vec<u8>,
    }

    impl Footprint {
        /// Packed accesses to keys in their encoded form, or to what pretends to be keys.
        pub fn of<'a>(accesses: impl Iterator<Item = (&'a [u8], Mode)>) -> Self {
            let mut packed = Vec::new();
            for (key, mode) in accesses {
                let mode = [Mode::Add, Mode::Read, Mode::Write].iter().position(|it| *it == mode);
                // None shares anything with the one before, and two bytes tell the length.
                packed.extend([u8::try_from(mode.unwrap()).unwrap(), 0xff]);
                packed.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
                packed.extend(key);
            }
            Self { accesses: packed }
        }
    }

    #[derive(Debug, Clone, Archive, Serialize, Deserialize)]
    pub struct Transaction {
        pub runtime: RuntimeId,
        pub payload: Bytes,
        pub salt: u128,
        pub footprint: Option<Footprint>,
        pub expires: Option<EpochNumber>,
        pub renews: bool,
    }

    #[derive(Debug, Clone, Archive, Serialize, Deserialize)]
    #[allow(dead_code, reason = "what is not sent makes the others as long as they really are")]
    pub enum Message {
        Hello { version: u32 },
        Submit { request: u64, transactions: Vec<Transaction> },
        Read { request: u64, at: ReadAt, keys: Vec<Key> },
        Status { request: u64 },
        Blocks { request: u64, from: u64, offset: u64, limit: u32 },
        Query { request: u64, runtime: RuntimeId, at: EpochNumber, question: Bytes },
    }
}

impl From<parsec_protocol::Transaction> for forged::Transaction {
    fn from(transaction: parsec_protocol::Transaction) -> Self {
        let parsec_protocol::Transaction { runtime, payload, salt, footprint, expires, renews } =
            transaction;
        let footprint = footprint.map(|footprint| {
            let accesses = footprint.accesses().iter();
            forged::Footprint::of(accesses.map(|access| (access.key.encoded(), access.mode)))
        });
        Self { runtime, payload, salt, footprint, expires, renews }
    }
}

/// A message as a frame.
pub(crate) fn framed(message: &forged::Message) -> Vec<u8> {
    let encoded = codec::encode(message);
    let length = u32::try_from(encoded.len()).unwrap();
    [&length.to_le_bytes(), &encoded[..]].concat()
}

/// A frame that introduces a client of this version.
pub(crate) fn hello(version: u32) -> Vec<u8> {
    framed(&forged::Message::Hello { version })
}

/// A connection of a stranger.
pub(crate) struct Stranger {
    pub(crate) connection: Connection,
    send: SendStream,
    recv: RecvStream,
    _endpoint: Endpoint,
}

impl Stranger {
    /// Connects, and says nothing.
    pub(crate) async fn connect(address: std::net::SocketAddr, ca: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![CLIENT_ALPN.to_vec()];
        let tls = QuicClientConfig::try_from(tls).unwrap();
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let connecting = endpoint.connect_with(config, address, CLUSTER_NAME).unwrap();
        let connection = connecting.await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self { connection, send, recv, _endpoint: endpoint }
    }

    /// Connects, and is welcomed.
    pub(crate) async fn welcomed(address: std::net::SocketAddr, ca: &Path) -> Self {
        let mut stranger = Self::connect(address, ca).await;
        stranger.say(&hello(PROTOCOL_VERSION)).await;
        assert!(matches!(stranger.hear().await, ServerMessage::Welcome(_)));
        stranger
    }

    /// Sends bytes as they are. What the server does not take any more is not sent.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.ok();
    }

    /// Submits transactions.
    pub(crate) async fn submit(&mut self, request: u64, transactions: Vec<forged::Transaction>) {
        self.say(&framed(&forged::Message::Submit { request, transactions })).await;
    }

    /// The next message.
    pub(crate) async fn hear(&mut self) -> ServerMessage {
        let mut length = [0; 4];
        self.recv.read_exact(&mut length).await.unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.recv.read_exact(&mut frame).await.unwrap();
        codec::decode(&frame).unwrap()
    }

    /// All verdicts and receipts of these submissions, in the order they came.
    pub(crate) async fn answers(
        &mut self,
        submissions: usize,
    ) -> (Vec<(u64, Vec<Verdict>)>, Vec<ClientReceipt>) {
        let (mut all, mut receipts) = (Vec::new(), Vec::new());
        let mut accepted = 0;
        while all.len() < submissions || receipts.len() < accepted {
            match self.hear().await {
                ServerMessage::Verdicts { request, verdicts } => {
                    let is_accepted = |verdict: &&Verdict| matches!(verdict, Verdict::Accepted(_));
                    accepted += verdicts.iter().filter(is_accepted).count();
                    all.push((request, verdicts));
                }
                ServerMessage::Receipts(more) => receipts.extend(more),
                other => panic!("{other:?}"),
            }
        }
        (all, receipts)
    }

    /// Why the server has closed the connection, as soon as it has.
    pub(crate) async fn closed(&self) -> CloseCode {
        let reason = LinkError::from(self.connection.closed().await);
        reason.code().unwrap_or_else(|| panic!("{reason}"))
    }
}
