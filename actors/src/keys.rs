//! Who this machine is, whom it serves and whom it trusts: the identity file, `authorized_clients`, `known_executors`.
//!
//! All are read with suspicion: a file that others could have written, or that does not parse to the last byte, is
//! an error that says what to do, and never a reason to make a new key or to serve fewer checks.

mod authorized;
pub(crate) mod date;
mod error;
mod files;
mod grant;
mod hex;
mod identity;
mod known;
mod low_order;
mod scope;
mod trust_line;

pub use authorized::{
    AUTHORIZED_CLIENTS_MAX, AUTHORIZED_CLIENTS_MAX_BYTES, AuthorizedClients, Reload, parse_authorization,
};
pub use error::KeyError;
pub use grant::Grant;
pub use identity::{Created, IDENTITY_FILE_MAX_BYTES, Identity};
pub use known::{
    EXECUTOR_NAME_MAX_BYTES, ExecutorName, KNOWN_EXECUTORS_MAX, KNOWN_EXECUTORS_MAX_BYTES, KnownExecutor,
    KnownExecutors, KnownRoute, Pinned,
};
pub use scope::{Scope, ScopeSet};
pub use trust_line::{PairingCode, TrustLine};
