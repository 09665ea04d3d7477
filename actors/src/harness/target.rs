//! Which executor, and how it is reached.

use dwell_messages::PublicKey;

use super::foreign;
use crate::address::Address;

/// Which executor, and how it is reached.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) address: Address,
    pub(crate) executor: PublicKey,
    pub(crate) relayed: bool,
    pub(crate) token: Vec<u8>,
    /// Set where it is no executor of dwell's.
    pub(crate) foreign: Option<foreign::Place>,
}

impl Target {
    /// The executor of this key, through a relay.
    pub fn relay(address: impl Into<Address>, executor: PublicKey) -> Self {
        Self {
            address: address.into(),
            executor,
            relayed: true,
            token: Vec::new(),
            foreign: None,
        }
    }

    /// The executor of this key, which listens itself.
    pub fn direct(address: impl Into<Address>, executor: PublicKey) -> Self {
        Self {
            address: address.into(),
            executor,
            relayed: false,
            token: Vec::new(),
            foreign: None,
        }
    }

    /// A server of the JSON dialect, such as a stock `codex exec-server`, at `ws://host:port` and a path if it has one.
    /// Commands run there as they do on an executor; what such a server does not do is refused by a typed error, among it
    /// files, workspaces, the end of a command's standard input and commands that run on without a client.
    ///
    /// **Nothing is sealed, and nobody proves who they are**: for loopback, or for what a tunnel protects.
    pub fn dialect(url: impl Into<String>) -> Self {
        let url = url.into();
        Self {
            address: Address::from(url.clone()),
            executor: PublicKey([0; 32]),
            relayed: false,
            token: Vec::new(),
            foreign: Some(foreign::Place { url, token: None }),
        }
    }

    /// The relay's admission token, at most 255 bytes. To a server of the JSON dialect: what it is told as
    /// `Authorization: Bearer`.
    #[must_use]
    pub fn token(mut self, token: impl Into<Vec<u8>>) -> Self {
        self.token = token.into();
        if let Some(foreign) = &mut self.foreign {
            foreign.token = Some(String::from_utf8_lossy(&self.token).into_owned());
        }
        self
    }
}
