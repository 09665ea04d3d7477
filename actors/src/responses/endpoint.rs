//! Where a model is asked: one address, spoken to by WebSocket and by POST. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where OpenAI's models are.
pub const ENDPOINT_DEFAULT: &str = "wss://api.openai.com/v1/responses";
/// Bytes of an endpoint's text.
pub const ENDPOINT_MAX_BYTES: usize = 2_048;

/// A server of the Responses API.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    secure: bool,
    host: String,
    port: u16,
    /// From the first slash on, query included.
    path: String,
}

/// Why a text is no endpoint. None repeats it: a query may hold secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// It begins with something else.
    #[error("an endpoint begins with wss:// or https://; ws:// and http:// are for this machine only")]
    Scheme,
    /// It has no host, or one that is none.
    #[error("an endpoint has a host behind its scheme, as in {ENDPOINT_DEFAULT}")]
    Host,
    /// Its port is no number from 1 to 65535.
    #[error("an endpoint's port is a number from 1 to 65535")]
    Port,
    /// There is a name or password before the host.
    #[error("an endpoint has no user or password in it: the key goes in the environment")]
    UserInfo,
    /// Its path has signs that none has, or it is too long.
    #[error(
        "an endpoint's path has visible ASCII only, and no fragment, and all of it at most {ENDPOINT_MAX_BYTES} bytes"
    )]
    Path,
    /// In the clear to another machine: whoever is between would have the key.
    #[error(
        "ws:// and http:// send everything in the clear, the key too, and are for loopback only: use wss://"
    )]
    Clear,
}

impl Endpoint {
    /// Whether it is reached through TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host's name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as errors name it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As a WebSocket's address.
    pub(super) fn ws_url(&self) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Whether it is on this machine, by its text.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Debug for Endpoint {
    /// Without the query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.authority())
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            secure: true,
            host: "api.openai.com".into(),
            port: 443,
            path: "/v1/responses".into(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.len() > ENDPOINT_MAX_BYTES {
            return Err(EndpointError::Path);
        }
        let (scheme, rest) = text.split_once("://").ok_or(EndpointError::Scheme)?;
        let secure = match scheme {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return Err(EndpointError::Scheme),
        };
        let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.contains('@') {
            return Err(EndpointError::UserInfo);
        }
        if path.contains('#') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(EndpointError::Path);
        }
        let (host, port) = split_port(authority)?;
        let endpoint = Self {
            secure,
            host,
            port: port.unwrap_or(if secure { 443 } else { 80 }),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        };
        if !secure && !endpoint.is_loopback() {
            return Err(EndpointError::Clear);
        }
        Ok(endpoint)
    }
}

fn split_port(authority: &str) -> Result<(String, Option<u16>), EndpointError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(EndpointError::Host)?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| EndpointError::Host)?;
            match after {
                "" => (host, None),
                after => (host, Some(after.strip_prefix(':').ok_or(EndpointError::Host)?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_name = |host: &str| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
    };
    if host.is_empty() || !is_name(host) {
        return Err(EndpointError::Host);
    }
    let port = port
        .map(|port| {
            port.parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(EndpointError::Port)
        })
        .transpose()?;
    Ok((host.to_owned(), port))
}
