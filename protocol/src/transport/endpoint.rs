//! Endpoints: a UDP socket and what quinn is told about it.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    Incoming, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};

use super::error::{CloseCode, TransportError};

/// Largest UDP payload that any endpoint here accepts. Loopback loses packets above it.
pub(super) const UDP_PAYLOAD_BYTES_MAX: u16 = 6_500;
/// What every path of the Internet carries; discovery finds out whether more gets through.
const UDP_PAYLOAD_BYTES_MIN: u16 = 1_200;
/// The other side is asked to acknowledge when so many packets have come, or the first has waited
/// for its time: each acknowledgement is a packet of its own, which costs both sides what any other
/// does.
const ACK_AFTER_PACKETS: u32 = 10;
/// How long an ended connection waits for its last words to arrive.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// What one connection may take, and how fast it is given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkSettings {
    pub(super) udp_payload_bytes: Option<u16>,
    pub(super) idle_timeout: Duration,
    pub(super) keep_alive: Option<Duration>,
    pub(super) stream_window_bytes: u32,
    pub(super) bidirectional_streams: u8,
    pub(super) unidirectional_streams: u8,
}

impl LinkSettings {
    /// What quinn is told about a connection with `remote`.
    pub(super) fn transport(&self, remote: SocketAddr) -> Result<TransportConfig, TransportError> {
        let mut transport = TransportConfig::default();
        let idle = self.idle_timeout.try_into().map_err(|_| TransportError::Config {
            detail: format!("an idle timeout of {:?} is too long", self.idle_timeout),
        })?;
        let streams =
            u32::from(self.bidirectional_streams) + u32::from(self.unidirectional_streams);
        // Every stream gets its window even if all others are full: a stalled one stalls no other.
        let window = self.stream_window_bytes.saturating_mul(streams).min(u32::MAX / 4);
        transport
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(self.keep_alive)
            .max_concurrent_bidi_streams(VarInt::from_u32(self.bidirectional_streams.into()))
            .max_concurrent_uni_streams(VarInt::from_u32(self.unidirectional_streams.into()))
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes.min(u32::MAX / 4)))
            .receive_window(VarInt::from_u32(window))
            .send_window(window.into())
            .datagram_receive_buffer_size(None)
            .enable_segmentation_offload(true);
        let payload = match (self.udp_payload_bytes, remote.ip().is_loopback()) {
            (Some(bytes), _) => bytes.clamp(UDP_PAYLOAD_BYTES_MIN, UDP_PAYLOAD_BYTES_MAX),
            (None, true) => UDP_PAYLOAD_BYTES_MAX,
            (None, false) => UDP_PAYLOAD_BYTES_MIN,
        };
        let mut acknowledgements = AckFrequencyConfig::default();
        acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_AFTER_PACKETS));
        transport.ack_frequency_config(Some(acknowledgements));
        // There is nothing to discover where the size is given.
        let discovery = (payload == UDP_PAYLOAD_BYTES_MIN).then(MtuDiscoveryConfig::default);
        transport.initial_mtu(payload).mtu_discovery_config(discovery);
        Ok(transport)
    }
}

/// Opens a socket and an endpoint on it; one that can accept, if `server` is there.
pub(super) fn open(
    address: SocketAddr,
    server: Option<ServerConfig>,
    reset_key: Option<[u8; 32]>,
    socket_buffer_bytes: usize,
) -> Result<Endpoint, TransportError> {
    let bind = |source| TransportError::Bind { address, source };
    let socket = UdpSocket::bind(address).map_err(bind)?;
    let options = socket2::SockRef::from(&socket);
    // The system may grant less; that costs speed, not correctness.
    for outcome in [
        options.set_recv_buffer_size(socket_buffer_bytes),
        options.set_send_buffer_size(socket_buffer_bytes),
    ] {
        if let Err(error) = outcome {
            tracing::debug!(%address, %error, "cannot enlarge a socket buffer");
        }
    }
    let mut config = match reset_key {
        Some(key) => EndpointConfig::new(Arc::new(ResetKey(key))),
        None => EndpointConfig::default(),
    };
    if reset_key.is_some() {
        config.cid_generator(|| Box::new(AnyConnectionId));
    }
    config.max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX).map_err(|error| TransportError::Config {
        detail: format!("the UDP payload size: {error}"),
    })?;
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).map_err(bind)
}

/// How an endpoint accepts.
pub(super) fn server(crypto: Arc<QuicServerConfig>, incoming_max: usize) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .migration(false)
        .max_incoming(incoming_max)
        .incoming_buffer_size(64 * 1_024)
        .incoming_buffer_size_total(8 * 1_024 * 1_024);
    config
}

/// Sends a stranger the token that proves its address, and says whether it is proven already.
pub(super) fn validated(incoming: Incoming) -> Option<Incoming> {
    if incoming.remote_address_validated() || !incoming.may_retry() {
        return Some(incoming);
    }
    if let Err(error) = incoming.retry() {
        tracing::debug!(%error, "cannot ask for an address to be validated");
    }
    None
}

/// Closes a connection with a code and words that the other side gets to see.
pub(super) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    let reason = crate::message::short(reason);
    connection.close(VarInt::from_u32(code.number()), reason.as_bytes());
}

/// Keeps stateless resets valid over a restart, so that the other side notices it at once and not
/// only after the idle timeout.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // The comparison of hashes takes constant time.
        let signature = <[u8; 32]>::try_from(signature).map_err(|_| CryptoError)?;
        match blake3::keyed_hash(&self.0, data) == blake3::Hash::from(signature) {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

/// Random connection ids, any of which is taken for one of an earlier process of this node:
/// quinn's own generator would not answer them with a reset.
struct AnyConnectionId;

const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for AnyConnectionId {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut id)
            .expect("the system's randomness was there when the keys were made");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_key_verifies_only_what_it_signed() {
        let key = ResetKey([7; 32]);
        let mut signature = [0; 32];
        key.sign(b"connection", &mut signature);
        assert!(key.verify(b"connection", &signature).is_ok());
        assert!(key.verify(b"another", &signature).is_err());
        assert!(ResetKey([8; 32]).verify(b"connection", &signature).is_err());
        assert!(key.verify(b"connection", &signature[..16]).is_err());
    }

    #[test]
    fn a_taken_address_is_an_error_that_names_it() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let error = open(address, None, None, 1 << 16).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
