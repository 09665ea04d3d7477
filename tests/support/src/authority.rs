//! A certificate authority of a test's own, and what it issued to a listener.

use std::io;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// PEM files in a directory that goes away with the test: `ca.pem`, `cert.pem` (for `localhost`, `127.0.0.1` and
/// `::1`) and `key.pem`.
#[derive(Debug)]
pub struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    /// Makes the keys and issues the certificate.
    ///
    /// # Errors
    /// When the directory for temporary files takes none, or no key can be made.
    pub fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("dwell-tls-").tempdir()?;
        let [ca, certificate, key] = issue().map_err(io::Error::other)?;
        std::fs::write(directory.path().join("ca.pem"), ca)?;
        std::fs::write(directory.path().join("cert.pem"), certificate)?;
        std::fs::write(directory.path().join("key.pem"), key)?;
        Ok(Self { directory })
    }

    /// The path of one of the files, or of one that is not there.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn issue() -> Result<[String; 3], rcgen::Error> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok([ca_pem, certificate.pem(), key.serialize_pem()])
}
