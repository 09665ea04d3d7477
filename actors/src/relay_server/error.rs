//! Why a relay did not start.

use std::io;

use dwell_relay::random::RandomnessFailed;

use crate::runtime::RuntimeError;

/// A relay did not start. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Others could use it as theirs.
    #[error(
        "{address} can be reached from other machines and nothing says who may use the relay: give it an allow file, or listen on 127.0.0.1"
    )]
    OpenBeyondLoopback {
        /// Where it would have listened.
        address: String,
    },
    /// The address could not be listened on.
    #[error("the relay could not listen on {address}: free the address or choose another")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// No key pair could be made.
    #[error("no identity could be made for the relay")]
    Identity(#[from] RandomnessFailed),
    /// The collector's thread could not be started.
    #[error("the relay's collector could not be started: raise the thread limit")]
    Collector(#[source] io::Error),
    /// The actor threads could not be started.
    #[error("the relay has no thread to run on")]
    Runtime(#[from] RuntimeError),
    /// It cannot be looked at as was asked.
    #[error(transparent)]
    Oversight(#[from] crate::oversight::OversightError),
    /// The given runtime has ended.
    #[error("the actor threads that the relay was given have ended: start a new runtime")]
    RuntimeEnded,
}
