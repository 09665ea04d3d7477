//! What an HTTP request at the listener asks for, by its head alone. A pure core.
//!
//! One path is a WebSocket, one says that the executor is ready, and nothing is for browsers: a page must not reach what
//! listens on its reader's machine.

/// Bytes of a head.
pub(super) const HEAD_MAX_BYTES: usize = 16 * 1024;

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A WebSocket, by whoever holds this `Authorization`.
    Upgrade {
        /// What the answer is made of.
        key: String,
        /// The header's value.
        authorization: Option<String>,
    },
    /// Something that is answered and over.
    Plain(Answer),
}

/// An answer that is over with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    allow: Option<&'static str>,
    body: &'static str,
}

impl Answer {
    fn new(status: &'static str, body: &'static str) -> Self {
        Self {
            status,
            allow: None,
            body,
        }
    }

    /// Whoever asks has not said who it is, or not so that it is believed.
    pub(super) fn unauthorized(why: &'static str) -> Self {
        Self::new("401 Unauthorized", why)
    }

    /// As it is written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let allow = self
            .allow
            .map(|methods| format!("allow: {methods}\r\n"))
            .unwrap_or_default();
        let kind = if self.body.is_empty() {
            ""
        } else {
            "content-type: text/plain; charset=utf-8\r\n"
        };
        format!(
            "HTTP/1.1 {}\r\n{allow}{kind}content-length: {}\r\nconnection: close\r\n\r\n{}",
            self.status,
            self.body.len(),
            self.body
        )
        .into_bytes()
    }
}

/// The answer to an upgrade that is granted.
pub(super) fn switching(accept: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Where the head ends, if it has come as far as that.
pub(super) fn end_of(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Judges a head that is whole.
pub(super) fn judge(head: &[u8]) -> Asked {
    let Some(request) = Request::parse(head) else {
        return Asked::Plain(Answer::new("400 Bad Request", "this is no HTTP/1.1 request"));
    };
    if request.header("origin").is_some() {
        return Asked::Plain(Answer::new("403 Forbidden", ""));
    }
    let path = request.target.split('?').next().unwrap_or_default();
    match (path, request.method) {
        ("/readyz", "GET" | "HEAD") => Asked::Plain(Answer::new("200 OK", "")),
        ("/readyz", _) => Asked::Plain(Answer {
            allow: Some("GET,HEAD"),
            ..Answer::new("405 Method Not Allowed", "")
        }),
        ("/", "GET") => request.upgrade(),
        ("/", _) => Asked::Plain(Answer::new(
            "405 Method Not Allowed",
            "a WebSocket begins with GET",
        )),
        _ => Asked::Plain(Answer::new("404 Not Found", "")),
    }
}

struct Request<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Request<'a> {
    fn parse(head: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target, version) = (first.next()?, first.next()?, first.next()?);
        if first.next().is_some() || version != "HTTP/1.1" || !target.starts_with('/') {
            return None;
        }
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return None;
            }
            headers.push((name, value.trim_matches([' ', '\t'])));
        }
        Some(Self {
            method,
            target,
            headers,
        })
    }

    /// The first header of a name.
    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    fn has_word(&self, name: &str, word: &str) -> bool {
        self.headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|known| known.trim().eq_ignore_ascii_case(word))
    }

    fn upgrade(&self) -> Asked {
        let refused = |why| Asked::Plain(Answer::new("400 Bad Request", why));
        if !self.has_word("connection", "upgrade") || !self.has_word("upgrade", "websocket") {
            return refused("this is a WebSocket endpoint");
        }
        if self.header("sec-websocket-version") != Some("13") {
            return refused("the WebSocket version is 13");
        }
        match self.header("sec-websocket-key") {
            Some(key) if !key.is_empty() => Asked::Upgrade {
                key: key.to_owned(),
                authorization: self.header("authorization").map(str::to_owned),
            },
            Some(_) | None => refused("a WebSocket begins with a key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn judged(first: &str, headers: &str) -> Asked {
        judge(format!("{first} HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes())
    }

    fn status(asked: &Asked) -> &str {
        match asked {
            Asked::Plain(answer) => &answer.status[..3],
            Asked::Upgrade { .. } => "101",
        }
    }

    #[test]
    fn one_path_is_a_websocket_and_one_says_that_it_is_ready() {
        assert_eq!(status(&judged("GET /", UPGRADE)), "101");
        assert_eq!(status(&judged("GET /?a=b", UPGRADE)), "101");
        assert_eq!(status(&judged("GET /foo", UPGRADE)), "404");
        for path in ["/healthz", "/health", "/livez", "/metrics"] {
            assert_eq!(status(&judged(&format!("GET {path}"), "")), "404");
        }
        assert_eq!(status(&judged("GET /readyz", "")), "200");
        assert_eq!(status(&judged("HEAD /readyz", "")), "200");
        let refused = judged("POST /readyz", "");
        let Asked::Plain(answer) = &refused else {
            panic!("no upgrade")
        };
        assert_eq!((status(&refused), answer.allow), ("405", Some("GET,HEAD")));
        assert_eq!(status(&judged("GET /", "")), "400");
        assert_eq!(status(&judged("POST /", UPGRADE)), "405");
        assert_eq!(status(&judged("GET /", &UPGRADE.replace("13", "8"))), "400");
    }

    #[test]
    fn nothing_is_for_browsers() {
        for origin in ["Origin: http://h\r\n", "origin:\r\n"] {
            for first in ["GET /", "GET /readyz", "GET /foo", "POST /"] {
                assert_eq!(status(&judged(first, &format!("{UPGRADE}{origin}"))), "403");
            }
        }
    }

    #[test]
    fn a_token_is_taken_from_its_header_alone() {
        let asked = judged(
            "GET /?token=a",
            &format!("{UPGRADE}AUTHORIZATION:  Bearer x \r\n"),
        );
        let Asked::Upgrade { authorization, .. } = asked else {
            panic!("an upgrade")
        };
        assert_eq!(authorization.as_deref(), Some("Bearer x"));
    }

    proptest! {
        #[test]
        fn any_head_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(judge(&bytes));
            let _ = end_of(&bytes);
        }
    }
}
