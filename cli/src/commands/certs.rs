//! `parsec certs`: makes the certificates of a cluster.

use std::path::Path;

use parsec_protocol::NodeId;
use parsec_protocol::transport::tls::{CertificateAuthority, IdentityFiles};

use crate::failure::{Context, Failure, failed};

/// Makes a CA and a certificate for each node, in the layout that development certificates have
/// too: `ca/ca.pem`, `ca/ca.key`, and for each node `node-N/node.pem` and `node-N/node.key`.
///
/// # Errors
/// If the directory is not empty, or can't be written.
pub fn certs(out: &Path, nodes: u16, names: &[String]) -> Result<(), Failure> {
    if nodes == 0 {
        return Err(failed("--nodes must be at least 1"));
    }
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let hint = "choose another directory, or remove it if no cluster uses it";
        return Err(failed(format!("{} is not empty: {hint}", out.display())));
    }
    let create = |path: &Path| {
        std::fs::create_dir_all(path).context(format!("can't make {}", path.display()))
    };
    let ca = out.join("ca");
    create(&ca)?;
    let authority = CertificateAuthority::new().map_err(failed)?;
    authority.save(&ca.join("ca.pem"), &ca.join("ca.key")).map_err(failed)?;
    for node in 0..nodes {
        let home = out.join(format!("node-{node}"));
        create(&home)?;
        let files = IdentityFiles {
            ca: home.join("ca.pem"),
            certificate: home.join("node.pem"),
            key: home.join("node.key"),
        };
        let identity = authority.issue(NodeId(node), names).map_err(failed)?;
        identity.save(&files).map_err(failed)?;
    }
    println!("made a CA and {nodes} node certificates in {}", out.display());
    println!(
        "keep {} to yourself: whoever has it can join the cluster",
        ca.join("ca.key").display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use parsec_protocol::transport::tls::NodeIdentity;

    use super::*;

    #[test]
    fn what_was_made_loads_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["localhost".to_owned()];
        certs(directory.path(), 2, &names).unwrap();
        let home = directory.path().join("node-1");
        let files = IdentityFiles {
            ca: directory.path().join("ca/ca.pem"),
            certificate: home.join("node.pem"),
            key: home.join("node.key"),
        };
        assert_eq!(NodeIdentity::load(NodeId(1), &files).unwrap().node(), NodeId(1));
        assert!(certs(directory.path(), 2, &names).unwrap_err().to_string().contains("not empty"));
    }
}
