//! Where a role is reached.

use std::fmt;
use std::io;

use dwell_relay::driver::memory::Hub;
use dwell_relay::driver::tls::Trust;
use dwell_relay::driver::{Connection, net};

/// An address: of the network, or a name in a hub of this process.
#[derive(Clone)]
pub enum Address {
    /// `host:port`, `tls://host:port`, `ws://host:port/path` or `wss://host:port/path`, and for those in TLS whose
    /// certificates are accepted.
    Net(String, Trust),
    /// A name in a hub of this process: no sockets at all.
    Memory(Hub, String),
}

impl Address {
    /// Accepts the certificates of these authorities, instead of those that browsers trust.
    #[must_use]
    pub fn trusting(self, trust: Trust) -> Self {
        match self {
            Self::Net(address, _) => Self::Net(address, trust),
            Self::Memory(..) => self,
        }
    }

    pub(crate) async fn dial(&self) -> io::Result<Connection> {
        match self {
            Self::Net(address, trust) => net::dial(address, trust).await,
            Self::Memory(hub, name) => hub.connect(name).await,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(address, _) => f.write_str(address),
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
        Self::from(address.to_owned())
    }
}

impl From<String> for Address {
    fn from(address: String) -> Self {
        Self::Net(address, Trust::default())
    }
}
