use dwell_messages::http::ExchangeId;
use serde_bytes::ByteBuf;

use super::*;

fn open(method: &str, url: &str, headers: &[(&str, &str, Option<&str>)]) -> Open {
    let header = |(name, value, variable): &(&str, &str, Option<&str>)| SentHeader {
        name: (*name).into(),
        value: ByteBuf::from(value.as_bytes()),
        variable: variable.map(str::to_owned),
    };
    Open {
        exchange: ExchangeId(1),
        method: method.into(),
        url: url.into(),
        headers: headers.iter().map(header).collect(),
        redirects: Redirects::Follow,
        timeout_ms: None,
        body_bytes: 0,
        data: Bytes::new(),
    }
}

fn variable(name: &str) -> Option<Vec<u8>> {
    match name {
        "TOKEN" => Some(b"secret".to_vec()),
        "EMPTY" => Some(Vec::new()),
        "LINES" => Some(b"a\r\nb: c".to_vec()),
        _ => None,
    }
}

fn prepared(open: &Open) -> Sending {
    let mut sending = Sending::new(open, variable).unwrap();
    sending.body = Bytes::from_static(b"body");
    sending
}

fn refusal(open: &Open) -> String {
    let error = Sending::new(open, variable).err().expect("it cannot be sent");
    assert_eq!(error.code, ErrorCode::BadRequest);
    error.message
}

fn text<'a>(sending: &'a Sending, name: &str) -> Option<&'a str> {
    sending.headers.get(name).map(|value| value.to_str().unwrap())
}

/// One redirect on.
fn on(sending: &Sending, status: u16, location: &str) -> Result<Option<Sending>, WireError> {
    let location = HeaderValue::from_str(location).unwrap();
    match sending.then(StatusCode::from_u16(status).unwrap(), Some(&location))? {
        Then::Answer => Ok(None),
        Then::Again(next) => Ok(Some(*next)),
    }
}

fn followed(sending: &Sending, status: u16, location: &str) -> Sending {
    on(sending, status, location).unwrap().expect("it is followed")
}

#[test]
fn what_cannot_be_sent_is_told_apart_and_no_text_repeats_what_may_be_secret() {
    let url = "http://h/";
    for (open, told) in [
        (open("G T", url, &[]), "method is invalid"),
        (open("", url, &[]), "method is invalid"),
        (open("GET", "nonsense-secret", &[]), "url is invalid"),
        (
            open("GET", "ftp://secret/", &[]),
            "only supports http and https URLs, got ftp",
        ),
        (open("GET", url, &[("a b", "x", None)]), "header name is invalid"),
        (
            open("GET", url, &[("a", "secret\ny", None)]),
            "header value is invalid for a",
        ),
        (
            open("GET", url, &[("a", "x", Some("LINES"))]),
            "header value is invalid for a",
        ),
        (
            open("GET", url, &[("A", "secret", Some("NOPE"))]),
            "header A requires executor environment variable NOPE",
        ),
        (
            open("GET", url, &[("A", "secret", Some("EMPTY"))]),
            "header A requires a non-empty executor environment variable EMPTY",
        ),
    ] {
        let why = refusal(&open);
        assert!(why.starts_with(told) && !why.contains("secret"), "{why}");
    }
}

#[test]
fn a_header_keeps_its_repetitions_and_has_its_variable_behind_its_value() {
    let open = open(
        "GET",
        "http://h/",
        &[
            ("X-A", "1", None),
            ("x-a", "2", None),
            ("Authorization", "Bearer ", Some("TOKEN")),
        ],
    );
    let sending = prepared(&open);
    let both: Vec<_> = sending.headers.get_all("x-a").iter().collect();
    assert_eq!(both, ["1", "2"]);
    assert_eq!(text(&sending, "authorization"), Some("Bearer secret"));
    assert_eq!(
        text(&sending, "accept"),
        Some("*/*"),
        "unless it is asked for something"
    );
}

/// Whoever says how a message is framed could put a second one behind it.
#[test]
fn what_frames_a_message_is_not_the_clients() {
    let open = open(
        "POST",
        "http://h/",
        &[
            ("Content-Length", "1", None),
            ("Transfer-Encoding", "chunked", None),
            ("Connection", "upgrade", None),
            ("Upgrade", "h2c", None),
            ("X-Kept", "1", None),
        ],
    );
    let sending = prepared(&open);
    let names: Vec<_> = sending.headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(names, ["x-kept", "accept"]);
}

#[test]
fn a_url_is_what_is_asked_whom_and_a_name_in_it_is_a_header() {
    let sending = prepared(&open("GET", "https://us%65r:p%20w@[::1]:8443/a b?c=d#e", &[]));
    assert_eq!(sending.address(), Ok(("::1".into(), 8443)));
    assert_eq!(sending.target(), ("/a%20b?c=d", "[::1]:8443"));
    assert_eq!(text(&sending, "authorization"), Some("Basic dXNlcjpwIHc="));
    assert!(sending.is_secure());
    let plain = prepared(&open("GET", "http://h?q", &[]));
    assert_eq!(plain.address(), Ok(("h".into(), 80)));
    assert_eq!(plain.target(), ("/?q", "h"));
    let tunnel = prepared(&open("CONNECT", "http://h:1/a", &[]));
    assert_eq!(tunnel.target(), ("h:1", "h:1"), "it has no path");
}

#[test]
fn a_redirect_is_followed_as_its_number_says() {
    let post = prepared(&open("POST", "http://h/a/b", &[("Content-Type", "a/b", None)]));
    for (status, method, body) in [
        (301, "GET", ""),
        (302, "GET", ""),
        (303, "GET", ""),
        (307, "POST", "body"),
        (308, "POST", "body"),
    ] {
        let next = followed(&post, status, "../c?d");
        assert_eq!(
            (next.method.as_str(), &next.body[..]),
            (method, body.as_bytes()),
            "{status}"
        );
        assert_eq!(
            text(&next, "content-type").is_some(),
            !body.is_empty(),
            "{status}"
        );
        assert_eq!(next.target(), ("/c?d", "h"));
    }
    let put = prepared(&open("PUT", "http://h/", &[]));
    assert_eq!(followed(&put, 302, "/x").method, "PUT");
    assert_eq!(followed(&put, 303, "/x").method, "GET");
    let head = prepared(&open("HEAD", "http://h/", &[]));
    assert_eq!(followed(&head, 303, "/x").method, "HEAD");
}

#[test]
fn what_is_no_redirect_or_leads_nowhere_is_the_answer() {
    let get = prepared(&open("GET", "http://h/", &[]));
    for (status, location) in [(200, "/x"), (304, "/x"), (300, "/x"), (302, "http://[/")] {
        assert!(
            on(&get, status, location).unwrap().is_none(),
            "{status} {location}"
        );
    }
    assert!(matches!(get.then(StatusCode::FOUND, None), Ok(Then::Answer)));
    let mut stop = open("GET", "http://h/", &[]);
    stop.redirects = Redirects::Stop;
    assert!(on(&prepared(&stop), 302, "/x").unwrap().is_none());
}

#[test]
fn ten_redirects_are_followed_and_an_eleventh_is_an_error() {
    let mut sending = prepared(&open("GET", "http://h/", &[]));
    for _ in 0..REDIRECTS_MAX {
        sending = followed(&sending, 302, "/again");
    }
    let error = on(&sending, 302, "/again").err().unwrap();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::HttpFailed, "too many redirects")
    );
    let elsewhere = on(
        &prepared(&open("GET", "http://h/", &[])),
        302,
        "file:///etc/passwd",
    );
    assert_eq!(elsewhere.err().unwrap().code, ErrorCode::HttpFailed);
}

/// Whoever redirects elsewhere would have the key otherwise.
#[test]
fn secrets_go_to_the_server_they_are_for_and_to_no_other() {
    let get = prepared(&open(
        "GET",
        "https://h/",
        &[
            ("Authorization", "a", None),
            ("Cookie", "b", None),
            ("X-Key", "", Some("TOKEN")),
            ("Host", "other", None),
            ("X-Plain", "c", None),
        ],
    ));
    let names = |sending: &Sending| {
        let names = sending.headers.keys().map(|name| name.as_str().to_owned());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    for elsewhere in ["https://g/", "http://h/", "https://h:444/"] {
        let kept = names(&followed(&get, 302, elsewhere));
        assert!(kept.iter().eq(["accept", "x-plain"]), "{elsewhere}: {kept:?}");
    }
    assert_eq!(
        names(&followed(&get, 302, "https://h/other")).len(),
        6,
        "the control"
    );
}
