//! The private certificate authority of a cluster.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use super::{CLUSTER_NAME, NodeIdentity, TlsError, Trust, node_name};
use crate::placement::NodeId;

const DAY: Duration = Duration::from_secs(86_400);

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when on.
    pub from: SystemTime,
    /// Until when.
    pub until: SystemTime,
}

impl Validity {
    /// From yesterday, for hosts whose clocks are late, for some ten years.
    #[must_use]
    pub fn ten_years() -> Self {
        let now = SystemTime::now();
        Self { from: now - DAY, until: now + 3_650 * DAY }
    }
}

/// Issues the certificates of a cluster's nodes.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not get into a log.
        f.debug_struct("CertificateAuthority").finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// A new CA with a new key (ECDSA, P-256).
    ///
    /// # Errors
    /// [`TlsError::Make`] if the system has no randomness.
    pub fn new() -> Result<Self, TlsError> {
        let key = new_key()?;
        let mut parameters = Self::parameters();
        let validity = Validity::ten_years();
        parameters.not_before = validity.from.into();
        parameters.not_after = validity.until.into();
        let certificate = parameters.self_signed(&key).map_err(TlsError::make)?;
        Ok(Self::with_key(key, certificate.pem()))
    }

    /// The CA with this certificate and key, as PEM.
    ///
    /// # Errors
    /// [`TlsError::Pem`] and [`TlsError::Authority`] if they are not those of a CA that
    /// [`new`](Self::new) made.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| TlsError::Pem { what: "key of the CA", detail: error.to_string() })?;
        let authority = Self::with_key(key, certificate_pem.to_owned());
        // What it issues must verify against the certificate that hosts and clients are given:
        // the check of a trial certificate says whether the key is that of the certificate.
        authority.issue(NodeId(0), &[]).map_err(|error| TlsError::Authority {
            detail: format!("certificate and key don't belong together: {error}"),
        })?;
        Ok(authority)
    }

    /// The CA in these files.
    ///
    /// # Errors
    /// [`TlsError::Io`], and those of [`from_pem`](Self::from_pem).
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(TlsError::io("read", path));
        Self::from_pem(&read(certificate)?, &read(key)?)
    }

    /// Writes certificate and key to new files; the key readable by its owner only.
    ///
    /// # Errors
    /// [`TlsError::Io`], also if one of them exists already.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        write_new(certificate, &self.certificate_pem, 0o644)?;
        write_new(key, &self.issuer.key().serialize_pem(), 0o600)
    }

    /// The certificate, as PEM: what hosts and clients need to trust what it issues.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The same, parsed.
    ///
    /// # Errors
    /// [`TlsError::Authority`] never, for a CA that was made or loaded here.
    pub fn trust(&self) -> Result<Trust, TlsError> {
        Trust::from_pem(&self.certificate_pem)
    }

    /// A certificate and key for `node`, valid for [`node_name`], for [`CLUSTER_NAME`], and for
    /// these DNS names and IP addresses, for ten years.
    ///
    /// # Errors
    /// [`TlsError::Make`] if a name is none.
    pub fn issue(&self, node: NodeId, names: &[String]) -> Result<NodeIdentity, TlsError> {
        self.issue_for(node, names, Validity::ten_years())
    }

    /// The same with another validity.
    ///
    /// # Errors
    /// Also [`TlsError::Unusable`] if it is not valid now.
    pub fn issue_for(
        &self,
        node: NodeId,
        names: &[String],
        validity: Validity,
    ) -> Result<NodeIdentity, TlsError> {
        let key = new_key()?;
        let certificate = self.sign(node, names, validity, &key)?;
        NodeIdentity::from_pem(
            node,
            &self.certificate_pem,
            &certificate.pem(),
            &key.serialize_pem(),
        )
    }

    fn sign(
        &self,
        node: NodeId,
        names: &[String],
        validity: Validity,
        key: &KeyPair,
    ) -> Result<Certificate, TlsError> {
        let mut all = vec![node_name(node), CLUSTER_NAME.to_owned()];
        all.extend_from_slice(names);
        let mut parameters = CertificateParams::new(all).map_err(TlsError::make)?;
        parameters.distinguished_name = common_name(node_name(node));
        parameters.not_before = validity.from.into();
        parameters.not_after = validity.until.into();
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.signed_by(key, &self.issuer).map_err(TlsError::make)
    }

    /// What every CA made here has in common, so that its key alone is enough to sign again.
    fn parameters() -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = common_name("Parsec cluster CA".to_owned());
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters
    }

    fn with_key(key: KeyPair, certificate_pem: String) -> Self {
        Self { issuer: Issuer::new(Self::parameters(), key), certificate_pem }
    }
}

fn new_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::make)
}

fn common_name(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Writes a file that must not exist yet, with these permissions from the start.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _unused_here = mode;
    let mut file = options.open(path).map_err(TlsError::io("create", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(TlsError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_authority_issues_for_the_same_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("ca.pem"), directory.path().join("ca.key"));
        let made = CertificateAuthority::new().unwrap();
        made.save(&certificate, &key).unwrap();
        let loaded = CertificateAuthority::load(&certificate, &key).unwrap();
        assert_eq!(loaded.certificate_pem(), made.certificate_pem());
        // `issue` checks the new certificate against the CA's.
        loaded.issue(NodeId(5), &["192.0.2.1".into(), "host.example".into()]).unwrap();
    }

    #[test]
    fn the_key_of_another_authority_is_refused() {
        let [one, other] = [(); 2].map(|()| CertificateAuthority::new().unwrap());
        let mixed = CertificateAuthority::from_pem(
            one.certificate_pem(),
            &other.issuer.key().serialize_pem(),
        );
        assert!(matches!(mixed, Err(TlsError::Authority { .. })));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let authority = CertificateAuthority::new().unwrap();
        assert!(matches!(
            authority.issue(NodeId(1), &["grüße".into()]),
            Err(TlsError::Make { .. })
        ));
    }
}
