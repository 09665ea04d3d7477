//! Why there is no link to an executor.

use dwell_messages::{PublicKey, WireError};
use dwell_relay::fingerprint;

use crate::oversight::OversightError;
use crate::runtime::RuntimeError;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("{address} cannot be reached: start it, or correct the address")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Somebody answers there, but not as the address's scheme says, or without being trusted: TLS or the WebSocket
    /// failed, or the text is no address.
    #[error("{address} cannot be used")]
    Transport {
        /// What was dialled.
        address: String,
        /// Why; a `TlsError`, a `WebSocketError` or an `AddressError` is in it.
        #[source]
        source: std::io::Error,
    },
    /// This client is not served, or no such executor is there: both look the same from outside.
    #[error("{}", by.sentence(address, client))]
    HandshakeRefused {
        /// What was dialled.
        address: String,
        /// The key to list.
        client: PublicKey,
        /// Who refused, as far as it can be told.
        by: RefusedBy,
    },
    /// Another executor answers there than the one that is pinned, by its own word, which nobody has proven.
    #[error(
        "the executor at {address} says that its key is {}, and {} is pinned: nothing was sent to it. Either it has a \
         new key, or this is somebody else: ask its operator for the fingerprint by another way",
        fingerprint(served),
        fingerprint(pinned)
    )]
    ExecutorKeyMismatch {
        /// What was dialled.
        address: String,
        /// The key that was expected.
        pinned: PublicKey,
        /// The key that is served. Never act on it.
        served: PublicKey,
    },
    /// The other end speaks another version, or refuses in the clear.
    #[error("{0}")]
    Refused(String),
    /// The handshake or the link failed.
    #[error("the link to {address} failed: {why}")]
    Failed {
        /// What was dialled.
        address: String,
        /// Why.
        why: String,
    },
    /// The session that was to be taken up is not there, or not this client's: both look the same.
    #[error("there is no such session: it has ended, or the executor was restarted; see which there are")]
    NoSession,
    /// Somebody else has taken the session over meanwhile.
    #[error(
        "the session has owner {owner} by now, who was quicker: look at the list again, and take it up from there"
    )]
    Superseded {
        /// The present owner's number.
        owner: u64,
    },
    /// The session is there, and this key may not have it.
    #[error("the session cannot be taken up: {0}")]
    NotTakenUp(WireError),
    /// It cannot be looked at as was asked.
    #[error(transparent)]
    Oversight(#[from] OversightError),
    /// This side could not be set up.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// This side could not be set up.
    #[error("this side could not be set up: {0}")]
    Local(String),
}

/// Who refused a handshake. Unauthenticated: for the sentence, and for nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedBy {
    /// Whoever listens there says that it has the pinned key.
    Executor,
    /// Whoever listens there does not say which key it has.
    Silent,
    /// There is a relay in between, which does not tell one cause from another.
    Relay,
}

impl RefusedBy {
    fn sentence(self, address: &str, client: &PublicKey) -> String {
        match self {
            Self::Executor => format!(
                "the executor at {address} does not serve this client: its authorized_clients does not list {client}, \
                 or the line is out of date"
            ),
            Self::Silent => format!(
                "{address} refuses the handshake and does not say whose key it has: check that an executor listens \
                 there, that the key is its own, and that its authorized_clients lists {client}"
            ),
            Self::Relay => format!(
                "no executor of this key answers this client at {address}: check that it runs and is registered there, \
                 that the key is its own, and that its authorized_clients lists {client}; a relay does not tell these \
                 apart"
            ),
        }
    }
}
