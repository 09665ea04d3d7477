//! Why an executor does not serve.

use std::path::PathBuf;

use crate::dialect::DialectError;
use crate::oversight::OversightError;
use crate::runtime::RuntimeError;

/// Why an executor does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Neither a relay nor a listener was given.
    #[error("an executor needs a relay to register with, or an address to listen on")]
    Nowhere,
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}; choose another address, or end what listens there")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The relay cannot be reached or does not register this executor.
    #[error("the relay at {address} does not register this executor: {why}")]
    Register {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// The list of clients cannot be read.
    #[error(transparent)]
    Clients(#[from] crate::keys::KeyError),
    /// The audit file cannot be written.
    #[error("the audit file {} cannot be opened; make its directory writable, or name another", path.display())]
    Audit {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It cannot be looked at as was asked.
    #[error(transparent)]
    Oversight(#[from] OversightError),
    /// The JSON dialect is not served.
    #[error(transparent)]
    Dialect(#[from] DialectError),
    /// This side could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// This side could not be set up.
    #[error("this side could not be set up: {0}")]
    Local(String),
}
