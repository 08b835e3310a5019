//! Keys and certificates: who is who among the hosts of a cluster.
//!
//! A cluster has one private certificate authority ([`CertificateAuthority`]). It issues one
//! certificate for each node, valid for the name [`node_name`], and for the names and addresses
//! under which clients know it. Hosts authenticate each other with it, both ways, and compare the
//! name with the node id that the other one claims; clients authenticate the server only, against
//! the CA's certificate ([`Trust`]). There is no way to accept just any certificate.
//!
//! TLS 1.3 only; no early data and no session resumption, which would skip the certificates.

mod authority;
mod development;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub use authority::{CertificateAuthority, Validity};
pub use development::{development_authority, development_identity};

use crate::placement::NodeId;

/// The protocol that hosts speak with one another.
pub const PEER_ALPN: &[u8] = b"parsec-peer/1";
/// The protocol that clients speak with a sequencer.
pub const CLIENT_ALPN: &[u8] = b"parsec-client/1";
/// The name that every node's certificate is valid for, besides its own: for clients that don't
/// mind which node they reach.
pub const CLUSTER_NAME: &str = "cluster.parsec";

/// The name in the certificate of a node.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("node-{}.parsec", node.0)
}

/// Why keys and certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done with it.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A text is no PEM, or holds something else.
    #[error("the {what} is not valid PEM: {detail}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A certificate is for somebody else, expired, from another CA, or does not fit its key.
    #[error(
        "the certificate of {node} is not usable: {detail}; issue it anew with the cluster's CA"
    )]
    Unusable {
        /// The node that was to use it.
        node: NodeId,
        /// What is wrong with it.
        detail: String,
    },
    /// The CA's certificate is not usable.
    #[error("the certificate of the CA is not usable: {detail}")]
    Authority {
        /// What is wrong with it.
        detail: String,
    },
    /// A key or certificate could not be made.
    #[error("cannot make a key or certificate: {detail}")]
    Make {
        /// What went wrong.
        detail: String,
    },
    /// Development certificates are for this machine only.
    #[error(
        "{address} is not a loopback address, and the certificates made for development are for \
         loopback only; name a CA, a certificate and a key in the configuration"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
}

impl TlsError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn make(error: impl std::fmt::Display) -> Self {
        Self::Make { detail: error.to_string() }
    }

    fn authority(error: impl std::fmt::Display) -> Self {
        Self::Authority { detail: error.to_string() }
    }
}

/// Refuses any but loopback addresses: what development certificates are for.
///
/// # Errors
/// [`TlsError::NotLoopback`].
pub fn ensure_loopback(address: SocketAddr) -> Result<(), TlsError> {
    let is_loopback = match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    };
    if is_loopback { Ok(()) } else { Err(TlsError::NotLoopback { address }) }
}

/// Where a node's keys and certificates are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The node's certificate, followed by any intermediate ones.
    pub certificate: PathBuf,
    /// The node's private key. Only its owner should be able to read it.
    pub key: PathBuf,
}

/// What a node proves its identity with. Made once, checked when made.
pub struct NodeIdentity {
    node: NodeId,
    trust: Trust,
    certificate_pem: String,
    key_pem: String,
    reset_key: [u8; 32],
    peer_server: Arc<QuicServerConfig>,
    peer_client: Arc<QuicClientConfig>,
    client_server: Arc<QuicServerConfig>,
}

impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not get into a log.
        f.debug_struct("NodeIdentity").field("node", &self.node).finish_non_exhaustive()
    }
}

impl NodeIdentity {
    /// The identity of `node` from PEM texts.
    ///
    /// # Errors
    /// [`TlsError::Pem`] and [`TlsError::Authority`] if they are not certificates and a key, and
    /// [`TlsError::Unusable`] if they don't belong together, to `node`, and to the present time.
    pub fn from_pem(
        node: NodeId,
        ca_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<Self, TlsError> {
        let trust = Trust::from_pem(ca_pem)?;
        let chain = certificates("certificate of the node", certificate_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| {
            TlsError::Pem { what: "key of the node", detail: error.to_string() }
        })?;
        check_certificate(node, &trust, &chain)
            .and_then(|()| Self::assemble(node, trust, &chain, &key))
            .map(|identity| Self {
                certificate_pem: certificate_pem.to_owned(),
                key_pem: key_pem.to_owned(),
                ..identity
            })
            .map_err(|error| TlsError::Unusable { node, detail: error.to_string() })
    }

    /// The identity of `node` from files.
    ///
    /// # Errors
    /// [`TlsError::Io`], and those of [`from_pem`](Self::from_pem).
    pub fn load(node: NodeId, files: &IdentityFiles) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(TlsError::io("read", path));
        warn_if_readable_by_others(&files.key);
        Self::from_pem(node, &read(&files.ca)?, &read(&files.certificate)?, &read(&files.key)?)
    }

    /// Writes certificate, key and the CA's certificate to new files; the key readable by its
    /// owner only.
    ///
    /// # Errors
    /// [`TlsError::Io`], also if the certificate or the key exists already.
    pub fn save(&self, files: &IdentityFiles) -> Result<(), TlsError> {
        if !files.ca.exists() {
            authority::write_new(&files.ca, &self.trust.pem, 0o644)?;
        }
        authority::write_new(&files.certificate, &self.certificate_pem, 0o644)?;
        authority::write_new(&files.key, &self.key_pem, 0o600)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What clients need to trust this node.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    fn assemble(
        node: NodeId,
        trust: Trust,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(trust.roots.clone(), provider()).build()?;
        let peers = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        let clients = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        let mut dial = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(trust.roots.clone())
            .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
        dial.resumption = Resumption::disabled();
        dial.alpn_protocols = vec![PEER_ALPN.to_vec()];
        Ok(Self {
            node,
            trust,
            certificate_pem: String::new(),
            key_pem: String::new(),
            reset_key: blake3::derive_key("parsec 2026 stateless reset", key.secret_der()),
            peer_server: Arc::new(without_resumption(peers, PEER_ALPN).try_into()?),
            peer_client: Arc::new(dial.try_into()?),
            client_server: Arc::new(without_resumption(clients, CLIENT_ALPN).try_into()?),
        })
    }

    /// A key for stateless resets that stays the same when the node restarts.
    pub(super) fn reset_key(&self) -> [u8; 32] {
        self.reset_key
    }

    /// For the endpoint of peers: both sides must show a certificate.
    pub(super) fn peer_server(&self) -> Arc<QuicServerConfig> {
        self.peer_server.clone()
    }

    /// For dialling a peer.
    pub(super) fn peer_client(&self) -> Arc<QuicClientConfig> {
        self.peer_client.clone()
    }

    /// For the endpoint of clients: only this side shows a certificate.
    pub(super) fn client_server(&self) -> Arc<QuicServerConfig> {
        self.client_server.clone()
    }
}

/// What a client trusts: the certificates that one CA issued.
#[derive(Clone)]
pub struct Trust {
    pem: Arc<str>,
    roots: Arc<RootCertStore>,
    client: Arc<QuicClientConfig>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Trust in the CA whose certificate, or certificates while one replaces another, this is.
    ///
    /// # Errors
    /// [`TlsError::Pem`] or [`TlsError::Authority`] if there is none, or it is not usable.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("certificate of the CA", pem)? {
            roots.add(certificate).map_err(TlsError::authority)?;
        }
        let roots = Arc::new(roots);
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::authority)?
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        client.alpn_protocols = vec![CLIENT_ALPN.to_vec()];
        let client = QuicClientConfig::try_from(client).map_err(TlsError::authority)?;
        Ok(Self { pem: pem.into(), roots, client: Arc::new(client) })
    }

    /// Trust in the CA whose certificate is in that file.
    ///
    /// # Errors
    /// [`TlsError::Io`], and those of [`from_pem`](Self::from_pem).
    pub fn load(path: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&std::fs::read_to_string(path).map_err(TlsError::io("read", path))?)
    }

    /// The CA's certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For dialling as a client.
    pub(super) fn client(&self) -> Arc<QuicClientConfig> {
        self.client.clone()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn without_resumption(mut config: ServerConfig, alpn: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem { what, detail: error.to_string() })?;
    if chain.is_empty() {
        return Err(TlsError::Pem { what, detail: "it holds no certificate".into() });
    }
    Ok(chain)
}

/// Checks what the other side will check, so that a mistake shows at the start.
fn check_certificate(
    node: NodeId,
    trust: &Trust,
    chain: &[CertificateDer<'static>],
) -> Result<(), Box<dyn std::error::Error>> {
    let certificate = ParsedCertificate::try_from(&chain[0])?;
    verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &trust.roots,
        &chain[1..],
        UnixTime::now(),
        provider().signature_verification_algorithms.all,
    )?;
    Ok(verify_server_name(&certificate, &ServerName::try_from(node_name(node))?)?)
}

/// Whether a certificate, already verified to be from the CA, is that of `node`.
pub(super) fn names_node(certificate: &CertificateDer<'_>, node: NodeId) -> bool {
    let Ok(name) = ServerName::try_from(node_name(node)) else { return false };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

#[cfg(unix)]
fn warn_if_readable_by_others(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::metadata(key).is_ok_and(|file| file.permissions().mode() & 0o077 != 0) {
        tracing::warn!(key = %key.display(), "others may read this private key: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_others(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_one_node_only() {
        let ca = CertificateAuthority::new().unwrap();
        let issued = ca.issue(NodeId(3), &["10.0.0.3".into()]).unwrap();
        let chain = certificates("", &issued.certificate_pem).unwrap();
        assert!(names_node(&chain[0], NodeId(3)));
        assert!(!names_node(&chain[0], NodeId(33)));
        let error = NodeIdentity::from_pem(
            NodeId(4),
            ca.certificate_pem(),
            &issued.certificate_pem,
            &issued.key_pem,
        )
        .unwrap_err();
        assert!(matches!(error, TlsError::Unusable { node: NodeId(4), .. }), "{error}");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let [one, other] = [(); 2].map(|()| CertificateAuthority::new().unwrap());
        let [a, b] = [NodeId(1), NodeId(2)].map(|node| one.issue(node, &[]).unwrap());
        let identity = |ca: &CertificateAuthority, certificate: &str, key: &str| {
            NodeIdentity::from_pem(NodeId(1), ca.certificate_pem(), certificate, key)
        };
        assert!(identity(&one, &a.certificate_pem, &a.key_pem).is_ok());
        let of_another_ca = identity(&other, &a.certificate_pem, &a.key_pem);
        assert!(matches!(of_another_ca, Err(TlsError::Unusable { .. })));
        let with_another_key = identity(&one, &a.certificate_pem, &b.key_pem);
        assert!(matches!(with_another_key, Err(TlsError::Unusable { .. })));
        let without_key = identity(&one, &a.certificate_pem, "");
        assert!(matches!(without_key, Err(TlsError::Pem { .. })));
        assert!(matches!(Trust::from_pem(&a.key_pem), Err(TlsError::Pem { .. })));
    }

    #[test]
    fn an_expired_certificate_is_refused() {
        let ca = CertificateAuthority::new().unwrap();
        let day = std::time::Duration::from_secs(86_400);
        let now = std::time::SystemTime::now();
        let past = Validity { from: now - 3 * day, until: now - 2 * day };
        assert!(matches!(
            ca.issue_for(NodeId(1), &[], past),
            Err(TlsError::Unusable { detail, .. }) if detail.contains("xpired")
        ));
    }

    #[test]
    fn an_identity_comes_back_from_files_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        let files = IdentityFiles { ca: file("ca"), certificate: file("node"), key: file("key") };
        let ca = CertificateAuthority::new().unwrap();
        let identity = ca.issue(NodeId(7), &["parsec.example".into()]).unwrap();
        identity.save(&files).unwrap();
        let loaded = NodeIdentity::load(NodeId(7), &files).unwrap();
        assert_eq!(loaded.reset_key(), identity.reset_key());
        assert!(matches!(identity.save(&files), Err(TlsError::Io { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&files.key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_key_does_not_get_into_a_log() {
        let identity = CertificateAuthority::new().unwrap().issue(NodeId(1), &[]).unwrap();
        assert_eq!(format!("{identity:?}"), "NodeIdentity { node: NodeId(1), .. }");
    }

    #[test]
    fn only_loopback_addresses_pass() {
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            ensure_loopback(address.parse().unwrap()).unwrap();
        }
        for address in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[::ffff:10.0.0.1]:1"] {
            assert!(ensure_loopback(address.parse().unwrap()).is_err(), "{address}");
        }
    }
}
