//! Who this machine is and whom it serves: the identity file and the list of authorized clients.
//!
//! Both are read with suspicion: a file that others could have written, or that does not parse to the last byte, is
//! an error that says what to do, and never a reason to make a new key or to serve fewer checks.

mod authorized;
mod error;
mod files;
mod hex;
mod identity;
mod low_order;

pub use authorized::{AUTHORIZED_CLIENTS_MAX, AUTHORIZED_CLIENTS_MAX_BYTES, AuthorizedClients, Reload};
pub use error::KeyError;
pub use identity::{Created, IDENTITY_FILE_MAX_BYTES, Identity};
