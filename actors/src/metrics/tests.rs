//! The endpoint against clients that do not mean well.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CONNECTIONS_MAX, HTTP_TIMEOUT, Http, REQUEST_MAX_BYTES, Source, Verdict};

struct Fixed(Verdict);

impl Source for Fixed {
    fn metrics(&self) -> String {
        "dwell_test 1\n".into()
    }

    fn live(&self) -> Verdict {
        Verdict::Well
    }

    fn ready(&self) -> Verdict {
        self.0.clone()
    }
}

fn start() -> Http {
    let ill = Verdict::Ill("not registered".into());
    Http::start(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(Fixed(ill))).unwrap()
}

fn connect(http: &Http) -> TcpStream {
    let stream = TcpStream::connect(http.address()).unwrap();
    stream.set_read_timeout(Some(HTTP_TIMEOUT * 5)).unwrap();
    stream
}

fn ask(http: &Http, request: &[u8]) -> String {
    let mut stream = connect(http);
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn each_path_has_its_answer_and_everything_else_a_status_that_says_what_is_wrong() {
    let http = start();
    let metrics = ask(&http, b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(
        metrics.starts_with("HTTP/1.1 200 OK\r\n") && metrics.ends_with("\r\n\r\ndwell_test 1\n"),
        "{metrics}"
    );
    assert!(ask(&http, b"GET /livez HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok\n"));
    let ready = ask(&http, b"GET /readyz HTTP/1.1\r\n\r\n");
    assert!(
        ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("not registered\n"),
        "{ready}"
    );
    let head = ask(&http, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(
        head.contains("Content-Length: 13\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    for (request, status) in [
        (
            &b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"[..],
            "405 ",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "404 "),
        (b"GET /../metrics HTTP/1.1\r\n\r\n", "404 "),
        (b"GET /metrics HTTP/2.0\r\n\r\n", "505 "),
        (b"GET /metrics\r\n\r\n", "400 "),
        (b"\xff\xfe /metrics HTTP/1.1\r\n\r\n", "400 "),
        (b"\r\n\r\n", "400 "),
    ] {
        let answer = ask(&http, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[test]
fn a_request_that_is_too_long_is_refused_and_not_kept() {
    let http = start();
    let mut long = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    long.resize(REQUEST_MAX_BYTES * 4, b'x');
    let answer = ask(&http, &long);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// As many as are answered at a time say nothing at all, and more come: the honest one is served when their time is over.
#[test]
fn connections_that_say_nothing_hold_their_places_for_two_seconds_and_no_longer() {
    let http = start();
    let silent: Vec<_> = (0..CONNECTIONS_MAX * 2).map(|_| connect(&http)).collect();
    let begun = Instant::now();
    loop {
        let mut stream = connect(&http);
        let mut answer = String::new();
        drop(stream.write_all(b"GET /livez HTTP/1.1\r\n\r\n"));
        if stream.read_to_string(&mut answer).is_ok() && answer.contains("200 OK") {
            break;
        }
        assert!(begun.elapsed() < HTTP_TIMEOUT * 5, "nobody is served any more");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    drop(silent);
}

#[test]
fn a_request_that_comes_byte_by_byte_is_given_up_when_its_time_is_over() {
    let http = start();
    let mut stream = connect(&http);
    let begun = Instant::now();
    // Each byte comes in time, all of them together do not.
    while begun.elapsed() < HTTP_TIMEOUT * 5 {
        if stream.write_all(b"G").is_err() {
            break;
        }
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        if matches!(stream.read(&mut [0; 16]), Ok(0)) {
            break;
        }
    }
    assert!(begun.elapsed() < HTTP_TIMEOUT * 5, "it is still listened to");
}

#[test]
fn an_endpoint_that_is_dropped_listens_no_longer() {
    let http = start();
    let address = http.address();
    drop(http);
    let begun = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begun.elapsed() < HTTP_TIMEOUT * 5, "it still listens");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
