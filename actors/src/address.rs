//! Where a role is reached.

use std::fmt;
use std::io;

use dwell_relay::driver::memory::Hub;
use dwell_relay::driver::{Connection, tcp};

/// An address: TCP, or a name in a hub of this process.
#[derive(Clone)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A name in a hub of this process: no sockets at all.
    Memory(Hub, String),
}

impl Address {
    pub(crate) async fn dial(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(address) => tcp::connect(address).await,
            Self::Memory(hub, name) => hub.connect(name).await,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Memory(_, name) => write!(f, "memory:{name}"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&str> for Address {
    fn from(address: &str) -> Self {
        Self::Tcp(address.to_owned())
    }
}

impl From<String> for Address {
    fn from(address: String) -> Self {
        Self::Tcp(address)
    }
}
