//! Addresses of the network: `host:port`, or a URL whose scheme says what carries the bytes.

use std::fmt;
use std::str::FromStr;

/// What lies between the socket and the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// Nothing: `host:port` or `tcp://`.
    Tcp,
    /// TLS: `tls://`.
    Tls,
    /// A WebSocket: `ws://`.
    Ws,
    /// A WebSocket in TLS: `wss://`.
    Wss,
}

impl Scheme {
    const ALL: [(&'static str, Self); 4] = [
        ("tcp", Self::Tcp),
        ("tls", Self::Tls),
        ("ws", Self::Ws),
        ("wss", Self::Wss),
    ];

    /// Whether TLS is in it.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether a WebSocket is in it.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// Where a connection goes. Its text is what it was made of, with `tcp://` left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetAddress {
    scheme: Scheme,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// `/` and what follows; a WebSocket's only.
    path: String,
}

/// The text is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{text}` is no address: write HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"
)]
pub struct AddressError {
    /// The text.
    pub text: String,
}

impl NetAddress {
    /// Reads an address; `default_port` stands in for a missing port, which is an error without one.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, AddressError> {
        Self::read(text, default_port).ok_or_else(|| AddressError { text: text.into() })
    }

    fn read(text: &str, default_port: Option<u16>) -> Option<Self> {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return None;
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((name, rest)) => {
                let known = Scheme::ALL
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name));
                (known?.1, rest)
            }
            None => (Scheme::Tcp, text),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        // A WebSocket's address goes into an HTTP request as it is.
        let of_no_request = |c: char| !c.is_ascii() || "#@?\"<>\\^`{|}".contains(c);
        let whole = match scheme {
            Scheme::Tcp | Scheme::Tls => path.is_empty() && !text.contains(['@', '?', '#']),
            Scheme::Ws | Scheme::Wss => !text.contains(of_no_request),
        };
        if !whole {
            return None;
        }
        let (host, port) = host_and_port(authority)?;
        Some(Self {
            scheme,
            host: host.into(),
            port: port.or(default_port)?,
            path: path.into(),
        })
    }

    /// What carries the bytes.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path; empty for what has none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let is_v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    if is_v6(authority) {
        return Some((authority, None));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        Some(_) | None => (authority, None),
    };
    match host.strip_prefix('[') {
        Some(rest) => {
            let inside = rest.strip_suffix(']')?;
            is_v6(inside).then_some((inside, port))
        }
        None => (!host.is_empty() && !host.contains([':', '[', ']'])).then_some((host, port)),
    }
}

impl FromStr for NetAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for NetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Tcp => {}
            Scheme::Tls => f.write_str("tls://")?,
            Scheme::Ws => f.write_str("ws://")?,
            Scheme::Wss => f.write_str("wss://")?,
        }
        write!(f, "{}{}", self.authority(), self.path)
    }
}
