//! TLS below the frames, by rustls with ring. Sealed records do not need it: proxies and policies do, and it hides
//! the clear preamble with its token from the path.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error as RustlsError, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Bytes that TLS may hold back while the socket takes none.
pub const BUFFER_MAX_BYTES: usize = 64 * 1024;

/// TLS cannot be set up, or the peer is not who it should be.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read as PEM", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PemError,
    },
    /// A file has no certificate.
    #[error("{} has no certificate: give a PEM file with BEGIN CERTIFICATE in it", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not go together, or are of no use.
    #[error(
        "the certificate and its key cannot be used: give the chain, the server's first, and that one's key"
    )]
    Unusable(#[source] RustlsError),
    /// The name can be in no certificate.
    #[error("{host} is no name that a certificate can have: write the host as the certificate does")]
    Name {
        /// The host.
        host: String,
    },
    /// The server's certificate does not verify.
    #[error(
        "the certificate of {host} is not trusted: check the name, or name the authority that issued it (--tls-ca FILE)"
    )]
    Untrusted {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Box<RustlsError>,
    },
    /// The handshake failed otherwise.
    #[error("no TLS with {host}: check that it serves TLS on this port")]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match &error {
            TlsError::Untrusted { .. } | TlsError::Handshake { .. } => io::ErrorKind::InvalidData,
            TlsError::File { .. }
            | TlsError::NoCertificate { .. }
            | TlsError::Unusable(_)
            | TlsError::Name { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a listener proves: a certificate chain and its key.
#[derive(Clone)]
pub struct Certificate(TlsAcceptor);

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// Reads two PEM files: the chain, the server's own certificate first, and that one's private key.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let certificates = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
            path: key.to_owned(),
            source,
        })?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(TlsError::Unusable)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Answers a client. Deadlines are the caller's.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limited = |connection: &mut tokio_rustls::rustls::ServerConnection| {
            connection.set_buffer_limit(Some(BUFFER_MAX_BYTES));
        };
        Ok(Box::pin(self.0.accept_with(stream, limited)).await?.into())
    }
}

/// Whose certificates a dialler accepts. The default: those of the authorities that browsers trust, compiled in, so
/// that it is the same on every machine.
#[derive(Clone, Default)]
pub struct Trust(Option<Arc<ClientConfig>>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Trust(given)"
        } else {
            "Trust(web)"
        })
    }
}

impl Trust {
    /// Only what the authorities in this PEM file issued.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(authorities: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities)? {
            roots.add(certificate).map_err(TlsError::Unusable)?;
        }
        Ok(Self(Some(client_config(roots)?)))
    }

    /// Proves that `stream` leads to `host`. Deadlines are the caller's.
    ///
    /// # Errors
    /// [`TlsError`] says whether the host's certificate or the handshake is at fault.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match &self.0 {
            Some(config) => Arc::clone(config),
            None => client_config(RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            })?,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name { host: host.into() })?;
        let limited = |connection: &mut tokio_rustls::rustls::ClientConnection| {
            connection.set_buffer_limit(Some(BUFFER_MAX_BYTES));
        };
        let connected = Box::pin(TlsConnector::from(config).connect_with(name, stream, limited)).await;
        connected
            .map(TlsStream::from)
            .map_err(|error| refused(host, error))
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn refused(host: &str, error: io::Error) -> TlsError {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<RustlsError>());
    match cause {
        Some(cause @ RustlsError::InvalidCertificate(_)) => TlsError::Untrusted {
            host: host.into(),
            source: Box::new(cause.clone()),
        },
        Some(_) | None => TlsError::Handshake {
            host: host.into(),
            source: error,
        },
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(file)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(file)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}
