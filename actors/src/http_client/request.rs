//! What is sent, and what becomes of a redirect. Pure: the environment is an argument.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dwell_messages::http::{Open, Redirects, SentHeader};
use dwell_messages::{ErrorCode, WireError};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION,
    CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, StatusCode};
use url::{Host, Position, Url};

use super::REDIRECTS_MAX;

/// What frames a message on its connection: that is this side's own, and nobody smuggles anything by it.
const OURS: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
    TE,
    TRAILER,
];
/// What is for the server that it was said to, and for no other.
const SECRET: [HeaderName; 4] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, HOST];
/// What describes a body, and goes with it.
const OF_A_BODY: [HeaderName; 4] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION];

/// A request on its way, of which nothing is wrong.
pub(super) struct Sending {
    pub(super) method: Method,
    url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    redirects: Redirects,
    followed: u32,
    /// Headers whose value is partly the environment's.
    of_environment: Vec<HeaderName>,
}

/// What an answer's head means.
pub(super) enum Then {
    /// It is the answer.
    Answer,
    /// There is one more request to make.
    Again(Box<Sending>),
}

fn bad(text: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::BadRequest, text)
}

impl Sending {
    /// Of what was asked, without its body. `variable` says what the environment has under a name.
    ///
    /// # Errors
    /// `BadRequest` says what cannot be sent. None repeats a URL or a value: they may hold secrets.
    pub(super) fn new(open: &Open, variable: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self, WireError> {
        let method = Method::from_bytes(open.method.as_bytes())
            .map_err(|error| bad(format!("method is invalid: {error}")))?;
        let mut url = Url::parse(&open.url).map_err(|error| bad(format!("url is invalid: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            let text = format!("only supports http and https URLs, got {}", url.scheme());
            return Err(bad(text));
        }
        let (mut headers, of_environment) = headers(&open.headers, variable)?;
        if let Some(basic) = credentials(&mut url) {
            headers.entry(AUTHORIZATION).or_insert(basic);
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        Ok(Self {
            method,
            url,
            headers,
            body: Bytes::new(),
            redirects: open.redirects,
            followed: 0,
            of_environment,
        })
    }

    /// Where to: a name or an address without brackets, and the port.
    ///
    /// # Errors
    /// The URL names no host.
    pub(super) fn address(&self) -> Result<(String, u16), WireError> {
        let host = match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(bad("url is invalid: it names no host")),
        };
        let port = self.url.port_or_known_default().unwrap_or(80);
        Ok((host, port))
    }

    pub(super) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// What stands behind the method, and what `Host` says.
    pub(super) fn target(&self) -> (&str, &str) {
        let authority = &self.url[Position::BeforeHost..Position::AfterPort];
        if self.method == Method::CONNECT {
            return (authority, authority);
        }
        (&self.url[Position::BeforePath..Position::AfterQuery], authority)
    }

    /// How often it was sent on.
    pub(super) fn followed(&self) -> u32 {
        self.followed
    }

    /// What is next when this is the head of the answer. A redirect that leads nowhere is the answer.
    ///
    /// # Errors
    /// It was sent on too often, or to what is no HTTP.
    pub(super) fn then(&self, status: StatusCode, location: Option<&HeaderValue>) -> Result<Then, WireError> {
        let failed = |text: &str| Err(WireError::new(ErrorCode::HttpFailed, text));
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        if self.redirects == Redirects::Stop || !is_redirect {
            return Ok(Then::Answer);
        }
        let location = location.and_then(|location| std::str::from_utf8(location.as_bytes()).ok());
        let Some(mut url) = location.and_then(|location| self.url.join(location).ok()) else {
            return Ok(Then::Answer);
        };
        if self.followed >= REDIRECTS_MAX {
            return failed("too many redirects");
        }
        if !matches!(url.scheme(), "http" | "https") {
            return failed("it was redirected to what is neither http nor https");
        }
        let mut headers = self.headers.clone();
        if url.origin() != self.url.origin() {
            for name in SECRET.iter().chain(&self.of_environment) {
                headers.remove(name);
            }
        }
        if let Some(basic) = credentials(&mut url) {
            headers.entry(AUTHORIZATION).or_insert(basic);
        }
        let (mut method, mut body) = (self.method.clone(), self.body.clone());
        let asks_anew = match status.as_u16() {
            303 => method != Method::HEAD,
            301 | 302 => method == Method::POST,
            _ => false,
        };
        if asks_anew {
            (method, body) = (Method::GET, Bytes::new());
            for name in OF_A_BODY {
                headers.remove(name);
            }
        }
        Ok(Then::Again(Box::new(Self {
            method,
            url,
            headers,
            body,
            redirects: self.redirects,
            followed: self.followed + 1,
            of_environment: self.of_environment.clone(),
        })))
    }
}

/// The headers, and which of them have something of the environment in them.
fn headers(
    sent: &[SentHeader],
    variable: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(HeaderMap, Vec<HeaderName>), WireError> {
    let (mut headers, mut of_environment) = (HeaderMap::with_capacity(sent.len()), Vec::new());
    for header in sent {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|error| bad(format!("header name is invalid: {error}")))?;
        let mut value = header.value.to_vec();
        if let Some(wanted) = &header.variable {
            let of_it = match variable(wanted) {
                None => Some("executor environment variable"),
                Some(found) if found.is_empty() => Some("a non-empty executor environment variable"),
                Some(found) => {
                    value.extend_from_slice(&found);
                    None
                }
            };
            if let Some(what) = of_it {
                return Err(bad(format!("header {} requires {what} {wanted}", header.name)));
            }
            of_environment.push(name.clone());
        }
        let mut value = HeaderValue::from_bytes(&value)
            .map_err(|error| bad(format!("header value is invalid for {}: {error}", header.name)))?;
        value.set_sensitive(header.variable.is_some());
        if !OURS.contains(&name) {
            headers.append(name, value);
        }
    }
    Ok((headers, of_environment))
}

/// Takes a name and a password out of a URL, as a header says them.
fn credentials(url: &mut Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut both = unescaped(url.username());
    both.push(b':');
    both.extend(unescaped(url.password().unwrap_or_default()));
    // A URL with a host takes both.
    url.set_username("").ok();
    url.set_password(None).ok();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(both))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Bytes of what a URL has escaped.
fn unescaped(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
