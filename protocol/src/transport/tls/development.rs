//! Certificates that make themselves, for clusters on one machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CertificateAuthority, IdentityFiles, NodeIdentity, TlsError};
use crate::placement::NodeId;

/// The identity of `node` in a cluster on this machine, from files below `directory`, which are
/// made if they are absent: `ca/ca.pem`, `ca/ca.key`, and `node-<id>/` with `node.pem` and
/// `node.key`. Several processes may do so at the same time: all get the same CA.
///
/// Whoever reads the directory can pose as any node. Check every address that is listened on with
/// [`ensure_loopback`](super::ensure_loopback).
///
/// # Errors
/// [`TlsError::Io`], and those of [`NodeIdentity::load`].
pub fn development_identity(directory: &Path, node: NodeId) -> Result<NodeIdentity, TlsError> {
    let authority = development_authority(directory)?;
    let home = directory.join(format!("node-{}", node.0));
    make_once(&home, |fresh| {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        authority.issue(node, &names)?.save(&files(fresh, fresh.join("ca.pem")))
    })?;
    NodeIdentity::load(node, &files(&home, directory.join("ca/ca.pem")))
}

/// The CA below `directory`, made if it is absent. Its certificate is in `ca/ca.pem`.
///
/// # Errors
/// [`TlsError::Io`], and those of [`CertificateAuthority::load`].
pub fn development_authority(directory: &Path) -> Result<CertificateAuthority, TlsError> {
    std::fs::create_dir_all(directory).map_err(TlsError::io("create", directory))?;
    let home = directory.join("ca");
    make_once(&home, |fresh| {
        CertificateAuthority::new()?.save(&fresh.join("ca.pem"), &fresh.join("ca.key"))
    })?;
    CertificateAuthority::load(&home.join("ca.pem"), &home.join("ca.key"))
}

fn files(home: &Path, ca: PathBuf) -> IdentityFiles {
    IdentityFiles { ca, certificate: home.join("node.pem"), key: home.join("node.key") }
}

/// Makes a directory with its content at once, unless it exists or somebody else is faster.
fn make_once(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TlsError>,
) -> Result<(), TlsError> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    if target.exists() {
        return Ok(());
    }
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let fresh = target.with_extension(format!("{}-{number}.tmp", std::process::id()));
    std::fs::create_dir(&fresh).map_err(TlsError::io("create", &fresh))?;
    let made = fill(&fresh).and_then(|()| {
        // ORDER: the content is complete before the name appears; a directory that is not empty
        // can't be replaced, so the first one stays.
        match std::fs::rename(&fresh, target) {
            Err(_) if target.exists() => Ok(()),
            renamed => renamed.map_err(TlsError::io("create", target)),
        }
    });
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh).map_err(TlsError::io("remove", &fresh))?;
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_get_one_authority() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("certificates");
        let pems: Vec<_> = std::thread::scope(|scope| {
            let identity = |node: u16| development_identity(&root, NodeId(node % 3)).unwrap();
            let threads: Vec<_> = (0..12)
                .map(|node| scope.spawn(move || identity(node).trust().pem().to_owned()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(pems.iter().all(|pem| *pem == pems[0]));
        let mut names: Vec<_> = std::fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["ca", "node-0", "node-1", "node-2"]);
    }

    #[test]
    fn an_identity_stays_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let keys = [(); 2]
            .map(|()| development_identity(directory.path(), NodeId(1)).unwrap().reset_key());
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn a_damaged_directory_is_an_error_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("ca")).unwrap();
        std::fs::write(directory.path().join("ca/notes"), "mine").unwrap();
        assert!(matches!(
            development_identity(directory.path(), NodeId(1)),
            Err(TlsError::Io { action: "read", .. })
        ));
        assert!(directory.path().join("ca/notes").exists());
    }
}
